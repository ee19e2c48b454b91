"""Fixed harmonic comb: soft masks from f0 alone, with nothing learned."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.spectrogram import harmonic_power
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE

_SLOPE = 2.0  # amplitudes fall with harmonic number to this power: 12 dB per octave


def comb_power(f0: Tensor, grid: StftGrid, first: int, last: int) -> Tensor:
    """Return the power of voices that sing alike, shape (voices, frequency bins, last - first)."""
    number = torch.arange(1, harmonic_count(f0, grid.sample_rate / 2) + 1, dtype=f0.dtype)
    log_amplitude = (-_SLOPE * torch.log(number)).expand(len(f0), last - first, -1)
    return harmonic_power(log_amplitude, f0, grid, first, last)


def separate_comb(mixture: Float32, tracks: F0Tracks, sample_rate: int = MODEL_SAMPLE_RATE) -> Float32:
    """Return the stems that the comb cuts out of a mixture at any sample rate in Hz; they add up to it."""
    grid = StftGrid.of_duration(sample_rate)
    f0 = torch.from_numpy(tracks.resampled(HOP, grid.n_frames(len(mixture))).frequencies)
    power = lambda first, last: comb_power(f0, grid, first, last)  # noqa: E731
    return cut(torch.from_numpy(mixture), grid, len(f0), power).numpy()
