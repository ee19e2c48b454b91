"""Source-filter NMF: each voice is a comb at its f0 times a smooth filter, both fitted to the recording alone.

The magnitude spectrogram V is explained as

    M[f, t] = sum over voices v of E_v[f, t] * sum over filters k of (A B_v)[f, k] G_v[t, k].

E is the excitation, fixed by f0: harmonics with the glottal roll-off, and breath far below them. A holds smooth bumps
along frequency, B the weights that make each voice's filters of them, G the gains of the filters in each frame. B and G
follow multiplicative updates for the Kullback-Leibler divergence; the authors' Itakura-Saito divergence of power
spectra was 0.4 dB worse on a singer of the development split. This is the model of [1]_ and [2]_ for all voices, with
known f0, and the second learning-free baseline of [3]_.

References
----------
.. [1] J.-L. Durrieu, G. Richard, B. David, C. Févotte, "Source/filter model for unsupervised main melody extraction
   from polyphonic audio signals", IEEE TASLP 2010.
.. [2] J.-L. Durrieu, B. David, G. Richard, "A musically motivated mid-level representation for pitch estimation and
   musical audio source separation", IEEE JSTSP 2011.
.. [3] K. Schulze-Forster et al., "Unsupervised Music Source Separation Using Differentiable Parametric Source Models",
   IEEE/ACM TASLP 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.stft import stft
from vocalsep.evaluation.baselines.nmf import FLOOR, GRID, frame_chunks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer.excitation import glottal_roll_off, harmonic_count
from vocalsep.model.synthesizer.spectrogram import harmonic_power
from vocalsep.timebase import HOP

# Breath, filters and divergence were chosen on singer 1 of the development split, iterations on singers 1 and 2, with
# CREPE f0 of the stems; the spacing was not searched.
ITERATIONS = 30
"""Updates of gains and filters."""
_N_FILTERS = 10  # for each voice: about as many as there are vowels
_SPACING = 276.0  # Hz between the centres of neighbouring bumps
_REACH = 2  # bumps are Hann windows that reach the centre of the next but one on either side
_BREATH = 1e-5  # power of the breath in each bin, relative to that of a harmonic there
_SEED = 0  # for the first filters, which must differ from one another
_TINY = 1e-12


def smooth_bumps() -> Tensor:
    """Return A: Hann-shaped bumps, evenly spaced, that add up to 1 in every bin, shape (frequency bins, bumps)."""
    n_inner = 1 + round(GRID.sample_rate / 2 / _SPACING)
    # Bumps centred beyond either end reach into the range as well.
    centres = torch.arange(1 - _REACH, n_inner + _REACH - 1)
    position = torch.linspace(0, n_inner - 1, GRID.n_bins)
    distance = (position[:, None] - centres).abs() / _REACH
    return torch.where(distance < 1, (1 + torch.cos(math.pi * distance)) / (2 * _REACH), 0.0)


def excitations(f0: Tensor) -> Tensor:
    """Return E, the magnitude of each voice before its filter, shape (voices, frames, frequency bins).

    F0 has shape (voices, frames). E is 0 in all bins of a frame whose window has nothing of the voice.
    """
    number = torch.arange(1, harmonic_count(f0, GRID.sample_rate / 2) + 1)
    breath = _BREATH * torch.exp(2 * glottal_roll_off(GRID.frequencies()))
    found = f0.new_empty(*f0.shape, GRID.n_bins)
    for frames in frame_chunks(f0.shape[1]):
        roll_off = glottal_roll_off(f0[:, frames, None] * number)
        harmonics = harmonic_power(roll_off, f0, GRID, frames.start, frames.stop).transpose(-1, -2)
        sings = harmonics.sum(dim=-1, keepdim=True) > 0
        found[:, frames] = (harmonics.clamp_min(0) + breath * sings).sqrt_()  # rounding may leave a little below 0
    return found


def first_filters(n_voices: int, n_bumps: int) -> Tensor:
    """Return B to start from, uniform between 0.5 and 1.5 and always the same, shape (voices, bumps, filters)."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.rand(n_voices, n_bumps, _N_FILTERS, generator=generator) + 0.5


def first_gains(magnitude: Tensor, excitation: Tensor) -> Tensor:
    """Return G to start from: equal gains that make the model as loud as each frame, (voices, frames, filters)."""
    loudness = excitation.sum(dim=(0, 2))
    level = magnitude.sum(dim=1) / (_N_FILTERS * loudness.clamp_min(_TINY))
    sings = excitation.sum(dim=2) > 0
    return (level * sings)[..., None].repeat(1, 1, _N_FILTERS)


def factorize(
    magnitude: Tensor, excitation: Tensor, bumps: Tensor, filters: Tensor, gains: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return B and G after multiplicative updates, which lower the divergence of the model from V.

    With W_v = A B_v and the ratio R = V / (M + floor), first in each frame and then over all frames,

        G_v <- G_v * ((E_v R)^T W_v) / (E_v^T W_v),  B_v <- B_v * (A^T (E_v R) G_v) / (A^T E_v G_v).

    Magnitude V has shape (frames, frequency bins), excitation E (voices, frames, frequency bins), bumps A (frequency
    bins, bumps), filters B (voices, bumps, filters), gains G (voices, frames, filters). Zeros in B and G stay zero.
    """
    b, g = filters, gains.clone()
    for _ in range(iterations):
        shapes = bumps @ b  # (voices, bins, filters)
        numerator, denominator = torch.zeros_like(b), torch.zeros_like(b)
        for frames in frame_chunks(len(magnitude)):
            v, e, own = magnitude[frames], excitation[:, frames], g[:, frames]
            own = own * ((e * _ratio(v, e, shapes, own)) @ shapes) / (e @ shapes).clamp_min(_TINY)
            numerator += bumps.T @ ((e * _ratio(v, e, shapes, own)).transpose(1, 2) @ own)
            denominator += bumps.T @ (e.transpose(1, 2) @ own)
            g[:, frames] = own
        b = b * numerator / denominator.clamp_min(_TINY)
    return b, g


def voice_magnitudes(excitation: Tensor, bumps: Tensor, filters: Tensor, gains: Tensor) -> Tensor:
    """Return the model of each voice, shape (voices, frames, frequency bins); see `factorize` for the arguments."""
    return excitation * (gains @ (bumps @ filters).transpose(1, 2))


def _ratio(magnitude: Tensor, excitation: Tensor, shapes: Tensor, gains: Tensor) -> Tensor:
    model = (excitation * (gains @ shapes.transpose(1, 2))).sum(dim=0).add_(FLOOR)
    return magnitude / model


def separate_source_filter_nmf(mixture: Float32, tracks: F0Tracks, *, iterations: int = ITERATIONS) -> Float32:
    """Return the stems that source-filter NMF cuts out of a mixture; they add up to it."""
    waveform = torch.from_numpy(mixture)
    magnitude = stft(waveform, GRID).abs().T.contiguous()
    f0 = torch.from_numpy(tracks.resampled(HOP, len(magnitude)).frequencies)
    excitation, bumps = excitations(f0), smooth_bumps()
    filters = first_filters(len(f0), bumps.shape[1])
    filters, gains = factorize(magnitude, excitation, bumps, filters, first_gains(magnitude, excitation), iterations)

    def power(first: int, last: int) -> Tensor:
        models = voice_magnitudes(excitation[:, first:last], bumps, filters, gains[:, first:last])
        return models.square_().transpose(1, 2)

    return cut(waveform, GRID, len(f0), power).numpy()
