"""Recordings that are read block by block from the start, as often as needed: in a file, or in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vocalsep.audio.waveform import Float32


class Recording(Protocol):
    """A recording that can be read more than once, such as an `AudioReader`."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def samples(self) -> int | None:
        """Samples in each channel, as far as that is known before they are read."""

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the samples in blocks of shape (channels, size); the last block may be shorter."""


class ArrayRecording:
    """A recording in memory.

    Parameters
    ----------
    waveform : ndarray, shape (channels, samples)
        Float32 with full scale +-1.
    sample_rate : int
        Hz.
    """

    def __init__(self, waveform: Float32, sample_rate: int) -> None:
        self.waveform = waveform
        self.sample_rate = sample_rate
        self.channels, self.samples = waveform.shape

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the samples in blocks of shape (channels, size); the last block may be shorter."""
        for start in range(0, self.samples, size):
            yield self.waveform[:, start : start + size]
