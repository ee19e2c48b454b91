"""The notes that voices sing, found in their f0: behind `F0Tracks.to_midi`.

Each phrase of a voice is approximated by a curve that is constant over each note. Let p_t be the pitch in semitones,
smoothed by a running median over one cycle of vibrato, which keeps steps but not vibrato. The curve q_t lies on a grid
of thirds of a semitone and minimises

    sum_t [min((p_t - q_t)^2, 1) + |p_t - q_t| / 100] + _CHANGE_COST * (number of changes of q),

with every note at least SHORTEST long. The bounded distance treats glides as noise and not as notes; the second term
puts the change into the middle of a glide. Dynamic programming finds the exact minimum.

Choirs keep the pitch they started on rather than 440 Hz. The tuning of an ensemble is the circular mean of the
distances of its notes from the semitones, and notes are rounded to the semitones of that tuning.

References
----------
The functional is the Potts functional of M. Storath, A. Weinmann, "Fast partitioning of vector-valued images", SIAM J.
Imaging Sciences 2014. The grid of states is that of the note HMM of M. Mauch et al., "Computer-aided melody note
transcription using the Tony software", TENOR 2015, which also has probabilities of attacks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocalsep.dsp.units import hz_to_midi

SHORTEST = 0.1
"""Length of the shortest note in seconds: a semiquaver at 150 beats a minute. Glides and consonants are shorter."""
LONGEST_GAP = 0.08
"""Longest time without f0 inside a note in seconds: tracker drop-outs and soft consonants."""
_VIBRATO = 0.2  # seconds: a cycle at 5 Hz. At 4 and 7 Hz the running median leaves a third of the vibrato
# Semitones squared times seconds. A note between two others in a scale pays it once, by lasting 0.1 s; a turn that goes
# back pays it twice. With less, a crest of wide vibrato beside a step becomes a note of its own.
_CHANGE_COST = 0.096
_STEPS = 3  # of the grid in a semitone
_SAME = 0.5  # semitones: notes closer than this that follow each other are one note, sung out of tune
_HIGHEST = 119  # B8, the highest note that F0Tracks can hold
_TUNING_PRIOR = 0.5  # seconds of notes at 440 Hz, which a few scattered notes do not outweigh
_BATCH_CELLS = 1 << 25  # frames * states decoded at once: 4 MB of decisions, and arrays that fit the cache
_BATCH_PHRASES = 64


class Note(NamedTuple):
    """A note of one voice: start and end in seconds, and pitch as a MIDI note number with its fraction."""

    start: float
    end: float
    pitch: float


def find_notes(f0: NDArray[np.floating], hop: float) -> list[list[Note]]:
    """Return the notes of each voice in order, each with the median of its f0 as pitch.

    `f0` is in Hz, shape (voices, frames). A frame lasts from half a `hop` (in seconds) before its centre to half a hop
    after it.
    """
    pitch = hz_to_midi(f0)
    pitch[~(pitch >= 0)] = np.nan  # MIDI has no note below 8.2 Hz
    longest_gap = int(LONGEST_GAP / hop + 1e-6)
    phrases = [(row, *span) for row in range(len(pitch)) for span in _phrases(pitch[row], longest_gap)]
    notes: list[list[Note]] = [[] for _ in pitch]
    for batch in _batches(sorted(phrases, key=lambda phrase: phrase[2] - phrase[1])):
        curves = np.full((len(batch), batch[-1][2] - batch[-1][1]), np.nan)  # the last phrase of a batch is the longest
        for curve, (row, start, end) in zip(curves, batch, strict=True):
            curve[: end - start] = _without_vibrato(pitch[row, start:end], hop)
        for (row, first, last), spans in zip(batch, _decode(curves, hop), strict=True):
            for start, end in spans:
                notes[row] += _trimmed(pitch[row], first + start, min(first + end, last), hop)
    return [_joined(pitch[row], sorted(found), hop) for row, found in enumerate(notes)]


def tuning(notes: list[list[Note]]) -> float:
    """Return the distance of an ensemble's semitones from those of A4 = 440 Hz, in semitones, in [-0.5, 0.5].

    Examples
    --------
    >>> scale = [Note(10.0 * n, 10.0 * n + 10, 60.2 + n) for n in range(12)]
    >>> round(tuning([scale]), 2)
    0.2
    """
    turns = sum((n.end - n.start) * np.exp(2j * np.pi * n.pitch) for voice in notes for n in voice)
    return float(np.angle(_TUNING_PRIOR + turns) / (2 * np.pi))


def round_notes(notes: list[Note], offset: float) -> list[Note]:
    """Return the notes of a voice at whole semitones of a tuning, in order.

    Equal notes without a rest between them become one. `offset` is the tuning in semitones; see `tuning`.
    """
    found: list[Note] = []
    for note in notes:
        pitch = float(np.clip(np.floor(note.pitch - offset + 0.5), 0, _HIGHEST))
        if found and found[-1].pitch == pitch and found[-1].end == note.start:
            found[-1] = found[-1]._replace(end=note.end)
        else:
            found.append(note._replace(pitch=pitch))
    return found


def _phrases(pitch: NDArray[np.float64], longest_gap: int) -> list[tuple[int, int]]:
    """Return the first frame and the frame after the last of each phrase: frames without a longer gap."""
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
        if batches and (len(batches[-1]) + 1) * length <= cells and len(batches[-1]) < _BATCH_PHRASES:
            batches[-1].append(phrase)
        else:
            batches.append([phrase])
    return batches


def _without_vibrato(pitch: NDArray[np.float64], hop: float) -> NDArray[np.float64]:
    """Return the running median of a phrase over a cycle of vibrato, with its gaps bridged."""
    frames = np.arange(len(pitch))
    voiced = np.isfinite(pitch)
    bridged = np.interp(frames, frames[voiced], pitch[voiced])
    half = round(0.5 * _VIBRATO / hop)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(bridged, half, mode="symmetric"), 2 * half + 1)
    median: NDArray[np.float64] = np.median(windows, axis=1)
    return median


def _decode(pitch: NDArray[np.float64], hop: float) -> list[list[tuple[int, int]]]:
    """Return the notes of each phrase, shape (phrases, frames) with NaN after its end, as slices of frames.

    Let C[t, q] be the cost of the state q in frames 0 ... t, W[t] the least cost of all frames up to t, and d the
    shortest note in frames. The least cost of ending frame t in state q is C[t, q] + U[t, q] with

        U[t, q] = min(U[t - 1, q], W[t - d] + change - C[t - d, q]):

    staying costs only the frame, and entering a state means staying for d frames at once.
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
    """Follow the decisions of one phrase back from its last frame."""
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
    """Return the note of some frames without the unvoiced ones at its ends, or none if it is too short."""
    voiced = start + np.flatnonzero(np.isfinite(pitch[start:end]))
    if not len(voiced) or (voiced[-1] + 1 - voiced[0]) * hop < SHORTEST - 0.5 * hop:
        return []
    return [_note(pitch, int(voiced[0]), int(voiced[-1]) + 1, hop)]


def _note(pitch: NDArray[np.float64], start: int, end: int, hop: float) -> Note:
    return Note((start - 0.5) * hop, (end - 0.5) * hop, float(np.nanmedian(pitch[start:end])))


def _joined(pitch: NDArray[np.float64], notes: list[Note], hop: float) -> list[Note]:
    """Return the notes of one voice, with notes of nearly the same pitch that follow each other as one."""
    found: list[Note] = []
    for note in notes:
        # The slack allows for gaps and hops being seconds in floating point.
        if found and abs(found[-1].pitch - note.pitch) < _SAME and note.start - found[-1].end <= LONGEST_GAP + 1e-6:
            found[-1] = _note(pitch, round(found[-1].start / hop + 0.5), round(note.end / hop + 0.5), hop)
        else:
            found.append(note)
    return found
