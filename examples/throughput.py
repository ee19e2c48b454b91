"""Measure how many seconds of audio are separated in a second, by one worker and by several.

python examples/throughput.py                          # copies of the chorale beside this script, 1 and 2 processes
python examples/throughput.py --recordings concert/ --workers 1 2 4
python examples/throughput.py --ray                    # Ray clusters of 1 and 2 machines, all on this one

Every row is a run of `vocalsep separate` from its start, with the time in which Python and the networks load: short
recordings make it look worse than it is. Each worker computes with one thread, so that rows differ in nothing else; the
last row of processes is one with all cores as threads, which is what `vocalsep separate` does without -j.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vocalsep.batch.workers import available_cores

CHORALE = Path(__file__).with_name("chorale.flac")
COMMAND = [sys.executable, "-c", "from vocalsep.cli import main; main(prog_name='vocalsep')", "separate"]


def main() -> None:
    """Run each number of workers once, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, help="folder of recordings (default: copies of the chorale)")
    parser.add_argument("--copies", type=int, default=4, help="of the chorale (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (default: 1 2)")
    parser.add_argument("--ray", action="store_true", help="workers of Ray clusters instead of processes")
    parser.add_argument("--options", default="", help="of vocalsep separate: '--refine 0', say")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.recordings or copies(Path(scratch) / "in", arguments.copies)
        options = ["-r", *arguments.options.split()]
        print(f"{available_cores()} cores\n{'workers':>16} {'wall s':>8} {'audio s / s':>12} {'ratio':>6}")
        first = 0.0
        for workers in arguments.workers:
            if arguments.ray:
                with ray_cluster(workers) as address:
                    rate = measured(folder, scratch, f"{workers} of Ray", [*options, "--ray", address], 1, first)
            else:
                rate = measured(folder, scratch, str(workers), [*options, "-j", str(workers)], 1, first)
            first = first or rate
        if not arguments.ray:
            cores = available_cores()
            measured(folder, scratch, f"1, {cores} threads", options, cores, first)


def copies(folder: Path, number: int) -> Path:
    """Return a folder of copies of the chorale."""
    folder.mkdir()
    for copy in range(number):
        shutil.copy(CHORALE, folder / f"chorale {copy}.flac")
    return folder


def measured(folder: Path, scratch: str, label: str, options: list[str], threads: int, first: float) -> float:
    """Separate a folder, print how fast that was, and return it in seconds of audio a second."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    command = [*COMMAND, str(folder), "-o", str(out), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    elapsed = time.perf_counter() - started
    rows = json.loads((out / "report.json").read_text())["recordings"]
    rate = sum(row["seconds"] for row in rows) / elapsed
    print(f"{label:>16} {elapsed:8.1f} {rate:12.2f} {rate / (first or rate):6.2f}", flush=True)
    return rate


@contextmanager
def ray_cluster(workers: int) -> Iterator[str]:
    """Give the address of a cluster of so many machines of one CPU each, all of them processes here."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(workers):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
