"""Read the notes of a MIDI file as f0, and write notes: behind `F0Tracks.from_midi` and `F0Tracks.to_midi`.

A voice is a track with notes, or, where only one track has notes (type-0 files), a channel. Equal temperament,
A4 = 440 Hz; pitch bend is not looked at. Channel 10 is percussion (General MIDI) and left out.

What is written has format 1 and ticks of a millisecond: a track with the tempo and, as a text, the tuning, then a
track for each voice. All notes have one velocity, since f0 says nothing of loudness.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error, one_line
from vocalsep.f0.csv import read_content, told
from vocalsep.f0.notes import A4, Note, find_notes, rounded, to_hz, tuning
from vocalsep.voices import MAX_VOICES, to_voice_name

if TYPE_CHECKING:
    import mido

_PERCUSSION = 9  # MIDI's channel 10, counted from 0
_CHANNELS = [channel for channel in range(16) if channel != _PERCUSSION]
_MAX_SECONDS = 24 * 3600.0
_TICKS_PER_SECOND = 1000
_TEMPO = 500_000  # microseconds a beat, 120 beats a minute: also what players take without being told
_VELOCITY = 80
_MAX_BYTES = 2 << 20  # no piece of music is as long: operas have a tenth
_MAX_RUN = 4096  # bytes from 0x80 on in a row. As digits of one number they would take for ever
_CONTINUED = bytes(0x80 * (byte >= 0x80) for byte in range(256))
_HIGHEST = 119  # B8, the last that F0Tracks holds


def read_midi(source: Path, names: Sequence[str] | None, hop: float) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return f0 in Hz, shape (voices, frames), 0 = unvoiced, and the names of the voices.

    Parameters
    ----------
    source
        The file.
    names
        Names of the voices, or None for those of the tracks. Voices are in the order of the file, unless `names` are
        the names of its tracks in another order. A track without notes is a voice if it has one of these names.
    hop
        Seconds between frames.

    Raises
    ------
    F0Error
        If the file is not MIDI, has no notes, lasts more than a day or has another number of voices than `names`.
    """
    asked = {name.casefold() for name in names or []}
    parts = [(name, notes) for name, notes in _parts(source) if notes or name.strip().casefold() in asked]
    if not any(notes for _, notes in parts):
        raise F0Error(f"{told(source)}: holds no notes; expected one track for each voice")
    if names is not None and len(names) != len(parts):
        raise F0Error(
            f"{told(source)}: has {len(parts)} voices with notes; expected {len(names)} ({one_line(', '.join(names))})"
        )
    if len(parts) > MAX_VOICES:
        raise F0Error(f"{told(source)}: has {len(parts)} voices with notes; expected 1 to {MAX_VOICES}")
    own = _unique([to_voice_name(name, f"voice{index + 1}") for index, (name, _) in enumerate(parts)])
    chosen = own if names is None else list(names)
    folded = [name.casefold() for name in own]
    if sorted(folded) == sorted(name.casefold() for name in chosen):
        parts = [parts[folded.index(name.casefold())] for name in chosen]
    duration = max(note.end for _, notes in parts for note in notes)
    if duration > _MAX_SECONDS:
        raise F0Error(f"{told(source)}: lasts {duration / 3600:.4g} hours; expected at most 24")
    f0 = np.zeros((len(parts), int(np.ceil(duration / hop)) + 1), dtype=np.float32)
    for row, (_, notes) in zip(f0, parts, strict=True):
        for note in notes:
            row[int(np.ceil(note.start / hop - 1e-6)) : int(np.ceil(note.end / hop - 1e-6))] = to_hz(note.pitch)
    return f0, tuple(chosen)


def midi_of(f0: NDArray[np.float32], names: Sequence[str], hop: float) -> bytes:
    """Return the notes of f0 as the bytes of a MIDI file.

    Parameters
    ----------
    f0
        Hz, shape (voices, frames), 0 = unvoiced.
    names
        Name of each voice, the name of its track.
    hop
        Seconds between frames.
    """
    import mido

    voices = find_notes(f0, hop)
    offset = tuning(voices)
    file = mido.MidiFile(type=1, ticks_per_beat=round(_TICKS_PER_SECOND * _TEMPO * 1e-6))
    text = f"vocalsep: A4 = {to_hz(69 + offset):.1f} Hz ({100 * offset:+.0f} cents from {A4:g} Hz)"
    file.tracks.append(
        mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_TEMPO), mido.MetaMessage("text", text=text)])
    )
    for row, (name, notes) in enumerate(zip(names, voices, strict=True)):
        channel = _CHANNELS[row % len(_CHANNELS)]
        file.tracks.append(_track(name, rounded(notes, offset, _HIGHEST), channel))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def _track(name: str, notes: list[Note], channel: int) -> mido.MidiTrack:
    import mido

    # mido writes Latin-1; in this guise it is UTF-8, which most programs read.
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name.encode().decode("latin-1"))])
    last = 0
    for note in notes:
        for kind, seconds in (("note_on", note.start), ("note_off", note.end)):
            tick = max(0, round(seconds * _TICKS_PER_SECOND))
            message = {"channel": channel, "note": round(note.pitch), "velocity": _VELOCITY, "time": tick - last}
            track.append(mido.Message(kind, **message))
            last = tick
    return track


