"""F0 of single voices ("CREPE per voice"), in stems or guides of any length.

A recording is gone through in spans of a minute with 4 s on both sides: memory does not grow with its length. Paths
that begin anywhere have long met by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.audio import Float32, to_model_rate
from vocalsep.audio.downmix import Mixdown
from vocalsep.errors import F0Error, OptionError
from vocalsep.f0.crepe import WINDOW, Crepe, activations, decode, load_crepe
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN

# Chosen on singers 1 and 2 of the development split; the level keeps breath and bleed from counting as voice.
VOICING_THRESHOLD = 0.5
_SILENCE_DB = -45.0  # below the 95th percentile of frame levels

_SPAN_FRAMES, _CONTEXT_FRAMES = 3750, 250  # whose path is found at once, and on both sides
_WINDOW_FRAMES = 4  # beside those: more than half a window of CREPE


class Line(NamedTuple):
    """What CREPE says of a single voice."""

    f0: Float32
    """Hz, shape (frames,), for every frame, voiced or not."""
    periodicity: Float32
    """Activation on the path in [0, 1], shape (frames,): near 1 for a clear pitch."""
    level: Float32
    """RMS of the window around each frame, full scale 1, shape (frames,)."""


def follow(mixdown: Mixdown, network: Crepe, *, fmin: float = VOICE_FMIN, fmax: float = VOICE_FMAX) -> Line:
    """Track a single voice on the 16-ms grid, in a recording of any length.

    Parameters
    ----------
    mixdown
        Of the recording.
    network
        As given by `vocalsep.f0.crepe.load_crepe`.
    fmin, fmax
        Range of the f0 in Hz.
    """
    parts = []
    for first in range(0, mixdown.n_frames, _SPAN_FRAMES):
        last = min(first + _SPAN_FRAMES, mixdown.n_frames)
        low, high = max(0, first - _CONTEXT_FRAMES), min(mixdown.n_frames, last + _CONTEXT_FRAMES)
        start = low - _WINDOW_FRAMES
        waveform = mixdown.read(start * HOP_LENGTH, (high + _WINDOW_FRAMES) * HOP_LENGTH - 1)
        output = decode(activations(waveform, network)[low - start : high - start], fmin=fmin, fmax=fmax)
        kept = slice(first - low, last - low)
        level = _frame_level(waveform, high + _WINDOW_FRAMES - start)[first - start : last - start]
        parts.append(Line(output.f0[kept], output.periodicity[kept], level))
    return Line(*map(np.concatenate, zip(*parts, strict=True)))


def track(
    audio: ArrayLike,
    sample_rate: int,
    *,
    capacity: str = "tiny",
    fmin: float = VOICE_FMIN,
    fmax: float = VOICE_FMAX,
    device: str = "cpu",
) -> Line:
    """Track the f0 of a single voice on the 16-ms grid, voiced or not.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples); channels are mixed.
    sample_rate
        Hz.
    capacity
        "tiny" or "full".
    fmin, fmax
        Range of the f0 in Hz.
    device
        Where CREPE runs.

    Raises
    ------
    AudioError, OptionError, WeightsError
        If the audio, an option, or the weights cannot be used.
    """
    mixdown = Mixdown.of_array(to_model_rate(audio, sample_rate))
    return follow(mixdown, load_crepe(capacity, device), fmin=fmin, fmax=fmax)


def voiced_f0(line: Line, threshold: float = VOICING_THRESHOLD) -> Float32:
    """Return f0 with 0 where periodicity is below `threshold` or the voice is silent.

    Periodicity is smoothed by a median over 3 frames, so that one frame alone does not break a note.

    Parameters
    ----------
    line
        As given by `track`.
    threshold
        In [0, 1].

    Raises
    ------
    OptionError
        If the threshold is outside its range.
    """
    if not 0 <= threshold <= 1:
        raise OptionError(f"voicing threshold is {threshold}; expected a number from 0 to 1")
    padded = np.pad(line.periodicity, 1, mode="edge")
    smooth = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    loud = line.level > np.percentile(line.level, 95) * 10 ** (_SILENCE_DB / 20)
    return np.where((smooth >= threshold) & loud, line.f0, 0).astype(np.float32)


def f0_from_stems(
    stems: Mapping[str, ArrayLike] | Sequence[ArrayLike],
    sample_rate: int = MODEL_SAMPLE_RATE,
    *,
    capacity: str = "tiny",
    threshold: float = VOICING_THRESHOLD,
    device: str = "cpu",
) -> F0Tracks:
    """Track every voice of an ensemble from a recording of it alone ("CREPE per voice").

    The recordings may be stems, or guides: a rehearsal take, a line played or hummed in time with the choir.

    Parameters
    ----------
    stems
        Name -> waveform, or a list of waveforms (named voice1, voice2, ...), high to low. Each has shape
        (samples,) or (channels, samples).
    sample_rate
        Hz, of all of them.
    capacity
        CREPE "tiny" or "full".
    threshold
        Periodicity in [0, 1] below which a frame is unvoiced.
    device
        Where CREPE runs.

    Returns
    -------
    F0Tracks
        On the 16-ms grid, as long as the longest recording; confidence is CREPE's periodicity.

    Raises
    ------
    F0Error
        If there are no stems.
    """
    named = stems if isinstance(stems, Mapping) else {f"voice{i + 1}": stem for i, stem in enumerate(stems)}
    if not named:
        raise F0Error("there are no stems to track; expected a recording for each voice")
    mixdowns = {name: Mixdown.of_array(to_model_rate(stem, sample_rate)) for name, stem in named.items()}
    return f0_from_mixdowns(mixdowns, capacity=capacity, threshold=threshold, device=device)


def f0_from_mixdowns(
    stems: Mapping[str, Mixdown],
    *,
    capacity: str = "tiny",
    threshold: float = VOICING_THRESHOLD,
    device: str = "cpu",
) -> F0Tracks:
    """Track every voice of an ensemble from a recording of it alone, of any length; see `f0_from_stems`."""
    network = load_crepe(capacity, device)
    lines = [follow(stem, network) for stem in stems.values()]
    frames = max(len(line.f0) for line in lines)
    f0, periodicity = (
        np.stack([np.pad(row, (0, frames - len(row))) for row in rows])
        for rows in ([voiced_f0(line, threshold) for line in lines], [line.periodicity for line in lines])
    )
    return F0Tracks(f0, tuple(stems), confidence=periodicity)


def _frame_level(waveform: Float32, frames: int) -> Float32:
    padded = np.pad(waveform.astype(np.float64), (WINDOW // 2, WINDOW // 2 + HOP_LENGTH))
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.minimum(np.arange(frames) * HOP_LENGTH, len(padded) - WINDOW)
    power: NDArray[np.float64] = np.maximum(energy[starts + WINDOW] - energy[starts], 0) / WINDOW
    return np.sqrt(power).astype(np.float32)
