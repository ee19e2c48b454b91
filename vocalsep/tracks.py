"""F0 tracks of an ensemble: values, names, hop, and their CSV and MIDI forms.

F0 is in Hz, 0 where a voice is silent or unvoiced; voices are ordered from high to low. Frame t is centred on
the time t * hop. CSV comes in two forms: one table with a column for each voice (`time,soprano,alto,...`), and
the form of Sonic Visualiser and mir_eval, one file of two columns (time, f0) for each voice.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import MODEL_SAMPLE_RATE
from vocalsep.errors import F0Error

if TYPE_CHECKING:
    import mido

HOP_LENGTH = 256
"""Samples at the model rate between two frames."""
HOP = HOP_LENGTH / MODEL_SAMPLE_RATE
"""Seconds between two frames of the model: 16 ms."""
MAX_F0 = 8000.0
"""Hz: no voice sings higher; larger values are taken for mistakes such as a column of milliseconds."""


@dataclass(frozen=True, eq=False)
class F0Tracks:
    """The f0 of every voice on a regular grid of frames.

    Parameters
    ----------
    frequencies
        F0 in Hz, shape (voices, frames), 0 = unvoiced.
    names
        Name of each voice, high to low.
    hop
        Seconds between frames; frame t is centred on t * hop.
    confidence
        How sure the tracker was of each value, in [0, 1], shape (voices, frames); None where nothing is known.

    Raises
    ------
    F0Error
        If values are negative, not finite or above 8 kHz, or shapes do not fit.
    """

    frequencies: NDArray[np.float32]
    names: tuple[str, ...]
    hop: float = HOP
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        try:
            frequencies = np.array(self.frequencies, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise F0Error(f"f0s cannot be read as numbers ({error}); expected Hz, shape (voices, frames)") from error
        if frequencies.ndim != 2 or frequencies.size == 0:
            raise F0Error(f"f0s have shape {frequencies.shape}; expected (voices, frames), neither of them 0")
        if len(self.names) != frequencies.shape[0]:
            raise F0Error(
                f"f0s have {frequencies.shape[0]} voices but there are {len(self.names)} names "
                f"({', '.join(self.names)}); expected one name for each voice"
            )
        if not (np.isfinite(frequencies).all() and frequencies.min() >= 0 and frequencies.max() <= MAX_F0):
            raise F0Error(f"f0s hold values that are negative, NaN or above {MAX_F0:g} Hz; expected Hz, 0 = unvoiced")
        if not (np.isfinite(self.hop) and 0 < self.hop <= 1):
            raise F0Error(f"hop is {self.hop!r} s; expected more than 0 and at most 1 second")
        object.__setattr__(self, "frequencies", frequencies)
        object.__setattr__(self, "names", tuple(self.names))
        if self.confidence is not None:
            confidence = np.array(self.confidence, dtype=np.float32)
            if confidence.shape != frequencies.shape:
                raise F0Error(f"confidence has shape {confidence.shape}; expected that of f0, {frequencies.shape}")
            object.__setattr__(self, "confidence", np.clip(np.nan_to_num(confidence), 0, 1))

    @property
    def n_voices(self) -> int:
        """Number of voices."""
        return int(self.frequencies.shape[0])

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.frequencies.shape[1])

    @property
    def times(self) -> NDArray[np.float64]:
        """Centre of each frame in seconds, shape (frames,)."""
        return np.arange(self.n_frames, dtype=np.float64) * self.hop

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Where a voice sings, shape (voices, frames)."""
        return self.frequencies > 0

    def select(self, names: Sequence[str]) -> F0Tracks:
        """Return the tracks of the named voices, in the order of `names`.

        Raises
        ------
        F0Error
            If a name is not among the voices.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise F0Error(f"no voice named {missing[0]!r}; the tracks have {', '.join(self.names)}")
        rows = [self.names.index(name) for name in names]
        confidence = None if self.confidence is None else self.confidence[rows]
        return replace(self, frequencies=self.frequencies[rows], names=tuple(names), confidence=confidence)

    def resampled(self, hop: float, n_frames: int) -> F0Tracks:
        """Return the tracks on another grid of frames.

        F0 is interpolated on a logarithmic axis between voiced neighbours; where a neighbour is unvoiced the
        nearer of the two decides. Past the last frame voices are unvoiced.
        """
        if np.isclose(hop, self.hop, rtol=1e-9) and n_frames == self.n_frames:
            return self
        position = np.arange(n_frames) * (hop / self.hop)
        left = np.minimum(np.floor(position + 1e-6).astype(int), self.n_frames - 1)
        right = np.minimum(left + 1, self.n_frames - 1)
        weight = np.clip(position - left, 0, 1)
        inside = position < self.n_frames - 0.5 + 1e-6
        low, high = self.frequencies[:, left].astype(float), self.frequencies[:, right].astype(float)
        nearest = np.where(weight < 0.5, low, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.exp2(np.log2(low) * (1 - weight) + np.log2(high) * weight)
        exact = weight < 1e-6
        f0 = np.where((low > 0) & (high > 0) & ~exact, between, nearest) * inside
        confidence = None
        if self.confidence is not None:
            confidence = (self.confidence[:, left] * (1 - weight) + self.confidence[:, right] * weight) * inside
        return replace(self, frequencies=f0, hop=hop, confidence=confidence)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one table: a line of names (`time,soprano,...`), then time in s and f0 in Hz for each frame.

        Values are written with as many digits as they need to be read back unchanged.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["time", *self.names])
        for time, column in zip(self.times, self.frequencies.T, strict=True):
            writer.writerow([f"{time:.6f}", *(_shortest(value) for value in column)])
        _write_text(Path(path), out.getvalue())

    def to_csv_per_voice(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `NAME.csv` with two columns, time in s and f0 in Hz, for each voice; return the paths.

        This is what Sonic Visualiser imports and what `mir_eval.io.load_time_series` reads.
        """
        paths = [Path(folder) / f"{name}.csv" for name in self.names]
        for path, row in zip(paths, self.frequencies, strict=True):
            lines = [f"{time:.6f},{_shortest(value)}" for time, value in zip(self.times, row, strict=True)]
            _write_text(path, "\n".join(lines) + "\n")
        return paths

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read a table with a column for each voice, or a two-column file, or a folder of two-column files.

        Times may be on any grid; they are brought to a regular one. In a folder the voices are the files, in the
        order of `names` or, without it, from the highest median f0 to the lowest.

        Parameters
        ----------
        path
            A CSV file (comma, semicolon, tab or space between columns) or a folder of them.
        names
            Names of the voices, where the file has none or for a folder.

        Raises
        ------
        F0Error
            If the file cannot be read as such a table.
        """
        source = Path(path)
        if source.is_dir():
            return _read_folder(source, names)
        header, table = _read_table(source)
        columns = header or names or [source.stem] * (table.shape[1] == 2) or []
        if len(columns) != table.shape[1] - 1:
            raise F0Error(
                f"{source}: has {table.shape[1] - 1} columns of f0 and {len(columns)} names; expected a first line "
                "such as time,soprano,alto,tenor,bass"
            )
        return _from_times(table[:, 0], np.abs(table[:, 1:].T * (table[:, 1:].T > 0)), tuple(columns), source)

    @classmethod
    def from_midi(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read the notes of a MIDI file as f0: one voice for each track that has notes.

        Notes that overlap within a track (legato) are cut at the next note's start. Equal temperament, A4 = 440 Hz.
        Without `names`, voices carry the names of the tracks, in the order of the file.

        Raises
        ------
        F0Error
            If the file is not MIDI, has no notes, or has another number of voices than `names`.
        """
        import mido

        source = Path(path)
        try:
            midi = mido.MidiFile(source)
            parts = [(track.name, _notes(midi, track)) for track in midi.tracks]
        except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
            raise F0Error(f"{source}: cannot be read as MIDI ({error or 'it ends early'})") from error
        parts = [(name, notes) for name, notes in parts if notes]
        if not parts:
            raise F0Error(f"{source}: holds no notes; expected one track for each voice")
        if names is not None and len(names) != len(parts):
            raise F0Error(f"{source}: has {len(parts)} tracks with notes; expected {len(names)} ({', '.join(names)})")
        duration = max(end for _, notes in parts for _, end, _ in notes)
        if duration > 24 * 3600:
            raise F0Error(f"{source}: lasts {duration / 3600:.0f} hours; expected at most 24")
        frequencies = np.zeros((len(parts), int(np.ceil(duration / HOP)) + 1), dtype=np.float32)
        for row, (_, notes) in zip(frequencies, parts, strict=True):
            for start, end, frequency in notes:
                row[int(np.ceil(start / HOP - 1e-6)) : int(np.ceil(end / HOP - 1e-6))] = frequency
        own_names = _unique([name.strip() or f"voice{index + 1}" for index, (name, _) in enumerate(parts)])
        return cls(frequencies, tuple(names if names is not None else own_names))


