"""File names that are safe on every system and short enough for every file system.

The rules are those of Windows, the strictest system, so that the same input gets the same names everywhere.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from vocalsep.errors import OptionError, shown

MAX_BYTES = 249
"""Bytes of UTF-8 in the name of a file or folder: file systems allow 255, and temporary names need 6 more."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes of a file name that are not UTF-8, as Python holds them
_RESERVED_CHARACTERS = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
# Devices of Windows, also with a suffix: nul.wav.
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_FIELD = re.compile(r"\{(track|stem|ext)\}")
_DIGEST = 8  # hexadecimal digits in place of the end of a long name
_MIN_TRACK_BYTES = 16  # a few letters and the digits


def folded(name: str) -> str:
    """Return a form of a name that is equal for two names if some file system treats them as equal."""
    # Folding case can decompose characters again, so normalise before and after.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_name(name: str, limit: int = MAX_BYTES) -> str:
    r"""Return a name that every system can give to a file or folder.

    Reserved characters become "_", and bytes that are not text become "%" and their hexadecimal digits. Leading dots,
    trailing dots and trailing spaces are removed. Letters are composed (NFC). A name of more than `limit` bytes is cut
    and ends in digits that depend on all of it.

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
    return f"{text.encode()[: limit - _DIGEST - 1].decode(errors='ignore')}~{digest}"


def is_file_name(name: object) -> bool:
    """Return whether a name is printable text that, before a suffix, every system can give to a file."""
    if not isinstance(name, str) or not name.isprintable() or name != name.strip():
        return False
    file = unicodedata.normalize("NFC", f"{name}.ext")
    return safe_name(file, 204) == file


def validate_template(filename: str, audio_format: str) -> None:
    """Raise OptionError if a template has other fields or suffixes, or leads out of the output folder."""
    if re.search("[{}]", _FIELD.sub("", filename)):
        raise _error(filename, "a template with no other fields than {track}, {stem} and {ext}")
    path = Path(filename.format(track="track", stem="stem", ext=audio_format))
    if path.anchor or ".." in path.parts:
        raise _error(filename, "a path inside the output folder")
    if path.suffix.lower() != f".{audio_format}":
        raise _error(filename, "it to end in .{ext}")


def stem_paths(track: str, stems: Iterable[str], *, filename: str, audio_format: str) -> dict[str, PurePosixPath]:
    """Return the path of each stem inside the output folder.

    Parameters
    ----------
    track : str
        Name of the recording. It is made safe, and shortened where a file system could not hold it.
    stems : iterable of str
        Names of the stems.
    filename : str
        Template of the paths; see `vocalsep.options.OutputOptions`.
    audio_format : str
        Suffix of the stems, without the dot.

    Raises
    ------
    OptionError
        If the template cannot be used, or gives two stems the same path.

    Examples
    --------
    >>> stem_paths("Ave: Maria", ["alto"], filename="{track}/{stem}.{ext}", audio_format="wav")
    {'alto': PurePosixPath('Ave_ Maria/alto.wav')}
    """
    validate_template(filename, audio_format)
    names = {stem: safe_name(stem) for stem in stems}
    longest = max(names.values(), key=lambda name: len(name.encode()))
    limit = MAX_BYTES
    for part in filename.split("/"):
        if "{track}" in part:
            fixed = part.format(track="", stem=longest, ext=audio_format)
            limit = min(limit, (MAX_BYTES - len(fixed.encode())) // part.count("{track}"))
    if limit < _MIN_TRACK_BYTES:
        raise _error(filename, "a shorter template")
    name = safe_name(track, limit)
    paths = {
        stem: PurePosixPath(filename.format(track=name, stem=safe, ext=audio_format)) for stem, safe in names.items()
    }
    if len({folded(str(path)) for path in paths.values()}) < len(paths):
        raise _error(filename, "{stem} in it, so that every stem has its own path")
    return paths


def _error(filename: str, expected: str) -> OptionError:
    return OptionError(f"filename is {shown(filename)}; expected {expected}", parameter="filename")
