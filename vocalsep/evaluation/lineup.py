"""Which systems take part in a benchmark: trained if need be, or with weights that are there, ready to separate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocalsep.errors import OptionError
from vocalsep.evaluation.benchmark import IDEAL
from vocalsep.evaluation.benchmark_tables import Cost
from vocalsep.evaluation.runs import Report, Run, Settings, TrainingData, trained, weights_of
from vocalsep.evaluation.systems import OURS, SYSTEMS, Ready


@dataclass(frozen=True)
class Entrant:
    """A system that takes part.

    Parameters
    ----------
    title
        In a few words.
    ready
        The system.
    weights
        Name or path of its weights, "" if it has none.
    run
        How they were trained, if that is known.
    """

    title: str
    ready: Ready
    weights: str = ""
    run: Run | None = None

    def cost(self, milliseconds: float | None = None) -> Cost:
        """Return what it needs, with the time that was measured."""
        if self.run is None:
            return Cost(self.ready.parameters, milliseconds=milliseconds)
        return Cost(self.ready.parameters, self.run.audio_seconds, self.run.training_seconds, milliseconds)


def line_up(
    names: Sequence[str],
    data: TrainingData | None,
    settings: Settings,
    folder: Path | None,
    *,
    model: str | None = None,
    device: str = "cpu",
    retrain: bool = False,
    report: Report = lambda _: None,
) -> dict[str, Entrant]:
    """Return the systems that take part, by name.

    Parameters
    ----------
    names
        Which; all that can be run if there are none. "ideal" is no system, but may be named.
    data
        To train on; None if nothing is to be trained.
    settings
        How to train.
    folder
        Where the runs are, each in a folder of its system's name; None if there are none.
    model
        Weights to take instead of those that would be trained without stems.
    device, retrain, report
        See `runs.trained`.

    Raises
    ------
    OptionError
        If a name is unknown, or a system that is asked for has no weights.
    """
    unknown = [name for name in names if name not in (*SYSTEMS, IDEAL)]
    if unknown:
        raise OptionError(f"no system is named {unknown[0]!r}; expected one of {', '.join((*SYSTEMS, IDEAL))}")
    entrants = {}
    for name, system in SYSTEMS.items():
        if names and name not in names:
            continue
        if not system.learns:
            entrants[name] = Entrant(system.title, system.open("", device))
            continue
        source = system.borrows or name
        if model is not None and source == OURS:
            entrants[name] = Entrant(system.title, system.open(model, device), model)
            continue
        run = _run(source, data, settings, folder, device=device, retrain=retrain and source == name, report=report)
        if run is not None and folder is not None:
            path = str(weights_of(folder / source))
            entrants[name] = Entrant(system.title, system.open(path, device), path, run)
        elif names:
            raise OptionError(f"{name} has no weights; expected --train to train it, or -o with the folder of a run")
        else:
            report(f"{name}: left out, since it has no weights; --train trains it")
    return entrants


def _run(
    name: str,
    data: TrainingData | None,
    settings: Settings,
    folder: Path | None,
    *,
    device: str,
    retrain: bool,
    report: Report,
) -> Run | None:
    if folder is None:
        return None
    if data is not None:
        return trained(
            name, SYSTEMS[name], settings, data, folder / name, device=device, retrain=retrain, report=report
        )
    found = Run.read(folder / name)
    if found is None or not found.finished:
        return None
    report(f"{name}: found in {folder / name}")
    return found
