"""F0 of single voices ("CREPE per voice"), in stems or guides of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.chunks import chunks
from vocalsep.errors import OptionError
from vocalsep.f0.crepe import WINDOW, Crepe, activations, decode
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP_LENGTH

# Both were chosen on singers 1 and 2 of the development split. The level keeps breath and bleed from counting as voice.
VOICING_THRESHOLD = 0.5
"""Periodicity from which a frame counts as voiced."""
_SILENCE_DB = -45.0  # below the 95th percentile of frame levels

# Viterbi paths are found a minute at a time; with 4 s of context they agree with that of the whole recording.
_CHUNK_FRAMES, _CONTEXT_FRAMES = 3750, 250
_WINDOW_FRAMES = 4  # more than half a window of CREPE


class MonophonicF0(NamedTuple):
    """F0 of a single voice on the 16-ms grid."""

    f0: Float32
    """Hz, shape (frames,), for every frame, voiced or not."""
    periodicity: Float32
    """Activation on the path in [0, 1], shape (frames,): near 1 for a clear pitch."""
    level: Float32
    """RMS of the window around each frame, full scale 1, shape (frames,)."""


def track(downmix: Downmix, network: Crepe) -> MonophonicF0:
    """Track a single voice in a recording of any length."""
    parts = []
    for chunk in chunks(downmix.n_frames, _CHUNK_FRAMES, _CONTEXT_FRAMES):
        start = chunk.low - _WINDOW_FRAMES
        waveform = downmix.read(start * HOP_LENGTH, (chunk.high + _WINDOW_FRAMES) * HOP_LENGTH - 1)
        frames = slice(_WINDOW_FRAMES, _WINDOW_FRAMES + chunk.high - chunk.low)
        f0, periodicity = decode(activations(waveform, network)[frames])
        level = _frame_level(waveform, chunk.high + _WINDOW_FRAMES - start)[frames]
        parts.append(MonophonicF0(*(values[chunk.inner] for values in (f0, periodicity, level))))
    return MonophonicF0(*map(np.concatenate, zip(*parts, strict=True)))


def voiced_f0(voice: MonophonicF0, threshold: float = VOICING_THRESHOLD) -> Float32:
    """Return f0 in Hz, shape (frames,), with 0 where periodicity is below `threshold` or the voice is silent.

    Periodicity is smoothed by a median over 3 frames, so that a single frame does not break a note.
    """
    if not 0 <= threshold <= 1:
        raise OptionError(f"threshold is {threshold}; expected a number from 0 to 1", parameter="threshold")
    padded = np.pad(voice.periodicity, 1, mode="edge")
    smooth = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    loud = voice.level > np.percentile(voice.level, 95) * 10 ** (_SILENCE_DB / 20)
    return np.where((smooth >= threshold) & loud, voice.f0, 0).astype(np.float32)


def f0_from_downmixes(
    downmixes: Mapping[str, Downmix], network: Crepe, threshold: float = VOICING_THRESHOLD
) -> F0Tracks:
    """Track every voice in a recording of it alone; the recordings go by the names of the voices, high to low.

    The tracks are as long as the longest recording, and their confidence is CREPE's periodicity.
    """
    voices = [track(downmix, network) for downmix in downmixes.values()]
    frames = max(len(voice.f0) for voice in voices)
    f0, periodicity = (
        np.stack([np.pad(row, (0, frames - len(row))) for row in rows])
        for rows in ([voiced_f0(voice, threshold) for voice in voices], [voice.periodicity for voice in voices])
    )
    return F0Tracks(f0, tuple(downmixes), confidence=periodicity)


def _frame_level(waveform: Float32, frames: int) -> Float32:
    padded = np.pad(waveform.astype(np.float64), (WINDOW // 2, WINDOW // 2 + HOP_LENGTH))
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.minimum(np.arange(frames) * HOP_LENGTH, len(padded) - WINDOW)
    power: NDArray[np.float64] = np.maximum(energy[starts + WINDOW] - energy[starts], 0) / WINDOW
    return np.sqrt(power).astype(np.float32)
