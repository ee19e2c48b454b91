"""Recordings in several processes, each with networks of its own and its share of the cores or of the GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import connection
from typing import TYPE_CHECKING

from vocalsep.batch.job import JobOptions, Result, failure, load_separator, remove_temporary, run_job
from vocalsep.batch.plan import Job
from vocalsep.errors import VocalsepError
from vocalsep.options import NetworkOptions
from vocalsep.threads import limit_threads, threads_per_job

if TYPE_CHECKING:
    from vocalsep.separation.separator import Separator


def run_in_processes(
    jobs: Iterable[Job], options: JobOptions, processes: int, finish: Callable[[Job, Result], None]
) -> None:
    """Separate recordings in several processes, each with its share of the cores.

    If a worker dies, the recordings in progress are tried again one at a time; one whose worker dies again fails.
    """
    threads = threads_per_job(processes)
    waiting = deque(jobs)
    while waiting:
        suspects = deque(_work_until_broken(waiting, options, processes, threads, finish))
        while suspects:
            for job in _work_until_broken(suspects, options, 1, threads, finish):
                died = VocalsepError("its process died twice; it may need more memory than there is")
                finish(job, failure(job.source, died))


def _work_until_broken(
    waiting: deque[Job], options: JobOptions, processes: int, threads: int, finish: Callable[[Job, Result], None]
) -> list[Job]:
    """Separate recordings until all are done or a worker dies; return those that were in progress then."""
    running: dict[Future[Result], Job] = {}
    with _workers(processes, threads, running) as submit:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    running[submit(waiting[0], options)] = waiting[0]
                    waiting.popleft()
                # With a timeout, since some systems deliver signals only between two waits.
                for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    finish(running.pop(future), result)
        except BrokenProcessPool:
            return list(running.values())
    return []


@contextmanager
def _workers(
    processes: int, threads: int, running: Mapping[Future[Result], Job]
) -> Iterator[Callable[[Job, JobOptions], Future[Result]]]:
    """Start workers; at the end kill those that still work, and remove their temporary files."""
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, _start_worker, (threads,))

    def submit(job: Job, options: JobOptions) -> Future[Result]:
        with _without_interrupts():  # a worker that is started here inherits the mask
            return pool.submit(_work, job, options)

    try:
        yield submit
    finally:
        if running:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        pool.shutdown(cancel_futures=True)
        for job in running.values():
            remove_temporary(job)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C, which reaches all processes of a terminal; the first process alone decides what to do."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int) -> None:
    """Prepare a worker: its threads, and its end when the first process ends, however it ends."""
    limit_threads()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(job: Job, options: JobOptions) -> Result:
    return run_job(job, options, lambda: worker_separator(options))


def worker_separator(options: JobOptions) -> Separator:
    """Return the separator of a worker, which loads its networks once."""
    sums = tuple(network and network["sha256"] for network in options.setup["networks"].values())
    return _load_once(options.networks, sums)


@lru_cache(maxsize=1)
def _load_once(networks: NetworkOptions, sums: tuple[str | None, ...]) -> Separator:
    return load_separator(networks)
