"""F0 tracks of an ensemble: values, names, hop, and their CSV and MIDI forms.

F0 is in Hz, 0 where a voice is silent or unvoiced; voices are ordered from high to low. Frame t is centred on
the time t * hop. CSV comes in two forms: one table with a column for each voice (`time,soprano,alto,...`), and
the form of Sonic Visualiser and mir_eval, one file of two columns (time, f0) for each voice.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error, one_line, shown
from vocalsep.f0.csv import asked_names, interpolate, listed, read_table, shortest, to_array, to_path, told
from vocalsep.files import write_file
from vocalsep.paths import folded
from vocalsep.timebase import HOP
from vocalsep.voices import MAX_VOICES, is_voice_name, to_voice_name

MAX_F0 = 8000.0
"""Hz: no voice sings higher; larger values are taken for mistakes such as a column of milliseconds."""
MIN_HOP = 1e-5
"""Seconds: shorter than a sample. Less between frames is taken for a mistake, and would fill the memory."""
_MAX_SECONDS = 24 * 3600.0  # more is taken for times in other units
_MAX_FRAMES = 1 << 23  # of voices from several files on a common grid: more than a day of 16 ms


@dataclass(frozen=True, eq=False)
class F0Tracks:
    """The f0 of every voice on a regular grid of frames.

    Parameters
    ----------
    frequencies
        F0 in Hz, shape (voices, frames), 0 = unvoiced.
    names
        Name of each voice, high to low; all different, and such as can be part of a file name.
    hop
        Seconds between frames; frame t is centred on t * hop.
    confidence
        How sure the tracker was of each value, in [0, 1], shape (voices, frames); None where nothing is known.

    Raises
    ------
    F0Error
        If values are negative, not finite or above 8 kHz, shapes do not fit, names do not serve, or there are more
        than 16 voices.
    """

    frequencies: NDArray[np.float32]
    names: tuple[str, ...]
    hop: float = HOP
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        frequencies = _numeric(self.frequencies, "f0s", "Hz, shape (voices, frames)")
        if frequencies.ndim != 2 or frequencies.size == 0:
            raise F0Error(f"f0s have shape {frequencies.shape}; expected (voices, frames), neither of them 0")
        if len(frequencies) > MAX_VOICES:
            raise F0Error(f"f0s have {len(frequencies)} voices; expected 1 to {MAX_VOICES}")
        names = listed(self.names)
        if len(names) != frequencies.shape[0]:
            raise F0Error(
                f"f0s have {frequencies.shape[0]} voices but there are {len(names)} names "
                f"({one_line(', '.join(map(str, names[: MAX_VOICES + 1])))}); expected one name for each voice"
            )
        for index, name in enumerate(names):
            if not is_voice_name(name) or folded(name) in [folded(other) for other in names[:index]]:
                raise F0Error(
                    f"name of voice {index + 1} is {shown(name)}; expected one of its own that a file can have"
                )
        if not (np.isfinite(frequencies).all() and frequencies.min() >= 0 and frequencies.max() <= MAX_F0):
            raise F0Error(f"f0s hold values that are negative, NaN or above {MAX_F0:g} Hz; expected Hz, 0 = unvoiced")
        if not _is_hop(self.hop):
            raise F0Error(f"hop is {shown(self.hop)} s; expected seconds, from {MIN_HOP:g} to 1")
        object.__setattr__(self, "frequencies", frequencies)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "hop", float(self.hop))
        if self.confidence is not None:
            confidence = _numeric(self.confidence, "confidence", f"[0, 1], shape {frequencies.shape}")
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
        names = listed(names)
        missing = [name for name in names if not isinstance(name, str) or name not in self.names]
        if missing:
            raise F0Error(f"no voice named {shown(missing[0])}; the tracks have {', '.join(self.names)}")
        rows = [self.names.index(name) for name in names]
        confidence = None if self.confidence is None else self.confidence[rows]
        return replace(self, frequencies=self.frequencies[rows], names=names, confidence=confidence)

    def resampled(self, hop: float, n_frames: int) -> F0Tracks:
        """Return the tracks on another grid of frames.

        F0 is interpolated on a logarithmic axis between voiced neighbours; where a neighbour is unvoiced the
        nearer of the two decides. Past the last frame voices are unvoiced.

        Parameters
        ----------
        hop
            Seconds between the new frames.
        n_frames
            Number of new frames.
        """
        if not _is_hop(hop) or not isinstance(n_frames, Integral) or n_frames < 1:
            raise F0Error(f"grid has {shown(n_frames)} frames of {shown(hop)} s; expected some, of {MIN_HOP:g} to 1 s")
        if np.isclose(hop, self.hop, rtol=1e-9, atol=0) and n_frames == self.n_frames:
            return self
        old, new = np.arange(float(self.n_frames)), np.arange(n_frames) * (hop / self.hop)
        confidence = None
        if self.confidence is not None:
            confidence = np.stack([np.interp(new, old, row) for row in self.confidence]) * (new < self.n_frames - 0.5)
        return replace(self, frequencies=interpolate(self.frequencies, old, new, 0.5), hop=hop, confidence=confidence)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one table: a line of names (`time,soprano,...`), then time in s and f0 in Hz for each frame.

        Values are written with as many digits as they need to be read back unchanged. Confidence is not written.

        Raises
        ------
        F0Error
            If the file cannot be written.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["time", *self.names])
        for time, column in zip(self.times, self.frequencies.T, strict=True):
            writer.writerow([f"{time:.6f}", *(shortest(value) for value in column)])
        write_file(Path(path), out.getvalue().encode(), "CSV", F0Error)

    def to_csv_per_voice(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `NAME.csv` with two columns, time in s and f0 in Hz, for each voice; return the paths.

        This is what Sonic Visualiser imports and what `mir_eval.io.load_time_series` reads.

        Raises
        ------
        F0Error
            If a file cannot be written.
        """
        paths = [Path(folder) / f"{name}.csv" for name in self.names]
        for path, row in zip(paths, self.frequencies, strict=True):
            lines = [f"{time:.6f},{shortest(value)}" for time, value in zip(self.times, row, strict=True)]
            write_file(path, ("\n".join(lines) + "\n").encode(), "CSV", F0Error)
        return paths

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read a table with a column for each voice, or a two-column file, or a folder of two-column files.

        Times may be on any grid. Where they are regular from 0 on, their hop is kept; otherwise (Sonic Visualiser
        leaves out unvoiced frames) values are brought to the grid of 16 ms. Negative f0 is unvoiced, as in mir_eval.
        Columns go by the line of names where there is one ("time" first, or wherever it stands). In a folder the
        voices are the files, in the order of `names` or, without it, from the highest median f0 to the lowest.

        Parameters
        ----------
        path
            A CSV file (comma, semicolon, tab or space between columns) or a folder of them.
        names
            Names of the voices: which columns or files to read, in which order; what to call the columns of a file
            without a line of names, or with a single voice.

        Raises
        ------
        F0Error
            If the file cannot be read as such a table.
        """
        source = to_path(path)
        if os.path.isdir(source):  # noqa: PTH112 (of a path that is too long it knows that it is none)
            return _read_folder(source, names)
        return cls._from_table(source, names)

    @classmethod
    def _from_table(cls, source: Path, given: Sequence[str] | None) -> F0Tracks:
        """Return what a file holds; see `from_csv`."""
        names = None if given is None else asked_names(given)
        header, table = read_table(source)
        own = header or names or [to_voice_name(source.stem, "voice1")] * (table.shape[1] == 2) or []
        if len(own) != table.shape[1] - 1:
            raise F0Error(
                f"{told(source)}: has {table.shape[1] - 1} columns of f0 and {len(own)} names; expected a first line "
                "such as time,soprano,alto,tenor,bass"
            )
        values = table[:, 1:].T
        try:
            if names is None or len(names) == len(own) == 1:
                return _from_times(table[:, 0], values, tuple(names or own))
            found = [folded(name) for name in own]
            missing = [name for name in names if folded(name) not in found]
            if missing:
                raise F0Error(f"has no column {shown(missing[0])}; it has {one_line(', '.join(own))}")
            columns = [found.index(folded(name)) for name in names]
            return _from_times(table[:, 0], values[columns], tuple(names))
        except F0Error as error:
            raise F0Error(f"{told(source)}: {error}") from error

    def to_midi(self, path: str | os.PathLike[str]) -> None:
        """Write the notes of each voice as a track with its name (format 1, 120 beats a minute, ticks of 1 ms).

        F0 becomes notes by the method of `vocalsep.f0.notes`: vibrato, glides and drop-outs shorter than 80 ms do not
        end a note, and what lasts less than 0.1 s is none. Notes are rounded to the semitones of the tuning that all
        voices have together, which a text in the file tells. Every note has the velocity 80: f0 has no loudness.

        Raises
        ------
        F0Error
            If the file cannot be written.
        """
        from vocalsep.f0.midi import midi_of

        write_file(Path(path), midi_of(self.frequencies, self.names, self.hop), "MIDI", F0Error)

    @classmethod
    def from_midi(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read the notes of a MIDI file as f0: one voice for each track that has notes.

        Where only one track has notes, each of its channels is a voice. Notes that overlap within a voice (legato)
        are cut at the next note's start; of notes that start together the highest is taken. Equal temperament,
        A4 = 440 Hz. Percussion (channel 10) is left out.

        Parameters
        ----------
        path
            A .mid file.
        names
            Names of the voices, in the order of the file; or the names of its tracks in any order, also of those
            without notes. Without it, voices carry the names of the tracks, in the order of the file.

        Raises
        ------
        F0Error
            If the file is not MIDI, has no notes, or has another number of voices than `names`.
        """
        from vocalsep.f0.midi import read_midi

        source = to_path(path)
        frequencies, found = read_midi(source, None if names is None else asked_names(names), HOP)
        try:
            return cls(frequencies, found)
        except F0Error as error:
            raise F0Error(f"{told(source)}: {error}") from error


