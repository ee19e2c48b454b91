"""Evidence for every pitch in a mixture: a non-negative mixture of harmonic templates explains each frame.

Harmonic summation (A. Klapuri, "Multiple fundamental frequency estimation by summing harmonic amplitudes", ISMIR
2006) rates a pitch by the weighted sum of its partials in a whitened spectrum, and cancels the pitches found one by
one. Here all pitches are found and cancelled together: the whitened spectrum Y is explained as Y ~ H W, where the
rows of W are the partials of each pitch with Klapuri's kind of weights, by the multiplicative updates of D. Lee and
H. S. Seung ("Algorithms for non-negative matrix factorization", NIPS 2000) for the Kullback-Leibler divergence, with
W fixed, as in E. Vincent, N. Bertin, R. Badeau ("Adaptive harmonic spectral decomposition for multiple pitch
estimation", IEEE TASLP 2010). A partial that one pitch explains is no evidence for another, so octaves and
sub-octaves of what is sung fade away.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from vocalsep.audio import MODEL_SAMPLE_RATE, Float32
from vocalsep.spectrum import StftGrid, power
from vocalsep.tracks import HOP_LENGTH
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN

BINS_PER_OCTAVE = 60
"""Pitches and spectral bins are 20 cents apart: a choir's unison spreads over as much."""
CENTS_PER_BIN = 1200 / BINS_PER_OCTAVE
PITCHES = VOICE_FMIN * np.exp2(np.arange(1 + int(np.log2(VOICE_FMAX / VOICE_FMIN) * BINS_PER_OCTAVE)) / BINS_PER_OCTAVE)
"""Hz, shape (pitches,): the grid on which pitches are sought."""
_GUARD = 12
# Pitches beyond either end of the grid that compete with it, so that rumble and whistles do not pile up on its ends.
_CANDIDATES = PITCHES[0] * np.exp2(np.arange(-_GUARD, len(PITCHES) + _GUARD) / BINS_PER_OCTAVE)

# The spectrum reaches from below the lowest fundamental to where partials of singers sink into breath noise (Hz).
_SPECTRUM_FMIN, _SPECTRUM_FMAX = 50.0, 5000.0
_SPECTRUM = _SPECTRUM_FMIN * np.exp2(
    np.arange(int(np.log2(_SPECTRUM_FMAX / _SPECTRUM_FMIN) * BINS_PER_OCTAVE)) / BINS_PER_OCTAVE
)
# Samples at 16 kHz. 128 ms tell the low partials of neighbouring voices apart (256 ms would, better, but blur onsets
# and portamento: 0.03 of F less); above, 64 ms follow vibrato. The crossover is gradual between the limits in Hz.
_WINDOWS = (2048, 1024)
_CROSSOVER = (500.0, 1000.0)
_BLOCK = 512  # frames at once: bounds the memory at some 50 MB whatever the length

_WHITENING = 0.45  # exponent of the envelope that is divided out; 1 would raise breath noise to the level of partials
_ENVELOPE_WIDTH = 60.0  # bins (1 octave): wider than the spacing of partials
_ENVELOPE_FLOOR = 0.02  # of the loudest frame's envelope: keeps pauses from being whitened into notes
_COMPRESSION = 0.7  # exponent of magnitudes; lets weak sopranos count beside loud tenors
_ROLL_OFF = 0.6  # partial h has weight h ** -0.6 in the whitened spectrum
_N_PARTIALS = 30
_SPREAD = 12.0  # cents of vibrato and detuning by which partials are widened, added to the window's lobe
_LOBE = 0.9  # FFT bins: standard deviation of the Gaussian that is closest to a Hann window's main lobe
_TONAL_RANGE = (200.0, 2000.0)  # Hz: where voices of every register have partials that stand apart
_TONAL_REACH = 12  # bins: a partial and the valleys beside it
_TONAL_SMOOTHING = 8  # frames either side: an eighth of a second
_ITERATIONS = 15  # more sharpen the activations but find no more


