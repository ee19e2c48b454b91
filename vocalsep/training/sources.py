"""Training sources out of folders: recordings of choirs, or single singers to mix."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vocalsep import audio
from vocalsep.audio import Float32
from vocalsep.audio.downmix import Mixdown
from vocalsep.errors import AudioError, F0Error, OptionError
from vocalsep.f0.monophonic import f0_from_stems
from vocalsep.f0.polyphonic import track_polyphonic
from vocalsep.f0.tracks import F0Tracks, register
from vocalsep.separation.folders import audio_files, f0_of_guides
from vocalsep.separation.given import resolve_tracks
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training.data import EXCERPT_FRAMES, Batch, MixedSource, MixtureSource, SingerSource, Take
from vocalsep.training.ensembles import EnsembleSource
from vocalsep.training.scores import chorales as read_chorales
from vocalsep.training.singing import synthetic_pieces
from vocalsep.training.trainer import Source
from vocalsep.voices import parse_voices

MIXTURE_SHARE = 0.15
"""Of batches that come from recordings of choirs where there are single singers too."""

_MIN_VALIDATION_FRAMES = 25  # 0.4 s: a few windows


def training_sources(
    mixtures: Path | None,
    singers: Iterable[str],
    guides: Path | None,
    voices: str | None,
    held_out: float,
    *,
    f0_errors: float = 0.0,
) -> tuple[Source[Batch], Source[Batch]]:
    """Return sources of training and validation out of a folder of recordings, folders of singers, or both.

    Parameters
    ----------
    mixtures, guides, voices
        See `mixture_sources`.
    singers
        Folders of single singers, each as "FOLDER" or "FOLDER:NAME,NAME"; see `singer_sources`.
    held_out
        Share at the end of every recording that only validation hears.
    f0_errors
        See `data.SingerSource`.
    """
    folders = singer_folders(singers)
    if mixtures is None:
        return singer_sources(folders, held_out, f0_errors=f0_errors)
    of_mixtures = mixture_sources(mixtures, guides, voices, held_out)
    if not folders:
        return of_mixtures
    of_singers = singer_sources(folders, held_out, f0_errors=f0_errors)
    return MixedSource(of_mixtures[0], of_singers[0], MIXTURE_SHARE), of_singers[1]


def singer_folders(texts: Iterable[str]) -> list[tuple[Path, list[str] | None]]:
    """Return folders of single singers, each written as "FOLDER" or "FOLDER:NAME,NAME", and which of them to use."""
    folders: list[tuple[Path, list[str] | None]] = []
    for text in texts:
        # What stands behind the last colon are names, unless it is part of a path (C:\\music).
        folder, colon, names = text.rpartition(":")
        if not colon or "/" in names or "\\" in names:
            folder, names = text, ""
        folders.append((Path(folder), [name.strip() for name in names.split(",") if name.strip()] or None))
    return folders


def ensemble_sources(
    folders: Iterable[tuple[Path, list[str] | None]], synthetic: int, chorales: int, held_out: float, seed: int
) -> tuple[EnsembleSource, EnsembleSource]:
    """Return sources of training and validation for the tracker.

    Parameters
    ----------
    folders
        See `singer_sources`. May be empty: the end of the synthetic pieces then serves for validation.
    synthetic
        Number of synthetic pieces.
    chorales
        Number of Bach chorales that two of three of them are cuts of; 0 for random counterpoint only.
    held_out
        Share at the end of every recording that only validation hears.
    seed
        Of the synthetic pieces.

    Raises
    ------
    MissingExtraError
        If chorales are wanted and music21 is not installed.
    """
    pieces = [split_singers(load_singers(folder, singers), held_out) for folder, singers in folders]
    scores = read_chorales(chorales) if chorales and synthetic else []
    # Without a room: the source puts ensembles into one.
    sung = synthetic_pieces(np.random.default_rng(seed), synthetic, scores, room=0.0)
    if not pieces:
        split = [split_singers(piece, held_out) for piece in sung]
        sung, pieces = [training for training, _ in split], [({}, held) for _, held in split]
    training = EnsembleSource([piece for piece, _ in pieces if piece], sung, seed=seed)
    held = [held for _, held in pieces]
    frames = _validation_frames([take for piece in held for takes in piece.values() for take in takes])
    return training, EnsembleSource(held, frames=frames, augmented=False)


def singer_sources(
    folders: Iterable[tuple[Path, list[str] | None]], held_out: float, *, f0_errors: float = 0.0
) -> tuple[SingerSource, SingerSource]:
    """Return sources of training and validation that mix single singers.

    Parameters
    ----------
    folders
        For each piece, the folder of its recordings and which singers to use; see `load_singers`.
    held_out
        Share at the end of every recording that only validation hears.
    f0_errors
        In training; see `data.SingerSource`.
    """
    pieces = [split_singers(load_singers(folder, singers), held_out) for folder, singers in folders]
    training = SingerSource([training for training, _ in pieces], f0_errors=f0_errors)
    held = [held for _, held in pieces]
    frames = _validation_frames([take for piece in held for takes in piece.values() for take in takes])
    return training, SingerSource(held, voices=(4, 4), frames=frames, augmented=False)


def mixture_sources(
    folder: Path, guides: Path | None, voices: str | None, held_out: float
) -> tuple[MixtureSource, MixtureSource]:
    """Return sources of training and validation that cut excerpts out of recordings of choirs.

    Parameters
    ----------
    folder
        Recordings.
    guides
        Folder with a folder of guides for each recording, by its name; None to track f0 in the recordings.
    voices
        See `voices.parse_voices`; SATB by default, or those of the guides.
    held_out
        Share at the end of every recording that only validation hears.
    """
    _validate_share(held_out)
    takes = []
    for name, path in audio_files(folder).items():
        mono = audio.to_model_rate(*audio.read(path))
        if guides is not None:
            tracks = _guided(guides / name, voices, mono)
        else:
            tracks = track_polyphonic(mono, MODEL_SAMPLE_RATE, voices or "SATB")
        takes.append(Take(name, mono, tracks.resampled(HOP, 1 + len(mono) // HOP_LENGTH).frequencies))
    training = MixtureSource([take.part(0, 1 - held_out) for take in takes])
    held = [take.part(1 - held_out, 1) for take in takes]
    return training, MixtureSource(held, _validation_frames(held))


def _guided(folder: Path, voices: str | None, mono: Float32) -> F0Tracks:
    names = None if voices is None else [voice.name for voice in parse_voices(voices)]
    try:
        return resolve_tracks(f0_of_guides(folder, names), None, Mixdown.of_array(mono))
    except F0Error as error:
        raise F0Error(f"{folder}: {error}") from error


def load_singers(folder: str | os.PathLike[str], singers: Iterable[str] | None = None) -> dict[str, list[Take]]:
    """Load a folder of single-singer recordings and track their f0 with CREPE.

    Parameters
    ----------
    folder
        Holds PART_SINGER files of one piece (soprano_1.flac, soprano_2.flac, ...), or one file for each PART.
    singers
        Which singers to load ("1", "2"); all by default.

    Returns
    -------
    dict
        Part -> takes, parts from the highest median f0 to the lowest.

    Raises
    ------
    AudioError
        If the folder holds no such recordings.
    """
    wanted = None if singers is None else set(singers)
    files = audio_files(Path(folder))
    missing = sorted((wanted or set()) - {name.partition("_")[2] for name in files})
    if missing:
        raise AudioError(f"{folder}: holds no recordings of singer {missing[0]}; expected PART_{missing[0]} files")
    parts: dict[str, list[Take]] = {}
    for name, path in files.items():
        part, _, singer = name.partition("_")
        if wanted is None or singer in wanted:
            waveform = audio.to_model_rate(*audio.read(path))
            tracks = f0_from_stems([waveform])
            parts.setdefault(part, []).append(Take(name, waveform, tracks.frequencies))
    return {part: parts[part] for part in sorted(parts, key=lambda part: -register(parts[part][0].f0))}


def split_singers(parts: dict[str, list[Take]], held_out: float) -> tuple[dict[str, list[Take]], dict[str, list[Take]]]:
    """Cut the last share `held_out` off every take, for validation; return what is left and what is cut off.

    Raises
    ------
    OptionError
        If the share is not between 0 and 0.5.
    """
    _validate_share(held_out)
    training = {part: [take.part(0, 1 - held_out) for take in takes] for part, takes in parts.items()}
    validation = {part: [take.part(1 - held_out, 1) for take in takes] for part, takes in parts.items()}
    return training, validation


def _validation_frames(held: list[Take]) -> int:
    """Return the length of excerpts of validation: short recordings leave little to hold out."""
    longest = max(take.n_frames for take in held)
    if longest < _MIN_VALIDATION_FRAMES:
        raise AudioError(
            f"the parts held out for validation last {longest * HOP:.2f} s at most; expected "
            f"{_MIN_VALIDATION_FRAMES * HOP:g} s or more: hold out a larger share, or give longer recordings"
        )
    return min(EXCERPT_FRAMES, longest)


def _validate_share(held_out: float) -> None:
    if not 0 < held_out <= 0.5:
        raise OptionError(f"held-out share is {held_out}; expected more than 0 and at most 0.5")
