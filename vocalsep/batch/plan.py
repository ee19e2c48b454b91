"""The plan of a run: which recordings there are among files and folders, and where their stems go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocalsep.audio import AUDIO_SUFFIXES
from vocalsep.batch.record import listed_stems
from vocalsep.errors import AudioError, OptionError, printable, reason, shown
from vocalsep.options import OutputOptions
from vocalsep.paths import folded, safe_name, stem_paths


@dataclass(frozen=True)
class Job:
    """One recording to separate."""

    source: Path
    targets: Mapping[str, Path]
    """File of each stem, by name."""
    record: Path
    """File of the record (separation.json), at the place of a stem named "separation"."""


def make_plan(
    paths: Iterable[str | os.PathLike[str]], out: Path, stems: Sequence[str], output: OutputOptions, recursive: bool
) -> tuple[list[Job], dict[Path, str]]:
    """Return the recordings of a run, and the folders that cannot be read, each with the reason. Nothing is written.

    Recordings come in the order of the inputs; inside a folder, in the order of the paths.

    Parameters
    ----------
    paths : iterable of path
        Audio files and folders. The structure of folders is kept inside `out`.
    out : Path
        Output folder. It is left out where it lies inside a folder of `paths`, and so are stems of earlier runs.
    stems : sequence of str
        Names of the stems of each recording.
    output : OutputOptions
        Format and template of the stems.
    recursive : bool
        Search folders inside folders.

    Raises
    ------
    AudioError
        If a folder holds no audio.
    OptionError
        If two recordings would write the same file, or a stem would replace a recording.
    """
    unreadable: dict[Path, str] = {}
    jobs: dict[tuple[str, Path], Job] = {}
    for path in map(Path, paths):
        if "\0" in str(path):
            raise OptionError(f"a path is {shown(str(path))}; expected a file or folder", parameter="paths")
        is_folder = os.path.isdir(path)  # noqa: PTH112 (False for a name that no file can have)
        sources = _audio_in(path, out, recursive, unreadable) if is_folder else [path]
        for source in sources:
            job = _job(source, source.parent.relative_to(path) if is_folder else Path(), out, stems, output)
            jobs.setdefault((os.path.realpath(source), job.record), job)  # a recording named twice is one
    _check_collisions(list(jobs.values()))
    return list(jobs.values()), unreadable


def _job(source: Path, parent: Path, out: Path, stems: Sequence[str], output: OutputOptions) -> Job:
    """Return the job of a recording that lies in the folder `parent` of an input folder."""
    folder = out.joinpath(*map(safe_name, parent.parts))
    names = [*stems, "separation"]
    paths = stem_paths(source.stem, names, filename=output.filename, audio_format=output.format)
    record = paths.pop("separation").with_suffix(".json")
    return Job(source, {name: folder / path for name, path in paths.items()}, folder / record)


def _audio_in(folder: Path, out: Path, recursive: bool, unreadable: dict[Path, str]) -> list[Path]:
    """Return the audio files in a folder, without stems, in order of path."""
    files = list(_walk(folder, out, recursive, unreadable))
    stems = {stem for path in files for stem in listed_stems(path)}
    audio = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")]
    recordings = [path for path in audio if not (stems and os.path.realpath(path) in stems)]
    if not recordings and folder not in unreadable:
        raise AudioError(
            f"{printable(folder)}: holds no audio files other than stems; expected some, such as wav, flac, mp3 or m4a"
            + ("" if recursive else ", or a recursive search of the folders in it"),
            parameter=None if recursive else "recursive",
        )
    return sorted(recordings, key=lambda path: path.parts)


def _walk(folder: Path, out: Path, recursive: bool, unreadable: dict[Path, str]) -> Iterator[Path]:
    """Yield all files in a folder, and in the folders in it that are neither hidden nor the output folder."""

    def refuse(error: OSError) -> None:
        unreadable[Path(error.filename)] = reason(error)

    seen = {os.path.realpath(folder), os.path.realpath(out)}  # links can lead in circles
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = []
        for name in sorted(folders) if recursive else []:
            real = os.path.realpath(Path(parent, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        yield from (Path(parent, name) for name in files)


def _check_collisions(jobs: Sequence[Job]) -> None:
    """Raise OptionError if two recordings would write the same file, or a stem would replace a recording."""
    sources = {folded(os.path.realpath(job.source)): job.source for job in jobs}
    owners: dict[str, Job] = {}
    parents: dict[Path, str] = {}
    for job in jobs:
        for target in (*job.targets.values(), job.record):
            parent = parents.setdefault(target.parent, os.path.realpath(target.parent))
            path = folded(os.path.join(parent, target.name))  # noqa: PTH118 (as a string)
            if path in sources:
                raise OptionError(
                    f"{printable(target)}, made from {printable(job.source)}, would replace the recording "
                    f"{printable(sources[path])}; choose another output folder",
                    parameter="out",
                )
            if owners.setdefault(path, job) is not job:
                raise OptionError(
                    f"{printable(job.source)} and {printable(owners[path].source)} would both write "
                    f"{printable(target)}; choose another template, or separate them into two folders",
                    parameter="filename",
                )
