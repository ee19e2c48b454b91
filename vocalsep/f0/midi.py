"""Notes of MIDI files as f0, and f0 as the notes of a MIDI file: behind `F0Tracks.from_midi` and `F0Tracks.to_midi`.

A voice is a track with notes or, if only one track has notes (files of type 0), a channel. Tuning is equal temperament,
A4 = 440 Hz, and pitch bend is ignored. Channel 10, percussion in General MIDI, is left out.

Files are written in format 1 with ticks of a millisecond: one track with the tempo and, as a text, the tuning, then one
track for each voice. All notes have the same velocity, since f0 has no loudness.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

from vocalsep.dsp.units import A4, midi_to_hz
from vocalsep.errors import F0Error, one_line, reason
from vocalsep.f0.notes import Note, find_notes, round_notes, tuning
from vocalsep.paths import folded
from vocalsep.timebase import HOP
from vocalsep.voices import number_repeated, to_voice_name

_PERCUSSION = 9  # MIDI's channel 10, counted from 0
_CHANNELS = [channel for channel in range(16) if channel != _PERCUSSION]
_MAX_SECONDS = 24 * 3600.0  # longer ones are damaged
_TICKS_PER_SECOND = 1000
_TEMPO = 500_000  # microseconds a beat, 120 beats a minute: MIDI's default
_VELOCITY = 80


def read_midi(path: Path, names: tuple[str, ...] | None = None) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return f0 in Hz on the 16-ms grid, shape (voices, frames), and names of the voices; see `F0Tracks.from_midi`."""
    wanted = [folded(name) for name in names or ()]
    parts = [(name, notes) for name, notes in _read_parts(path) if notes or folded(name.strip()) in wanted]
    if not any(notes for _, notes in parts):
        raise F0Error("holds no notes; expected one track for each voice")
    if names is not None and len(names) != len(parts):
        raise F0Error(f"has {len(parts)} voices with notes; expected {len(names)} ({one_line(', '.join(names))})")
    own = number_repeated([to_voice_name(name, f"voice{number}") for number, (name, _) in enumerate(parts, 1)])
    found = [folded(name) for name in own]
    if sorted(found) == sorted(wanted):
        parts = [parts[found.index(name)] for name in wanted]
    duration = max(note.end for _, notes in parts for note in notes)
    if duration > _MAX_SECONDS:
        raise F0Error(f"lasts {duration / 3600:.4g} hours; expected at most 24")
    f0 = np.zeros((len(parts), math.ceil(duration / HOP) + 1), dtype=np.float32)
    for row, (_, notes) in zip(f0, parts, strict=True):
        for note in notes:
            row[_first_frame(note.start) : _first_frame(note.end)] = midi_to_hz(note.pitch)
    return f0, names or tuple(own)


def format_midi(f0: NDArray[np.float32], names: Sequence[str], hop: float) -> bytes:
    """Return the notes of f0 in Hz, shape (voices, frames), as a MIDI file with a named track for each voice."""
    voices = find_notes(f0, hop)
    offset = tuning(voices)
    file = mido.MidiFile(type=1, ticks_per_beat=round(_TICKS_PER_SECOND * _TEMPO * 1e-6))
    text = f"vocalsep: A4 = {midi_to_hz(69 + offset):.1f} Hz ({100 * offset:+.0f} cents from {A4:g} Hz)"
    file.tracks.append(
        mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_TEMPO), mido.MetaMessage("text", text=text)])
    )
    for row, (name, notes) in enumerate(zip(names, voices, strict=True)):
        file.tracks.append(_format_track(name, round_notes(notes, offset), _CHANNELS[row % len(_CHANNELS)]))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def _format_track(name: str, notes: list[Note], channel: int) -> mido.MidiTrack:
    # mido writes Latin-1. The name passes through it as UTF-8, which most programs read.
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name.encode().decode("latin-1"))])
    last = 0
    for note in notes:
        for kind, seconds in (("note_on", note.start), ("note_off", note.end)):
            tick = max(0, round(seconds * _TICKS_PER_SECOND))
            track.append(
                mido.Message(kind, channel=channel, note=round(note.pitch), velocity=_VELOCITY, time=tick - last)
            )
            last = tick
    return track


