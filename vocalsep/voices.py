"""The voices of an ensemble: names and ranges of f0, and the short ways to write them ("SATB", 3, a list)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from numbers import Integral
from typing import TypeAlias

from vocalsep.errors import VoicesError, shown
from vocalsep.paths import folded

VOICE_FMIN = 65.0
"""Hz, C2: the lowest f0 of any voice."""
VOICE_FMAX = 1050.0
"""Hz, C6: the highest f0 of any voice."""
MAX_VOICES = 16

_RESERVED_CHARACTERS = re.compile(r'[<>:"/\\|?*]')
# Devices of Windows: nul.wav is one as well.
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_MAX_NAME_BYTES = 200  # file systems allow 255, some are for the suffix


def is_voice_name(name: object) -> bool:
    """Return whether `name` is a text that can be part of a file name on every system."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and name == name.strip()
        and name.strip(". ") != ""
        and not name.startswith(".")
        and not _RESERVED_CHARACTERS.search(name)
        and not _RESERVED_NAMES.fullmatch(name)
        and len(name.encode()) <= _MAX_NAME_BYTES
    )


def to_voice_name(text: str, otherwise: str) -> str:
    """Return `text` with what a voice name cannot hold replaced by "_", or `otherwise` if that is no name either.

    Examples
    --------
    >>> to_voice_name("Alto 1/2", "voice2")
    'Alto 1_2'
    >>> to_voice_name("..", "voice2")
    'voice2'
    """
    printable = "".join(character if character.isprintable() else "_" for character in text.strip())
    name = _RESERVED_CHARACTERS.sub("_", printable)
    return name if is_voice_name(name) else otherwise


@dataclass(frozen=True)
class Voice:
    """One voice of an ensemble.

    Parameters
    ----------
    name
        Name of the voice, used for its stem.
    fmin, fmax
        Range of its f0 in Hz.

    Raises
    ------
    VoicesError
        If the name is empty or cannot be part of a file name on some system (a slash, a colon, CON, NUL, ...), or
        the range is not 0 < fmin < fmax.
    """

    name: str
    fmin: float = VOICE_FMIN
    fmax: float = VOICE_FMAX

    def __post_init__(self) -> None:
        if not is_voice_name(self.name):
            raise VoicesError(f"voice name is {shown(self.name)}; expected a name that can be part of a file name")
        try:
            ordered = 0 < float(self.fmin) < float(self.fmax) < float("inf")
        except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: tensors of many numbers
            ordered = False
        if not ordered or isinstance(self.fmin, str) or isinstance(self.fmax, str):
            limits = f"{shown(self.fmin)}-{shown(self.fmax)}"
            raise VoicesError(f"range of {self.name} is {limits} Hz; expected a lower and a higher frequency")


# Ranges of choral writing, widened by about a tone (C4-A5, G3-D5, C3-G4, E2-C4 are the usual ones).
PARTS = {
    "S": Voice("soprano", 220.0, VOICE_FMAX),
    "M": Voice("mezzo", 185.0, 880.0),
    "A": Voice("alto", 155.0, 700.0),
    "T": Voice("tenor", 110.0, 500.0),
    "R": Voice("baritone", 85.0, 415.0),
    "B": Voice("bass", VOICE_FMIN, 350.0),
}
"""Part letter -> voice, from high to low (R is the baritone, since B is the bass)."""

_PART_OF_NAME = {voice.name: voice for voice in PARTS.values()}

VoicesLike: TypeAlias = "str | int | Sequence[str | Voice]"
"""What `parse_voices` understands."""


