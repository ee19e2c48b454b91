"""The exceptions that vocalsep raises for what a user can mend: bad files, bad values, missing weights."""


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
