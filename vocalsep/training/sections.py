"""Sections: several singers of one part, who sing almost the same f0 at almost the same time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator

from vocalsep.audio import Float32
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training.takes import Take, section_f0

SIZES = (2, 6)
"""Smallest and largest number of singers of a section."""
_CENTS = (5.0, 20.0)  # largest detuning of a singer of a section
_DELAY = (0.01, 0.06)  # s: largest deviation of a singer's onsets
_DRIFT_PERIOD = (1.5, 6.0)  # s
_LEVEL_DB = 3.0  # largest deviation of a singer's level
_OVERSAMPLING = 2  # so that linear interpolation keeps the high frequencies


def section(takes: Sequence[Take], first: int, frames: int, singers: int, rng: Generator) -> tuple[Float32, Float32]:
    """Return an excerpt of a section: its singers, shape (singers, samples), and its f0, shape (1, frames + 1).

    `takes` are single singers of one part, in time with one another. If there are fewer than `singers` that last long
    enough, variations of them fill the section. The power of all singers together is that of one.
    """
    long = [take for take in takes if take.n_frames >= first + frames][:singers]
    sung = [take.excerpt(first, frames) for take in long]
    if singers == 1:
        return sung[0][0][None], sung[0][1]
    cents, delay = rng.uniform(*_CENTS), rng.uniform(*_DELAY)
    while len(sung) < singers:
        sung.append(variation(*sung[int(rng.integers(len(long)))], cents, delay, rng))
    gain = (10 ** (rng.uniform(-_LEVEL_DB, _LEVEL_DB, (singers, 1)) / 20) / np.sqrt(singers)).astype(np.float32)
    waveforms, f0s = (np.stack(arrays) for arrays in zip(*sung, strict=True))
    return gain * waveforms, section_f0(f0s[:, 0])[None]


def variation(waveform: Float32, f0: Float32, cents: float, delay: float, rng: Generator) -> tuple[Float32, Float32]:
    """Return a singer, shape (samples,), and the f0, shape (1, frames), as if somebody else sang the same.

    Time is warped: the other singer is up to `delay` seconds early or late, and up to `cents` sharp or flat, by an
    amount that drifts slowly. Formants hardly change.
    """
    time = np.arange(len(waveform)) / MODEL_SAMPLE_RATE
    period, phase = rng.uniform(*_DRIFT_PERIOD), rng.uniform(0, 2 * np.pi)
    detuning = cents * (0.6 * rng.uniform(-1, 1) + 0.4 * np.sin(2 * np.pi * time / period + phase))
    speed = 2 ** (detuning / 1200)
    drift = np.cumsum(speed - 1) / MODEL_SAMPLE_RATE
    source = time + drift - drift.mean() + rng.uniform(-delay, delay)  # what was sung at this time is heard now
    n = _OVERSAMPLING * len(waveform)
    fine = _OVERSAMPLING * torch.fft.irfft(torch.fft.rfft(torch.from_numpy(waveform)), n=n).numpy()
    warped = np.interp(source * (_OVERSAMPLING * MODEL_SAMPLE_RATE), np.arange(n), fine, left=0.0, right=0.0)
    frames = np.arange(f0.shape[-1])
    sample = np.minimum(frames * HOP_LENGTH, len(waveform) - 1)
    frame = np.round(source[sample] / HOP).astype(int)
    inside = (frame >= 0) & (frame < len(frames))
    moved = np.where(inside, f0[:, np.clip(frame, 0, len(frames) - 1)] * speed[sample], 0)
    return warped.astype(np.float32), moved.astype(np.float32)
