"""Recordings on a Ray cluster: each is a task, which Ray starts again on another worker if its worker dies.

All machines need the same version of vocalsep, and see recordings, weights and the output folder under the same paths.
A task takes one CPU and computes with one thread, which separates most recordings in an hour; with a GPU in the cluster
(and device "auto" or "cuda") it takes a share of a GPU.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vocalsep import __version__
from vocalsep.batch.job import JobOptions, Result, failure, remove_temporary, run_job
from vocalsep.batch.plan import Job
from vocalsep.errors import MissingExtraError, OptionError, OutputError, VocalsepError, one_line, printable

_RETRIES = 3  # times that a recording is started again after its worker has died
_QUEUED = 2  # tasks in flight for each that can run, so that no worker waits and the queue stays short


def run_on_ray(
    jobs: Sequence[Job], options: JobOptions, address: str, per_gpu: int, finish: Callable[[Job, Result], None]
) -> None:
    """Separate recordings on a Ray cluster; `per_gpu` of them share a GPU.

    The address is "auto", "host:port" or "ray://host:port", or "local" for a cluster on this machine that ends with the
    run. Raises MissingExtraError without Ray, and OptionError if there is no cluster or no GPU for device "cuda".
    """
    ray, started = _connect(address)
    try:
        resources = ray.cluster_resources()
        device = options.networks.device
        if device == "cuda" and not resources.get("GPU"):
            raise OptionError(f"device is 'cuda', but the Ray cluster at {address} has no GPU", parameter="device")
        use_gpu = bool(resources.get("GPU")) and device in ("auto", "cuda")
        task = ray.remote(_work).options(num_cpus=1, num_gpus=1 / per_gpu if use_gpu else 0, max_retries=_RETRIES)
        slots = resources["GPU"] * per_gpu if use_gpu else resources.get("CPU", 1)
        _drive(ray, task, jobs, _absolute_options(options), max(1, int(slots)) * _QUEUED, finish)
    finally:
        if started:
            ray.shutdown()


def _connect(address: str) -> tuple[Any, bool]:
    """Return the ray module, and whether the connection was made here."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed: pip install 'vocalsep[ray]'") from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        text = one_line(str(error), 200)
        raise OptionError(
            f"no Ray cluster at {address} ({text}); expected auto, local or host:port", parameter="ray"
        ) from error
    return ray, True


def _drive(
    ray: Any, task: Any, jobs: Sequence[Job], options: JobOptions, in_flight: int, finish: Callable[[Job, Result], None]
) -> None:
    """Submit tasks, a few at a time, and collect their results."""
    shared = ray.put(options)
    waiting, running = deque(jobs), dict[Any, Job]()
    try:
        while waiting or running:
            while waiting and len(running) < in_flight:
                job = waiting.popleft()
                running[task.remote(_absolute_job(job), shared, __version__)] = job
            done, _ = ray.wait(list(running), timeout=1)
            for reference in done:
                job = running[reference]
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, VocalsepError):
                        raise error.cause from error
                    result = failure(job.source, error)
                except ray.exceptions.RayError as error:
                    text = f"its worker died {1 + _RETRIES} times; it may need more memory"
                    result = failure(job.source, VocalsepError(f"{text} ({one_line(str(error), 200)})"))
                del running[reference]
                finish(job, _seen_from_here(job, result))
    finally:
        for reference, job in running.items():
            with suppress(Exception):
                ray.cancel(reference, force=True)
            remove_temporary(job)


def _work(job: Job, options: JobOptions, version: str) -> Result:
    """Separate a recording on a worker, which keeps its networks for the next one."""
    import torch

    from vocalsep.batch.processes import worker_separator

    if version != __version__:
        raise OptionError(f"a worker of the cluster has vocalsep {__version__}; expected {version} on all machines")
    torch.set_num_threads(1)
    return run_job(job, options, lambda: worker_separator(options))


def _seen_from_here(job: Job, result: Result) -> Result:
    """Return a result with the paths of this process; it failed if its stems cannot be seen from here."""
    if result.error is not None:
        return replace(result, source=job.source)
    for path in job.targets.values():
        if not path.is_file():
            error = OutputError(f"{printable(path)}: a worker wrote this file, but this machine does not see it")
            return failure(job.source, error)
    return replace(result, source=job.source, files=job.targets)


def _absolute_job(job: Job) -> Job:
    return Job(
        job.source.absolute(), {name: path.absolute() for name, path in job.targets.items()}, job.record.absolute()
    )


def _absolute_options(options: JobOptions) -> JobOptions:
    """Return options that hold on workers, whose current folder is another one."""
    networks = options.networks
    model, tracker, masks = (
        str(Path(name).absolute()) if Path(name).is_dir() else name
        for name in (networks.model, networks.tracker, networks.masks)
    )
    return replace(options, networks=replace(networks, model=model, tracker=tracker, masks=masks))
