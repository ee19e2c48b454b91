"""Augmentation of single voices and their mixtures: pitch, formants, equalisation, room, noise, bandwidth.

Waveforms are at 16 kHz. Functions take their random numbers from a generator that is passed to them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep.audio import Float32, resample
from vocalsep.dsp.stft import StftGrid, istft, mel_points, stft
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import MODEL_SAMPLE_RATE

_CEPSTRUM_CUT = 0.0016  # seconds of quefrency that form the spectral envelope: just below the period of 600 Hz


def shift_by_resampling(waveform: Float32, tracks: F0Tracks, semitones: float) -> tuple[Float32, F0Tracks]:
    """Transpose a recording of shape (samples,) and its f0 tracks, with formants and tempo, as a tape does."""
    if semitones == 0:
        return waveform, tracks
    ratio = 2 ** (semitones / 12)
    # The resampler takes whole numbers; these keep the ratio within 0.1 cent.
    rate = round(100_000 * ratio)
    shifted, ratio = resample(waveform, rate, 100_000)[0], rate / 100_000
    frames = 1 + len(shifted) // round(tracks.hop * MODEL_SAMPLE_RATE)
    slow = F0Tracks(tracks.frequencies * ratio, tracks.names, tracks.hop / ratio).resampled(tracks.hop, frames)
    return shifted, slow


def shift_formants(waveform: Tensor, ratio: float) -> Tensor:
    """Multiply the formants of voices, shape (..., samples), by a factor and leave their harmonics in place.

    The low quefrencies of the spectrum form the envelope. Each frame is filtered by
    envelope(f / ratio) / envelope(f); a ratio above 1 stands for a shorter vocal tract.
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE, window=0.064)
    spectrum = stft(waveform, grid).transpose(-1, -2)  # (..., frames, bins)
    cepstrum = torch.fft.irfft(torch.log(spectrum.abs() + 1e-5))
    cut = int(_CEPSTRUM_CUT * MODEL_SAMPLE_RATE)
    cepstrum[..., cut : cepstrum.shape[-1] - cut + 1] = 0
    envelope = torch.fft.rfft(cepstrum).real  # natural log
    position = (torch.arange(grid.n_bins) / ratio).clamp(max=grid.n_bins - 1.001)
    left = position.long()
    weight = position - left
    moved = envelope[..., left] * (1 - weight) + envelope[..., left + 1] * weight
    filtered = spectrum * torch.exp((moved - envelope).clamp(-4, 4))
    return istft(filtered.transpose(-1, -2), grid, waveform.shape[-1])


def equalise(waveform: Tensor, rng: Generator, strength_db: float = 6.0) -> Tensor:
    """Filter waveforms of shape (..., samples), each with its own smooth random curve.

    The gains at 8 mel-spaced frequencies are normally distributed, with a standard deviation of `strength_db`.
    """
    spectrum = torch.fft.rfft(waveform)
    points = mel_points(8, 0.0, MODEL_SAMPLE_RATE / 2).numpy()
    frequency = np.linspace(0, MODEL_SAMPLE_RATE / 2, spectrum.shape[-1])
    gains = rng.normal(0, strength_db, (math.prod(waveform.shape[:-1]), len(points)))
    curves = np.stack([np.interp(frequency, points, row) for row in gains]).reshape(spectrum.shape)
    factor = torch.from_numpy(10 ** (curves / 20)).to(waveform.dtype)
    filtered: Tensor = torch.fft.irfft(spectrum * factor, n=waveform.shape[-1])
    return filtered


def reverberate(waveform: Tensor, rng: Generator) -> Tensor:
    """Put waveforms of shape (..., samples) into one random room: direct sound, then decaying noise.

    The reverberation time is 0.2 to 1.5 s, the direct-to-reverberant ratio 0 to 15 dB, the early gap 2 to 20 ms.
    """
    reverberation_time, ratio_db = rng.uniform(0.2, 1.5), rng.uniform(0, 15)
    length = int(reverberation_time * MODEL_SAMPLE_RATE)
    time = np.arange(length) / MODEL_SAMPLE_RATE
    tail = rng.normal(size=length) * 10 ** (-3 * time / reverberation_time)
    tail[: int(rng.uniform(0.002, 0.02) * MODEL_SAMPLE_RATE)] = 0
    tail *= 10 ** (-ratio_db / 20) / math.sqrt((tail**2).sum() + 1e-12)
    tail[0] = 1.0
    samples = waveform.shape[-1]
    n_fft = 1 << (samples + length).bit_length()
    response = torch.fft.rfft(torch.from_numpy(tail).to(waveform.dtype), n=n_fft)
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(waveform, n=n_fft) * response, n=n_fft)
    return wet[..., :samples]


def add_noise(mixture: Tensor, rng: Generator, range_db: tuple[float, float] = (-70.0, -30.0)) -> Tensor:
    """Add white or low-pass noise to mixtures of shape (batch, samples), at random levels in dB relative to each."""
    noise = torch.from_numpy(rng.normal(size=mixture.shape).astype(np.float32))
    if rng.random() < 0.5:
        noise = torch.cumsum(noise, dim=-1)
        pool = torch.nn.functional.avg_pool1d
        noise = noise - pool(noise[:, None], 401, stride=1, padding=200, count_include_pad=False)[:, 0]
    level_db = torch.from_numpy(rng.uniform(*range_db, (len(mixture), 1)).astype(np.float32))
    scale = mixture.std(dim=-1, keepdim=True) / noise.std(dim=-1, keepdim=True).clamp_min(1e-9)
    return mixture + noise * scale * 10 ** (level_db / 20)


def limit_band(waveform: Tensor, fmax: float) -> Tensor:
    """Remove everything above `fmax` Hz from waveforms of shape (..., samples), as low bit rates do."""
    spectrum = torch.fft.rfft(waveform)
    kept = torch.fft.rfftfreq(waveform.shape[-1], 1 / MODEL_SAMPLE_RATE) <= fmax
    limited: Tensor = torch.fft.irfft(spectrum * kept, n=waveform.shape[-1])
    return limited
