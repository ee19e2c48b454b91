"""Safetensors files, read strictly: nothing in a file is used before everything that the file says of itself is right.

The format: eight bytes, the length of the header; the header, a table in JSON of each tensor's dtype, shape and place;
the tensors' bytes, one behind the other. It is read here and not by a library, so that what is refused is written down
in one place: a file may come from anywhere. Sizes are compared before anything is allocated; no name out of a file is
ever looked up as code.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vocalsep.errors import WeightsError, reason

if TYPE_CHECKING:
    import torch

MAX_FILE = 1 << 29
"""Bytes of a checkpoint: ten times the largest that vocalsep knows."""
MAX_HEADER = 1 << 20
"""Bytes of the header; those of all networks of vocalsep are below 64 KiB."""
MAX_TENSORS = 4096
MAX_AXES = 8
MAX_DEPTH = 16
"""Of tables in tables in JSON."""
MAX_DIGITS = 20
"""Of a whole number in JSON: all 64-bit numbers have fewer."""

_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_COUNTERS = {"I64": "int64", "I32": "int32"}
_COUNTER = "num_batches_tracked"  # of batch normalisation: the only whole numbers in a network
_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8, "I32": 4}
_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
_MAX_NAME = 200
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LENGTH = 8  # bytes in which the length of the header stands


class Contents(NamedTuple):
    """What a file holds."""

    metadata: dict[str, str]
    """Texts by name."""
    tensors: dict[str, torch.Tensor]
    """By name, finite, in the precision of the file."""


class _Place(NamedTuple):
    """Where a tensor lies behind the header."""

    begin: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]


def read_bytes(path: Path, expected: str = "a checkpoint", *, limit: int = MAX_FILE) -> bytes:
    """Return the content of a regular file.

    Parameters
    ----------
    path
        Of the file, or of a link to it.
    expected
        What it should be, for messages.
    limit
        Bytes that it may have.

    Raises
    ------
    WeightsError
        If there is no such file, it is a folder, a pipe or a device, it is empty or too large, or cannot be read.
    """
    # A pipe without a writer would make a plain open wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path}: is no regular file; expected {expected}")
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"{path}: is no regular file; expected {expected}")
            if status.st_size > limit:
                raise WeightsError(f"{path}: has {status.st_size} bytes; expected {expected} of {limit} at most")
            return stream.read(status.st_size)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; expected {expected}") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise WeightsError(f"{path}: cannot be read ({reason(error)}); expected {expected}") from error


def parse(content: bytes, place: str | os.PathLike[str]) -> Contents:
    """Return what the bytes of a safetensors file hold.

    Parameters
    ----------
    content
        The whole file.
    place
        Where it comes from, for messages.

    Raises
    ------
    WeightsError
        If anything in it is not as the format and `MAX_HEADER`, `MAX_TENSORS`, `MAX_AXES` have it; if a name could be
        a path, a dtype is not one of a network's weights, or a value is NaN or infinite.
    """
    import torch

    try:
        metadata, places, start = _header(content)
    except ValueError as error:
        raise WeightsError(f"{place}: cannot be read as safetensors ({error}); expected a checkpoint") from error
    tensors: dict[str, torch.Tensor] = {}
    for begin, end, name, dtype, shape in places:
        # A copy of its own: tensors are then aligned, and outlive the bytes of the file.
        raw = bytearray(content[start + begin : start + end])
        kind = getattr(torch, _FLOATS.get(dtype) or _COUNTERS[dtype])
        tensors[name] = torch.frombuffer(raw, dtype=kind).reshape(shape)
        if dtype in _FLOATS and not bool(tensors[name].isfinite().all()):
            raise WeightsError(f"{place}: {name} holds values that are NaN or infinite; expected finite weights")
    return Contents(metadata, tensors)


def read_json(text: str | bytes, *, limit: int = MAX_HEADER) -> Any:
    """Return what JSON from a file that is not trusted says.

    Parameters
    ----------
    text
        JSON, as bytes in UTF-8.
    limit
        Characters or bytes that it may have.

    Raises
    ------
    ValueError
        If it is no JSON, nested more deeply than `MAX_DEPTH`, too long, gives a key twice, or holds a whole number of
        more than `MAX_DIGITS` digits.
    """
    if len(text) > limit:
        raise ValueError(f"its JSON has {len(text)} characters, more than {limit}")
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    depth = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", decoded)):
        depth += 1 if mark in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"its JSON is nested more than {MAX_DEPTH} deep")
    return json.loads(decoded, object_pairs_hook=_table, parse_int=_whole)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its JSON gives a key twice")
    return table


def _whole(digits: str) -> int:
    # Python takes quadratic time for long numbers.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"its JSON holds a number of {len(digits)} digits")
    return int(digits)


def _header(content: bytes) -> tuple[dict[str, str], list[_Place], int]:
    """Return the metadata, the tensors' places from first to last, and where the first begins."""
    length = int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or not 2 <= length <= min(MAX_HEADER, len(content) - _LENGTH):
        raise ValueError(f"its header should have {length} bytes, the file has {len(content)}")
    start = _LENGTH + length
    if content[_LENGTH : _LENGTH + 1] != b"{":
        raise ValueError("its header is no table")
    table = read_json(content[_LENGTH:start])
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are no table of texts")
    if not 0 < len(table) <= MAX_TENSORS:
        raise ValueError(f"it holds {len(table)} tensors; 1 to {MAX_TENSORS} are possible")
    places = sorted(_place(name, row) for name, row in table.items())
    if places[0].begin != 0 or places[-1].end != len(content) - start:
        raise ValueError(
            f"its tensors take bytes {places[0].begin} to {places[-1].end} of {len(content) - start} after the header"
        )
    for one, following in pairwise(places):
        if one.end != following.begin:
            relation = "overlap" if one.end > following.begin else "have a gap between them"
            raise ValueError(f"{one.name} and {following.name} {relation}")
    return metadata, places, start


def _place(name: str, row: Any) -> _Place:
    """Return where a tensor lies, after all that the header says of it was checked."""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"a tensor is named {name[:60]!r}; names are words with points between them")
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"of {name} it does not give dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    allowed = [*_FLOATS, *(_COUNTERS if name.split(".")[-1] == _COUNTER else ())]
    if dtype not in allowed:
        raise ValueError(f"{name} is of dtype {str(dtype)[:20]!r}; possible are {', '.join(allowed)}")
    if not _whole_numbers(shape) or len(shape) > MAX_AXES or 0 in shape:
        raise ValueError(f"{name} has shape {str(shape)[:80]}; possible are up to {MAX_AXES} numbers above 0")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has data_offsets {str(offsets)[:80]}; possible are two whole numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * _BYTES[dtype]:
        raise ValueError(f"{name} of shape {shape} and dtype {dtype} takes {end - begin} bytes")
    return _Place(begin, end, name, dtype, tuple(shape))


def _whole_numbers(values: Any) -> bool:
    # A boolean is an int, too, and meant by nobody.
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
