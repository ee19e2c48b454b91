"""Random ensembles of single singers with targets, for training the tracker.

The targets are the f0 of single singers: CREPE's for recordings, exact for synthetic singing. Ensembles have any size
and make-up. Their voices are described by part or only by rank, may be sections of several singers, and may rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.f0.network import describe
from vocalsep.training import augment
from vocalsep.training.data import EXCERPT_FRAMES, Batch
from vocalsep.training.takes import (
    Piece,
    Take,
    all_takes,
    choose,
    median_f0,
    random_start,
    section_f0,
    too_short,
    transposed_pieces,
)
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN, Voice, parse_voices

SIZES = {1: 0.03, 2: 0.15, 3: 0.17, 4: 0.43, 5: 0.08, 6: 0.07, 7: 0.03, 8: 0.04}
"""Number of voices -> its probability; most choirs sing in four parts."""
SHIFTS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
"""Semitones by which recorded singers are transposed."""

_DETUNING = 0.5  # semitones: transpositions differ from whole semitones by up to this, as no pitch may be favoured
_TOGETHER = 0.7  # fraction of ensembles that sing one piece; the others are put together at random
_SYNTHETIC = 0.5  # fraction of the ensembles that sing one piece that are synthetic, if there are recordings too
_NUMBERED = 0.2  # fraction of ensembles that are described by the number of their voices only
_RESTING = 0.08  # fraction of voices that rest throughout an excerpt
_ALL_RESTING = 0.2  # probability that the one voice that must not be drawn to rest does so too
_SECTION = 0.3  # fraction of voices that several singers sing, if the piece has them
_RANGE_JITTER = 1.0  # semitones: standard deviation of the range by which a part is described


class _Voice(NamedTuple):
    """One voice of an ensemble."""

    part: str
    waveform: Float32
    f0: Float32
    median_f0: float


class EnsembleSource:
    """Random ensembles with targets.

    Parameters
    ----------
    recorded, synthetic : sequence of Piece
        Recorded and synthetic singers; only recordings are transposed. Takes shorter than an excerpt are left out;
        AudioError if no take is left.
    frames : int
        Length of an excerpt.
    augmented : bool
        Draw ensembles of all sizes; transpose, equalise, move formants, vary levels, add room and noise and limit the
        band. If False, quartets that sing together are mixed as they are.
    seed : int
        Random seed of the transpositions.
    """

    def __init__(
        self,
        recorded: Sequence[Piece],
        synthetic: Sequence[Piece] = (),
        *,
        frames: int = EXCERPT_FRAMES,
        augmented: bool = True,
        seed: int = 0,
    ) -> None:
        self.frames = frames
        self.augmented = augmented
        self.synthetic_share = _SYNTHETIC if synthetic and recorded else float(not recorded)
        rng = np.random.default_rng(seed)
        shifts = [s + float(rng.uniform(-_DETUNING, _DETUNING)) for s in SHIFTS] if augmented else [0.0]
        self.recorded = [piece for shift in shifts for piece in transposed_pieces(recorded, shift, frames)]
        self.synthetic = transposed_pieces(synthetic, 0.0, frames)
        if not self.recorded and not self.synthetic:
            raise too_short(frames)

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random ensembles with one number of voices."""
        n_voices = int(rng.choice(list(SIZES), p=list(SIZES.values()))) if self.augmented else 4
        mixtures, f0s, descriptions = [], [], []
        for _ in range(size):
            ensemble, described = self.ensemble(rng, n_voices)
            mixtures.append(self._mix(np.stack([voice.waveform for voice in ensemble]), rng))
            f0s.append(np.stack([voice.f0 for voice in ensemble]))
            descriptions.append(describe(described))
        return Batch(torch.stack(mixtures), torch.from_numpy(np.stack(f0s)), voices=torch.stack(descriptions))

    def ensemble(self, rng: Generator, n_voices: int) -> tuple[list[_Voice], list[Voice]]:
        """Return the voices of a random ensemble, and how they are described, from high to low."""
        together = not self.augmented or rng.random() < _TOGETHER
        ensemble = self._together(rng, n_voices) if together else self._apart(rng, n_voices)
        if self.augmented:
            rests = rng.random(n_voices) < _RESTING
            # An ensemble of resting voices teaches little.
            rests[int(rng.integers(n_voices))] = rng.random() < _ALL_RESTING
            for index in np.flatnonzero(rests):
                voice = ensemble[index]
                ensemble[index] = voice._replace(waveform=0 * voice.waveform, f0=0 * voice.f0)
            if rng.random() < _NUMBERED:
                ensemble.sort(key=lambda voice: -voice.median_f0)
                return ensemble, [Voice(f"voice{rank + 1}", VOICE_FMIN, VOICE_FMAX) for rank in range(n_voices)]
        parts = {voice.part: parse_voices([voice.part])[0] for voice in ensemble}
        centre = {name: part.fmin * part.fmax for name, part in parts.items()}
        ensemble.sort(key=lambda voice: (-centre[voice.part], -voice.median_f0))
        described = [parts[voice.part] for voice in ensemble]
        return ensemble, [_jittered(voice, rng) for voice in described] if self.augmented else described

    def _together(self, rng: Generator, n_voices: int) -> list[_Voice]:
        """Return voices of one piece that start at the same frame."""
        bank = self.synthetic if rng.random() < self.synthetic_share else self.recorded
        bank = [piece for piece in bank or self.synthetic if len(all_takes([piece])) >= n_voices]
        if not bank:
            return self._apart(rng, n_voices)
        shortest = [min(all_takes([piece]), key=lambda take: take.n_frames) for piece in bank]
        index = choose(rng, [take.n_frames for take in shortest])
        piece, first = bank[index], random_start(shortest[index], self.frames, rng)
        left = {part: [takes[i] for i in rng.permutation(len(takes))] for part, takes in piece.items()}
        chosen: list[tuple[str, list[Take]]] = []
        while len(chosen) < n_voices:
            for place in rng.permutation(len(left)):
                part = list(left)[int(place)]
                if left[part] and len(chosen) < n_voices:
                    chosen.append((part, [left[part].pop()]))
        for part, takes in chosen:
            if self.augmented and left[part] and rng.random() < _SECTION:
                takes += [left[part].pop() for _ in range(int(rng.integers(1, len(left[part]) + 1)))]
        return [self._voice(part, takes, first, rng) for part, takes in chosen]

    def _apart(self, rng: Generator, n_voices: int) -> list[_Voice]:
        """Return voices of any takes, each with its own start."""
        voices = []
        for _ in range(n_voices):
            banks = [bank for bank in (self.recorded, self.synthetic) if bank]
            bank = banks[int(rng.integers(len(banks)))]
            piece = bank[int(rng.integers(len(bank)))]
            part = list(piece)[int(rng.integers(len(piece)))]
            take = piece[part][int(rng.integers(len(piece[part])))]
            voices.append(self._voice(part, [take], random_start(take, self.frames, rng), rng))
        return voices

    def _voice(self, part: str, takes: Sequence[Take], first: int, rng: Generator) -> _Voice:
        """Return an excerpt of one or more singers as one voice."""
        pairs = [take.excerpt(first, self.frames) for take in takes]
        gains = 10 ** (rng.uniform(-3, 3, len(pairs)) / 20) if len(pairs) > 1 else np.ones(1)
        waveform = sum(np.float32(gain) * samples for gain, (samples, _) in zip(gains, pairs, strict=True))
        f0 = section_f0(np.stack([f0[0] for _, f0 in pairs]))
        return _Voice(part, waveform, f0, median_f0(f0) or median_f0(takes[0].f0[0]))

    def _mix(self, stems: Float32, rng: Generator) -> Tensor:
        """Return the sum of stems, shape (voices, samples), augmented."""
        voices = torch.from_numpy(stems)
        if not self.augmented:
            return voices.sum(dim=0)
        voices = augment.equalise(voices, rng, strength_db=4.0)
        if rng.random() < 0.3:
            voice = int(rng.integers(len(voices)))
            voices[voice] = augment.shift_formants(voices[voice], float(np.exp2(rng.uniform(-0.25, 0.25))))
        gains = 10 ** (rng.normal(0, 4.0, (len(voices), 1)) / 20)
        mixture = (voices * torch.from_numpy(gains.astype(np.float32))).sum(dim=0)
        if rng.random() < 0.5:
            mixture = augment.reverberate(mixture, rng)
        if rng.random() < 0.3:
            mixture = augment.equalise(mixture, rng, strength_db=4.0)
        if rng.random() < 0.4:
            mixture = augment.add_noise(mixture[None], rng, (-60.0, -15.0))[0]
        if rng.random() < 0.15:
            mixture = augment.limit_band(mixture, float(rng.uniform(3000, 7500)))
        return mixture


def _jittered(voice: Voice, rng: Generator) -> Voice:
    low, high = np.exp2(rng.normal(0, _RANGE_JITTER / 12, 2))
    return Voice(voice.name, voice.fmin * float(low), voice.fmax * float(high))
