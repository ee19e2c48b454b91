"""Threads: the cores that a process may use, and the environment that OpenMP reads when PyTorch is imported."""

import os
import subprocess
import sys

import pytest

from vocalsep.threads import available_cores, limit_threads, threads_per_job

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    for name in (*WAITING, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_limit_threads():
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == str(available_cores())
    assert 0 < int(os.environ["GOMP_SPINCOUNT"]) < 100_000


@pytest.mark.parametrize("name", WAITING)
def test_variables_of_the_user_stay(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert {other: os.environ[other] for other in WAITING if other in os.environ} == {name: "7"}


def test_cores_are_shared(monkeypatch):
    cores = available_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert [threads_per_job(jobs) for jobs in (1, cores, 100 * cores)] == [cores, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_per_job(1) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import vocalsep.threads as t"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(t.available_cores())"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_the_command_line_limits_threads_before_torch():
    code = (
        "import sys, os; from vocalsep.cli import main\n"
        "try: main(['completion', 'bash'])\n"
        "except SystemExit: print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 1000"
