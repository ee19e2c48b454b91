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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocalsep.audio import MODEL_SAMPLE_RATE
from vocalsep.errors import F0Error
from vocalsep.files import write_file
from vocalsep.table import read_table, shortest
from vocalsep.voices import is_voice_name, to_voice_name

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
        Name of each voice, high to low; all different, and such as can be part of a file name.
    hop
        Seconds between frames; frame t is centred on t * hop.
    confidence
        How sure the tracker was of each value, in [0, 1], shape (voices, frames); None where nothing is known.

    Raises
    ------
    F0Error
        If values are negative, not finite or above 8 kHz, shapes do not fit, or names do not serve.
    """

    frequencies: NDArray[np.float32]
    names: tuple[str, ...]
    hop: float = HOP
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        frequencies = _numeric(self.frequencies, "f0s", "Hz, shape (voices, frames)")
        if frequencies.ndim != 2 or frequencies.size == 0:
            raise F0Error(f"f0s have shape {frequencies.shape}; expected (voices, frames), neither of them 0")
        names = tuple(self.names)
        if len(names) != frequencies.shape[0]:
            raise F0Error(
                f"f0s have {frequencies.shape[0]} voices but there are {len(names)} names "
                f"({', '.join(map(str, names))}); expected one name for each voice"
            )
        for index, name in enumerate(names):
            if not is_voice_name(name) or name.casefold() in [other.casefold() for other in names[:index]]:
                raise F0Error(f"name of voice {index + 1} is {name!r}; expected one of its own that a file can have")
        if not (np.isfinite(frequencies).all() and frequencies.min() >= 0 and frequencies.max() <= MAX_F0):
            raise F0Error(f"f0s hold values that are negative, NaN or above {MAX_F0:g} Hz; expected Hz, 0 = unvoiced")
        if not _is_hop(self.hop):
            raise F0Error(f"hop is {self.hop!r} s; expected more than 0 and at most 1 second")
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

        Parameters
        ----------
        hop
            Seconds between the new frames.
        n_frames
            Number of new frames.
        """
        if not _is_hop(hop) or n_frames < 1:
            raise F0Error(f"grid has {n_frames!r} frames of {hop!r} s; expected some, of at most 1 second")
        if np.isclose(hop, self.hop, rtol=1e-9, atol=0) and n_frames == self.n_frames:
            return self
        old, new = np.arange(float(self.n_frames)), np.arange(n_frames) * (hop / self.hop)
        confidence = None
        if self.confidence is not None:
            confidence = np.stack([np.interp(new, old, row) for row in self.confidence]) * (new < self.n_frames - 0.5)
        return replace(self, frequencies=_interpolate(self.frequencies, old, new, 0.5), hop=hop, confidence=confidence)

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
        source = Path(path)
        if source.is_dir():
            return _read_folder(source, names)
        header, table = read_table(source)
        own = header or names or [to_voice_name(source.stem, "voice1")] * (table.shape[1] == 2) or []
        if len(own) != table.shape[1] - 1:
            raise F0Error(
                f"{source}: has {table.shape[1] - 1} columns of f0 and {len(own)} names; expected a first line "
                "such as time,soprano,alto,tenor,bass"
            )
        values = table[:, 1:].T
        try:
            if names is None or len(names) == len(own) == 1:
                return _from_times(table[:, 0], values, tuple(names or own))
            folded = [name.casefold() for name in own]
            missing = [name for name in names if name.casefold() not in folded]
            if missing:
                raise F0Error(f"has no column {missing[0]!r}; it has {', '.join(own)}")
            columns = [folded.index(name.casefold()) for name in names]
            return _from_times(table[:, 0], values[columns], tuple(names))
        except F0Error as error:
            raise F0Error(f"{source}: {error}") from error

    def to_midi(self, path: str | os.PathLike[str]) -> None:
        """Write the notes of each voice as a track with its name (format 1, 120 beats a minute, ticks of 1 ms).

        F0 becomes notes by the method of `vocalsep.notes`: vibrato, glides and drop-outs shorter than 80 ms do not
        end a note, and what lasts less than 0.1 s is none. Notes are rounded to the semitones of the tuning that all
        voices have together, which a text in the file tells. Every note has the velocity 80: f0 has no loudness.

        Raises
        ------
        F0Error
            If the file cannot be written.
        """
        from vocalsep.midi import midi_of

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
        from vocalsep.midi import read_midi

        frequencies, found = read_midi(Path(path), names, HOP)
        try:
            return cls(frequencies, found)
        except F0Error as error:
            raise F0Error(f"{path}: {error}") from error


def _interpolate(
    f0: NDArray[np.floating], times: NDArray[np.floating], points: NDArray[np.floating], reach: float
) -> NDArray[np.float32]:
    """Return f0, shape (voices, times), at the points: on a logarithmic axis, with no glide over rests or gaps.

    Times, points and reach, how far from its time a value holds, are in hops of the given times.
    """
    tolerance = 1e-6
    left = np.clip(np.searchsorted(times, points + tolerance, side="right") - 1, 0, len(times) - 1)
    right = np.minimum(left + 1, len(times) - 1)
    gap = times[right] - times[left]
    weight = np.clip((points - times[left]) / np.where(gap > 0, gap, 1.0), 0, 1)
    near = np.abs(points - times[np.where(weight < 0.5, left, right)]) <= reach + tolerance
    low, high = f0[:, left].astype(float), f0[:, right].astype(float)
    between = (low > 0) & (high > 0) & (weight > tolerance) & (weight < 1) & (gap <= 2 * reach + tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        glide = np.exp2(np.log2(low) * (1 - weight) + np.log2(high) * weight)
    return np.where(between, glide, np.where(weight < 0.5, low, high) * near).astype(np.float32)


def _numeric(values: object, what: str, expected: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise F0Error(f"{what} cannot be read as numbers ({error}); expected {expected}") from error
    if array.dtype.kind not in "iuf":
        raise F0Error(f"{what} cannot be read as numbers (dtype {array.dtype}); expected {expected}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _is_hop(hop: Any) -> bool:
    try:
        return 0 < float(hop) <= 1
    except (TypeError, ValueError):
        return False


def _from_times(times: NDArray[np.float64], values: NDArray[np.float64], names: tuple[str, ...]) -> F0Tracks:
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise F0Error("times are negative, NaN or do not grow; expected seconds from 0 upwards")
    hop = float(np.median(np.diff(times))) if len(times) > 1 else HOP
    if times[-1] > 24 * 3600 or hop > 1:
        raise F0Error(f"times reach {times[-1]:g} in steps of {hop:g}; expected seconds, steps up to 1")
    f0 = np.where(values < 0, 0.0, values)
    last = len(times) - 1
    mean = times[-1] / last if last else HOP
    if np.abs(times - np.arange(len(times)) * mean).max() <= 0.25 * mean:  # times are rounded, often to 1 ms
        return F0Tracks(f0, names, HOP if abs(mean - HOP) * last < 1e-3 else mean)
    centres = np.arange(int(np.ceil(times[-1] / HOP - 1e-6)) + 1) * HOP
    # A value holds for half a hop either side, and a little more where times are uneven.
    return F0Tracks(_interpolate(f0, times / hop, centres / hop, reach=0.75), names, HOP)


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
    order = list(names) if names else sorted(rows, key=lambda name: -register(rows[name]))
    return F0Tracks(np.stack([rows[name] for name in order]), tuple(order), hop)


def register(f0: NDArray[np.float32]) -> float:
    """Return the median f0 in Hz of a voice, shape (frames,), where it sings; 0 if it never does."""
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0
