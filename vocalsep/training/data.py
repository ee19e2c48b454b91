"""Where training excerpts come from: recordings of choirs, or random mixtures of single singers.

A source draws batches of mixtures with the f0 of their voices, and with their stems where it knows them. The
unsupervised loss looks at mixtures only; stems are for supervised training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.errors import AudioError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training import augment
from vocalsep.training.f0_errors import with_errors
from vocalsep.training.trainer import Source

EXCERPT_FRAMES = 250
"""Frames of a training excerpt: 4 s."""
SHIFTS = (-3, -2, -1, 0, 1, 2, 3)
"""Semitones by which singers are transposed."""
_MAX_TRIES = 50  # draws before an excerpt with fewer voiced frames is taken after all
_MIN_VOICED = 0.2  # share of frames in which some voice must sing for an excerpt to be of use


class Batch(NamedTuple):
    """Excerpts of one length and number of voices."""

    mixture: Tensor
    """Shape (batch, samples) at 16 kHz."""
    f0: Tensor
    """Hz, shape (batch, voices, frames), 0 = unvoiced."""
    stems: Tensor | None = None
    """Shape (batch, voices, samples), in the room of the mixture: what they leave of it is noise. None if unknown."""


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
        return min(int(self.f0.shape[1]), len(self.waveform) // HOP_LENGTH)

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
        voices = len(self.takes[choose(rng, [take.n_frames for take in self.takes])].f0)
        alike = [take for take in self.takes if len(take.f0) == voices]
        lengths = [take.n_frames for take in alike]
        pairs = [_voiced_excerpt(alike[choose(rng, lengths)], rng, self.frames) for _ in range(size)]
        mixture = torch.from_numpy(np.stack([samples for samples, _ in pairs]))
        mixture = mixture * torch.from_numpy(_random_gain(rng, (size, 1), 6.0))
        return Batch(_gain_to_level(mixture) * mixture, torch.from_numpy(np.stack([f0 for _, f0 in pairs])))


class SingerSource:
    """Random ensembles of single singers, with augmentation.

    Half the ensembles sing together (the same bars of one piece, as recorded), which gives the chords and shared
    harmonics of real music; half are put together at random.

    Parameters
    ----------
    pieces
        For each piece, part name -> takes of its singers. The takes of a piece are in time with one another.
    voices
        Least and greatest number of voices.
    frames
        Frames of an excerpt; shorter takes are left out.
    augmented
        Whether to transpose, equalise, move formants, add room and noise, or only to mix.
    f0_errors
        Share of excerpts whose f0 has the errors of a tracker; see `f0_errors`.

    Raises
    ------
    AudioError
        If no take is as long as an excerpt.
    """

    def __init__(
        self,
        pieces: Sequence[dict[str, list[Take]]],
        voices: tuple[int, int] = (2, 6),
        frames: int = EXCERPT_FRAMES,
        *,
        augmented: bool = True,
        f0_errors: float = 0.0,
    ) -> None:
        self.frames = frames
        self.augmented = augmented
        self.f0_errors = f0_errors
        self.sizes = np.arange(voices[0], voices[1] + 1)
        # Quartets are what most choirs sing.
        self.size_weights = np.where(self.sizes == 4, 2.0, 1.0)
        shifts = SHIFTS if augmented else (0,)
        self.banks = {
            semitones: [
                bank
                for piece in pieces
                if (
                    bank := {part: fitting for part, takes in piece.items() if (fitting := self._fit(takes, semitones))}
                )
            ]
            for semitones in shifts
        }
        if not all(self.banks.values()):
            raise AudioError(f"no recording lasts {frames * HOP:.1f} s; training needs one of each part")

    def _fit(self, takes: list[Take], semitones: float) -> list[Take]:
        moved = [transposed(take, semitones) for take in takes]
        return [take for take in moved if take.n_frames >= self.frames]

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random ensembles with one number of voices."""
        n_voices = int(rng.choice(self.sizes, p=self.size_weights / self.size_weights.sum()))
        ensembles = [self._ensemble(rng, n_voices) for _ in range(size)]
        voices = torch.from_numpy(np.stack([samples for samples, _ in ensembles]))  # (batch, voices, samples)
        f0 = torch.from_numpy(np.stack([self._tracked(f0, rng) for _, f0 in ensembles]))
        if self.augmented:
            voices = self._augment(voices, rng)
        mixture, voices = add_room_and_noise(voices, rng) if self.augmented else (voices.sum(dim=1), voices)
        gain = _gain_to_level(mixture)
        return Batch(gain * mixture, f0, gain[:, None] * voices)

    def _tracked(self, f0: Float32, rng: Generator) -> Float32:
        return with_errors(f0, rng) if self.f0_errors and rng.random() < self.f0_errors else f0

    def _ensemble(self, rng: Generator, n_voices: int) -> tuple[Float32, Float32]:
        for _ in range(_MAX_TRIES):
            pick = self._together if rng.random() < 0.5 else self._apart
            pairs = [take.excerpt(first, self.frames) for take, first in pick(rng, n_voices)]
            f0 = np.concatenate([f0 for _, f0 in pairs])
            if (f0 > 0).any(axis=0).mean() >= _MIN_VOICED:
                break
        return np.stack([samples for samples, _ in pairs]), f0

    def _together(self, rng: Generator, n_voices: int) -> list[tuple[Take, int]]:
        bank = self.banks[int(rng.choice(list(self.banks)))]
        piece = bank[choose(rng, [_seconds(parts) for parts in bank])]
        names = list(piece)
        # Each part once, then again (a second singer of the part) where there are more voices than parts.
        rounds = -(-n_voices // len(names))
        order = np.concatenate([rng.permutation(len(names)) for _ in range(rounds)])[:n_voices]
        takes = [piece[names[part]][int(rng.integers(len(piece[names[part]])))] for part in order]
        first = int(rng.integers(min(take.n_frames for take in takes) - self.frames + 1))
        return [(take, first) for take in takes]

    def _apart(self, rng: Generator, n_voices: int) -> list[tuple[Take, int]]:
        picks = []
        for _ in range(n_voices):
            bank = self.banks[int(rng.choice(list(self.banks)))]
            takes = [take for piece in bank for part in piece.values() for take in part]
            take = takes[choose(rng, [take.n_frames for take in takes])]
            picks.append((take, int(rng.integers(take.n_frames - self.frames + 1))))
        return picks

    def _augment(self, voices: Tensor, rng: Generator) -> Tensor:
        voices = augment.equalise(voices, rng, strength_db=4.0)
        for row in range(len(voices)):
            if rng.random() < 0.3:
                ratio = float(np.exp2(rng.uniform(-0.25, 0.25)))
                voice = int(rng.integers(voices.shape[1]))
                voices[row, voice] = augment.shift_formants(voices[row, voice], ratio)
        return voices * torch.from_numpy(_random_gain(rng, (*voices.shape[:2], 1), 6.0))


class MixedSource:
    """Batches from one source or another, by chance.

    Parameters
    ----------
    first, second
        The sources.
    share
        Probability of the first.
    """

    def __init__(self, first: Source[Batch], second: Source[Batch], share: float) -> None:
        self.first, self.second, self.share = first, second, share

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` excerpts of one of the sources."""
        return (self.first if rng.random() < self.share else self.second).draw(rng, size)


def add_room_and_noise(voices: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Put three of ten batches of voices into a room, and noise under the mixtures of three of ten.

    Returns
    -------
    mixture, voices
        Shapes (batch, samples) and (batch, voices, samples).
    """
    if rng.random() < 0.3:
        voices = augment.reverberate(voices, rng)
    mixture = voices.sum(dim=1)
    if rng.random() < 0.3:
        mixture = augment.add_noise(mixture, rng)
    return mixture, voices


def _seconds(parts: dict[str, list[Take]]) -> float:
    return HOP * sum(take.n_frames for takes in parts.values() for take in takes)


def choose(rng: Generator, weights: Sequence[float]) -> int:
    """Return the index of one of several things, drawn with probabilities in proportion to their weights."""
    return int(rng.choice(len(weights), p=np.array(weights, dtype=float) / sum(weights)))


def _voiced_excerpt(take: Take, rng: Generator, frames: int) -> tuple[Float32, Float32]:
    for _ in range(_MAX_TRIES):
        samples, f0 = take.excerpt(int(rng.integers(take.n_frames - frames + 1)), frames)
        if (f0 > 0).any(axis=0).mean() >= _MIN_VOICED:
            break
    return samples, f0


def transposed(take: Take, semitones: float) -> Take:
    """Return a take so many semitones higher, as a tape played faster."""
    names = tuple(f"voice{index}" for index in range(len(take.f0)))
    waveform, tracks = augment.shift_by_resampling(take.waveform, F0Tracks(take.f0, names), semitones)
    return Take(take.name, waveform, tracks.frequencies)


def _random_gain(rng: Generator, shape: tuple[int, ...], range_db: float) -> Float32:
    return (10 ** (rng.uniform(-range_db, range_db, shape) / 20)).astype(np.float32)


def _gain_to_level(mixture: Tensor) -> Tensor:
    """Return the gain, shape (batch, 1), that brings mixtures with a peak above full scale down to it."""
    peak = mixture.abs().amax(dim=-1, keepdim=True)
    return 1.0 / peak.clamp_min(1.0)
