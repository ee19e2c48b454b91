"""F0-informed non-negative matrix factorisation (NMF): harmonic templates that adapt to each recording.

The magnitude spectrogram V is explained as W H. Each voice has a template, a column of W, for each pitch it sings; the
template is zero except near the harmonics of the pitch. The activations, rows of H, are zero except where the f0 track
has the pitch. Multiplicative updates for the Kullback-Leibler divergence [2]_ keep zeros, so voices never mix. This is
[1]_ with f0 tracks in place of a score, and one of the two learning-free baselines of [3]_.

References
----------
.. [1] S. Ewert, M. Müller, "Using score-informed constraints for NMF-based source separation", ICASSP 2012.
.. [2] D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
.. [3] K. Schulze-Forster et al., "Unsupervised Music Source Separation Using Differentiable Parametric Source Models",
   IEEE/ACM TASLP 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, stft
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.timebase import HOP

GRID = StftGrid.of_duration()
# The constants were chosen on singers 1 and 2 of the development split, with CREPE f0 of the stems.
ITERATIONS = 5
"""Updates of activations and templates; with more, templates learn what other voices sing at the same time."""
_STEP = 20.0  # cents between pitches; semitones cost 1.8 dB, since singers glide and bend
_TOLERANCE = 10.0  # cents either side of a pitch that belong to it
_LOBE = 2.0  # bins of the window either side of a harmonic: the main lobe of a Hann window
_SLOPE = 1.5  # first templates fall with harmonic number to this power
_HOLD = 2  # frames before and after a pitch in which it may sound
_REFERENCE = 440.0  # Hz: pitches are counted from here
_MASK_POWER = 2.0  # magnitudes are squared for the masks: 0.4 dB better on singer 1 than masks from magnitudes
FLOOR = 1e-7
"""Magnitude (-140 dB) that is added to the model, so that silence divides by something."""
CHUNK_FRAMES = 128
"""Frames that are updated together: they fit into the cache."""


def divergence(magnitude: Tensor, model: Tensor) -> float:
    """Return the Kullback-Leibler divergence of a positive model M from V, sum of V ln(V / M) - V + M.

    Examples
    --------
    >>> divergence(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5]))
    0.5
    """
    v, m = magnitude.double(), model.double()
    return float((torch.xlogy(v, v) - torch.xlogy(v, m) - v + m).sum())


def sung_pitches(f0: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pitches in Hz that a voice with f0 of shape (frames,) sings, 20 cents apart, and where they may sound.

    The latter, shape (pitches, frames), is 1 where the voice is on a pitch and up to two frames before and after.
    """
    number = torch.round(torch.log2(f0.clamp_min(1.0) / _REFERENCE) * (1200 / _STEP))
    numbers = torch.unique(number[f0 > 0])
    sounding = ((number == numbers[:, None]) & (f0 > 0)).to(f0.dtype)
    if len(numbers):
        sounding = torch.nn.functional.max_pool1d(sounding, 2 * _HOLD + 1, stride=1, padding=_HOLD)
    return _REFERENCE * torch.exp2(numbers * (_STEP / 1200)), sounding


def harmonic_templates(pitches: Tensor) -> Tensor:
    """Return the first templates of pitches in Hz, shape (frequency bins, pitches).

    A bin belongs to the nearest harmonic, k f0, if the main lobe of the window reaches it from f0 or from a pitch
    within the tolerance; the template is k ** -1.5 there and 0 elsewhere.
    """
    frequency = GRID.frequencies()[:, None]
    number = torch.round(frequency / pitches).clamp_min(1)
    reach = number * pitches * (2 ** (_TOLERANCE / 1200) - 1) + _LOBE * GRID.sample_rate / GRID.win_length
    return ((frequency - number * pitches).abs() < reach) * number**-_SLOPE


def factorize(magnitude: Tensor, templates: Tensor, activations: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return W and H after multiplicative updates, each of which lowers the divergence of W H + floor from V.

    H <- H * (W^T (V / M)) / (W^T 1),  W <- W * ((V / M) H^T) / (1 H^T),  M = W H + floor.

    Magnitude V has shape (frequency bins, frames), templates W (frequency bins, pitches), activations H (pitches,
    frames). Each iteration updates H, then W; zeros stay zero.
    """
    w, h = templates, activations.clone()
    tiny = torch.finfo(w.dtype).tiny
    for _ in range(iterations):
        numerator, denominator = torch.zeros_like(w), w.sum(dim=0).clamp_min(tiny)[:, None]
        for frames in frame_chunks(magnitude.shape[1]):
            v, own = magnitude[:, frames], h[:, frames]
            own = own * (w.T @ (v / (w @ own).add_(FLOOR))) / denominator
            numerator += (v / (w @ own).add_(FLOOR)) @ own.T
            h[:, frames] = own
        w = w * numerator / h.sum(dim=1).clamp_min(tiny)
    return w, h


def frame_chunks(n_frames: int) -> Iterator[slice]:
    """Yield slices of `CHUNK_FRAMES` frames that make up `n_frames`."""
    for piece in chunks(n_frames, CHUNK_FRAMES):
        yield slice(piece.first, piece.last)


def separate_nmf(mixture: Float32, tracks: F0Tracks, *, iterations: int = ITERATIONS) -> Float32:
    """Return the stems that f0-informed NMF cuts out of a mixture; they add up to it."""
    waveform = torch.from_numpy(mixture)
    magnitude = stft(waveform, GRID).abs()
    f0 = torch.from_numpy(tracks.resampled(HOP, magnitude.shape[1]).frequencies)
    sung = [sung_pitches(row) for row in f0]
    combs = torch.cat([harmonic_templates(pitches) for pitches, _ in sung], dim=1)
    w, h = factorize(magnitude, combs, torch.cat([sounding for _, sounding in sung]), iterations)
    ends = [*accumulate((len(pitches) for pitches, _ in sung), initial=0)]

    def power(first: int, last: int) -> Tensor:
        models = [w[:, low:high] @ h[low:high, first:last] for low, high in pairwise(ends)]
        return torch.stack(models).pow_(_MASK_POWER)

    return cut(waveform, GRID, len(f0), power).numpy()
