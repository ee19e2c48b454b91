"""Tables of f0 as CSV, behind `F0Tracks.from_csv` and `F0Tracks.to_csv`.

A table has a column of times in seconds and a column of f0 in Hz for each voice, often below a line of names.
Spreadsheets write semicolons and decimal commas in some countries. Sonic Visualiser and mir_eval use a file with two
columns for each voice; Sonic Visualiser leaves out unvoiced frames, and mir_eval marks them by negative f0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error, one_line, reason, shown
from vocalsep.f0.resampling import resample, to_grid
from vocalsep.paths import folded
from vocalsep.voices import to_voice_name

Table = tuple[NDArray[np.float32], tuple[str, ...], float]
"""F0 in Hz, shape (voices, frames), names of the voices, and hop in seconds: the arguments of `F0Tracks`."""


def read_csv(path: Path, names: tuple[str, ...] | None = None) -> Table:
    """Read a table, or a folder with a two-column file for each voice; see `F0Tracks.from_csv`."""
    return _read_folder(path, names) if path.is_dir() else _read_file(path, names)


def format_csv(times: NDArray[np.float64], f0: NDArray[np.float32], names: Sequence[str] = ()) -> bytes:
    """Return a table as CSV, below a line of names if there are any.

    F0 has as many digits as it needs to be read back unchanged.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if names:
        writer.writerow(["time", *names])
    for time, values in zip(times, f0.T, strict=True):
        digits = [np.format_float_positional(value, unique=True, trim="-") for value in values]
        writer.writerow([f"{time:.6f}", *digits])
    return text.getvalue().encode()


def _read_file(path: Path, names: tuple[str, ...] | None) -> Table:
    header, times, columns = _read_columns(path)
    own = header or names or ((to_voice_name(path.stem, "voice1"),) if len(columns) == 1 else ())
    if len(own) != len(columns):
        raise F0Error(
            f"has {len(columns)} columns of f0 and {len(own)} names; expected a first line such as "
            "time,soprano,alto,tenor,bass"
        )
    if names is None or len(names) == len(columns) == 1:
        rows, names = columns, names or own
    else:
        by_name = {folded(name): column for name, column in zip(own, columns, strict=True)}
        missing = [name for name in names if folded(name) not in by_name]
        if missing:
            raise F0Error(f"has no column {shown(missing[0])}; it has {one_line(', '.join(own))}")
        rows = [by_name[folded(name)] for name in names]
    f0, hop = to_grid(times, np.maximum(np.asarray(rows, dtype=np.float32), 0))
    return f0, names, hop


def _read_folder(folder: Path, names: tuple[str, ...] | None) -> Table:
    # macOS puts hidden files such as ._soprano.csv beside those that it copies.
    files = {path.stem: path for path in sorted(folder.glob("*.csv")) if not path.name.startswith(".")}
    names = names or tuple(files)
    if not names:
        raise F0Error("holds no .csv files; expected one for each voice")
    voices = []
    for name in names:
        if name not in files:
            raise F0Error(f"has no {name}.csv; it has {one_line(', '.join(files) or 'no .csv files')}")
        try:
            voices.append(_read_file(files[name], (name,)))
        except F0Error as error:
            raise F0Error(f"{name}.csv: {error}") from error
    finest = min(hop for _, _, hop in voices)
    n_frames = max(math.ceil(f0.shape[1] * hop / finest) for f0, _, hop in voices)
    return np.concatenate([resample(f0, hop, finest, n_frames) for f0, _, hop in voices]), names, finest


def _read_columns(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the names in the first line, none without such a line, the times, and the column of each voice."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise F0Error(f"cannot be read ({reason(error)}); expected a CSV of time and f0") from error
    header, rows = _parse(lines)
    columns = list(np.array(rows).T)
    if header and len(header) != len(columns):
        raise F0Error(f"has {len(header)} names and {len(columns)} columns; expected one name for each column")
    times = next((i for i, name in enumerate(header) if folded(name).strip("# ").startswith("time")), 0)
    names = tuple(name for i, name in enumerate(header) if i != times)
    return names, columns[times], columns[:times] + columns[times + 1 :]


def _parse(lines: list[str]) -> tuple[list[str], list[list[float]]]:
    """Return the names in the first line, if it has names, and the numbers in the other lines."""
    # The first line may have any character in its names; the last line surely holds numbers.
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    delimiter = next((mark for mark in "\t;," if mark in last), " ")
    reader = csv.reader((line.strip(" ") for line in lines), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    rows: list[list[float]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            values = [_number(cell if delimiter == "," else cell.replace(",", ".")) for cell in cells]
            if not header and not rows and math.isnan(values[0]):
                header = cells if len(cells) > 1 else []  # a single cell is a title
                continue
            if (
                len(values) < 2
                or len(values) != len(rows[0] if rows else values)
                or not all(map(math.isfinite, values))
            ):
                raise F0Error(
                    f"line {reader.line_num} is {shown(lines[reader.line_num - 1])}; expected time in seconds and f0 "
                    "in Hz for each voice, 0 = unvoiced"
                )
            rows.append(values)
    except csv.Error as error:
        raise F0Error(f"cannot be read as a table ({error}); expected a CSV of time and f0") from error
    if not rows:
        raise F0Error(f"{'has a line of names but no values' if header else 'is empty'}; expected time and f0")
    return header, rows


def _number(cell: str) -> float:
    """Return a cell as a number: 0 if it is empty, NaN if it is not a number."""
    try:
        return float(cell or 0)
    except ValueError:
        return math.nan
