"""Folders on a Ray cluster of two workers on this machine, one of which dies while it works."""

import sys
import threading

import numpy as np
import pytest

from vocalsep import audio, separate_files
from vocalsep.errors import AudioError, MissingExtraError, OptionError

RECORDINGS = 6


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
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


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_machine_that_is_lost(cluster, recordings, tiny_model, tiny_tracker, tmp_path):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    options = {"voices": 2, "model": tiny_model, "tracker": tiny_tracker, "device": "cpu", "recursive": True}
    reference = separate_files([recordings], tmp_path / "reference", **options)
    lost = threading.Event()

    def lose(result) -> None:
        if result.status == "done" and not lost.is_set():
            lost.set()
            cluster.remove_node(nodes[0], allow_graceful=False)

    results = separate_files([recordings], tmp_path / "out", ray=cluster.address, on_result=lose, **options)
    assert lost.is_set()
    assert isinstance(results[0].error, AudioError)
    for one, other in zip(reference[1:], results[1:], strict=True):
        assert other.status in ("done", "skipped")  # skipped: done by a worker that was lost right after
        for name, path in one.files.items():
            np.testing.assert_array_equal(audio.read(path).waveform, audio.read(other.files[name]).waveform)
    again = separate_files([recordings], tmp_path / "out", ray=cluster.address, **options)
    assert [result.status for result in again] == ["failed"] + ["skipped"] * RECORDINGS


@pytest.mark.slow
def test_a_gpu_that_is_not_there(cluster, recordings, tmp_path):
    with pytest.raises(OptionError) as caught:
        separate_files([recordings], tmp_path, recursive=True, ray=cluster.address, device="cuda")
    assert caught.value.parameter == "device"


def test_without_ray(recordings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[ray\]"):
        separate_files([recordings], tmp_path, recursive=True, ray="auto")


@pytest.mark.slow
def test_no_cluster(recordings, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(OptionError) as caught:
        separate_files([recordings], tmp_path, recursive=True, ray="nowhere")
    assert caught.value.parameter == "ray"
