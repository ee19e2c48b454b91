"""Names of files: safe on every system, short enough for every file system, and comparable as file systems do.

The same input has the same names everywhere, so they follow the strictest of the systems, Windows, on all of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from string import Formatter

from vocalsep.errors import OptionError

FILENAME = "{track}/{stem}.{ext}"
"""Template of the path of a stem inside the output folder, as in Demucs."""

MAX_BYTES = 255
"""Bytes of UTF-8 that the name of a file or folder may have on nearly every file system."""

TEMPORARY_BYTES = 8
"""Of those, bytes that are kept for what the temporary name of a file has beyond its own."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes of a file name that are not UTF-8, as Python holds them
_RESERVED_CHARACTERS = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
# Devices of Windows: nul.wav is one as well.
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_DIGEST = 8  # hexadecimal digits that stand for what is cut off a long name
_LEAST = 16  # bytes that must be left for the track: a dozen letters and the digits


def folded(name: str) -> str:
    """Return the form in which two names are equal if some file system treats them as equal."""
    # Folding case can decompose characters again, so normalise before and after.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_name(name: str, limit: int = MAX_BYTES) -> str:
    r"""Return a name that every system can give to a file or folder.

    Reserved characters become "_", bytes that are no text their hexadecimal digits behind "%"; composed and decomposed
    letters are one name; leading dots, which hide files, and trailing dots and spaces go.

    Parameters
    ----------
    name
        Any text.
    limit
        Bytes of UTF-8 that it may have; longer ones are cut and end in digits that depend on the whole.

    Examples
    --------
    >>> safe_name("Agnus: Dei?"), safe_name("nul.take1"), safe_name("..."), safe_name("caf\udce9")
    ('Agnus_ Dei_', '_nul.take1', '_', 'caf%E9')
    >>> safe_name("a" * 300, 20)
    'aaaaaaaaaaa~9835fa6b'
    """
    decoded = _SURROGATE.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)
    text = _RESERVED_CHARACTERS.sub("_", unicodedata.normalize("NFC", decoded)).rstrip(". ")
    if text.startswith("."):
        text = "_" + text.lstrip(".")
    if not text or _RESERVED_NAMES.fullmatch(text):
        text = "_" + text
    if len(text.encode()) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    short = text.encode()[: limit - _DIGEST - 1].decode(errors="ignore")
    return f"{short}~{digest}"


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path without links, as far as it can be followed; any text has one."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # too long, or with a zero byte: whoever opens it says so
        return os.path.abspath(path)  # noqa: PTH100


def validate_template(filename: str, audio_format: str) -> None:
    """Check a template of the paths of stems.

    Raises
    ------
    OptionError
        If it has fields other than {track}, {stem} and {ext}, leads out of its folder, or has another suffix.
    """
    if not _is_template(filename):
        raise OptionError(f"filename is {filename!r}; expected a template of {{track}}, {{stem}} and {{ext}}")
    path = Path(filename.format(track="track", stem="stem", ext=audio_format))
    if path.anchor or ".." in path.parts:  # C:x has an anchor, too
        raise OptionError(f"filename is {filename!r}, which leads out of the output folder")
    if path.suffix.lower() != f".{audio_format}":
        raise OptionError(f"filename is {filename!r}; expected it to end in .{{ext}}")


def stem_paths(
    track: str, stems: Iterable[str], *, filename: str = FILENAME, audio_format: str = "wav"
) -> tuple[str, dict[str, PurePosixPath]]:
    """Return the place of a track inside the output folder, the same for all stems, and the path of each by its name.

    Parameters
    ----------
    track
        Name of the recording, made safe and, where a path would be too long for a file system, short.

    Raises
    ------
    OptionError
        If the template cannot be used, or gives two stems one path.

    Examples
    --------
    >>> stem_paths("Ave: Maria", ["alto"])
    ('Ave_ Maria/.', {'alto': PurePosixPath('Ave_ Maria/alto.wav')})
    """
    validate_template(filename, audio_format)
    names = {stem: safe_name(stem) for stem in stems}
    room = min(_room(filename.format(track="\0", stem=name, ext=audio_format)) for name in names.values())
    if room < _LEAST:
        raise OptionError(
            f"filename is {filename!r}, which cannot be a file (File name too long); choose another --filename"
        )
    name = safe_name(track, room)
    paths = {
        stem: PurePosixPath(filename.format(track=name, stem=safe, ext=audio_format)) for stem, safe in names.items()
    }
    if len({folded(str(path)) for path in paths.values()}) < len(paths):
        raise OptionError(f"filename is {filename!r}, the same for every stem; expected {{stem}} in it")
    return filename.format(track=name, stem="", ext=""), paths


def _room(path: str) -> int:
    """Return the bytes left for a track, whose place a zero byte marks, in the components of a path."""
    *folders, file = path.split("/")
    components = [(folder, MAX_BYTES) for folder in folders] + [(file, MAX_BYTES - TEMPORARY_BYTES)]
    room = MAX_BYTES
    for component, limit in components:
        places = component.count("\0")
        left = limit - len(component.encode()) + places
        room = min(room, left // places if places else MAX_BYTES if left >= 0 else 0)
    return room


def _is_template(filename: str) -> bool:
    """Return whether a template has no fields but the plain {track}, {stem} and {ext}.

    Attributes ({track.__class__}), items, conversions and widths are no business of a file name.
    """
    try:
        parts = list(Formatter().parse(filename))
        filename.encode()
    except ValueError:
        return False
    known = all(
        field is None or (field in ("track", "stem", "ext") and not width and not conversion)
        for _, field, width, conversion in parts
    )
    return known and "\0" not in filename
