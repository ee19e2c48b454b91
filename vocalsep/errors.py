"""The exceptions that vocalsep raises for what a user can mend: bad files, bad values, missing weights.

Their messages are one sentence of bounded length; `shown` and `one_line` put in what was got.
"""

from __future__ import annotations

import re

SURROGATE = re.compile("[\ud800-\udfff]")
"""Bytes of a file name that are no text, as Python holds them."""


class VocalsepError(Exception):
    """Base of all errors raised on purpose; its message says what was got and what is expected."""


class AudioError(VocalsepError, ValueError):
    """An audio file or array that cannot be used: empty, unreadable, not finite, of a wrong shape."""


class F0Error(VocalsepError, ValueError):
    """F0 tracks that cannot be used: wrong shape, negative or not finite, unreadable CSV or MIDI."""


class VoicesError(VocalsepError, ValueError):
    """A description of voices that cannot be understood."""


class WeightsError(VocalsepError):
    """A checkpoint that is missing, corrupt, or not for this version of vocalsep."""


class ParameterError(VocalsepError, ValueError):
    """An option outside its range, such as an unknown device, format or model name."""


class MissingExtraError(VocalsepError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


def one_line(text: str, limit: int = 80) -> str:
    r"""Return a text as error messages tell it: in one line of printable characters, cut after `limit` of them.

    Examples
    --------
    >>> one_line("first\n  second"), one_line("soprano" * 3, 10)
    ('first second', 'soprano...')
    """
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text[:10_000].split()))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def shown(value: object) -> str:
    """Return how Python writes a value as error messages tell it; see `one_line`."""
    try:
        return one_line(repr(value))
    except Exception:  # whatever a stranger's class raises; Python's own int, if it has thousands of digits
        return f"<{type(value).__name__}>"


def printable(text: object) -> str:
    r"""Return a text, or a path, on one line that any terminal can show and none obeys.

    Examples
    --------
    >>> print(printable("bell\x07\nline, byte \udce9"))
    bell\x07\nline, byte \xe9
    """
    decoded = SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", str(text))
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in decoded
    )


def reason(error: BaseException) -> str:
    """Return why the system refused something, in its own words: without a number, or a path that is told anyway."""
    return getattr(error, "strerror", None) or str(error)
