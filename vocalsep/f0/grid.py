"""F0 that a user supplies, checked and brought onto the 16-ms grid of a recording."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vocalsep.errors import F0Error, shown
from vocalsep.f0.tracks import F0Tracks, to_numbers
from vocalsep.timebase import HOP
from vocalsep.voices import VoicesLike, parse_voices

F0sLike: TypeAlias = "F0Tracks | ArrayLike | None"
"""F0 tracks, an array of shape (voices, frames) in Hz on the 16-ms grid, or None to track f0 in the recording."""

_MIN_F0 = 20.0  # Hz: no voice sings lower; smaller values are mistakes such as voicing flags
# F0s may be longer than the recording (an array also shorter) by 2 % of it, at least 0.25 s and at most 1 s: trackers
# treat the end differently. F0Tracks may cover as little as half of it, since files leave out a rest at the end.
_TOLERANCE, _MIN_TOLERANCE, _MAX_TOLERANCE = 0.02, 0.25, 1.0
_MIN_COVERED = 0.5


def on_grid(f0s: F0Tracks | ArrayLike, voices: VoicesLike | None, n_frames: int) -> F0Tracks:
    """Return f0 tracks on the 16-ms grid of a recording of `n_frames` frames.

    F0Tracks may have any hop, and may end before the recording does; the voices then rest. An array must be as long as
    the recording. Without `voices`, F0Tracks keep their names, and an array of four rows is SATB, any other voice1,
    voice2, ... F0 that cannot be used, or does not fit the voices or the recording, raises `F0Error`.
    """
    if isinstance(f0s, F0Tracks):
        tracks = f0s if voices is None else _named(f0s, [voice.name for voice in parse_voices(voices)])
    else:
        tracks = _tracks_from(f0s, voices)
    seconds, expected = tracks.n_frames * tracks.hop, n_frames * HOP
    tolerance = float(np.clip(_TOLERANCE * expected, _MIN_TOLERANCE, _MAX_TOLERANCE))
    shortest = (_MIN_COVERED if isinstance(f0s, F0Tracks) else 1) * expected - tolerance
    if not shortest <= seconds <= expected + tolerance:
        raise F0Error(
            f"f0s last {seconds:.2f} s ({tracks.n_frames} frames of {1000 * tracks.hop:g} ms), but the recording lasts "
            f"{expected:.2f} s; expected {n_frames} frames of 16 ms",
            parameter="f0s",
        )
    voiced = tracks.frequencies[tracks.voiced]
    if voiced.size and voiced.min() < _MIN_F0:
        raise F0Error(
            f"f0s go down to {voiced.min():g} Hz; expected at least {_MIN_F0:g} Hz, or 0 for unvoiced", parameter="f0s"
        )
    return tracks.resampled(HOP, n_frames)


def _tracks_from(f0s: ArrayLike, voices: VoicesLike | None) -> F0Tracks:
    if isinstance(f0s, (str, os.PathLike)):
        raise F0Error(f"f0s is the path {shown(str(f0s))}; read it with F0Tracks.from_csv or from_midi first")
    frequencies = np.atleast_2d(to_numbers(f0s, "f0s"))
    if voices is None and len(frequencies) != 4:
        return F0Tracks(frequencies, tuple(f"voice{row + 1}" for row in range(len(frequencies))))
    named = parse_voices("SATB" if voices is None else voices)
    return F0Tracks(frequencies, tuple(voice.name for voice in named))


def _named(tracks: F0Tracks, names: Sequence[str]) -> F0Tracks:
    """Return the tracks of the voices `names`: by name if they have those names, else in their order."""
    if set(names) <= set(tracks.names):
        return tracks.select(names)
    if len(names) != tracks.n_voices:
        raise F0Error(
            f"f0s have {tracks.n_voices} voices ({', '.join(tracks.names)}), but voices names {len(names)} "
            f"({', '.join(names)})",
            parameter="voices",
        )
    return replace(tracks, names=tuple(names))
