"""The tracker network: mixture and voices -> posterior of every voice over pitches and silence.

The input is the log-magnitude spectrum sampled at multiples of every pitch of a logarithmic grid, the harmonic stack of
R. Bittner, B. McFee, J. Salamon, P. Li, J. P. Bello, "Deep salience representations for f0 estimation in polyphonic
music", ISMIR 2017. A note then looks the same at every pitch. A U-Net along frequency finds notes; a recurrent layer at
its bottom covers seconds of all registers and learns which notes belong together.

The voices are not fixed outputs. Each voice is described by its range and its rank in the ensemble, and the network
turns the description into the weights that read the voice's posterior from common features. One network thus serves
SATB, SSA, TTBB or three voices known only by their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vocalsep.dsp.stft import StftGrid, power
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.voices import Voice

_FLOOR = 1e-4  # of magnitude, relative to loud frames: 80 dB below them nothing counts
_CENTRE, _SPREAD = 5.0, 3.0  # nats: bring log-magnitudes to about mean 0 and deviation 1
LEVEL_BLOCK = 1024
"""Samples over which loudness is taken."""
_LEVEL_QUANTILE = 0.95  # of blocks: the loudness of loud passages
_SILENCE = 1e-6  # full scale (-120 dB): recordings below are not brought to any level
_REFERENCE = 262.0  # Hz: the middle of the registers of a choir
_DESCRIPTION = 5  # numbers that describe a voice


@dataclass(frozen=True)
class TrackerConfig:
    """Configuration of a tracker network, stored with its weights.

    Parameters
    ----------
    fmin : float
        Lowest pitch of the grid in Hz.
    bins_per_octave, n_bins : int
        Resolution and size of the grid; `n_bins` is a multiple of 2 ** len(channels).
    harmonics : tuple of float
        Multiples of each pitch at which the spectra are sampled.
    windows : tuple of float
        Window lengths of the spectra in seconds.
    channels : tuple of int
        Channels of the levels of the U-Net, from fine to coarse; each level halves the number of pitches.
    hidden : int
        Units of the recurrent layer in each direction.
    summary : int
        Channels that the recurrent layer passes to the decoder.
    features : int
        Common features of every pitch from which the posteriors of the voices are read.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    fmin: float = 62.0
    bins_per_octave: int = 60
    n_bins: int = 256
    harmonics: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    windows: tuple[float, ...] = (0.128, 0.256)
    channels: tuple[int, ...] = (32, 48, 64, 96)
    hidden: int = 192
    summary: int = 48
    features: int = 32

    def __post_init__(self) -> None:
        lists = (self.channels, self.harmonics, self.windows)
        if not all(isinstance(values, tuple) and 0 < len(values) <= 32 for values in lists):
            raise ValueError("expected channels, harmonics and windows: 1 to 32 numbers each")
        whole = (self.bins_per_octave, self.n_bins, self.hidden, self.summary, self.features, *self.channels)
        if not all(type(number) is int and 0 < number <= 4096 for number in whole):
            raise ValueError("expected whole numbers from 1 to 4096")
        real = (self.fmin, *self.harmonics, *self.windows)
        if not all(type(number) in (int, float) and 0 < number < math.inf for number in real):
            raise ValueError("expected fmin, harmonics and windows above 0")
        if max(self.windows) > 2 or min(self.windows) < 1e-3 or max(self.harmonics) > 64:
            raise ValueError("expected windows of 1 ms to 2 s and harmonics up to 64")
        if not 10 <= self.fmin <= 8000 or self.n_bins > 12 * self.bins_per_octave:
            raise ValueError("expected fmin from 10 to 8000 Hz and a grid of 12 octaves at most")
        if self.n_bins % 2 ** len(self.channels):
            raise ValueError("expected n_bins that halve once for each of the channels")

    @property
    def n_inputs(self) -> int:
        """Number of channels of the harmonic stack."""
        return len(self.harmonics) * len(self.windows)

    def pitches(self) -> Tensor:
        """Return the pitches of the grid in Hz, shape (pitches,)."""
        return self.fmin * torch.exp2(torch.arange(self.n_bins, dtype=torch.float64) / self.bins_per_octave)

    def grids(self) -> tuple[StftGrid, ...]:
        """Return the STFT grids of the spectra."""
        return tuple(StftGrid.of_duration(MODEL_SAMPLE_RATE, window) for window in self.windows)


