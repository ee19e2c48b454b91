"""Networks that the benchmarks train: kept in folders, found again, and resumed after an interruption.

The folder of a network holds `run.json` (how it is trained and, once it is, how long that took), the checkpoint folder
`best`, and `state.safetensors`, from which training is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from vocalsep.errors import OptionError, WeightsError
from vocalsep.evaluation.systems import NETWORKS
from vocalsep.files import write_file
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP, HOP_LENGTH
from vocalsep.training.sources import load_pieces, singer_folders, singer_sources
from vocalsep.training.takes import Piece, Take, all_takes
from vocalsep.training.trainer import Trainer, TrainingOptions, has_run

HELD_OUT = 0.1
"""Fraction at the end of each take that is kept for validation."""
_RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """The training of a network."""

    network: str  # name in `NETWORKS`
    singers: tuple[str, ...]  # folders of single singers, "NAME" or "NAME:SINGERS", without the path to them
    steps: int
    seed: int
    seconds: float | None = None  # of mixture to train on; None for all
    audio_seconds: float = 0.0  # of mixture that there were
    training_seconds: float = 0.0  # time that the steps took; 0 until training is finished

    @classmethod
    def read(cls, folder: Path) -> Run | None:
        """Return the run in a folder, or None if there is none."""
        path = folder / _RECORD
        if not path.is_file():
            return None
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**table, "singers": tuple(table["singers"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path}: is not the record of a run; remove the folder to train again") from error

    def write(self, folder: Path) -> None:
        """Write `run.json`."""
        write_file(folder / _RECORD, (json.dumps(asdict(self), indent=2) + "\n").encode())


class TrainedNetworks:
    """Networks that are trained on single singers when they are first needed.

    Parameters
    ----------
    folder : Path
        Folder with a folder for each network.
    singers : sequence of str
        Folders of single singers, "FOLDER" or "FOLDER:NAME,NAME". Without any, networks are only found, not trained.
    separator : Separator
        Its CREPE tracks the f0 of the singers; networks are trained on its device.
    steps : int, optional
        Optimisation steps; None takes those of `NETWORKS`.
    seed : int
        Random seed.
    report : callable
        Receives a line of text about each step.
    """

    def __init__(
        self,
        folder: Path,
        singers: Sequence[str],
        separator: Separator,
        *,
        steps: int | None = None,
        seed: int = 0,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.folders = singer_folders(singers)
        self.separator = separator
        self.steps = steps
        self.seed = seed
        self.report = report

    @cached_property
    def pieces(self) -> tuple[list[Piece], list[Piece]]:
        """The recordings of the singers for training and for validation."""
        self.report("tracking the f0 of the singers to train on")
        return load_pieces(self.folders, self.separator.crepe, HELD_OUT)

    def amounts(self, seconds: Sequence[float]) -> list[float]:
        """Return the amounts of training audio in seconds, at most as much as there is."""
        if not seconds or min(seconds) <= 0:
            message = f"amounts of training audio are {list(seconds)}; expected numbers above 0"
            raise OptionError(message, parameter="seconds")
        available = mixture_seconds([without_start(piece) for piece in self.pieces[0]])
        # Tenths of a second, so that the name of a folder says it exactly.
        return sorted({min(float(amount), int(10 * available) / 10) for amount in seconds})

    def get(self, network: str, seconds: float | None = None) -> tuple[Path, Run] | None:
        """Return the checkpoint folder of a network in `NETWORKS`, and its run; train the network if need be.

        It learns from so many seconds of mixture, or from all. Return None if it is not there and cannot be trained.
        """
        folder = self.folder / (network if seconds is None else f"{network}-{seconds:g}s")
        found = Run.read(folder)
        if self.folders:
            names = tuple(path.resolve().name + (f":{','.join(who)}" if who else "") for path, who in self.folders)
            wanted = Run(network, names, self.steps or NETWORKS[network].steps, self.seed, seconds)
            if found is not None and replace(found, audio_seconds=0.0, training_seconds=0.0) != wanted:
                raise OptionError(f"{folder}: holds a run with other settings; remove it or choose another folder")
            if found is None or not found.training_seconds:
                found = self._train(wanted, folder)
        return (folder / "best", found) if found is not None and found.training_seconds else None

    def _train(self, run: Run, folder: Path) -> Run:
        self.report(f"{run.network}: training in {folder}")
        training, held_out = self.pieces
        if run.seconds is not None:
            training = shortened(training, run.seconds)
        how = NETWORKS[run.network]
        options = TrainingOptions(steps=run.steps, learning_rate=how.learning_rate, seed=run.seed)
        run.write(folder)
        torch.manual_seed(run.seed)
        network = how.network(how.network.Config()).to(self.separator.device)
        sources = singer_sources(training, held_out, f0_errors=how.f0_errors)
        trainer = Trainer(options, network, how.loss, *sources, folder)
        if has_run(folder):
            trainer.resume()
        progress = trainer.run(report=lambda line: self.report(f"{run.network}: {line}"))
        done = replace(
            run, audio_seconds=round(mixture_seconds(training), 2), training_seconds=round(progress.seconds, 1) or 0.1
        )
        done.write(folder)
        return done


def mixture_seconds(pieces: Sequence[Piece]) -> float:
    """Return the seconds of mixture that pieces make: the seconds of all stems over the number of parts."""
    return sum(HOP * sum(take.n_frames for take in all_takes([piece])) / len(piece) for piece in pieces)


def shortened(pieces: Sequence[Piece], seconds: float) -> list[Piece]:
    """Return pieces that make so many seconds: the same fraction of every take, from the first sung note on."""
    sung = [without_start(piece) for piece in pieces]
    share = seconds / mixture_seconds(sung)
    return [{part: [take.part(0.0, share) for take in takes] for part, takes in piece.items()} for piece in sung]


def without_start(piece: Piece) -> Piece:
    """Return a piece from its first sung note on, as silence before it teaches nothing."""
    takes = [take for take in all_takes([piece]) if (take.f0 > 0).any()]
    first = min((int((take.f0 > 0).any(axis=0).argmax()) for take in takes), default=0)
    return {
        part: [Take(take.waveform[first * HOP_LENGTH :], take.f0[:, first:]) for take in takes]
        for part, takes in piece.items()
    }