def _shortest(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise F0Error(f"{path}: cannot be written ({error.strerror})") from error


def _read_table(path: Path) -> tuple[list[str] | None, NDArray[np.float64]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise F0Error(f"{path}: cannot be read as text ({error}); expected a CSV of time and f0") from error
    rows = [(number, _split(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise F0Error(f"{path}: is empty; expected lines of time in seconds and f0 in Hz")
    header = None if _numbers(rows[0][1]) else rows.pop(0)[1][1:]
    table: list[list[float]] = []
    for number, cells in rows:
        values = _numbers(cells)
        if values is None or len(values) < 2 or (table and len(values) != len(table[0])):
            raise F0Error(f"{path}: line {number} is {','.join(cells)[:60]!r}; expected time and f0 for each voice")
        table.append(values)
    if not table:
        raise F0Error(f"{path}: has a line of names but no values")
    return header, np.array(table)


def _split(line: str) -> list[str]:
    for separator in (",", ";", "\t"):
        if separator in line:
            return [cell.strip().strip('"') for cell in line.split(separator)]
    return line.split()


def _numbers(cells: Iterable[str]) -> list[float] | None:
    try:
        return [float(cell) if cell else 0.0 for cell in cells]
    except ValueError:
        return None


def _from_times(
    times: NDArray[np.float64], values: NDArray[np.float64], names: tuple[str, ...], source: Path
) -> F0Tracks:
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise F0Error(f"{source}: times are negative, NaN or do not grow; expected seconds from 0 upwards")
    hop = float(np.median(np.diff(times))) if len(times) > 1 else HOP
    if times[-1] > 24 * 3600 or hop > 1:
        raise F0Error(f"{source}: times reach {times[-1]:g} in steps of {hop:g}; expected seconds, steps up to 1")
    grid = np.arange(len(times)) * hop
    if np.abs(times - grid).max() <= 1e-5 + 1e-6 * len(times):
        hop = HOP if abs(hop - HOP) < 1e-6 else hop
        return F0Tracks(values.astype(np.float32), names, hop)
    # Off the grid (Sonic Visualiser leaves out unvoiced frames): the value of the nearest time within a hop.
    frames = int(np.ceil(times[-1] / HOP)) + 1
    centres = np.arange(frames) * HOP
    right = np.clip(np.searchsorted(times, centres), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    nearest = np.where(centres - times[left] <= times[right] - centres, left, right)
    near = np.abs(times[nearest] - centres) <= max(hop, HOP)
    return F0Tracks((values[:, nearest] * near).astype(np.float32), names, HOP)


def _read_folder(folder: Path, names: Sequence[str] | None) -> F0Tracks:
    paths = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    if not paths:
        raise F0Error(f"{folder}: holds no .csv files; expected one for each voice")
    missing = [name for name in names or [] if name not in paths]
    if missing:
        raise F0Error(f"{folder}: has no {missing[0]}.csv; it has {', '.join(paths)}")
    tracks = {name: F0Tracks.from_csv(paths[name], [name]) for name in names or paths}
    hop = min(track.hop for track in tracks.values())
    frames = max(int(np.ceil(track.n_frames * track.hop / hop)) for track in tracks.values())
    rows = {name: track.resampled(hop, frames).frequencies[0] for name, track in tracks.items()}
    order = list(names) if names else sorted(rows, key=lambda name: -_register(rows[name]))
    return F0Tracks(np.stack([rows[name] for name in order]), tuple(order), hop)


def _register(f0: NDArray[np.float32]) -> float:
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0


def _notes(midi: mido.MidiFile, track: mido.MidiTrack) -> list[tuple[float, float, float]]:
    """Return the notes of a track as (start in s, end in s, f0 in Hz), by start."""
    tempo_map = _tempo_map(midi)
    notes: list[tuple[float, float, float]] = []
    sounding: dict[int, int] = {}
    for tick, message in _with_ticks(track):
        if message.type == "note_on" and message.velocity > 0:
            sounding.setdefault(message.note, tick)
        elif message.type in ("note_on", "note_off") and message.note in sounding:
            span = (sounding.pop(message.note), tick)
            start, end = (_seconds(point, tempo_map, midi.ticks_per_beat) for point in span)
            notes.append((start, end, 440.0 * 2 ** ((message.note - 69) / 12)))
    notes.sort()
    ends = [min(end, following[0]) for (_, end, _), following in zip(notes, notes[1:], strict=False)]
    cut = [*ends, *(end for _, end, _ in notes[-1:])]
    return [(start, end, f0) for (start, _, f0), end in zip(notes, cut, strict=True) if end > start]


def _with_ticks(track: mido.MidiTrack) -> Iterable[tuple[int, mido.Message]]:
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _tempo_map(midi: mido.MidiFile) -> list[tuple[int, int]]:
    """Return (tick, microseconds per beat), by tick, from all tracks; MIDI starts at 120 beats a minute."""
    changes = [
        (tick, message.tempo)
        for track in midi.tracks
        for tick, message in _with_ticks(track)
        if message.type == "set_tempo"
    ]
    return [(0, 500_000), *sorted(changes)]


def _seconds(tick: int, tempo_map: list[tuple[int, int]], ticks_per_beat: int) -> float:
    seconds = 0.0
    ends = [start for start, _ in tempo_map[1:]] + [tick]
    for (start, tempo), end in zip(tempo_map, ends, strict=True):
        seconds += max(0, min(end, tick) - start) * tempo * 1e-6 / ticks_per_beat
    return seconds


def _unique(names: list[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name}{names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]
