"""Doing what is planned: one recording after the other, or several at a time that share the networks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vocalsep.audio.writer import temporary_name
from vocalsep.batch.planning import Task
from vocalsep.batch.recipe import Recipe
from vocalsep.batch.records import (
    FileMark,
    Record,
    assess,
    check_source,
    former_files,
    locked,
    write_record,
)
from vocalsep.errors import AudioError, OptionError, VocalsepError, WeightsError, printable
from vocalsep.f0.tracks import F0Tracks
from vocalsep.progress import ProgressCallback
from vocalsep.separation.files import Settings, write_stems

if TYPE_CHECKING:
    from vocalsep.separation.separator import Separator

_CLOSED = (getattr(errno, "EDQUOT", errno.EROFS), errno.EROFS)
_LEAST_FREE = 1 << 16  # bytes: a disk with less room is full, whatever libsndfile calls it


@dataclass(frozen=True)
class Job:
    """What is to be done with each recording.

    Parameters
    ----------
    out
        Folder of the stems.
    model, device, tracker
        See `Separator`.
    settings, f0s
        See `stem_files.write_stems`.
    recipe
        What stems have to be made with to be complete.
    overwrite
        Whether everything is done again, and whatever is in the way replaced.
    run
        Of which run this is a part: what the run itself has completed is done, not skipped.
    patience
        Seconds to wait for another process that writes the same stems.
    """

    out: Path
    model: str
    device: str
    tracker: str
    settings: Settings
    f0s: F0Tracks | None
    recipe: Recipe
    overwrite: bool
    run: str
    patience: float = 0.0

    def separator(self) -> Separator:
        """Return the separator, loaded once in a process."""
        return _separator(self.model, self.device, self.tracker, self.recipe.model.sha256)


@lru_cache(maxsize=1)
def _separator(model: str, device: str, tracker: str, sha256: str) -> Separator:
    from vocalsep.separation.separator import Separator

    return Separator(model, device, tracker=tracker)


@dataclass(frozen=True)
class Outcome:
    """What came of a recording.

    Parameters
    ----------
    source
        The recording.
    status
        "done", "skipped" (it was complete), "failed", or "unfinished" (the run was interrupted).
    error
        Why it failed, in one sentence.
    record
        What is known of its stems if they are complete.
    elapsed
        Seconds that it took.
    hopeless
        Whether every other recording would fail as well, since the disk is full.
    """

    source: Path
    status: Literal["done", "skipped", "failed", "unfinished"]
    error: str = ""
    record: Record | None = None
    elapsed: float = 0.0
    hopeless: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the stems inside the output folder."""
        return () if self.record is None else tuple(mark.path for mark in self.record.files.values())


class Interrupted(BaseException):
    """The run is over; raised where progress is told, in threads that no signal reaches."""


def attempt(task: Task, job: Job, progress: ProgressCallback, *, alone: bool = False) -> Outcome:
    """Separate a recording unless that is done already, whatever happens.

    Parameters
    ----------
    alone
        Whether there is no other recording: then exceptions that nobody expected are not caught.

    Raises
    ------
    WeightsError
        If the networks cannot be loaded: then nothing can be done with any recording.
    """
    started = time.perf_counter()
    try:
        return perform(task, job, progress)
    except WeightsError:
        raise
    except VocalsepError as error:
        words = str(error)
        if str(task.source) not in words and printable(task.source) not in words:
            words = f"{task.source}: {words}"
        return failed(task, words, started, hopeless=_is_hopeless(error, job.out))
    except Exception as error:
        if alone:
            raise
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return failed(task, f"{task.source}: {words} (unexpected: run `vocalsep --verbose` on it alone)", started)


def failed(task: Task, error: str, started: float, *, hopeless: bool = False) -> Outcome:
    """Return the outcome of a recording that could not be separated."""
    return Outcome(task.source, "failed", error, elapsed=time.perf_counter() - started, hopeless=hopeless)


def _is_hopeless(error: BaseException | None, out: Path) -> bool:
    with suppress(OSError):
        if "cannot be written" in str(error) and shutil.disk_usage(out).free < _LEAST_FREE:
            return True
    while error is not None:
        # A disk without room for one recording may have some for a shorter one; a quota or a read-only disk has not.
        if isinstance(error, OSError) and error.errno in _CLOSED:
            return True
        error = error.__cause__
    return False


