"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from vocalsep.errors import VocalsepError


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
    # Of this process alone: another may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
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
    try:
        replace_file(path, content)
    except (OSError, ValueError) as cause:  # ValueError: a path without a name, or with a zero byte
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be written ({reason}); expected the path of a {kind} file") from cause


def check_place(path: Path, kind: str, error: type[VocalsepError]) -> None:
    """Check that a file can be written, before the work whose outcome it is to hold; its folders are made.

    Parameters
    ----------
    path, kind, error
        See `write_file`.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.part") if path.name else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be written ({reason}); expected the path of a {kind} file") from cause
