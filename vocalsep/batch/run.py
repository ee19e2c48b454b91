"""Separate many recordings: one after the other, in several processes, or on a Ray cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalsep.batch.job import JobOptions, Result, check, failure, load_separator, remove_temporary, run_job
from vocalsep.batch.plan import Job, make_plan
from vocalsep.batch.record import make_setup
from vocalsep.batch.report import NAME, check_report_path, write_report
from vocalsep.errors import AudioError, OptionError, OutputError, printable, shown
from vocalsep.options import NetworkOptions, OutputOptions, RoomLike, SeparationOptions
from vocalsep.threads import threads_per_job
from vocalsep.voices import VoicesLike

if TYPE_CHECKING:
    from vocalsep.f0.tracks import F0Tracks

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class BatchOptions:
    """How recordings are found, and how many are separated at a time.

    Parameters
    ----------
    recursive : bool
        Search folders inside folders.
    overwrite : bool
        Separate finished recordings again, and replace existing files.
    jobs : int
        Number of recordings at a time: processes that share the cores or the GPU. A script needs
        `if __name__ == "__main__":` for more than one.
    ray : str, optional
        Address of a Ray cluster, see `vocalsep.batch.ray`.
    report : Path, optional
        File of the report; None is report.json in the output folder.

    Raises
    ------
    OptionError
        If `jobs` is not positive.
    """

    recursive: bool = False
    overwrite: bool = False
    jobs: int = 1
    ray: str | None = None
    report: Path | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise OptionError(f"jobs is {shown(self.jobs)}; expected 1 or more", parameter="jobs")


class Monitor:
    """An observer of a run; the base class ignores everything."""

    def started(self, jobs: Sequence[Job]) -> None:
        """Receive the recordings that will be separated."""

    def progress(self, job: Job, stage: str, fraction: float) -> None:
        """Receive the progress of a recording, if only one is separated at a time."""

    def finished(self, result: Result) -> None:
        """Receive the result of a recording."""


@dataclass(frozen=True)
class BatchRun:
    """A run that is planned; nothing is written or loaded yet."""

    jobs: Sequence[Job]
    unreadable: Mapping[Path, str]
    """Folders that cannot be read, and why."""
    options: JobOptions
    batch: BatchOptions
    report: Path

    def run(self, monitor: Monitor | None = None, command: Sequence[str] | None = None) -> list[Result]:
        """Separate the recordings, and write the report, with the command line, also if the run is interrupted."""
        monitor = monitor or Monitor()
        unreadable = [
            failure(folder, AudioError(f"{printable(folder)}: cannot be read ({why})"))
            for folder, why in self.unreadable.items()
        ]
        results: dict[Path, Result] = {}

        def finish(job: Job, result: Result) -> None:
            results[job.record] = result
            monitor.finished(result)

        started = time.perf_counter()
        header = self._header(command)
        write_report(self.report, header, [])  # fails before the work, not after it
        try:
            for result in unreadable:
                monitor.finished(result)
            self._run(monitor, finish)
            header["interrupted"] = False
        finally:
            ordered = [results[job.record] for job in self.jobs if job.record in results] + unreadable
            header["seconds"] = round(time.perf_counter() - started, 3)
            write_report(self.report, header, ordered)
        return ordered

    def _run(self, monitor: Monitor, finish: Callable[[Job, Result], None]) -> None:
        waiting = []
        for job in self.jobs:
            result = check(job, self.options)
            if result is None:
                waiting.append(job)
                continue
            if result.status == "skipped":
                remove_temporary(job, done=True)
            finish(job, result)
        monitor.started(waiting)
        if not waiting:
            return
        if self.batch.ray is not None:
            from vocalsep.batch.ray import run_on_ray

            run_on_ray(waiting, self.options, self.batch.ray, self.batch.jobs, finish)
        elif self.processes > 1:
            from vocalsep.batch.processes import run_in_processes

            run_in_processes(waiting, self.options, self.processes, finish)
        else:
            load = cache(partial(load_separator, self.options.networks))
            for job in waiting:
                finish(job, run_job(job, self.options, load, partial(monitor.progress, job)))

    @property
    def processes(self) -> int:
        """Number of recordings at a time on this machine."""
        return min(self.batch.jobs, len(self.jobs))

    def _header(self, command: Sequence[str] | None) -> dict[str, Any]:
        import platform

        import numpy as np
        import torch

        return {
            "command": None if command is None else list(command),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "interrupted": True,
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "machine": {
                "platform": platform.platform(),
                "device": self.options.networks.device,
                "threads": 1 if self.batch.ray is not None else threads_per_job(max(1, self.processes)),
                "jobs": self.batch.jobs,
                "ray": self.batch.ray,
            },
            "setup": self.options.setup,
        }


def prepare(
    paths: Iterable[PathLike],
    out: PathLike,
    separation: SeparationOptions,
    output: OutputOptions,
    networks: NetworkOptions,
    batch: BatchOptions,
    f0s: F0Tracks | None = None,
) -> BatchRun:
    """Plan a run; `f0s` are those of the only recording. Everything that can be checked before the work is checked."""
    from vocalsep.device import resolve_device

    if isinstance(paths, str | os.PathLike):
        raise OptionError(f"paths is {shown(paths)}; expected a list of paths", parameter="paths")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise OutputError(f"{printable(out)}: is a file; expected a folder", parameter="out")
    stems = output.files_of(separation.stem_names(None if f0s is None else f0s.names))
    jobs, unreadable = make_plan(paths, out, stems, output, batch.recursive)
    if f0s is not None and len(jobs) > 1:
        raise OptionError(f"f0 tracks belong to one recording, but there are {len(jobs)} recordings", parameter="f0s")
    report = batch.report or out / NAME
    check_report_path(report)
    if batch.ray is None:
        networks = replace(networks, device=resolve_device(networks.device))
    setup = make_setup(separation, output, networks, f0s)
    options = JobOptions(separation, output, networks, setup, f0s, batch.overwrite)
    return BatchRun(jobs, unreadable, options, batch, report)


def separate_files(
    paths: Iterable[PathLike],
    out: PathLike,
    *,
    separation: SeparationOptions = SeparationOptions(),  # noqa: B008 (frozen)
    output: OutputOptions = OutputOptions(),  # noqa: B008
    voices: VoicesLike | None = None,
    room: RoomLike | None = None,
    residual: bool | None = None,
    format: str | None = None,
    bit_depth: str | None = None,
    clip_mode: str | None = None,
    two_stems: str | None = None,
    filename: str | None = None,
    model: PathLike = NetworkOptions.model,
    tracker: PathLike = NetworkOptions.tracker,
    masks: PathLike = NetworkOptions.masks,
    device: str = NetworkOptions.device,
    recursive: bool = BatchOptions.recursive,
    overwrite: bool = BatchOptions.overwrite,
    jobs: int = BatchOptions.jobs,
    ray: str | None = BatchOptions.ray,
    report: PathLike | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Separate files and folders of recordings, and write the stems to a folder.

    Recordings that are done (see `vocalsep.batch.record`) are skipped, so the same call resumes an interrupted run. A
    recording that fails does not stop the others.

    Parameters
    ----------
    paths : iterable of path
        Audio files, and folders of audio files whose structure is kept.
    out : path
        Output folder.
    separation : SeparationOptions
        How to separate. The keywords from `voices` to `residual` replace single fields; None leaves a field as it is.
    output : OutputOptions
        How to write the stems; likewise the keywords from `format` to `filename`.
    model, tracker, masks, device
        See `vocalsep.options.NetworkOptions`.
    recursive, overwrite, jobs, ray, report
        See `BatchOptions`.
    on_result : callable, optional
        Called with the result of each recording as soon as it is known.

    Returns
    -------
    list of Result
        Result of each recording, in the order of the paths. A recording that failed has the status "failed".

    Raises
    ------
    VocalsepError
        If an option cannot be used, two recordings would write the same stems, or the networks cannot be loaded.

    Examples
    --------
    >>> import vocalsep
    >>> results = vocalsep.separate_files(["concerts/"], "stems", voices="SATB")  # doctest: +SKIP
    >>> [result.source for result in results if result.status == "failed"]  # doctest: +SKIP
    []
    """
    separation = _replaced(separation, voices=voices, room=room, residual=residual)
    output = _replaced(
        output, format=format, bit_depth=bit_depth, clip_mode=clip_mode, two_stems=two_stems, filename=filename
    )
    networks = NetworkOptions(os.fspath(model), os.fspath(tracker), masks=os.fspath(masks), device=device)
    batch = BatchOptions(recursive, overwrite, jobs, ray, None if report is None else Path(report))
    monitor = Monitor()
    if on_result is not None:
        monitor.finished = on_result  # type: ignore[assignment, method-assign]
    return prepare(paths, out, separation, output, networks, batch).run(monitor)


def _replaced(options: Any, **fields: Any) -> Any:
    return replace(options, **{name: value for name, value in fields.items() if value is not None})
