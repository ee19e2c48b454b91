"""Ensembles of single singers for training a tracker: mixtures, the voices asked for, and what each of them sings.

Unlike the parameter estimator, the tracker learns with targets: the f0 of single singers, which CREPE reads off their
recordings, or which synthetic singing was made from. The ensembles are of any size and make-up; their voices are
described by part or by rank alone, may be sections of several singers, and may rest throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.errors import AudioError
from vocalsep.f0.network import describe
from vocalsep.f0.tracks import register
from vocalsep.timebase import HOP
from vocalsep.training import augment
from vocalsep.training.data import EXCERPT_FRAMES, Take, choose, transposed
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN, Voice, parse_voices

SIZES = {1: 0.03, 2: 0.15, 3: 0.17, 4: 0.43, 5: 0.08, 6: 0.07, 7: 0.03, 8: 0.04}
"""How often ensembles of each number of voices are drawn; quartets are what most choirs sing."""
SHIFTS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
"""Semitones by which recorded singers are transposed."""

_DETUNING = 0.5  # semitones at most, besides: choirs drift, and no grid of pitches must be favoured
_TOGETHER = 0.7  # share of ensembles that sing one piece in time; the others are put together at random
_NUMBERED = 0.2  # share of ensembles of which only the number of voices is told
_RESTING = 0.08  # share of voices that are asked for and do not sing
_ALL_RESTING = 0.2  # share of those at random, in which a voice that would sing rests too
_SECTION = 0.3  # share of voices sung by several singers where the piece has them
_RANGE_JITTER = 1.0  # semitones: standard deviation of the limits that are told of a part


class EnsembleBatch(NamedTuple):
    """Excerpts of one length and number of voices."""

    mixture: Tensor
    """Shape (batch, samples) at 16 kHz."""
    f0: Tensor
    """Hz, shape (batch, voices, frames), 0 = unvoiced."""
    voices: Tensor
    """What `vocalsep.f0.network.describe` tells of them, shape (batch, voices, 5)."""


class _Sung(NamedTuple):
    """What one voice of an ensemble sings."""

    part: str
    waveform: Float32
    f0: Float32
    register: float


class EnsembleSource:
    """Random ensembles with targets.

    Parameters
    ----------
    recorded
        Pieces of recorded singers: part name -> takes of its singers, in time with one another.
    synthetic
        Pieces of synthetic singers, as `vocalsep.training.singing` makes them. May be empty.
    synthetic_share
        Share of ensembles that sing one piece together, that sing a synthetic one.
    frames
        Frames of an excerpt; shorter takes are left out.
    augmented
        Whether to transpose, equalise, move formants, vary levels, add room and noise and limit the band, and to draw
        ensembles of all sizes; without, quartets of recorded singers in time are mixed as they are.

    Raises
    ------
    AudioError
        If no take is as long as an excerpt.
    """

    def __init__(
        self,
        recorded: Sequence[dict[str, list[Take]]],
        synthetic: Sequence[dict[str, list[Take]]] = (),
        *,
        synthetic_share: float = 0.5,
        frames: int = EXCERPT_FRAMES,
        augmented: bool = True,
        seed: int = 0,
    ) -> None:
        self.frames = frames
        self.augmented = augmented
        self.synthetic_share = synthetic_share if synthetic and recorded else float(not recorded)
        rng = np.random.default_rng(seed)
        shifts = [s + rng.uniform(-_DETUNING, _DETUNING) for s in SHIFTS] if augmented else [0.0]
        self.recorded = [
            fitting for shift in shifts for piece in recorded if (fitting := self._fit(piece, float(shift)))
        ]
        self.synthetic = [fitting for piece in synthetic if (fitting := self._fit(piece, 0.0))]
        if not self.recorded and not self.synthetic:
            raise AudioError(f"no recording lasts {frames * HOP:.1f} s; training needs one of each part")

    def _fit(self, piece: dict[str, list[Take]], shift: float) -> dict[str, list[Take]]:
        moved = {part: [transposed(take, shift) for take in takes] for part, takes in piece.items()}
        long = {part: [take for take in takes if take.n_frames >= self.frames] for part, takes in moved.items()}
        return {part: takes for part, takes in long.items() if takes}

    def draw(self, rng: Generator, size: int) -> EnsembleBatch:
        """Return `size` random ensembles with one number of voices."""
        n_voices = int(rng.choice(list(SIZES), p=list(SIZES.values()))) if self.augmented else 4
        mixtures, f0s, voices = [], [], []
        for _ in range(size):
            sung, described = self._ensemble(rng, n_voices)
            mixtures.append(self._mix(np.stack([voice.waveform for voice in sung]), rng))
            f0s.append(np.stack([voice.f0 for voice in sung]))
            voices.append(describe(described))
        return EnsembleBatch(torch.stack(mixtures), torch.from_numpy(np.stack(f0s)), torch.stack(voices))

    def _ensemble(self, rng: Generator, n_voices: int) -> tuple[list[_Sung], list[Voice]]:
        together = not self.augmented or rng.random() < _TOGETHER
        sung = self._together(rng, n_voices) if together else self._apart(rng, n_voices)
        if self.augmented:
            rests = rng.random(n_voices) < _RESTING
            # Someone sings, but for a few excerpts: an ensemble of resting voices teaches little.
            rests[int(rng.integers(n_voices))] = rng.random() < _ALL_RESTING
            sung = [
                voice._replace(waveform=voice.waveform * np.float32(0), f0=voice.f0 * np.float32(0)) if rest else voice
                for voice, rest in zip(sung, rests, strict=True)
            ]
        if self.augmented and rng.random() < _NUMBERED:
            sung = sorted(sung, key=lambda voice: -voice.register)
            return sung, [Voice(f"voice{rank + 1}", VOICE_FMIN, VOICE_FMAX) for rank in range(n_voices)]
        voices = {voice.part: parse_voices([voice.part])[0] for voice in sung}
        centre = {part: voice.fmin * voice.fmax for part, voice in voices.items()}
        sung = sorted(sung, key=lambda voice: (-centre[voice.part], -voice.register))
        return sung, [self._jittered(voices[voice.part], rng) for voice in sung]

    def _jittered(self, voice: Voice, rng: Generator) -> Voice:
        if not self.augmented:
            return voice
        low, high = np.exp2(rng.normal(0, _RANGE_JITTER / 12, 2))
        return Voice(voice.name, voice.fmin * float(low), voice.fmax * float(high))

    def _together(self, rng: Generator, n_voices: int) -> list[_Sung]:
        bank = self.synthetic if rng.random() < self.synthetic_share else self.recorded
        bank = [piece for piece in bank or self.synthetic if sum(map(len, piece.values())) >= n_voices]
        if not bank:
            return self._apart(rng, n_voices)
        lengths = [min(take.n_frames for takes in piece.values() for take in takes) for piece in bank]
        index = choose(rng, lengths)
        piece, first = bank[index], int(rng.integers(lengths[index] - self.frames + 1))
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
        return [self._section(part, [(take, first) for take in takes], rng) for part, takes in chosen]

    def _apart(self, rng: Generator, n_voices: int) -> list[_Sung]:
        sung = []
        for _ in range(n_voices):
            banks = [bank for bank in (self.recorded, self.synthetic) if bank]
            bank = banks[int(rng.integers(len(banks)))]
            piece = bank[int(rng.integers(len(bank)))]
            part = list(piece)[int(rng.integers(len(piece)))]
            take = piece[part][int(rng.integers(len(piece[part])))]
            sung.append(self._section(part, [(take, int(rng.integers(take.n_frames - self.frames + 1)))], rng))
        return sung

    def _section(self, part: str, takes: list[tuple[Take, int]], rng: Generator) -> _Sung:
        """Return singers as one voice, whose f0 is the mean on a logarithmic axis of those that sing."""
        pairs = [take.excerpt(first, self.frames) for take, first in takes]
        gains = 10 ** (rng.uniform(-3, 3, len(pairs)) / 20) if len(pairs) > 1 else np.ones(1)
        waveform = sum(np.float32(gain) * samples for gain, (samples, _) in zip(gains, pairs, strict=True))
        f0 = np.stack([f0[0] for _, f0 in pairs])
        sounding = (f0 > 0).sum(axis=0)
        mean = np.log(np.where(f0 > 0, f0, 1)).sum(axis=0) / np.maximum(sounding, 1)
        common = np.where(2 * sounding > len(pairs) - 1, np.exp(mean), 0).astype(np.float32)
        whole = takes[0][0].f0[0]
        return _Sung(part, waveform, common, register(common) or register(whole))

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
