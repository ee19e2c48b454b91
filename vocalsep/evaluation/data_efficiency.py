"""The benchmark of data efficiency: quality against the seconds of mixture that a network is trained on.

Every amount is trained on for the same number of steps, and validated on the same ends of the takes. The question is
that of US, whose US-S learned from 2 min 40 s (K. Schulze-Forster et al., "Unsupervised Music Source Separation Using
Differentiable Parametric Source Models", IEEE/ACM TASLP 2023, section VI).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vocalsep.audio import Float32
from vocalsep.errors import MissingExtraError, OptionError
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.ensemble import Ensemble
from vocalsep.evaluation.metrics import Values, frame_scores, mean_median
from vocalsep.evaluation.systems import NETWORKS, SYSTEMS
from vocalsep.evaluation.trained import TrainedNetworks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import write_file

LEARNERS = ("vocalsep", "us", "unet")
"""Systems that are trained at each amount by default."""
_COLOURS = ("#c1121f", "#1d6fb8", "#2a9d56", "#8a4fbf", "#b8860b")
_MARKS = ("o", "s", "^", "D", "v")


class Point(NamedTuple):
    """The quality that a system reaches."""

    system: str
    seconds: float | None  # of mixture that it was trained on; None if it does not learn
    scores: dict[str, Values]  # SI-SDR of each voice, and of all frames under "all"


def learning_curves(
    ensemble: Ensemble, tracks: F0Tracks, systems: Sequence[str], networks: TrainedNetworks, seconds: Sequence[float]
) -> Iterator[Point]:
    """Train systems on different amounts of audio; yield their scores, after those of the comb and the ideal masks.

    The systems, each with a network of its own, separate the mixture of the ensemble with the same f0 tracks. They
    learn from amounts of audio in seconds.
    """
    wrong = [name for name in systems if name not in NETWORKS]
    if wrong:
        names = ", ".join(NETWORKS)
        raise OptionError(f"no network is named {wrong[0]!r}; expected some of {names}", parameter="names")
    mixture = ensemble.mixture

    def point(system: str, amount: float | None, estimates: Float32) -> Point:
        scores = frame_scores(ensemble.stems, estimates, mixture)
        return Point(system, amount, {"all": np.concatenate(scores), **dict(zip(ensemble.names, scores, strict=True))})

    yield point("comb", None, separate_comb(mixture, tracks))
    yield point("ideal", None, separate_ideal(mixture, ensemble.stems))
    for amount in networks.amounts(seconds):
        for name in systems:
            found = networks.get(name, amount)
            assert found is not None  # there are singers to train on, or amounts() would have failed
            separate = SYSTEMS[name].load(str(found[0]), networks.separator.device)
            yield point(name, found[1].audio_seconds, separate(mixture, tracks))


def format_points(points: Sequence[Point]) -> Iterator[str]:
    """Yield the lines of a table of SI-SDR, mean / median in dB, over all voices and for each."""
    yield f"{'system':<18}{'seconds':>9}" + "".join(f"{name:>17}" for name in points[0].scores)
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.0f}"
        cells = ["{:.2f} / {:.2f}".format(*mean_median(values)) for values in point.scores.values()]
        yield f"{point.system:<18}{seconds:>9}" + "".join(f"{cell:>17}" for cell in cells)


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Write a row for each point and voice, and for all voices: mean and median of SI-SDR in dB, number of frames."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["system", "seconds", "voice", "mean", "median", "frames"])
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.2f}"
        for voice, values in point.scores.items():
            mean, median = mean_median(values)
            writer.writerow([point.system, seconds, voice, f"{mean:.4f}", f"{median:.4f}", values.size])
    write_file(path, stream.getvalue().encode())


def plot(path: Path, points: Sequence[Point]) -> None:
    """Draw mean SI-SDR against the seconds of training audio and write a PNG.

    Systems that learn become lines, others dashed levels. Raise MissingExtraError if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed; install it with pip install 'vocalsep[plot]'") from error

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    learners = list(dict.fromkeys(point.system for point in points if point.seconds is not None))
    ticks = sorted({point.seconds for point in points if point.seconds is not None})
    for number, name in enumerate(learners):
        line = sorted((p.seconds or 0.0, mean_median(p.scores["all"])[0]) for p in points if p.system == name)
        seconds, means = zip(*line, strict=True)
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        axes.plot(seconds, means, label=SYSTEMS[name].title, linewidth=2, color=colour, marker=mark)
    for point in points:
        if point.seconds is None:
            level = mean_median(point.scores["all"])[0]
            axes.axhline(level, color="0.5", linestyle="--", linewidth=1)
            label = SYSTEMS[point.system].title if point.system in SYSTEMS else "ideal ratio masks"
            axes.text(0.995, level, label, transform=axes.get_yaxis_transform(), ha="right", va="bottom", color="0.4")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, labels=[f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training audio (s of mixture)", ylabel="SI-SDR, mean (dB)")
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(learners), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_file(path, content.getvalue())
