"""Files and folders in, stems and a report out: the engine behind `vocalsep separate`, and its call from Python."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from vocalsep import audio as audio_io
from vocalsep.audio.formats import CLIP_MODES
from vocalsep.batch.planning import Plan, Task, plan
from vocalsep.batch.recipe import recipe_of
from vocalsep.batch.records import State, assess, open_folder
from vocalsep.batch.report import NAME, Call, report_of, validate_report_path, write_report
from vocalsep.batch.running import Job, Listener, Outcome, run_here, run_threads, uninterrupted
from vocalsep.batch.workers import available_cores, run_processes, threads_of_each
from vocalsep.device import resolve_device
from vocalsep.errors import OptionError, VocalsepError, shown
from vocalsep.f0.polyphonic import DEFAULT_TRACKER
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import check_place
from vocalsep.paths import FILENAME, real_path
from vocalsep.separation.files import Settings
from vocalsep.separation.separator import DEFAULT_MODEL
from vocalsep.voices import VoicesLike, folded


def _nothing(*_: object) -> None:
    """Do nothing: for callers that need not know how far the work is."""


SILENT = Listener(_nothing, _nothing)
"""Who wants to know nothing."""


@dataclass(frozen=True)
class Batch:
    """A run, ready to begin: nothing is written or loaded yet.

    Parameters
    ----------
    plan
        Recordings and their stems.
    job
        What is done with each of them.
    call
        How it was asked for.
    report
        Path of the report.
    """

    plan: Plan
    job: Job
    call: Call
    report: Path

    def states(self) -> list[tuple[Task, State]]:
        """Return how things stand with each recording now."""
        return [(task, assess(task, self.job.out, self.job.recipe)) for task in self.plan.tasks]

    def run(self, listener: Listener = SILENT) -> list[Outcome]:
        """Do it; return what came of each recording, and behind them of folders that could not be looked into.

        The report is written whatever happens.

        Raises
        ------
        VocalsepError
            If nothing can be done: weights that do not load, an output folder that cannot be written to.
        """
        tasks = self.plan.tasks
        outcomes = [Outcome(task.source, "unfinished") for task in tasks]
        outcomes += [
            Outcome(path, "failed", f"{path}: {reason}; expected a folder of recordings")
            for path, reason in self.plan.unreadable.items()
        ]

        def finished(number: int, outcome: Outcome) -> None:
            outcome = _as_given(outcome, tasks[number])
            if outcome.status != "failed":
                outcomes[number] = outcome
            # Raises where what has failed has only been interrupted.
            listener.finished(number, outcome)
            outcomes[number] = outcome

        began, started = time.perf_counter(), datetime.now(timezone.utc).isoformat(timespec="seconds")
        over = False
        try:
            open_folder(self.job.out)
            check_place(self.report, "JSON", OptionError)
            self._run(Listener(listener.progress, finished))
            over = True
        finally:
            report = report_of(
                self.job,
                self.call,
                outcomes,
                started=started,
                elapsed=time.perf_counter() - began,
                interrupted=not over,
            )
            try:
                with uninterrupted():
                    write_report(self.report, report)
            except VocalsepError:
                if over and not any(outcome.hopeless for outcome in outcomes):
                    raise
        return outcomes

    def _run(self, listener: Listener) -> None:
        tasks, jobs = list(enumerate(self.plan.tasks)), min(self.call.jobs, len(self.plan.tasks))
        if self.call.ray is not None:
            from vocalsep.batch.ray_cluster import run_ray

            run_ray(tasks, self.job, listener, self.call.ray, self.call.jobs)
        elif jobs < 2 or _kind(self.call.device) == "mps":  # which is not safe from several threads
            run_here(tasks, self.job, listener)
        elif _kind(self.call.device) == "cpu":
            run_processes(tasks, self.job, listener, jobs)
        else:
            run_threads(tasks, self.job, listener, jobs)


def _kind(device: str) -> str:
    return device.split(":")[0]


def _as_given(outcome: Outcome, task: Task) -> Outcome:
    """Return an outcome with the path that the user gave, whatever path a worker knows the recording by."""
    return replace(outcome, source=task.source)


def prepare(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: Settings,
    f0s: F0Tracks | None = None,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    filename: str = FILENAME,
    recursive: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    ray: str | None = None,
    report: str | os.PathLike[str] | None = None,
    command: Sequence[str] | None = None,
) -> Batch:
    """Return a run, ready to begin; everything that can be refused before is.

    Parameters
    ----------
    settings, f0s
        See `stem_files.write_stems`; f0 belongs to one recording.
    command
        The command line, for the report.
    inputs, out, model, device, tracker, filename, recursive, overwrite, jobs, ray, report
        See `separate_files`.

    Raises
    ------
    VocalsepError
        If something cannot be used.
    """
    _validate(settings, jobs)
    if "" in [os.fspath(path) for path in (*inputs, out)]:
        raise OptionError("a path is empty; expected that of a file or folder")
    stems = settings.stem_names(f0s)
    planned = plan(inputs, out, stems, recursive=recursive, filename=filename, audio_format=settings.audio_format)
    if f0s is not None and len(planned.tasks) > 1:
        raise OptionError(f"f0s belong to one recording; got {len(planned.tasks)} recordings")
    path = Path(out) / NAME if report is None else Path(report)
    _refuse_report(path, planned)
    recipe = recipe_of(os.fspath(model), os.fspath(tracker), settings, f0s)
    found = device if ray is not None else resolve_device(device)
    job = Job(
        Path(out), os.fspath(model), device, os.fspath(tracker), settings, f0s, recipe, overwrite, uuid.uuid4().hex
    )
    call = Call(
        command=None if command is None else tuple(command),
        filename=filename,
        recursive=recursive,
        jobs=jobs,
        ray=ray,
        threads=_threads(min(jobs, len(planned.tasks)), found, ray),
        device=found,
    )
    return Batch(planned, job, call, path)


def _threads(jobs: int, device: str, ray: str | None) -> int:
    import torch

    if ray is not None:
        return 1
    return threads_of_each(jobs) if jobs > 1 and _kind(device) == "cpu" else torch.get_num_threads()


def _validate(settings: Settings, jobs: int) -> None:
    if settings.clip_mode not in CLIP_MODES:
        raise OptionError(f"clip_mode is {settings.clip_mode!r}; expected one of {', '.join(CLIP_MODES)}")
    if settings.bit_depth is not None or settings.audio_format not in audio_io.FORMATS:
        audio_io.validate_format(settings.audio_format, settings.bit_depth or "16")
    if settings.adapt_seconds is not None and not 0 < settings.adapt_seconds < math.inf:
        raise OptionError(f"adapt_seconds is {shown(settings.adapt_seconds)}; expected a number of seconds above 0")
    if settings.seed < 0:
        raise OptionError(f"seed is {shown(settings.seed)}; expected 0 or more")
    if jobs < 1:
        raise OptionError(f"jobs is {jobs}; expected 1 or more, such as the {available_cores()} cores at hand")


def _refuse_report(path: Path, planned: Plan) -> None:
    taken = {folded(real_path(file)) for task in planned.tasks for file in (task.source, *task.targets.values())}
    if folded(real_path(path)) in taken:
        raise OptionError(f"{path} is a recording or a stem; choose another place for the report with --report")
    validate_report_path(path)


def separate_files(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    two_stems: str | None = None,
    adapt: bool = False,
    seed: int = 0,
    filename: str = FILENAME,
    audio_format: str = "wav",
    bit_depth: str | None = None,
    clip_mode: str = "rescale",
    recursive: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    ray: str | None = None,
    report: str | os.PathLike[str] | None = None,
    check: bool = True,
    finished: Callable[[Outcome], None] = _nothing,
) -> list[Outcome]:
    """Take files and folders of recordings apart and write their stems; the networks are loaded once.

    What an earlier run has completed, in the same way and from the same recordings, is skipped; a recording that
    cannot be separated does not keep the others from it.

    Parameters
    ----------
    paths
        Audio files and folders of them, whose structure is kept.
    out
        Folder of the stems.
    voices, model, device, tracker, refine, residual, adapt
        See `vocalsep.separate`.
    two_stems, seed, audio_format, bit_depth, clip_mode
        See `stem_files.Settings`.
    filename
        Template of the path of a stem inside `out`, with {track}, {stem} and {ext}.
    recursive
        Whether the folders in folders are looked into, too.
    overwrite
        Whether everything is done again, and stems replaced that are somebody else's, or were made otherwise.
    jobs
        Recordings that are worked on at a time: on the CPU by as many processes, which share the cores (a script
        that asks for them needs `if __name__ == "__main__":`), elsewhere by threads.
    ray
        Address of a Ray cluster to work on, "local" for one of this machine alone; see `batch.ray_cluster`.
    report
        Path of the report, `out`/report.json by default; `batch.report` says what is in it.
    check
        Whether an exception is raised at the end if a recording has failed.
    finished
        Called with the outcome of each recording as soon as it is there.

    Returns
    -------
    list of Outcome
        Of each recording: status "done", "skipped" or "failed", error, and files, in a fixed order.

    Raises
    ------
    VocalsepError
        If something cannot be used, before anything is written: two recordings would write the same stems, say. And
        at the end, if recordings have failed and `check` is set.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise OptionError(f"paths is {str(paths)!r}; expected a list of files, or use separate_file for one")
    settings = Settings(
        voices=voices,
        refine=refine,
        residual=residual,
        adapt=adapt,
        seed=seed,
        two_stems=two_stems,
        audio_format=audio_format,
        bit_depth=bit_depth,
        clip_mode=clip_mode,
    )
    batch = prepare(
        list(paths),
        out,
        settings,
        model=model,
        device=device,
        tracker=tracker,
        filename=filename,
        recursive=recursive,
        overwrite=overwrite,
        jobs=jobs,
        ray=ray,
        report=report,
    )
    outcomes = batch.run(Listener(_nothing, lambda _, outcome: finished(outcome)))
    failures = [outcome for outcome in outcomes if outcome.status in ("failed", "unfinished")]
    if check and failures:
        first = next((outcome.error for outcome in failures if outcome.error), "the run was broken off")
        raise OptionError(f"{len(failures)} of {len(outcomes)} recordings could not be separated; the first: {first}")
    return outcomes
