r"""Power that the harmonics of a voice leave in the bins of an STFT.

A steady harmonic of amplitude a at k f0 leaves a^2 W(f - k f0) in the bin at f, with W the squared main lobe of the
window. Within a window f0 moves: a harmonic spreads its energy evenly over the frequencies it passes through, a range
of width 2h, which turns the lobe into a difference of its integral,

    1 / (2h) * [ I(f - k f0 + h) - I(f - k f0 - h) ],    I(x) = int_0^x W.

A bin takes only the nearest harmonic of a voice, so all this is a gather over bins, without a loop over harmonics.
Inside this module bins are the last axis: tensors have shape (..., voices, frames, bins).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vocalsep.dsp.stft import StftGrid

_REACH = 2
"""Frames on each side whose f0 counts. The window of 128 ms reaches 4, of which the outer ones have little weight."""
# Energy of a squared Hann window of 8 hops in the hops around its centre: cos^4(pi m / 8).
_WEIGHTS = tuple(math.cos(math.pi * m / 8) ** 4 for m in range(-_REACH, _REACH + 1))
_GLIDE_HOPS = 4.0
"""Hops of an even glide that spread a harmonic as far as the squared window does: sqrt(12) times its standard
deviation of 1.13 hops, rounded."""
_MAX_GLIDE = 0.06
"""Largest relative change of f0 between two frames of a note (100 cents); a larger one is a new note."""
_JITTER = 0.01
"""Width of a harmonic relative to its frequency: jitter of the singer within a window, and a few cents of error of the
tracker. Chosen on singers 1 and 2 of the development split."""
_MIN_SPREAD = 0.5
"""Least spread of a harmonic in bins of the window: its amplitude changes within the window."""

# Distance in frequency at which a bin still agrees with a harmonic. Chosen on singer 2, with weights trained on singer
# 1 only, and on Locus Iste.
_MATCH_WIDTH = 2.0  # Hz, for a steady harmonic
_MATCH_JITTER = 0.003  # relative to the frequency of the harmonic: jitter, and error of f0
_MATCH_GLIDE = 0.3  # relative to the range that the harmonic glides through
_MATCH_FLOOR = 0.05  # for bins in which harmonics of like strength beat and no frequency is right


class F0Path(NamedTuple):
    """The movement of f0 through the window of each frame; tensors of shape (..., voices, frames)."""

    centre: Tensor
    """F0 in Hz in the middle of the window, or that of the nearest note that the window reaches; 0 without any."""
    spread: Tensor
    """Range in Hz that f0 passes through."""
    share: Tensor
    """Share of the window's energy, in [0, 1], that falls on voiced frames."""


def f0_path(f0: Tensor, first: int = 0, last: int | None = None, step: int = 1) -> F0Path:
    """Return the movement of `f0`, shape (..., voices, all frames), in every `step`-th of some frames.

    The frames are first ... last - 1, by default all; the result depends on two more on each side.
    """
    last = f0.shape[-1] if last is None else last
    low, high = max(0, first - _REACH), min(f0.shape[-1], last + _REACH)
    nearby = torch.nn.functional.pad(f0[..., low:high], (low - first + _REACH, last + _REACH - high))
    starts = range(2 * _REACH + 1)
    around = torch.stack([nearby[..., start : start + last - first : step] for start in starts])  # (5, ..., frames)
    weight = torch.tensor(_WEIGHTS, dtype=f0.dtype, device=f0.device).reshape(-1, *[1] * f0.ndim)
    share = (weight * (around > 0)).sum(dim=0) / sum(_WEIGHTS)
    centre = around[_REACH]
    for distance in range(1, _REACH + 1):
        for neighbour in (around[_REACH - distance], around[_REACH + distance]):
            centre = torch.where(centre > 0, centre, neighbour)
    # Slope of the weighted line through the neighbours that belong to the same note.
    offset = torch.arange(-_REACH, _REACH + 1, dtype=f0.dtype, device=f0.device).reshape(weight.shape)
    same_note = (around > 0) & ((around - centre).abs() < _MAX_GLIDE * offset.abs() * centre + 1e-3)
    weight = weight * same_note
    slope = (weight * offset * (around - centre)).sum(dim=0) / (weight * offset**2).sum(dim=0).clamp_min(0.3)
    return F0Path(centre, slope.abs() * _GLIDE_HOPS, share)


