"""Ensembles of singers who are known one by one: the material of all evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from vocalsep import audio
from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.monophonic import f0_from_downmixes
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.folders import audio_files, read_stems
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.takes import section_f0

QUARTET = ("soprano", "alto", "tenor", "bass")
DRY = "dry"
"""Name of the room of ensembles as they were recorded."""


@dataclass(frozen=True)
class Ensemble:
    """The singers of an ensemble, one for each voice, or several: a section."""

    names: tuple[str, ...]  # of the voices, high to low
    singers: Sequence[Float32]  # of each voice, shape (singers, samples) at 16 kHz
    room: str = DRY  # in which they sing

    @property
    def stems(self) -> Float32:
        """Sum of the singers of each voice, shape (voices, samples)."""
        return np.stack([singers.sum(axis=0) for singers in self.singers])

    @property
    def mixture(self) -> Float32:
        """Sum of the stems, shape (samples,)."""
        total: Float32 = self.stems.sum(axis=0)
        return total

    @property
    def label(self) -> str:
        """Initials of the voices ("SATB") if they all differ, else the names."""
        initials = [name[:1].upper() for name in self.names]
        return "".join(initials) if len(set(initials)) == len(initials) else "+".join(self.names)


def load_ensemble(folder: Path, singers: Sequence[str], names: Sequence[str] = QUARTET) -> Ensemble:
    """Load the recordings PART_SINGER.*, or else PART.*, of parts that are in time with one another.

    Several singers of a part are a section. Raise AudioError if a part is missing.
    """
    files = audio_files(folder)

    def find(name: str, singer: str) -> Path:
        path = files.get(f"{name}_{singer}") or files.get(name)
        if path is None:
            raise AudioError(f"{folder}: has no recording named {name}_{singer} or {name}; expected one for each part")
        return path

    if not singers:
        raise OptionError("there are no singers; expected one or more", parameter="singer")
    paths = [dict.fromkeys(find(name, singer) for singer in singers) for name in names]
    sections = [[audio.to_model_rate(*audio.read(path)) for path in section] for section in paths]
    length = min(len(waveform) for section in sections for waveform in section)
    return Ensemble(tuple(names), [np.stack([waveform[:length] for waveform in section]) for section in sections])


def subsets(ensemble: Ensemble, sizes: Sequence[int] | None = None) -> list[Ensemble]:
    """Return all ensembles of `sizes` of the voices, the largest first; by default, all of two voices or more."""
    voices = len(ensemble.names)
    wrong = [size for size in sizes or () if not 2 <= size <= voices]
    if wrong:
        raise OptionError(f"there is no ensemble of {wrong[0]} voices; expected 2 to {voices}", parameter="sizes")
    return [
        replace(
            ensemble,
            names=tuple(ensemble.names[row] for row in rows),
            singers=[ensemble.singers[row] for row in rows],
        )
        for size in sorted(set(sizes or range(2, voices + 1)), reverse=True)
        for rows in combinations(range(voices), size)
    ]


def f0_of_stems(ensemble: Ensemble, crepe: Crepe) -> F0Tracks:
    """Return the f0 tracks of the stems, which are the truth for the benchmarks; see `section_f0` for sections."""
    f0 = []
    for singers in ensemble.singers:
        downmixes = {str(number): Downmix.of_array(singer) for number, singer in enumerate(singers)}
        f0.append(section_f0(f0_from_downmixes(downmixes, crepe).frequencies))
    return F0Tracks(np.stack(f0), ensemble.names)


def load_stems(references: Path, estimates: Path) -> tuple[list[str], Float32, Float32]:
    """Load two folders of stems, true and separated; return their names and both, shape (voices, samples), at 16 kHz.

    Raise AudioError if a separated stem is missing, or if lengths differ by more than 0.1 s.
    """
    true, separated = audio_files(references), audio_files(estimates)
    missing = [name for name in true if name not in separated]
    if missing:
        raise AudioError(f"{estimates}: has no {missing[0]}; it has {', '.join(separated)}")
    stems = []
    for files in (true, {name: separated[name] for name in true}):
        waveforms, sample_rate = read_stems(files)
        stems.append([audio.to_model_rate(waveform, sample_rate) for waveform in waveforms.values()])
    lengths = {len(waveform) for group in stems for waveform in group}
    if max(lengths) - min(lengths) > MODEL_SAMPLE_RATE // 10:
        seconds = ", ".join(f"{length / MODEL_SAMPLE_RATE:.2f}" for length in sorted(lengths))
        raise AudioError(f"the stems last {seconds} s; expected references and estimates of one length")
    first, second = (np.stack([waveform[: min(lengths)] for waveform in group]) for group in stems)
    return list(true), first, second
