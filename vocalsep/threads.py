"""How many threads PyTorch uses, and how long they spin while they wait.

OpenMP threads spin while they wait for each other, so a separation crawls as soon as another process wants the cores.
Seconds for 20 s of 44.1 kHz stereo on two cores, idle / beside one busy process / beside two:

==========================  ====  ====  ====
as OpenMP does it            4.3   9.8  55.0
``GOMP_SPINCOUNT=1000``      4.8   6.3   8.9
``OMP_WAIT_POLICY=PASSIVE``  5.2   6.1   9.2
one thread                   5.7   5.7   8.4
==========================  ====  ====  ====

In a container whose quota is one CPU of many, PyTorch starts a thread for each core it sees: 37 s instead of 3 s.

The command line calls `limit_threads` before it imports PyTorch. The Python API leaves the process alone: set
`GOMP_SPINCOUNT=1000` and `OMP_NUM_THREADS` in the environment of a program that shares its cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SPIN_COUNT = "1000"  # turns of the loop in which a waiting thread of GNU OpenMP spins before it sleeps: microseconds
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_threads() -> None:
    """Set the environment that OpenMP reads when PyTorch is imported; variables that the user has set stay."""
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


def threads_per_job(jobs: int) -> int:
    """Return the number of threads for each of several processes that share the cores, at most OMP_NUM_THREADS."""
    share = max(1, available_cores() // jobs)
    with suppress(KeyError, ValueError):
        share = max(1, min(share, int(os.environ["OMP_NUM_THREADS"])))
    return share


def available_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the quota of its control groups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(Path("/sys/fs/cgroup"))])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups of this process (cgroup v2 with all parents, or v1)."""
    group = Path()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = Path(next(line for line in lines if line.startswith("0::")).removeprefix("0::/"))
    for folder in {root, *(root / parent for parent in (group, *group.parents))}:
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # "max" is no number: no quota
    with suppress(OSError, ValueError):
        quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
        if int(quota) > 0:
            yield int(quota) / int((root / "cpu" / "cpu.cfs_period_us").read_text())
