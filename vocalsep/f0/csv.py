"""Files of f0: reading them safely, CSV as a table, and what `F0Tracks` needs to bring values onto a grid."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error, one_line, printable, reason, shown
from vocalsep.voices import MAX_VOICES

MAX_CSV_BYTES = 256 << 20
"""A day of four voices on the 16-ms grid; more would fill the memory."""
MAX_COLUMNS = 256
"""More than that is no table of f0."""
_TOLD = 200  # characters of a path in an error message
_POINTS = 1 << 16  # interpolated at once: what a day needs at once would fill the memory
_EXPECTED = "expected a CSV of time and f0"


def shortest(value: np.float32) -> str:
    """Return a number with as many digits as it needs to be read back unchanged."""
    return np.format_float_positional(value, unique=True, trim="-")


def told(path: Path) -> str:
    """Return a path as error messages tell it: in one line, without its beginning if it is long."""
    text = printable(path)
    return text if len(text) <= _TOLD else f"...{text[3 - _TOLD :]}"


def to_path(path: Any) -> Path:
    """Return what a user gave as the path of a file."""
    try:
        return Path(path)
    except TypeError:
        raise F0Error(f"path is {shown(path)}; expected that of a file of f0") from None


def asked_names(names: Any) -> tuple[str, ...]:
    """Return the names of voices that a user asks for in a file."""
    asked = listed(names)
    if not 1 <= len(asked) <= MAX_VOICES or not all(isinstance(name, str) for name in asked):
        raise F0Error(f"names is {shown(names)}; expected the names of 1 to {MAX_VOICES} voices")
    return asked


def listed(names: Any) -> tuple[Any, ...]:
    """Return what a user gave as the names of voices."""
    try:
        return tuple(names)
    except (TypeError, RuntimeError):  # RuntimeError: some tensors
        raise F0Error(f"names is {shown(names)}; expected one name for each voice") from None


def read_content(path: Path, limit: int, expected: str) -> bytes:
    """Return the bytes of a file.

    Parameters
    ----------
    path
        Of a file. Pipes are refused: who reads one may wait for ever.
    limit
        Bytes that it may have.
    expected
        What it should be, for the message of the error: "expected a CSV".

    Raises
    ------
    F0Error
        If it cannot be read or is larger.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise F0Error(f"{told(path)}: cannot be read, being a pipe or a device; {expected} in a file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, F0Error):
            raise
        # ValueError: a zero byte, or what is no text, in the path.
        raise F0Error(f"{told(path)}: cannot be read ({reason(error)}); {expected}") from error
    if len(content) > limit:
        raise F0Error(f"{told(path)}: has more than {limit >> 20} MB; {expected}")
    return content


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
    content = read_content(path, MAX_CSV_BYTES, _EXPECTED)
    try:
        header, numbers = _parsed(content)
    except UnicodeDecodeError as error:
        raise F0Error(f"{told(path)}: is not text in UTF-8; {_EXPECTED}") from error
    except F0Error as error:
        raise F0Error(f"{told(path)}: {error}") from error
    if header is None:
        return None, numbers
    time = next((i for i, name in enumerate(header) if name.casefold().strip("# ").startswith("time")), 0)
    order = [time, *(i for i in range(numbers.shape[1]) if i != time)]
    return [name for i, name in enumerate(header) if i != time], numbers[:, order] if time < len(order) else numbers


def _parsed(content: bytes) -> tuple[list[str] | None, NDArray[np.float64]]:
    """Return the cells of the first line, if they are names, and the numbers of the others, shape (rows, columns)."""
    # The last line holds numbers for certain; the first may hold names, and in them any mark.
    written = content.rstrip()
    last = written[max(written.rfind(b"\n"), written.rfind(b"\r")) + 1 :].decode("utf-8-sig")
    separator = next((mark for mark in "\t;," if mark in last), None)
    header: list[str] | None = None
    columns = 0
    numbers = array("d")
    for number, line in _lines(content):
        cells = _split(line, separator)
        values = [_number(cell) for cell in cells]
        if not columns and header is None and values[0] is None:
            header = cells
            continue
        columns = columns or len(values)
        if None in values or len(values) < 2 or len(values) != columns:
            raise F0Error(f"line {number} is {line[:60]!r}; expected time and f0 for each voice")
        numbers.extend(values)  # type: ignore[arg-type]
    if not columns:
        missing = "is empty" if header is None else "has a line of names but no values"
        raise F0Error(f"{missing}; expected lines of time in seconds and f0 in Hz")
    return header, np.array(numbers).reshape(-1, columns)


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """Yield lines that hold anything, without what ends them, and their numbers."""
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig"), 1):
        if line.strip():
            yield number, line.rstrip("\n")


def _split(line: str, separator: str | None) -> list[str]:
    try:
        if separator is None:
            cells = line.split(maxsplit=MAX_COLUMNS)
        elif line.count(separator) < MAX_COLUMNS:
            cells = next(csv.reader([line], delimiter=separator), [""])
        else:
            cells = []
    except csv.Error:
        return [line]
    if not 0 < len(cells) <= MAX_COLUMNS:
        raise F0Error(f"a line has more than {MAX_COLUMNS} columns, {shown(line[:100])}; {_EXPECTED} for each voice")
    # Where commas do not separate columns they are decimal marks.
    return [cell.strip() if separator == "," else cell.strip().replace(",", ".") for cell in cells]


def _number(cell: str) -> float | None:
    try:
        # Python takes 1_000 for a number, which is nobody's way to write one.
        return (float(cell) if "_" not in cell else None) if cell else 0.0
    except ValueError:
        return None


def to_array(values: Any, what: str, expected: str) -> NDArray[Any]:
    """Return what a user gave as numbers; `what` it is and what is `expected` are told if it is no array."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        words = one_line(str(error), 160)
        raise F0Error(f"{what} cannot be read as numbers ({words}); expected {expected}") from error
    if np.ma.is_masked(values):
        raise F0Error(f"{what} are masked in places; expected {expected}: give them a value there with .filled()")
    return array


def interpolate(
    f0: NDArray[np.floating], times: NDArray[np.floating], points: NDArray[np.floating], reach: float
) -> NDArray[np.float32]:
    """Return f0, shape (voices, times), at the points: on a logarithmic axis, with no glide over rests or gaps.

    Times, points and reach, how far from its time a value holds, are in hops of the given times.
    """
    found = np.empty((len(f0), len(points)), dtype=np.float32)
    for start in range(0, len(points), _POINTS):
        block = slice(start, start + _POINTS)
        found[:, block] = _interpolated(f0, times, points[block], reach)
    return found


def _interpolated(
    f0: NDArray[np.floating], times: NDArray[np.floating], points: NDArray[np.floating], reach: float
) -> NDArray[np.float32]:
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