def _first_frame(seconds: float) -> int:
    return math.ceil(seconds / HOP - 1e-6)


def _read_parts(path: Path) -> list[tuple[str, list[Note]]]:
    """Return the name and the notes of each track, or of each channel if only one track has notes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise F0Error(f"cannot be read ({reason(error)}); expected a .mid file") from error
    try:
        midi = mido.MidiFile(file=io.BytesIO(content))
        seconds = _clock(midi)
        tracks = [(_track_name(track), _read_notes(track)) for track in midi.tracks]
        with_notes = [channels for _, channels in tracks if channels]
        if len(with_notes) == 1 and len(with_notes[0]) > 1:
            tracks = [("", {channel: notes}) for channel, notes in sorted(with_notes[0].items())]
        return [
            (name, _one_voice([note for notes in channels.values() for note in notes], seconds))
            for name, channels in tracks
        ]
    except Exception as error:  # mido checks little: damaged bytes may raise any exception
        raise F0Error(
            f"cannot be read as MIDI ({one_line(str(error)) or 'it ends early'}); expected a .mid file"
        ) from error


def _track_name(track: mido.MidiTrack) -> str:
    name = str(track.name)
    try:
        # mido reads Latin-1, as the standard says; most programs write UTF-8.
        return name.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return name


def _read_notes(track: mido.MidiTrack) -> dict[int, list[tuple[int, int, int]]]:
    """Return the notes of a track by channel as (start tick, end tick, note number)."""
    notes: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    sounding: dict[tuple[int, int], int] = {}
    tick = 0
    for tick, message in _with_ticks(track):
        if message.type not in ("note_on", "note_off") or message.channel == _PERCUSSION:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity > 0:
            sounding.setdefault(key, tick)
        elif key in sounding:
            notes[message.channel].append((sounding.pop(key), tick, message.note))
    for (channel, number), start in sounding.items():  # never released: they last to the end
        notes[channel].append((start, tick, number))
    kept = {channel: [note for note in found if note[0] < note[1]] for channel, found in notes.items()}
    return {channel: found for channel, found in kept.items() if found}


def _one_voice(notes: list[tuple[int, int, int]], seconds: Callable[[int], float]) -> list[Note]:
    """Return notes by start, each cut where the next one starts; of those that start together the highest."""
    highest = {start: (end, number) for start, end, number in sorted(notes, key=lambda note: (note[0], note[2]))}
    starts = sorted(highest)
    voice = []
    for start, following in zip(starts, [*starts[1:], math.inf], strict=False):
        end, number = highest[start]
        voice.append(Note(seconds(start), seconds(int(min(end, following))), number))
    return voice


def _with_ticks(track: mido.MidiTrack) -> Iterator[tuple[int, mido.Message]]:
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _clock(midi: mido.MidiFile) -> Callable[[int], float]:
    """Return the function from ticks to seconds: tempo changes hold for all tracks."""
    if midi.ticks_per_beat <= 0:
        raise ValueError("its time is in film frames; expected ticks per beat")
    events = [event for track in midi.tracks for event in _with_ticks(track)]
    changes = [(tick, message.tempo) for tick, message in events if message.type == "set_tempo"]
    last = max((tick for tick, _ in events), default=0)
    ticks, tempos = np.array([(0, _TEMPO), *sorted(changes, key=lambda change: change[0]), (last, _TEMPO)]).T
    times = np.cumsum([0, *np.diff(ticks) * tempos[:-1]]) * 1e-6 / midi.ticks_per_beat
    return lambda tick: float(np.interp(tick, ticks, times))
