import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import vocalsep
from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.f0.network import TrackerConfig
from vocalsep.model.estimator import Estimator, EstimatorConfig, load_estimator, read_estimator
from vocalsep.weights import names as model_names
from vocalsep.weights import store
from vocalsep.weights.register import HubFile, manifest_path

CHECKPOINTS = Path(weights.__file__).parent.parent / "checkpoints"
DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VOCALSEP_HOME", str(tmp_path))
    return tmp_path


def saved(path: Path, metadata: dict[str, str] | None, **tensors: torch.Tensor) -> Path:
    safetensors.torch.save_file(tensors or {"a": torch.ones(2)}, path, metadata=metadata)
    return path


def bundled_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    """Let the package hold other bytes as crepe-tiny, or none."""
    (tmp_path / "checkpoints").mkdir()
    if content is not None:
        (tmp_path / "checkpoints" / "crepe-tiny.safetensors").write_bytes(content)
    monkeypatch.setattr(store, "_PACKAGE", tmp_path)


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
    bundled_only(tmp_path, monkeypatch, bytes(content))
    with pytest.raises(WeightsError, match=r"'crepe-tiny' are corrupt: .* expected cdfff8d6558f\.\.\.; install"):
        weights.load("crepe-tiny")


def test_missing_bundled_file_means_a_broken_installation(tmp_path, monkeypatch):
    bundled_only(tmp_path, monkeypatch, None)
    with pytest.raises(WeightsError, match="are not on this machine; install vocalsep again"):
        weights.find("crepe-tiny")
    with pytest.raises(WeightsError, match=r"are missing .*; install vocalsep again"):
        weights.load("crepe-tiny")


def test_unknown_name():
    with pytest.raises(
        WeightsError,
        match=r"'crepe-huge'; expected one of default, tracker, crepe-tiny, crepe-full, a \.safetensors file, or own",
    ):
        weights.load("crepe-huge")


def test_weights_of_another_version(monkeypatch):
    monkeypatch.setattr(vocalsep, "__version__", "0.2.0")
    with pytest.raises(WeightsError, match=r"'default' are for vocalsep >=0\.1,<0\.2; this is 0\.2\.0: install such"):
        weights.load("default")
    monkeypatch.setattr(vocalsep, "__version__", "0.1.7.dev3")
    assert weights.load("default").tensors


def test_user_folder(monkeypatch):
    monkeypatch.delenv("VOCALSEP_HOME", raising=False)
    assert weights.user_folder() == Path.home() / ".cache" / "vocalsep"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its metadata hold no configuration; expected JSON under 'config'"),
        ({"other": "1"}, "hold no configuration"),
        ({"config": "{"}, "hold no configuration"),
        ({"config": '{"a": 1, "a": 2}'}, "hold no configuration"),
        ({"config": "[" * 50_000 + "]" * 50_000}, "hold no configuration"),
        ({"config": "[1]"}, "its configuration is list; expected a table of settings"),
    ],
)
def test_configuration_missing(tmp_path, metadata, message):
    with pytest.raises(WeightsError, match=message):
        weights.load(saved(tmp_path / "x.safetensors", metadata))


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


def test_save_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    path.mkdir()  # what cannot be replaced by a file
    (path / "old").touch()
    with pytest.raises(WeightsError, match=r"x\.safetensors: cannot be written \(.+\)"):
        weights.save(path, {}, {"a": torch.from_numpy(np.ones(3))})
    assert [file.name for file in tmp_path.rglob("*")] == ["x.safetensors", "old"]


def test_a_trusted_file(tmp_path):
    path = saved(tmp_path / "x.safetensors", {"config": "{}"})
    digest = weights.sha256(path)
    assert weights.load(f"{path}#sha256={digest}").config == {}
    assert weights.fingerprint(path) == weights.fingerprint(f"{path}#sha256={digest}") == digest
    with pytest.raises(WeightsError, match=f"x.safetensors: has SHA-256 {digest}, expected {DIGEST}"):
        weights.load(f"{path}#sha256={DIGEST}")


