"""Write wav files: RIFF, or RF64 (EBU Tech 3306) beyond 4 GB, without knowing the length beforehand.

libsndfile's writer has to be told which of the two it is to be, and marks files of floats with the time of day. Here
the chunk that RF64 needs for its sizes of 64 bits is reserved as JUNK, as the standard suggests, and the header is
completed at the end; the same samples give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import tags as tags_of
from vocalsep.audio.waveform import Float32

RIFF_LIMIT = (1 << 32) - 1
"""Bytes: the sizes in a RIFF header have 32 bits."""

_PCM, _FLOAT = 1, 3  # codes of the formats
_BITS = {"PCM_16": 16, "PCM_24": 24, "FLOAT": 32}
_DS64 = 28  # bytes of the body of the chunk of sizes


def bytes_per_sample(subtype: str) -> int:
    """Return how many bytes a sample of "PCM_16", "PCM_24" or "FLOAT" takes in one channel."""
    return _BITS[subtype] // 8


class WavFile:
    """A wav file being written.

    Parameters
    ----------
    path
        Of the file, which is overwritten.
    sample_rate
        Hz.
    channels
        At least 1.
    subtype
        "PCM_16", "PCM_24" or "FLOAT".
    tags
        As `tags.cleaned` returns them.

    Raises
    ------
    OSError
        If the file cannot be written; so do all methods.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int, subtype: str, tags: Mapping[str, str]) -> None:
        self._channels = channels
        self._width = bytes_per_sample(subtype)
        self._float = subtype == "FLOAT"
        self._frames = 0
        frame = channels * self._width
        code = _FLOAT if self._float else _PCM
        fmt = struct.pack("<HHIIHH", code, channels, sample_rate, sample_rate * frame, frame, 8 * self._width)
        self._head = _chunk(b"fmt ", fmt + (b"\0\0" if self._float else b""))
        self._tail = tags_of.riff_info(tags)
        self._stream = path.open("wb")
        self._stream.write(self._header())

    def write(self, steps: NDArray[np.int32] | Float32) -> None:
        """Write samples of shape (n, channels): whole numbers in the highest bits of int32, or float32."""
        little = np.ascontiguousarray(steps, dtype="<f4" if self._float else "<i4")
        used = little.view(np.uint8).reshape(-1, 4)[:, 4 - self._width :]
        self._stream.write(used.tobytes())
        self._frames += len(steps)

    def close(self) -> None:
        """Complete the header and close the file."""
        with self._stream:
            if self._frames * self._channels * self._width % 2:
                self._stream.write(b"\0")  # chunks begin at even bytes
            self._stream.write(self._tail)
            self._stream.seek(0)
            self._stream.write(self._header())

    def _header(self) -> bytes:
        data = self._frames * self._channels * self._width
        fact = _chunk(b"fact", struct.pack("<I", min(self._frames, RIFF_LIMIT))) if self._float else b""
        fixed = 4 + 8 + _DS64 + len(self._head) + len(fact) + 8
        size = fixed + data + data % 2 + len(self._tail)
        if size <= RIFF_LIMIT:
            start = struct.pack("<4sI4s", b"RIFF", size, b"WAVE") + _chunk(b"JUNK", bytes(_DS64))
            return start + self._head + fact + struct.pack("<4sI", b"data", data)
        start = struct.pack("<4sI4s", b"RF64", RIFF_LIMIT, b"WAVE")
        start += _chunk(b"ds64", struct.pack("<QQQI", size, data, self._frames, 0))
        return start + self._head + fact + struct.pack("<4sI", b"data", RIFF_LIMIT)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body
