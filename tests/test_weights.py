"""Checkpoints in folders and in the package: read, written, and refused when they are wrong."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch
import torch
from torch import nn

import vocalsep
from vocalsep import weights
from vocalsep.errors import OutputError, WeightsError

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "vocalsep" / "checkpoints"


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    size: int = 3
    kernels: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if not 0 < self.size <= 100:
            raise ValueError(f"size is {self.size}; expected 1 to 100")


class Toy(nn.Module):
    kind: ClassVar[str] = "toy"
    Config: ClassVar[type] = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.size, 2)
        self.norm = nn.BatchNorm1d(2)


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy(ToyConfig(size=4, kernels=(5,)))


@pytest.fixture
def folder(toy, tmp_path) -> Path:
    weights.save_checkpoint(tmp_path / "runs" / "toy", toy, card="---\nlicense: mit\n---\n")
    return tmp_path / "runs" / "toy"


def test_save_and_load(folder, toy):
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert (folder / "README.md").read_text() == "---\nlicense: mit\n---\n"
    assert weights.load_checkpoint(folder).config == {"network": "toy", "size": 4, "kernels": [5]}
    network = weights.load_network(str(folder), Toy)
    assert network.config == toy.config
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(network.state_dict(), toy.state_dict(), rtol=0, atol=0)
    assert weights.find(folder) == folder
    assert weights.checkpoint_sha256(folder) == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights.checkpoint_config(folder) == weights.load_checkpoint(folder).config


def test_tensors_keep_their_precision(toy, tmp_path):
    toy.linear.weight.data = toy.linear.weight.data.half().T.contiguous().T
    weights.save_checkpoint(tmp_path, toy)
    saved = weights.load_checkpoint(tmp_path).tensors["linear.weight"]
    assert saved.dtype == torch.float16
    network = weights.load_network(tmp_path, Toy)
    torch.testing.assert_close(network.linear.weight, saved.float(), rtol=0, atol=0)
    assert not (tmp_path / "README.md").exists()


def test_files_have_the_usual_permissions(folder):
    (folder / "other").touch()
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_save_replaces_a_checkpoint(folder, toy):
    with torch.no_grad():
        toy.linear.bias += 1
    weights.save_checkpoint(folder, toy)
    torch.testing.assert_close(weights.load_network(folder, Toy).linear.bias, toy.linear.bias)


def test_save_that_fails(toy, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError):
        weights.save_checkpoint(tmp_path / "taken", toy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        weights.load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"{}", b'{"network": 3}', b"[" * 100_000])
def test_damaged_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        weights.load_checkpoint(folder)


@pytest.mark.parametrize(
    "settings",
    [{"network": "toys"}, {"size": 10**9}, {"size": "4"}, {"size": None}, {"depth": 1}, {"size": 5}],
)
def test_configurations_that_do_not_fit(folder, settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(WeightsError, match="toy"):
        weights.load_network(folder, Toy)


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "pickle"])
def test_damaged_tensors(folder, damage):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    damaged = {"empty": b"", "cut": content[:-1], "header": b"\xff" * 16, "pickle": b"\x80\x04" + content}
    path.write_bytes(damaged[damage])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        weights.load_checkpoint(folder)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit(folder, toy, change):
    tensors = toy.state_dict()
    if change == "missing":
        del tensors["linear.bias"]
    elif change == "unknown":
        tensors["linear.other"] = torch.ones(1)
    else:
        tensors["linear.bias"] = torch.ones(3)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="linear"):
        weights.load_network(folder, Toy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(folder, toy, value):
    with torch.no_grad():
        toy.linear.bias[0] = value
    weights.save_checkpoint(folder, toy)
    with pytest.raises(WeightsError, match="finite"):
        weights.load_checkpoint(folder)


def test_single_files_are_not_loaded(folder):
    with pytest.raises(WeightsError, match="folder"):
        weights.load_checkpoint(folder / "model.safetensors")


@pytest.mark.parametrize("model", ["crepe-huge", "", "a/b/c", "../x", Path("none/such"), Path("default")])
@pytest.mark.parametrize("function", [weights.load_checkpoint, weights.checkpoint_sha256, weights.find])
def test_unknown_weights(function, model):
    with pytest.raises(WeightsError, match="crepe-tiny"):
        function(model)


@pytest.mark.parametrize(("version", "loads"), [("0.1.0.dev1", True), ("99.0", False)])
def test_versions(monkeypatch, version, loads):
    monkeypatch.setattr(vocalsep, "__version__", version)
    if loads:
        weights.load_checkpoint("crepe-tiny")
    else:
        with pytest.raises(WeightsError, match="99"):
            weights.load_checkpoint("crepe-tiny")


def test_half_precision_of_crepe():
    dtypes = {tensor.dtype for tensor in weights.load_checkpoint("crepe-tiny").tensors.values()}
    assert torch.float16 in dtypes


def test_no_pickle_anywhere():
    words = ("import pickle", "torch.load", "allow_pickle=True", "joblib")
    for path in (ROOT / "vocalsep").rglob("*.py"):
        assert not any(word in path.read_text(encoding="utf-8") for word in words), path


def test_listing_weights_does_not_import_torch():
    code = "import sys; from vocalsep import weights; weights.manifest(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
