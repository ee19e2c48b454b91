"""The network of the paper itself, unsupervised, in front of this package's synthesizer.

The encoder of US [1]_ reads the mixture with three recurrent layers and does not look at f0. Its output is copied for
each voice; a decoder like that of DDSP [2]_ turns it and the voice's f0 into the parameters of the source-filter model.
All recurrences run forwards. Voices are estimated independently of each other.

Only the network is that of US: harmonics, filter and noise go through `vocalsep.model.synthesizer`, the gain is
relative to the level of the mixture, and the loss is `training.losses.estimator_loss`. So this baseline shows how much
of the product's quality comes from its network.

References
----------
.. [1] K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
   Differentiable Parametric Source Models", IEEE/ACM TASLP 2023.
.. [2] J. Engel et al., "DDSP: differentiable digital signal processing", ICLR 2020.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vocalsep.audio import Float32
from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import MIN_LSF_SPACING, NOISE_OFFSET
from vocalsep.model.features import level
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE

GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE, 512 / MODEL_SAMPLE_RATE)
"""Grid of the spectrogram that the encoder reads: window 512, hop 256 at 16 kHz."""
_FLOOR = 1e-10  # power in a bin, -100 dB
_LOWEST = 20.0  # Hz: f0 on the network's scale is 0 there, and in rests
_OCTAVES = 6.0  # above the lowest: f0 on the network's scale is 1 there
_LAYERS = 3  # of each perceptron
_MAX_LOG = 12.0  # gain and noise stay within e^+-12 of the mixture's level, as in `model.estimator`
_COLOUR_RANGE = 2.0  # nats (17 dB) either way that the colour of the noise reaches: a recurrence gives 1 at most
_PEAK = 0.5  # full scale that recordings are brought to, about that of training
_CHUNK_FRAMES = 250  # frames (4 s, as in training) whose parameters are estimated together
_WARM_UP_FRAMES = 62  # frames (1 s) before them, for the recurrences


@dataclass(frozen=True)
class UsConfig:
    """Configuration of the network, stored with its weights; the defaults are those of the paper.

    Parameters
    ----------
    encoder_size : int
        Units of the encoder's recurrent layers.
    latent_size : int
        Values per frame that the encoder gives to each voice.
    decoder_size : int
        Units of the decoder's layers.
    order : int
        Order of the vocal-tract filter; even, at most 64.
    noise_bands : int
        Number of frequencies at which the noise is estimated; 2 to 256.
    """

    encoder_size: int = 256
    latent_size: int = 128
    decoder_size: int = 512
    order: int = 20
    noise_bands: int = 40

    def __post_init__(self) -> None:
        if not all(type(number) is int and 0 < number <= 1024 for number in asdict(self).values()):
            raise ValueError(f"sizes must be whole numbers from 1 to 1024, but got {self}")
        if self.order % 2 or self.order > 64 or not 2 <= self.noise_bands <= 256:
            raise ValueError(f"order must be even and at most 64, noise_bands 2 to 256, but got {self}")


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(_LAYERS):
        layers += [nn.Linear(width if index else inputs, width), nn.LayerNorm(width), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class UsEncoder(nn.Module):
    """The part that turns the spectrogram of the mixture into a latent vector in each frame."""

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
        # The whole excerpt is normalised, then each bin weighted, so loudness does not matter.
        x = nn.functional.layer_norm(x, x.shape[1:]) * self.scale + self.shift
        once = self.first(x)[0]
        latent: Tensor = self.latent(once + self.last(once)[0])
        return latent


class UsNetwork(nn.Module):
    """The network; it has 5.57 M parameters in its default size."""

    kind: ClassVar[str] = "us"
    Config: ClassVar[type] = UsConfig

    def __init__(self, config: UsConfig = UsConfig()) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_size
        self.encoder = UsEncoder(config)
        self.of_f0 = _perceptron(1, width)
        self.of_latent = _perceptron(config.latent_size, width)
        self.recurrent = nn.GRU(2 * width, width, batch_first=True)
        self.after = _perceptron(width, width)
        self.levels = nn.Linear(width, 2)
        self.spacings = nn.Linear(width, config.order + 1)
        # A voice has one colour of noise for an excerpt: the last state of this recurrence.
        self.noise = nn.GRU(width, config.noise_bands, batch_first=True)

    def forward(self, mixture: Tensor, f0: Tensor) -> VoiceParameters:
        """Estimate the parameters of every voice; the shapes are those of `vocalsep.model.estimator.Estimator`."""
        return self.estimate(power(mixture, GRID), f0)

    def estimate(self, spectrum: Tensor, f0: Tensor) -> VoiceParameters:
        """Estimate from the power of the mixture on `GRID`, (batch, frequency bins, frames); see `forward`."""
        y = self._decode(self.of_latent(self.encoder(spectrum)), f0)
        gain, noise_gain = self.levels(y).clamp(-_MAX_LOG, _MAX_LOG).unbind(dim=-1)  # (batch, voices, frames)
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
    """Return the stems that the network's masks cut out of a mixture; they add up to it."""
    device = next(network.parameters()).device
    waveform = torch.from_numpy(mixture).to(device)
    grid = StftGrid.of_duration()
    f0 = torch.from_numpy(tracks.resampled(HOP, grid.n_frames(len(waveform))).frequencies).to(device)
    with torch.no_grad():
        parameters = estimate_chunks(waveform, f0, network)
        stems = cut(waveform, grid, len(f0), lambda first, last: voice_power(parameters, grid, first, last))
    return stems.cpu().numpy()


def estimate_chunks(waveform: Tensor, f0: Tensor, network: UsNetwork) -> VoiceParameters:
    """Return the parameters of a waveform (samples,) with f0 (voices, frames), in chunks as long as in training."""
    scaled = waveform * (_PEAK / waveform.abs().max().clamp_min(1e-6))
    parts = []
    for chunk in chunks(f0.shape[-1], _CHUNK_FRAMES, _WARM_UP_FRAMES):
        spectrum = power(scaled, GRID, chunk.low, chunk.last)
        part = network.estimate(spectrum[None], f0[None, :, chunk.low : chunk.last]).without_batch()
        parts.append(part.frames(chunk.first - chunk.low, chunk.last - chunk.low))
    return VoiceParameters.joined(parts)
