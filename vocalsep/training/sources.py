"""Training and validation sources out of folders: recordings of choirs, or of single singers to mix."""

from __future__ import annotations

from collections.abc import Iterable
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
from vocalsep.training.scores import chorales
from vocalsep.training.singing import synthetic_pieces
from vocalsep.training.takes import Piece, Take, all_takes, median_f0, split_piece, split_takes
from vocalsep.voices import parse_voices

MIXTURE_SHARE = 0.15
"""Fraction of the batches that come from recordings of choirs if there are single singers too."""

_MIN_VALIDATION_FRAMES = 25  # 0.4 s: a few windows

S = TypeVar("S", bound=Source)
Sources = tuple[S, S]
"""A source of excerpts for training and one for validation."""


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

    Raises
    ------
    OptionError
        If there is nothing to train on, or an option belongs to recordings that are missing.
    VoicesError
        If the voices cannot be understood.
    """

    mixtures: Path | None = None
    guides: Path | None = None
    voices: str | None = None
    singers: tuple[str, ...] = ()
    f0_errors: float = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.mixtures is None and not self.singers:
            raise OptionError("there is nothing to train on; expected a folder of recordings, or of single singers")
        for name in ("guides", "voices"):
            if self.mixtures is None and getattr(self, name) is not None:
                raise OptionError(f"{name} describes recordings of choirs, but there are none", parameter=name)
        if self.voices is not None:
            parse_voices(self.voices)

    def sources(self, separator: Separator) -> Sources[Source]:
        """Return the sources for training and validation; the separator's networks track f0."""
        mixtures = None if self.mixtures is None else _mixture_sources(self, separator)
        if not self.singers:
            assert mixtures is not None
            return mixtures
        pieces = load_pieces(singer_folders(self.singers), separator.crepe, self.held_out)
        singers = singer_sources(*pieces, f0_errors=self.f0_errors)
        return (MixedSource(mixtures[0], singers[0], MIXTURE_SHARE), singers[1]) if mixtures else singers


@dataclass(frozen=True)
class TrackerData:
    """Recorded and synthetic singers to train the tracker on.

    Parameters
    ----------
    singers : tuple of str
        Folders of single singers; see `EstimatorData`.
    synthetic : int
        Number of synthetic pieces of 30 s.
    chorales : int
        Number of Bach chorales; two of three synthetic pieces are excerpts of them, the others random counterpoint.
    held_out : float
        Fraction at the end of every recording that is kept for validation.
    seed : int
        Random seed of the synthetic pieces and of the transposition of the recorded ones.

    Raises
    ------
    OptionError
        If there is nothing to train on.
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
        """Return the sources for training and validation; without recordings, validation uses synthetic pieces.

        Raises
        ------
        MissingExtraError
            If there are to be chorales, but music21 is not installed.
        """
        training, held_out = load_pieces(singer_folders(self.singers), crepe, self.held_out)
        scores = chorales(self.chorales) if self.chorales and self.synthetic else []
        synthetic = synthetic_pieces(np.random.default_rng(self.seed), self.synthetic, scores)
        if not self.singers:
            split = [split_piece(piece, self.held_out) for piece in synthetic]
            synthetic, held_out = [piece for piece, _ in split], [piece for _, piece in split]
        source = EnsembleSource(training, synthetic, seed=self.seed)
        return source, EnsembleSource(held_out, frames=_validation_frames(all_takes(held_out)), augmented=False)


def singer_folders(texts: Iterable[str]) -> list[tuple[Path, list[str] | None]]:
    """Return folders of single singers and the names of the singers to use, out of "FOLDER" or "FOLDER:NAME,NAME".

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


def load_singers(folder: Path, singers: Iterable[str] | None, crepe: Crepe) -> Piece:
    """Load a folder of recordings of single singers and track their f0.

    Parameters
    ----------
    folder : Path
        Folder of PART_SINGER files of one piece (soprano_1.flac, soprano_2.flac, ...), or of one file for each PART.
    singers : iterable of str, optional
        Singers to load ("1", "2"); all by default.
    crepe : Crepe
        Tracks the f0.

    Returns
    -------
    dict
        Part -> takes, from the part with the highest median f0 to the lowest.

    Raises
    ------
    AudioError
        If there are no such recordings.
    """
    wanted = None if singers is None else set(singers)
    files = audio_files(folder)
    missing = sorted((wanted or set()) - {name.partition("_")[2] for name in files})
    if missing:
        raise AudioError(f"{folder}: holds no recordings of singer {missing[0]}; expected PART_{missing[0]} files")
    piece: Piece = {}
    for name, path in files.items():
        part, _, singer = name.partition("_")
        if wanted is None or singer in wanted:
            waveform = audio.to_model_rate(*audio.read(path))
            tracks = f0_from_downmixes({name: Downmix.of_array(waveform)}, crepe, VOICING_THRESHOLD)
            piece.setdefault(part, []).append(Take(name, waveform, tracks.frequencies))
    return {part: piece[part] for part in sorted(piece, key=lambda part: -median_f0(piece[part][0].f0))}


def singer_sources(training: list[Piece], held_out: list[Piece], *, f0_errors: float = 0.0) -> Sources[SingerSource]:
    """Return sources that mix single singers: random ensembles for training, plain quartets for validation."""
    frames = _validation_frames(all_takes(held_out))
    validation = SingerSource(held_out, voices=(4, 4), frames=frames, augmented=False)
    return SingerSource(training, f0_errors=f0_errors), validation


def _mixture_sources(data: EstimatorData, separator: Separator) -> Sources[MixtureSource]:
    """Return sources of excerpts of recordings of choirs."""
    assert data.mixtures is not None
    takes = [_mixture(name, path, data, separator) for name, path in audio_files(data.mixtures).items()]
    training, held_out = split_takes(takes, data.held_out)
    return MixtureSource(training), MixtureSource(held_out, _validation_frames(held_out))


def _mixture(name: str, path: Path, data: EstimatorData, separator: Separator) -> Take:
    """Load a recording of a choir with the f0 of its guides, or track it."""
    waveform = audio.to_model_rate(*audio.read(path))
    downmix = Downmix.of_array(waveform)
    if data.guides is None:
        return Take(name, waveform, separator.track(downmix, voices=data.voices).frequencies)
    names = None if data.voices is None else [voice.name for voice in parse_voices(data.voices)]
    guides = f0_from_guides(data.guides / name, names, separator.crepe)
    try:
        return Take(name, waveform, separator.track(downmix, guides).frequencies)
    except F0Error as error:
        raise F0Error(f"{data.guides / name}: {error}") from error


def _validation_frames(takes: list[Take]) -> int:
    """Return the length of the excerpts for validation: 4 s, or less if the takes are shorter."""
    longest = max(take.n_frames for take in takes)
    if longest < _MIN_VALIDATION_FRAMES:
        raise AudioError(
            f"the parts held out for validation last {longest * HOP:.2f} s at most; expected "
            f"{_MIN_VALIDATION_FRAMES * HOP:g} s or more: hold out a larger fraction, or use longer recordings"
        )
    return min(EXCERPT_FRAMES, longest)
