"""Tags: what a file says of its music, so that the stems can say it too.

They are a courtesy: none is ever a reason to refuse a file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

KEYS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright", "license")
"""The tags that are read and written, under libsndfile's names."""

_MAX_BYTES = 2000  # of each, in UTF-8; libsndfile reads none of a wav that has a longer one

# Names of the tags in RIFF's INFO list and in ID3v2.4.
_INFO = {
    "title": b"INAM",
    "artist": b"IART",
    "album": b"IPRD",
    "date": b"ICRD",
    "tracknumber": b"ITRK",
    "genre": b"IGNR",
    "comment": b"ICMT",
    "copyright": b"ICOP",
}
_ID3 = {
    "title": b"TIT2",
    "artist": b"TPE1",
    "album": b"TALB",
    "date": b"TDRC",
    "tracknumber": b"TRCK",
    "genre": b"TCON",
    "comment": b"COMM",
    "copyright": b"TCOP",
}


def cleaned(found: Mapping[str, object]) -> dict[str, str]:
    r"""Return the tags that can be written: known names, text without zero bytes and of bounded length.

    Parameters
    ----------
    found
        Tags by name in any case, whose values may be anything.

    Examples
    --------
    >>> cleaned({"TITLE": " Locus iste\0", "artist": "", "mood": "calm"})
    {'title': 'Locus iste'}
    """
    by_name = {name.lower(): value for name, value in found.items()}
    kept = {}
    for name in KEYS:
        value = by_name.get(name)
        if isinstance(value, str):
            text = value.split("\0")[0].encode(errors="replace")[:_MAX_BYTES].decode(errors="ignore").strip()
            if text:
                kept[name] = text
    return kept


def riff_info(tags: Mapping[str, str]) -> bytes:
    """Return cleaned tags as the LIST chunk of a wav file, with its header; nothing where there are none."""
    items = b""
    for name, key in _INFO.items():
        if name in tags:
            text = tags[name].encode() + b"\0"
            items += key + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    return b"LIST" + struct.pack("<I", 4 + len(items)) + b"INFO" + items if items else b""


def id3(tags: Mapping[str, str]) -> bytes:
    """Return cleaned tags as an ID3v2.4 tag, which an mp3 file begins with; nothing where there are none."""
    frames = b""
    for name, key in _ID3.items():
        if name in tags:
            # The 3 says that the text is UTF-8; a comment has a language and a description of its own.
            body = b"\3" + (b"und\0" if key == b"COMM" else b"") + tags[name].encode()
            frames += key + _synchsafe(len(body)) + b"\0\0" + body
    return b"ID3\4\0\0" + _synchsafe(len(frames)) + frames if frames else b""


def _synchsafe(number: int) -> bytes:
    """Return 28 bits in four bytes whose highest bits are 0, so that none looks like the start of an mp3 frame."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))
