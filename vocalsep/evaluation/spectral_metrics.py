"""Metrics on magnitude spectrograms: spectral SNR, with and without scale, and mel-cepstral distance.

They are those by which US judges its synthesised sources (K. Schulze-Forster, G. Richard, L. Kelley, C. Doire,
R. Badeau, arXiv 2201.09592, section V), which, unlike SI-SDR, do not ask for the phase. What the paper's text leaves
open (window, bands, floor) is as in the authors' published evaluation: Hann window of 512 samples at 16 kHz, hop 256,
the waveform mirrored at its ends; each frame of 1 s is scored by itself, at a mixture that peaks at 1.

`reference` and `estimate` are waveforms of shape (..., samples), S and E below their magnitude spectrograms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vocalsep.dsp.stft import StftGrid, mel_points, stft
from vocalsep.errors import AudioError
from vocalsep.evaluation.metrics import Scores, protocol_frames, validate_stems
from vocalsep.timebase import MODEL_SAMPLE_RATE

N_CEPSTRA = 13
"""Mel cepstra that are compared; the first, the level, is one of them."""
N_MELS = 128
_WINDOW = 512 / MODEL_SAMPLE_RATE  # seconds
_FLOOR = 1e-6  # of the power in a mel band, at full scale and a transform that is not scaled
_MAX_BLOCK = 64  # frames of 1 s whose spectra are held at once


def spectral_snr(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> NDArray[np.float64]:
    """Return the spectral SNR in dB: 10 log10(sum S^2 / sum (E - S)^2), sums over bins and frames.

    Returns
    -------
    ndarray
        Shape (...); 0 for a silent estimate, inf for a perfect one, NaN where both are silent.

    Raises
    ------
    AudioError
        If the shapes differ.

    Examples
    --------
    An estimate at half the level leaves a quarter of the energy as error:

    >>> tone = np.sin(np.arange(16000) / 8)
    >>> round(float(spectral_snr(tone, 0.5 * tone)), 4)
    6.0206
    """
    s, e = _magnitudes(reference, estimate, sample_rate)
    return _decibels((s**2).sum(dim=(-1, -2)), ((e - s) ** 2).sum(dim=(-1, -2)))


def spectral_si_snr(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> NDArray[np.float64]:
    """Return the scale-invariant spectral SNR in dB.

    10 log10(sum (a S)^2 / sum (E - a S)^2) with a = sum S E / sum S^2, sums over bins and frames.

    Returns
    -------
    ndarray
        Shape (...); -inf for a silent estimate, NaN for a silent reference.

    Raises
    ------
    AudioError
        If the shapes differ.
    """
    s, e = _magnitudes(reference, estimate, sample_rate)
    scale = (s * e).sum(dim=(-1, -2)) / (s**2).sum(dim=(-1, -2))
    target = scale[..., None, None] * s
    ratio = _decibels((target**2).sum(dim=(-1, -2)), ((e - target) ** 2).sum(dim=(-1, -2)))
    nothing = ((e == 0).all(dim=-1).all(dim=-1) & (s != 0).any(dim=-1).any(dim=-1)).numpy()
    return np.where(nothing, -np.inf, ratio)


def mel_cepstral_distance(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> NDArray[np.float64]:
    """Return the mel-cepstral distance: ||c(S) - c(E)|| in each frame of the spectrogram, mean over frames.

    c is the first 13 coefficients of the orthonormal DCT-II of ln(power in 128 triangular mel bands + 1e-6), the
    level among them; no constant turns it into dB. It depends on the level of both: full scale is to be 1.

    Returns
    -------
    ndarray
        Shape (...), 0 or more; 0 where the spectrograms are the same.

    Raises
    ------
    AudioError
        If the shapes differ.
    """
    s, e = _magnitudes(reference, estimate, sample_rate)
    difference = mel_cepstra(s, sample_rate) - mel_cepstra(e, sample_rate)
    distance: NDArray[np.float64] = difference.norm(dim=-2).mean(dim=-1).numpy()
    return distance


def mel_cepstra(magnitude: Tensor, sample_rate: int = MODEL_SAMPLE_RATE) -> Tensor:
    """Return mel cepstra of magnitude spectrograms (..., frequency bins, frames): shape (..., 13, frames)."""
    bands = torch.log(_triangles(sample_rate).to(magnitude) @ magnitude**2 + _FLOOR)
    number = torch.arange(N_CEPSTRA, dtype=magnitude.dtype)[:, None]
    angle = math.pi / N_MELS * (torch.arange(N_MELS, dtype=magnitude.dtype) + 0.5)
    cosines = math.sqrt(2 / N_MELS) * torch.cos(number * angle)
    cosines[0] /= math.sqrt(2)
    return cosines @ bands


def spectral_scores(
    references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> dict[str, tuple[Scores, ...]]:
    """Score stems by all metrics of this module in the frames of `metrics.protocol_frames`.

    Parameters
    ----------
    references, estimates
        Shape (voices, samples).
    mixture
        Shape (samples,).
    sample_rate
        Hz.

    Returns
    -------
    dict
        "spectral SNR", "spectral SI-SNR" and "MCD" -> one `Scores` for each voice.

    Raises
    ------
    AudioError
        If the shapes do not fit.
    """
    validate_stems(references, estimates, mixture)
    s, e = np.asarray(references, dtype=np.float64), np.asarray(estimates, dtype=np.float64)
    frames = list(protocol_frames(s, mixture, sample_rate))
    table: dict[str, tuple[Scores, ...]] = {}
    for name, metric in METRICS.items():
        voices = []
        for voice in range(len(s)):
            counted = [frame for frame in frames if frame.counts[voice]]
            values = [np.zeros(0)]
            for first in range(0, len(counted), _MAX_BLOCK):
                block = counted[first : first + _MAX_BLOCK]
                true, found = (np.stack([x[voice, part] / peak for part, peak, _ in block]) for x in (s, e))
                values.append(metric(true, found, sample_rate))
            voices.append(Scores(np.concatenate(values)))
        table[name] = tuple(voices)
    return table


METRICS = {"spectral SNR": spectral_snr, "spectral SI-SNR": spectral_si_snr, "MCD": mel_cepstral_distance}
"""By the names of the tables. Of the first two more is better, of MCD less."""


def _magnitudes(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> tuple[Tensor, Tensor]:
    s, e = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if s.shape != e.shape:
        raise AudioError(f"reference has shape {s.shape} and estimate {e.shape}; expected the same")
    return _magnitude(s, sample_rate), _magnitude(e, sample_rate)


def _grid(sample_rate: int) -> StftGrid:
    return StftGrid.of_duration(sample_rate, _WINDOW, _WINDOW / 2)


def _magnitude(waveform: NDArray[np.float64], sample_rate: int) -> Tensor:
    """Return |X| of a transform that is not scaled, shape (..., frequency bins, frames), mirrored at the ends."""
    grid = _grid(sample_rate)
    half = grid.win_length // 2
    if waveform.shape[-1] <= half:
        raise AudioError(
            f"waveforms have {waveform.shape[-1]} samples; expected more than half a window of {grid.win_length}"
        )
    mirrored = np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(half, half)], mode="reflect")
    # Of the mirrored waveform, the second frame is centred on the first sample of the waveform.
    spectrum = stft(torch.from_numpy(mirrored), grid, 1, 1 + grid.n_frames(waveform.shape[-1]))
    return spectrum.abs() * (grid.win_length / 4)


def _triangles(sample_rate: int) -> Tensor:
    """Return triangles of height 1 from 0 Hz to half the sample rate, shape (bands, frequency bins).

    The lowest are narrower than a bin and may hold none: such a band is the same in all spectra and counts for nothing.
    """
    edges = mel_points(N_MELS + 2, 0.0, sample_rate / 2).double()
    frequency = _grid(sample_rate).frequencies().double()
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp_min(0)


def _decibels(signal: Tensor, error: Tensor) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = (10 * torch.log10(signal / error)).numpy()
    return ratio
