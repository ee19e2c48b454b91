"""Recordings as they are separated: block by block, from the start, as often as it takes.

`audio.reader.AudioReader` is one in a file, `ArrayRecording` one in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from vocalsep.audio import Float32


class Recording(Protocol):
    """A recording that can be gone through more than once."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def samples(self) -> int | None:
        """Number of samples, as far as it is known before they are read."""

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the recording in blocks of shape (channels, size), the last of which may be shorter."""


class ArrayRecording:
    """A recording in memory.

    Parameters
    ----------
    waveform
        Shape (channels, samples), full scale +-1.
    sample_rate
        Hz.
    """

    def __init__(self, waveform: Float32, sample_rate: int) -> None:
        self.waveform = waveform
        self.sample_rate = sample_rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.waveform)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.waveform.shape[1])

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the recording in blocks of shape (channels, size), the last of which may be shorter."""
        for start in range(0, self.samples, size):
            yield self.waveform[:, start : start + size]


class Piece(NamedTuple):
    """A block of a recording and what lies beside it."""

    waveform: Float32
    """Shape (channels, margin + block + margin); silence where the recording has not begun or is over."""
    start: int
    """First sample of the block in the recording."""
    length: int
    """Samples of the block."""


def pieces(recording: Recording, size: int, margin: int) -> Iterator[Piece]:
    """Yield a recording in blocks of `size` samples with `margin` samples, from 1 to `size`, on both sides.

    Examples
    --------
    >>> recording = ArrayRecording(np.arange(1, 6, dtype=np.float32)[None], 16000)
    >>> [piece.waveform.astype(int).tolist() for piece in pieces(recording, 3, 2)]
    [[[0, 0, 1, 2, 3, 4, 5]], [[2, 3, 4, 5, 0, 0]]]
    """
    before = np.zeros((recording.channels, margin), dtype=np.float32)
    start = 0
    blocks = recording.blocks(size)
    block = next(blocks, None)
    while block is not None:
        coming = next(blocks, None)
        after = np.zeros_like(before)
        if coming is not None:
            head = coming[:, :margin]
            after[:, : head.shape[1]] = head
        yield Piece(np.concatenate([before, block, after], axis=1), start, block.shape[1])
        before = block[:, -margin:]
        start += block.shape[1]
        block = coming