def _numeric(values: object, what: str, expected: str) -> NDArray[np.float32]:
    array = to_array(values, what, expected)
    if array.dtype.kind not in "iuf":
        dtype = one_line(str(array.dtype))
        raise F0Error(f"{what} cannot be read as numbers (dtype {dtype}); expected {expected}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _is_hop(hop: Any) -> bool:
    try:
        return isinstance(hop, Real) and not isinstance(hop, bool) and MIN_HOP <= float(hop) <= 1
    except OverflowError:
        return False


def _from_times(times: NDArray[np.float64], values: NDArray[np.float64], names: tuple[str, ...]) -> F0Tracks:
    given = F0Tracks(np.where(values < 0, 0.0, values), names)  # refuses what is no f0
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise F0Error("times are negative, NaN or do not grow; expected seconds from 0 upwards")
    hop = float(np.median(np.diff(times))) if len(times) > 1 and times[-1] <= _MAX_SECONDS else HOP
    if times[-1] > _MAX_SECONDS or not MIN_HOP <= hop <= 1:
        raise F0Error(
            f"times reach {times[-1]:g} in steps of {hop:g}; expected seconds, "
            f"at most 24 hours in steps of {MIN_HOP:g} to 1"
        )
    last = len(times) - 1
    mean = times[-1] / last if last else HOP
    if np.abs(times - np.arange(len(times)) * mean).max() <= 0.25 * mean:  # times are rounded, often to 1 ms
        return replace(given, hop=HOP if abs(mean - HOP) * last < 1e-3 else mean)
    centres = np.arange(int(np.ceil(times[-1] / HOP - 1e-6)) + 1) * HOP
    # A value holds for half a hop either side, and a little more where times are uneven.
    return F0Tracks(interpolate(given.frequencies, times / hop, centres / hop, reach=0.75), names, HOP)


def _read_folder(folder: Path, given: Sequence[str] | None) -> F0Tracks:
    try:
        # What begins with a dot is hidden, such as the copies that macOS makes of what a file system cannot keep.
        found = sorted(path for path in folder.glob("*.csv") if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise F0Error(f"{told(folder)}: cannot be read ({error.strerror}); expected a .csv for each voice") from error
    paths = {path.stem: path for path in found}
    names = tuple(paths) if given is None else asked_names(given)
    if not paths or len(names) > MAX_VOICES:
        raise F0Error(
            f"{told(folder)}: holds {len(paths) or 'no'} .csv files; expected one for each voice, at most {MAX_VOICES}"
        )
    missing = [name for name in names if name not in paths]
    if missing:
        there = one_line(", ".join(paths))
        raise F0Error(f"{told(folder)}: has no {one_line(missing[0])}.csv; it has {there}")
    tracks = {name: F0Tracks._from_table(paths[name], [name]) for name in names}
    seconds = max(track.n_frames * track.hop for track in tracks.values())
    hop = min(track.hop for track in tracks.values())
    hop = hop if seconds / hop <= _MAX_FRAMES else HOP
    frames = max(int(np.ceil(track.n_frames * track.hop / hop)) for track in tracks.values())
    rows = {name: track.resampled(hop, frames).frequencies[0] for name, track in tracks.items()}
    order = names if given is not None else tuple(sorted(rows, key=lambda name: -register(rows[name])))
    return F0Tracks(np.stack([rows[name] for name in order]), order, hop)


def register(f0: NDArray[np.float32]) -> float:
    """Return the median f0 in Hz of a voice, shape (frames,), where it sings; 0 if it never does."""
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0
