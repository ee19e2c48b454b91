"""Checkpoints on the Hub, served by a small local server."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import safetensors.torch
import torch
from hub_server import COMMIT, Hub, hub_server
from huggingface_hub import constants, file_download

from vocalsep import weights
from vocalsep.errors import WeightsError

pytestmark = pytest.mark.slow

REPOSITORY = "somebody/choir"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b'{"network": "toy", "size": 3}',
    "model.safetensors": safetensors.torch.save({"a": torch.arange(5e4)}),
}
OTHER_FILES = {**FILES, "config.json": b'{"network": "toy", "size": 4}'}
OTHER_COMMIT = "f" * 40
SHA256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
ENTRY = {
    "name": "choir",
    "network": "toy",
    "bundled": False,
    "repository": REPOSITORY,
    "revision": COMMIT,
    "size": len(FILES["model.safetensors"]),
    "sha256": SHA256,
    "vocalsep": ">=0.1",
    "licence": "MIT",
    "credit": "the test",
    "source": "the test",
}


@pytest.fixture
def environment(tmp_path, monkeypatch) -> None:
    """The checkpoint "choir" in the manifest, and an empty cache."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 3, "checkpoints": [ENTRY]}))
    monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "manifest.json"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def hub(environment, tmp_path, monkeypatch) -> Iterator[Hub]:
    """A Hub that is used in this process; huggingface_hub has read the environment long ago."""
    with hub_server() as server:
        server.add(REPOSITORY, FILES)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        for module in (constants, file_download):  # versions before 1.0 have a copy
            template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the pauses between attempts
        yield server


def assert_loads(model: str = "choir") -> None:
    config, tensors = weights.load_checkpoint(model)
    assert config == {"network": "toy", "size": 3}
    torch.testing.assert_close(tensors["a"], torch.arange(5e4), rtol=0, atol=0)


@pytest.mark.parametrize("model", ["choir", REPOSITORY, f"{REPOSITORY}@main", f"{REPOSITORY}@{COMMIT}"])
def test_download(hub, model):
    with pytest.raises(WeightsError):
        weights.find(model)
    assert_loads(model)
    assert_loads(model)
    assert sorted(hub.downloads()) == sorted(FILES)
    assert {path.name for path in weights.find(model).iterdir()} == set(FILES)
    assert weights.checkpoint_sha256(model) == SHA256


def test_cached_checkpoints_need_no_network(hub, monkeypatch):
    assert_loads("choir")
    assert_loads(REPOSITORY)
    received = len(hub.requests)
    assert_loads("choir")
    assert len(hub.requests) == received
    hub.files.clear()
    assert_loads(REPOSITORY)  # the cached commit, since the Hub does not name the current one


def test_a_branch_can_move(hub):
    assert_loads(REPOSITORY)
    hub.add(REPOSITORY, OTHER_FILES, commit=OTHER_COMMIT)
    assert weights.load_checkpoint(REPOSITORY).config["size"] == 4
    assert_loads("choir")


def test_model_card_is_optional(hub):
    del hub.files[REPOSITORY, COMMIT, "README.md"]
    assert_loads()


@pytest.mark.parametrize(
    ("model", "keyword"),
    [
        ("nobody/choir", "repository"),
        (f"{REPOSITORY}@{OTHER_COMMIT}", "revision"),
        (f"{REPOSITORY}@v1.0", "revision"),
        ("somebody/no--choir", "choir"),
    ],
)
def test_not_on_the_hub(hub, model, keyword):
    with pytest.raises(WeightsError, match=keyword):
        weights.load_checkpoint(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_repositories_of_other_projects(hub, name):
    del hub.files[REPOSITORY, COMMIT, name]
    with pytest.raises(WeightsError, match=name):
        weights.load_checkpoint("choir")


@pytest.mark.parametrize(("fault", "keyword"), [("403", "HF_TOKEN"), ("429", "429"), ("500", "500")])
def test_server_errors(hub, fault, keyword):
    hub.fault = fault
    with pytest.raises(WeightsError, match=keyword):
        weights.load_checkpoint("choir")
    hub.fault = ""
    assert_loads()


def test_no_server(hub, monkeypatch):
    for module in (constants, file_download):  # nobody listens on port 1
        template = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    with pytest.raises(WeightsError, match="network"):
        weights.load_checkpoint("choir")


def test_wrong_bytes(hub):
    hub.add(REPOSITORY, {**FILES, "model.safetensors": safetensors.torch.save({"a": torch.ones(3)})})
    with pytest.raises(WeightsError, match="SHA-256"):
        weights.load_checkpoint("choir")
    weights.load_checkpoint(REPOSITORY)  # no SHA-256 is known for it


@pytest.mark.parametrize("times", [1, 1_000_000])
def test_interrupted(hub, times):
    hub.fault, hub.faults_left = "truncate", times
    try:
        assert_loads()
        assert times == 1  # versions from 1.0 resume the transfer
    except WeightsError:
        with pytest.raises(WeightsError):
            weights.find("choir")
    hub.fault = ""
    assert_loads()


def test_private_repositories(hub, monkeypatch):
    hub.token = "hf_secret"
    with pytest.raises(WeightsError, match="HF_TOKEN"):
        weights.load_checkpoint("choir")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert_loads()


def python(**variables: str) -> subprocess.Popen[str]:
    """Start a process that loads the checkpoint and prints its size."""
    code = "from vocalsep import weights; print(weights.load_checkpoint('choir').config['size'])"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **variables}, text=True, **pipes)


@pytest.mark.slow
def test_environment_variables(environment):
    with hub_server() as hub:
        hub.add(REPOSITORY, FILES)
        hub.token = "hf_secret"
        assert "HF_HUB_OFFLINE is set" in python(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1").communicate()[1]
        assert hub.requests == []
        assert "HF_TOKEN" in python(HF_ENDPOINT=hub.url).communicate()[1]
        assert python(HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret").communicate()[0] == "3\n"
    assert python(HF_HUB_OFFLINE="1").communicate()[0] == "3\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="processes cannot be killed by a signal there")
def test_killed(environment):
    with hub_server() as hub:
        hub.add(REPOSITORY, FILES)
        hub.fault = "hang"
        with python(HF_ENDPOINT=hub.url) as process:
            while not hub.downloads() and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        hub.fault = ""
        assert python(HF_ENDPOINT=hub.url).communicate()[0] == "3\n"


def test_bundled_weights_import_nothing_of_the_hub():
    code = (
        "import sys; from vocalsep import weights; weights.load_checkpoint('default'); weights.find('tracker');"
        "assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