def normalised(waveform: Tensor) -> Tensor:
    """Return waveforms, shape (..., samples), scaled so that loud passages have an RMS of 1; silence is unchanged."""
    blocks = max(1, waveform.shape[-1] // LEVEL_BLOCK)
    length = min(waveform.shape[-1], blocks * LEVEL_BLOCK)
    energy = waveform[..., :length].reshape(*waveform.shape[:-1], blocks, -1).square().mean(dim=-1)
    return waveform * loudness_gain(energy)


def loudness_gain(energy: Tensor) -> Tensor:
    """Return the gain that brings loud passages to an RMS of 1, shape (..., 1); it is 1 for silence.

    `energy`, shape (..., blocks), is the mean square of every whole block of `LEVEL_BLOCK` samples.
    """
    rank = math.ceil(_LEVEL_QUANTILE * energy.shape[-1])
    level = energy.kthvalue(rank, dim=-1, keepdim=True).values.sqrt()
    # A single note in a long silence counts as loud although nearly all blocks are silent.
    level = torch.maximum(level, 0.1 * energy.amax(dim=-1, keepdim=True).sqrt())
    return torch.where(level > _SILENCE, 1 / level.clamp_min(_SILENCE), torch.ones_like(level))


def harmonic_stack(waveform: Tensor, config: TrackerConfig, first: int = 0, last: int | None = None) -> Tensor:
    """Return log-magnitudes at the multiples of every pitch, with a mean of about 0 and a deviation of about 1.

    The waveform, shape (..., samples), is at 16 kHz and at the level of `normalised`. The result has the shape (...,
    windows * harmonics, pitches, frames), for the frames first ... last - 1, all by default.
    """
    multiples = torch.tensor(config.harmonics, dtype=torch.float64)[:, None] * config.pitches()
    stacks = []
    for grid in config.grids():
        magnitude = power(waveform, grid, first, last).sqrt()
        position = (multiples * (grid.n_fft / grid.sample_rate)).flatten()
        left = position.floor().clamp(max=grid.n_bins - 2).long()
        weight = (position - left).clamp(0, 1).to(magnitude)[:, None]
        index = left.to(magnitude.device)
        sampled = torch.lerp(magnitude.index_select(-2, index), magnitude.index_select(-2, index + 1), weight)
        inside = (position < grid.n_bins - 1).to(magnitude)[:, None]
        sampled = (torch.log(sampled * inside + _FLOOR) + _CENTRE) / _SPREAD
        split = (*sampled.shape[:-2], len(config.harmonics), config.n_bins, sampled.shape[-1])
        stacks.append(sampled.reshape(split))
    return torch.cat(stacks, dim=-3)


def describe(voices: Sequence[Voice]) -> Tensor:
    """Return the description of each voice for the network, shape (voices, 5): range, rank, number of voices."""
    last = len(voices) - 1
    rows = [
        (
            math.log2(math.sqrt(voice.fmin * voice.fmax) / _REFERENCE),
            math.log2(voice.fmax / voice.fmin) / 2 - 1,
            rank / 4,
            (last - rank) / 4,
            len(voices) / 4 - 1,
        )
        for rank, voice in enumerate(voices)
    ]
    return torch.tensor(rows, dtype=torch.float32)


class Logits(NamedTuple):
    """Unnormalised log-probabilities of the pitches of every voice and of silence."""

    pitch: Tensor
    """Shape (batch, voices, frames, pitches)."""
    silent: Tensor
    """Shape (batch, voices, frames)."""


def _convolution(inputs: int, outputs: int, *, stride: int = 1, height: int = 3, width: int = 3) -> nn.Sequential:
    """Return a convolution over (pitches, frames), with a stride along pitches, normalisation and GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (height, width), (stride, 1), (height // 2, width // 2), bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


class Tracker(nn.Module):
    """The tracker network."""

    kind: ClassVar[str] = "tracker"
    Config: ClassVar[type[TrackerConfig]] = TrackerConfig

    def __init__(self, config: TrackerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TrackerConfig()
        levels, summary, state = self.config.channels, self.config.summary, 2 * self.config.hidden
        bottom = self.config.n_bins >> len(levels)
        self.stem = _convolution(self.config.n_inputs, levels[0], stride=2, height=5)
        self.down = nn.ModuleList(_convolution(a, b, stride=2) for a, b in pairwise(levels))
        self.encoder = nn.ModuleList(_convolution(c, c) for c in levels)
        # The recurrent layer sees all registers at once, for seconds before and after.
        self.squeeze = nn.Sequential(nn.Linear(levels[-1] * bottom, 256), nn.LayerNorm(256), nn.GELU())
        self.ensemble = nn.Sequential(nn.Linear(_DESCRIPTION, 64), nn.GELU(), nn.Linear(64, 256))
        self.recurrent = nn.GRU(256, self.config.hidden, batch_first=True, bidirectional=True)
        self.spread = nn.Linear(state, summary * bottom)
        widths = [levels[-1] + summary, *levels[-2::-1], levels[0]]
        self.decoder = nn.ModuleList()
        coming = widths[0]
        for level in range(len(levels) - 1, -1, -1):
            leaving = levels[max(level - 1, 0)]
            self.decoder.append(_convolution(coming, leaving))
            coming = leaving + (levels[level - 1] if level else self.config.n_inputs)
        self.fine = _convolution(coming, self.config.features, width=1)
        self.voice = nn.Sequential(nn.Linear(_DESCRIPTION, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.reader = nn.Linear(64, self.config.features)
        self.listening = nn.Linear(state, 64)
        self.silence = nn.Linear(64, 65)
        # On CPUs, convolutions take half the time with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, stack: Tensor, voices: Tensor) -> Logits:
        """Return the posterior of every voice in every frame.

        Parameters
        ----------
        stack : Tensor, shape (batch, windows * harmonics, pitches, frames)
            Input spectra; see `harmonic_stack`.
        voices : Tensor, shape (batch, voices, 5)
            Descriptions of the voices; see `describe`.
        """
        stack = stack.to(memory_format=torch.channels_last)
        x = self.stem(stack)
        skips = []
        for level, encode in enumerate(self.encoder):
            x = encode(self.down[level - 1](x) if level else x)
            skips.append(x)
        bottom = x.shape[2]
        sequence = self.squeeze(x.permute(0, 3, 1, 2).flatten(2))  # (batch, frames, 256)
        sequence = sequence + self.ensemble(voices).sum(dim=1, keepdim=True)
        state, _ = self.recurrent(sequence)  # (batch, frames, 2 * hidden)
        summary = self.spread(state).unflatten(-1, (-1, bottom)).permute(0, 2, 3, 1)
        x = torch.cat([x, summary.to(x.dtype)], dim=1)
        for decode, skip in zip(self.decoder, [*skips[-2::-1], stack], strict=True):
            x = nn.functional.interpolate(decode(x), scale_factor=(2.0, 1.0))
            x = torch.cat([x, skip.to(x.dtype)], dim=1)
        common = self.fine(x)  # (batch, features, pitches, frames)
        voice = self.voice(voices)  # (batch, voices, 64)
        pitch = torch.einsum("bcpt,bvc->bvtp", common, self.reader(voice).to(common.dtype))
        weight = self.silence(voice).to(state.dtype)
        silent = torch.einsum("btc,bvc->bvt", self.listening(state), weight[..., 1:]) + weight[..., :1]
        return Logits(pitch.float(), silent.float())
