"""A learned correction of masks, where the source-filter model ends.

A model of harmonics and smooth noise, frame by frame, cannot say everything: onsets, consonants, fast vibrato, the blur
of a room. The network here sees the power of the recording beside the power that the model gives to each voice, and
adds up to 6 nats to the log power of a voice in a bin. Masks stay shares of the power of all voices, so they add up
to 1.

One network serves every voice. A voice learns of the others from their power and from the mean over voices that each
block adds, so the network takes any number of voices, in any order. It works below 8 kHz, where bins are about 7.8 Hz
apart at every sample rate. Patches of four bins and four frames, half a window of the STFT, become one cell of
channels, which saves most of the time. All layers are convolutions, so chunks with context give what the whole would
give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vocalsep.dsp.stft import StftGrid
from vocalsep.model.features import LEVEL_REACH, level

_TOP = 8000.0  # Hz: nothing above is corrected, because training data end there
PATCH = 4, 4
"""Bins and frames of a patch. Patches begin on frames whose number is a multiple of this."""
_LIMIT = 6.0  # nats: largest correction
_FLOOR = 1e-8  # power of a bin relative to the level, -80 dB: below it, nothing is heard
_MASKED = 1e-5  # power of other voices relative to that of all, -50 dB: below it, rounding decides
_LOG_MEAN, _LOG_SCALE = -8.0, 4.0  # of log powers relative to the level
_NEAR, _NEAR_SCALE = 32.0, 16.0  # Hz: distance from a harmonic that counts as far, and its scale
_N_FEATURES = 8


@dataclass(frozen=True)
class CorrectionConfig:
    """Configuration of a mask correction, stored with its weights.

    Parameters
    ----------
    channels : int
        Width of the network.
    dilations : tuple of int
        Dilation in frequency of each block's convolution.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4, 1)

    def __post_init__(self) -> None:
        # More blocks would reach beyond the context of a chunk, which is 2 s.
        if not isinstance(self.dilations, tuple) or not 0 < len(self.dilations) <= 16:
            raise ValueError("expected dilations: 1 to 16 numbers")
        if not all(type(number) is int and 0 < number <= 1024 for number in (self.channels, *self.dilations)):
            raise ValueError("expected whole numbers from 1 to 1024")

    @property
    def reach(self) -> int:
        """Frames on each side of a frame that its correction depends on, a multiple of the frames of a patch."""
        return PATCH[1] * (len(self.dilations) + 1 + math.ceil(LEVEL_REACH / PATCH[1]))


class CorrectionBlock(nn.Module):
    """A convolution of each voice, and a mix of channels of the mean over voices; a residual connection."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.own = nn.Conv2d(channels, channels, 3, padding=(dilation, 1), dilation=(dilation, 1))
        self.others = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, voices, channels, bands, steps) to the same shape."""
        y = torch.relu(x)
        others: Tensor = self.others(y.mean(dim=1))
        own: Tensor = self.own(y.flatten(0, 1))
        return (x + others[:, None]).add_(own.reshape(x.shape))


class MaskCorrection(nn.Module):
    """The network that corrects the power of every voice; with its first weights it changes nothing."""

    kind: ClassVar[str] = "masks"
    Config: ClassVar[type] = CorrectionConfig

    def __init__(self, config: CorrectionConfig | None = None) -> None:
        super().__init__()
        self.config = config or CorrectionConfig()
        width = self.config.channels
        self.embed = nn.Conv2d(_N_FEATURES, width, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(CorrectionBlock(width, dilation) for dilation in self.config.dilations))
        self.head = nn.Conv2d(width, PATCH[0] * PATCH[1], 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, power: Tensor, recorded: Tensor, frequency: Tensor, f0: Tensor, grid: StftGrid) -> Tensor:
        """Return the corrected power of every voice, shape (batch, voices, frequency bins, frames).

        Parameters
        ----------
        power : Tensor, shape (batch, voices, frequency bins, frames)
            Power of every voice as it is heard, with its reverberation. Its level need not be that of the recording.
        recorded : Tensor, shape (batch, frequency bins, frames)
            Power of the recording.
        frequency : Tensor, shape (batch, frequency bins, frames)
            Instantaneous frequency of the recording in Hz.
        f0 : Tensor, shape (batch, voices, frames)
            F0 in Hz, 0 = unvoiced.
        grid : StftGrid
            Grid of all of them, with a hop of 16 ms.
        """
        n_low = round(min(_TOP, grid.sample_rate / 2) * grid.n_fft / grid.sample_rate) // PATCH[0] * PATCH[0]
        low, high = power[..., :n_low, :], power[..., n_low:, :]
        with torch.no_grad():
            features = _features(low, recorded[:, :n_low], frequency[:, :n_low], f0, grid)
            features = nn.functional.pad(features, (0, -power.shape[-1] % PATCH[1]))
        x = self.embed(features.flatten(0, 1))  # (batch * voices, channels, bands, steps)
        x = self.blocks(x.reshape(*power.shape[:2], *x.shape[1:]))
        y = self.head(torch.relu(x).flatten(0, 1)).float().unflatten(1, PATCH)
        y = y.permute(0, 3, 1, 4, 2).reshape(*low.shape[:-1], -1)[..., : low.shape[-1]]  # out of patches
        return torch.cat([low * torch.exp(_LIMIT * torch.tanh(y / _LIMIT)), high], dim=-2)


def _features(power: Tensor, recorded: Tensor, frequency: Tensor, f0: Tensor, grid: StftGrid) -> Tensor:
    """Return the features of every voice in every bin, shape (batch, voices, features, frequency bins, frames)."""
    total = power.sum(dim=1, keepdim=True)
    others = (total - power).clamp_min_(0).add_(total, alpha=_MASKED)
    voiced = (f0 > 0).to(f0)[:, :, None]
    centre = grid.frequencies(f0.device)[: power.shape[-2], None]
    f0 = torch.where(f0 > 0, f0, 1.0)[:, :, None]
    position = centre / f0  # number of the harmonic, with a fraction
    distance = frequency[:, None] - position.round().clamp_min_(1) * f0
    angle = 2 * math.pi * position
    features = [
        _relative(recorded[:, None], recorded[:, None]),
        _relative(power, total),
        _relative(others, total),
        distance.clamp_(-_NEAR, _NEAR) * (voiced / _NEAR_SCALE),
        torch.cos(angle) * voiced,
        torch.sin(angle) * voiced,
        voiced,
        centre / _TOP,
    ]
    return torch.stack([feature.expand_as(power) for feature in features], dim=2)


def _relative(power: Tensor, reference: Tensor) -> Tensor:
    """Return the log of a power relative to the level of a reference, both of shape (..., bins, frames), scaled."""
    loudness = level(reference.sum(dim=-2)[..., None])[..., None, :]
    return torch.log(power * torch.exp(-2 * loudness) + _FLOOR).sub_(_LOG_MEAN).div_(_LOG_SCALE)
