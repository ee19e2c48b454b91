"""The network of the paper itself, unsupervised, in front of this package's synthesizer.

K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised music source separation using
differentiable parametric source models", IEEE/ACM TASLP 2023, here US. Its encoder reads the mixture with three
recurrent layers and never looks at f0; what it finds is copied for each voice, and a decoder like that of DDSP
(J. Engel et al., "DDSP: differentiable digital signal processing", ICLR 2020) makes of it and the voice's f0 the
parameters of the source-filter model. All recurrences run forwards. Voices do not know of each other.

What differs from US is what comes after: harmonics, filter and noise are rendered as in `synthesizer`, the gain is
relative to the mixture's level, and the loss is `training.losses.estimator_loss`. So it tells how much of the product's
figures is due to its network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vocalsep import weights
from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import WeightsError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import MIN_LSF_SPACING, NOISE_OFFSET
from vocalsep.model.features import level
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE

GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE, 512 / MODEL_SAMPLE_RATE)
"""Spectrogram that the encoder reads: window 512, hop 256 at 16 kHz."""
_FLOOR = 1e-10  # of power in a bin, -100 dB
_LOWEST = 20.0  # Hz: where f0 on its scale is 0, as it is for a rest
_OCTAVES = 6.0  # above it, f0 on its scale is 1
_LAYERS = 3  # of each perceptron
_REACH = 12.0  # nats by which both levels can be moved, as in `estimator`
_COLOUR_RANGE = 2.0  # nats (17 dB) either way that the colour of the noise reaches: a recurrence gives 1 at most
_PEAK = 0.5  # full scale that recordings are brought to, about that of training
_PIECE_FRAMES = 250  # frames (4 s, as in training) whose parameters are found at once
_WARM_UP = 62  # frames (1 s) before them that the recurrences hear first


@dataclass(frozen=True)
class UsConfig:
    """Size of the network; the defaults are the paper's.

    Parameters
    ----------
    encoder_size
        Units of the encoder's recurrent layers.
    latent_size
        Numbers that each voice gets of the encoder in a frame.
    decoder_size
        Units of the decoder's layers.
    order
        Order of the vocal-tract filter, even.
    noise_bands
        Frequencies at which the noise is given.
    """

    encoder_size: int = 256
    latent_size: int = 128
    decoder_size: int = 512
    order: int = 20
    noise_bands: int = 40

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> UsConfig:
        """Read the configuration that a checkpoint carries.

        Raises
        ------
        WeightsError
            If it is not the configuration of such a network, or a number is out of range.
        """
        if set(config) != {field.name for field in fields(cls)}:
            raise WeightsError(f"checkpoint is not one of US: its settings are {', '.join(sorted(config))[:200]}")
        if not all(type(number) is int and 0 < number <= 1024 for number in config.values()):
            raise WeightsError(f"US's settings are {dict(config)}; expected whole numbers from 1 to 1024")
        found = cls(**config)
        if found.order % 2 or found.order > 64 or not 2 <= found.noise_bands <= 256:
            raise WeightsError(f"US's settings are {dict(config)}; expected an even order to 64, 2 to 256 noise bands")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the configuration for a checkpoint."""
        return asdict(self)


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(_LAYERS):
        layers += [nn.Linear(width if index else inputs, width), nn.LayerNorm(width), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """From the spectrogram of the mixture to a latent vector in each frame.

    Parameters
    ----------
    config
        Size.
    """

    def __init__(self, config: UsConfig) -> None:
        super().__init__()
        width = config.encoder_size
        self.scale = nn.Parameter(torch.ones(GRID.n_bins))
        self.shift = nn.Parameter(torch.zeros(GRID.n_bins))
        self.first = nn.GRU(GRID.n_bins, width, num_layers=2, batch_first=True)
        self.last = nn.GRU(width, width, batch_first=True)
        self.latent = nn.Linear(width, config.latent_size)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Map the power of the mixture, (batch, frequency bins, frames), to (batch, frames, latent size)."""
        x = torch.log(spectrum + _FLOOR).transpose(-1, -2)
        # Normalised over the whole excerpt, then weighted bin by bin: loudness does not matter.
        x = nn.functional.layer_norm(x, x.shape[1:]) * self.scale + self.shift
        once = self.first(x)[0]
        latent: Tensor = self.latent(once + self.last(once)[0])
        return latent


class UsNetwork(nn.Module):
    """The network: 5.57 M parameters at the size of the paper, which is the default.

    Parameters
    ----------
    config
        Its size.
    """

    def __init__(self, config: UsConfig | None = None) -> None:
        super().__init__()
        self.config = config or UsConfig()
        width = self.config.decoder_size
        self.encoder = Encoder(self.config)
        self.of_f0 = _perceptron(1, width)
        self.of_latent = _perceptron(self.config.latent_size, width)
        self.recurrent = nn.GRU(2 * width, width, batch_first=True)
        self.after = _perceptron(width, width)
        self.levels = nn.Linear(width, 2)
        self.spacings = nn.Linear(width, self.config.order + 1)
        # The colour of a voice's noise is one for an excerpt: what this recurrence says at its end.
        self.noise = nn.GRU(width, self.config.noise_bands, batch_first=True)

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
        return self.estimate(power(mixture, GRID), f0)

    def estimate(self, spectrum: Tensor, f0: Tensor) -> VoiceParameters:
        """Estimate from the power of the mixture on `GRID`, (batch, frequency bins, frames); see `forward`."""
        y = self._decode(self.of_latent(self.encoder(spectrum)), f0)
        gain, noise_gain = self.levels(y).clamp(-_REACH, _REACH).unbind(dim=-1)  # (batch, voices, frames)
        colour = self.noise(y.flatten(0, 1))[1][0].reshape(*f0.shape[:2], 1, -1)
        log_level = level(spectrum.transpose(-1, -2))[:, None]
        return VoiceParameters(
            f0=f0,
            log_gain=log_level + gain,
            lsf=lsf_from_logits(self.spacings(y), MIN_LSF_SPACING),
            log_noise=(log_level + NOISE_OFFSET + noise_gain)[..., None] + _COLOUR_RANGE * colour,
        )

    def _decode(self, latent: Tensor, f0: Tensor) -> Tensor:
        """Map (batch, frames, decoder size) and f0 to (batch, voices, frames, decoder size)."""
        height = torch.log2(f0.clamp_min(_LOWEST) / _LOWEST) / _OCTAVES
        own = self.of_f0(height[..., None])
        both = torch.cat([own, latent[:, None].expand_as(own)], dim=-1)
        y: Tensor = self.after(self.recurrent(both.flatten(0, 1))[0])
        return y.reshape(own.shape)


def separate_us(mixture: Float32, tracks: F0Tracks, network: UsNetwork) -> Float32:
    """Return stems of shape (voices, samples), which add up to the mixture, of shape (samples,) at 16 kHz."""
    device = next(network.parameters()).device
    waveform = torch.from_numpy(mixture).to(device)
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    frames = grid.n_frames(len(waveform))
    f0 = torch.from_numpy(tracks.resampled(HOP, frames).frequencies).to(device)
    with torch.no_grad():
        parameters = _estimate_in_pieces(waveform, f0, network.eval())
        stems = cut(waveform, grid, len(f0), lambda first, last: voice_power(parameters, grid, first, last))
    return stems.cpu().numpy()


def _estimate_in_pieces(waveform: Tensor, f0: Tensor, network: UsNetwork) -> VoiceParameters:
    """Return the parameters of a whole recording, found in pieces as long as training's excerpts."""
    loud = waveform * (_PEAK / waveform.abs().max().clamp_min(1e-6))
    pieces, frames = [], f0.shape[-1]
    for first in range(0, frames, _PIECE_FRAMES):
        last = min(first + _PIECE_FRAMES, frames)
        low = max(0, first - _WARM_UP)
        piece = network.estimate(power(loud, GRID, low, last)[None], f0[None, :, low:last]).without_batch()
        pieces.append(piece.frames(first - low, last - low))
    return VoiceParameters.joined(pieces)


def load_us(path: str, device: str = "cpu") -> UsNetwork:
    """Load such a network from a .safetensors file, or by its name in the manifest, ready for inference.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of such a network.
    """
    return weights.load_network(path, device, _build, "network of US")


def _build(config: dict[str, Any]) -> UsNetwork:
    return UsNetwork(UsConfig.from_json(config))
