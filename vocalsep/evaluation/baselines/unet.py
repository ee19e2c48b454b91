"""Supervised baseline: a U-Net that cuts one voice out of the mixture, told by the voice's f0 which one.

D. Petermann, P. Chandna, H. Cuesta, J. Bonada, E. Gómez, "Deep learning based source separation applied to choir
ensembles", ISMIR 2020 (its local, dense conditioning), in the form in which K. Schulze-Forster et al., "Unsupervised
music source separation using differentiable parametric source models" (2023), compare with it. The U-Net is that of
A. Jansson et al., "Singing voice separation with deep U-Net convolutional networks", ISMIR 2017; the conditioning is
feature-wise linear modulation (E. Perez et al., "FiLM: visual reasoning with a general conditioning layer", 2018):
every bin of the input is scaled and shifted as the f0 around its frame says.

One network serves all voices: it sees the mixture and one f0 at a time, and knows nothing of the other voices. Each
voice's mask stands on its own, as in the papers, so that stems need not add up to the mixture. It is trained on
stems. Where the papers give f0 as one bin of a pitch grid, here it is a bell of the same width that keeps what lies
between two bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vocalsep import weights
from vocalsep.audio import Float32
from vocalsep.dsp.stft import InverseStft, StftGrid, power, stft
from vocalsep.errors import OptionError, WeightsError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE
from vocalsep.training.data import Batch

GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE, 1024 / MODEL_SAMPLE_RATE)
"""Spectrograms that the network sees: window 1024, hop 256 at 16 kHz, as in US."""
PITCH_FMIN = 32.7
"""Hz of the lowest pitch of the condition, C1."""
PITCHES_PER_OCTAVE = 60
N_PITCHES = 360
"""Pitches of the condition: six octaves."""
_DROPOUT = 0.5  # of channels, in the first layers of the decoder (Jansson et al.)
_DROPOUT_LAYERS = 3
_LEAK = 0.2
_SILENCE = 1e-7  # full scale (-140 dB): nothing is louder made than this
_PIECE_FRAMES = 256  # frames (4.1 s, as in training) whose masks are found at once; a multiple of all strides
_CONTEXT = 64  # frames either side of a piece that the network sees too; what lies further hardly matters


@dataclass(frozen=True)
class UnetConfig:
    """Size of the network; what is not here is the papers'.

    Parameters
    ----------
    channels
        Channels of each layer of the encoder, which halves the frames and bins; the decoder mirrors it.
    kernel_size
        Frames and bins that a convolution spans, odd.
    control_channels
        Channels of the convolutions in time that read f0.
    control_kernel_size
        Frames that they span.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    kernel_size: int = 5
    control_channels: tuple[int, ...] = (16, 64, 256)
    control_kernel_size: int = 10

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> UnetConfig:
        """Read the configuration that a checkpoint carries.

        Raises
        ------
        WeightsError
            If it is not the configuration of such a U-Net, or a number is out of range.
        """
        if set(config) != {field.name for field in fields(cls)}:
            raise WeightsError(
                f"checkpoint is not one of a conditioned U-Net: its settings are {', '.join(sorted(config))[:200]}"
            )
        lists = config["channels"], config["control_channels"]
        if not all(isinstance(widths, (list, tuple)) and 0 < len(widths) <= 8 for widths in lists):
            raise WeightsError(f"U-Net's channels are {lists}; expected two lists of 1 to 8 numbers")
        numbers = [*lists[0], *lists[1], config["kernel_size"], config["control_kernel_size"]]
        if not all(type(number) is int and 0 < number <= 1024 for number in numbers) or not config["kernel_size"] % 2:
            raise WeightsError(
                f"U-Net's settings are {dict(config)}; expected whole numbers from 1 to 1024 and an odd kernel"
            )
        return cls(**{**config, "channels": tuple(lists[0]), "control_channels": tuple(lists[1])})

    def to_json(self) -> dict[str, Any]:
        """Return the configuration for a checkpoint."""
        return asdict(self)


def pitch_bells(f0: Tensor) -> Tensor:
    """Return f0 on a grid of pitches, a bell of one grid step (20 cents) about it: what the network is told.

    Parameters
    ----------
    f0
        Hz, shape (..., frames), 0 = unvoiced.

    Returns
    -------
    Tensor
        In [0, 1], shape (..., pitches, frames); 0 throughout where unvoiced.
    """
    position = PITCHES_PER_OCTAVE * torch.log2(f0.clamp_min(1.0) / PITCH_FMIN)
    pitches = torch.arange(N_PITCHES, device=f0.device, dtype=f0.dtype)
    bells = torch.exp(-0.5 * (position[..., None, :] - pitches[:, None]) ** 2)
    return bells * (f0 > 0)[..., None, :]


class Control(nn.Module):
    """From f0 to the scale and shift of every bin of the input.

    Parameters
    ----------
    config
        Size.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        widths = (N_PITCHES, *config.control_channels)
        self.padding = ((config.control_kernel_size - 1) // 2, config.control_kernel_size // 2)
        self.layers = nn.ModuleList(nn.Conv1d(a, b, config.control_kernel_size) for a, b in pairwise(widths))
        self.scale = nn.Conv1d(widths[-1], GRID.n_bins, 1)
        self.shift = nn.Conv1d(widths[-1], GRID.n_bins, 1)

    def forward(self, f0: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, each of shape (voices, bins, frames), for f0 in Hz, shape (voices, frames)."""
        x = pitch_bells(f0)
        for layer in self.layers:
            x = layer(nn.functional.pad(x, self.padding))
        return self.scale(x), self.shift(x)


