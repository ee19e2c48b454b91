"""What the estimator sees of a voice: the mixture at the voice's own harmonics, and who else is there.

Every voice looks at the mixture through its own f0, so one network serves any voice and any number of voices:

* the mixture's log-magnitude at k f0 and half-way between harmonics;
* overlap: for each harmonic, the power that other voices would leave in it, and the share of this voice, if all
  sang alike with 12 dB per octave of roll-off;
* the mixture's log-mel spectrum, log2 f0, and whether the voice is voiced.

Levels are relative to the mixture's around the frame (half a second), which is given too, so that the network need
not learn loudness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vocalsep.dsp.stft import WINDOW_SECONDS, StftGrid, mel_bands, power
from vocalsep.timebase import MODEL_SAMPLE_RATE

N_HARMONICS = 60
"""Harmonics a voice looks at: all below 8 kHz for f0 from 130 Hz on."""
N_BETWEEN = 20
"""Gaps between harmonics a voice looks at."""
N_MELS = 64
_FLOOR = 1e-10  # of power in a bin, -100 dB: some 50 dB below a choir whose peak is full scale
_COMB_EXPONENT = -4.0  # of power over harmonic number: 12 dB per octave
_BEYOND = -14.0  # log power of harmonics beyond 8 kHz, relative to the mixture: as good as nothing, -60 dB
_LOBE_BINS = 0.8
"""Standard deviation of the lobe of a harmonic, in bins of the window (0.55 for a tone that stands still)."""
_REFERENCE_F0 = 220.0
"""Hz in the middle of a choir's range, where log2 f0 is 0."""
LEVEL_REACH = 15
"""Frames either side (a quarter of a second) over which the mixture's level is averaged."""


class Features(NamedTuple):
    """Input of the estimator."""

    values: Tensor
    """Shape (..., voices, frames, features)."""
    log_level: Tensor
    """Natural log of the mixture's smoothed amplitude, shape (..., 1, frames)."""


@dataclass(frozen=True)
class FeatureLayout:
    """How many numbers `extract` gives; it is part of a network's configuration."""

    n_harmonics: int = N_HARMONICS
    n_between: int = N_BETWEEN
    n_mels: int = N_MELS

    @property
    def size(self) -> int:
        """Length of a feature vector."""
        return 3 * self.n_harmonics + self.n_between + self.n_mels + 3


def extract(mixture: Tensor, f0: Tensor, layout: FeatureLayout) -> Features:
    """Return the features of every voice in every frame.

    Parameters
    ----------
    mixture
        Shape (..., samples) at 16 kHz.
    f0
        Hz, shape (..., voices, frames), 0 = unvoiced; frames = 1 + samples // 256.
    layout
        Numbers of harmonics and bands.
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    spectrum = power(mixture, grid).transpose(-1, -2)  # (..., frames, bins)
    log_level = level(spectrum)[..., None, :]  # (..., 1, frames)
    relative = torch.log(spectrum + _FLOOR)[..., None, :, :] - 2 * log_level[..., None]
    number = torch.arange(1, layout.n_harmonics + 1, device=f0.device, dtype=f0.dtype)
    at_harmonics = _sample(relative, f0[..., None] * number, grid)
    between = _sample(relative, f0[..., None] * (number[: layout.n_between] + 0.5), grid)
    others, share = _overlap(f0, number)
    bands = mel_bands(layout.n_mels, grid, 0.0, MODEL_SAMPLE_RATE / 2).to(spectrum)
    log_mel = torch.log(spectrum @ bands.T + _FLOOR)[..., None, :, :] - 2 * log_level[..., None]
    voiced = (f0 > 0).to(f0.dtype)
    pitch = torch.log2(torch.where(f0 > 0, f0, _REFERENCE_F0) / _REFERENCE_F0)
    scalars = torch.stack([voiced, pitch, (log_level + 3.0).expand_as(f0) * 0.3], dim=-1)
    values = [
        0.25 * at_harmonics * voiced[..., None],
        0.25 * between * voiced[..., None],
        others * voiced[..., None],
        share * voiced[..., None],
        0.25 * log_mel.expand(*f0.shape, layout.n_mels),
        scalars,
    ]
    return Features(torch.cat(values, dim=-1), log_level)


def level(spectrum: Tensor) -> Tensor:
    """Return the log of a mixture's smoothed amplitude, shape (..., frames), from its power (..., frames, bins)."""
    energy = spectrum.mean(dim=-1)  # (..., frames)
    flat = energy.reshape(-1, 1, energy.shape[-1])
    smooth = torch.nn.functional.avg_pool1d(
        flat, 2 * LEVEL_REACH + 1, stride=1, padding=LEVEL_REACH, count_include_pad=False
    ).reshape(energy.shape)
    return 0.5 * torch.log(smooth + _FLOOR)


def _sample(log_spectrum: Tensor, frequency: Tensor, grid: StftGrid) -> Tensor:
    """Read a log spectrum (..., 1, frames, bins) at frequencies in Hz (..., voices, frames, points)."""
    position = (frequency * (grid.n_fft / grid.sample_rate)).clamp(0, grid.n_bins - 1.001)
    left = position.floor()
    weight = position - left
    spectra = log_spectrum.expand(*frequency.shape[:-1], grid.n_bins)
    low = torch.gather(spectra, -1, left.long())
    high = torch.gather(spectra, -1, left.long() + 1)
    inside = (frequency > 0) & (frequency < grid.sample_rate / 2)
    return torch.where(inside, low + weight * (high - low), _BEYOND)


def _overlap(f0: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return what others leave in a harmonic (log, bounded) and this voice's share, (..., voices, frames, k)."""
    own_frequency = f0[..., :, None, :, None] * number  # (..., v, 1, frames, k)
    other = torch.where(f0 > 0, f0, torch.inf)[..., None, :, :, None]  # (..., 1, u, frames, 1)
    nearest = torch.round(own_frequency / other).clamp_min(1)
    distance = torch.where(other < torch.inf, own_frequency - nearest * other, torch.inf)
    # A Gaussian for the squared main lobe of the window, somewhat wider for glides and jitter.
    bins = distance * WINDOW_SECONDS
    leak = torch.exp(-0.5 * (bins / _LOBE_BINS) ** 2) * nearest**_COMB_EXPONENT  # (..., v, u, frames, k)
    voices = f0.shape[-2]
    leak = leak * (1 - torch.eye(voices, device=f0.device, dtype=f0.dtype))[:, :, None, None]
    total = leak.sum(dim=-3)
    own = number**_COMB_EXPONENT
    return torch.log(total / own + 1e-3) / 7.0, own / (own + total)
