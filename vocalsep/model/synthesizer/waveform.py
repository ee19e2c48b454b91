"""The waveform of source-filter voices: an oscillator for each harmonic, and noise, through the same filter.

On average, the spectrogram of this waveform is the expected one of `spectrogram`; both are differentiable in gain,
filter and noise. Examples and synthetic singing are made here; separation needs only the expected spectrogram.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, istft, stft
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import harmonic_log_amplitude, noise_log_density
from vocalsep.timebase import MODEL_SAMPLE_RATE

_NOISE_WINDOW = 0.032
"""Length in seconds of the window in which the noise is filtered: two hops."""
_BLOCK = 16
"""Frames whose harmonics are rendered at once: they fit into the cache of a processor."""


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
    parameters : VoiceParameters
        Parameters of the voices.
    sample_rate : int
        Sample rate of the result in Hz; for frequencies above 8 kHz see `spectrogram.ENVELOPE_TOP`.
    samples : int, optional
        Length of the result; by default it ends at the last frame.
    generator : torch.Generator, optional
        Source of the noise.

    Returns
    -------
    Tensor, shape (..., voices, samples)
        Waveforms.
    """
    grid = StftGrid.of_duration(sample_rate, _NOISE_WINDOW)
    length = round((parameters.n_frames - 1) * grid.hop_length) if samples is None else samples
    return harmonic_waveform(parameters, grid, length) + noise_waveform(parameters, grid, length, generator)


def harmonic_waveform(parameters: VoiceParameters, grid: StftGrid, samples: int) -> Tensor:
    """Render the harmonics, shape (..., voices, samples), with amplitudes linear between frames.

    A note fades in over the frame before it and out over the frame after it. All harmonics start in phase.
    """
    hop = grid.hop_length
    position = torch.arange(samples, device=parameters.f0.device, dtype=torch.float64) / hop
    left = position.floor().clamp(max=parameters.n_frames - 1)
    weight = (position - left).clamp(0, 1).to(parameters.f0.dtype)
    left = left.long()
    right = (left + 1).clamp(max=parameters.n_frames - 1)
    f0 = _held(parameters.f0)
    frequency = f0[..., left] * (1 - weight) + f0[..., right] * weight
    phase = torch.cumsum(frequency.double() * (2 * math.pi / grid.sample_rate), dim=-1)
    # Whole turns are removed in double precision: after an hour single precision has no digits left for the phase.
    turn = torch.remainder(phase, 2 * math.pi).to(parameters.f0.dtype)
    blocks = []
    for first, last, *_ in chunks(parameters.n_frames, _BLOCK):
        start = min(math.ceil(first * hop), samples)
        stop = samples if last == parameters.n_frames else min(math.ceil(last * hop), samples)
        place = left[start:stop] - first, weight[start:stop]
        blocks.append(_harmonic_block(parameters, grid.sample_rate / 2, first, turn[..., start:stop], *place))
    return torch.cat(blocks, dim=-1)


def _harmonic_block(
    parameters: VoiceParameters, nyquist: float, first: int, turn: Tensor, left: Tensor, weight: Tensor
) -> Tensor:
    """Render the harmonics of the samples in the frames from `first` on.

    `turn` is the phase of the fundamental in rad, shape (..., voices, samples), `left` the frame before each sample,
    counted from `first`, and `weight` the weight of the frame after it, both of shape (samples,).
    """
    last = min(first + _BLOCK + 1, parameters.n_frames)
    f0 = parameters.f0[..., first:last]
    if not (f0 > 0).any():
        return torch.zeros_like(turn)
    number = torch.arange(1, harmonic_count(f0, nyquist) + 1, device=f0.device)
    sounding = (f0[..., None] > 0) & (f0[..., None] * number < nyquist)
    # (..., frames, harmonics)
    amplitude = torch.exp(harmonic_log_amplitude(parameters, len(number), first, last)) * sounding
    # Interpolation as one small matrix is faster than gathering two amplitudes for each sample and harmonic.
    interpolation = weight.new_zeros(len(left), last - first)
    sample = torch.arange(len(left), device=left.device)
    interpolation[sample, left] = 1 - weight
    interpolation[sample, (left + 1).clamp(max=last - first - 1)] += weight
    envelope = interpolation @ amplitude  # (..., samples, harmonics)
    return (envelope * torch.sin(turn[..., None] * number)).sum(dim=-1)


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


def _held(f0: Tensor) -> Tensor:
    """Return f0 with unvoiced frames at the f0 of the last voiced frame before (or else after) them."""
    frames = f0.shape[-1]
    index = torch.arange(frames, device=f0.device).expand(f0.shape)
    last = torch.where(f0 > 0, index, -1).cummax(dim=-1).values
    following = torch.where(f0 > 0, index, frames).flip(-1).cummin(dim=-1).values.flip(-1)
    # The frame just before a note glides with it; other frames of a rest keep the f0 of the last note.
    begins = (following - index == 1) | (last < 0)
    source = torch.where(begins, following, last).clamp(0, frames - 1)
    return torch.gather(f0, -1, source)
