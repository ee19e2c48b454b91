"""What is to be done: the recordings among files and folders, and where their stems go, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocalsep.audio.containers import SUFFIXES
from vocalsep.batch.records import recorded_files
from vocalsep.errors import AudioError, OptionError
from vocalsep.paths import FILENAME, real_path, safe_name, stem_paths
from vocalsep.separation.folders import AUDIO_SUFFIXES
from vocalsep.voices import folded


@dataclass(frozen=True)
class Task:
    """A recording that is to be separated, and where its stems go.

    Parameters
    ----------
    source
        Path of the recording, as the user would write it.
    place
        Of its stems inside the output folder, the same for all of them: what is known of their making is kept under
        this name.
    targets
        Path of each stem, by its name.
    """

    source: Path
    place: str
    targets: Mapping[str, Path]

    def absolute(self) -> Task:
        """Return the same recording, for a process that works in another folder."""
        targets = {name: Path(os.path.abspath(path)) for name, path in self.targets.items()}  # noqa: PTH100 (no links)
        return Task(Path(os.path.abspath(self.source)), self.place, targets)  # noqa: PTH100


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Parameters
    ----------
    out
        Folder of the stems.
    tasks
        In a fixed order: that of the inputs, and inside a folder that of the paths.
    unreadable
        Folders that could not be looked into, and why.
    """

    out: Path
    tasks: tuple[Task, ...]
    unreadable: Mapping[Path, str]


def plan(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    stems: Sequence[str],
    *,
    recursive: bool = False,
    filename: str = FILENAME,
    audio_format: str = "wav",
) -> Plan:
    """Return what is to be done with files and folders. Nothing is written.

    Parameters
    ----------
    inputs
        Audio files, and folders of such. The folders' structure is kept in `out`.
    out
        Folder of the stems. It is no input, wherever it lies, and neither are stems of earlier runs.
    stems
        Names of the stems of each recording.
    recursive
        Whether the folders in folders are looked into, too.
    filename
        Template of the path of a stem, with {track}, {stem} and {ext}.

    Raises
    ------
    OptionError
        If the template cannot be used, two recordings would write one file, or a stem would replace a recording.
    AudioError
        If a folder holds no audio.
    """
    folder = Path(out)
    unreadable: dict[Path, str] = {}
    tasks: dict[tuple[str, str, str], Task] = {}
    for given in map(Path, inputs):
        tracks = _tracks_in(given, folder, recursive, unreadable) if _is_folder(given) else [(Path(), given)]
        for parent, source in tracks:
            task = _task(folder, parent, source, stems, filename, audio_format)
            # What is named twice is one recording; the same file under another name is another.
            tasks.setdefault((real_path(source.parent), source.name, task.place), task)
    planned = tuple(tasks.values())
    _refuse_collisions(planned)
    return Plan(folder, planned, unreadable)


def _task(out: Path, parent: Path, source: Path, stems: Sequence[str], filename: str, audio_format: str) -> Task:
    place, paths = stem_paths(source.stem, stems, filename=filename, audio_format=audio_format)
    inside = Path(*(safe_name(part) for part in parent.parts))
    targets = {stem: out / inside / path for stem, path in paths.items()}
    return Task(source, "/".join([*inside.parts, place]), targets)


def _tracks_in(folder: Path, out: Path, recursive: bool, unreadable: dict[Path, str]) -> list[tuple[Path, Path]]:
    """Return the audio files of a folder, each with the folder inside it in which it lies.

    Raises
    ------
    AudioError
        If there are none.
    """
    blocked: dict[Path, str] = {}
    found = sorted(_walk(folder, out, recursive, blocked), key=lambda path: path.relative_to(folder).parts)
    unreadable.update(blocked)
    audible = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES + SUFFIXES]
    if not audible and not blocked:
        others = f" ({len(found)} other files)" if found else ""
        deeper = "" if recursive else "; --recursive looks into the folders in it, too"
        raise AudioError(
            f"{folder}: holds no audio files{others}; expected some of {', '.join(AUDIO_SUFFIXES)}, ...{deeper}"
        )
    return [(path.relative_to(folder).parent, path) for path in audible]


def _walk(folder: Path, out: Path, recursive: bool, unreadable: dict[Path, str]) -> Iterator[Path]:
    """Yield the files in a folder that are neither hidden nor stems."""
    own = {real_path(out)}
    seen = set(own)
    # Stems of earlier runs, into this folder or one above it, are no recordings.
    stems = {path for place in (out, *folder.resolve().parents) for path in recorded_files(place)}
    # Folders reached by links come last: a folder is walked once, under its own name if it has one here.
    waiting: list[Path] = [folder]
    linked: list[Path] = []
    first = True
    while waiting or linked:
        here = waiting.pop() if waiting else linked.pop(0)
        real = real_path(here)
        if real in seen and not first:
            continue
        first = False
        seen.add(real)
        stems |= recorded_files(here)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            unreadable[here] = f"cannot be looked into ({error.strerror})"
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if _is_folder(path):
                if recursive:
                    (linked if entry.is_symlink() else waiting).append(path)
            elif not stems or real_path(path) not in stems:
                yield path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have; whoever reads it says so
        return False


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    """Raise OptionError if files would be written twice, or over recordings."""
    tasks = list(tasks)
    real = _RealPaths()
    sources = {real(task.source): task.source for task in tasks}
    owners: dict[str, tuple[Task, Path]] = {}
    folders: dict[str, tuple[Task, Path]] = {}
    for task in tasks:
        for target in task.targets.values():
            path = real(target)
            if path in sources:
                raise OptionError(
                    f"{task.source}: its stem {target} would replace the recording {sources[path]}; use -o for "
                    "another folder, or --filename"
                )
            other = owners.setdefault(path, (task, target))
            if other[1] is not target:
                raise _collision(task, other[0], target)
            while (path := os.path.dirname(path)) not in folders and path != os.path.dirname(path):  # noqa: PTH120
                folders[path] = (task, target)
    for path in owners.keys() & folders.keys():
        raise _collision(folders[path][0], owners[path][0], owners[path][1])
    for path in sources.keys() & folders.keys():
        raise OptionError(
            f"{folders[path][0].source}: its stems would be in a folder of the name of the recording {sources[path]}; "
            "use -o for another folder, or --filename"
        )


def _collision(one: Task, other: Task, target: Path) -> OptionError:
    return OptionError(
        f"{one.source} and {other.source} would both be {target}; use --filename, or another folder for one of them"
    )


class _RealPaths:
    """Paths as they compare: without links, letter case and composition; parents are looked up once."""

    def __init__(self) -> None:
        self._parents: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        if os.path.islink(path):  # noqa: PTH114 (any text is allowed)
            return folded(real_path(path))
        if path.parent not in self._parents:
            self._parents[path.parent] = real_path(path.parent)
        return folded(os.path.join(self._parents[path.parent], path.name))  # noqa: PTH118
