"""The notes that voices sing, found in their f0: behind `F0Tracks.to_midi`.

The f0 of a phrase is approximated by a curve that is constant over each note. With pitch p_t in semitones, its running
median over a cycle of vibrato, which keeps steps but not vibrato, and notes at q_t on a grid of thirds of a semitone,
the curve minimises

    sum_t [min((p_t - q_t)^2, 1) + |p_t - q_t| / 100] + CHANGE_COST * (number of changes of q),

with every note at least SHORTEST long,

exactly, by dynamic programming: the Potts functional (M. Storath, A. Weinmann, "Fast partitioning of vector-valued
images", SIAM J. Imaging Sciences 2014) with a bounded distance, so that glides count as noise and not as notes (the
second term puts the change into the middle of them). The grid of states is that of the note HMM of M. Mauch et al.,
"Computer-aided melody note transcription using the Tony software", TENOR 2015, which has probabilities of attacks too.

Choirs keep the pitch they started on, not 440 Hz: the tuning of an ensemble is the circular mean of how far its notes
lie off the semitones, and notes are rounded to the semitones of that tuning.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

A4 = 440.0
"""Hz, MIDI note 69."""
SHORTEST = 0.1
"""Seconds: less is taken for a glide, a consonant or a mistake. A semiquaver at 150 beats a minute."""
LONGEST_GAP = 0.08
"""Seconds without f0 that do not end a note: drop-outs of the tracker, soft consonants."""
_VIBRATO = 0.2  # seconds: a cycle at 5 Hz. At 4 and 7 Hz the running median leaves a third of the vibrato
# Semitones squared times seconds. A note between two others in a scale pays it once, by lasting 0.1 s, a turn that goes
# back pays it twice. With less, a crest of wide vibrato beside a step becomes a note of its own.
_CHANGE_COST = 0.096
_STEPS = 3  # of the grid in a semitone
_SAME = 0.5  # semitones: notes that follow each other by less are one, out of tune
_MIN_PITCH = 0.0  # 8.2 Hz: MIDI has no lower note
_TUNING_PRIOR = 0.5  # seconds of notes at 440 Hz, which few or scattered notes do not outweigh
_BATCH_CELLS = 1 << 25  # frames * states decoded at once: 4 MB of decisions, and arrays that fit the cache


class Note(NamedTuple):
    """A note of one voice."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    pitch: float
    """In semitones as MIDI numbers them: 69 is A4."""


def to_hz(pitch: float) -> float:
    """Return f0 in Hz of a pitch in semitones.

    Examples
    --------
    >>> to_hz(57)
    220.0
    """
    return float(A4 * 2 ** ((pitch - 69) / 12))


def to_pitch(f0: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return pitch in semitones of f0 in Hz, NaN where it is unvoiced or lower than MIDI's lowest note.

    Examples
    --------
    >>> to_pitch(np.array([0.0, 220.0]))
    array([nan, 57.])
    """
    lowest = to_hz(_MIN_PITCH)
    f0 = np.asarray(f0, dtype=np.float64)
    return np.where(f0 >= lowest, 69 + 12 * np.log2(np.maximum(f0, lowest) / A4), np.nan)


def find_notes(f0: NDArray[np.floating], hop: float) -> list[list[Note]]:
    """Return the notes of each voice, in order, with the median of f0 as their pitch.

    Parameters
    ----------
    f0
        Hz, shape (voices, frames), 0 = unvoiced.
    hop
        Seconds between frames. A frame lasts from half a hop before its centre to half a hop after it.
    """
    pitch = to_pitch(f0)
    longest_gap = int(LONGEST_GAP / hop + 1e-6)
    phrases = [(row, *span) for row in range(len(pitch)) for span in _phrases(pitch[row], longest_gap)]
    phrases.sort(key=lambda phrase: phrase[2] - phrase[1])
    notes: list[list[Note]] = [[] for _ in pitch]
    for batch in _batches(phrases):
        rows = _stacked([_steady(pitch[row, start:end], hop) for row, start, end in batch])
        for (row, first, last), spans in zip(batch, _decode(rows, hop), strict=True):
            for start, end in spans:
                notes[row] += _trimmed(pitch[row], first + start, min(first + end, last), hop)
    return [_joined(pitch[row], sorted(heard), hop) for row, heard in enumerate(notes)]


def tuning(notes: list[list[Note]]) -> float:
    """Return how far an ensemble's semitones lie above those of A4 = 440 Hz, in semitones, in [-0.5, 0.5].

    Examples
    --------
    >>> scale = [Note(10.0 * n, 10.0 * n + 10, 60.2 + n) for n in range(12)]
    >>> round(tuning([scale]), 2)
    0.2
    """
    heard = [note for voice in notes for note in voice]
    turns = np.array([note.pitch for note in heard])
    lengths = np.array([note.end - note.start for note in heard])
    return float(np.angle(_TUNING_PRIOR + (lengths * np.exp(2j * np.pi * turns)).sum()) / (2 * np.pi))


def rounded(notes: list[Note], offset: float, highest: int) -> list[Note]:
    """Return notes at whole semitones of a tuning; equal ones that follow without a rest become one.

    Parameters
    ----------
    notes
        Of one voice, in order.
    offset
        See `tuning`.
    highest
        Largest number of a note.
    """
    found: list[Note] = []
    for note in notes:
        pitch = float(np.clip(np.floor(note.pitch - offset + 0.5), 0, highest))
        if found and found[-1].pitch == pitch and found[-1].end == note.start:
            found[-1] = found[-1]._replace(end=note.end)
        else:
            found.append(note._replace(pitch=pitch))
    return found


def _phrases(pitch: NDArray[np.float64], longest_gap: int) -> list[tuple[int, int]]:
    """Return (start, end) of the stretches of frames without a longer gap, as in slices."""
    voiced = np.flatnonzero(np.isfinite(pitch))
    if not len(voiced):
        return []
    breaks = np.flatnonzero(np.diff(voiced) > longest_gap + 1)
    starts, ends = voiced[np.r_[0, breaks + 1]], voiced[np.r_[breaks, -1]] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _batches(phrases: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Return phrases, sorted by length, in batches of similar length."""
    batches: list[list[tuple[int, int, int]]] = []
    cells = _BATCH_CELLS // (_STEPS * 24)  # phrases span two octaves at most, except with octave errors
    for phrase in phrases:
        length = phrase[2] - phrase[1]
        if batches and (len(batches[-1]) + 1) * length <= cells and len(batches[-1]) < 64:
            batches[-1].append(phrase)
        else:
            batches.append([phrase])
    return batches


def _steady(pitch: NDArray[np.float64], hop: float) -> NDArray[np.float64]:
    """Return the running median of a phrase over a cycle of vibrato, with its gaps bridged."""
    frames = np.arange(len(pitch))
    voiced = np.isfinite(pitch)
    bridged = np.interp(frames, frames[voiced], pitch[voiced])
    half = round(0.5 * _VIBRATO / hop)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(bridged, half, mode="symmetric"), 2 * half + 1)
    steady: NDArray[np.float64] = np.median(windows, axis=1)
    return steady


