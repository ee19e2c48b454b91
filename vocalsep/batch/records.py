"""What is known of stems that were written: from which recording, with what, and whether they are all there.

For each place of stems there is a file OUT/.vocalsep/<digits>.json. It says "writing" before the stems get their names
and "complete" after, so that a run that was killed at any moment can be taken up: what is complete is left alone, what
is not is done again, and what no record tells of belongs to somebody else. A lock beside it keeps two processes from
working on one place; the system takes it back from a process that dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vocalsep.batch.recipe import Recipe
from vocalsep.errors import AudioError, OptionError, reason
from vocalsep.files import probe_place, replace_file
from vocalsep.paths import real_path
from vocalsep.voices import folded
from vocalsep.weights import sha256

if TYPE_CHECKING:
    from vocalsep.batch.planning import Task

FOLDER = ".vocalsep"
"""Folder of the records inside the output folder."""

_SCHEMA = 1
_DIGITS = 32  # of the SHA-256 of a place: enough that no two places meet
_MAX_RECORD = 1 << 20  # bytes; a record has about a thousand


@dataclass(frozen=True)
class FileMark:
    """What tells whether a file is still the same.

    Parameters
    ----------
    path
        Of a recording absolute, of a stem inside the output folder, with "/".
    size
        Bytes.
    mtime_ns
        Time of the last change.
    sha256
        In hexadecimal digits.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, file: Path, path: str) -> FileMark:
        """Return the mark of a file as it is now."""
        status = file.stat()
        return cls(path, status.st_size, status.st_mtime_ns, sha256(file))

    @classmethod
    def of_source(cls, source: Path) -> FileMark:
        """Return the mark of a recording.

        Raises
        ------
        AudioError
            If it cannot be read.
        """
        with _reading(source):
            return cls.of(source, os.path.abspath(source))  # noqa: PTH100 (links stay)

    def holds_for(self, file: Path, *, moved: bool = False) -> bool:
        """Return whether a file is still the same; one that may be another of the same size and time is read."""
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
                return False
            return (not moved and status.st_mtime_ns == self.mtime_ns) or sha256(file) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Record:
    """What is known of the stems of a recording.

    Parameters
    ----------
    state
        "writing" from before the first stem gets its name until after the last.
    source
        The recording.
    recipe
        What the stems were made with, as `Recipe.to_json` gives it.
    files
        The stems, by name.
    result
        What came of the separation, as JSON.
    run
        Of which run this is a part.
    former
        Stems that lie there from before, made otherwise: in another format, say, or more of them.
    """

    state: Literal["writing", "complete"]
    source: FileMark
    recipe: Mapping[str, Any]
    files: Mapping[str, FileMark]
    result: Mapping[str, Any]
    run: str
    former: tuple[FileMark, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as what JSON can hold."""
        return {"schema": _SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """Return the record that `to_json` gave.

        Raises
        ------
        ValueError, TypeError, KeyError, AttributeError
            If it is none.
        """
        state = content["state"]
        if content["schema"] != _SCHEMA or state not in ("writing", "complete"):
            raise ValueError("no record of this version")
        files = {str(name): _mark(mark) for name, mark in content["files"].items()}
        former = tuple(map(_mark, content.get("former", ())))
        for mark in (*files.values(), *former):
            path = PurePosixPath(mark.path)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError("a stem outside the folder")
        recipe, result = dict(content["recipe"]), dict(content["result"])
        return cls(state, _mark(content["source"]), recipe, files, result, str(content["run"]), former)

    @property
    def marks(self) -> tuple[FileMark, ...]:
        """Marks of all stems, those from before, too."""
        return (*self.files.values(), *self.former)


def _mark(content: Any) -> FileMark:
    mark = FileMark(**content)
    texts, numbers = (mark.path, mark.sha256), (mark.size, mark.mtime_ns)
    if not all(type(text) is str for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("texts and whole numbers are expected")
    if "\0" in mark.path:
        raise ValueError("a path with a zero byte")
    return mark


class State(NamedTuple):
    """How things stand with the stems of a recording."""

    kind: Literal["new", "complete", "unfinished", "foreign"]
    """ "foreign": there are files that must not be replaced unasked."""
    reason: str
    """Why, for the user."""
    record: Record | None


def _path(out: Path, place: str, suffix: str) -> Path:
    digits = hashlib.sha256(folded(place).encode()).hexdigest()[:_DIGITS]
    return out / FOLDER / f"{digits}.{suffix}"


def read_record(out: Path, place: str) -> Record | None:
    """Return what is known of the stems of a place; what cannot be understood is taken for nothing."""
    return _read(_path(out, place, "json"))


def _read(path: Path) -> Record | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_RECORD:
            return None
        return Record.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def write_record(out: Path, place: str, record: Record) -> None:
    """Write what is known of the stems of a place, completely or not at all.

    Raises
    ------
    AudioError
        If it cannot be written.
    """
    content = json.dumps(record.to_json(), indent=1, allow_nan=False).encode()
    try:
        replace_file(_path(out, place, "json"), content)
    except OSError as error:
        raise _no_place(out, error) from error


def recorded_files(folder: Path) -> frozenset[str]:
    """Return the real paths of all stems that records in a folder tell of."""
    with suppress(OSError):
        return frozenset(
            real_path(folder / mark.path)
            for path in sorted((folder / FOLDER).glob("*.json"))
            if (record := _read(path)) is not None
            for mark in record.marks
        )
    return frozenset()


def former_files(task: Task, out: Path) -> tuple[FileMark, ...]:
    """Return the marks of stems in a place that are not those of a task, as far as they are still there."""
    record = read_record(out, task.place)
    if record is None:
        return ()
    own = {os.path.abspath(path) for path in task.targets.values()}  # noqa: PTH100 (links stay)
    others = {mark.path: mark for mark in record.marks if os.path.abspath(out / mark.path) not in own}  # noqa: PTH100
    return tuple(mark for mark in others.values() if os.path.lexists(out / mark.path))


def assess(task: Task, out: Path, recipe: Recipe) -> State:
    """Return how things stand with the stems of a recording. Nothing is written."""
    record = read_record(out, task.place)
    existing = [path for path in task.targets.values() if os.path.lexists(path)]
    known = {} if record is None else {out / mark.path: mark for mark in record.files.values()}
    former = set() if record is None else {out / mark.path for mark in record.former}
    older = [path for path in existing if path in former]
    if older:
        return State("foreign", f"{older[0]} is of an earlier run with other settings", record)
    strangers = [path for path in existing if path not in known]
    if strangers:
        return State("foreign", f"{strangers[0]} exists, and no record tells that vocalsep wrote it", record)
    if record is None or not existing:
        return State("new", "", record)
    if record.state == "writing":
        return State("unfinished", "was interrupted", record)
    changed = [path for path in existing if not known[path].holds_for(path)]
    if changed:
        return State("foreign", f"{changed[0]} was changed since vocalsep wrote it", record)
    if not _is_source(task.source, record.source):
        return State(
            "foreign",
            f"{existing[0]} is a stem of another recording ({record.source.path}), or of this "
            "one before it was changed",
            record,
        )
    difference = recipe.difference(record.recipe)
    if difference:
        return State("foreign", f"{existing[0]} was made with {difference}", record)
    if len(existing) < len(task.targets):
        return State("unfinished", "stems are missing", record)
    return State("complete", "is complete", record)


def _is_source(source: Path, mark: FileMark) -> bool:
    # Another file may have the same size and time by chance, or by the archive that both came in.
    return mark.holds_for(source, moved=mark.path != os.path.abspath(source))  # noqa: PTH100 (links stay)


def check_source(source: Path) -> None:
    """Check that a recording is a file, which may not be audio.

    Raises
    ------
    AudioError
        If it is missing or no file.
    """
    with _reading(source):
        if not source.exists():
            raise AudioError(f"{source}: no such file; expected an audio file")
        if not source.is_file():
            raise AudioError(f"{source}: is a folder or a device; expected an audio file")


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    try:
        yield
    except AudioError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise AudioError(f"{source}: cannot be read ({reason(error)}); expected an audio file") from error


def open_folder(out: Path) -> None:
    """Make the output folder, and see that files can be made in it.

    Raises
    ------
    AudioError
        If not.
    """
    try:
        probe_place(out / FOLDER / "probe")
    except (OSError, ValueError) as error:
        raise _no_place(out, error) from error


def _no_place(out: Path, error: Exception) -> AudioError:
    return AudioError(f"{out}: cannot be written to ({reason(error)}); choose another folder with -o")


@contextmanager
def locked(out: Path, place: str, patience: float = 0.0, *, name: object = "stems") -> Iterator[None]:
    """Keep other processes, on any machine that shares the folder, from the stems of a place.

    Parameters
    ----------
    patience
        Seconds to wait for another process that works on them; usually none, since that may take hours.
    name
        Of what is separated, for the message.

    Raises
    ------
    OptionError
        If another process works on them.
    AudioError
        If the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = _path(out, place, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=patience)
    except Timeout:
        raise OptionError(
            f"{name}: another process is writing its stems to {out}; wait for it, or use another folder"
        ) from None
    except OSError as error:
        raise _no_place(out, error) from error
    except NotImplementedError as error:  # of a file system that has no locks
        raise AudioError(f"{out}: lies where files cannot be locked; choose another folder with -o") from error
    try:
        yield
    finally:
        lock.release()
