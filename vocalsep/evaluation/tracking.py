"""The benchmark of tracking: f0 tracks of mixtures against those of their stems, and under degradations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import to_model_rate
from vocalsep.audio.downmix import Downmix
from vocalsep.evaluation.degrade import DEGRADATIONS
from vocalsep.evaluation.ensemble import Ensemble
from vocalsep.evaluation.f0_metrics import (
    CONFIDENCE_BINS,
    MELODY_METRICS,
    MULTIPITCH_METRICS,
    OUTCOMES,
    calibration,
    f_measure,
    melody_scores,
    multipitch_scores,
    outcomes,
)
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP

_LABEL, _CELL = 24, 10  # characters

Row = NDArray[np.float64]
"""A value for each voice, shape (voices,); NaN for a voice that does not sing."""


class TrackedEnsemble(NamedTuple):
    """True and tracked f0 of an ensemble, on one grid, the voices in one order."""

    label: str
    truth: F0Tracks
    estimate: F0Tracks


def track_ensemble(
    separator: Separator, ensemble: Ensemble, truth: F0Tracks, condition: str = "clean"
) -> TrackedEnsemble:
    """Track the f0 of an ensemble in its mixture, which is degraded by a condition in `DEGRADATIONS`.

    As in a separation, the estimated room is taken out of the mixture first. The truth is the f0 of the stems; it
    may hold further voices.
    """
    audio, sample_rate, moved = DEGRADATIONS[condition](ensemble.mixture, truth.select(ensemble.names))
    found = separator.analyse(Downmix.of_array(to_model_rate(audio, sample_rate)), voices=ensemble.names).tracks
    # Resampling can leave a frame more or less at the end.
    return TrackedEnsemble(ensemble.label, moved, found.resampled(HOP, moved.n_frames))


def f_table(tracked: Sequence[TrackedEnsemble], voices: Sequence[str]) -> dict[str, Row]:
    """Return the F-measures of all voices by number of voices, by ensemble, and over all.

    The row of a number of voices is the mean over its ensembles, the row "all" the mean over all ensembles. The labels
    of single ensembles are indented by two spaces.
    """
    sizes: dict[int, dict[str, Row]] = {}
    for item in tracked:
        row = _spread(item, voices, f_measure(item.truth.frequencies, item.estimate.frequencies))
        sizes.setdefault(item.truth.n_voices, {})[item.label] = row
    table: dict[str, Row] = {}
    for size, rows in sizes.items():
        table[f"{size} voices"] = _mean(list(rows.values()))
        if len(rows) > 1:
            table |= {f"  {label}": row for label, row in rows.items()}
    table["all"] = _mean([row for rows in sizes.values() for row in rows.values()])
    return table


def _spread(item: TrackedEnsemble, voices: Sequence[str], values: Row) -> Row:
    """Return values of the voices of an ensemble, shape (its voices, ...), as values of all voices."""
    table = np.full((len(voices), *values.shape[1:]), np.nan)
    table[[voices.index(name) for name in item.truth.names]] = values
    return table


def _mean(rows: Sequence[Row]) -> Row:
    """Return the mean over rows without NaN; NaN where there is nothing else."""
    mean: Row = np.ma.masked_invalid(np.stack(rows)).mean(axis=0).filled(np.nan)
    return mean


def format_f_table(title: str, table: Mapping[str, Row], voices: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table of F-measures: each voice, their mean, and the worst of them."""
    yield _line(title, [*voices, "mean", "worst"])
    for label, row in table.items():
        sung = row[~np.isnan(row)]
        summary = [sung.mean(), sung.min()] if sung.size else [np.nan, np.nan]
        yield _line(label, [_number(value) for value in (*row, *summary)])


def format_robustness(
    separator: Separator, ensembles: Sequence[Ensemble], truth: F0Tracks, voices: Sequence[str]
) -> Iterator[str]:
    """Yield the lines of a table of F-measures over all ensembles under each degradation."""
    table = {}
    for condition in DEGRADATIONS:
        tracked = [track_ensemble(separator, ensemble, truth, condition) for ensemble in ensembles]
        table[condition] = f_table(tracked, voices)["all"]
    return format_f_table("F at 50 cents, all", table, voices)


def format_tables(tracked: Sequence[TrackedEnsemble], voices: Sequence[str]) -> Iterator[str]:
    """Yield the lines of all tables for some ensembles: F, mir_eval's figures, kinds of mistakes, calibration."""
    pairs = [(item, item.truth.frequencies, item.estimate.frequencies) for item in tracked]
    yield from format_f_table("F at 50 cents", f_table(tracked, voices), voices)
    yield ""
    multipitch = _mean([multipitch_scores(true, found) for _, true, found in pairs])
    yield from _format_columns("mir_eval multipitch", MULTIPITCH_METRICS, {"all": multipitch}, 2)
    yield ""
    melody = _mean([_spread(item, voices, melody_scores(true, found)) for item, true, found in pairs])
    yield from _format_columns("mir_eval melody", MELODY_METRICS, dict(zip(voices, melody, strict=True)), 2)
    yield ""
    counts = np.nansum(
        [_spread(item, voices, outcomes(true, found).astype(float)) for item, true, found in pairs], axis=0
    )
    shares = {name: 100 * row / max(1, row.sum()) for name, row in zip(voices, counts, strict=True)}
    shares["all"] = 100 * counts.sum(axis=0) / max(1, counts.sum())
    yield from _format_columns("frames (%)", OUTCOMES, shares, 1)
    yield ""
    yield from format_calibration(tracked)


def format_calibration(tracked: Sequence[TrackedEnsemble]) -> Iterator[str]:
    """Yield the lines of the table of calibration, over all ensembles and voices."""
    confidences = [item.estimate.confidence for item in tracked]
    truth = np.concatenate([item.truth.frequencies.ravel() for item in tracked])
    estimate = np.concatenate([item.estimate.frequencies.ravel() for item in tracked])
    confidence = np.concatenate([found.ravel() for found in confidences if found is not None])
    found = calibration(truth[None], estimate[None], confidence[None])
    yield _line("confidence", ["frames", "mean", "right"])
    for low, frames, mean, right in zip(range(CONFIDENCE_BINS), *found, strict=True):
        edges = f"{low / CONFIDENCE_BINS:.1f} to {(low + 1) / CONFIDENCE_BINS:.1f}"
        yield _line(edges, [str(frames), _number(mean), _number(right)])
    yield f"expected calibration error {found.expected_error:.3f}"


def _line(label: str, cells: Sequence[str], width: int = _CELL) -> str:
    return f"{label:<{_LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells)


def _number(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _format_columns(title: str, columns: Sequence[str], rows: Mapping[str, Row], digits: int) -> Iterator[str]:
    """Yield a table whose columns are as wide as their titles need."""
    width = max(_CELL, *(len(column) + 2 for column in columns))
    yield _line(title, columns, width)
    for label, row in rows.items():
        yield _line(label, [_number(value, digits) for value in row], width)
