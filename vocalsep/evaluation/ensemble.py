"""Ensembles of single singers whose stems are known: the material of all evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

QUARTET = ("soprano", "alto", "tenor", "bass")


@dataclass(frozen=True)
class Ensemble:
    """The stems of an ensemble."""

    names: tuple[str, ...]  # of the voices, high to low
    stems: Float32  # shape (voices, samples) at 16 kHz

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


def load_ensemble(folder: Path, singer: str, names: Sequence[str] = QUARTET) -> Ensemble:
    """Load the recordings PART_SINGER.*, or else PART.*, of parts that are in time with one another.

    Raise AudioError if a part is missing.
    """
    files = audio_files(folder)
    waveforms = []
    for name in names:
        path = files.get(f"{name}_{singer}") or files.get(name)
        if path is None:
            raise AudioError(f"{folder}: has no recording named {name}_{singer} or {name}; expected one for each part")
        waveforms.append(audio.to_model_rate(*audio.read(path)))
    length = min(map(len, waveforms))
    return Ensemble(tuple(names), np.stack([waveform[:length] for waveform in waveforms]))


def subsets(ensemble: Ensemble, sizes: Sequence[int] | None = None) -> list[Ensemble]:
    """Return all ensembles of `sizes` of the voices, the largest first; by default, all of two voices or more."""
    voices = len(ensemble.names)
    wrong = [size for size in sizes or () if not 2 <= size <= voices]
    if wrong:
        raise OptionError(f"there is no ensemble of {wrong[0]} voices; expected 2 to {voices}", parameter="sizes")
    return [
        Ensemble(tuple(ensemble.names[row] for row in rows), ensemble.stems[list(rows)])
        for size in sorted(set(sizes or range(2, voices + 1)), reverse=True)
        for rows in combinations(range(voices), size)
    ]


def f0_of_stems(ensemble: Ensemble, crepe: Crepe) -> F0Tracks:
    """Return the f0 tracks of the stems, which are the truth for the benchmarks."""
    stems = zip(ensemble.names, ensemble.stems, strict=True)
    return f0_from_downmixes({name: Downmix.of_array(stem) for name, stem in stems}, crepe)


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
