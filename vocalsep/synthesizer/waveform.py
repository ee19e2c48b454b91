"""The waveform of source-filter voices: an oscillator for each harmonic, and noise, through the same filter.

The spectrogram of what this renders is, in the mean, that of `render`; both are differentiable in gain, filter and
noise. It makes the examples and synthetic singing; separation itself needs only the expected spectrogram.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalsep.audio import MODEL_SAMPLE_RATE
from vocalsep.spectrum import StftGrid, istft, stft
from vocalsep.synthesizer.excitation import harmonic_count
from vocalsep.synthesizer.parameters import VoiceParameters
from vocalsep.synthesizer.render import harmonic_log_amplitude, noise_log_density

_NOISE_WINDOW = 0.032
"""Seconds of the window in which the noise is filtered: two hops."""


def synthesize(
    parameters: VoiceParameters,
    sample_rate: int = MODEL_SAMPLE_RATE,
    *,
    samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Render the waveform of every voice.

    Parameters
    ----------
    parameters
        Of the voices.
    sample_rate
        Hz of the result; above 8 kHz voices go on as `render.ENVELOPE_TOP` says.
    samples
        Length of the result; up to the last frame by default.
    generator
        Source of the noise.

    Returns
    -------
    Tensor
        Shape (..., voices, samples).
    """
    grid = StftGrid.of_duration(sample_rate, _NOISE_WINDOW)
    length = round((parameters.n_frames - 1) * grid.hop_length) if samples is None else samples
    return harmonic_waveform(parameters, grid, length) + noise_waveform(parameters, grid, length, generator)


def harmonic_waveform(parameters: VoiceParameters, grid: StftGrid, samples: int) -> Tensor:
    """Render the harmonics, shape (..., voices, samples); amplitudes go linearly from frame to frame.

    A note fades in over the frame before it and out over the frame behind it. All harmonics start in phase.
    """
    nyquist = grid.sample_rate / 2
    left, right, weight = _positions(parameters.n_frames, grid.hop_length, samples, parameters.f0.device)
    weight = weight.to(parameters.f0.dtype)
    f0 = _held(parameters.f0)
    frequency = f0[..., left] * (1 - weight) + f0[..., right] * weight
    phase = torch.cumsum(frequency.double() * (2 * math.pi / grid.sample_rate), dim=-1)
    number = torch.arange(1, harmonic_count(parameters.f0, nyquist) + 1, device=f0.device)
    sounding = (parameters.f0[..., None] > 0) & (parameters.f0[..., None] * number < nyquist)
    amplitude = torch.exp(harmonic_log_amplitude(parameters, len(number))) * sounding  # (..., frames, harmonics)
    total = torch.zeros_like(frequency)
    for k in range(len(number)):
        envelope = amplitude[..., left, k] * (1 - weight) + amplitude[..., right, k] * weight
        # The whole turns go before single precision comes.
        turn = torch.remainder(phase * (k + 1), 2 * math.pi).to(total.dtype)
        total = total + envelope * torch.sin(turn)
    return total


def noise_waveform(
    parameters: VoiceParameters, grid: StftGrid, samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Render the filtered noise, shape (..., voices, samples)."""
    shape = (*parameters.f0.shape[:-1], samples)
    white = torch.randn(shape, generator=generator, dtype=parameters.lsf.dtype, device=parameters.lsf.device)
    spectrum = stft(white, grid)
    frames = spectrum.shape[-1]
    density = noise_log_density(parameters, grid.frequencies(white.device)).transpose(-1, -2)
    held = density[..., torch.arange(frames, device=white.device).clamp(max=parameters.n_frames - 1)]
    # White noise of variance 1 has the one-sided density 2 / sample_rate.
    return istft(spectrum * torch.exp(held + 0.5 * math.log(grid.sample_rate / 2)), grid, samples)


def _positions(n_frames: int, hop_length: float, samples: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the frames left and right of each sample and the weight of the right one."""
    position = torch.arange(samples, device=device, dtype=torch.float64) / hop_length
    left = position.floor().clamp(max=n_frames - 1)
    right = (left + 1).clamp(max=n_frames - 1)
    return left.long(), right.long(), (position - left).clamp(0, 1)


def _held(f0: Tensor) -> Tensor:
    """Return f0 with unvoiced frames at the f0 of the voiced frame before (or else behind) them."""
    frames = f0.shape[-1]
    index = torch.arange(frames, device=f0.device).expand(f0.shape)
    last = torch.where(f0 > 0, index, -1).cummax(dim=-1).values
    following = torch.where(f0 > 0, index, frames).flip(-1).cummin(dim=-1).values.flip(-1)
    # The frame just before a note glides with it; a rest keeps what was sung.
    begins = (following - index == 1) | (last < 0)
    source = torch.where(begins, following, last).clamp(0, frames - 1)
    return torch.gather(f0, -1, source)
