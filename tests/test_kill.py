"""Runs that are killed or interrupted at any moment leave no half a file, and the next run completes what they began.

A process that has everything loaded forks one for each run, so that a kill costs a tenth of a second. Set
VOCALSEP_KILLS to kill more often.
"""

import hashlib
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

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")

KILLS = int(os.environ.get("VOCALSEP_KILLS", "20"))
RECORDINGS = 8
SECONDS = 7  # that the kills of a test may take

_KENNEL = """
import json, os, signal, sys
import torch
from vocalsep.cli import main

torch.set_num_threads(1)
def begin(arguments, log):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(log, "wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        code = 0
        try:
            main(arguments, prog_name="vocalsep")
        except SystemExit as error:
            code = error.code
        except KeyboardInterrupt:
            code = 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        # Not the usual end: libraries wait for threads that did not come along.
        os._exit(code)
    return pid

# What is loaded here need not be loaded in the runs.
try:
    main(json.loads(sys.argv[1]), prog_name="vocalsep")
except SystemExit:
    pass
print("ready", flush=True)
for line in sys.stdin:
    print(begin(*json.loads(line)), flush=True)
    print(os.wait()[1], flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model) -> Path:
    """Recordings in `in`, and the stems of a run that nobody disturbed in `reference`."""
    path = tmp_path_factory.mktemp("kill")
    time_axis = np.arange(6000) / 16000
    for number in range(RECORDINGS):
        tones = [0.2 * np.sin(2 * np.pi * f * (1 + number / 20) * time_axis) for f in (440, 220)]
        audio.write(path / f"in/sub{number % 2}/take {number}.wav", sum(tones), 16000)
    return path


@pytest.fixture(scope="module")
def options(tiny_model) -> list[str]:
    return ["--voices", "2", "--refine", "0", "-n", str(tiny_model), "-d", "cpu", "-r"]


class Kennel:
    """Runs of the command line that can be killed."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder, self.options = folder, options
        first = ["separate", str(folder / "in"), "-o", str(folder / "reference"), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _KENNEL, json.dumps(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while self._line() != "ready":
            pass
        self.reference = sums(folder / "reference")

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the kennel is closed"
        return line.strip()

    def run(self, out: Path, disturb: Callable[[int], None] = lambda pid: None, *more: str) -> tuple[int, str]:
        """Begin a run, disturb it, and return its status and all that it printed."""
        log = self.folder / "log"
        assert self.process.stdin is not None
        arguments = ["separate", str(self.folder / "in"), "-o", str(out), *self.options, *more]
        print(json.dumps([arguments, str(log)]), file=self.process.stdin, flush=True)
        disturb(int(self._line()))
        status = os.waitstatus_to_exitcode(int(self._line()))
        return status, log.read_text()


@pytest.fixture(scope="module")
def kennel(folder, options):
    found = Kennel(folder, options)
    yield found
    found.process.kill()
    found.process.communicate()


def sums(out: Path) -> dict[str, str]:
    """Return the sum of every file under its final name."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*.wav")
        if not path.name.startswith(".")
    }


def hidden(out: Path) -> list[str]:
    """Return what is there under temporary names."""
    return [path.name for path in out.rglob(".*") if path.name != ".vocalsep"]


def complete(out: Path) -> dict[str, int]:
    """Return the inodes of stems whose records say that they are complete."""
    records = [json.loads(path.read_text()) for path in (out / ".vocalsep").glob("*.json")]
    marks = [mark for record in records if record["state"] == "complete" for mark in record["files"].values()]
    return {mark["path"]: (out / mark["path"]).stat().st_ino for mark in marks}


def opened(out: Path) -> int:
    """Return the time at which a run has last opened an output folder."""
    folder = out / ".vocalsep"
    return folder.stat().st_mtime_ns if folder.exists() else 0


def sleep_in_run(out: Path, before: int, seconds: float) -> None:
    """Wait for some time after a run has opened its output folder."""
    limit = time.monotonic() + 20
    while opened(out) == before and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(seconds)


def finish(kennel: Kennel, out: Path) -> None:
    """Complete what was disturbed, and check that nothing of it is done twice or left."""
    before = complete(out)
    status, printed = kennel.run(out)
    assert status == 0, printed
    assert sums(out) == kennel.reference
    assert hidden(out) == []
    after = complete(out)
    assert {path: after[path] for path in before} == before
    assert printed.count("is complete, skipped") == len(before) // 2
    assert len(after) == 2 * RECORDINGS


def test_kills_at_random_moments(kennel, tmp_path):
    rng = random.Random(0)
    limit, kills, states = time.monotonic() + SECONDS * max(1, KILLS // 20), 0, set()
    out = tmp_path / "0"
    while kills < KILLS and time.monotonic() < limit:

        def kill(pid: int, out: Path = out, before: int = opened(out)) -> None:
            sleep_in_run(out, before, rng.uniform(0, 0.4))
            with suppress(ProcessLookupError):  # it was quicker
                os.kill(pid, signal.SIGKILL)

        status, _ = kennel.run(out, kill)
        kills += 1
        found = sums(out)
        assert all(kennel.reference[path] == digest for path, digest in found.items())
        states.add((len(found), len(hidden(out)), len(complete(out))))
        if status == 0 or len(complete(out)) == 2 * RECORDINGS:
            finish(kennel, out)
            out = tmp_path / str(kills)
    finish(kennel, out)
    print(f"{kills} kills, {len(states)} states")
    assert len(states) > 2


def test_interruptions_at_random_moments(kennel, tmp_path):
    rng = random.Random(1)
    limit, codes, number = time.monotonic() + SECONDS * max(1, KILLS // 20), [], 0
    out = tmp_path / "0"
    while len(codes) < KILLS and time.monotonic() < limit:

        def interrupt(pid: int, out: Path = out, before: int = opened(out)) -> None:
            sleep_in_run(out, before, rng.uniform(0, 0.4))
            with suppress(ProcessLookupError):  # it was quicker
                os.killpg(pid, signal.SIGINT)

        status, printed = kennel.run(out, interrupt)
        # Too late for the run, but before the process was gone.
        status = 0 if status == 1 and "\nreport " in printed else status
        codes.append(status)
        assert status in (0, 130), printed
        assert "Traceback" not in printed and "Exception ignored" not in printed
        assert hidden(out) == []
        found = sums(out)
        assert all(kennel.reference[path] == digest for path, digest in found.items())
        assert set(found) == set(complete(out))  # all stems of a recording, or none
        report = json.loads((out / "report.json").read_text())
        assert report["interrupted"] >= (report["summary"]["unfinished"] > 0)
        assert report["interrupted"] <= (status == 130)
        assert len(report["recordings"]) == RECORDINGS
        if status == 0:
            number += 1
            out = tmp_path / str(number)
    print(f"{len(codes)} interruptions, {codes.count(130)} in time")
    assert 130 in codes
    finish(kennel, out)


def alive(mark: str) -> list[int]:
    """Return the processes that were started with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if (
                mark.encode() in path.read_bytes()
                and (path.parent / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            ):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_processes(kennel, folder, options, tmp_path, number):
    """With -j 2 the workers end with the run, however it ends, and write nothing after."""
    rng = random.Random(int(number))
    out, mark = tmp_path / "out", f"VOCALSEP_MARK={tmp_path}"
    code = "import sys; from vocalsep.cli import main; main(sys.argv[1:], prog_name='vocalsep')"
    command = [sys.executable, "-c", code, "separate", str(folder / "in"), "-o", str(out), *options, "-j", "2"]
    for _ in range(max(1, KILLS // 20)):
        environment = {**os.environ, "VOCALSEP_MARK": str(tmp_path)}
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process:
            limit = time.monotonic() + 60
            while not list(out.rglob(".*.part")) and time.monotonic() < limit and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.3))
            if number == signal.SIGKILL:
                process.kill()
            else:
                os.killpg(process.pid, number)
            printed = process.communicate()[0]
        limit = time.monotonic() + 5
        while alive(mark) and time.monotonic() < limit:
            time.sleep(0.01)
        assert alive(mark) == []
        found = sums(out)
        assert all(kennel.reference[path] == digest for path, digest in found.items())
        if number == signal.SIGINT:
            assert process.returncode in (0, 130), printed
            assert "Traceback" not in printed
            assert hidden(out) == []
            assert json.loads((out / "report.json").read_text())["interrupted"] <= (process.returncode == 130)
    finish(kennel, out)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_is_killed(kennel, folder, options, tmp_path):
    """Its recording is tried once more, and nobody else is disturbed."""
    out, mark = tmp_path / "out", f"VOCALSEP_MARK={tmp_path}"
    code = "import sys; from vocalsep.cli import main; main(sys.argv[1:], prog_name='vocalsep')"
    command = [sys.executable, "-c", code, "separate", str(folder / "in"), "-o", str(out), *options, "-j", "2"]
    environment = {**os.environ, "VOCALSEP_MARK": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        limit = time.monotonic() + 60
        while not list(out.rglob(".*.part")) and time.monotonic() < limit:
            time.sleep(0.001)
        # The one that writes: not the run itself, nor what counts its resources.
        workers = [pid for pid in alive(mark) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert sums(out) == kennel.reference
    assert hidden(out) == []
