"""Take a recording of a choir or vocal ensemble apart into its voices.

`separate` works on arrays, `separate_file` and `separate_files` on files; `Separator` loads its networks once for many
recordings. The names are imported when they are first used, so importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from vocalsep.api import f0_from_stems, separate, separate_file, track_polyphonic
    from vocalsep.batch.run import separate_files
    from vocalsep.errors import VocalsepError
    from vocalsep.f0.tracks import F0Tracks
    from vocalsep.separation.result import Separation
    from vocalsep.separation.separator import Separator
    from vocalsep.voices import Voice, parse_voices

__all__ = [
    "F0Tracks",
    "Separation",
    "Separator",
    "VocalsepError",
    "Voice",
    "f0_from_stems",
    "parse_voices",
    "separate",
    "separate_file",
    "separate_files",
    "track_polyphonic",
]

_MODULES = {
    "F0Tracks": "vocalsep.f0.tracks",
    "Separation": "vocalsep.separation.result",
    "Separator": "vocalsep.separation.separator",
    "VocalsepError": "vocalsep.errors",
    "Voice": "vocalsep.voices",
    "f0_from_stems": "vocalsep.api",
    "parse_voices": "vocalsep.voices",
    "separate": "vocalsep.api",
    "separate_file": "vocalsep.api",
    "separate_files": "vocalsep.batch.run",
    "track_polyphonic": "vocalsep.api",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