@lru_cache(maxsize=2)
def _filterbank(window: int) -> Float32:
    """Return triangles on the logarithmic axis, shape (window // 2 + 1, bins), at least one FFT bin wide."""
    spacing = MODEL_SAMPLE_RATE / window
    half_width = np.maximum(_SPECTRUM * (2 ** (1 / BINS_PER_OCTAVE) - 1), spacing)
    fft_bins = np.arange(window // 2 + 1)[:, None] * spacing
    triangles = np.maximum(0, 1 - np.abs(fft_bins - _SPECTRUM) / half_width)
    triangles = triangles / triangles.sum(axis=0)
    return np.asarray(triangles, dtype=np.float32)


def _window_shares() -> tuple[Float32, Float32]:
    low, high = _CROSSOVER
    share = np.clip(np.log2(_SPECTRUM / low) / np.log2(high / low), 0, 1).astype(np.float32)
    return 1 - share, share


def log_spectrum(waveform: Float32) -> Float32:
    """Return the magnitude spectrogram on a logarithmic axis of frequency, 20 cents a bin.

    Parameters
    ----------
    waveform
        Shape (samples,) at 16 kHz.

    Returns
    -------
    ndarray
        Shape (frames, bins), frames = 1 + samples // HOP_LENGTH.
    """
    frames = 1 + len(waveform) // HOP_LENGTH
    spectrum = np.zeros((frames, len(_SPECTRUM)), dtype=np.float32)
    signal = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    for start in range(0, frames, _BLOCK):
        stop = min(start + _BLOCK, frames)
        for window, share in zip(_WINDOWS, _window_shares(), strict=True):
            grid = StftGrid(MODEL_SAMPLE_RATE, window, HOP_LENGTH, window)
            frame_power = power(signal, grid, start, stop).T.numpy()  # (frames, bins)
            spectrum[start:stop] += share * np.sqrt(frame_power @ _filterbank(window))
    return spectrum


@lru_cache(maxsize=1)
def _templates() -> Float32:
    """Return the whitened, compressed spectrum of every candidate, shape (candidates, bins), each adding up to 1."""
    templates = np.zeros((len(_CANDIDATES), len(_SPECTRUM)))
    bin_width = _SPECTRUM * (2 ** (1 / BINS_PER_OCTAVE) - 1)
    for window, share in zip(_WINDOWS, _window_shares(), strict=True):
        spacing = MODEL_SAMPLE_RATE / window
        filter_width = 0.41 * np.maximum(bin_width, spacing)  # standard deviation of a triangle, 1 / sqrt(6)
        for partial in range(1, _N_PARTIALS + 1):
            centre = _CANDIDATES[:, None] * partial
            vibrato = centre * (2 ** (_SPREAD / 1200) - 1)
            width = np.sqrt((_LOBE * spacing) ** 2 + vibrato**2 + filter_width**2)
            lobe = np.exp(-0.5 * ((_SPECTRUM - centre) / width) ** 2) * np.sqrt(_LOBE * spacing / width)
            templates += share * partial**-_ROLL_OFF * lobe
    templates **= _COMPRESSION
    return np.asarray(templates / templates.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=1)
def _envelope_smoother() -> Float32:
    bins = np.arange(len(_SPECTRUM))
    kernel = np.exp(-0.5 * ((bins[:, None] - bins) / _ENVELOPE_WIDTH) ** 2)
    return np.asarray(kernel / kernel.sum(axis=0), dtype=np.float32)


def activations(spectrum: Float32) -> Float32:
    """Return how much of each frame every pitch explains, all pitches of the grid competing.

    With R = Y / (H W), H <- H * (R W^T) lowers the Kullback-Leibler divergence of Y from H W at every step.

    Parameters
    ----------
    spectrum
        Shape (frames, bins), as `log_spectrum` gives it, loudest parts near 1.

    Returns
    -------
    ndarray
        H, shape (frames, pitches), at least 0.
    """
    templates = _templates()
    envelope: Float32 = spectrum @ _envelope_smoother()
    envelope += _ENVELOPE_FLOOR * envelope.mean(axis=1).max()
    whitened = (spectrum / envelope**_WHITENING) ** _COMPRESSION
    found = np.empty((len(spectrum), len(PITCHES)), dtype=np.float32)
    for start in range(0, len(spectrum), _BLOCK):
        target = whitened[start : start + _BLOCK]
        active = np.maximum(target @ templates.T, 1e-9)
        for _ in range(_ITERATIONS):
            active *= (target / (active @ templates + 1e-6)) @ templates.T
            np.maximum(active, 1e-12, out=active)
        found[start : start + _BLOCK] = active[:, _GUARD:-_GUARD]
    return found


def box_sum(values: Float32, reach: int) -> Float32:
    """Return the sum over +-`reach` neighbours along the last axis."""
    padded = np.pad(values, ((0, 0), (reach + 1, reach)))
    total = np.cumsum(padded, axis=1, dtype=np.float64)
    return (total[:, 2 * reach + 1 :] - total[:, : -2 * reach - 1]).astype(np.float32)


def tonality(spectrum: Float32) -> Float32:
    """Return by how many dB power stands out locally: the mean over 200 Hz to 2 kHz of arithmetic over geometric mean.

    It is the spectral flatness within +-240 cents (log of the geometric over the arithmetic mean, sign turned),
    averaged over frequency and a quarter of a second: about 1.5 for noise of any colour, 5 to 12 for voices.

    Returns
    -------
    ndarray
        Shape (frames,).
    """
    low, high = np.searchsorted(_SPECTRUM, _TONAL_RANGE)
    power = spectrum[:, low:high] ** 2 + 1e-12
    count = box_sum(np.ones_like(power[:1]), _TONAL_REACH)
    local_mean = np.maximum(box_sum(power, _TONAL_REACH) / count, 1e-12)
    mean_log = box_sum(10 * np.log10(power), _TONAL_REACH) / count
    frame_values = np.mean(10 * np.log10(local_mean) - mean_log, axis=1)
    smoother = np.full(2 * _TONAL_SMOOTHING + 1, 1 / (2 * _TONAL_SMOOTHING + 1))
    padded = np.pad(frame_values, _TONAL_SMOOTHING, mode="edge")
    return np.convolve(padded, smoother, mode="valid").astype(np.float32)
