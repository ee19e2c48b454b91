"""Fit the parameters of voices to the recording itself, frame by frame.

The network knows what voices like these sound like; the recording says more. From the network's parameters,

1. f0 moves by a few cents to where the phase of the recording turns at the frequencies of the harmonics. With f_k the
   instantaneous frequency at harmonic k and w_k its weight, least squares give

       f0 += sum_k w_k k (f_k - k f0) / sum_k w_k k^2;

2. the squared amplitudes of the harmonics take a few multiplicative steps that bring the sum of all voices closer to
   the power spectrogram Y of the recording in Kullback-Leibler divergence,

       a_k^2 *= ( sum_f L_k(f) Y(f) / P(f) / sum_f L_k(f) )^0.6,

   with L_k the lobe of the harmonic, P the power of all voices, and both sums smoothed over time.

Few steps, because the optimum, which follows the recording alone, is no better than the start. Nothing here is learned
or needs stems.

References
----------
D. D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, spectrum_and_frequency, squared_magnitude
from vocalsep.model.masks import near_notes, soft_masks
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.lobes import F0Path, Lobes, f0_path, harmonic_lobes
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import harmonic_log_amplitude, noise_power
from vocalsep.timebase import MODEL_SAMPLE_RATE

CHUNK_FRAMES = 250
"""Frames fitted at once."""
CONTEXT_FRAMES = 24
"""Frames on each side of a chunk: more than rounds and steps reach, so chunks give the result of the whole."""

# Chosen on singer 2, with weights trained on singer 1 only, and on Locus Iste.
_F0_ROUNDS = 3
_F0_FRAMES = 3  # frames over which the sums for f0 are smoothed
_F0_HARMONICS = 15  # harmonics that count: higher ones may be mistaken for their neighbours
_F0_WIDTH, _F0_JITTER = 4.0, 0.006  # Hz, and relative: frequencies farther from a harmonic belong to another voice
_F0_MAX_STEP = 0.015  # largest relative change of f0 in a round (26 cents)
_AMPLITUDE_STEPS = 3
_AMPLITUDE_FRAMES = 5  # frames over which the sums for amplitudes are smoothed
_AMPLITUDE_EXPONENT = 0.6  # exponent of a step; 1 is a full step
_AMPLITUDE_MAX_STEP = 10.0  # largest factor on power in a step
_NOISE_SHARE = 0.3
"""Share of the power of a voice's noise that is kept for masks: the network's noise also stands for what the harmonics
do not explain. Just before and after its notes a voice keeps all of it, or its consonants would go to those singing."""
_TINY = 1e-12


class _Recording(NamedTuple):
    """Some frames of a recording."""

    power: Tensor
    """Power spectrogram, shape (frames, bins)."""
    frequency: Tensor
    """Instantaneous frequency in Hz, shape (bins, frames)."""


def fit(parameters: VoiceParameters, waveform: Tensor) -> VoiceParameters:
    """Return the parameters of voices fitted to a recording.

    Parameters
    ----------
    parameters : VoiceParameters
        Estimated parameters, without a batch.
    waveform : Tensor, shape (samples,)
        The recording at 16 kHz.

    Returns
    -------
    VoiceParameters
        Parameters with f0 moved, `log_partials` for all harmonics below 8 kHz, and less noise.
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    n_harmonics = harmonic_count(parameters.f0, MODEL_SAMPLE_RATE / 2)
    parameters = _with_less_noise(parameters)
    parts = []
    for chunk in chunks(min(parameters.n_frames, grid.n_frames(len(waveform))), CHUNK_FRAMES, CONTEXT_FRAMES):
        frames = chunk.low, chunk.high
        spectrum, frequency = spectrum_and_frequency(waveform, grid, *frames)
        recording = _Recording(squared_magnitude(spectrum).transpose(-1, -2), frequency)
        start = torch.exp(2 * harmonic_log_amplitude(parameters, n_harmonics, *frames)).clamp_min(1e-30)
        noise = noise_power(parameters.frames(*frames), grid).transpose(-1, -2)

        path = f0_path(parameters.f0, *frames)
        lobes = harmonic_lobes(path, grid, n_harmonics, frequency)
        for _ in range(_F0_ROUNDS):
            path = _with_moved_f0(path, lobes, lobes.fill(start).add_(noise), recording)
            lobes = harmonic_lobes(path, grid, n_harmonics, frequency)
        log_partials = 0.5 * torch.log(_fitted_amplitudes(start, lobes, noise, recording) / start)

        part = parameters.frames(*frames)
        part = replace(part, f0=path.centre * (part.f0 > 0), log_partials=log_partials)
        parts.append(part.frames(chunk.inner.start, chunk.inner.stop))
    return VoiceParameters.joined(parts)


