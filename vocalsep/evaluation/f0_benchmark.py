"""The benchmark of f0 tracking: ensembles of single singers whose stems give the truth, several trackers, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import Float32, to_model_rate
from vocalsep.errors import OptionError
from vocalsep.evaluation.benchmark import Ensemble
from vocalsep.evaluation.degrade import DEGRADATIONS
from vocalsep.evaluation.f0_metrics import (
    MELODY_METRICS,
    MULTIPITCH_METRICS,
    OUTCOMES,
    Calibration,
    calibration,
    melody_scores,
    multipitch_scores,
    outcomes,
)
from vocalsep.evaluation.metrics import f0_f_measure
from vocalsep.f0.monophonic import f0_from_stems
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE
from vocalsep.voices import PARTS, VoicesLike

TrackVoices = Callable[[Float32, int, VoicesLike], F0Tracks]
"""From audio, its sample rate in Hz and the voices, high to low, to their tracks on the 16-ms grid."""

BASELINES = ("templates", "basic-pitch")
LETTERS = "SATB"
"""Of the parts an ensemble of the benchmark has."""
_GROUP_SIZES = {"quartet": 4, "trios": 3, "duets": 2}
_LABEL, _CELL = 24, 10  # characters, of the tables


@dataclass(frozen=True)
class Subset:
    """Some of the voices of an ensemble, singing together.

    Parameters
    ----------
    group
        The row of the table to which it counts, such as "trios".
    voices
        Part letters, high to low.
    mixture
        Sum of their stems, shape (samples,) at 16 kHz.
    truth
        Their f0, from the stems.
    """

    group: str
    voices: str
    mixture: Float32
    truth: F0Tracks


@dataclass(frozen=True)
class Tracked:
    """What a tracker made of a subset; both tracks on one grid, the rows in one order."""

    group: str
    voices: str
    truth: F0Tracks
    estimate: F0Tracks


def trackers(
    baselines: Sequence[str] = (), *, separator: Separator | None = None, refine: int | None = None
) -> dict[str, TrackVoices]:
    """Return trackers by name: "learned", what a separator does, and baselines out of `BASELINES`.

    Parameters
    ----------
    baselines
        Their names.
    separator
        Without one there is no learned tracker.
    refine
        How many times the separator refines its tracks; see `vocalsep.separate`.

    Raises
    ------
    OptionError
        If a baseline is unknown.
    """
    table: dict[str, TrackVoices] = {}
    if separator is not None:

        def track(audio: Float32, sample_rate: int, voices: VoicesLike) -> F0Tracks:
            return separator.track(to_model_rate(audio, sample_rate), voices=voices, refine=refine)

        table["learned"] = track
    for name in baselines:
        if name == "templates":
            from vocalsep.evaluation.baselines.templates import track_templates

            table[name] = track_templates
        elif name == "basic-pitch":
            from vocalsep.evaluation.baselines.basic_pitch import track_basic_pitch

            table[name] = track_basic_pitch
        else:
            raise OptionError(f"baseline is {name!r}; expected one of {', '.join(BASELINES)}")
    return table


def parse_ensembles(text: str) -> dict[str, list[str]]:
    """Return the subsets of voices that a description such as "SATB, trios, SB" names, by group.

    "quartet", "trios" and "duets" are all subsets of that size; letters are one subset, a group of its own.

    Raises
    ------
    OptionError
        If a word is neither, or nothing is named.

    Examples
    --------
    >>> parse_ensembles("SATB,trios")
    {'SATB': ['SATB'], 'trios': ['SAT', 'SAB', 'STB', 'ATB']}
    """
    groups: dict[str, list[str]] = {}
    for word in (item.strip() for item in text.split(",") if item.strip()):
        letters = "".join(letter for letter in LETTERS if letter in word.upper())
        if word.lower() in _GROUP_SIZES:
            groups[word.lower()] = ["".join(some) for some in combinations(LETTERS, _GROUP_SIZES[word.lower()])]
        elif sorted(letters) == sorted(word.upper()):
            groups[letters] = [letters]
        else:
            raise OptionError(f"ensemble is {word!r}; expected quartet, trios, duets, or letters out of {LETTERS}")
    if not groups:
        raise OptionError("no ensembles are named; expected such as SATB,trios,duets")
    return groups


def subsets(
    ensemble: Ensemble, groups: dict[str, list[str]], *, crepe: str = "tiny", seconds: float | None = None
) -> list[Subset]:
    """Make the mixtures of the subsets, and their truth with CREPE of a capacity on the stems, once for all.

    Parameters
    ----------
    ensemble
        Of the parts soprano, alto, tenor and bass.
    groups
        As given by `parse_ensembles`.
    crepe
        "tiny" or "full".
    seconds
        How much of the beginning to take; None for all.
    """
    stems = ensemble.stems if seconds is None else ensemble.stems[:, : max(1, round(seconds * MODEL_SAMPLE_RATE))]
    truth = f0_from_stems(dict(zip(ensemble.names, stems, strict=True)), capacity=crepe)
    made = []
    for group, members in groups.items():
        for voices in members:
            names = [PARTS[letter].name for letter in voices]
            mixture = stems[[ensemble.names.index(name) for name in names]].sum(axis=0)
            made.append(Subset(group, voices, mixture, truth.select(names)))
    return made


def track_subsets(tracker: TrackVoices, parts: Sequence[Subset], condition: str = "clean") -> list[Tracked]:
    """Run a tracker on subsets under a condition out of `DEGRADATIONS`.

    Raises
    ------
    OptionError
        If the condition is unknown.
    """
    if condition not in DEGRADATIONS:
        raise OptionError(f"condition is {condition!r}; expected one of {', '.join(DEGRADATIONS)}")
    made = []
    for part in parts:
        audio, sample_rate, truth = DEGRADATIONS[condition](part.mixture, part.truth)
        found = tracker(audio, sample_rate, part.voices)
        # Resampling may leave a frame more or less at the end.
        estimate = found.select(truth.names).resampled(HOP, truth.n_frames)
        made.append(Tracked(part.group, part.voices, truth, estimate))
    return made


def f_table(tracked: Sequence[Tracked]) -> dict[str, NDArray[np.float64]]:
    """Return the F-measure at 50 cents by ensemble, group and "all", in the order in which a table shows them.

    Each group's row is the mean for each voice over the ensembles of the group that it sings in; "all" is that over
    all ensembles.

    Returns
    -------
    dict
        Row -> F of each of `LETTERS`, NaN where the voice does not sing. Ensembles of a group of several are
        indented by two spaces.
    """
    each: dict[str, dict[str, NDArray[np.float64]]] = {}
    for item in tracked:
        row = np.full(len(LETTERS), np.nan)
        row[_columns(item)] = f0_f_measure(item.truth.frequencies, item.estimate.frequencies)
        each.setdefault(item.group, {})[item.voices] = row
    table: dict[str, NDArray[np.float64]] = {}
    for group, rows in each.items():
        table[group] = _mean(list(rows.values()))
        if len(rows) > 1:
            table |= {f"  {voices}": row for voices, row in rows.items()}
    table["all"] = _mean([row for rows in each.values() for row in rows.values()])
    return table


def _columns(item: Tracked) -> list[int]:
    return [LETTERS.index(letter) for letter in item.voices]


def _mean(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over the rows, without NaN; NaN where there is nothing else."""
    stacked = np.ma.masked_invalid(np.stack(rows))
    mean: NDArray[np.float64] = stacked.mean(axis=0).filled(np.nan)
    return mean


