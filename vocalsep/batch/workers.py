"""Several recordings at a time on the CPU: processes that each load the networks once and share out the cores.

A worker that dies, of too little memory say, takes nobody with it: its recording is tried once more when no other is
being worked on. Workers that lose the process that started them end at once, however it ended.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalsep.batch.planning import Task
from vocalsep.errors import VocalsepError

if TYPE_CHECKING:
    from vocalsep.batch.running import Job, Listener, Outcome

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_TELL_EVERY = 0.2  # seconds between two reports of progress
_PATIENCE = 2.0  # seconds that a worker has to clean up when the run is interrupted


def available_cores() -> int:
    """Return the number of cores that this process may use: affinity and the quota of its container count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the cores that the control group of this process may use, infinite where none is set."""
    with suppress(OSError, ValueError, IndexError):
        quota, period = (root / "cpu.max").read_text().split()[:2]
        return float("inf") if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
        if int(quota) > 0:
            return int(quota) / int((root / "cpu" / "cpu.cfs_period_us").read_text())
    return float("inf")


def threads_of_each(jobs: int) -> int:
    """Return how many threads each of several processes gets, so that together they do not have more than cores.

    A smaller OMP_NUM_THREADS of the user's is kept.
    """
    share = max(1, available_cores() // jobs)
    with suppress(KeyError, ValueError):
        return max(1, min(share, int(os.environ["OMP_NUM_THREADS"])))
    return share


def run_processes(tasks: Sequence[tuple[int, Task]], job: Job, listener: Listener, jobs: int) -> None:
    """Separate recordings in several processes.

    Parameters
    ----------
    tasks
        Recordings with their numbers in the plan.
    jobs
        Number of processes, not more than recordings.

    Raises
    ------
    VocalsepError
        If a worker cannot load the networks.
    """
    again = _Crew(job, listener, threads_of_each(jobs)).work(deque(tasks), jobs)
    if again:
        # One at a time: what was killed for want of memory may fit alone. As many threads as before: the same bytes.
        _Crew(job, listener, threads_of_each(jobs), last=True).work(deque(again), 1)


class _Worker:
    """A process, the pipe to it, and what it works on."""

    def __init__(self, job: Job, threads: int) -> None:
        context = get_context("spawn")
        self.pipe, far = context.Pipe()
        # Nobody writes to it: its end tells the worker that this process is no more.
        lifeline, self._held = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(target=_serve, args=(far, lifeline, job, threads), daemon=True)
        with _environment(threads), _unheard():
            self.process.start()
        far.close()
        lifeline.close()
        self.task: tuple[int, Task] | None = None

    def give(self, task: tuple[int, Task]) -> None:
        self.task = task
        with suppress(OSError):  # it died: whoever waits for it sees that
            self.pipe.send(task)

    def end(self) -> None:
        """Let the process end, and wait for it."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(_PATIENCE)
        self.stop()

    def stop(self) -> None:
        """End the process now."""
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self._held.close()


class _Crew:
    """The workers of a run."""

    def __init__(self, job: Job, listener: Listener, threads: int, *, last: bool = False) -> None:
        self._job, self._listener, self._threads, self._last = job, listener, threads, last
        self._workers: list[_Worker] = []
        self._again: list[tuple[int, Task]] = []

    def work(self, tasks: deque[tuple[int, Task]], jobs: int) -> list[tuple[int, Task]]:
        """Do all tasks; return those whose worker died, unless this is the last try."""
        from vocalsep.batch.running import remove_leftovers

        try:
            while tasks or any(worker.task for worker in self._workers):
                self._hire(tasks, jobs)
                self._listen(tasks)
            for worker in self._workers:
                worker.end()
        finally:
            for worker in self._workers:
                if worker.process.is_alive():
                    worker.process.terminate()  # all of them, before the first is waited for
            for worker in self._workers:
                worker.stop()
                if worker.task is not None:
                    remove_leftovers(worker.task[1])
        return self._again

    def _hire(self, tasks: deque[tuple[int, Task]], jobs: int) -> None:
        for worker in self._workers:
            if worker.task is None and tasks:
                worker.give(tasks.popleft())
        while tasks and len(self._workers) < jobs:
            self._workers.append(_Worker(self._job, self._threads))
            self._workers[-1].give(tasks.popleft())

    def _listen(self, tasks: deque[tuple[int, Task]]) -> None:
        ready = set(connection.wait([worker.pipe for worker in self._workers], timeout=1))
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if kind == "error":
                raise content
            assert worker.task is not None
            number = worker.task[0]
            if kind == "progress":
                self._listener.progress(number, content)
            else:
                worker.task = None
                self._finish(number, content, tasks)

    def _finish(self, number: int, outcome: Outcome, tasks: deque[tuple[int, Task]]) -> None:
        self._listener.finished(number, outcome)
        if outcome.hopeless:
            tasks.clear()

    def _bury(self, worker: _Worker) -> None:
        from vocalsep.batch.running import failed, remove_leftovers

        worker.stop()
        self._workers.remove(worker)
        if worker.task is None:
            return
        number, task = worker.task
        remove_leftovers(task)
        if not self._last:
            self._again.append(worker.task)
            return
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        text = f"{task.source}: its process {how}, twice; it may need more memory than there is"
        self._listener.finished(number, failed(task, text, time.perf_counter()))


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Have numerical libraries, which look at it when they are loaded, use so many threads."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _unheard() -> Iterator[None]:
    """Have processes that are started here never hear Ctrl-C: the first process decides what becomes of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Any, lifeline: Any, job: Job, threads: int) -> None:
    """Do tasks that come through a pipe until None comes: the life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _do_tasks(pipe, job, threads)
    except (SystemExit, KeyboardInterrupt, EOFError, OSError):
        os._exit(1)


def _do_tasks(pipe: Any, job: Job, threads: int) -> None:
    import torch

    from vocalsep.batch.running import attempt, whole

    torch.set_num_threads(threads)
    while (given := pipe.recv()) is not None:
        told = 0.0

        def tell(share: float) -> None:
            nonlocal told
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                pipe.send(("progress", share))

        try:
            outcome = attempt(given[1], job, whole(job, tell))
        except VocalsepError as error:
            pipe.send(("error", error))
            return
        pipe.send(("outcome", outcome))


def _terminate(*_: object) -> None:
    raise SystemExit(1)


def _die_with(lifeline: Any) -> None:
    """End this process as soon as nobody holds the other end of a pipe."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