def perform(task: Task, job: Job, progress: ProgressCallback) -> Outcome:
    """Separate a recording unless that is done already.

    Raises
    ------
    VocalsepError
        If it cannot be separated, or there are files in the way.
    """
    started = time.perf_counter()
    with locked(job.out, task.place, job.patience, name=task.source):
        check_source(task.source)
        state = assess(task, job.out, job.recipe)
        if state.kind == "complete" and state.record is not None:
            own = state.record.run == job.run
            if own or not job.overwrite:
                elapsed = time.perf_counter() - started
                return Outcome(task.source, "done" if own else "skipped", record=state.record, elapsed=elapsed)
        if state.kind == "foreign" and not job.overwrite:
            raise OptionError(f"{task.source}: {state.reason}; use --overwrite to replace it or -o for another folder")
        remove_leftovers(task)
        try:
            record = _write(task, job, progress)
        except BaseException:
            remove_leftovers(task)
            raise
    return Outcome(task.source, "done", record=record, elapsed=time.perf_counter() - started)


def _write(task: Task, job: Job, progress: ProgressCallback) -> Record:
    source = FileMark.of_source(task.source)
    pending = write_stems(job.separator(), task.source, task.targets, job.settings, job.f0s, progress=progress)
    try:
        if not source.holds_for(task.source):
            raise AudioError(
                f"{task.source}: was changed while it was separated; expected a recording that is finished"
            )
        # What is read of a file stays true when it gets its name.
        files = {
            name: FileMark.of(temporary_name(path), Path(os.path.relpath(path, job.out)).as_posix())
            for name, path in task.targets.items()
        }
        former = former_files(task, job.out)
        record = Record("complete", source, job.recipe.to_json(), files, asdict(pending.written), job.run, former)
        with uninterrupted():
            write_record(job.out, task.place, replace(record, state="writing"))
            pending.commit()
            write_record(job.out, task.place, record)
    finally:
        pending.discard()
    return record


def remove_leftovers(task: Task) -> None:
    """Remove temporary files of a recording: of a process that was killed, or of this one, interrupted anywhere."""
    for target in task.targets.values():
        with suppress(OSError):
            temporary_name(target).unlink(missing_ok=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals that end the run wait for what takes no time: all stems get their names, or none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handlers = {
        int(number): signal.signal(number, lambda received, _: waiting.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for number in waiting:
        signal.raise_signal(number)


@dataclass(frozen=True)
class Listener:
    """Who wants to know how far the run is.

    Parameters
    ----------
    progress
        Called with the number of a recording in the plan, and the fraction of it that is done.
    finished
        Called with the number of a recording and what came of it.
    """

    progress: Callable[[int, float], None]
    finished: Callable[[int, Outcome], None]


# Share of a recording that each stage takes on two cores.
_STAGES = {"reading": (0.0, 0.01), "f0": (0.01, 0.76), "masks": (0.77, 0.23)}
_STAGES_ADAPTED = {"reading": (0.0, 0.01), "f0": (0.01, 0.29), "adaptation": (0.3, 0.6), "masks": (0.9, 0.1)}
_STAGES_GIVEN = {"reading": (0.0, 0.05), "masks": (0.05, 0.95)}
_STAGES_GIVEN_ADAPTED = {"reading": (0.0, 0.01), "adaptation": (0.01, 0.85), "masks": (0.86, 0.14)}


def whole(job: Job, told: Callable[[float], None]) -> ProgressCallback:
    """Return what turns the progress of stages into that of a recording."""
    if job.recipe.tracker is None and job.recipe.crepe is None:
        stages = _STAGES_GIVEN_ADAPTED if job.settings.adapt else _STAGES_GIVEN
    else:
        stages = _STAGES_ADAPTED if job.settings.adapt else _STAGES
    most = 0.0

    def progress(stage: str, fraction: float) -> None:
        nonlocal most
        start, share = stages.get(stage, (0.0, 0.0))
        # Stems that need a gain are cut twice: the second time nothing is told.
        most = max(most, start + share * fraction)
        told(most)

    return progress


def run_here(tasks: Sequence[tuple[int, Task]], job: Job, listener: Listener) -> None:
    """Separate recordings one after the other.

    Parameters
    ----------
    tasks
        Recordings with their numbers in the plan.
    """
    for number, task in tasks:
        progress = whole(job, partial(listener.progress, number))
        outcome = attempt(task, job, progress, alone=len(tasks) == 1)
        listener.finished(number, outcome)
        if outcome.hopeless:
            return


def run_threads(tasks: Sequence[tuple[int, Task]], job: Job, listener: Listener, jobs: int) -> None:
    """Separate several recordings at a time with the same networks, so that a GPU does not wait for the files."""
    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

    job.separator()
    over = threading.Event()

    def one(number: int, task: Task) -> Outcome:
        def told(share: float) -> None:
            if over.is_set():
                raise Interrupted
            listener.progress(number, share)

        told(0.0)
        return attempt(task, job, whole(job, told))

    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[Outcome], int] = {pool.submit(one, number, task): number for number, task in tasks}
        try:
            while running:
                # Not for ever: a signal is only heard between waits on some systems.
                done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    listener.finished(running.pop(future), outcome)
                    if outcome.hopeless:
                        return
        finally:
            over.set()
            pool.shutdown(wait=True, cancel_futures=True)
