"""Training and validation sources from folders: recordings of choirs, or of single singers to mix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vocalsep import audio
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import AudioError, F0Error, OptionError
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.monophonic import VOICING_THRESHOLD, f0_from_downmixes
from vocalsep.separation.folders import audio_files, f0_from_guides
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP
from vocalsep.training.data import EXCERPT_FRAMES, MixedSource, MixtureSource, SingerSource, Source
from vocalsep.training.ensembles import EnsembleSource
from vocalsep.training.rooms import Rooms, measured_rooms, simulated_rooms
from vocalsep.training.scores import chorales
from vocalsep.training.singing import synthetic_pieces
from vocalsep.training.takes import Piece, Take, all_takes, median_f0, split_piece, split_takes
from vocalsep.voices import parse_voices

_MIXTURE_SHARE = 0.15  # fraction of the batches that come from recordings of choirs if there are single singers too
_MIN_VALIDATION_FRAMES = 25  # 0.4 s: a few windows

S = TypeVar("S", bound=Source)
Sources = tuple[S, S]
"""A source for training and one for validation."""


@dataclass(frozen=True)
class EstimatorData:
    """Recordings to train the estimator on.

    Parameters
    ----------
    mixtures : Path, optional
        Folder of recordings of choirs.
    guides : Path, optional
        Folder with one folder of guides per recording, to take its f0 from; if None, f0 is tracked in the recordings.
    voices : str, optional
        Voices of the recordings; SATB by default, or the voices of the guides.
    singers : tuple of str
        Folders of single singers, each "FOLDER" or "FOLDER:NAME,NAME"; see `singer_folders`.
    f0_errors : float
        Fraction of the excerpts of single singers whose f0 gets the errors of a tracker.
    held_out : float
        Fraction at the end of every recording that is kept for validation.
    rooms : tuple of Path
        Folders of impulse responses of rooms that single singers are put into.
    simulated_rooms : int
        Number of simulated rooms besides them.
    seed : int
        Random seed of the simulated rooms.
    """

    mixtures: Path | None = None
    guides: Path | None = None
    voices: str | None = None
    singers: tuple[str, ...] = ()
    f0_errors: float = 0.0
    held_out: float = 0.1
    rooms: tuple[Path, ...] = ()
    simulated_rooms: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mixtures is None and not self.singers:
            raise OptionError("there is nothing to train on; expected a folder of recordings, or of single singers")
        if self.rooms and not self.singers:
            raise OptionError("rooms are for single singers, but there are none", parameter="rooms")
        for name in ("guides", "voices"):
            if self.mixtures is None and getattr(self, name) is not None:
                raise OptionError(f"{name} describes recordings of choirs, but there are none", parameter=name)
        if self.voices is not None:
            parse_voices(self.voices)

    def sources(self, separator: Separator) -> Sources[Source]:
        """Return the sources for training and validation; the separator's networks track f0."""
        found: list[Sources[Source]] = []
        if self.mixtures is not None:
            takes = [self._mixture(name, path, separator) for name, path in audio_files(self.mixtures).items()]
            training, held_out = split_takes(takes, self.held_out)
            found.append((MixtureSource(training), MixtureSource(held_out, _validation_frames(held_out))))
        if self.singers:
            pieces = load_pieces(singer_folders(self.singers), separator.crepe, self.held_out)
            found.append(singer_sources(*pieces, f0_errors=self.f0_errors, rooms=self._rooms()))
        if len(found) == 1:
            return found[0]
        (mixtures, _), (singers, validation) = found
        return MixedSource(mixtures, singers, _MIXTURE_SHARE), validation

    def _rooms(self) -> Rooms | None:
        measured = [responses for folder in self.rooms for responses in measured_rooms(folder)]
        simulated = simulated_rooms(self.simulated_rooms, np.random.default_rng(self.seed))
        return Rooms(measured, simulated) if measured or simulated else None

    def _mixture(self, name: str, path: Path, separator: Separator) -> Take:
        """Load a recording of a choir with the f0 of its guides, or track it, and estimate its room."""
        waveform = audio.to_model_rate(*audio.read(path))
        guides = None
        if self.guides is not None:
            names = None if self.voices is None else [voice.name for voice in parse_voices(self.voices)]
            guides = f0_from_guides(self.guides / name, names, separator.crepe)
        try:
            found = separator.analyse(Downmix.of_array(waveform), guides, None if guides else self.voices)
        except F0Error as error:
            raise F0Error(f"{self.guides / name if self.guides else path}: {error}") from error
        return Take(waveform, found.tracks.frequencies, None if found.room.is_dry else found.room)


