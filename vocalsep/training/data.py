"""Where training excerpts come from: recordings of choirs, or random mixtures of single singers.

A source draws batches of mixtures with the f0 of their voices. Only these enter the unsupervised loss; a source of
single singers uses its stems to make mixtures, never as targets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep import audio
from vocalsep.audio import MODEL_SAMPLE_RATE, Float32
from vocalsep.errors import AudioError, ParameterError
from vocalsep.f0.crepe import f0_from_stems
from vocalsep.tracks import HOP_LENGTH, F0Tracks
from vocalsep.training import augment

EXCERPT_FRAMES = 250
"""Frames of a training excerpt: 4 s."""
SHIFTS = (-3, -2, -1, 0, 1, 2, 3)
"""Semitones by which singers are transposed."""
_MIN_VOICED = 0.2  # share of frames in which some voice must sing for an excerpt to be of use


class Batch(NamedTuple):
    """Excerpts of one length and number of voices."""

    mixture: Tensor
    """Shape (batch, samples) at 16 kHz."""
    f0: Tensor
    """Hz, shape (batch, voices, frames), 0 = unvoiced."""


class Source(Protocol):
    """Anything that batches of mixtures can be drawn from."""

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts."""


@dataclass(frozen=True)
class Take:
    """A recording at 16 kHz with the f0 of its voices.

    Parameters
    ----------
    name
        For messages.
    waveform
        Shape (samples,).
    f0
        Hz, shape (voices, frames).
    """

    name: str
    waveform: Float32
    f0: Float32

    @property
    def n_frames(self) -> int:
        """Frames that lie wholly in the waveform."""
        return min(self.f0.shape[1], len(self.waveform) // HOP_LENGTH)

    def excerpt(self, first: int, frames: int) -> tuple[Float32, Float32]:
        """Return waveform and f0 from frame `first` on; f0 has one frame more, as an STFT has."""
        samples = self.waveform[first * HOP_LENGTH : (first + frames) * HOP_LENGTH]
        f0 = self.f0[:, first : first + frames + 1]
        return samples, np.pad(f0, ((0, 0), (0, frames + 1 - f0.shape[1])))

    def part(self, start: float, stop: float) -> Take:
        """Return the part between two fractions of the whole."""
        low, high = int(start * self.n_frames), int(stop * self.n_frames)
        return Take(self.name, self.waveform[low * HOP_LENGTH : high * HOP_LENGTH], self.f0[:, low:high])


class MixtureSource:
    """Excerpts of recordings of choirs, the only training data that the method needs.

    Parameters
    ----------
    takes
        Recordings with the f0 of their voices; all with the same number of voices within a batch.
    frames
        Frames of an excerpt.

    Raises
    ------
    AudioError
        If no recording is as long as an excerpt.
    """

    def __init__(self, takes: Sequence[Take], frames: int = EXCERPT_FRAMES) -> None:
        self.takes = [take for take in takes if take.n_frames >= frames]
        self.frames = frames
        if not self.takes:
            raise AudioError(f"no recording lasts {frames * HOP_LENGTH / MODEL_SAMPLE_RATE:.1f} s; training needs one")

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts, of recordings with one number of voices."""
        lengths = np.array([take.n_frames for take in self.takes], dtype=float)
        voices = len(self.takes[rng.choice(len(self.takes), p=lengths / lengths.sum())].f0)
        alike = [take for take in self.takes if len(take.f0) == voices]
        lengths = np.array([take.n_frames for take in alike], dtype=float)
        picks = rng.choice(len(alike), size=size, p=lengths / lengths.sum())
        pairs = [_voiced_excerpt(alike[pick], rng, self.frames) for pick in picks]
        mixture = torch.from_numpy(np.stack([samples for samples, _ in pairs]))
        mixture = mixture * torch.from_numpy(_random_gain(rng, (size, 1), 6.0))
        return Batch(_with_level(mixture), torch.from_numpy(np.stack([f0 for _, f0 in pairs])))


class SingerSource:
    """Random ensembles of single singers, with augmentation.

    Half the ensembles sing together (the same bars, as recorded), which gives the chords and shared harmonics of
    real music; half are put together at random.

    Parameters
    ----------
    parts
        Part name -> takes of its singers, parts high to low. Takes of equal length are taken to be in time with one
        another.
    voices
        Least and greatest number of voices.
    frames
        Frames of an excerpt.
    augmented
        Whether to transpose, equalise, move formants, add room and noise, or only to mix.
    """

    def __init__(
        self,
        parts: dict[str, list[Take]],
        voices: tuple[int, int] = (2, 6),
        frames: int = EXCERPT_FRAMES,
        *,
        augmented: bool = True,
    ) -> None:
        shifts = SHIFTS if augmented else (0,)
        self.frames = frames
        self.augmented = augmented
        self.sizes = np.arange(voices[0], voices[1] + 1)
        # Quartets are what most choirs sing.
        self.size_weights = np.where(self.sizes == 4, 2.0, 1.0)
        self.banks = {
            semitones: {part: [_transposed(take, semitones) for take in takes] for part, takes in parts.items()}
            for semitones in shifts
        }
        shortest = min(take.n_frames for bank in self.banks.values() for takes in bank.values() for take in takes)
        if shortest < frames:
            raise AudioError(f"a singer's recording lasts {shortest * 0.016:.1f} s; expected {frames * 0.016:.1f} s")

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random ensembles with one number of voices."""
        n_voices = int(rng.choice(self.sizes, p=self.size_weights / self.size_weights.sum()))
        ensembles = [self._ensemble(rng, n_voices) for _ in range(size)]
        voices = torch.from_numpy(np.stack([samples for samples, _ in ensembles]))  # (batch, voices, samples)
        f0 = torch.from_numpy(np.stack([f0 for _, f0 in ensembles]))
        if self.augmented:
            voices = self._augment(voices, rng)
        mixture = voices.sum(dim=1)
        if self.augmented:
            mixture = add_room_and_noise(mixture, rng)
        return Batch(_with_level(mixture), f0)

    def _ensemble(self, rng: Generator, n_voices: int) -> tuple[Float32, Float32]:
        together = rng.random() < 0.5
        semitones = rng.choice(list(self.banks), size=n_voices)
        if together:
            semitones[:] = semitones[0]
        names = list(next(iter(self.banks.values())))
        # Each part once, then again (a second singer of the part) where there are more voices than parts.
        order = np.concatenate([rng.permutation(len(names)) for _ in range(-(-n_voices // len(names)))])[:n_voices]
        takes = [
            self._pick(rng, self.banks[int(shift)][names[part]]) for shift, part in zip(semitones, order, strict=True)
        ]
        while True:
            length = min(take.n_frames for take in takes)
            start = int(rng.integers(length - self.frames + 1))
            starts = [start if together else int(rng.integers(take.n_frames - self.frames + 1)) for take in takes]
            pairs = [take.excerpt(first, self.frames) for take, first in zip(takes, starts, strict=True)]
            f0 = np.concatenate([f0 for _, f0 in pairs])
            if (f0 > 0).any(axis=0).mean() >= _MIN_VOICED:
                return np.stack([samples for samples, _ in pairs]), f0

    def _pick(self, rng: Generator, takes: list[Take]) -> Take:
        return takes[int(rng.integers(len(takes)))]

    def _augment(self, voices: Tensor, rng: Generator) -> Tensor:
        voices = augment.equalise(voices, rng, strength_db=4.0)
        for row in range(len(voices)):
            if rng.random() < 0.3:
                ratio = float(np.exp2(rng.uniform(-0.25, 0.25)))
                voice = int(rng.integers(voices.shape[1]))
                voices[row, voice] = augment.shift_formants(voices[row, voice], ratio)
        return voices * torch.from_numpy(_random_gain(rng, (*voices.shape[:2], 1), 6.0))


def add_room_and_noise(mixture: Tensor, rng: Generator) -> Tensor:
    """Put a third of all batches of mixtures (batch, samples) into a room, and noise under a third."""
    if rng.random() < 0.3:
        mixture = augment.reverberate(mixture, rng)
    if rng.random() < 0.3:
        mixture = augment.add_noise(mixture, rng)
    return mixture


def _voiced_excerpt(take: Take, rng: Generator, frames: int) -> tuple[Float32, Float32]:
    for _ in range(50):
        samples, f0 = take.excerpt(int(rng.integers(take.n_frames - frames + 1)), frames)
        if (f0 > 0).any(axis=0).mean() >= _MIN_VOICED:
            break
    return samples, f0


def _transposed(take: Take, semitones: float) -> Take:
    names = tuple(f"voice{index}" for index in range(len(take.f0)))
    waveform, tracks = augment.shift_by_resampling(take.waveform, F0Tracks(take.f0, names), semitones)
    return Take(take.name, waveform, tracks.frequencies)


def _random_gain(rng: Generator, shape: tuple[int, ...], range_db: float) -> Float32:
    return (10 ** (rng.uniform(-range_db, range_db, shape) / 20)).astype(np.float32)


def _with_level(mixture: Tensor) -> Tensor:
    """Bring each mixture to the peak that separation brings recordings to, less what it has below."""
    peak = mixture.abs().amax(dim=-1, keepdim=True)
    return torch.where(peak > 1.0, mixture / peak.clamp_min(1e-9), mixture)


def load_singers(folder: str | os.PathLike[str], singers: Iterable[str] | None = None) -> dict[str, list[Take]]:
    """Load a folder of single-singer recordings named PART_SINGER.ext and track their f0 with CREPE.

    Parameters
    ----------
    folder
        Holds, say, soprano_1.flac, soprano_2.flac, alto_1.flac, ...
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
    parts: dict[str, list[Take]] = {}
    for path in sorted(Path(folder).iterdir()):
        part, _, singer = path.stem.rpartition("_")
        if part and path.is_file() and not path.name.startswith(".") and (wanted is None or singer in wanted):
            waveform = audio.to_model_rate(*audio.read(path))
            tracks = f0_from_stems([waveform])
            parts.setdefault(part, []).append(Take(path.stem, waveform, tracks.frequencies))
    if not parts:
        raise AudioError(f"{folder}: holds no recordings named PART_SINGER, such as soprano_1.flac")
    medians = {part: float(np.median(takes[0].f0[takes[0].f0 > 0])) for part, takes in parts.items()}
    return {part: parts[part] for part in sorted(parts, key=lambda part: -medians[part])}


def split_takes(parts: dict[str, list[Take]], held_out: float) -> tuple[dict[str, list[Take]], dict[str, list[Take]]]:
    """Cut the last share `held_out` off every take, for validation; return what is left and what is cut off.

    Raises
    ------
    ParameterError
        If the share is not between 0 and 0.5.
    """
    if not 0 < held_out <= 0.5:
        raise ParameterError(f"held_out is {held_out}; expected more than 0 and at most 0.5")
    training = {part: [take.part(0, 1 - held_out) for take in takes] for part, takes in parts.items()}
    validation = {part: [take.part(1 - held_out, 1) for take in takes] for part, takes in parts.items()}
    return training, validation
