"""Count the frames of mp3 files, and correct what their headers say of their length.

An mp3 file is a row of frames, and its length in samples is only known where an encoder has put it in a frame of its
own (Xing, Info). Where that is missing libsndfile guesses from the bit rate of the first frame and stops there: music
that begins softly and has a variable bit rate would lose its end. It would too where files were joined by hand.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

_KBITS = {  # of a second, by version and index in the header
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by bits of the version
_SEARCH = 1 << 16  # bytes after the tags in which the first frame must begin
_COUNT_KBITS = 9  # index of a bit rate whose frames have room for a count at every sample rate


class Frames(NamedTuple):
    """What the frames of a file tell."""

    start: int
    """Offset in bytes of the first frame with sound."""
    header: bytes
    """The four bytes that this frame begins with."""
    found: int
    """Whole frames with sound that are there."""
    cut: bool
    """Whether the last frame is not whole."""
    promised: int | None
    """Frames with sound that the file's first frame promises, None where it promises nothing."""

    @property
    def samples(self) -> int:
        """In each channel, in all frames that are there."""
        return self.found * self.samples_per_frame

    @property
    def samples_per_frame(self) -> int:
        """In each channel."""
        return _samples_per_frame(self.header)


def count_frames(path: Path) -> Frames | None:
    """Walk through the frames of an mp3 file; return None where it is no plain MPEG layer III.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as stream:
        start = _first_frame(stream)
        if start is None:
            return None
        end = os.fstat(stream.fileno()).st_size
        stream.seek(start)
        first = stream.read(512)
        header, promised = first[:4], _promised(first)
        if promised is not None:
            start += _frame_bytes(header)
        at, found = start, 0
        while at < end:
            stream.seek(at)
            length = _matching(stream.read(4), header)
            if not length:
                at += _junk_bytes(stream, at, header)
                continue
            at += length
            found += at <= end
    return Frames(start, header, found, at > end, promised)


class CountedFile(io.RawIOBase):
    """An mp3 file as it would be with a first frame that gives its true length.

    Parameters
    ----------
    path
        Of the file.
    frames
        What `count_frames` has found in it.
    """

    def __init__(self, path: Path, frames: Frames) -> None:
        self._head = _count_frame(frames)
        self._stream = path.open("rb")
        self._shift = frames.start - len(self._head)
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the current position; return how many bytes were there."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        head = self._head[self._at : self._at + len(view)]
        view[: len(head)] = head
        read = len(head)
        if read < len(view):
            self._stream.seek(self._at + read + self._shift)
            read += self._stream.readinto(view[read:])
        self._at += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: 0}[whence]
        if whence == os.SEEK_END:
            base = os.fstat(self._stream.fileno()).st_size - self._shift
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


def _first_frame(stream: BinaryIO) -> int | None:
    """Return the offset of the first frame that another one follows, after any ID3v2 tags."""
    at = 0
    while (head := stream.read(10))[:3] == b"ID3" and len(head) == 10:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)
        stream.seek(at)
    stream.seek(at)
    found = stream.read(_SEARCH)
    for start in range(len(found) - 3):
        length = found[start] == 0xFF and _frame_bytes(found[start : start + 4])
        if length:
            stream.seek(at + start + length)
            if _matching(stream.read(4), found[start : start + 4]):
                return at + start
    return None


def _frame_bytes(header: bytes) -> int:
    """Return the length in bytes of the frame that begins with four bytes; 0 if they begin none of layer III."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate, kbits = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate == 3 or kbits in (0, 15):
        return 0
    per_second = 1000 * _KBITS[1 if version == 3 else 2][kbits]
    return _samples_per_frame(header) // 8 * per_second // _RATES[version][rate] + (header[2] >> 1 & 1)


def _samples_per_frame(header: bytes) -> int:
    return 1152 if header[1] & 8 else 576


def _matching(header: bytes, first: bytes) -> int:
    """Return the length of a frame if its version and sample rate are those of the first, else 0."""
    if len(header) < 4 or header[1] & 0xFE != first[1] & 0xFE or header[2] & 0x0C != first[2] & 0x0C:
        return 0
    return _frame_bytes(header)


def _junk_bytes(stream: BinaryIO, at: int, first: bytes) -> int:
    """Return how many bytes, at least one, lie before the next frame that another one follows, as far as one looks."""
    stream.seek(at)
    found = stream.read(_SEARCH)
    step = found.find(b"\xff", 1)
    while 0 < step < len(found) - 3:
        length = _matching(found[step : step + 4], first)
        if length:
            stream.seek(at + step + length)
            if _matching(stream.read(4), first):
                return step
        step = found.find(b"\xff", step + 1)
    return max(1, len(found) - 3)


def _tag_offset(header: bytes) -> int:
    """Return where in a frame a Xing tag stands: after the header and the side information."""
    mono = header[3] >> 6 == 3
    return 4 + ((17 if mono else 32) if header[1] & 8 else (9 if mono else 17))


def _promised(first: bytes) -> int | None:
    at = _tag_offset(first)
    if first[at : at + 4] not in (b"Xing", b"Info") or len(first) < at + 12 or not first[at + 7] & 1:
        return None
    return int.from_bytes(first[at + 8 : at + 12], "big")


def _count_frame(frames: Frames) -> bytes:
    first = frames.header
    header = bytes([0xFF, first[1] | 1, _COUNT_KBITS << 4 | first[2] & 0x0C, first[3]])
    tag = b"Xing" + (1).to_bytes(4, "big") + frames.found.to_bytes(4, "big")
    return (header + bytes(_tag_offset(header) - 4) + tag).ljust(_frame_bytes(header), b"\0")
