"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vocalsep.errors import VocalsepError, reason


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside its own, and put it in its place once it is whole.

    Parameters
    ----------
    path
        Of the file; its folders are made.
    content
        The whole of it.

    Raises
    ------
    OSError
        If it cannot be written; what stood there is kept.
    ValueError
        If the path has no name.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, kind: str, error: type[VocalsepError]) -> None:
    """Write a file that a user asked for, completely or not at all.

    Parameters
    ----------
    path
        Of the file; its folders are made.
    content
        The whole of it.
    kind
        What it is, for the message of the error: "CSV".
    error
        What is raised if it cannot be written.
    """
    with _refused(path, kind, error):
        replace_file(path, content)


def check_place(path: Path, kind: str, error: type[VocalsepError]) -> None:
    """Check that a file can be written, before the work whose outcome it is to hold; its folders are made.

    Parameters
    ----------
    path, kind, error
        See `write_file`.
    """
    with _refused(path, kind, error):
        probe_place(path)


def probe_place(path: Path) -> None:
    """Make the folders of a file, and a file beside it that is removed at once.

    Raises
    ------
    OSError, ValueError
        If that cannot be done: nor can the file be written then.
    """
    probe = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        probe.touch()
    finally:
        probe.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    # Of this process alone: another may be writing the same file.
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def _refused(path: Path, kind: str, error: type[VocalsepError]) -> Iterator[None]:
    """Say in a sentence that a file that a user asked for cannot be written."""
    try:
        yield
    except (OSError, ValueError) as cause:  # ValueError: a path without a name, or with a zero byte
        raise error(f"{path}: cannot be written ({reason(cause)}); expected the path of a {kind} file") from cause
