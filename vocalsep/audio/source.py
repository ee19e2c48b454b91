"""What the decoders tell of a file, and which file it was."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vocalsep.errors import AudioError, printable


class Description(NamedTuple):
    """What the header of a file says."""

    sample_rate: int
    """Hz."""
    channels: int
    """At least 1 where the file is sound."""
    samples: int | None
    """In each channel, None where unknown."""
    bit_depth: str
    """"16", "24" or "float32": what stems of the file should have."""
    tags: Mapping[str, str]
    """Title, artist, ... as `tags.cleaned` leaves them."""
    least: int
    """Samples that must be found: with fewer the file is cut short."""


class Identity(NamedTuple):
    """What tells whether a file is still the one that it was."""

    device: int
    inode: int
    size: int
    modified: int


def identify(path: Path) -> Identity:
    """Return which file lies at `path`, without opening it: a FIFO or a device would hang or never end.

    Raises
    ------
    AudioError
        If there is none, or what lies there is no file or empty.
    OSError, ValueError
        If the path cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{printable(path)}: no such file; expected an audio file") from None
    if not stat.S_ISREG(found.st_mode):
        raise AudioError(f"{printable(path)}: is a folder or a device; expected an audio file")
    if not found.st_size:
        raise AudioError(f"{printable(path)}: is empty (0 bytes); expected an audio file")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
