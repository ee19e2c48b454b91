"""Fixed harmonic comb: soft masks from f0 alone, with nothing learned."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid, istft, stft
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.spectrogram import harmonic_power
from vocalsep.timebase import HOP

_SLOPE = 2.0
"""Amplitudes fall with harmonic number to this power: 12 dB per octave."""


def comb_power(f0: Tensor, grid: StftGrid) -> Tensor:
    """Return the power of voices that sing alike, shape (voices, frequency bins, frames)."""
    number = torch.arange(1, harmonic_count(f0, grid.sample_rate / 2) + 1, dtype=f0.dtype)
    log_amplitude = (-_SLOPE * torch.log(number)).expand(*f0.shape, -1)
    return harmonic_power(log_amplitude, f0, grid)


def separate_comb(mixture: Float32, tracks: F0Tracks, sample_rate: int) -> Float32:
    """Return stems of shape (voices, samples) cut by the comb out of a mixture of shape (samples,)."""
    grid = StftGrid.of_duration(sample_rate)
    waveform = torch.from_numpy(mixture)
    spectrum = stft(waveform, grid)
    resampled = tracks.resampled(HOP, spectrum.shape[-1])
    masks = soft_masks(comb_power(torch.from_numpy(resampled.frequencies), grid))
    return istft(masks * spectrum, grid, len(waveform)).numpy()
