"""Make ogg files the same each time: libsndfile gives every stream a random serial number."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

SERIAL = 0x56534550
"""The number that all our streams have; it only has to differ between streams that are played in parallel."""

_HEADER = 27  # bytes of a page's header before its table of segments
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # bytes with their bits in reverse order


def renumber(path: Path) -> None:
    """Set the serial number of every page of an ogg file to `SERIAL`, in place.

    Raises
    ------
    OSError
        If the file is not made of whole pages, or cannot be read or written.
    """
    with path.open("rb+") as stream:
        while head := stream.read(_HEADER):
            table = stream.read(head[-1])
            if len(head) < _HEADER or head[:4] != b"OggS" or len(table) < head[-1]:
                raise OSError("its end is missing")
            body = stream.read(sum(table))
            if len(body) < sum(table):
                raise OSError("its end is missing")
            page = head[:14] + struct.pack("<I", SERIAL) + head[18:22] + bytes(4) + head[26:] + table + body
            stream.seek(-len(page), os.SEEK_CUR)
            stream.write(page[:22] + struct.pack("<I", page_checksum(page)) + page[26:_HEADER])
            stream.seek(len(page) - _HEADER, os.SEEK_CUR)


def page_checksum(page: bytes) -> int:
    """Return the CRC-32 of a page whose checksum field is 0, as RFC 3533 defines it.

    It is zlib's polynomial with the bits of everything in the other order, and starts from 0 where zlib's starts
    from, and is at last inverted by, all ones.

    Examples
    --------
    >>> hex(page_checksum(b"123456789"))
    '0x89a1897f'
    """
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
