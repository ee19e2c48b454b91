"""Runs that are killed or interrupted leave no half-written file, and the next run finishes the rest.

A process that has everything loaded forks one for each run, so a kill costs a tenth of a second. Set VOCALSEP_KILLS
to kill more often.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from vocalsep import audio
from vocalsep.batch.record import read_record

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

KILLS = int(os.environ.get("VOCALSEP_KILLS", "50"))
RECORDINGS = 8

_SERVER = """
import json, os, signal, sys
import torch
from vocalsep.cli import main

torch.set_num_threads(1)

def run(arguments):
    try:
        main(arguments, prog_name="vocalsep")
    except SystemExit as error:
        return error.code or 0

def start(arguments, log):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(log, "wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        try:
            code = run(arguments)
        except KeyboardInterrupt:
            code = 130  # before or after the command
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        os._exit(code)  # libraries would wait for threads that were not forked
    return pid

run(json.loads(sys.argv[1]))  # loads everything
print("ready", flush=True)
for line in sys.stdin:
    print(start(*json.loads(line)), flush=True)
    print(os.wait()[1], flush=True)
"""


class Server:
    """Runs of the command line that can be killed, and the stems of a run that was not."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder, self.options = folder, options
        first = ["separate", str(folder / "in"), "-o", str(folder / "reference"), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, json.dumps(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while self._line() != "ready":
            pass
        self.reference = stems(folder / "reference")
        assert len(self.reference) == 2 * RECORDINGS

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server has ended"
        return line.strip()

    def run(self, out: Path, disturb: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
        """Start a run, disturb it, and return its status and its output."""
        log = self.folder / "log"
        assert self.process.stdin is not None
        arguments = ["separate", str(self.folder / "in"), "-o", str(out), *self.options]
        print(json.dumps([arguments, str(log)]), file=self.process.stdin, flush=True)
        disturb(int(self._line()))
        status = os.waitstatus_to_exitcode(int(self._line()))
        return status, log.read_text()

    def check(self, out: Path) -> set[str]:
        """Check that all files are complete, and that records list stems that are there; return these."""
        found = stems(out)
        for path, samples in found.items():
            np.testing.assert_array_equal(samples, self.reference[path])
        listed = {
            (path.parent / stem["file"]).relative_to(out).as_posix()
            for path in out.rglob("separation.json")
            for stem in (read_record(path) or {"stems": {}})["stems"].values()
        }
        assert listed <= set(found)
        return listed

    def finish(self, out: Path) -> None:
        """Finish what was disturbed; check that nothing is separated twice and nothing is left behind."""
        before = {path: (out / path).stat().st_ino for path in self.check(out)}
        status, output = self.run(out)
        assert status == 0, output
        assert len(self.check(out)) == 2 * RECORDINGS
        assert temporary_files(out) == []
        assert {path: (out / path).stat().st_ino for path in before} == before
        assert output.count("skipped") - 1 == len(before) // 2  # one line is that of the table


@pytest.fixture(scope="module")
def options(tiny_model, tiny_tracker) -> list[str]:
    return ["--voices", "2", "-n", str(tiny_model), "--tracker", str(tiny_tracker), "-d", "cpu", "-r"]


@pytest.fixture(scope="module")
def server(tmp_path_factory, options):
    folder = tmp_path_factory.mktemp("kill")
    time_axis = np.arange(6000) / 16000
    for number in range(RECORDINGS):
        tones = [0.2 * np.sin(2 * np.pi * f * (1 + number / 20) * time_axis) for f in (440, 220)]
        audio.write(folder / f"in/sub{number % 2}/take {number}.wav", sum(tones), 16000)
    found = Server(folder, options)
    yield found
    found.process.kill()
    found.process.communicate()


def stems(out: Path) -> dict[str, np.ndarray]:
    """Return the samples of every file under its final name."""
    return {
        path.relative_to(out).as_posix(): audio.read(path).waveform
        for path in out.rglob("*.wav")
        if not path.name.startswith(".")
    }


def temporary_files(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]


def after_start(out: Path, rng: random.Random) -> None:
    """Wait until a run has written its first report, and then for a random time."""
    report = out / "report.json"
    before = report.stat().st_mtime_ns if report.exists() else 0
    limit = time.monotonic() + 20
    while (report.stat().st_mtime_ns if report.exists() else 0) == before and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.5))


def test_kills_at_random_moments(server, tmp_path):
    rng, states, out = random.Random(0), set(), tmp_path / "0"
    for number in range(KILLS):

        def kill(pid: int, out: Path = out) -> None:
            after_start(out, rng)
            with suppress(ProcessLookupError):  # it was quicker
                os.kill(pid, signal.SIGKILL)

        server.run(out, kill)
        listed = server.check(out)
        states.add((len(listed), len(temporary_files(out))))
        if len(listed) == 2 * RECORDINGS:
            server.finish(out)
            out = tmp_path / str(number + 1)
    server.finish(out)
    print(f"{KILLS} kills, {len(states)} different states")
    assert len(states) > 2


def test_interrupts_at_random_moments(server, tmp_path):
    rng, codes, out = random.Random(1), [], tmp_path / "0"
    for number in range(KILLS // 2):

        def interrupt(pid: int, out: Path = out) -> None:
            after_start(out, rng)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGINT)

        status, output = server.run(out, interrupt)
        codes.append(status)
        assert status in (0, 130), output
        assert "Traceback" not in output and "Exception ignored" not in output
        server.check(out)
        assert [name for name in temporary_files(out) if name != ".separation.json.part"] == []
        if status == 0:
            out = tmp_path / str(number + 1)
    assert 130 in codes
    server.finish(out)


def start(server: Server, options: list[str], out: Path) -> subprocess.Popen:
    """Start a run with two processes, and wait until one writes."""
    arguments = ["separate", str(server.folder / "in"), "-o", str(out), *options, "-j", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vocalsep", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "VOCALSEP_MARK": str(out)},
        start_new_session=True,
    )
    limit = time.monotonic() + 60
    while not list(out.rglob(".*.wav.part")) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.002)
    return process


def alive(out: Path) -> list[int]:
    """Return the processes of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if f"VOCALSEP_MARK={out}\0".encode() in path.read_bytes() and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_run(server, options, tmp_path, number):
    process = start(server, options, tmp_path)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    output = process.communicate()[0]
    limit = time.monotonic() + 10
    while alive(tmp_path) and time.monotonic() < limit:
        time.sleep(0.01)
    assert alive(tmp_path) == []
    server.check(tmp_path)
    if number != signal.SIGKILL:
        assert process.returncode == 130, output
        assert "Traceback" not in output
        assert [name for name in temporary_files(tmp_path) if name != ".separation.json.part"] == []
    server.finish(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_worker_that_is_killed_once(server, options, tmp_path):
    """Its recording is tried again, and the others go on."""
    process = start(server, options, tmp_path)
    workers = [pid for pid in alive(tmp_path) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert len(server.check(tmp_path)) == 2 * RECORDINGS
    assert temporary_files(tmp_path) == []