def _stacked(phrases: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    stacked = np.full((len(phrases), max(map(len, phrases))), np.nan)
    for row, phrase in zip(stacked, phrases, strict=True):
        row[: len(phrase)] = phrase
    return stacked


def _decode(pitch: NDArray[np.float64], hop: float) -> list[list[tuple[int, int]]]:
    """Return the notes of each phrase, shape (phrases, frames) with NaN after its end, as slices of frames.

    With C[t, q] the cost of q in frames 0 ... t, and W[t] the least cost of all frames up to t, a state's least cost is
    C[t, q] + U[t, q], U[t, q] = min(U[t - 1, q], W[t - d] + change - C[t - d, q]), d the shortest note: to stay costs
    nothing but the frame, and who enters q stays for d frames at once.
    """
    shortest = max(1, round(SHORTEST / hop))
    pitch = np.pad(pitch, ((0, 0), (0, max(0, shortest - pitch.shape[1]))), constant_values=np.nan)
    phrases, frames = pitch.shape
    inside = np.isfinite(pitch)
    relative = np.where(inside, pitch - np.nanmin(pitch, axis=1, keepdims=True), 0.0)
    grid = np.arange(int(relative.max() * _STEPS) + 2) / _STEPS
    past = np.zeros((shortest, phrases, len(grid)))  # C of the last frames, in a ring
    total, best = np.zeros(past.shape[1:]), np.full(past.shape[1:], np.inf)
    least, chosen = np.full((frames, phrases), np.inf), np.zeros((frames, phrases), dtype=np.int32)
    entered = np.zeros((frames, phrases, -(-len(grid) // 8)), dtype=np.uint8)
    for frame in range(frames):
        distance = np.abs(relative[:, frame, None] - grid)
        total = total + (np.minimum(distance * distance, 1.0) + 0.01 * distance) * inside[:, frame, None]
        before = frame - shortest
        if before >= -1:
            opening = 0.0 if before < 0 else (least[before] + _CHANGE_COST / hop)[:, None] - past[before % shortest]
            new = opening < best
            best = np.where(new, opening, best)
            entered[frame] = np.packbits(new, axis=1)
        past[frame % shortest] = total
        score = total + best
        chosen[frame] = score.argmin(axis=1)
        least[frame] = score[np.arange(phrases), chosen[frame]]
    return [_traced(chosen[:, row], entered[:, row], shortest) for row in range(phrases)]


def _traced(chosen: NDArray[np.int32], entered: NDArray[np.uint8], shortest: int) -> list[tuple[int, int]]:
    spans = []
    end = frame = len(chosen) - 1
    while frame >= 0:
        state = int(chosen[frame])
        column, bit = entered[:, state >> 3], 128 >> (state & 7)
        while not column[frame] & bit:
            frame -= 1
        frame -= shortest
        spans.append((frame + 1, end + 1))
        end = frame
    return spans[::-1]


def _trimmed(pitch: NDArray[np.float64], start: int, end: int, hop: float) -> list[Note]:
    """Return the note of some frames without the unvoiced ones at its ends, none if it is too short."""
    sung = start + np.flatnonzero(np.isfinite(pitch[start:end]))
    if not len(sung) or (sung[-1] + 1 - sung[0]) * hop < SHORTEST - 0.5 * hop:
        return []
    return [_note(pitch, int(sung[0]), int(sung[-1]) + 1, hop)]


def _note(pitch: NDArray[np.float64], start: int, end: int, hop: float) -> Note:
    heard = pitch[start:end]
    return Note((start - 0.5) * hop, (end - 0.5) * hop, float(np.median(heard[np.isfinite(heard)])))


def _joined(pitch: NDArray[np.float64], notes: list[Note], hop: float) -> list[Note]:
    """Return notes of one voice, those that wander off their pitch in one piece."""
    found: list[Note] = []
    for note in notes:
        # Compared with a little slack: gaps and hops are seconds in floating point.
        if found and abs(found[-1].pitch - note.pitch) < _SAME and note.start - found[-1].end <= LONGEST_GAP + 1e-6:
            start, end = round(found[-1].start / hop + 0.5), round(note.end / hop + 0.5)
            found[-1] = _note(pitch, start, end, hop)
        else:
            found.append(note)
    return found
