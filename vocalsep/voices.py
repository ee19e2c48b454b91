"""The voices of an ensemble: their names, their ranges of f0, and the short ways to write them ("SATB", 3, a list)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TypeAlias

from vocalsep.errors import VoicesError, shown
from vocalsep.paths import folded, is_file_name, safe_name

VOICE_FMIN = 65.0
"""Lowest f0 of any voice in Hz: C2."""
VOICE_FMAX = 1050.0
"""Highest f0 of any voice in Hz: C6."""
MAX_VOICES = 16
"""Largest number of voices in an ensemble."""


def _error(message: str) -> VoicesError:
    return VoicesError(message, parameter="voices")


@dataclass(frozen=True)
class Voice:
    """One voice of an ensemble.

    Parameters
    ----------
    name : str
        Name of the voice and of its stem.
    fmin, fmax : float
        Range of its f0 in Hz.

    Raises
    ------
    VoicesError
        If the name cannot be part of a file name on some system (empty, a slash, a colon, CON, ...), or the range
        is not 0 < fmin < fmax.
    """

    name: str
    fmin: float = VOICE_FMIN
    fmax: float = VOICE_FMAX

    def __post_init__(self) -> None:
        if not is_file_name(self.name):
            raise _error(f"voice name is {shown(self.name)}; expected a name that can be part of a file name")
        if not 0 < self.fmin < self.fmax < math.inf:
            limits = f"{shown(self.fmin)} to {shown(self.fmax)} Hz"
            raise _error(f"range of {self.name} is {limits}; expected a lower and a higher frequency")


# Ranges of choral writing (C4-A5, G3-D5, C3-G4, E2-C4 are usual), widened by about a tone.
PARTS = {
    "S": Voice("soprano", 220.0, VOICE_FMAX),
    "M": Voice("mezzo", 185.0, 880.0),
    "A": Voice("alto", 155.0, 700.0),
    "T": Voice("tenor", 110.0, 500.0),
    "R": Voice("baritone", 85.0, 415.0),
    "B": Voice("bass", VOICE_FMIN, 350.0),
}
"""Part letter -> voice, from high to low. R is the baritone, since B is the bass."""

_PART_OF_NAME = {voice.name: voice for voice in PARTS.values()}
_NUMBER = r"[0-9]+\.?[0-9]*|\.[0-9]+"

VoicesLike: TypeAlias = "str | int | Sequence[str | Voice]"
"""Descriptions of voices that `parse_voices` accepts."""


def parse_voices(voices: VoicesLike) -> tuple[Voice, ...]:
    """Return the voices that a short description stands for.

    Parameters
    ----------
    voices : str, int or sequence of str or Voice
        * Part letters, high to low: "SATB", "SSA", "TTBB" (letters S, M, A, T, R for baritone, B);
        * a number: that many voices named voice1, voice2, ..., of any range, high to low;
        * a text with commas, or a list: names ("soprano, alto"), names with a range in Hz
          ("lead=200-900, bass=65-300"), part letters ("S, A"), or `Voice` objects. The name of a part, also with a
          number ("alto2"), stands for the part's range.

        A part that occurs more than once is numbered from the highest: soprano1, soprano2.

    Raises
    ------
    VoicesError
        If the description is empty, holds unknown letters, repeats a name, or has more than `MAX_VOICES` voices.

    Examples
    --------
    >>> [voice.name for voice in parse_voices("SSA")]
    ['soprano1', 'soprano2', 'alto']
    >>> parse_voices("lead=200-900, bass")[0]
    Voice(name='lead', fmin=200.0, fmax=900.0)
    >>> [voice.name for voice in parse_voices(2)]
    ['voice1', 'voice2']
    """
    if isinstance(voices, str) and re.fullmatch("[0-9]{1,9}", voices.strip()):
        voices = int(voices)
    if isinstance(voices, Integral):
        parsed = [Voice(f"voice{number + 1}") for number in range(min(int(voices), MAX_VOICES + 1))]
    elif isinstance(voices, str):
        parsed = _parse_text(voices.strip())
    elif isinstance(voices, Sequence):
        parsed = [item if isinstance(item, Voice) else _parse_name(item) for item in voices]
    else:
        raise _error(f"voices is {shown(voices)}; expected part letters such as SATB, names, or a number")
    if not 1 <= len(parsed) <= MAX_VOICES:
        raise _error(f"voices is {shown(voices)}; expected from 1 to {MAX_VOICES} voices")
    return _with_unique_names(parsed)


def to_voice_name(text: str, default: str) -> str:
    """Return a name for a voice: `text` with reserved characters replaced, or `default` if that is not a name either.

    Examples
    --------
    >>> to_voice_name("Alto 1/2", "voice2"), to_voice_name("", "voice2")
    ('Alto 1_2', 'voice2')
    """
    # The suffix keeps a dot at the end of an abbreviation such as "Alt.".
    name = safe_name(f"{text.strip()}.ext").rpartition(".")[0]
    return name if is_file_name(name) else default


def number_repeated(names: Sequence[str]) -> list[str]:
    """Return the names, with a number on each that occurs more than once.

    Examples
    --------
    >>> number_repeated(["alto", "bass", "Alto"])
    ['alto1', 'bass', 'Alto2']
    """
    total, seen = Counter(map(folded, names)), Counter[str]()
    numbered = []
    for name in names:
        seen[folded(name)] += 1
        numbered.append(f"{name}{seen[folded(name)]}" if total[folded(name)] > 1 else name)
    return numbered


def _parse_text(text: str) -> list[Voice]:
    if "," in text or "=" in text or text.lower() in _PART_OF_NAME:
        return [_parse_name(item) for item in text.split(",") if item.strip()]
    if not text or not set(text.upper()) <= set(PARTS):
        letters = ", ".join(f"{letter} {part.name}" for letter, part in PARTS.items())
        raise _error(
            f"voices is {shown(text)}; expected part letters ({letters}), such as SATB, a number, or names with commas "
            "between them"
        )
    return [PARTS[letter] for letter in text.upper()]


def _parse_name(text: str) -> Voice:
    if not isinstance(text, str):
        raise _error(f"a voice is {shown(text)}; expected a name or a Voice")
    name, ranged, span = (part.strip() for part in text.partition("="))
    if ranged:
        match = re.fullmatch(rf"({_NUMBER})\s*[-\u2013]\s*({_NUMBER})", span)
        if not match:
            raise _error(f"range of {shown(name)} is {shown(span)}; expected two frequencies in Hz, such as 200-900")
        return Voice(name, float(match[1]), float(match[2]))
    if name in PARTS:
        return PARTS[name]
    part = _PART_OF_NAME.get(name.lower().rstrip("0123456789 "))
    if part is None:
        return Voice(name)
    return part if name.lower() == part.name else replace(part, name=name)


def _with_unique_names(voices: list[Voice]) -> tuple[Voice, ...]:
    numbered = iter(number_repeated([voice.name for voice in voices if voice.name in _PART_OF_NAME]))
    voices = [replace(voice, name=next(numbered)) if voice.name in _PART_OF_NAME else voice for voice in voices]
    counts = Counter(folded(voice.name) for voice in voices)
    for voice in voices:
        if counts[folded(voice.name)] > 1:
            raise _error(f"voice {shown(voice.name)} is named more than once; expected different names")
    return tuple(voices)