@dataclass(frozen=True)
class TrackerData:
    """Recorded and synthetic singers to train the tracker on.

    Parameters
    ----------
    singers, held_out
        See `EstimatorData`.
    synthetic : int
        Number of synthetic pieces of 30 s.
    chorales : int
        Number of Bach chorales; two of three synthetic pieces are excerpts of them, the others random counterpoint.
    seed : int
        Random seed of the synthetic pieces and of the transposition of the recorded ones.
    """

    singers: tuple[str, ...] = ()
    synthetic: int = 80
    chorales: int = 100
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.singers and self.synthetic < 1:
            raise OptionError("there is nothing to train on; expected single singers, or synthetic pieces")

    def sources(self, crepe: Crepe) -> Sources[EnsembleSource]:
        """Return the sources for training and validation; without recordings, validation uses synthetic pieces."""
        training, held_out = load_pieces(singer_folders(self.singers), crepe, self.held_out)
        scores = chorales(self.chorales) if self.chorales and self.synthetic else []
        synthetic = synthetic_pieces(np.random.default_rng(self.seed), self.synthetic, scores)
        if not self.singers:
            split = [split_piece(piece, self.held_out) for piece in synthetic]
            synthetic, held_out = [piece for piece, _ in split], [piece for _, piece in split]
        source = EnsembleSource(training, synthetic, seed=self.seed)
        return source, EnsembleSource(held_out, frames=_validation_frames(all_takes(held_out)), augmented=False)


def singer_folders(texts: Iterable[str]) -> list[tuple[Path, list[str] | None]]:
    """Split each "FOLDER" or "FOLDER:NAME,NAME" into a folder and the names of its singers to use, None for all.

    Examples
    --------
    >>> [names for _, names in singer_folders(["nino_dios", "nino_dios:1,2"])]
    [None, ['1', '2']]
    """
    folders: list[tuple[Path, list[str] | None]] = []
    for text in texts:
        folder, colon, names = text.rpartition(":")
        if not colon or "/" in names or "\\" in names:  # C:\music
            folder, names = text, ""
        folders.append((Path(folder), [name.strip() for name in names.split(",") if name.strip()] or None))
    return folders


def load_pieces(
    folders: Iterable[tuple[Path, list[str] | None]], crepe: Crepe, held_out: float
) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces in folders for training, and their ends for validation; see `load_singers`."""
    split = [split_piece(load_singers(folder, singers, crepe), held_out) for folder, singers in folders]
    return [training for training, _ in split], [validation for _, validation in split]


def load_singers(folder: Path, singers: Sequence[str] | None, crepe: Crepe) -> Piece:
    """Load single singers, all or those named, and track their f0; parts come by median f0, the highest first.

    The folder holds files PART_SINGER of one piece (soprano_1.flac, soprano_2.flac, ...), or one file for each PART.
    """
    files = audio_files(folder)
    found = {name.partition("_")[2] for name in files}
    missing = [singer for singer in singers or () if singer not in found]
    if missing:
        raise AudioError(f"{folder}: holds no recordings of singer {missing[0]}; expected PART_{missing[0]} files")
    piece: Piece = {}
    for name, path in files.items():
        part, _, singer = name.partition("_")
        if singers is None or singer in singers:
            waveform = audio.to_model_rate(*audio.read(path))
            tracks = f0_from_downmixes({name: Downmix.of_array(waveform)}, crepe, VOICING_THRESHOLD)
            piece.setdefault(part, []).append(Take(waveform, tracks.frequencies))
    return {part: piece[part] for part in sorted(piece, key=lambda part: -median_f0(piece[part][0].f0))}


def singer_sources(
    training: list[Piece], held_out: list[Piece], *, f0_errors: float = 0.0, rooms: Rooms | None = None
) -> Sources[SingerSource]:
    """Return sources that mix single singers: random ensembles for training, plain quartets for validation.

    With rooms, half of both sing in a room.
    """
    frames = _validation_frames(all_takes(held_out))
    validation = SingerSource(held_out, voices=(4, 4), frames=frames, augmented=False, rooms=rooms)
    return SingerSource(training, f0_errors=f0_errors, rooms=rooms), validation


def _validation_frames(takes: list[Take]) -> int:
    """Return the frames of an excerpt for validation: 4 s, or less if the takes are shorter."""
    longest = max(take.n_frames for take in takes)
    if longest < _MIN_VALIDATION_FRAMES:
        raise AudioError(
            f"the parts held out for validation last {longest * HOP:.2f} s at most; expected "
            f"{_MIN_VALIDATION_FRAMES * HOP:g} s or more: hold out a larger fraction, or use longer recordings"
        )
    return min(EXCERPT_FRAMES, longest)
