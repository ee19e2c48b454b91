"""The network that knows who sings what: mixture and voices -> posterior of every voice over pitches and silence.

What it sees are log-magnitude spectra at multiples of every pitch of a logarithmic grid (the "harmonic" stack of
R. Bittner, B. McFee, J. Salamon, P. Li, J. P. Bello, "Deep salience representations for f0 estimation in polyphonic
music", ISMIR 2017), so that a note looks alike wherever it lies. A U-Net along frequency finds notes; a recurrent
layer at its bottom hears seconds of all registers at once and learns which of them belong together.

Voices are no fixed outputs. Each is described by its range and its rank among the voices asked for, and the
description is turned into the weights that read its posterior off the common features: one network serves SATB, SSA,
TTBB, or three voices of which nothing is known but their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vocalsep import weights
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import WeightsError
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
    """What describes a tracker network.

    Parameters
    ----------
    fmin
        Hz, the lowest pitch of the grid.
    bins_per_octave, n_bins
        The grid; `n_bins` must be a multiple of 2 ** len(channels).
    harmonics
        Multiples of each pitch at which spectra are sampled.
    windows
        Lengths in seconds of their windows.
    channels
        Of the levels of the U-Net along frequency, from fine to coarse; each halves the pitches.
    hidden
        Units of the recurrent layer in each direction.
    summary
        Channels in which the recurrent layer hands what it heard to the decoder.
    features
        Common features of every pitch, from which voices are read.
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
        # A window is a spectrum of as many samples: a long one would take all memory.
        if max(self.windows) > 2 or min(self.windows) < 1e-3 or max(self.harmonics) > 64:
            raise ValueError("expected windows of 1 ms to 2 s and harmonics up to 64")
        if not 10 <= self.fmin <= 8000 or self.n_bins > 12 * self.bins_per_octave:
            raise ValueError("expected fmin from 10 to 8000 Hz and a grid of 12 octaves at most")
        if self.n_bins % 2 ** len(self.channels):
            raise ValueError("expected n_bins that halve once for each of the channels")

    @property
    def n_inputs(self) -> int:
        """Channels of the harmonic stack."""
        return len(self.harmonics) * len(self.windows)

    def pitches(self) -> Tensor:
        """Return the grid in Hz, shape (pitches,)."""
        return self.fmin * torch.exp2(torch.arange(self.n_bins, dtype=torch.float64) / self.bins_per_octave)

    def grids(self) -> tuple[StftGrid, ...]:
        """Return the grids of the STFTs that are sampled."""
        return tuple(StftGrid.of_duration(MODEL_SAMPLE_RATE, window) for window in self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a table for a checkpoint."""
        return {"network": "tracker", **asdict(self)}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> TrackerConfig:
        """Return the configuration that a checkpoint holds.

        Raises
        ------
        WeightsError
            If the checkpoint is not one of a tracker.
        """
        own: dict[str, Any] = {key: value for key, value in table.items() if key != "network"}
        if table.get("network") != "tracker" or set(own) != set(cls.__dataclass_fields__):
            raise WeightsError("these weights are not those of a tracker; expected some that `vocalsep train-f0` made")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in own.items()}
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"the configuration of the tracker is damaged ({error})") from error


def normalised(waveform: Tensor) -> Tensor:
    """Return recordings, shape (..., samples), with loud passages at an RMS of 1; silent ones as they are."""
    blocks = max(1, waveform.shape[-1] // LEVEL_BLOCK)
    length = min(waveform.shape[-1], blocks * LEVEL_BLOCK)
    energy = waveform[..., :length].reshape(*waveform.shape[:-1], blocks, -1).square().mean(dim=-1)
    return waveform * loudness_gain(energy)


def loudness_gain(energy: Tensor) -> Tensor:
    """Return the factor that brings loud passages to an RMS of 1, shape (..., 1); 1 for silence.

    Parameters
    ----------
    energy
        Mean square of every whole block of `LEVEL_BLOCK` samples, shape (..., blocks).
    """
    rank = math.ceil(_LEVEL_QUANTILE * energy.shape[-1])
    level = energy.kthvalue(rank, dim=-1, keepdim=True).values.sqrt()
    # A single note in a long silence is loud, although nearly all blocks are silent.
    level = torch.maximum(level, 0.1 * energy.amax(dim=-1, keepdim=True).sqrt())
    return torch.where(level > _SILENCE, 1 / level.clamp_min(_SILENCE), torch.ones_like(level))


def harmonic_stack(waveform: Tensor, config: TrackerConfig, first: int = 0, last: int | None = None) -> Tensor:
    """Return log-magnitudes at the multiples of every pitch, of about mean 0 and deviation 1.

    Parameters
    ----------
    waveform
        Shape (..., samples) at 16 kHz, at the level that `normalised` gives.
    config
        Of the network.
    first, last
        Frames first ... last - 1 are returned; all by default.

    Returns
    -------
    Tensor
        Shape (..., windows * harmonics, pitches, frames).
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
    """Return what the network is told of each voice, shape (voices, 5): range, rank, number of voices."""
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
    """Unnormalised log-probabilities of what a voice does in a frame."""

    pitch: Tensor
    """That it sings each pitch, shape (batch, voices, frames, pitches)."""
    silent: Tensor
    """That it is unvoiced, shape (batch, voices, frames)."""


def _convolution(inputs: int, outputs: int, *, stride: int = 1, height: int = 3, width: int = 3) -> nn.Sequential:
    """Return a convolution over (pitches, frames), with a stride along pitches, normalisation and GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (height, width), (stride, 1), (height // 2, width // 2), bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


class Tracker(nn.Module):
    """The network.

    Parameters
    ----------
    config
        What describes it.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TrackerConfig()
        levels, summary, state = self.config.channels, self.config.summary, 2 * self.config.hidden
        bottom = self.config.n_bins >> len(levels)
        self.stem = _convolution(self.config.n_inputs, levels[0], stride=2, height=5)
        self.down = nn.ModuleList(_convolution(a, b, stride=2) for a, b in pairwise(levels))
        self.encoder = nn.ModuleList(_convolution(c, c) for c in levels)
        # The bottom as a sequence in time: what sounds in all registers, for seconds before and after.
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
        # Convolutions take half the time on CPUs with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, stack: Tensor, voices: Tensor) -> Logits:
        """Return what every voice does in every frame.

        Parameters
        ----------
        stack
            What `harmonic_stack` returns, shape (batch, windows * harmonics, pitches, frames).
        voices
            What `describe` returns, shape (batch, voices, 5).
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
        ear = self.silence(voice).to(state.dtype)
        silent = torch.einsum("btc,bvc->bvt", self.listening(state), ear[..., 1:]) + ear[..., :1]
        return Logits(pitch.float(), silent.float())


def load_tracker(model: str, device: str = "cpu") -> Tracker:
    """Load a tracker, ready for inference; `vocalsep.weights.names` says what `model` may be.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of a tracker.
    """
    return weights.load_network(model, device, _build, "tracker")


def read_tracker(model: str) -> Tracker:
    """Return a tracker with the weights of a checkpoint, to train further; errors are those of `load_tracker`."""
    return weights.read_network(model, _build, "tracker")


def _build(config: dict[str, Any]) -> Tracker:
    return Tracker(TrackerConfig.from_json(config))
