"""Networks that the benchmark trains, kept in folders with a record of what went into them, and found again.

A run is a folder with `best.safetensors`, `state.safetensors` of the trainer while it is not finished, and `run.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vocalsep.errors import OptionError, WeightsError
from vocalsep.evaluation.systems import Recipe, System
from vocalsep.files import replace_file
from vocalsep.timebase import HOP, HOP_LENGTH
from vocalsep.training.data import Batch, Take
from vocalsep.training.trainer import Source

Pieces = list[dict[str, list[Take]]]
"""For each piece, part -> takes of its singers, in time with one another."""
Report = Callable[[str], None]
"""Told what is being done, a line at a time."""

_RECORD = "run.json"


@dataclass(frozen=True)
class Settings:
    """What decides the outcome of a training.

    Parameters
    ----------
    data
        Folders of single singers as "NAME:SINGERS", without the path to them.
    steps
        Optimisation steps; None for those of the system's recipe.
    seed
        Of all that is left to chance.
    batch_size
        Excerpts of 4 s in a step.
    held_out
        Share at the end of each take that only validation hears.
    seconds
        Of the mixture that were trained on, None for all there are.
    """

    data: tuple[str, ...]
    steps: int | None = None
    seed: int = 0
    batch_size: int = 4
    held_out: float = 0.1
    seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """The record of a training.

    Parameters
    ----------
    system
        Name in `systems.SYSTEMS`.
    settings
        As a table.
    audio_seconds
        Of the mixture in what was trained on: seconds of all stems over the number of parts.
    training_seconds
        That the steps took.
    best_step
        With the least validation loss, whose weights are kept.
    parameters
        Of the network.
    version
        Of vocalsep.
    finished
        False for a run that was broken off.
    """

    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    audio_seconds: float = 0.0
    training_seconds: float = 0.0
    best_step: int = 0
    parameters: int = 0
    version: str = ""
    finished: bool = False

    @classmethod
    def read(cls, folder: Path) -> Run | None:
        """Return the record in a folder, None if it holds none.

        Raises
        ------
        WeightsError
            If there is one but it is damaged.
        """
        path = folder / _RECORD
        if not path.is_file():
            return None
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{entry.name: table[entry.name] for entry in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path}: is no record of a run ({error!r}); remove the folder, or --retrain") from error

    def write(self, folder: Path) -> None:
        """Write the record into a folder.

        Raises
        ------
        OptionError
            If that is not possible.
        """
        try:
            replace_file(folder / _RECORD, (json.dumps(asdict(self), indent=2) + "\n").encode())
        except OSError as error:
            raise OptionError(f"{folder}: cannot hold a run ({error.strerror}); choose another with -o") from error


def weights_of(folder: Path) -> Path:
    """Return the file of weights of a run."""
    return folder / "best.safetensors"


class TrainingData:
    """Folders of single singers to train on; their f0 is tracked once, when it is first wanted.

    Parameters
    ----------
    texts
        Each "FOLDER" or "FOLDER:NAME,NAME"; see `training.sources.singer_folders`.
    held_out
        Share at the end of each take that only validation hears.
    """

    def __init__(self, texts: Sequence[str], held_out: float = 0.1) -> None:
        from vocalsep.training.sources import singer_folders

        self.folders = singer_folders(texts)
        self.held_out = held_out

    @property
    def names(self) -> tuple[str, ...]:
        """The folders for a record, which is to hold on another machine too: without the path to them."""
        return tuple(
            path.resolve().name + (f":{','.join(singers)}" if singers else "") for path, singers in self.folders
        )

    @cached_property
    def split(self) -> tuple[Pieces, Pieces]:
        """The pieces for training and for validation."""
        from vocalsep.training.sources import load_singers, split_singers

        pieces = [split_singers(load_singers(folder, singers), self.held_out) for folder, singers in self.folders]
        return [training for training, _ in pieces], [held for _, held in pieces]

    def sources(
        self, seconds: float | None = None, *, f0_errors: float = 0.0
    ) -> tuple[Source[Batch], Source[Batch], float]:
        """Return sources of training and validation, and the seconds of the mixture in the first.

        Parameters
        ----------
        seconds
            To train on; None for all. Validation always hears the same.
        f0_errors
            In training; see `training.data.SingerSource`.
        """
        from vocalsep.training.data import EXCERPT_FRAMES, SingerSource

        training, held = self.split
        if seconds is not None:
            training = limited(training, seconds)
        longest = max(take.n_frames for piece in held for takes in piece.values() for take in takes)
        validation = SingerSource(held, voices=(4, 4), frames=min(EXCERPT_FRAMES, longest), augmented=False)
        return SingerSource(training, f0_errors=f0_errors), validation, mixture_seconds(training)


def mixture_seconds(pieces: Pieces) -> float:
    """Return how many seconds of mixture pieces make: the seconds of all stems over the number of parts."""
    return sum(HOP * sum(take.n_frames for takes in piece.values() for take in takes) / len(piece) for piece in pieces)


def limited(pieces: Pieces, seconds: float | None = None) -> Pieces:
    """Return so many seconds of mixture, of every take its share, all takes of a piece cut alike.

    A piece starts where its first voice does: silence before it teaches nothing. Without `seconds`, nothing else is
    cut.

    Raises
    ------
    OptionError
        If there are fewer seconds, without the silence.
    """
    begun = [_from(piece, _onset(piece)) for piece in pieces]
    if seconds is None:
        return begun
    available = mixture_seconds(begun)
    if not 0 < seconds <= available:
        raise OptionError(
            f"{seconds:g} s of training audio are asked for; expected more than 0 and at most the {available:.1f} s "
            "that there are"
        )
    share = seconds / available
    return [{part: [take.part(0.0, share) for take in takes] for part, takes in piece.items()} for piece in begun]


def _from(piece: dict[str, list[Take]], first: int) -> dict[str, list[Take]]:
    return {
        part: [Take(take.name, take.waveform[first * HOP_LENGTH :], take.f0[:, first:]) for take in takes]
        for part, takes in piece.items()
    }


def _onset(piece: dict[str, list[Take]]) -> int:
    """Return the first frame in which a voice of a piece is sung."""
    takes = [take for takes in piece.values() for take in takes]
    return min((int((take.f0 > 0).any(axis=0).argmax()) for take in takes if (take.f0 > 0).any()), default=0)


def trained(
    name: str,
    system: System,
    settings: Settings,
    data: TrainingData,
    folder: Path,
    *,
    device: str = "cpu",
    retrain: bool = False,
    report: Report = lambda _: None,
) -> Run:
    """Return the run of a system in a folder: found again, gone on with if it was broken off, or trained.

    Parameters
    ----------
    name, system
        In `systems.SYSTEMS`.
    settings
        How to train.
    data
        What to train on.
    folder
        Of the run; made if need be.
    device
        "cpu", "cuda" or "mps".
    retrain
        Whether to train again what is there.
    report
        Told what is done.

    Raises
    ------
    OptionError
        If the folder holds a run with other settings, or cannot hold one.
    """
    recipe = _recipe(name, system)
    settings = replace(settings, steps=settings.steps or recipe.steps)
    wanted = json.loads(json.dumps(asdict(settings)))
    found = None if retrain else Run.read(folder)
    if found is not None:
        _check_settings(found, name, wanted, folder)
        if found.finished and weights_of(folder).is_file():
            report(f"{name}: found in {folder}")
            return found
    elif not retrain and weights_of(folder).exists():
        raise OptionError(f"{folder}: holds weights without a record; expected a run of the benchmark, or --retrain")
    resume = found is not None and (folder / "state.safetensors").exists()
    report(f"{name}: {'goes on with training' if resume else 'is trained'} in {folder}")
    run = Run(name, wanted)
    run.write(folder)
    done = _train(recipe, settings, data, folder, run, device=device, resume=resume, report=report)
    done.write(folder)
    return done


def _check_settings(found: Run, name: str, wanted: dict[str, Any], folder: Path) -> None:
    if found.system != name:
        raise OptionError(f"{folder}: holds a run of {found.system}; expected one of {name}, or another folder")
    differing = [key for key, value in wanted.items() if found.settings.get(key) != value]
    if differing:
        listed = ", ".join(f"{key} {found.settings.get(key)} instead of {wanted[key]}" for key in differing)
        raise OptionError(f"{folder}: holds a run with {listed}; choose another folder with -o, or --retrain")


def _recipe(name: str, system: System) -> Recipe:
    if system.recipe is None:
        raise OptionError(f"{name} trains no network; expected a system that does")
    return system.recipe()


def _train(
    recipe: Recipe,
    settings: Settings,
    data: TrainingData,
    folder: Path,
    run: Run,
    *,
    device: str,
    resume: bool,
    report: Report,
) -> Run:
    import torch

    from vocalsep import __version__
    from vocalsep.model.estimator import parameter_count
    from vocalsep.training.trainer import Trainer, TrainingConfig

    training, validation, seconds = data.sources(settings.seconds, f0_errors=recipe.f0_errors)
    torch.manual_seed(settings.seed)
    network = recipe.build().to(device)
    config = TrainingConfig(
        steps=settings.steps or recipe.steps,
        batch_size=settings.batch_size,
        learning_rate=recipe.learning_rate,
        seed=settings.seed,
    )
    trainer: Trainer[Any, Any] = Trainer(config, network, recipe.loss, training, validation, folder)
    if resume:
        trainer.resume()
    progress = trainer.run(report=lambda line: report(f"{run.system}: {line}"))
    (folder / "state.safetensors").unlink(missing_ok=True)
    return replace(
        run,
        audio_seconds=round(seconds, 2),
        training_seconds=round(progress.seconds, 1),
        best_step=progress.best_step,
        parameters=parameter_count(network),
        version=__version__,
        finished=True,
    )
