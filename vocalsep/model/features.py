"""Input of the estimator: the mixture as seen through the f0 of each voice, and the overlap with other voices.

The features of a voice are relative to its own f0, so one network serves any voice and any number of voices:

* log-power of the mixture at k f0, and half-way between harmonics;
* overlap: for each harmonic, the power that the other voices would leave in it, and the share of this voice, if all
  voices had the same spectrum with a roll-off of 12 dB per octave;
* log-mel spectrum of the mixture, log2 f0, and a voiced flag.

Levels are relative to the mean level of the mixture within half a second, which is a feature too, so that the network
need not learn loudness.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vocalsep.dsp.stft import WINDOW_SECONDS, StftGrid, mel_bands, power
from vocalsep.timebase import MODEL_SAMPLE_RATE

LEVEL_REACH = 15
"""Frames on each side (a quarter of a second) over which the level of the mixture is averaged."""
_FLOOR = 1e-10  # power of a bin, -100 dB: some 50 dB below a choir whose peak is full scale
_ROLL_OFF = -4.0  # exponent of power over harmonic number: 12 dB per octave
_BEYOND = -14.0  # log power, relative to the mixture, of harmonics above 8 kHz: -60 dB, next to nothing
_LOBE_BINS = 0.8  # standard deviation of a lobe in bins of the window; 0.55 if f0 stands still, more for glides
_REFERENCE_F0 = 220.0  # Hz, in the middle of the range of a choir; its log2 counts as 0


@dataclass(frozen=True)
class FeatureConfig:
    """Numbers of features.

    Parameters
    ----------
    n_harmonics : int
        Harmonics of each voice; 60 are all below 8 kHz for f0 above 130 Hz.
    n_between : int
        Gaps between harmonics.
    n_mels : int
        Bands of the log-mel spectrum.
    """

    n_harmonics: int = 60
    n_between: int = 20
    n_mels: int = 64

    @property
    def n_features(self) -> int:
        """Number of features of a voice in a frame."""
        return 3 * self.n_harmonics + self.n_between + self.n_mels + 3


def extract(mixture: Tensor, f0: Tensor, config: FeatureConfig) -> tuple[Tensor, Tensor]:
    """Return the features of every voice in every frame, and the log of the mixture's smoothed amplitude.

    The mixture at 16 kHz has the shape (..., samples) and f0 in Hz (..., voices, frames) with frames = 1 + samples //
    256. The features have the shape (..., voices, frames, features), the log amplitude (..., 1, frames).
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    spectrum = power(mixture, grid).transpose(-1, -2)  # (..., frames, bins)
    log_level = level(spectrum)[..., None, :]  # (..., 1, frames)
    relative = torch.log(spectrum + _FLOOR)[..., None, :, :] - 2 * log_level[..., None]
    number = torch.arange(1, config.n_harmonics + 1, device=f0.device, dtype=f0.dtype)
    at_harmonics = _sample(relative, f0[..., None] * number, grid)
    between = _sample(relative, f0[..., None] * (number[: config.n_between] + 0.5), grid)
    others, share = _overlap(f0, number)
    bands = mel_bands(config.n_mels, grid, 0.0, MODEL_SAMPLE_RATE / 2).to(spectrum)
    log_mel = torch.log(spectrum @ bands.T + _FLOOR)[..., None, :, :] - 2 * log_level[..., None]
    voiced = (f0 > 0).to(f0.dtype)
    pitch = torch.log2(torch.where(f0 > 0, f0, _REFERENCE_F0) / _REFERENCE_F0)
    scalars = torch.stack([voiced, pitch, (log_level + 3.0).expand_as(f0) * 0.3], dim=-1)
    own = torch.cat([0.25 * at_harmonics, 0.25 * between, others, share], dim=-1) * voiced[..., None]
    return torch.cat([own, 0.25 * log_mel.expand(*f0.shape, config.n_mels), scalars], dim=-1), log_level


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
    """Return the others' power at each harmonic (log, scaled) and the share of the voice, (..., voices, frames, k)."""
    own_frequency = f0[..., :, None, :, None] * number  # (..., v, 1, frames, k)
    other = torch.where(f0 > 0, f0, torch.inf)[..., None, :, :, None]  # (..., 1, u, frames, 1)
    nearest = torch.round(own_frequency / other).clamp_min(1)
    distance = torch.where(other < torch.inf, own_frequency - nearest * other, torch.inf)
    # A Gaussian stands for the squared main lobe of the window.
    bins = distance * WINDOW_SECONDS
    leak = torch.exp(-0.5 * (bins / _LOBE_BINS) ** 2) * nearest**_ROLL_OFF  # (..., v, u, frames, k)
    voices = f0.shape[-2]
    leak = leak * (1 - torch.eye(voices, device=f0.device, dtype=f0.dtype))[:, :, None, None]
    total = leak.sum(dim=-3)
    own = number**_ROLL_OFF
    return torch.log(total / own + 1e-3) / 7.0, own / (own + total)