def multipitch_row(tracked: Sequence[Tracked]) -> NDArray[np.float64]:
    """Return mir_eval's multipitch figures, mean over ensembles, in the order of `MULTIPITCH_METRICS`."""
    return _mean([multipitch_scores(item.truth.frequencies, item.estimate.frequencies) for item in tracked])


def melody_table(tracked: Sequence[Tracked]) -> NDArray[np.float64]:
    """Return mir_eval's melody figures, mean over ensembles, shape (len(LETTERS), len(MELODY_METRICS))."""
    tables = []
    for item in tracked:
        table = np.full((len(LETTERS), len(MELODY_METRICS)), np.nan)
        table[_columns(item)] = melody_scores(item.truth.frequencies, item.estimate.frequencies)
        tables.append(table)
    return _mean(tables)


def outcome_table(tracked: Sequence[Tracked]) -> NDArray[np.int64]:
    """Return frames by outcome over all ensembles, shape (len(LETTERS), len(OUTCOMES))."""
    total = np.zeros((len(LETTERS), len(OUTCOMES)), dtype=np.int64)
    for item in tracked:
        total[_columns(item)] += outcomes(item.truth.frequencies, item.estimate.frequencies)
    return total


def pooled_calibration(tracked: Sequence[Tracked]) -> Calibration | None:
    """Return the calibration over all ensembles and voices; None for a tracker without confidence."""
    known = [item.estimate.confidence for item in tracked if item.estimate.confidence is not None]
    if len(known) < len(tracked):
        return None
    truth = _joined([item.truth.frequencies for item in tracked])
    estimate = _joined([item.estimate.frequencies for item in tracked])
    return calibration(truth, estimate, _joined(known))


