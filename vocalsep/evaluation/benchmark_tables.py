"""The tables of the benchmark: pooling the scores of ensembles of one size, text, and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalsep.errors import OptionError
from vocalsep.evaluation.benchmark import SI_SDR, Ensemble, Result
from vocalsep.evaluation.metrics import Scores, overall
from vocalsep.evaluation.spectral_metrics import METRICS
from vocalsep.evaluation.systems import COMB, OURS
from vocalsep.files import write_file

_SYSTEM, _F0, _CELL = 20, 18, 17  # characters


@dataclass(frozen=True)
class Cost:
    """What a system needs; None where nothing is known.

    Parameters
    ----------
    parameters
        Of its network.
    audio_seconds
        Of the mixture it was trained on.
    training_seconds
        That its training took.
    milliseconds
        To separate 4 s of the whole ensemble.
    """

    parameters: int = 0
    audio_seconds: float | None = None
    training_seconds: float | None = None
    milliseconds: float | None = None


def pooled(results: Sequence[Result], names: Sequence[str]) -> list[Result]:
    """Return one result for each system and f0, in order of appearance: the frames of all ensembles together.

    Parameters
    ----------
    results
        Of ensembles of one size.
    names
        Of all the voices, in whose order they come.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.system, result.f0), []).append(result)
    return [
        Result(
            tuple(names),
            system,
            f0,
            {metric: tuple(_of_voice(group, metric, name) for name in names) for metric in group[0].scores},
        )
        for (system, f0), group in groups.items()
    ]


def _of_voice(results: Sequence[Result], metric: str, name: str) -> Scores:
    found = [result.scores[metric][result.voices.index(name)].values for result in results if name in result.voices]
    return Scores(np.concatenate([np.zeros(0), *found]))


def format_scores(rows: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of a table of SI-SDR, mean / median in dB, over all voices and for each."""
    yield f"{'system':<{_SYSTEM}}{'f0':<{_F0}}{'all':>{_CELL}}" + "".join(f"{n:>{_CELL}}" for n in rows[0].voices)
    for row in rows:
        cells = [overall(row.scores[SI_SDR]), *row.scores[SI_SDR]]
        yield f"{row.system:<{_SYSTEM}}{row.f0:<{_F0}}" + "".join(f"{cell!s:>{_CELL}}" for cell in cells)


def format_spectral(rows: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of a table of the metrics on spectrograms, mean / median over all voices."""
    yield f"{'system':<{_SYSTEM}}{'f0':<{_F0}}" + "".join(f"{metric:>{_CELL}}" for metric in METRICS)
    for row in rows:
        cells = [overall(row.scores[metric]) for metric in METRICS]
        yield f"{row.system:<{_SYSTEM}}{row.f0:<{_F0}}" + "".join(f"{cell!s:>{_CELL}}" for cell in cells)


def format_costs(costs: Mapping[str, Cost], titles: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table of what each system is and needs."""
    heads = ("parameters", "training audio", "training", "4 s take")
    yield f"{'system':<{_SYSTEM}}" + "".join(f"{head:>{_CELL}}" for head in heads) + "  what it is"
    for name, cost in costs.items():
        cells = (
            f"{cost.parameters:,}",
            _quantity(cost.audio_seconds, "s", cost),
            _quantity(cost.training_seconds and cost.training_seconds / 60, "min", cost),
            "" if cost.milliseconds is None else f"{cost.milliseconds:,.0f} ms",
        )
        yield f"{name:<{_SYSTEM}}" + "".join(f"{cell:>{_CELL}}" for cell in cells) + f"  {titles.get(name, '')}"


def _quantity(value: float | None, unit: str, cost: Cost) -> str:
    if value is not None:
        return f"{value:.1f} {unit}"
    return "not recorded" if cost.parameters else "none"


def below_comb(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for every ensemble of 2 or 3 voices in which one of our systems has less SI-SDR than the comb."""
    combs = {(r.voices, r.f0): overall(r.scores[SI_SDR]).mean for r in results if r.system == COMB}
    for result in results:
        comb, mean = combs.get((result.voices, result.f0), -math.inf), overall(result.scores[SI_SDR]).mean
        if result.system.startswith(OURS) and len(result.voices) in (2, 3) and mean < comb:
            label = Ensemble(result.voices, np.zeros((0, 0), np.float32)).label
            yield f"below the comb: {result.system} in {label}, f0 {result.f0}: {mean:.2f} dB, comb {comb:.2f} dB"


def write_csv(path: Path, results: Sequence[Result], pools: Mapping[int, Sequence[Result]]) -> None:
    """Write all scores, a line for each ensemble or "all" of a size, system, f0, metric and voice or "all".

    Parameters
    ----------
    path
        Of the file; its folders are made.
    results
        Of each ensemble.
    pools
        Number of voices -> results of `pooled`.

    Raises
    ------
    OptionError
        If the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["voices", "ensemble", "system", "f0", "metric", "voice", "mean", "median", "frames"])
    labelled = [(len(r.voices), "+".join(r.voices), r) for r in results]
    labelled += [(size, "all", row) for size, rows in pools.items() for row in rows]
    for size, label, row in labelled:
        for metric, scores in row.scores.items():
            for voice, cell in (("all", overall(scores)), *zip(row.voices, scores, strict=True)):
                numbers = [f"{cell.mean:.4f}", f"{cell.median:.4f}", cell.values.size]
                writer.writerow([size, label, row.system, row.f0, metric, voice, *numbers])
    write_file(path, stream.getvalue().encode(), "CSV", OptionError)
