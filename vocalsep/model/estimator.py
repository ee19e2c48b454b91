"""The parameter estimator: mixture and f0 tracks -> parameters of every voice's source-filter model.

One network serves every voice; voices know of each other through what they look at (see `features`) and through
the mean over voices that each block adds, so that any number of voices goes in and their order is immaterial.
All layers are convolutions in time: a frame depends on 1 s around it, and pieces of a recording give what the
whole gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor, nn

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.model.features import LEVEL_REACH, FeatureLayout, extract
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.parameters import VoiceParameters

# Of the settings in a checkpoint: far above what is of use, so that time and memory beyond the weights are bounded.
_MAXIMA = {
    "channels": 1024,
    "dilations": 256,
    "kernel_size": 63,
    "order": 64,
    "noise_bands": 256,
    "n_harmonics": 256,
    "n_between": 256,
    "n_mels": 256,
}


@dataclass(frozen=True)
class EstimatorConfig:
    """Size of the network and of what it sees and gives.

    Parameters
    ----------
    channels
        Width of the network.
    dilations
        Dilation in time of each block's convolution.
    kernel_size
        Frames that a convolution spans, odd.
    order
        Order of the vocal-tract filter, even.
    noise_bands
        Frequencies at which the noise is given.
    n_harmonics, n_between, n_mels
        See `features.FeatureLayout`.
    """

    channels: int = 192
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1)
    kernel_size: int = 7
    order: int = 20
    noise_bands: int = 16
    n_harmonics: int = FeatureLayout.n_harmonics
    n_between: int = FeatureLayout.n_between
    n_mels: int = FeatureLayout.n_mels

    @property
    def layout(self) -> FeatureLayout:
        """The features that the network reads."""
        return FeatureLayout(self.n_harmonics, self.n_between, self.n_mels)

    @property
    def reach(self) -> int:
        """Frames either side of a frame that its parameters depend on."""
        return sum(self.dilations) * (self.kernel_size // 2) + LEVEL_REACH

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> EstimatorConfig:
        """Read the configuration that a checkpoint carries.

        Raises
        ------
        WeightsError
            If it is not the configuration of an estimator, or a number is out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(config) != names:
            raise WeightsError(
                f"checkpoint is not one of an estimator: its settings are {', '.join(sorted(config))[:200]}"
            )
        dilations = config["dilations"]
        if not isinstance(dilations, (list, tuple)) or not 0 < len(dilations) <= 32:
            raise WeightsError(f"estimator's dilations are {dilations!r:.80}; expected a list of 1 to 32 numbers")
        numbers = [(name, config[name]) for name in sorted(names - {"dilations"})]
        for name, number in [*numbers, *(("dilations", dilation) for dilation in dilations)]:
            if type(number) is not int or not 0 < number <= _MAXIMA[name]:
                raise WeightsError(
                    f"estimator's {name} is {str(number)[:40]}; expected a whole number from 1 to {_MAXIMA[name]}"
                )
        found = cls(**{**config, "dilations": tuple(dilations)})
        if found.order % 2 or not found.kernel_size % 2 or found.noise_bands < 2 or found.n_between > found.n_harmonics:
            raise WeightsError(
                f"estimator's settings are {dict(config)}; expected an even order, an odd kernel, two or more noise "
                "bands, and no more gaps than harmonics"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the configuration for a checkpoint."""
        return asdict(self)


# Least distance between two LSFs: a resonance is then at least about 20 Hz wide.
MIN_LSF_SPACING = 0.01  # rad, 25 Hz
# Natural log of the noise where the network says 0, relative to the mixture's level (RMS over bins).
NOISE_OFFSET = -4.0


class Block(nn.Module):
    """Depthwise convolution in time, then a mix of channels that also hears the mean over voices."""

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
    """The network.

    Parameters
    ----------
    config
        Its size.
    """

    def __init__(self, config: EstimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or EstimatorConfig()
        width = self.config.channels
        self.embed = nn.Sequential(nn.Linear(self.config.layout.size, width), nn.LayerNorm(width), nn.GELU())
        self.blocks = nn.Sequential(
            *(Block(width, self.config.kernel_size, dilation) for dilation in self.config.dilations)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1 + self.config.order + 1 + self.config.noise_bands)

    def forward(self, mixture: Tensor, f0: Tensor) -> VoiceParameters:
        """Estimate the parameters of every voice.

        Parameters
        ----------
        mixture
            Shape (batch, samples) at 16 kHz.
        f0
            Hz, shape (batch, voices, frames), 0 = unvoiced; frames = 1 + samples // 256.

        Returns
        -------
        VoiceParameters
            With leading axis batch.
        """
        features = extract(mixture, f0, self.config.layout)
        y = self.head(self.norm(self.blocks(self.embed(features.values))))  # (batch, voices, frames, outputs)
        gain, spacings, noise = y.split([1, self.config.order + 1, self.config.noise_bands], dim=-1)
        log_level = features.log_level
        return VoiceParameters(
            f0=f0,
            log_gain=log_level + gain[..., 0].clamp(-12, 12),
            lsf=lsf_from_logits(spacings, MIN_LSF_SPACING),
            log_noise=log_level[..., None] + NOISE_OFFSET + noise.clamp(-12, 12),
        )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def load_estimator(model: str, device: str = "cpu") -> Estimator:
    """Load an estimator, ready for inference; `vocalsep.weights.names` says what `model` may be.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of an estimator.
    """
    return weights.load_network(model, device, _build, "estimator")


def read_estimator(model: str) -> Estimator:
    """Return an estimator with the weights of a checkpoint, to train further; errors are those of `load_estimator`."""
    return weights.read_network(model, _build, "estimator")


def _build(config: dict[str, Any]) -> Estimator:
    return Estimator(EstimatorConfig.from_json(config))
