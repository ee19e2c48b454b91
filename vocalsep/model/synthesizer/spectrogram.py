r"""Expected power spectrogram of source-filter voices on any STFT grid.

The power of a voice in a bin at frequency f is the sum of its harmonics and its noise,

    P(f) = sum_k a_k^2 W(f - k f0) + 3 / T n(f)^2 |H(f)|^2,    a_k = g S(k f0) |H(k f0)|,

with g the gain, S the glottal roll-off, H the vocal-tract filter, W the squared main lobe of the window, spread by the
movement of f0 (see `lobes`), n the amplitude density of the noise source, and T the length of the window in seconds.
Powers of voices add. Bin frequencies are free, so one set of parameters gives masks at any sample rate.

Functions take the parameters of all frames and compute every `step`-th of the frames first ... last - 1 (all by
default), because the movement of f0 depends on a few frames around them. The hop of a grid is always 16 ms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vocalsep.dsp.stft import StftGrid
from vocalsep.model.synthesizer import all_pole
from vocalsep.model.synthesizer.excitation import glottal_roll_off, harmonic_count, interpolate, noise_points
from vocalsep.model.synthesizer.lobes import f0_path, harmonic_lobes
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.timebase import MODEL_SAMPLE_RATE

ENVELOPE_TOP = 7500.0
"""Frequency in Hz above which the filter keeps its value: anti-aliasing bends the recordings it is learned from near
8 kHz. Harmonics go on falling with the glottal roll-off, and noise keeps its density."""
_N_NOISE_POINTS = 80
"""Frequencies at which the filter of the noise is evaluated: 60 Hz apart at the bottom, 180 Hz at 8 kHz."""


def filter_log_magnitude(lsf: Tensor, frequency: Tensor) -> Tensor:
    """Return ln |H(f)| of the vocal-tract filter, shape (..., points), at frequencies in Hz, shape (..., points)."""
    omega = frequency.clamp(max=ENVELOPE_TOP) * (2 * math.pi / MODEL_SAMPLE_RATE)
    return all_pole.log_magnitude(lsf, omega)


def harmonic_log_amplitude(
    parameters: VoiceParameters, n_harmonics: int, first: int = 0, last: int | None = None, step: int = 1
) -> Tensor:
    """Return ln a_k of the first harmonics, shape (..., voices, frames, harmonics).

    Just before and after a note, where the window already or still reaches it, f0 is that of the note.
    """
    block = parameters.frames(first, last, step)
    f0 = f0_path(parameters.f0, first, last, step).centre
    frequency = f0[..., None] * torch.arange(1, n_harmonics + 1, device=f0.device)
    envelope = glottal_roll_off(frequency) + filter_log_magnitude(block.lsf, frequency)
    if block.log_partials is not None:
        factors = block.log_partials[..., :n_harmonics]
        envelope = envelope + torch.nn.functional.pad(factors, (0, n_harmonics - factors.shape[-1]))
    return block.log_gain[..., None] + envelope


def harmonic_power(
    log_amplitude: Tensor,
    f0: Tensor,
    grid: StftGrid,
    first: int = 0,
    last: int | None = None,
    step: int = 1,
    *,
    instantaneous_frequency: Tensor | None = None,
) -> Tensor:
    """Return the expected power of harmonics, shape (..., voices, frequency bins, frames); see `voice_power`.

    `log_amplitude` is ln a_k of the frames to compute, shape (..., voices, frames, harmonics), and the power is
    differentiable in it. `f0`, shape (..., voices, all frames), is in Hz.
    """
    with torch.no_grad():
        path = f0_path(f0, first, last, step)
        lobes = harmonic_lobes(path, grid, log_amplitude.shape[-1], instantaneous_frequency)
    return lobes.fill(torch.exp(2 * log_amplitude)).transpose(-1, -2)


def noise_log_density(parameters: VoiceParameters, frequency: Tensor) -> Tensor:
    """Return ln (n |H|) of the filtered noise, in full scale per sqrt(Hz), shape (..., voices, frames, bins).

    `frequency` are the frequencies of the bins in Hz, shape (bins,).
    """
    points = noise_points(_N_NOISE_POINTS).to(parameters.lsf)
    source = interpolate(parameters.log_noise, noise_points(parameters.log_noise.shape[-1]), points)
    return interpolate(source + filter_log_magnitude(parameters.lsf, points), points, frequency)


def noise_power(parameters: VoiceParameters, grid: StftGrid) -> Tensor:
    """Return the expected power of the noise of each voice, shape (..., voices, frequency bins, frames)."""
    # Noise of one-sided power density d leaves 3 d / T in a spectrum with a Hann window of T seconds.
    log_density = noise_log_density(parameters, grid.frequencies(parameters.f0.device))
    return torch.exp(2 * log_density + math.log(3 / grid.window_seconds)).transpose(-1, -2)


def voice_power(
    parameters: VoiceParameters,
    grid: StftGrid,
    first: int = 0,
    last: int | None = None,
    *,
    instantaneous_frequency: Tensor | None = None,
) -> Tensor:
    """Return the expected power spectrogram of each voice, shape (..., voices, frequency bins, frames).

    With the instantaneous frequency in Hz of the recording that masks are to cut the voices from, shape (..., frequency
    bins, frames), each harmonic is weighted by its agreement with the recording; see `lobes.agreement`.
    """
    return voice_powers(parameters, (grid,), first, last, instantaneous_frequency=(instantaneous_frequency,))[0]


def voice_powers(
    parameters: VoiceParameters,
    grids: Sequence[StftGrid],
    first: int = 0,
    last: int | None = None,
    step: int = 1,
    *,
    instantaneous_frequency: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Return `voice_power` on several grids of one sample rate, in every `step`-th frame; amplitudes are shared."""
    n_harmonics = harmonic_count(parameters.f0, grids[0].sample_rate / 2)
    log_amplitude = harmonic_log_amplitude(parameters, n_harmonics, first, last, step)
    block = parameters.frames(first, last, step)
    return [
        harmonic_power(log_amplitude, parameters.f0, grid, first, last, step, instantaneous_frequency=frequency)
        + noise_power(block, grid)
        for grid, frequency in zip(grids, instantaneous_frequency or [None] * len(grids), strict=True)
    ]
