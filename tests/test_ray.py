"""Folders on a Ray cluster of two workers of this machine, one of which dies while it works."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from vocalsep import audio, separate_files
from vocalsep.batch import ray_cluster
from vocalsep.batch.running import Outcome
from vocalsep.errors import MissingExtraError, OptionError

RECORDINGS = 6


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "in"
    time = np.arange(24000) / 16000
    for number in range(RECORDINGS):
        tones = [0.2 * np.sin(2 * np.pi * f * (1 + number / 20) * time) for f in (440, 220)]
        audio.write(folder / f"sub{number % 2}/take {number}.wav", sum(tones), 16000)
    (folder / "bad.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vocalsep[ray]'")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.mark.usefixtures("one_thread")
def test_a_worker_is_killed_midway(cluster, recordings, tiny_model, tmp_path):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    options = {"voices": 2, "refine": 0, "model": tiny_model, "device": "cpu", "recursive": True, "check": False}
    reference = separate_files([recordings], tmp_path / "reference", **options)
    killed = threading.Event()

    def kill(outcome: Outcome) -> None:
        if outcome.status == "done" and not killed.is_set():
            killed.set()
            cluster.remove_node(nodes[0], allow_graceful=False)

    out = tmp_path / "out"
    outcomes = separate_files([recordings], out, ray=cluster.address, finished=kill, **options)
    assert killed.is_set()
    assert [outcome.status for outcome in outcomes] == ["failed"] + ["done"] * RECORDINGS
    for one, other in zip(reference, outcomes, strict=True):
        assert one.files == other.files
        for file in one.files:
            assert (out / file).read_bytes() == (tmp_path / "reference" / file).read_bytes()
    told = json.loads((out / "report.json").read_text())
    assert told["summary"] == {"done": RECORDINGS, "skipped": 0, "failed": 1, "unfinished": 0}
    assert told["machine"]["ray"] == cluster.address
    assert told["recordings"][0]["error"].startswith(f"{recordings / 'bad.wav'}: cannot be read as audio")
    again = separate_files([recordings], out, ray=cluster.address, **options)
    assert [outcome.status for outcome in again] == ["failed"] + ["skipped"] * RECORDINGS


def test_a_gpu_that_is_not_there(cluster, recordings, tmp_path):
    with pytest.raises(OptionError, match="has no GPU"):
        separate_files([recordings], tmp_path / "out", recursive=True, ray=cluster.address, device="cuda")


def test_without_ray(recordings, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[ray\]"):
        separate_files([recordings], tmp_path / "out", recursive=True, ray="auto")


def test_no_cluster(recordings, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(OptionError, match="no Ray cluster at 'nowhere'"):
        separate_files([recordings], tmp_path / "out", recursive=True, ray="nowhere")


def test_models_by_path_and_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ray_cluster._absolute_model("default") == "default"
    assert ray_cluster._absolute_model("x.safetensors") == str(tmp_path / "x.safetensors")
    pinned = f"x.safetensors#sha256={'a' * 64}"
    assert ray_cluster._absolute_model(pinned) == f"{tmp_path / 'x.safetensors'}#sha256={'a' * 64}"
    assert ray_cluster._absolute_model("owner/repo@main:x.safetensors") == "owner/repo@main:x.safetensors"
