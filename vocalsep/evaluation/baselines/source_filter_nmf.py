"""Source-filter NMF: every voice is a comb at its f0 times a smooth filter, both fitted to the recording alone.

J.-L. Durrieu, G. Richard, B. David, C. Févotte, "Source/filter model for unsupervised main melody extraction from
polyphonic audio signals", IEEE TASLP 2010; J.-L. Durrieu, B. David, G. Richard, "A musically motivated mid-level
representation for pitch estimation and musical audio source separation", IEEE JSTSP 2011. Here f0 is given and all
voices are of this kind, as in the second learning-free baseline of US (K. Schulze-Forster et al., arXiv 2201.09592).
The magnitude spectrogram V is explained as

    M[f, t] = sum over voices v of E_v[f, t] * sum over filters k of (A B_v)[f, k] G_v[t, k].

E is the excitation, fixed by f0: harmonics with the glottal roll-off, and breath far below them. A holds smooth
bumps along frequency, B the weights that make each voice's filters of them, G the filters' gains in each frame.
B and G follow multiplicative updates for the Kullback-Leibler divergence; the authors' Itakura-Saito divergence of
power spectra was 0.4 dB worse on a singer of the development split.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid, stft
from vocalsep.evaluation.baselines.nmf import FLOOR, blocks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer.excitation import glottal_roll_off, harmonic_count
from vocalsep.model.synthesizer.spectrogram import harmonic_power
from vocalsep.timebase import HOP

# Breath, filters and divergence were chosen on singer 1 of the development split, iterations on singers 1 and 2, with
# CREPE f0 of the stems; the spacing was not searched.
ITERATIONS = 30
"""Updates of gains and filters."""
_N_FILTERS = 10  # of each voice: about as many as there are vowels
_SPACING = 276.0  # Hz between the centres of neighbouring bumps
_REACH = 2  # bumps are Hann windows that reach the centre of the next but one on either side
_BREATH = 1e-5  # power of the breath in each bin, relative to that of a harmonic there
_SEED = 0  # of the first filters, which must differ from one another
_TINY = 1e-12


def smooth_bumps(grid: StftGrid) -> Tensor:
    """Return Hann-shaped bumps, evenly spaced from 0 Hz to the highest bin, that add up to 1 in every bin.

    Returns
    -------
    Tensor
        A, shape (frequency bins, bumps).
    """
    n_inner = 1 + round(grid.sample_rate / 2 / _SPACING)
    # Those centred beyond either end reach into the range as well.
    centres = torch.arange(1 - _REACH, n_inner + _REACH - 1)
    position = torch.linspace(0, n_inner - 1, grid.n_bins)
    distance = (position[:, None] - centres).abs() / _REACH
    return torch.where(distance < 1, (1 + torch.cos(math.pi * distance)) / (2 * _REACH), 0.0)


def excitations(f0: Tensor, grid: StftGrid) -> Tensor:
    """Return the magnitude of each voice before its filter.

    Parameters
    ----------
    f0
        Hz, shape (voices, frames), 0 = unvoiced.
    grid
        Where to evaluate; its hop must be 16 ms.

    Returns
    -------
    Tensor
        E, shape (voices, frames, frequency bins); 0 throughout a frame whose window hears nothing of the voice.
    """
    number = torch.arange(1, harmonic_count(f0, grid.sample_rate / 2) + 1)
    breath = _BREATH * torch.exp(2 * glottal_roll_off(grid.frequencies()))
    found = f0.new_empty(*f0.shape, grid.n_bins)
    for frames in blocks(f0.shape[1]):
        roll_off = glottal_roll_off(f0[:, frames, None] * number)
        last = frames.start + roll_off.shape[1]
        harmonics = harmonic_power(roll_off, f0, grid, frames.start, last).transpose(-1, -2)
        sings = harmonics.sum(dim=-1, keepdim=True) > 0
        found[:, frames] = (harmonics.clamp_min(0) + breath * sings).sqrt_()  # rounding may leave a little below 0
    return found


def first_filters(n_voices: int, n_bumps: int) -> Tensor:
    """Return weights to start from, uniform between 0.5 and 1.5 and always the same: (voices, bumps, filters)."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.rand(n_voices, n_bumps, _N_FILTERS, generator=generator) + 0.5


