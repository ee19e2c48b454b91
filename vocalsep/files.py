"""Files that are written completely or not at all; an OutputError says why one cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vocalsep.errors import OutputError, printable, reason


def part_path(path: Path) -> Path:
    """Return the temporary path, hidden and in the same folder, of a file that is not complete yet.

    Examples
    --------
    >>> part_path(Path("choir/alto.wav")).name
    '.alto.wav.part'
    """
    return path.with_name(f".{path.name}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file that the block writes there then takes the place of `path`.

    The folder is made if it is missing. If the block raises, the temporary file is removed and `path` stays as it is.
    """
    temporary = part_path(path)
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with _unwritable(path):
            temporary.replace(path)
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all; its folder is made if it is missing."""
    with replacing(path) as temporary, _unwritable(path):
        temporary.write_bytes(content)


def check_place(path: Path) -> None:
    """Check that a file can be written, before hours of work for its content; its folder is made if it is missing."""
    with _unwritable(path):
        if path.is_dir():
            raise IsADirectoryError("is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = part_path(path)
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise OutputError(
            f"{printable(path)}: cannot be written ({reason(error)}); expected a file in a folder with room"
        ) from error
