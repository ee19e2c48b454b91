"""Files that are written completely or not at all."""

from __future__ import annotations

from pathlib import Path


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
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
