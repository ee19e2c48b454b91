"""Supervised baseline: a U-Net that cuts one voice out of the mixture, conditioned on the voice's f0.

This is the local, dense conditioning of [1]_, in the form that [2]_ compares with. The U-Net is that of [3]_; the
conditioning is feature-wise linear modulation [4]_: each bin of the input is scaled and shifted as a function of the f0
around its frame.

One network serves all voices. It reads the mixture and the f0 of one voice, but not of the others. Each voice has a
mask of its own, so stems need not add up to the mixture. Training needs stems. In the papers, f0 is one bin of a pitch
grid; here it is a bell of that width, which keeps f0 between two bins exact.

References
----------
.. [1] D. Petermann, P. Chandna, H. Cuesta, J. Bonada, E. Gómez, "Deep learning based source separation applied to choir
   ensembles", ISMIR 2020.
.. [2] K. Schulze-Forster et al., "Unsupervised Music Source Separation Using Differentiable Parametric Source Models",
   IEEE/ACM TASLP 2023.
.. [3] A. Jansson et al., "Singing voice separation with deep U-Net convolutional networks", ISMIR 2017.
.. [4] E. Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vocalsep.audio import Float32
from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import InverseStft, StftGrid, power, stft
from vocalsep.errors import OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE
from vocalsep.training.data import Batch

GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE, 1024 / MODEL_SAMPLE_RATE)
"""Grid of the spectrograms that the network sees: window 1024, hop 256 at 16 kHz, as in [2]_."""
PITCH_FMIN = 32.7
"""Lowest pitch of the condition in Hz, C1."""
PITCHES_PER_OCTAVE = 60
N_PITCHES = 360
"""Pitches of the condition: six octaves."""
HALF_PRECISION = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""True on processors with instructions for bfloat16: training is twice as fast with it there, and slower elsewhere."""
_DROPOUT = 0.5  # of channels, in the first layers of the decoder [3]_
_DROPOUT_LAYERS = 3
_LEAK = 0.2
_SILENCE = 1e-7  # magnitude (-140 dB): quieter mixtures are not made louder
_CHUNK_FRAMES = 256  # frames (4.1 s, as in training) whose masks are estimated together; a multiple of all strides
_CONTEXT_FRAMES = 64  # frames on both sides; frames further away hardly matter


@dataclass(frozen=True)
class UnetConfig:
    """Configuration of the U-Net, stored with its weights; the defaults are those of the papers.

    Parameters
    ----------
    channels : tuple of int
        Channels of each layer of the encoder, which halves frames and bins; the decoder mirrors it.
    kernel_size : int
        Frames and bins that a convolution spans; odd.
    control_channels : tuple of int
        Channels of the convolutions in time that read f0.
    control_kernel_size : int
        Frames that these convolutions span.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    kernel_size: int = 5
    control_channels: tuple[int, ...] = (16, 64, 256)
    control_kernel_size: int = 10

    def __post_init__(self) -> None:
        widths = self.channels, self.control_channels
        if not all(isinstance(numbers, tuple) and 0 < len(numbers) <= 8 for numbers in widths):
            raise ValueError(f"channels must be 1 to 8 numbers, but got {self}")
        numbers = [*self.channels, *self.control_channels, self.kernel_size, self.control_kernel_size]
        if not all(type(number) is int and 0 < number <= 1024 for number in numbers) or not self.kernel_size % 2:
            raise ValueError(f"sizes must be whole numbers from 1 to 1024 and kernel_size odd, but got {self}")


def pitch_bells(f0: Tensor) -> Tensor:
    """Return f0 in Hz, shape (..., frames), as bells one grid step (20 cents) wide, shape (..., pitches, frames).

    Values lie in [0, 1]; they are 0 at all pitches of an unvoiced frame.
    """
    position = PITCHES_PER_OCTAVE * torch.log2(f0.clamp_min(1.0) / PITCH_FMIN)
    pitches = torch.arange(N_PITCHES, device=f0.device, dtype=f0.dtype)
    bells = torch.exp(-0.5 * (position[..., None, :] - pitches[:, None]) ** 2)
    return bells * (f0 > 0)[..., None, :]


class F0Control(nn.Module):
    """The part that turns f0 into the scale and shift of every bin of the input."""

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
    """The network; it has 10.3 M parameters in its default size."""

    kind: ClassVar[str] = "unet"
    Config: ClassVar[type] = UnetConfig

    def __init__(self, config: UnetConfig = UnetConfig()) -> None:
        super().__init__()
        self.config = config
        channels, kernel_size = config.channels, config.kernel_size
        shape: dict[str, Any] = {"kernel_size": kernel_size, "stride": 2, "padding": kernel_size // 2}
        self.control = F0Control(config)
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
        mixture : Tensor, shape (batch, samples)
            Mixtures at 16 kHz.
        f0 : Tensor, shape (batch, voices, frames)
            F0 in Hz, 0 = unvoiced; frames = 1 + samples // 256.

        Returns
        -------
        Tensor, shape (batch, voices, frequency bins, frames)
            Masks in [0, 1] on `GRID`; they need not add up to 1.
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


def unet_loss(network: ConditionedUnet, batch: Batch, *, half: bool = HALF_PRECISION) -> Tensor:
    """Return the L1 distance between masked mixture and stems: magnitudes, relative to the mean of the mixture's.

    With `half`, convolutions are computed in bfloat16. Raise OptionError if the batch has no stems.
    """
    if batch.stems is None:
        raise OptionError("the U-Net learns from stems, but the training data has none; train it on single singers")
    device = next(network.parameters()).device
    magnitude = power(batch.mixture.to(device), GRID).sqrt()
    target = power(batch.stems.to(device), GRID).sqrt()
    mean = magnitude.mean(dim=(-2, -1), keepdim=True).clamp_min(_SILENCE)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        masks = network.masks(magnitude, batch.f0.to(device))
    return ((masks * magnitude[:, None] - target) / mean[:, None]).abs().mean()


def separate_unet(mixture: Float32, tracks: F0Tracks, network: ConditionedUnet) -> Float32:
    """Return the stems that the masks of the network cut out of a mixture; they need not add up to it."""
    device = next(network.parameters()).device
    waveform = torch.from_numpy(mixture).to(device)
    frames = GRID.n_frames(len(waveform))
    f0 = torch.from_numpy(tracks.resampled(HOP, frames).frequencies).to(device)
    inverse = InverseStft(GRID, (len(f0), len(waveform)), device)
    for chunk in chunks(frames, _CHUNK_FRAMES, _CONTEXT_FRAMES):
        spectrum = stft(waveform, GRID, chunk.low, chunk.high)
        with torch.no_grad():
            masks = network.masks(spectrum.abs()[None], f0[None, :, chunk.low : chunk.high])[0]
        inverse.add((masks * spectrum)[..., chunk.inner], chunk.first)
    return inverse.result().cpu().numpy()
