r"""Expected power spectrogram of source-filter voices on any STFT grid.

Harmonic k of a voice has amplitude a_k = g S(k f0) |H(k f0)|: gain, glottal roll-off and vocal-tract filter. In an
STFT it leaves a_k^2 times the squared main lobe of the window around k f0, noise adds a smooth density, voices add
in power. Inside a window f0 moves: a harmonic's energy is spread evenly over the frequencies it glides through,
which turns the lobe into a difference of its integral. Everything is a gather over bins, a bin taking the nearest
harmonic of the voice; nothing loops over samples or harmonics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vocalsep.dsp.stft import StftGrid
from vocalsep.model.synthesizer import all_pole
from vocalsep.model.synthesizer.excitation import glottal_roll_off, harmonic_count, interpolate, noise_points
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.timebase import MODEL_SAMPLE_RATE

ENVELOPE_TOP = 7500.0
"""Hz. The filter is known up to half the model rate, where anti-aliasing already bends it: above this frequency
it keeps its value, so that harmonics go on falling with the glottal roll-off and noise keeps its density."""

_REACH = 2
"""Frames either side whose f0 takes part in a window: 128 ms reach 4 frames of 16 ms, the outer two hardly count."""
# Energy that a squared Hann window of 8 hops gives to the hops around its centre: cos^4(pi m / 8).
_SHARE = tuple(math.cos(math.pi * m / 8) ** 4 for m in range(-_REACH, _REACH + 1))
_GLIDE_HOPS = 4.0
"""Hops of an even glide that spread a harmonic as far as the squared window does: sqrt(12) times its standard
deviation of 1.13 hops, rounded."""
_MAX_GLIDE = 0.06
"""Largest change of f0 from frame to frame, relative, that is a glide (100 cents); more is another note."""
_JITTER = 0.01
"""Width of a harmonic relative to its frequency, as of an even spread: what singers' jitter within a window and
the tracker's error of a few cents leave. Chosen on singers 1 and 2 of the development split."""
_MIN_SPREAD = 0.5
"""Bins that a harmonic is spread over at least, for the change of its amplitude within a window."""
_WIDTH_HEARD = 2.0
"""Hz that a steady partial may be off from what is heard in its bins. Chosen, as are the next three, on singer 2 with
weights that knew singer 1 only, and on Locus Iste."""
_JITTER_HEARD = 0.003
"""The same, relative to the harmonic's frequency: jitter, and error of f0."""
_GLIDE_HEARD = 0.3
"""The same, relative to the range that a harmonic glides through."""
_BEATING = 0.05
"""What a harmonic keeps in bins that turn at another frequency: those in which partials of like strength beat."""
_N_NOISE_POINTS = 80
"""Frequencies at which the filter of the noise is evaluated: 60 Hz apart at the bottom, 180 Hz at 8 kHz."""


def filter_log_magnitude(lsf: Tensor, frequency: Tensor) -> Tensor:
    """Return ln |H(f)| of the vocal-tract filter, shape (..., points), at frequencies in Hz, shape (..., points)."""
    omega = frequency.clamp(max=ENVELOPE_TOP) * (2 * math.pi / MODEL_SAMPLE_RATE)
    return all_pole.log_magnitude(lsf, omega)


def harmonic_log_amplitude(
    parameters: VoiceParameters, n_harmonics: int, first: int = 0, last: int | None = None, step: int = 1
) -> Tensor:
    """Return ln a_k of the first harmonics in every `step`-th of the frames first ... last - 1 (all by default).

    Just before and after a note, where the window hears the voice already or still, f0 is that of the note.

    Returns
    -------
    Tensor
        Shape (..., voices, frames, harmonics).
    """
    stop = parameters.n_frames if last is None else last
    block = parameters.frames(first, stop, step)
    f0 = path_of(parameters.f0, first, stop, step)[0]
    frequency = f0[..., None] * torch.arange(1, n_harmonics + 1, device=f0.device)
    envelope = glottal_roll_off(frequency) + filter_log_magnitude(block.lsf, frequency)
    if block.log_partials is not None:
        known = block.log_partials[..., :n_harmonics]
        envelope = envelope + torch.nn.functional.pad(known, (0, n_harmonics - known.shape[-1]))
    return block.log_gain[..., None] + envelope