class ConditionedUnet(nn.Module):
    """The network: 10.3 M parameters at the size of the papers, which is the default.

    Parameters
    ----------
    config
        Its size.
    """

    def __init__(self, config: UnetConfig | None = None) -> None:
        super().__init__()
        self.config = config or UnetConfig()
        channels, kernel_size = self.config.channels, self.config.kernel_size
        shape: dict[str, Any] = {"kernel_size": kernel_size, "stride": 2, "padding": kernel_size // 2}
        self.control = Control(self.config)
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, **shape), nn.BatchNorm2d(after), nn.LeakyReLU(_LEAK))
            for before, after in pairwise((1, *channels))
        )
        # From the second layer on, the decoder also reads what the encoder had at its size.
        upwards = (channels[-1], *(2 * width for width in channels[-2::-1]))
        outputs = (*channels[-2::-1], 1)
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(before, after, **shape) for before, after in zip(upwards, outputs, strict=True)
        )
        self.between = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(_DROPOUT if index < _DROPOUT_LAYERS else 0.0))
            for index, width in enumerate(outputs[:-1])
        )

    def forward(self, mixture: Tensor, f0: Tensor) -> Tensor:
        """Return the mask of every voice.

        Parameters
        ----------
        mixture
            Shape (batch, samples) at 16 kHz.
        f0
            Hz, shape (batch, voices, frames), 0 = unvoiced; frames = 1 + samples // 256.

        Returns
        -------
        Tensor
            In [0, 1], shape (batch, voices, frequency bins, frames) on `GRID`; they need not add up to 1.
        """
        return self.masks(power(mixture, GRID).sqrt(), f0)

    def masks(self, magnitude: Tensor, f0: Tensor) -> Tensor:
        """Return the masks for a magnitude spectrogram, shape (batch, frequency bins, frames); see `forward`."""
        batch, voices, frames = f0.shape
        scale, shift = self.control(f0.reshape(-1, frames))
        loudest = magnitude.amax(dim=(-2, -1), keepdim=True).clamp_min(_SILENCE)
        same = (magnitude / loudest)[:, None].expand(-1, voices, -1, -1).reshape(scale.shape)
        logits = self._unet((same * scale + shift)[:, None])
        return torch.sigmoid(logits.float()).reshape(batch, voices, -1, frames)

    def _unet(self, x: Tensor) -> Tensor:
        """Map (voices, 1, frequency bins, frames) to the same shape."""
        shapes, skips = [x.shape], []
        for layer in self.encoder:
            x = layer(x)
            shapes.append(x.shape)
            skips.append(x)
        for index, layer in enumerate(self.decoder):
            if index:
                x = torch.cat([self.between[index - 1](x), skips[-1 - index]], dim=1)
            x = layer(x, output_size=list(shapes[-2 - index][-2:]))
        return x


def unet_loss(network: ConditionedUnet, batch: Batch, *, half: bool = False) -> Tensor:
    """Return the L1 distance between masked mixture and stems: magnitudes, relative to the mean of the mixture's.

    Parameters
    ----------
    network
        The U-Net, whose pass for each voice is part of one large batch.
    batch
        With stems.
    half
        Whether convolutions run in bfloat16: twice as fast on processors that have instructions for it.

    Raises
    ------
    OptionError
        If the stems of the batch are not known.
    """
    if batch.stems is None:
        raise OptionError("the U-Net learns from stems and a batch has none; expected single singers to train on")
    device = next(network.parameters()).device
    magnitude = power(batch.mixture.to(device), GRID).sqrt()
    target = power(batch.stems.to(device), GRID).sqrt()
    mean = magnitude.mean(dim=(-2, -1), keepdim=True).clamp_min(_SILENCE)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        masks = network.masks(magnitude, batch.f0.to(device))
    return ((masks * magnitude[:, None] - target) / mean[:, None]).abs().mean()


def separate_unet(mixture: Float32, tracks: F0Tracks, network: ConditionedUnet) -> Float32:
    """Return stems of shape (voices, samples), mask times mixture, of a mixture of shape (samples,) at 16 kHz."""
    device = next(network.parameters()).device
    waveform = torch.from_numpy(mixture).to(device)
    frames = GRID.n_frames(len(waveform))
    f0 = torch.from_numpy(tracks.resampled(HOP, frames).frequencies).to(device)
    inverse = InverseStft(GRID, (len(f0), len(waveform)), device)
    network.eval()
    for first in range(0, frames, _PIECE_FRAMES):
        last = min(first + _PIECE_FRAMES, frames)
        low, high = max(0, first - _CONTEXT), min(frames, last + _CONTEXT)
        spectrum = stft(waveform, GRID, low, high)
        with torch.no_grad():
            masks = network.masks(spectrum.abs()[None], f0[None, :, low:high])[0]
        inverse.add((masks * spectrum)[..., first - low : last - low], first)
    return inverse.result().cpu().numpy()


def load_unet(path: str, device: str = "cpu") -> ConditionedUnet:
    """Load a U-Net from a .safetensors file, or by its name in the manifest, ready for inference.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of such a U-Net.
    """
    return weights.load_network(path, device, _build, "conditioned U-Net")


def _build(config: dict[str, Any]) -> ConditionedUnet:
    return ConditionedUnet(UnetConfig.from_json(config))