def parse_voices(voices: VoicesLike) -> tuple[Voice, ...]:
    """Return the voices that a short description stands for.

    Parameters
    ----------
    voices
        * Part letters, high to low: "SATB", "SSA", "TTBB" (letters S, M, A, T, R for baritone, B);
        * a number: that many voices named voice1, voice2, ..., any range, high to low;
        * a text with commas, or a list: names ("soprano, alto"), or names with a range in Hz
          ("lead=200-900, bass=65-300"), or `Voice` objects. Names of parts, also numbered
          ("alto2"), get the part's range, and letters are those of parts ("S, A").

        A part that occurs more than once is numbered from the highest: soprano1, soprano2.

    Raises
    ------
    VoicesError
        If the description is empty, holds unknown letters, names a voice twice or more than `MAX_VOICES` voices.

    Examples
    --------
    >>> [voice.name for voice in parse_voices("SSA")]
    ['soprano1', 'soprano2', 'alto']
    >>> parse_voices("lead=200-900, bass")[0]
    Voice(name='lead', fmin=200.0, fmax=900.0)
    >>> [voice.name for voice in parse_voices(2)]
    ['voice1', 'voice2']
    """
    if isinstance(voices, (bool, bytes)) or not isinstance(voices, (str, Integral, Sequence)):
        raise VoicesError(f"voices is {shown(voices)}; expected part letters such as SATB, names, or a number")
    if isinstance(voices, str):
        number = re.fullmatch(r"\s*([0-9]{1,9})\s*", voices)
        parsed = _numbered(int(number[1])) if number else _parse_text(voices.strip())
    elif isinstance(voices, Integral):
        parsed = _numbered(int(voices))
    else:
        if len(voices) > MAX_VOICES:
            raise VoicesError(f"voices is {shown(voices)}, {len(voices)} voices; expected 1 to {MAX_VOICES}")
        parsed = [item if isinstance(item, Voice) else _parse_name(item) for item in voices]
    if not 1 <= len(parsed) <= MAX_VOICES:
        raise VoicesError(f"voices is {shown(voices)}, {len(parsed)} voices; expected 1 to {MAX_VOICES}")
    return _with_unique_names(parsed)


def _numbered(number: int) -> list[Voice]:
    if not 1 <= number <= MAX_VOICES:
        raise VoicesError(f"number of voices is {shown(number)}; expected 1 to {MAX_VOICES}")
    return [Voice(f"voice{index + 1}") for index in range(number)]


def _parse_text(text: str) -> list[Voice]:
    if "," in text or "=" in text or text.lower() in _PART_OF_NAME:
        return [_parse_name(item) for item in text.split(",") if item.strip()]
    unknown = sorted(set(text.upper()) - set(PARTS))
    if unknown or not text:
        raise VoicesError(
            f"voices is {shown(text)}; expected part letters out of {''.join(PARTS)}, such as SATB, a number, or names "
            "with commas between them"
        )
    return [PARTS[letter] for letter in text.upper()]


def _parse_name(text: str) -> Voice:
    if not isinstance(text, str):
        raise VoicesError(f"a voice is {shown(text)}; expected a name or a Voice")
    name, ranged, span = (part.strip() for part in text.partition("="))
    if not ranged:
        if name in PARTS:
            return PARTS[name]
        part = _PART_OF_NAME.get(name.lower().rstrip("0123456789 "))
        if part is None:
            return Voice(name)
        return part if name.lower() == part.name else Voice(name, part.fmin, part.fmax)
    match = re.fullmatch(r"([0-9.]+)\s*[-\u2013]\s*([0-9.]+)", span)
    try:
        fmin, fmax = (float(limit) for limit in match.groups()) if match else (0.0, 0.0)
    except ValueError:
        fmin = fmax = 0.0
    if not match or fmin <= 0:
        raise VoicesError(f"range of {shown(name)} is {shown(span)}; expected two frequencies in Hz, such as 200-900")
    return Voice(name, fmin, fmax)


def _with_unique_names(voices: list[Voice]) -> tuple[Voice, ...]:
    names = Counter(voice.name for voice in voices)
    counters = {name: count(1) for name, times in names.items() if times > 1}
    numbered = tuple(
        Voice(f"{voice.name}{next(counters[voice.name])}", voice.fmin, voice.fmax)
        if voice.name in counters and voice.name in _PART_OF_NAME
        else voice
        for voice in voices
    )
    counted = Counter(folded(voice.name) for voice in numbered)
    twice = [name for name, times in counted.items() if times > 1]
    if twice:
        raise VoicesError(f"voice {shown(twice[0])} is named more than once; expected a name of its own for each voice")
    return numbered