def _with_less_noise(parameters: VoiceParameters) -> VoiceParameters:
    beside_notes = near_notes(parameters.f0) - (parameters.f0 > 0).to(parameters.f0)
    change = 0.5 * math.log(_NOISE_SHARE) * (1 - beside_notes)
    return replace(parameters, log_noise=parameters.log_noise + change[..., None])


def _with_moved_f0(path: F0Path, lobes: Lobes, power: Tensor, recording: _Recording) -> F0Path:
    """Return the path with f0 moved towards the frequencies of the recording at its harmonics.

    A bin weighs by the share of the voice in it, by the nearness of its frequency to the harmonic, and by loudness.

    Parameters
    ----------
    path : F0Path, shape (voices, frames)
        Movement of f0.
    lobes : Lobes, shape (voices, frames, bins)
        Lobes of its harmonics.
    power : Tensor, shape (voices, frames, bins)
        Expected power of the voices.
    recording : _Recording
        The recording in these frames.
    """
    frequency = lobes.number * path.centre[..., None]
    distance = recording.frequency.T - frequency
    weight = (distance / frequency.mul_(_F0_JITTER).add_(_F0_WIDTH)).square_().mul_(-0.5).exp_()
    weight.mul_(soft_masks(power).square_()).mul_((recording.power * lobes.power).sqrt_())
    weight.mul_(lobes.number <= _F0_HARMONICS).mul_(lobes.number)
    pull = _smoothed((weight * distance).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
    hold = _smoothed((weight * lobes.number).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
    bound = _F0_MAX_STEP * path.centre
    return path._replace(centre=path.centre + torch.maximum(torch.minimum(pull / (hold + 1e-9), bound), -bound))


def _fitted_amplitudes(start: Tensor, lobes: Lobes, noise: Tensor, recording: _Recording) -> Tensor:
    """Return squared amplitudes, shape (voices, frames, harmonics), a few steps closer to the recording than `start`.

    Parameters
    ----------
    start : Tensor, shape (voices, frames, harmonics)
        Squared amplitudes of the harmonics.
    lobes : Lobes, shape (voices, frames, bins)
        Lobes of the harmonics.
    noise : Tensor, shape (voices, frames, bins)
        Expected power of the noise of each voice.
    recording : _Recording
        The recording in these frames.
    """

    def sum_of_lobes(power: Tensor) -> Tensor:
        return _smoothed(torch.zeros_like(start).scatter_add_(-1, lobes.column, power), _AMPLITUDE_FRAMES)

    amplitude2, weight = start, sum_of_lobes(lobes.power)
    for _ in range(_AMPLITUDE_STEPS):
        ratio = recording.power / lobes.fill(amplitude2).add_(noise).sum(dim=0).add_(_TINY)
        factor = (sum_of_lobes(lobes.power * ratio) + _TINY) / (weight + _TINY)
        amplitude2 = amplitude2 * factor.clamp_(1 / _AMPLITUDE_MAX_STEP, _AMPLITUDE_MAX_STEP) ** _AMPLITUDE_EXPONENT
    return amplitude2


def _smoothed(values: Tensor, frames: int) -> Tensor:
    """Return the running mean over `frames` frames of values of shape (voices, frames, any)."""
    across = values.transpose(-1, -2)
    mean = torch.nn.functional.avg_pool1d(across, frames, stride=1, padding=frames // 2, count_include_pad=False)
    return mean.transpose(-1, -2)