def _joined(tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return tables of any shapes as one voice."""
    return np.concatenate([table.ravel() for table in tables])[None]


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:<{_LABEL}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _number(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def format_f_header(title: str) -> str:
    """Return the head of a table whose rows are `format_f_row`."""
    return _line(title, [*(PARTS[letter].name for letter in LETTERS), "mean", "worst"])


def format_f_row(label: str, row: NDArray[np.float64]) -> str:
    """Return the line of a row of `f_table`: each voice, their mean, and the worst of them."""
    sung = row[~np.isnan(row)]
    summary = [float(sung.mean()), float(sung.min())] if sung.size else [float("nan")] * 2
    return _line(label, [_number(value) for value in [*row, *summary]])


def format_tables(tracked: Sequence[Tracked]) -> Iterator[str]:
    """Yield the lines of all tables about what one tracker made of the ensembles."""
    yield format_f_header("F at 50 cents")
    for label, row in f_table(tracked).items():
        yield format_f_row(label, row)
    yield ""
    yield from _format_columns("mir_eval multipitch", MULTIPITCH_METRICS, {"all": multipitch_row(tracked)}, 2)
    yield ""
    named = [PARTS[letter].name for letter in LETTERS]
    yield from _format_columns(
        "mir_eval melody", MELODY_METRICS, dict(zip(named, melody_table(tracked), strict=True)), 2
    )
    yield ""
    counts = outcome_table(tracked)
    shares = {name: 100 * row / max(1, row.sum()) for name, row in zip(named, counts, strict=True)}
    shares["all"] = 100 * counts.sum(axis=0) / max(1, counts.sum())
    yield from _format_columns("what is wrong (%)", OUTCOMES, shares, 1)
    yield ""
    yield from format_calibration(pooled_calibration(tracked))


def _format_columns(
    title: str, columns: Sequence[str], rows: dict[str, NDArray[np.float64]], digits: int
) -> Iterator[str]:
    """Yield a table whose columns are as wide as their titles need."""
    width = max(_CELL, *(len(column) + 2 for column in columns))
    yield f"{title:<{_LABEL}}" + "".join(f"{column:>{width}}" for column in columns)
    for label, row in rows.items():
        yield f"{label:<{_LABEL}}" + "".join(f"{_number(value, digits):>{width}}" for value in row)


def format_calibration(found: Calibration | None) -> Iterator[str]:
    """Yield the lines of the table of calibration."""
    if found is None:
        yield "calibration: this tracker gives no confidence"
        return
    yield _line("confidence", ["frames", "mean", "right"])
    for low, high, *values in zip(
        found.edges[:-1], found.edges[1:], found.frames, found.confidence, found.right, strict=True
    ):
        yield _line(f"{low:.1f} to {high:.1f}", [str(values[0]), _number(values[1]), _number(values[2])])
    yield f"expected calibration error {found.expected_error:.3f}"
