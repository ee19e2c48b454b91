"""Exceptions for everything that a user can put right: bad files, bad values, missing weights.

A message says what was found, what is accepted and what to do, in terms of the Python API. `one_line`, `shown` and
`printable` put user-supplied values into messages safely.
"""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes of a file name that are not UTF-8, as Python holds them


class VocalsepError(Exception):
    """Base class of all errors that vocalsep raises on purpose.

    Parameters
    ----------
    message : str
        What was found, what is accepted and what to do.
    parameter : str, optional
        Name of the parameter that the message is about, such as "overwrite". The command line shows its own option
        of that name.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class AudioError(VocalsepError, ValueError):
    """An audio file or array that cannot be used: missing, empty, unreadable, not finite, of a wrong shape."""


class F0Error(VocalsepError, ValueError):
    """F0 tracks that cannot be used: wrong shape, negative or not finite, unreadable CSV or MIDI."""


class VoicesError(VocalsepError, ValueError):
    """A description of voices that cannot be understood."""


class OptionError(VocalsepError, ValueError):
    """An option with an invalid value, such as an unknown device or format."""


class WeightsError(VocalsepError):
    """A checkpoint that is missing, corrupt, or made for another network or version."""


class OutputError(VocalsepError):
    """A file that cannot be written, or other files where the output should go."""


class MissingExtraError(VocalsepError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


def one_line(text: str, limit: int = 80) -> str:
    r"""Return text on one line of printable characters, shortened to `limit` characters.

    Examples
    --------
    >>> one_line("first\n  second"), one_line("soprano" * 3, 10)
    ('first second', 'soprano...')
    """
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text[:10_000].split()))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def shown(value: object) -> str:
    """Return the `repr` of a value for an error message; see `one_line`."""
    try:
        return one_line(repr(value))
    except Exception:  # any class may raise here, and so does an int of thousands of digits
        return f"<{type(value).__name__}>"


def printable(text: object) -> str:
    r"""Return text, such as a path, on one line without control characters.

    Examples
    --------
    >>> print(printable("bell\x07\nline, byte \udce9"))
    bell\x07\nline, byte \xe9
    """
    decoded = _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", str(text))
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in decoded
    )


def reason(error: BaseException) -> str:
    """Return the system's explanation of an error, without the error number and the path."""
    return getattr(error, "strerror", None) or str(error)
