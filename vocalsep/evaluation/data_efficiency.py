"""Quality against the seconds of mixture that a network was trained on: for some systems, as a table and a picture.

The question is that of US (arXiv 2201.09592, section VI), whose US-S learned from 2 min 40 s.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vocalsep.errors import MissingExtraError, OptionError
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.benchmark import IDEAL, Ensemble
from vocalsep.evaluation.metrics import Scores, frame_scores, overall
from vocalsep.evaluation.runs import Report, Settings, TrainingData, limited, mixture_seconds, trained, weights_of
from vocalsep.evaluation.systems import COMB, OURS, SYSTEMS
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import write_file
from vocalsep.timebase import MODEL_SAMPLE_RATE

LEARNERS = (OURS, "us", "unet")
"""Systems that are trained at each amount, unless others are asked for."""
_COLOURS = ("#c1121f", "#1d6fb8", "#2a9d56", "#8a4fbf", "#b8860b")
_MARKS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Point:
    """The quality that a system has reached.

    Parameters
    ----------
    system
        Its name.
    seconds
        Of the mixture it was trained on; None for what learns nothing.
    scores
        SI-SDR, one for each voice.
    """

    system: str
    seconds: float | None
    scores: tuple[Scores, ...]

    @property
    def total(self) -> Scores:
        """The frames of all voices."""
        return overall(self.scores)


def amounts(data: TrainingData, wanted: Sequence[float]) -> list[float]:
    """Return how many seconds of mixture can be trained on: those that are wanted, but no more than there are.

    Examples
    --------
    Of 137 s, those asked for up to 160 become 20, 40, 80 and 137.

    Raises
    ------
    OptionError
        If an amount is not more than 0.
    """
    if not wanted or min(wanted) <= 0:
        raise OptionError(f"seconds of training audio are {list(wanted)}; expected some, each more than 0")
    available = mixture_seconds(limited(data.split[0]))
    # To the tenth of a second, so that runs are found again by the name of their folder.
    return sorted({min(float(seconds), int(10 * available) / 10) for seconds in wanted})


def learning_curves(
    ensemble: Ensemble,
    tracks: F0Tracks,
    systems: Sequence[str],
    data: TrainingData,
    seconds: Sequence[float],
    settings: Settings,
    folder: Path,
    *,
    device: str = "cpu",
    retrain: bool = False,
    report: Report = lambda _: None,
) -> Iterator[Point]:
    """Train systems on ever more audio and yield how well they separate, after the comb and the ideal masks.

    Every amount is trained on for the same number of steps and validated on the same ends of the takes, which do not
    count as training audio.

    Parameters
    ----------
    ensemble
        What to separate; its singers must not be trained on.
    tracks
        Its f0, with which all systems separate.
    systems
        Names of systems that train a network.
    data
        To train on.
    seconds
        Of mixture, as given by `amounts`.
    settings
        How to train.
    folder
        For the runs, each in a folder named by system and seconds; those that are there are found again.
    device, retrain, report
        See `runs.trained`.

    Raises
    ------
    OptionError
        If a system is unknown or trains nothing.
    """
    wrong = [name for name in systems if name not in SYSTEMS or SYSTEMS[name].recipe is None]
    if wrong:
        able = ", ".join(name for name, system in SYSTEMS.items() if system.recipe is not None)
        raise OptionError(f"no system that is trained is named {wrong[0]!r}; expected some of {able}")
    mixture, stems = ensemble.mixture, ensemble.stems
    comb = SYSTEMS[COMB].open("", device).separate(mixture, tracks)
    yield Point(COMB, None, frame_scores(stems, comb, mixture, MODEL_SAMPLE_RATE))
    ideal = separate_ideal(mixture, stems, MODEL_SAMPLE_RATE)
    yield Point(IDEAL, None, frame_scores(stems, ideal, mixture, MODEL_SAMPLE_RATE))
    for amount in seconds:
        for name in systems:
            place = folder / f"{name}-{amount:g}s"
            here = replace(settings, seconds=amount)
            run = trained(name, SYSTEMS[name], here, data, place, device=device, retrain=retrain, report=report)
            found = SYSTEMS[name].open(str(weights_of(place)), device).separate(mixture, tracks)
            yield Point(name, run.audio_seconds, frame_scores(stems, found, mixture, MODEL_SAMPLE_RATE))


def format_points(points: Sequence[Point], names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table of SI-SDR, mean / median in dB, over all voices and for each."""
    yield f"{'system':<18}{'seconds':>9}{'all':>17}" + "".join(f"{name:>17}" for name in names)
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.0f}"
        cells = [point.total, *point.scores]
        yield f"{point.system:<18}{seconds:>9}" + "".join(f"{cell!s:>17}" for cell in cells)


def write_csv(path: Path, points: Sequence[Point], names: Sequence[str]) -> None:
    """Write a line for each point and voice, or "all": mean and median of SI-SDR in dB, and the frames they are of.

    Raises
    ------
    OptionError
        If the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["system", "seconds", "voice", "mean", "median", "frames"])
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.2f}"
        for voice, cell in (("all", point.total), *zip(names, point.scores, strict=True)):
            writer.writerow([point.system, seconds, voice, f"{cell.mean:.4f}", f"{cell.median:.4f}", cell.values.size])
    write_file(path, stream.getvalue().encode(), "CSV", OptionError)


def curves(points: Sequence[Point]) -> Mapping[str, list[tuple[float, float]]]:
    """Return seconds and mean SI-SDR of each system that learns, by the seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in sorted((p for p in points if p.seconds is not None), key=lambda p: p.seconds or 0.0):
        found.setdefault(point.system, []).append((point.seconds or 0.0, point.total.mean))
    return found


def plot(path: Path, points: Sequence[Point], *, title: str = "") -> None:
    """Draw mean SI-SDR against the seconds of training audio and write a PNG.

    Parameters
    ----------
    path
        Of the PNG.
    points
        What learns becomes a line, what does not a dashed level.
    title
        Above the picture.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    OptionError
        If the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed; pip install 'vocalsep[plot]' brings it") from error

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = curves(points)
    for number, (name, line) in enumerate(lines.items()):
        axes.plot(
            [x for x, _ in line],
            [y for _, y in line],
            label=SYSTEMS[name].title,
            linewidth=2,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKS[number % len(_MARKS)],
        )
    for point in points:
        if point.seconds is None:
            level = point.total.mean
            axes.axhline(level, color="0.5", linestyle="--", linewidth=1)
            axes.annotate(
                "ideal ratio masks" if point.system == IDEAL else SYSTEMS[point.system].title,
                (0.995, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color="0.4",
            )
    ticks = sorted({x for line in lines.values() for x, _ in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, labels=[f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training audio (s of mixture)", ylabel="SI-SDR, mean (dB)", title=title)
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(lines), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_file(path, content.getvalue(), "PNG", OptionError)
