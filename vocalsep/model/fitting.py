"""Fit the parameters of voices to the recording itself, frame by frame.

The network estimates parameters that are typical of such voices; the recording itself says more. So

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

_GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE)
CHUNK_FRAMES = 250
"""Frames fitted at once."""
CONTEXT_FRAMES = 24
"""Frames on each side of a chunk: more than rounds and steps reach, so chunks give the result of the whole."""

# Chosen on singer 2, with weights trained on singer 1 only, and on Locus Iste.
_F0_ROUNDS = 3
_F0_FRAMES = 3  # frames over which the sums for f0 are smoothed
_F0_BINS = 512  # bins that count (below 4 kHz)
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


def fit(parameters: VoiceParameters, waveform: Tensor) -> VoiceParameters:
    """Return parameters, without a batch, fitted to a recording at 16 kHz, shape (samples,).

    F0 has moved, there is less noise, and `log_partials` are set for all harmonics below 8 kHz.
    """
    n_frames = min(parameters.n_frames, _GRID.n_frames(len(waveform)))
    n_harmonics = harmonic_count(parameters.f0, MODEL_SAMPLE_RATE / 2)
    parameters = _with_less_noise(parameters)
    parts = []
    for chunk in chunks(n_frames, CHUNK_FRAMES, CONTEXT_FRAMES):
        fitted = _fit_chunk(parameters, waveform, n_harmonics, chunk.low, chunk.high)
        parts.append(fitted.frames(chunk.inner.start, chunk.inner.stop))
    return VoiceParameters.joined(parts)


def _with_less_noise(parameters: VoiceParameters) -> VoiceParameters:
    beside_notes = near_notes(parameters.f0) - (parameters.f0 > 0).to(parameters.f0)
    change = 0.5 * math.log(_NOISE_SHARE) * (1 - beside_notes)
    return replace(parameters, log_noise=parameters.log_noise + change[..., None])


def _fit_chunk(
    parameters: VoiceParameters, waveform: Tensor, n_harmonics: int, first: int, last: int
) -> VoiceParameters:
    """Return the parameters of frames first ... last - 1, fitted."""
    spectrum, frequency = spectrum_and_frequency(waveform, _GRID, first, last)
    target = squared_magnitude(spectrum).T  # (frames, bins)
    noise = noise_power(parameters.frames(first, last), _GRID).transpose(-1, -2)  # (voices, frames, bins)
    # Squared amplitudes, (voices, frames, harmonics).
    start = torch.exp(2 * harmonic_log_amplitude(parameters, n_harmonics, first, last)).clamp_min(1e-30)

    path = f0_path(parameters.f0, first, last)
    for _ in range(_F0_ROUNDS):
        lobes = harmonic_lobes(path, _GRID, n_harmonics, frequency[:_F0_BINS], n_bins=_F0_BINS)
        # A bin counts by the voice's share of it and by its magnitude.
        weight = soft_masks(lobes.fill(start).add_(noise[..., :_F0_BINS])).square_()
        weight.mul_((target[:, :_F0_BINS] * lobes.power).sqrt_())
        path = _with_moved_f0(path, lobes.number, weight, frequency[:_F0_BINS])
    lobes = harmonic_lobes(path, _GRID, n_harmonics, frequency)
    log_partials = 0.5 * torch.log(_fitted_amplitudes(start, lobes, noise, target) / start)

    part = parameters.frames(first, last)
    return replace(part, f0=path.centre * (part.f0 > 0), log_partials=log_partials)


def _with_moved_f0(path: F0Path, number: Tensor, weight: Tensor, frequency: Tensor) -> F0Path:
    """Return the path with f0 moved to where the phase of the recording turns at the frequencies of the harmonics.

    `number` is the number k of the harmonic in each bin, and `weight` the bin's weight, to be lowered by its distance
    from the recording's instantaneous frequency in Hz. The latter has the shape (bins, frames), all others (voices,
    frames, bins).
    """
    harmonic = number * path.centre[..., None]
    distance = frequency.T - harmonic
    near = (distance / harmonic.mul_(_F0_JITTER).add_(_F0_WIDTH)).square_().mul_(-0.5).exp_()
    weight_k = near.mul_(weight).mul_(number <= _F0_HARMONICS).mul_(number)  # w_k k
    pull = _smoothed((weight_k * distance).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
    hold = _smoothed((weight_k * number).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
    bound = _F0_MAX_STEP * path.centre
    return path._replace(centre=path.centre + torch.maximum(torch.minimum(pull / (hold + 1e-9), bound), -bound))


def _fitted_amplitudes(start: Tensor, lobes: Lobes, noise: Tensor, target: Tensor) -> Tensor:
    """Return squared amplitudes, shape (voices, frames, harmonics), closer to the power `target` than `start`."""

    def sum_of_lobes(power: Tensor) -> Tensor:
        return _smoothed(torch.zeros_like(start).scatter_add_(-1, lobes.column, power), _AMPLITUDE_FRAMES)

    amplitude2, weight = start, sum_of_lobes(lobes.power)
    for _ in range(_AMPLITUDE_STEPS):
        ratio = target / lobes.fill(amplitude2).add_(noise).sum(dim=0).add_(_TINY)
        factor = (sum_of_lobes(lobes.power * ratio) + _TINY) / (weight + _TINY)
        amplitude2 = amplitude2 * factor.clamp_(1 / _AMPLITUDE_MAX_STEP, _AMPLITUDE_MAX_STEP) ** _AMPLITUDE_EXPONENT
    return amplitude2


def _smoothed(values: Tensor, frames: int) -> Tensor:
    """Return the running mean over `frames` frames of values of shape (voices, frames, any)."""
    across = values.transpose(-1, -2)
    mean = torch.nn.functional.avg_pool1d(across, frames, stride=1, padding=frames // 2, count_include_pad=False)
    return mean.transpose(-1, -2)
