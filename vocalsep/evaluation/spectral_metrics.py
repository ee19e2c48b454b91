"""Metrics of separated stems on magnitude spectrograms.

Conventions
-----------
`reference` and `estimate` are waveforms of one shape (..., samples) at 16 kHz, full scale +-1; S and E below are their
magnitude spectrograms. The STFT has a Hann window of 512 samples and a hop of 256; the waveform is mirrored at its
ends. Phase does not matter to these metrics, unlike to SI-SDR. The definitions are those of [1]_; where its text is
silent (window, mel bands, floor), they follow the authors' published evaluation. Other shapes raise AudioError.

Metrics
-------
* `spectral_snr`: 10 log10(sum S^2 / sum (E - S)^2) in dB, more is better.
* `spectral_si_snr`: the same, invariant to the scale of the estimate.
* `mel_cepstral_distance`: mean distance of 13 mel cepstra, less is better.
* `spectral_scores`: all of them in the frames of `metrics.protocol_frames`.

References
----------
.. [1] K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
   Differentiable Parametric Source Models", IEEE/ACM TASLP 2023, section V.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, mel_points, stft
from vocalsep.errors import AudioError
from vocalsep.evaluation.metrics import Values, protocol_frames, same_shape, validate_stems
from vocalsep.timebase import MODEL_SAMPLE_RATE

N_CEPSTRA = 13
"""Number of mel cepstra; the first one is the level."""
N_MELS = 128
GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE, 512 / MODEL_SAMPLE_RATE, 256 / MODEL_SAMPLE_RATE)
_FLOOR = 1e-6  # power in a mel band, for full scale +-1 and an STFT that is not scaled
_FRAMES_AT_ONCE = 64  # 1-s frames whose spectrograms are in memory together


def spectral_snr(reference: ArrayLike, estimate: ArrayLike) -> Values:
    """Return the spectral SNR in dB, shape (...): 0 for a silent estimate, inf for a perfect one.

    Examples
    --------
    An estimate at half the level leaves a quarter of the energy as error:

    >>> tone = np.sin(np.arange(16000) / 8)
    >>> round(float(spectral_snr(tone, 0.5 * tone)), 4)
    6.0206
    """
    s, e = _magnitudes(reference, estimate)
    return _decibels((s**2).sum(dim=(-1, -2)), ((e - s) ** 2).sum(dim=(-1, -2)))


def spectral_si_snr(reference: ArrayLike, estimate: ArrayLike) -> Values:
    """Return the scale-invariant spectral SNR in dB, shape (...): 10 log10(sum (a S)^2 / sum (E - a S)^2).

    The scale is a = sum S E / sum S^2. A silent estimate gives -inf, a silent reference NaN.
    """
    s, e = _magnitudes(reference, estimate)
    scale = (s * e).sum(dim=(-1, -2)) / (s**2).sum(dim=(-1, -2))
    target = scale[..., None, None] * s
    ratio = _decibels((target**2).sum(dim=(-1, -2)), ((e - target) ** 2).sum(dim=(-1, -2)))
    nothing = (e == 0).flatten(-2).all(dim=-1) & (s != 0).flatten(-2).any(dim=-1)
    return np.where(nothing.numpy(), -np.inf, ratio)


def mel_cepstral_distance(reference: ArrayLike, estimate: ArrayLike) -> Values:
    """Return the mel-cepstral distance, shape (...): mean over frames of ||c(S) - c(E)||.

    c are the first 13 coefficients of the orthonormal DCT-II of ln(power in 128 triangular mel bands + 1e-6). The level
    counts, and there is no factor to dB.
    """
    s, e = _magnitudes(reference, estimate)
    distance: Values = (_mel_cepstra(s) - _mel_cepstra(e)).norm(dim=-2).mean(dim=-1).numpy()
    return distance


METRICS = {"spectral SNR": spectral_snr, "spectral SI-SNR": spectral_si_snr, "MCD": mel_cepstral_distance}
"""Metrics by the names that the tables use."""


def spectral_scores(references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike) -> dict[str, list[Values]]:
    """Return all `METRICS` of each voice in the frames of `metrics.protocol_frames`, the mixture at a peak of 1.

    Each metric has a list with the scores of each voice, as `metrics.frame_scores` returns it.
    """
    validate_stems(references, estimates, mixture)
    stems = same_shape(references, estimates)
    frames = list(protocol_frames(stems[0], mixture))
    scores: dict[str, list[Values]] = {name: [] for name in METRICS}
    for voice in range(len(stems[0])):
        counted = [(samples, peak) for samples, peak, counts in frames if counts[voice]]
        values: dict[str, list[Values]] = {name: [np.zeros(0)] for name in METRICS}
        for piece in chunks(len(counted), _FRAMES_AT_ONCE):
            part = counted[piece.first : piece.last]
            true, found = (np.stack([x[voice, samples] / peak for samples, peak in part]) for x in stems)
            for name, metric in METRICS.items():
                values[name].append(metric(true, found))
        for name in METRICS:
            scores[name].append(np.concatenate(values[name]))
    return scores


def _magnitudes(reference: ArrayLike, estimate: ArrayLike) -> list[Tensor]:
    """Return the magnitudes of STFTs that are not scaled, shape (..., frequency bins, frames)."""
    half, found = GRID.win_length // 2, []
    for waveform in same_shape(reference, estimate):
        samples = waveform.shape[-1]
        if samples <= half:
            raise AudioError(f"waveforms must have more than {half} samples, half a window, but got {samples}")
        mirrored = np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(half, half)], mode="reflect")
        # The second frame of the mirrored waveform is centred on the first sample of the waveform.
        spectrum = stft(torch.from_numpy(mirrored), GRID, 1, 1 + GRID.n_frames(samples))
        found.append(spectrum.abs() * (GRID.win_length / 4))
    return found


def _mel_cepstra(magnitude: Tensor) -> Tensor:
    """Return the mel cepstra of magnitudes (..., frequency bins, frames), shape (..., cepstra, frames)."""
    bands = torch.log(_triangles().to(magnitude) @ magnitude**2 + _FLOOR)
    number = torch.arange(N_CEPSTRA, dtype=magnitude.dtype)[:, None]
    angle = math.pi / N_MELS * (torch.arange(N_MELS, dtype=magnitude.dtype) + 0.5)
    cosines = math.sqrt(2 / N_MELS) * torch.cos(number * angle)
    cosines[0] /= math.sqrt(2)
    return cosines @ bands


def _triangles() -> Tensor:
    """Return triangles of height 1 from 0 to 8000 Hz, shape (bands, frequency bins).

    The lowest triangles are narrower than a bin. An empty one is equal in all spectra and adds nothing to a distance.
    """
    edges = mel_points(N_MELS + 2, 0.0, MODEL_SAMPLE_RATE / 2).double()
    frequency = GRID.frequencies().double()
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp_min(0)


def _decibels(signal: Tensor, error: Tensor) -> Values:
    ratio: Values = (10 * torch.log10(signal / error)).numpy()
    return ratio