def first_gains(magnitude: Tensor, excitation: Tensor) -> Tensor:
    """Return equal gains with which excitations are in sum as loud as the frame: (voices, frames, filters)."""
    loudness = excitation.sum(dim=(0, 2))
    level = magnitude.sum(dim=1) / (_N_FILTERS * loudness.clamp_min(_TINY))
    sings = excitation.sum(dim=2) > 0
    return (level * sings)[..., None].repeat(1, 1, _N_FILTERS)


def factorize(
    magnitude: Tensor, excitation: Tensor, bumps: Tensor, filters: Tensor, gains: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return B and G after so many multiplicative updates, which lower the divergence of the model from V.

    With W_v = A B_v and the ratio R = V / (M + floor), first, in each frame, and then over all frames,

        G_v <- G_v * ((E_v R)^T W_v) / (E_v^T W_v),  B_v <- B_v * (A^T (E_v R) G_v) / (A^T E_v G_v).

    Parameters
    ----------
    magnitude
        V, shape (frames, frequency bins).
    excitation
        E, shape (voices, frames, frequency bins).
    bumps
        A, shape (frequency bins, bumps).
    filters, gains
        B and G to start from, shapes (voices, bumps, filters) and (voices, frames, filters); zeros stay zero.
    iterations
        How often G and then B are updated.

    Returns
    -------
    filters, gains
        Of the same shapes.
    """
    b, g = filters, gains.clone()
    for _ in range(iterations):
        shapes = bumps @ b  # (voices, bins, filters)
        wanted, given = torch.zeros_like(b), torch.zeros_like(b)
        for frames in blocks(len(magnitude)):
            v, e, own = magnitude[frames], excitation[:, frames], g[:, frames]
            own = own * ((e * _ratio(v, e, shapes, own)) @ shapes) / (e @ shapes).clamp_min(_TINY)
            wanted += bumps.T @ ((e * _ratio(v, e, shapes, own)).transpose(1, 2) @ own)
            given += bumps.T @ (e.transpose(1, 2) @ own)
            g[:, frames] = own
        b = b * wanted / given.clamp_min(_TINY)
    return b, g


def voice_magnitudes(excitation: Tensor, bumps: Tensor, filters: Tensor, gains: Tensor) -> Tensor:
    """Return the model of each voice, shape (voices, frames, frequency bins); arguments are those of `factorize`."""
    return excitation * (gains @ (bumps @ filters).transpose(1, 2))


def _ratio(magnitude: Tensor, excitation: Tensor, shapes: Tensor, gains: Tensor) -> Tensor:
    model = (excitation * (gains @ shapes.transpose(1, 2))).sum(dim=0).add_(FLOOR)
    return magnitude / model


def separate_source_filter_nmf(
    mixture: Float32, tracks: F0Tracks, sample_rate: int, *, iterations: int = ITERATIONS
) -> Float32:
    """Return stems that source-filter NMF cuts out of a mixture.

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
    magnitude = spectrum.abs().T.contiguous()
    excitation, bumps = excitations(f0, grid), smooth_bumps(grid)
    filters = first_filters(len(f0), bumps.shape[1])
    filters, gains = factorize(magnitude, excitation, bumps, filters, first_gains(magnitude, excitation), iterations)

    def modelled(first: int, last: int) -> Tensor:
        models = voice_magnitudes(excitation[:, first:last], bumps, filters, gains[:, first:last])
        return models.square_().transpose(1, 2)

    return cut(waveform, grid, len(f0), modelled).numpy()
