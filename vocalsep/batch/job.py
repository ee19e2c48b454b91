"""One recording: skip it if it is done, otherwise separate it and put its stems into place.

Stems are written under hidden temporary names in their folder (`.alto.wav.part`). When all are complete, they are put
into place in this order:

1. write the record (see `vocalsep.batch.record`) as `.separation.json.part`;
2. remove an old `separation.json`, and the stems that only it lists;
3. rename the stems;
4. rename the record to `separation.json`.

A run that is killed before step 1 leaves only temporary files, which the next run replaces. If it is killed later,
`.separation.json.part` lists the stems that may be in place, so the next run may replace them. Any other file in the
way is an error unless the run overwrites. Two runs must not write the same stems at the same time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vocalsep.batch.plan import Job
from vocalsep.batch.record import KEY, SCHEMA, Record, describe_file, difference, is_unchanged, read_record, relative
from vocalsep.errors import AudioError, OutputError, VocalsepError, WeightsError, one_line, printable, reason
from vocalsep.files import part_path
from vocalsep.options import NetworkOptions, OutputOptions, SeparationOptions
from vocalsep.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from vocalsep.f0.tracks import F0Tracks
    from vocalsep.separation.separator import Separator


@dataclass(frozen=True)
class JobOptions:
    """Options that all recordings of a run share."""

    separation: SeparationOptions
    output: OutputOptions
    networks: NetworkOptions
    setup: Mapping[str, Any]
    """The setup that a record must have for its recording to be skipped, see `vocalsep.batch.record`."""
    f0s: F0Tracks | None = None
    """F0 tracks of the only recording."""
    overwrite: bool = False


@dataclass(frozen=True)
class Result:
    """Result of one recording.

    Parameters
    ----------
    source : Path
        The recording.
    status : str
        "done", "skipped" (it was done before) or "failed".
    error : VocalsepError, optional
        Why it failed.
    files : mapping of str to Path
        Files of the stems, by name; empty if it failed.
    record : mapping, optional
        Content of its separation.json.
    elapsed : float
        Seconds that it took.
    """

    source: Path
    status: Literal["done", "skipped", "failed"]
    error: VocalsepError | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    record: Record | None = None
    elapsed: float = 0.0


def run_job(
    job: Job, options: JobOptions, load: Callable[[], Separator], progress: ProgressCallback = no_progress
) -> Result:
    """Skip or separate a recording; `load` is called if a separator is needed.

    Errors become failed results, except WeightsError: without networks no other recording can be separated either.
    """
    started = time.perf_counter()
    try:
        result = check(job, options) or separate(job, options, load(), progress)
    except WeightsError:
        raise
    except Exception as error:
        result = failure(job.source, error)
    return replace(result, elapsed=time.perf_counter() - started)


def failure(source: Path, error: Exception) -> Result:
    """Return the result of a recording that failed, with an error that names the recording."""
    if isinstance(error, AudioError | OutputError):  # these name a file
        named: VocalsepError = error
    elif isinstance(error, VocalsepError):
        named = type(error)(f"{printable(source)}: {error}", parameter=error.parameter)
    else:
        text = one_line(f"{type(error).__name__}: {error}", 300)
        named = VocalsepError(f"{printable(source)}: unexpected {text}")
        named.__cause__ = error
    return Result(source, "failed", named)


def check(job: Job, options: JobOptions) -> Result | None:
    """Return the result of a recording that is done or cannot be separated, None for one to separate."""
    try:
        if not os.path.isfile(job.source):  # noqa: PTH113 (False for a name that no file can have)
            raise AudioError(f"{printable(job.source)}: no such file or folder; expected an audio file")
        if options.overwrite:
            return None
        record, interrupted = read_record(job.record), read_record(part_path(job.record))
        unlike = "exists, and no separation.json lists it"
        if record is not None:
            unlike = difference(record, job.source, options.setup)
        own = {} if record is None or unlike else record["stems"]
        unfinished = {} if interrupted is None else interrupted["stems"]
        intact, obstacles = 0, []
        for name, path in job.targets.items():
            if not os.path.lexists(path):
                continue
            file = relative(path, job.record)
            if _lists(own, name, file) and path.is_file() and is_unchanged(path, own[name]):
                intact += 1
            elif not _lists(unfinished, name, file):
                obstacles.append(path)
        if unlike and os.path.lexists(job.record):
            obstacles.append(job.record)
        if intact == len(job.targets):
            return Result(job.source, "skipped", files=job.targets, record=record)
        if obstacles:
            raise OutputError(
                f"{printable(obstacles[0])}: {unlike or 'was changed after it was written'}; choose another output "
                "folder, or overwrite the files in this one",
                parameter="overwrite",
            )
    except (VocalsepError, OSError) as error:
        return failure(job.source, error)
    return None


def _lists(stems: Mapping[str, Any], name: str, file: str) -> bool:
    """Return whether the stems of a record include one of this name in this file."""
    return bool(stems.get(name, {}).get("file") == file)


def separate(job: Job, options: JobOptions, separator: Separator, progress: ProgressCallback) -> Result:
    """Separate a recording and put its stems into place."""
    from vocalsep.separation.files import write_stems

    described = {"name": job.source.name, **describe_file(job.source)}
    partial = {name: part_path(path) for name, path in job.targets.items()}
    try:
        for path in (*job.targets.values(), job.record):
            path.parent.mkdir(parents=True, exist_ok=True)
        written = write_stems(separator, job.source, partial, options.separation, options.output, options.f0s, progress)
        summary = asdict(written)
        described.update({name: summary.pop(name) for name in ("sample_rate", "channels", "seconds")})
        summary["f0_seconds"] = None if options.f0s is None else options.f0s.n_frames * options.f0s.hop
        record = {
            KEY: SCHEMA,
            "input": described,
            "setup": options.setup,
            "stems": {
                name: {"file": relative(path, job.record), **describe_file(partial[name])}
                for name, path in job.targets.items()
            },
            "summary": summary,
        }
        _commit(job, record)
    except OSError as error:
        raise OutputError(f"{printable(job.record.parent)}: cannot be written ({reason(error)})") from error
    finally:
        remove_temporary(job)
    return Result(job.source, "done", files=job.targets, record=record)


def _commit(job: Job, record: Record) -> None:
    """Put complete stems and their record into place; see the module."""
    part = part_path(job.record)
    new = _new(job)
    new.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    new.replace(part)  # an older one may still list stems in place, so it is never half-written
    for path in former_stems(job):
        path.unlink(missing_ok=True)
    job.record.unlink(missing_ok=True)
    for target in job.targets.values():
        part_path(target).replace(target)
    part.replace(job.record)


def former_stems(job: Job) -> list[Path]:
    """Return the unchanged stems of an earlier run that the new stems would not replace, without the recording."""
    record = read_record(job.record)
    former = {} if record is None else {job.record.parent / stem["file"]: stem for stem in record["stems"].values()}
    return [
        path
        for path, stem in former.items()
        if path not in job.targets.values()
        and path.is_file()
        and not path.samefile(job.source)
        and is_unchanged(path, stem)
    ]


def remove_temporary(job: Job, *, done: bool = False) -> None:
    """Remove the temporary files of a recording; if it is done, also a record that was never put into place."""
    paths = [part_path(target) for target in job.targets.values()] + [_new(job)]
    for path in [*paths, part_path(job.record)] if done else paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _new(job: Job) -> Path:
    return job.record.with_name(f".{job.record.name}.new")


def load_separator(networks: NetworkOptions) -> Separator:
    """Return the separator of a run."""
    from vocalsep.separation.separator import Separator

    return Separator(
        networks.model, networks.device, tracker=networks.tracker, crepe=networks.crepe, masks=networks.masks
    )