def _parts(source: Path) -> list[tuple[str, list[Note]]]:
    import mido

    content = read_content(source, _MAX_BYTES, "expected a .mid file")
    try:
        if b"\x80" * _MAX_RUN in content.translate(_CONTINUED):
            raise ValueError("it is damaged")
        midi = mido.MidiFile(file=io.BytesIO(content))
        seconds = _clock(midi)
        tracks = [(_name(track), _notes(track)) for track in midi.tracks]
    except Exception as error:  # mido checks little: damaged bytes end in any exception
        reason = one_line(str(error)) or "it ends early"
        raise F0Error(f"{told(source)}: cannot be read as MIDI ({reason}); expected a .mid file") from error
    sung = [channels for _, channels in tracks if channels]
    if len(sung) == 1 and len(sung[0]) > 1:
        tracks = [("", {channel: notes}) for channel, notes in sorted(sung[0].items())]
    return [(name, _one_voice([n for notes in channels.values() for n in notes], seconds)) for name, channels in tracks]


def _name(track: mido.MidiTrack) -> str:
    name = str(track.name)
    try:
        # mido reads Latin-1, as the standard has it; most programs write UTF-8.
        return name.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return name


def _notes(track: mido.MidiTrack) -> dict[int, list[tuple[int, int, int]]]:
    """Return the notes of a track by channel as (start tick, end tick, note number)."""
    notes: dict[int, list[tuple[int, int, int]]] = {}
    sounding: dict[tuple[int, int], int] = {}
    tick = 0
    for tick, message in _with_ticks(track):
        if message.type not in ("note_on", "note_off") or message.channel == _PERCUSSION:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity > 0:
            sounding.setdefault(key, tick)
        elif key in sounding:
            notes.setdefault(message.channel, []).append((sounding.pop(key), tick, message.note))
    for (channel, number), start in sounding.items():  # never released: they last to the end of the track
        notes.setdefault(channel, []).append((start, tick, number))
    found = {channel: [note for note in heard if note[1] > note[0]] for channel, heard in notes.items()}
    return {channel: heard for channel, heard in found.items() if heard}


def _one_voice(notes: list[tuple[int, int, int]], seconds: Callable[[int], float]) -> list[Note]:
    """Return notes by start, each cut where the next one starts; of those that start together the highest."""
    highest = {start: (end, number) for start, end, number in sorted(notes, key=lambda note: (note[0], note[2]))}
    starts = sorted(highest)
    voice = []
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        end, number = highest[start]
        end = end if following is None else min(end, following)
        voice.append(Note(seconds(start), seconds(end), number))
    return voice


def _with_ticks(track: mido.MidiTrack) -> Iterable[tuple[int, mido.Message]]:
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _clock(midi: mido.MidiFile) -> Callable[[int], float]:
    """Return the function from ticks to seconds; MIDI starts at 120 beats a minute, tempo changes hold for all."""
    if midi.ticks_per_beat <= 0:
        raise ValueError("its time is in film frames; expected ticks per beat")
    changes = [
        (tick, message.tempo)
        for track in midi.tracks
        for tick, message in _with_ticks(track)
        if message.type == "set_tempo"
    ]
    if any(tempo <= 0 for _, tempo in changes):
        raise ValueError("a beat lasts no time in it")
    ticks, times, tempos = [0], [0.0], [_TEMPO]
    for tick, tempo in sorted(changes, key=lambda change: change[0]):
        times.append(times[-1] + _passed(tick - ticks[-1], tempos[-1], midi.ticks_per_beat))
        ticks.append(tick)
        tempos.append(tempo)

    def seconds(tick: int) -> float:
        last = bisect_right(ticks, tick) - 1
        return times[last] + _passed(tick - ticks[last], tempos[last], midi.ticks_per_beat)

    return seconds


def _passed(ticks: int, tempo: int, ticks_per_beat: int) -> float:
    """Return the seconds that ticks last; more than a day is only more, since ticks may have thousands of digits."""
    beats = min(ticks, int(_MAX_SECONDS * 1e6) * ticks_per_beat) / ticks_per_beat
    return beats * tempo * 1e-6


def _unique(names: list[str]) -> list[str]:
    """Return the names with numbers on those that occur more than once: alto, alto -> alto1, alto2."""
    folded = [name.casefold() for name in names]
    taken = {name for name in folded if folded.count(name) == 1}
    unique = []
    for name in names:
        if folded.count(name.casefold()) > 1:
            number = next(n for n in range(1, len(names) * 2) if f"{name}{n}".casefold() not in taken)
            name = f"{name}{number}"
            taken.add(name.casefold())
        unique.append(name)
    return unique