def lobe_integral(x: Tensor) -> Tensor:
    """Return the integral from 0 to x of the squared main lobe W of the Hann window, x in bins of the window.

    W(x) is taken as cos^4(pi x / 4) for |x| <= 2: right to 0.15 dB down to -9 dB and to 1.3 dB at -17 dB, with the
    exact noise bandwidth of 1.5 bins. With a = pi x / 2 its integral is 3/8 x + sin a (1 + 1/4 cos a) / pi.
    """
    x = x.clamp(-2, 2)
    a = x * (math.pi / 2)
    return torch.sin(a).mul_(torch.cos(a).mul_(0.25).add_(1.0)).div_(math.pi).add_(x, alpha=0.375)


class Lobes(NamedTuple):
    """Lobes of harmonics on a grid, each bin with the nearest harmonic; shape (..., voices, frames, bins)."""

    power: Tensor
    """Power that a harmonic of amplitude 1 leaves in the bin."""
    number: Tensor
    """Number of the harmonic, from 1."""
    column: Tensor
    """Number of the harmonic as an index, from 0."""

    def fill(self, amplitude2: Tensor) -> Tensor:
        """Return the power of harmonics with squared amplitudes of shape (..., voices, frames, harmonics)."""
        return torch.gather(amplitude2, -1, self.column).mul_(self.power)


def harmonic_lobes(
    path: F0Path,
    grid: StftGrid,
    n_harmonics: int,
    instantaneous_frequency: Tensor | None = None,
    *,
    n_bins: int | None = None,
) -> Lobes:
    """Return the lobes of the first `n_harmonics` harmonics of voices on a grid with a hop of 16 ms.

    With the instantaneous frequency of a recording in Hz, shape (..., frequency bins, frames), they are weighted by
    their `agreement` with it. Only the first `n_bins` bins are computed, by default all.
    """
    bin_width = grid.sample_rate / grid.n_fft
    window_bins = grid.win_length / grid.n_fft  # bins of the window in a bin of the transform
    f0 = (path.centre / bin_width)[..., None]  # in bins of the transform, (..., frames, 1)
    bins = torch.arange(n_bins or grid.n_bins, device=f0.device, dtype=f0.dtype)
    number = torch.round(bins / f0.clamp_min(1e-6)).clamp_(1, n_harmonics)
    x = (bins - number * f0).mul_(window_bins)
    half = number * ((path.spread / bin_width)[..., None] * window_bins + f0 * (_JITTER * window_bins))
    half = half.add_(_MIN_SPREAD).mul_(0.5)
    power = lobe_integral(x + half).sub_(lobe_integral(x - half)).div_(half).mul_(0.5 * path.share[..., None])
    lobes = Lobes(power, number, number.long().sub_(1))
    if instantaneous_frequency is not None:
        power.mul_(agreement(lobes, path, instantaneous_frequency))
    return lobes


def agreement(lobes: Lobes, path: F0Path, instantaneous_frequency: Tensor) -> Tensor:
    """Return how well the frequency in each bin of a recording fits the harmonic that a voice has there.

    The window smears a harmonic over four bins, but in all of them the phase of the recording turns at the harmonic's
    own frequency, or at that of a stronger neighbour. The agreement is a Gaussian of the distance between the
    instantaneous frequency and k f0, with a floor for bins in which several harmonics beat.

    `path` is the movement of f0 that the lobes are made from, and the instantaneous frequency has the shape (...,
    frequency bins, frames). The agreement is in (0, 1], with the shape of the lobes.
    """
    distance = instantaneous_frequency.transpose(-1, -2)[..., None, :, :] - lobes.number * path.centre[..., None]
    # Both deviations grow with the number of the harmonic.
    unit = (_MATCH_JITTER * path.centre) ** 2 + (_MATCH_GLIDE * path.spread) ** 2
    variance = lobes.number.square().mul_(unit[..., None]).add_(_MATCH_WIDTH**2)
    likelihood = distance.square_().mul_(-0.5).div_(variance).exp_()
    return likelihood.add_(_MATCH_FLOOR).div_(1 + _MATCH_FLOOR)
