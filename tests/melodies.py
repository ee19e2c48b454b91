"""Takes of synthetic singers, shared by the tests of training."""

from collections.abc import Callable

import numpy as np
import torch

from vocalsep.dsp.stft import StftGrid, power
from vocalsep.training.takes import Piece, Take

PARTS = {"soprano": 520.0, "alto": 330.0, "tenor": 210.0, "bass": 110.0}
"""Part -> the middle of its melodies in Hz."""

Sing = Callable[[np.ndarray], np.ndarray]


def melody(f0: float, frames: int, seed: int = 0) -> np.ndarray:
    """Notes of half a second around f0, with vibrato and some rests, shape (frames,)."""
    rng = np.random.default_rng(seed)
    notes = np.repeat(rng.integers(-4, 5, -(-frames // 31)), 31)[:frames]
    track = f0 * 2 ** (notes / 12 + 0.02 * np.sin(np.arange(frames) * 0.55))
    rests = np.repeat(rng.random(-(-frames // 31)) < 0.15, 31)[:frames]
    return np.where(rests, 0, track).astype(np.float32)


def take(f0: np.ndarray, sing: Sing) -> Take:
    """A take, with f0 of shape (frames,) or (voices, frames)."""
    f0 = np.atleast_2d(f0)
    return Take(sing(f0).sum(axis=0), f0)


def piece(sing: Sing, singers: int, frames: int = 160) -> Piece:
    """A piece with so many singers of each part, in time with one another."""
    seeds = range(1, singers + 1)
    return {part: [take(melody(f0, frames, seed), sing) for seed in seeds] for part, f0 in PARTS.items()}


def energy_at_harmonics(mixture: torch.Tensor, f0: torch.Tensor) -> float:
    """The share of the energy below 3.1 kHz that lies within 30 Hz of a harmonic of a voice."""
    grid = StftGrid.of_duration(16000)
    level = power(mixture, grid)[:400, 5:-5]
    bins = grid.frequencies()[:400, None]
    nearest = torch.full_like(level, torch.inf)
    for voice in f0[:, 5 : f0.shape[1] - 5]:
        for around in (voice.roll(-2), voice, voice.roll(2)):
            k = torch.round(bins / around.clamp_min(1)).clamp_min(1)
            nearest = torch.minimum(nearest, torch.where(around > 0, (bins - k * around).abs(), torch.inf))
    return float(level[nearest < 30].sum() / level.sum())