def test_a_trusted_name():
    registered = weights.manifest()["crepe-tiny"].sha256
    assert weights.load(f"crepe-tiny#sha256={registered}").config["capacity"] == "tiny"
    assert weights.fingerprint("crepe-tiny") == registered
    with pytest.raises(WeightsError, match=f"have SHA-256 {registered}; {DIGEST} was asked for"):
        weights.load(f"crepe-tiny#sha256={DIGEST}")


class TestNames:
    COMMIT = "a" * 40

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("default", ("default", None, None, None)),
            ("my/choir.safetensors", ("my/choir.safetensors", Path("my/choir.safetensors"), None, None)),
            ("me@home.safetensors", ("me@home.safetensors", Path("me@home.safetensors"), None, None)),
            (f"a#sha256={DIGEST.upper()}", ("a", None, None, DIGEST)),
            (
                f"o/r@{COMMIT}:sub/x.safetensors#sha256={DIGEST}",
                (f"o/r@{COMMIT}:sub/x.safetensors", None, HubFile("o/r", COMMIT, "sub/x.safetensors"), DIGEST),
            ),
            ("o/r@v1.0:x.safetensors", ("o/r@v1.0:x.safetensors", None, HubFile("o/r", "v1.0", "x.safetensors"), None)),
        ],
    )
    def test_understood(self, text, expected):
        assert model_names.parse_model(text) == expected

    def test_a_file_that_is_there_is_meant_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = Path("o") / "r@main:x.safetensors"
        path.parent.mkdir()
        try:
            path.touch()
        except OSError:
            pytest.skip("files cannot have such names here")
        assert model_names.parse_model(path).path == path

    @pytest.mark.parametrize(
        "text",
        [
            "o/r@main:x.bin",
            "o/r@main:x.pkl.safetensors/..",
            "o/r@main:../x.safetensors",
            "o/r@main:/etc/x.safetensors",
            "o/r@main:a/../../x.safetensors",
            "o/r@main:a\\x.safetensors",
            "o/r@ma in:x.safetensors",
            "o/r@../../main:x.safetensors",
            "o/r@:x.safetensors",
            "o/r/s@main:x.safetensors",
            "../r@main:x.safetensors",
            "o/..@main:x.safetensors",
            "http://hub/r@main:x.safetensors",
            "o/r@main:x.safetensors?download=1",
        ],
    )
    def test_no_file_on_the_hub(self, text):
        with pytest.raises(
            WeightsError, match=r"is no file on the Hub: .* \(the form is owner/repo@revision:file\.saf"
        ):
            weights.load(text)

    @pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "a" * 63, "a" * 65])
    def test_no_sha256(self, digest):
        with pytest.raises(WeightsError, match="expected 64 hexadecimal digits"):
            weights.load(f"default#sha256={digest}")

    def test_the_option_and_the_name_agree(self):
        assert model_names.with_sha256("x", None) == "x"
        assert model_names.with_sha256("x", DIGEST) == f"x#sha256={DIGEST}"
        assert model_names.with_sha256(f"x#sha256={DIGEST}", DIGEST.upper()) == f"x#sha256={DIGEST}"
        for model, digest in [("x", "abc"), (f"x#sha256={DIGEST}", "f" * 64)]:
            with pytest.raises(WeightsError, match=r"expected 64|is to be trusted, but"):
                model_names.with_sha256(model, digest)


