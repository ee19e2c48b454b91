"""Folders on a Ray cluster: each recording is a task of its own, which Ray starts again where its worker dies.

All machines need the same vocalsep, and see inputs, weights and the output folder under the same paths: a shared file
system, on which the records and locks of `batch.records` work as they do on one machine. A task takes one CPU and
computes with one thread, which is what brings most recordings done in an hour; with a GPU in the cluster (and device
"auto" or "cuda") it takes a share of one.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalsep import __version__
from vocalsep.errors import MissingExtraError, OptionError, WeightsError
from vocalsep.weights.names import parse_model

if TYPE_CHECKING:
    from vocalsep.batch.planning import Task
    from vocalsep.batch.running import Job, Listener, Outcome

_RETRIES = 3  # times that a recording is begun again after its worker or its machine has died
_PATIENCE = 60.0  # seconds: a worker whose machine has lost the cluster may still be writing what is begun again
_AHEAD = 2  # tasks handed in for each that can run: nobody waits, and thousands do not fill the queue


def run_ray(tasks: Sequence[tuple[int, Task]], job: Job, listener: Listener, address: str, jobs: int) -> None:
    """Separate recordings on a Ray cluster.

    Parameters
    ----------
    tasks
        Recordings with their numbers in the plan.
    address
        Of the cluster ("auto", "host:port", "ray://host:port"), or "local" for one on this machine that ends with
        the run.
    jobs
        How many recordings at most are worked on at a time on one GPU; CPUs take one each.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    OptionError
        If there is no cluster, or it has no GPU and one is asked for.
    WeightsError
        If a worker cannot load the networks.
    """
    ray, ours = _connect(address)
    try:
        cluster = ray.cluster_resources()
        has_gpu = cluster.get("GPU", 0) > 0
        if job.device == "cuda" and not has_gpu:
            raise OptionError(f"device is 'cuda', but the Ray cluster at {address} has no GPU; use -d cpu")
        gpu = job.device == "cuda" or (job.device == "auto" and has_gpu)
        remote = ray.remote(_work).options(
            num_cpus=1, num_gpus=1 / jobs if gpu else 0, max_retries=_RETRIES, runtime_env=None
        )
        slots = int(cluster["GPU"] * jobs if gpu else cluster.get("CPU", 1))
        _drive(ray, remote, tasks, _absolute(job), listener, _AHEAD * max(1, slots))
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str) -> tuple[Any, bool]:
    """Return Ray, and whether it was connected here and not by the program before."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed; expected vocalsep[ray]: pip install 'vocalsep[ray]'") from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise OptionError(f"no Ray cluster at {address!r} ({words}); expected auto, local, or host:port") from error
    return ray, True


def _absolute(job: Job) -> Job:
    """Return a job for processes that work in other folders."""
    return replace(
        job,
        out=Path(os.path.abspath(job.out)),  # noqa: PTH100 (links stay)
        model=_absolute_model(job.model),
        tracker=_absolute_model(job.tracker),
        patience=_PATIENCE,
    )


def _absolute_model(model: str) -> str:
    path = parse_model(model).path
    return model if path is None else os.path.abspath(path) + model.removeprefix(str(path))  # noqa: PTH100


def _drive(
    ray: Any, remote: Any, tasks: Sequence[tuple[int, Task]], job: Job, listener: Listener, at_a_time: int
) -> None:
    """Hand in tasks and collect outcomes until all are there."""
    from vocalsep.batch.running import failed, remove_leftovers

    shared = ray.put(job)
    waiting = deque(tasks)
    running: dict[Any, tuple[int, Task]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                number, task = waiting.popleft()
                running[remote.remote(task.absolute(), shared, __version__)] = (number, task)
            done, _ = ray.wait(list(running), timeout=1)
            for reference in done:
                number, task = running[reference]
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, WeightsError | OptionError):
                        raise error.cause from error
                    outcome = failed(task, f"{task.source}: {_words(error)}", time.perf_counter())
                except ray.exceptions.RayError as error:
                    text = f"its worker died {1 + _RETRIES} times ({_words(error)})"
                    outcome = failed(task, f"{task.source}: {text}; it may need more memory", time.perf_counter())
                del running[reference]
                outcome = _seen(outcome, task)
                listener.finished(number, outcome)
                if outcome.hopeless:
                    waiting.clear()
    finally:
        for reference, (_, task) in running.items():
            with suppress(Exception):
                ray.cancel(reference, force=True)
            remove_leftovers(task)


def _seen(outcome: Outcome, task: Task) -> Outcome:
    """Return an outcome with the paths of this process, failed if its stems cannot be seen from here."""
    from vocalsep.batch.running import failed

    outcome = replace(outcome, error=outcome.error.replace(str(task.absolute().source), str(task.source)))
    missing = [path for path in task.targets.values() if not path.is_file()]
    if outcome.status == "done" and missing:
        text = f"{task.source}: the worker wrote {missing[0]}, which is not here; expected a file system that is shared"
        return failed(task, text, time.perf_counter() - outcome.elapsed)
    return outcome


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _work(task: Task, job: Job, version: str) -> Outcome:
    """Separate a recording, on a worker, which keeps its networks for the next one."""
    import torch

    from vocalsep.batch.running import attempt, whole

    if version != __version__:
        raise OptionError(f"a worker of the cluster has vocalsep {__version__}; expected {version} everywhere")
    torch.set_num_threads(1)
    return attempt(task, job, whole(job, lambda _: None))
