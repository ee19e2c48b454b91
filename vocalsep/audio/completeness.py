"""Tell whether a file is as long as its headers say.

Decoders play what is there. A recording whose second half is missing would come out as stems that look whole, so
files that were cut short (a broken download, a full card) are refused; where nothing tells the length they cannot be.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAX_CHUNKS = 100_000  # then a file is noise
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # what GUIDs of Wave64 have after the four letters
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
_MOV = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # what an mp4 or QuickTime file begins with
_BOXES = (*_MOV, b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"prft", b"emsg", b"uuid", b"meta", b"udta")


def promised_size(path: Path) -> int | None:
    """Return the least size in bytes that a whole file with these headers has, None where they do not say.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _of_wave(stream, ">" if head[:4] == b"RIFX" else "<")
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return 8 + int.from_bytes(head[4:8], "little")
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return next((at + 8 + size for name, at, size in _chunks(stream, ">") if name == b"SSND"), None)
        end = os.fstat(stream.fileno()).st_size
        if head[:4] == b"riff" and head[4:] == bytes.fromhex("2e91cf11a5d628db04c10000"):
            return _of_wave64(stream, end)
        if head[:4] == b"caff":
            return _of_caf(stream, end)
        if head[:4] == b".snd":
            start, size = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
            return None if _placeholder(size) else start + size
        if head[4:8] in _MOV:
            return _of_mov(stream, end)
        if head[:4] == _EBML:
            return _of_matroska(stream)
        if head == _ASF:
            return _of_asf(stream)
        if head[:4] == b"OggS":
            return _of_ogg(stream, end)
    return None


def _placeholder(size: int) -> bool:
    """Return whether 32 bits are no size but what programs write that do not know it yet: 0, or about 2 or 4 GB."""
    return size == 0 or 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFF0000


def _chunks(stream: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and size (of the body) of the chunks of a RIFF or IFF file."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack(order + "4sI", head)
        yield name, at, size
        at += 8 + size + size % 2


def _of_wave(stream: BinaryIO, order: str) -> int | None:
    large = 0
    for name, at, size in _chunks(stream, order):
        if name == b"ds64":
            stream.seek(at + 16)
            large = int.from_bytes(stream.read(8), "little")
        if name == b"data":
            if size == 0xFFFFFFFF and large:
                return at + 8 + large
            return None if _placeholder(size) else at + 8 + size
    return None


def _of_wave64(stream: BinaryIO, end: int) -> int | None:
    at = 40
    for _ in range(_MAX_CHUNKS):
        if at > end - 24:
            return None
        stream.seek(at)
        head = stream.read(24)
        size = int.from_bytes(head[16:], "little")  # of the chunk with its head
        if head[:4] == b"data" and head[4:16] == _W64_TAIL:
            return at + size
        at += max(24, size + -size % 8)
    return None


def _of_caf(stream: BinaryIO, end: int) -> int | None:
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at > end - 12:
            return None
        stream.seek(at)
        head = stream.read(12)
        name, size = struct.unpack(">4sq", head)
        if name == b"data":
            return at + 12 + size if size >= 0 else None  # -1: up to the end
        if size < 0:
            return None
        at += 12 + size
    return None


def _of_mov(stream: BinaryIO, end: int) -> int | None:
    """Return where the last of the boxes ends that an mp4 or QuickTime file is made of."""
    at = 0
    for _ in range(_MAX_CHUNKS):
        if at >= end - 8:
            return at
        stream.seek(at)
        head = stream.read(16)
        size = int.from_bytes(head[:4], "big")
        if head[4:8] not in _BOXES:
            return at  # what someone has put behind the film
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:
            return None  # 0: up to the end
        at += size
    return None


def _of_asf(stream: BinaryIO) -> int | None:
    """Return the size that the properties of a wma or wmv file give."""
    found = stream.read(1 << 16)
    at = found.find(_ASF_PROPERTIES)
    return int.from_bytes(found[at + 40 : at + 48], "little") if at >= 0 else None


def _of_matroska(stream: BinaryIO) -> int | None:
    stream.seek(4)
    _, size = _ebml_size(stream)
    if size is None:
        return None
    stream.seek(size, os.SEEK_CUR)
    if stream.read(4) != _SEGMENT:
        return None
    _, size = _ebml_size(stream)
    return None if size is None else stream.tell() + size


def _ebml_size(stream: BinaryIO) -> tuple[int, int | None]:
    """Read a number of EBML; return how many bytes it has and its value, None for unknown."""
    first = stream.read(1)
    if not first or not first[0]:
        return 0, None
    length = 9 - first[0].bit_length()
    rest = stream.read(length - 1)
    value = int.from_bytes(first + rest, "big") & (1 << 7 * length) - 1
    return length, None if len(rest) < length - 1 or value == (1 << 7 * length) - 1 else value


def _of_ogg(stream: BinaryIO, end: int) -> int | None:
    """Return where the last page ends, or one byte more than there is where it is not marked as the last."""
    start = max(0, end - 2 * _OGG_PAGE)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return end + 1
    table = tail[at + 27 : at + 27 + tail[at + 26]] if at + 26 < len(tail) else b""
    if not table:
        return end + 1
    last = start + at + 27 + tail[at + 26] + sum(table)
    return last if last > end or tail[at + 5] & 4 else end + 1
