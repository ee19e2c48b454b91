"""The f0 tracks of a recording: those that a user gives, brought onto its grid, or tracked in it."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vocalsep.audio.downmix import Mixdown
from vocalsep.errors import F0Error, shown
from vocalsep.f0.csv import to_array
from vocalsep.f0.polyphonic import DEFAULT_TRACKER, track_mixdown
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE
from vocalsep.voices import MAX_VOICES, VoicesLike, parse_voices

MIN_F0 = 20.0
"""Hz: no voice sings lower; smaller values are taken for mistakes such as flags, and have harmonics without end."""
_SLACK_SECONDS = (0.25, 1.0)
"""Seconds by which the f0s of a recording may be too long (or an array too short) at least and at most."""
_SLACK = 0.02
"""Share of the recording's length by which they may be, between those: trackers differ in how they treat the end."""
_MIN_COVERED = 0.5
"""Share of the recording that F0Tracks must cover. They may end early, since files leave out a rest at the end."""

F0sLike: TypeAlias = "F0Tracks | ArrayLike | None"


def resolve_tracks(
    f0s: F0sLike,
    voices: VoicesLike | None,
    mixdown: Mixdown,
    progress: ProgressCallback = no_progress,
    *,
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    device: str = "auto",
) -> F0Tracks:
    """Return f0 tracks on the grid of a recording, from what the user gave, or tracked in the recording.

    Parameters
    ----------
    f0s
        F0Tracks on any grid, which may end before the recording does (voices then rest); an array (voices, frames)
        in Hz on the 16-ms grid, as long as the recording; None to track.
    voices
        See `voices.parse_voices`. None takes the names of `f0s`, or SATB.
    mixdown
        The recording.
    progress
        Called with "f0" and the fraction of the tracking that is done.
    tracker, device
        What tracks, and where; see `vocalsep.f0.polyphonic.track_mixdown`.

    Raises
    ------
    F0Error
        If the f0s cannot be used, or do not fit the voices or the recording.
    """
    frames = mixdown.n_frames
    if f0s is None:
        progress("f0", 0.0)
        return track_mixdown(
            mixdown,
            "SATB" if voices is None else voices,
            model=tracker,
            device=device,
            progress=lambda fraction: progress("f0", fraction),
        )
    if isinstance(f0s, (str, os.PathLike)):
        raise F0Error(
            f"f0s is the path {shown(str(f0s))}; expected an array or F0Tracks, such as F0Tracks.from_csv gives"
        )
    if isinstance(f0s, F0Tracks):
        tracks = f0s
        if voices is not None:
            tracks = _named(tracks, [voice.name for voice in parse_voices(voices)])
    else:
        tracks = _tracks_of_array(f0s, voices)
    given, wanted = tracks.n_frames * tracks.hop, frames * HOP
    slack = float(np.clip(_SLACK * wanted, *_SLACK_SECONDS))
    shortest = _MIN_COVERED * wanted - slack if isinstance(f0s, F0Tracks) else wanted - slack
    if not shortest <= given <= wanted + slack:
        raise F0Error(
            f"f0s last {given:.2f} s ({tracks.n_frames} frames of {1000 * tracks.hop:g} ms), the recording "
            f"{mixdown.samples / MODEL_SAMPLE_RATE:.2f} s; expected {frames} frames of 16 ms"
        )
    sung = tracks.frequencies[tracks.voiced]
    if sung.size and sung.min() < MIN_F0:
        raise F0Error(f"f0s go down to {sung.min():g} Hz; expected {MIN_F0:g} Hz or more, or 0 = unvoiced")
    return tracks.resampled(HOP, frames)


def _tracks_of_array(f0s: ArrayLike, voices: VoicesLike | None) -> F0Tracks:
    frequencies = to_array(f0s, "f0s", "Hz, shape (voices, frames)")
    shape = frequencies.shape
    if frequencies.ndim == 1:
        frequencies = frequencies[None]
    if frequencies.ndim != 2 or not 1 <= len(frequencies) <= MAX_VOICES:
        raise F0Error(f"f0s have shape {shape}; expected (voices, frames) with 1 to {MAX_VOICES} voices")
    if voices is None:
        voices = "SATB" if len(frequencies) == 4 else len(frequencies)
    return F0Tracks(frequencies, tuple(voice.name for voice in parse_voices(voices)))


def _named(tracks: F0Tracks, names: list[str]) -> F0Tracks:
    """Return the tracks of the voices `names`: by name if they have those names, else in their order."""
    if set(names) <= set(tracks.names):
        return tracks.select(names)
    if len(names) != tracks.n_voices:
        raise F0Error(
            f"f0s have {tracks.n_voices} voices ({', '.join(tracks.names)}); expected {len(names)} ({', '.join(names)})"
        )
    return F0Tracks(tracks.frequencies, tuple(names), tracks.hop, tracks.confidence)