class TestNetworks:
    def changed(self, tiny_model: Path, path: Path, **settings: object) -> str:
        config, tensors = weights.load(tiny_model)
        weights.save(path, {**config, **settings}, tensors)
        return str(path)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": 24}, r"\S+ has shape \(16,.*, expected \(24,"),
            ({"dilations": [1]}, r"they have blocks\.1\.\S+, which it has not, and 35 more"),
            ({"dilations": [1] * 8}, r"they have no blocks\.5\.\S+ and 26 more"),
        ],
    )
    def test_names_and_shapes_are_strict(self, tiny_model, tmp_path, settings, message):
        path = self.changed(tiny_model, tmp_path / "x.safetensors", **settings)
        with pytest.raises(WeightsError, match=rf"x\.safetensors' do not fit the estimator \({message}"):
            load_estimator(path)

    def test_a_configuration_takes_no_more_memory_than_its_file(self, tiny_model, tmp_path, monkeypatch):
        path = self.changed(tiny_model, tmp_path / "x.safetensors", channels=1024, dilations=[1] * 32)
        monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", self.only_without_memory)
        with pytest.raises(WeightsError, match="do not fit the estimator"):
            read_estimator(path)

    @staticmethod
    def only_without_memory(tensor: torch.Tensor, **_: object) -> torch.Tensor:
        assert tensor.is_meta
        return tensor

    @pytest.mark.parametrize(
        "settings",
        [
            {"channels": True},
            {"channels": 10**18},
            {"order": 1000},
            {"kernel_size": 101},
            {"dilations": [100_000]},
            {"dilations": [1, True]},
            {"n_mels": 2.0},
            {"n_mels": "64"},
            {"n_harmonics": None},
            {"more": 1},
        ],
    )
    def test_settings_of_an_estimator(self, tiny_model, tmp_path, settings):
        with pytest.raises(WeightsError, match="estimator"):
            load_estimator(self.changed(tiny_model, tmp_path / "x.safetensors", **settings))

    @pytest.mark.parametrize(
        "settings",
        [
            {"windows": [1e6]},
            {"windows": [1e-9]},
            {"windows": "0.1"},
            {"harmonics": [1e6]},
            {"harmonics": [1.0] * 1000},
            {"fmin": 1e-300},
            {"fmin": True},
            {"n_bins": 4096, "bins_per_octave": 1},
            {"channels": [8] * 33},
            {"hidden": 10**9},
        ],
    )
    def test_settings_of_a_tracker(self, settings):
        with pytest.raises(WeightsError, match="configuration of the tracker is damaged"):
            TrackerConfig.from_json({**TrackerConfig().to_json(), **settings})

    def test_a_file_is_read_again_when_it_changed(self, tmp_path):
        path = tmp_path / "x.safetensors"
        networks = []
        for seed in range(2):
            torch.manual_seed(seed)
            network = Estimator(EstimatorConfig(channels=16))
            weights.save(path, network.config.to_json(), network.state_dict())
            os.utime(path, ns=(0, seed + 1))
            networks.append(load_estimator(str(path)))
            assert load_estimator(str(path)) is networks[-1]
        assert not torch.equal(networks[0].head.weight, networks[1].head.weight)


class TestUserFolder:
    """Weights that are neither bundled nor published: found where they were made, and not used if they are wrong."""

    @pytest.fixture
    def register(self, tmp_path, monkeypatch) -> bytes:
        """Register the weights "made", and return what their file should hold."""
        content = safetensors.torch.save({"a": torch.ones(2)}, metadata={"config": "{}"})
        entry = {
            **json.loads(manifest_path().read_text(encoding="utf-8"))["checkpoints"][0],
            "name": "made",
            "bundled": False,
            "file": "made.safetensors",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "source": "how it is made",
        }
        (tmp_path / "register.json").write_text(json.dumps({"schema": 2, "checkpoints": [entry]}))
        monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "register.json"))
        return content

    def test_found(self, register, user_folder):
        (user_folder / "made.safetensors").write_bytes(register)
        assert weights.load("made").config == {}
        assert weights.find("made") == user_folder / "made.safetensors"

    def test_missing(self, register, user_folder):
        message = r"'made' are not on this machine; they are not published yet on the Hub; make them with: how it is"
        with pytest.raises(WeightsError, match=message):
            weights.load("made")

    def test_wrong(self, register, user_folder):
        (user_folder / "made.safetensors").write_bytes(register[:-1] + b"\1")
        with pytest.raises(
            WeightsError, match=r"not on this machine; \S+ was corrupt and is removed; they are not publ"
        ):
            weights.load("made")
        assert not (user_folder / "made.safetensors").exists()
