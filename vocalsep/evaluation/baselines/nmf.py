"""F0-informed non-negative matrix factorisation (NMF): harmonic templates that each recording shapes for itself.

S. Ewert and M. Müller, "Using score-informed constraints for NMF-based source separation", ICASSP 2012, with f0 tracks
in place of a score. The magnitude spectrogram V is explained as W H. Every voice has a template, a column of W, for
each pitch it sings; it is zero except near the pitch's harmonics. A template's row of H is zero except where the f0
track says so. Multiplicative updates for the Kullback-Leibler divergence (D. Lee and H. S. Seung, "Algorithms for
non-negative matrix factorization", NIPS 2000) keep zeros, so voices never mix up. One of the two learning-free
baselines of US (K. Schulze-Forster et al., arXiv 2201.09592).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid, stft
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.timebase import HOP

# Constants were chosen on singers 1 and 2 of the development split, with CREPE f0 of the stems.
ITERATIONS = 5
"""Updates of activations and templates; with more, templates learn what other voices sing at the same time."""
_STEP = 20.0  # cents between pitches; semitones cost 1.8 dB: singers glide and bend
_TOLERANCE = 10.0  # cents either side of a pitch that belong to it
_LOBE = 2.0  # bins of the window either side of a harmonic: the main lobe of a Hann window
_SLOPE = 1.5  # first templates fall with harmonic number to this power
_HOLD = 2  # frames before and after a pitch in which it may sound
_REFERENCE = 440.0  # Hz: pitches are counted from here
_MASK_POWER = 2.0  # magnitudes are squared for the masks: 0.4 dB better on singer 1 than masks from magnitudes
FLOOR = 1e-7
"""Full scale (-140 dB): a constant part of the model, so that silence divides by something."""
BLOCK = 128
"""Frames at once: what is computed for them fits into the cache, and memory does not grow with it."""


def divergence(magnitude: Tensor, model: Tensor) -> float:
    """Return the Kullback-Leibler divergence, sum of V ln(V / M) - V + M, of a positive model M from V of its shape.

    Examples
    --------
    >>> divergence(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5]))
    0.5
    """
    v, m = magnitude.double(), model.double()
    return float((torch.xlogy(v, v) - torch.xlogy(v, m) - v + m).sum())


def sung_pitches(f0: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pitches that one voice sings, 20 cents apart, and where each may sound.

    Parameters
    ----------
    f0
        Hz, shape (frames,), 0 = unvoiced.

    Returns
    -------
    pitches, sounding
        Hz, shape (pitches,), none for a voice that never sings; 1 where the voice is on a pitch and
        up to two frames before and after, 0 elsewhere, shape (pitches, frames).
    """
    number = torch.round(torch.log2(f0.clamp_min(1.0) / _REFERENCE) * (1200 / _STEP))
    numbers = torch.unique(number[f0 > 0])
    sounding = ((number == numbers[:, None]) & (f0 > 0)).to(f0.dtype)
    if len(numbers):
        sounding = torch.nn.functional.max_pool1d(sounding, 2 * _HOLD + 1, stride=1, padding=_HOLD)
    return _REFERENCE * torch.exp2(numbers * (_STEP / 1200)), sounding


def harmonic_templates(pitches: Tensor, grid: StftGrid) -> Tensor:
    """Return the first templates of pitches in Hz, shape (pitches,): combs of shape (frequency bins, pitches).

    A bin belongs to the nearest harmonic, k f0, if the window's main lobe reaches it from f0 or from a pitch within
    the tolerance; it is k ** -1.5 there and 0 elsewhere.
    """
    frequency = grid.frequencies()[:, None]
    number = torch.round(frequency / pitches).clamp_min(1)
    reach = number * pitches * (2 ** (_TOLERANCE / 1200) - 1) + _LOBE * grid.sample_rate / grid.win_length
    return ((frequency - number * pitches).abs() < reach) * number**-_SLOPE


def factorize(magnitude: Tensor, templates: Tensor, activations: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return W and H after so many multiplicative updates, each of which lowers the divergence of W H + floor from V.

    H <- H * (W^T (V / M)) / (W^T 1),  W <- W * ((V / M) H^T) / (1 H^T),  M = W H + floor.

    Parameters
    ----------
    magnitude
        V, shape (frequency bins, frames).
    templates, activations
        W and H to start from, shapes (frequency bins, pitches) and (pitches, frames); zeros stay zero.
    iterations
        How often H and then W are updated.

    Returns
    -------
    templates, activations
        Of the same shapes.
    """
    w, h = templates, activations.clone()
    tiny = torch.finfo(w.dtype).tiny
    for _ in range(iterations):
        wanted = torch.zeros_like(w)
        given = w.sum(dim=0).clamp_min(tiny)[:, None]
        for frames in blocks(magnitude.shape[1]):
            v, own = magnitude[:, frames], h[:, frames]
            own = own * (w.T @ (v / (w @ own).add_(FLOOR))) / given
            wanted += (v / (w @ own).add_(FLOOR)) @ own.T
            h[:, frames] = own
        w = w * wanted / h.sum(dim=1).clamp_min(tiny)
    return w, h


def blocks(n_frames: int) -> Iterator[slice]:
    """Yield slices of `BLOCK` frames, the last of which may be shorter, that make up so many frames."""
    for first in range(0, n_frames, BLOCK):
        yield slice(first, first + BLOCK)


def separate_nmf(mixture: Float32, tracks: F0Tracks, sample_rate: int, *, iterations: int = ITERATIONS) -> Float32:
    """Return stems that f0-informed NMF cuts out of a mixture.

    Parameters
    ----------
    mixture
        Shape (samples,).
    tracks
        F0 of every voice.
    sample_rate
        Hz.
    iterations
        Of `factorize`.

    Returns
    -------
    ndarray
        Shape (voices, samples); the stems add up to the mixture.
    """
    grid = StftGrid.of_duration(sample_rate)
    waveform = torch.from_numpy(mixture)
    spectrum = stft(waveform, grid)
    f0 = torch.from_numpy(tracks.resampled(HOP, spectrum.shape[-1]).frequencies)
    sung = [sung_pitches(row) for row in f0]
    combs = torch.cat([harmonic_templates(pitches, grid) for pitches, _ in sung], dim=1)
    w, h = factorize(spectrum.abs(), combs, torch.cat([sounding for _, sounding in sung]), iterations)
    ends = [*accumulate((len(pitches) for pitches, _ in sung), initial=0)]

    def modelled(first: int, last: int) -> Tensor:
        models = [w[:, low:high] @ h[low:high, first:last] for low, high in pairwise(ends)]
        return torch.stack(models).pow_(_MASK_POWER)

    return cut(waveform, grid, len(f0), modelled).numpy()
