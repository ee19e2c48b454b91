"""F0 tracks of an ensemble: their values, names and hop, and their CSV and MIDI forms.

F0 is in Hz, 0 where a voice is silent or unvoiced. Voices are ordered from high to low. Frame t is centred on the time
t * hop.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import F0Error, one_line, printable, shown
from vocalsep.f0.csv import format_csv, read_csv
from vocalsep.f0.resampling import MAX_HOP, MIN_HOP, resample
from vocalsep.files import write_file
from vocalsep.paths import folded, is_file_name
from vocalsep.timebase import HOP
from vocalsep.voices import MAX_VOICES

MAX_F0 = 8000.0
"""Highest f0 in Hz: no voice sings higher, and larger values are mistakes such as a column of milliseconds."""


@dataclass(frozen=True, eq=False)
class F0Tracks:
    """The f0 of every voice on a regular grid of frames.

    Parameters
    ----------
    frequencies : array_like, shape (voices, frames)
        F0 in Hz, 0 = unvoiced.
    names : sequence of str
        Name of each voice, from high to low; all different, and valid in file names.
    hop : float
        Seconds between frames.
    confidence : array_like, shape (voices, frames), optional
        Confidence of the tracker in each value, in [0, 1]; None if it is unknown.

    Raises
    ------
    F0Error
        If values are negative, not finite or above 8 kHz, shapes do not match, a name cannot be used, or there are
        more than 16 voices.
    """

    frequencies: NDArray[np.float32]
    names: tuple[str, ...]
    hop: float = HOP
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        frequencies = to_numbers(self.frequencies, "f0s")
        names = tuple(self.names)
        if frequencies.ndim != 2 or frequencies.size == 0:
            raise F0Error(f"f0s have shape {frequencies.shape}; expected (voices, frames), neither of them 0")
        if len(frequencies) > MAX_VOICES:
            raise F0Error(f"f0s have {len(frequencies)} voices; expected 1 to {MAX_VOICES}")
        if not ((frequencies >= 0) & (frequencies <= MAX_F0)).all():
            raise F0Error(f"f0s hold values that are negative, NaN or above {MAX_F0:g} Hz; expected Hz, 0 = unvoiced")
        if len(names) != len(frequencies):
            raise F0Error(
                f"f0s have {len(frequencies)} voices but {len(names)} names; expected one name for each voice"
            )
        for index, name in enumerate(names):
            if not is_file_name(name) or folded(name) in map(folded, names[:index]):
                raise F0Error(
                    f"name of voice {index + 1} is {shown(name)}; expected a different name for each voice that can "
                    "be part of a file name"
                )
        if not MIN_HOP <= self.hop <= MAX_HOP:
            raise F0Error(f"hop is {shown(self.hop)} s; expected {MIN_HOP:g} to {MAX_HOP:g} s", parameter="hop")
        object.__setattr__(self, "frequencies", frequencies)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "hop", float(self.hop))
        if self.confidence is not None:
            confidence = to_numbers(self.confidence, "confidence")
            if confidence.shape != frequencies.shape:
                raise F0Error(
                    f"confidence has shape {confidence.shape}; expected that of the f0s, {frequencies.shape}",
                    parameter="confidence",
                )
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
        """True where a voice sings, shape (voices, frames)."""
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
            raise F0Error(f"no voice is named {shown(missing[0])}; expected names out of {', '.join(self.names)}")
        rows = [self.names.index(name) for name in names]
        confidence = None if self.confidence is None else self.confidence[rows]
        return replace(self, frequencies=self.frequencies[rows], names=tuple(names), confidence=confidence)

    def high_to_low(self) -> F0Tracks:
        """Return the tracks in the order of their median f0; voices that never sing come last."""
        medians = [np.median(row[row > 0]) if row.any() else 0.0 for row in self.frequencies]
        return self.select([self.names[row] for row in np.argsort(np.negative(medians), kind="stable")])

    def resampled(self, hop: float, n_frames: int) -> F0Tracks:
        """Return the tracks on another grid of frames.

        F0 is interpolated on a logarithmic axis between voiced neighbours. Beside an unvoiced frame, the nearer of
        the two neighbours decides. Past the last frame voices are unvoiced.

        Parameters
        ----------
        hop : float
            Seconds between the new frames.
        n_frames : int
            Number of new frames.

        Raises
        ------
        F0Error
            If the grid has no frames, or its hop is out of range.
        """
        if np.isclose(hop, self.hop, rtol=1e-9, atol=0) and n_frames == self.n_frames:
            return self
        confidence = None
        if self.confidence is not None:
            old, new = np.arange(self.n_frames), np.arange(n_frames) * (hop / self.hop)
            confidence = np.stack([np.interp(new, old, row) for row in self.confidence]) * (new < self.n_frames - 0.5)
        frequencies = resample(self.frequencies, self.hop, hop, n_frames)
        return replace(self, frequencies=frequencies, hop=hop, confidence=confidence)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one table: a line of names (`time,soprano,...`), then time in s and f0 in Hz for each frame.

        Values have as many digits as they need to be read back unchanged. Confidence is not written.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        write_file(Path(path), format_csv(self.times, self.frequencies, self.names))

    def to_csv_per_voice(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write a file `NAME.csv` for each voice, with two columns, time in s and f0 in Hz, and return the paths.

        Sonic Visualiser and `mir_eval.io.load_time_series` read such files.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        paths = [Path(folder) / f"{name}.csv" for name in self.names]
        for row, path in enumerate(paths):
            write_file(path, format_csv(self.times, self.frequencies[row : row + 1]))
        return paths

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read a table with a column for each voice, a two-column file, or a folder of two-column files.

        Regular times that start at 0 keep their hop. Other times, such as those of Sonic Visualiser, which leaves out
        unvoiced frames, are brought to the 16-ms grid. Negative f0 is unvoiced, as in mir_eval. If the table has a
        line of names, the column of times may stand anywhere; otherwise it is the first. The voices of a folder are
        its files, from the highest median f0 to the lowest unless `names` says otherwise.

        Parameters
        ----------
        path : path-like
            A CSV file, with comma, semicolon, tab or space between columns, or a folder of such files.
        names : sequence of str, optional
            Columns or files to read, in this order. For a file without a line of names or with a single voice, the
            names to give to its columns.

        Raises
        ------
        F0Error
            If the file cannot be read as such a table.
        """
        source = Path(path)
        try:
            tracks = cls(*read_csv(source, None if names is None else tuple(names)))
        except F0Error as error:
            raise F0Error(f"{printable(source)}: {error}") from error
        return tracks.high_to_low() if names is None and source.is_dir() else tracks

    def to_midi(self, path: str | os.PathLike[str]) -> None:
        """Write the notes of each voice as a track with its name (format 1, 120 beats a minute, ticks of 1 ms).

        `vocalsep.f0.notes` finds the notes: vibrato, glides and drop-outs shorter than 80 ms do not end a note, and
        notes last at least 0.1 s. They are rounded to the semitones of the tuning that all voices share; a text in
        the file names this tuning. Every note has the velocity 80, since f0 has no loudness.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        from vocalsep.f0.midi import format_midi

        write_file(Path(path), format_midi(self.frequencies, self.names, self.hop))

    @classmethod
    def from_midi(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> F0Tracks:
        """Read the notes of a MIDI file as f0, with one voice for each track that has notes.

        If only one track has notes, each of its channels is a voice. Where notes of a voice overlap (legato), each
        ends when the next one starts; of notes that start together the highest is taken. Tuning is equal
        temperament, A4 = 440 Hz. Percussion (channel 10) is left out.

        Parameters
        ----------
        path : path-like
            A .mid file.
        names : sequence of str, optional
            Names of the voices in the order of the file, or the names of its tracks in any order, which may include
            tracks without notes. By default voices have the names of the tracks, in the order of the file.

        Raises
        ------
        F0Error
            If the file is not MIDI, has no notes, or has another number of voices than `names`.
        """
        from vocalsep.f0.midi import read_midi

        source = Path(path)
        try:
            return cls(*read_midi(source, None if names is None else tuple(names)))
        except F0Error as error:
            raise F0Error(f"{printable(source)}: {error}") from error


def to_numbers(values: ArrayLike, parameter: str) -> NDArray[np.float32]:
    """Return a copy of values as an array."""
    try:
        numbers = np.asarray(values, dtype=np.float32)  # np.array warns about tensors
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that requires gradients
        raise F0Error(
            f"{parameter} cannot be read as numbers ({one_line(str(error))}); expected shape (voices, frames)",
            parameter=parameter,
        ) from error
    return np.array(numbers, dtype=np.float32)
