"""Scores for synthetic singing: Bach's chorales from the corpus of music21, and random counterpoint.

Times and durations are in beats (quarter notes), pitches are MIDI numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.dsp.units import hz_to_midi
from vocalsep.errors import MissingExtraError
from vocalsep.voices import PARTS, Voice, parse_voices

_FERMATA = 0.5  # beats by which a fermata lengthens its note; a breath of the same length follows
_CHORALE_PARTS = ("Soprano", "Alto", "Tenor", "Bass")
_GOLDEN = (math.sqrt(5) - 1) / 2
# Semitones above the tonic: major, harmonic minor, Dorian, Mixolydian.
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))
# Weights of melodic steps, from 0 (a repeated note) to 7 (an octave) degrees of the scale.
_STEPS = np.array([0.9, 5.0, 1.0, 0.4, 0.25, 0.1, 0.03, 0.1])
_CONSONANT = (0, 3, 4, 5, 7, 8, 9)  # semitones
_RHYTHMS = ((1.0,), (1.0, 1.0), (0.5, 0.5), (1.5, 0.5), (2.0,), (3.0, 1.0), (0.5,) * 4, (0.25, 0.25, 0.5), (4.0,))
_RHYTHM_WEIGHTS = np.array([6, 4, 4, 2, 3, 0.7, 2, 0.8, 0.6])


class ScoreNote(NamedTuple):
    """A note of a score."""

    pitch: float
    start: float
    duration: float

    @property
    def stop(self) -> float:
        """Beat at which the note ends."""
        return self.start + self.duration


@dataclass(frozen=True)
class Score:
    """The notes of an ensemble, voices from high to low."""

    parts: tuple[tuple[ScoreNote, ...], ...]
    voices: tuple[Voice, ...]

    @property
    def beats(self) -> float:
        """Beat at which the last note ends."""
        return max((notes[-1].stop for notes in self.parts if notes), default=0.0)

    def cut(self, first: float, last: float) -> Score:
        """Return the music between two beats, starting at beat 0; notes are cut short at both ends."""

        def shortened(note: ScoreNote) -> ScoreNote:
            start = max(note.start, first)
            return ScoreNote(note.pitch, start - first, min(note.stop, last) - start)

        parts = ([note for note in notes if note.start < last and note.stop > first] for notes in self.parts)
        return Score(tuple(tuple(map(shortened, notes)) for notes in parts), self.voices)

    def transposed(self, semitones: float) -> Score:
        """Return the score, so many semitones higher."""
        parts = tuple(tuple(note._replace(pitch=note.pitch + semitones) for note in notes) for notes in self.parts)
        return Score(parts, self.voices)


def chorales(limit: int = 100) -> list[Score]:
    """Return up to `limit` four-part chorales by Bach, always the same ones, spread evenly over music21's corpus.

    The corpus has about 350 of them. Ties are merged; a fermata holds its note, and then all voices breathe. Raise
    MissingExtraError if music21 is not installed.
    """
    try:
        from music21 import corpus
    except ImportError as error:
        raise MissingExtraError("music21 is not installed; pip install 'vocalsep[train]' brings it") from error
    paths = sorted(Path(path) for path in corpus.getComposer("bach") if Path(path).suffix == ".mxl")
    # Multiples of the golden ratio visit the corpus evenly, however many of its works are not chorales.
    found: dict[str, Score] = {}
    for index in sorted(range(len(paths)), key=lambda index: index * _GOLDEN % 1):
        if len(found) >= limit:
            break
        score = _chorale(corpus.parse(paths[index]))
        if score:
            found[paths[index].stem] = score
    return [found[name] for name in sorted(found)]


def _chorale(score: Any) -> Score | None:
    """Return a work of music21 as a score, or None if it does not have the four parts."""
    named = {part.partName: part for part in score.parts}
    if not all(part in named for part in _CHORALE_PARTS):
        return None
    streams = [named[part].stripTies().flatten().notes for part in _CHORALE_PARTS]
    ends = {
        float(note.offset + note.quarterLength)
        for note in streams[0]
        if any("Fermata" in expression.classes for expression in note.expressions)
    }
    parts = tuple(_with_fermatas(_melody(stream), np.array(sorted(ends))) for stream in streams)
    return Score(parts, parse_voices("SATB")) if all(parts) else None


def _melody(stream: Any) -> list[ScoreNote]:
    """Return the notes of a part of music21: the highest of a chord, cut where the next note starts."""
    notes = [
        ScoreNote(float(max(pitch.midi for pitch in note.pitches)), float(note.offset), float(note.quarterLength))
        for note in stream
        if note.quarterLength > 0 and note.pitches
    ]
    starts = [*(note.start for note in notes[1:]), math.inf]
    cut = [note._replace(duration=min(note.duration, x - note.start)) for note, x in zip(notes, starts, strict=True)]
    return [note for note in cut if note.duration > 0]


def _with_fermatas(notes: Sequence[ScoreNote], ends: NDArray[np.float64]) -> tuple[ScoreNote, ...]:
    """Hold the notes that end at one of the beats `ends`, and delay the notes after them."""
    result = []
    for note in notes:
        start = note.start + 2 * _FERMATA * int((ends <= note.start + 1e-6).sum())
        stop = note.stop + 2 * _FERMATA * int((ends < note.stop - 1e-6).sum())
        held = _FERMATA if len(ends) and np.abs(ends - note.stop).min() < 1e-6 else 0.0
        result.append(ScoreNote(note.pitch, start, stop + held - start))
    return tuple(result)


def counterpoint(rng: Generator, voices: Sequence[Voice], beats: float = 64.0) -> Score:
    """Return random counterpoint for voices from high to low.

    Sections of 4 to 12 beats are homophony (one rhythm), free, held chords, or imitation of one voice by the others.
    Melodies move mostly by step within their range, towards chord tones and consonances on strong beats. At times
    voices rest, meet in unison or cross.
    """
    writer = _Writer(rng, voices)
    first = 0.0
    while first < beats:
        last = min(beats, first + float(rng.choice([4, 8, 12])))
        writer.section(first, last)
        first = last
    return Score(tuple(tuple(part) for part in writer.parts), tuple(voices))


def random_voices(rng: Generator, n_voices: int) -> tuple[Voice, ...]:
    """Return random parts from high to low."""
    if n_voices == 4 and rng.random() < 0.5:
        return parse_voices("SATB")
    letters = sorted(rng.choice(list(PARTS), n_voices), key=list(PARTS).index)
    return parse_voices("".join(letters))


class _Writer:
    """Writes counterpoint section by section."""

    def __init__(self, rng: Generator, voices: Sequence[Voice]) -> None:
        self.rng = rng
        self.parts: list[list[ScoreNote]] = [[] for _ in voices]
        tonic, scale = int(rng.integers(12)), _SCALES[int(rng.integers(len(_SCALES)))]
        self.scale = np.array([pitch for pitch in range(24, 97) if (pitch - tonic) % 12 in scale])
        # A tone inside the range of the voice.
        self.ranges = [(float(hz_to_midi(voice.fmin)) + 2, float(hz_to_midi(voice.fmax)) - 2) for voice in voices]
        middles = [int(np.abs(self.scale - (low + high) / 2).argmin()) for low, high in self.ranges]
        self.degrees = [middle + int(rng.integers(-2, 3)) for middle in middles]

    def section(self, first: float, last: float) -> None:
        """Write all voices between two beats."""
        texture = str(self.rng.choice(["homophony", "free", "held", "imitation"], p=[0.35, 0.35, 0.08, 0.22]))
        self.chords = {beat: int(self.rng.integers(7)) for beat in range(int(first), math.ceil(last) + 1, 2)}
        resting = self.rng.random(len(self.parts)) < 0.12
        if resting.all():
            resting[self.rng.integers(len(resting))] = False
        shared = self._rhythm(first, last, texture)
        leader: list[ScoreNote] = []
        for place, voice in enumerate(self.rng.permutation(np.flatnonzero(~resting))):
            own = shared if texture == "homophony" else self._rhythm(first, last, texture)
            if texture == "imitation" and leader:
                own = self._imitate(int(voice), leader, 2.0 * place, last)
            elif self.rng.random() < 0.15:  # comes in late
                own = own[len(own) // 3 :]
            if self.rng.random() < 0.35:  # a breath at the end
                own = [*own[:-1], (own[-1][0], own[-1][1] * 0.75)] if own else own
            written = [self._note(int(voice), start, duration) for start, duration in own]
            leader = leader or written
            self.parts[voice] += written

    def _rhythm(self, first: float, last: float, texture: str) -> list[tuple[float, float]]:
        """Return starts and durations that fill the time between two beats."""
        long = np.array([max(rhythm) >= 2 for rhythm in _RHYTHMS])
        weights = _RHYTHM_WEIGHTS * (np.where(long, 12.0, 0.2) if texture == "held" else 1.0)
        result, beat = [], first
        while beat < last:
            for duration in _RHYTHMS[int(self.rng.choice(len(_RHYTHMS), p=weights / weights.sum()))]:
                if beat < last:
                    result.append((beat, min(duration, last - beat)))
                    beat += duration
        return result

    def _imitate(self, voice: int, leader: list[ScoreNote], delay: float, last: float) -> list[tuple[float, float]]:
        """Write the leader's melody for a voice, delayed and in its range; return starts and durations for the rest."""
        start, low, high = leader[0].start, *self.ranges[voice]
        degrees = [int(np.searchsorted(self.scale, note.pitch)) for note in leader]
        shift = self.degrees[voice] - degrees[0]
        for note, degree in zip(leader, degrees, strict=True):
            stop = min(note.stop + delay, last)
            place = min(max(degree + shift, 0), len(self.scale) - 1)
            if stop <= note.start + delay or not low <= self.scale[place] <= high:
                break
            self.parts[voice].append(ScoreNote(float(self.scale[place]), note.start + delay, stop - note.start - delay))
            self.degrees[voice], start = place, stop
        return self._rhythm(max(start, leader[0].start + delay), last, "free") if delay + leader[0].start < last else []

    def _note(self, voice: int, start: float, duration: float) -> ScoreNote:
        """Return a random next note of a voice; its weights follow the rules of counterpoint."""
        low, high = self.ranges[voice]
        here = self.degrees[voice]
        places = np.flatnonzero(
            (self.scale >= low) & (self.scale <= high) & (np.abs(np.arange(len(self.scale)) - here) < 8)
        )
        if not len(places):  # the range is more than a leap away
            places = np.flatnonzero((self.scale >= low) & (self.scale <= high))
        pitches = self.scale[places]
        weight = _STEPS[np.minimum(np.abs(places - here), 7)].copy()
        weight *= np.exp(-(((pitches - (low + high) / 2) / (0.45 * (high - low))) ** 2))
        strong = start % 1 == 0
        if strong:
            root = self.chords[int(start) // 2 * 2 if int(start) // 2 * 2 in self.chords else min(self.chords)]
            weight *= np.where(np.isin((places - root) % 7, (0, 2, 4)), 6.0, 1.0)
        for other, pitch in self._sounding(voice, start):
            interval = np.abs(pitches - pitch)
            weight *= np.where(np.isin(interval % 12, _CONSONANT), 1.0, 0.2 if strong else 0.6)
            weight *= np.where(interval == 0, 0.3, 1.0)
            crossed = (pitches > pitch) if other < voice else (pitches < pitch)
            weight *= np.where(crossed, 0.12, 1.0)
        self.degrees[voice] = int(self.rng.choice(places, p=weight / weight.sum()))
        return ScoreNote(float(self.scale[self.degrees[voice]]), start, duration)

    def _sounding(self, voice: int, beat: float) -> list[tuple[int, float]]:
        """Return the other voices that sound at a beat, with their pitches."""
        return [
            (other, note.pitch)
            for other, part in enumerate(self.parts)
            if other != voice
            for note in part[-48:]
            if note.start <= beat < note.stop
        ]
