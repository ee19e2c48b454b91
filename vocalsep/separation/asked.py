"""What follows from the options of a separation: the names of its stems, and how often f0 is refined."""

from __future__ import annotations

from numbers import Integral

from vocalsep.errors import OptionError, shown
from vocalsep.f0.tracks import F0Tracks
from vocalsep.voices import VoicesLike, parse_voices

DEFAULT_REFINE = 1
"""Refinements of f0 that is tracked in the mixture: one pays on the development split, a second adds nothing."""
RESIDUAL = "residual"
"""Name of the stem of what sounds while no voice sings."""
_MAX_REFINE = 10  # each takes as long as the separation


def refinements(refine: int | None, given: bool) -> int:
    """Return how many times f0 is refined.

    Parameters
    ----------
    refine
        What is asked for; None for the default.
    given
        Whether f0 is given.

    Raises
    ------
    OptionError
        If it is no number from 0 to 10.
    """
    if refine is None:
        # What a user gives, or has corrected, stays as it is.
        return 0 if given else DEFAULT_REFINE
    if isinstance(refine, bool) or not isinstance(refine, Integral) or not 0 <= refine <= _MAX_REFINE:
        raise OptionError(f"refine is {shown(refine)}; expected a number from 0 to {_MAX_REFINE}")
    return int(refine)


def stem_names(tracks: F0Tracks | None, voices: VoicesLike | None, residual: bool) -> list[str]:
    """Return the names that the stems of a recording will have.

    Raises
    ------
    OptionError
        If there is to be a residual and a voice has its name.
    """
    if voices is None and tracks is not None:
        names = list(tracks.names)
    else:
        names = [voice.name for voice in parse_voices("SATB" if voices is None else voices)]
    if residual and RESIDUAL in [name.casefold() for name in names]:
        raise OptionError(f"a voice is named {RESIDUAL!r}, the name of the stem of what no voice sings")
    return [*names, RESIDUAL] if residual else names