def lobe_integral(x: Tensor) -> Tensor:
    """Return the integral from 0 to x of the squared main lobe of the Hann window, x in bins of the window.

    The squared lobe is taken for cos^4(pi x / 4), |x| <= 2: right to 0.15 dB down to -9 dB and to 1.3 dB at
    -17 dB, with the exact noise bandwidth of 1.5 bins.
    """
    x = x.clamp(-2, 2)
    angle = x * (math.pi / 2)
    # int cos^4 = 3/8 x + sin(angle)/pi + sin(2 angle)/(8 pi)
    return torch.sin(angle).mul_(torch.cos(angle).mul_(0.25).add_(1.0)).div_(math.pi).add_(x, alpha=0.375)


def f0_path(f0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how f0 moves through the window of each frame.

    Parameters
    ----------
    f0
        Hz, shape (..., frames), 0 = unvoiced.

    Returns
    -------
    centre, spread, share
        Each of shape (..., frames): f0 in the middle of the window in Hz, or that of the nearest voiced frame whose
        sound reaches into it (0 if there is none); the range in Hz that f0 passes through; the share of the
        window's energy, in [0, 1], that falls on voiced frames.
    """
    frames = f0.shape[-1]
    padded = torch.nn.functional.pad(f0, (_REACH, _REACH))
    around = torch.stack([padded[..., offset : offset + frames] for offset in range(2 * _REACH + 1)])
    weight = torch.tensor(_SHARE, dtype=f0.dtype, device=f0.device).reshape(-1, *[1] * f0.ndim)
    share = (weight * (around > 0)).sum(dim=0) / sum(_SHARE)
    centre = f0
    for distance in range(1, _REACH + 1):
        for neighbour in (around[_REACH - distance], around[_REACH + distance]):
            centre = torch.where(centre > 0, centre, neighbour)
    # Slope of the weighted line through the neighbours that belong to the same note.
    offset = torch.arange(-_REACH, _REACH + 1, dtype=f0.dtype, device=f0.device).reshape(weight.shape)
    same_note = (around > 0) & ((around - centre).abs() < _MAX_GLIDE * offset.abs() * centre + 1e-3)
    weight = weight * same_note
    slope = (weight * offset * (around - centre)).sum(dim=0) / (weight * offset**2).sum(dim=0).clamp_min(0.3)
    return centre, slope.abs() * _GLIDE_HOPS, share


class Lobes(NamedTuple):
    """What harmonics of amplitude 1 leave on a grid; each bin belongs to the nearest harmonic of a voice."""

    power: Tensor
    """Shape (..., voices, frames, bins)."""
    number: Tensor
    """Of the harmonic, from 1; same shape."""
    frequency: Tensor
    """Hz of the harmonic in the middle of the window; same shape."""

    def filled(self, amplitude2: Tensor) -> Tensor:
        """Return the power of harmonics whose squared amplitudes are (..., voices, frames, harmonics)."""
        return torch.gather(amplitude2, -1, self.number.long() - 1) * self.power


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
    """Return the power spectrogram of harmonics of given amplitudes.

    Parameters
    ----------
    log_amplitude
        ln a_k of the frames to render, shape (..., frames, harmonics).
    f0
        Hz of all frames, shape (..., all frames), 0 = unvoiced.
    grid
        Where to evaluate; its hop must be 16 ms.
    first, last, step
        Frames to render: every `step`-th of first ... last - 1 (all by default).
    instantaneous_frequency
        See `agreement`; None leaves it out.

    Returns
    -------
    Tensor
        Shape (..., frequency bins, frames).
    """
    stop = f0.shape[-1] if last is None else last
    with torch.no_grad():
        centre, spread, share = path_of(f0, first, stop, step)
        lobes = lobes_on(grid, log_amplitude.shape[-1], centre, spread, share)
        if instantaneous_frequency is not None:
            lobes = lobes._replace(power=lobes.power * agreement(lobes, spread, instantaneous_frequency))
    return lobes.filled(torch.exp(2 * log_amplitude)).transpose(-1, -2)


def path_of(f0: Tensor, first: int, last: int, step: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return `f0_path` of some frames, which depends on a few frames around them."""
    low = max(0, first - _REACH)
    part = slice(first - low, last - low, step)
    centre, spread, share = (path[..., part] for path in f0_path(f0[..., low : last + _REACH]))
    return centre, spread, share


def lobes_on(grid: StftGrid, n_harmonics: int, centre: Tensor, spread: Tensor, share: Tensor) -> Lobes:
    """Return the lobes of the harmonics of an f0 path, each of shape (..., frames)."""
    bin_width = grid.sample_rate / grid.n_fft
    f0 = (centre / bin_width)[..., None]  # in bins of the transform, (..., frames, 1)
    bins = torch.arange(grid.n_bins, device=centre.device, dtype=centre.dtype)
    number = torch.round(bins / f0.clamp_min(1e-6)).clamp_(1, n_harmonics)
    window_bins = grid.win_length / grid.n_fft  # of the window in one of the transform
    x = (bins - number * f0).mul_(window_bins)
    half = number * ((spread / bin_width)[..., None] * window_bins + f0 * (_JITTER * window_bins))
    half = half.add_(_MIN_SPREAD).mul_(0.5)
    lobe = (lobe_integral(x + half) - lobe_integral(x - half)).div_(half).mul_(0.5 * share[..., None])
    return Lobes(lobe, number, number * centre[..., None])


def agreement(lobes: Lobes, spread: Tensor, instantaneous_frequency: Tensor) -> Tensor:
    """Return how well what is heard in each bin fits the harmonic that a voice has there.

    The window smears a partial over four bins, but in all of them the recording's phase turns at the partial's own
    frequency, or at that of a stronger neighbour. A harmonic therefore counts by a Gaussian of the distance, with a
    floor for bins in which several partials beat.

    Parameters
    ----------
    lobes
        Of the voices.
    spread
        Range in Hz that f0 passes through, of `f0_path`, shape (..., voices, frames).
    instantaneous_frequency
        Instantaneous frequency of the recording in Hz, shape (..., frequency bins, frames); see
        `spectrum.instantaneous_frequency`.

    Returns
    -------
    Tensor
        In (0, 1], shape (..., voices, frames, bins).
    """
    off = instantaneous_frequency.transpose(-1, -2)[..., None, :, :] - lobes.frequency
    variance = (_JITTER_HEARD * lobes.frequency) ** 2 + (_GLIDE_HEARD * lobes.number * spread[..., None]) ** 2
    likelihood = torch.exp(-0.5 * off**2 / variance.add_(_WIDTH_HEARD**2))
    return (likelihood + _BEATING) / (1 + _BEATING)


def noise_log_density(parameters: VoiceParameters, frequency: Tensor) -> Tensor:
    """Return the log-amplitude density of the filtered noise in full scale per sqrt(Hz).

    Parameters
    ----------
    parameters
        Of the voices.
    frequency
        Hz, shape (bins,).

    Returns
    -------
    Tensor
        Shape (..., voices, frames, bins).
    """
    points = noise_points(_N_NOISE_POINTS).to(parameters.lsf)
    source = interpolate(parameters.log_noise, noise_points(parameters.log_noise.shape[-1]), points)
    return interpolate(source + filter_log_magnitude(parameters.lsf, points), points, frequency)


def noise_power(parameters: VoiceParameters, grid: StftGrid) -> Tensor:
    """Return the expected power spectrogram of the noise of each voice, shape (..., voices, bins, frames).

    Noise of one-sided density n(f) in full scale^2 / Hz leaves 3 n / T in a spectrum with a Hann window of T
    seconds, scaled as in `spectrum`.
    """
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
    """Return the expected power spectrogram of each voice.

    Parameters
    ----------
    parameters
        Of all frames.
    grid
        Where to evaluate; its hop must be the 16 ms of the parameters.
    first, last
        Frames to render (all by default).
    instantaneous_frequency
        Instantaneous frequency of a recording in Hz, shape (..., frequency bins, frames to render), for masks: each
        voice then only has what agrees with it; see `agreement`.

    Returns
    -------
    Tensor
        Shape (..., voices, frequency bins, frames).
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
    """Return `voice_power` on several grids of one sample rate, of every `step`-th frame; amplitudes are shared."""
    stop = parameters.n_frames if last is None else last
    n_harmonics = harmonic_count(parameters.f0, grids[0].sample_rate / 2)
    harmonics = harmonic_log_amplitude(parameters, n_harmonics, first, stop, step)
    block = parameters.frames(first, stop, step)
    return [
        harmonic_power(harmonics, parameters.f0, grid, first, stop, step, instantaneous_frequency=frequency) + noise_power(block, grid)
        for grid, frequency in zip(grids, instantaneous_frequency or [None] * len(grids), strict=True)
    ]
