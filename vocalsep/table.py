"""Files of f0: reading CSV, and writing CSV and MIDI safely, for `F0Tracks`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error


def shortest(value: np.float32) -> str:
    """Return a number with as many digits as it needs to be read back unchanged."""
    return np.format_float_positional(value, unique=True, trim="-")


def read_table(path: Path) -> tuple[list[str] | None, NDArray[np.float64]]:
    """Return the names of the voices, if the table has them, and its numbers with the times in front.

    Parameters
    ----------
    path
        A text file with comma, semicolon, tab or space between columns.

    Returns
    -------
    names, numbers
        None or a name for each column but the times; shape (rows, 1 + voices).

    Raises
    ------
    F0Error
        If the file cannot be read as such a table.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise F0Error(f"{path}: cannot be read ({error.strerror}); expected a CSV of time and f0") from error
    except UnicodeDecodeError as error:
        raise F0Error(f"{path}: is not text in UTF-8; expected a CSV of time and f0") from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise F0Error(f"{path}: is empty; expected lines of time in seconds and f0 in Hz")
    # The last line holds numbers for certain; the first may hold names, and in them any mark.
    separator = next((mark for mark in "\t;," if mark in rows[-1][1]), None)
    first = _split(rows[0][1], separator)
    header = first if _number(first[0]) is None else None
    table: list[list[float]] = []
    for number, line in rows[1 if header else 0 :]:
        values = [_number(cell) for cell in _split(line, separator)]
        if None in values or len(values) < 2 or (table and len(values) != len(table[0])):
            raise F0Error(f"{path}: line {number} is {line[:60]!r}; expected time and f0 for each voice")
        table.append([value for value in values if value is not None])
    if not table:
        raise F0Error(f"{path}: has a line of names but no values; expected lines of time in seconds and f0 in Hz")
    numbers = np.array(table)
    if header is None:
        return None, numbers
    time = next((i for i, name in enumerate(header) if name.casefold().strip("# ").startswith("time")), 0)
    order = [time, *(i for i in range(numbers.shape[1]) if i != time)]
    return [name for i, name in enumerate(header) if i != time], numbers[:, order] if time < len(order) else numbers


def _split(line: str, separator: str | None) -> list[str]:
    try:
        cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator), [""])
    except csv.Error:
        return [line]
    # Where commas do not separate columns they are decimal marks.
    return [cell.strip() if separator == "," else cell.strip().replace(",", ".") for cell in cells] or [""]


def _number(cell: str) -> float | None:
    try:
        return float(cell) if cell else 0.0
    except ValueError:
        return None
