"""The parameter estimator: mixture and f0 tracks -> parameters of every voice's source-filter model.

One network serves every voice. A voice learns of the others from its features (see `features`) and from the mean over
voices that each block adds, so the network takes any number of voices, in any order. All layers are convolutions in
time: the parameters of a frame depend on about a second around it, and a recording can be estimated in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vocalsep.model.features import LEVEL_REACH, FeatureConfig, extract
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.parameters import VoiceParameters

MIN_LSF_SPACING = 0.01
"""Least distance between two LSFs in rad (25 Hz): a resonance is at least about 20 Hz wide."""
NOISE_OFFSET = -4.0
"""Natural log of the noise, relative to the mixture's level (RMS over bins), where the network says 0."""
_MAX_LOG = 12.0  # gain and noise stay within e^±12 (104 dB) of the mixture's level


@dataclass(frozen=True)
class EstimatorConfig(FeatureConfig):
    """Configuration of an estimator, stored with its weights.

    Parameters
    ----------
    channels : int
        Width of the network.
    dilations : tuple of int
        Dilation in time of each block's convolution.
    kernel_size : int
        Frames that a convolution spans; odd.
    order : int
        Order of the vocal-tract filter; even.
    noise_bands : int
        Number of frequencies at which the noise is estimated; at least 2.
    n_harmonics, n_between, n_mels : int
        See `features.FeatureConfig`; `n_between` is at most `n_harmonics`.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    channels: int = 192
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1)
    kernel_size: int = 7
    order: int = 20
    noise_bands: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.dilations, tuple) or not 0 < len(self.dilations) <= 32:
            raise ValueError("expected dilations: 1 to 32 numbers")
        sizes = [self.channels, *self.dilations, self.kernel_size, self.order, self.noise_bands]
        sizes += [self.n_harmonics, self.n_between, self.n_mels]
        if not all(type(number) is int and 0 < number <= 1024 for number in sizes):
            raise ValueError("expected whole numbers from 1 to 1024")
        if self.order % 2 or not self.kernel_size % 2:
            raise ValueError("expected an even order and an odd kernel_size")
        if self.noise_bands < 2 or self.n_between > self.n_harmonics:
            raise ValueError("expected noise_bands from 2 on and n_between of at most n_harmonics")

    @property
    def reach(self) -> int:
        """Frames on each side of a frame that its parameters depend on."""
        return sum(self.dilations) * (self.kernel_size // 2) + LEVEL_REACH


class Block(nn.Module):
    """A depthwise convolution in time, then a mix of channels and of the mean over voices; a residual connection."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.own = nn.Linear(channels, 2 * channels)
        self.others = nn.Linear(channels, 2 * channels, bias=False)
        self.project = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, voices, frames, channels) to the same shape."""
        batch, voices, frames, channels = x.shape
        y: Tensor = self.depthwise(x.reshape(-1, frames, channels).transpose(1, 2)).transpose(1, 2)
        y = self.norm(y).reshape(batch, voices, frames, channels)
        y = self.own(y) + self.others(y.mean(dim=1, keepdim=True))
        mixed: Tensor = self.project(nn.functional.gelu(y))
        return x + mixed


class Estimator(nn.Module):
    """The network that estimates the parameters of every voice."""

    kind: ClassVar[str] = "estimator"
    Config: ClassVar[type] = EstimatorConfig

    def __init__(self, config: EstimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or EstimatorConfig()
        width = self.config.channels
        self.embed = nn.Sequential(nn.Linear(self.config.n_features, width), nn.LayerNorm(width), nn.GELU())
        self.blocks = nn.Sequential(
            *(Block(width, self.config.kernel_size, dilation) for dilation in self.config.dilations)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1 + self.config.order + 1 + self.config.noise_bands)

    def forward(self, mixture: Tensor, f0: Tensor) -> VoiceParameters:
        """Return the parameters of every voice in mixtures, shape (batch, samples); see `features.extract`."""
        features, log_level = extract(mixture, f0, self.config)
        y = self.head(self.norm(self.blocks(self.embed(features))))  # (batch, voices, frames, outputs)
        gain, spacings, noise = y.split([1, self.config.order + 1, self.config.noise_bands], dim=-1)
        return VoiceParameters(
            f0=f0,
            log_gain=log_level + gain[..., 0].clamp(-_MAX_LOG, _MAX_LOG),
            lsf=lsf_from_logits(spacings, MIN_LSF_SPACING),
            log_noise=log_level[..., None] + NOISE_OFFSET + noise.clamp(-_MAX_LOG, _MAX_LOG),
        )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
