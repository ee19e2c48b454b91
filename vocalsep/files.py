"""Files that are written completely or not at all."""

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

    If the block raises, the temporary file is removed and `path` stays as it is.

    Parameters
    ----------
    path : Path
        Path of the file. Its folder is made if it is missing.

    Raises
    ------
    OutputError
        If the folder cannot be made or the file cannot take its place.
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
    """Write a file, completely or not at all.

    Parameters
    ----------
    path : Path
        Path of the file. Its folder is made if it is missing.
    content : bytes
        The whole content.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as temporary, _unwritable(path):
        temporary.write_bytes(content)


def check_place(path: Path) -> None:
    """Check that a file can be written, before hours of work for its content; make its folder if it is missing.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
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
