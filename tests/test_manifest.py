"""The manifest: ours describes the bundled checkpoints, and any other is validated."""

import hashlib
import json
from importlib import import_module
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from vocalsep import weights
from vocalsep.errors import WeightsError

CHECKPOINTS = Path(weights.__file__).parents[1] / "checkpoints"
LICENCES = {"cc-by-4.0": "CC BY 4.0", "mit": "MIT"}
NETWORKS = {
    "estimator": ("vocalsep.model.estimator", "Estimator"),
    "tracker": ("vocalsep.f0.network", "Tracker"),
    "crepe": ("vocalsep.f0.crepe", "Crepe"),
}
ON_HUB = {"bundled": False, "repository": "somebody/choir", "revision": "a" * 40}


@pytest.fixture
def row() -> dict:
    """A valid entry."""
    return {
        "name": "choir",
        "network": "estimator",
        "bundled": True,
        "repository": None,
        "revision": None,
        "size": 100,
        "sha256": "0" * 64,
        "vocalsep": ">=0.1,<0.3",
        "licence": "MIT",
        "credit": "the test",
        "source": "the test",
        "scores": {},
        "seed": 1,
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Make a text or table the manifest."""

    def write(content: str | dict) -> None:
        path = tmp_path / "manifest.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("VOCALSEP_MANIFEST", str(path))

    return write


def test_bundled_checkpoints_are_in_the_manifest():
    bundled = {entry.name for entry in weights.manifest().values() if entry.bundled}
    assert bundled == {path.name for path in CHECKPOINTS.iterdir()} == {"default", "tracker", "crepe-tiny"}


@pytest.mark.parametrize("entry", weights.manifest().values(), ids=lambda entry: entry.name)
def test_bundled_checkpoints(entry):
    folder = weights.find(entry.name)
    content = (folder / "model.safetensors").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
    assert weights.checkpoint_sha256(entry.name) == entry.sha256
    module, name = NETWORKS[entry.network]
    network = weights.load_network(entry.name, getattr(import_module(module), name))
    assert entry.details.get("parameters") in (None, sum(parameter.numel() for parameter in network.parameters()))


@pytest.mark.parametrize("entry", weights.manifest().values(), ids=lambda entry: entry.name)
def test_model_cards(entry):
    card = ModelCard.load(weights.find(entry.name) / "README.md")
    assert LICENCES[card.data.license] == entry.licence
    assert card.data.library_name == "vocalsep"
    assert card.data.tags
    assert entry.network == "crepe" or (entry.scores and card.data.datasets and card.data.metrics)


def test_own_manifest(write, row):
    write({"schema": 3, "checkpoints": [row, {**row, **ON_HUB, "name": "other"}]})
    assert list(weights.manifest()) == ["choir", "other"]
    assert weights.manifest()["other"].repository == "somebody/choir"
    assert weights.manifest()["choir"].details == {"seed": 1}
    with pytest.raises(WeightsError, match="choir, other"):
        weights.load_checkpoint("default")


def test_missing_or_damaged_manifest(write, tmp_path, monkeypatch):
    schemas = '{"schema": 3}', '{"checkpoints": []}', '{"schema": 2, "checkpoints": []}'
    lists = '{"schema": 3, "checkpoints": ["x"]}', '{"schema": 3, "checkpoints": 5}'
    for text in ("", "[]", "[" * 100_000, *schemas, *lists):
        write(text)
        with pytest.raises(WeightsError, match=r"manifest\.json"):
            weights.manifest()
    monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "none.json"))
    with pytest.raises(WeightsError, match=r"none\.json"):
        weights.manifest()


WRONG = [
    {"name": "../x"},
    {"name": None},
    {"network": ""},
    {"size": True},
    {"size": 0},
    {"sha256": "A" * 64},
    {"licence": ""},
    {"credit": 3},
    {"bundled": 1},
    {"bundled": False},
    {"vocalsep": "soon"},
    {"scores": [1]},
    {**ON_HUB, "revision": "main"},
    {**ON_HUB, "revision": None},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_wrong_values(write, row, change):
    write({"schema": 3, "checkpoints": [{**row, **change}]})
    with pytest.raises(WeightsError, match=next(key for key in (*change, "") if key in ("revision", *row))):
        weights.manifest()


@pytest.mark.parametrize("key", ["name", "network", "sha256", "size", "licence", "credit", "repository", "vocalsep"])
def test_missing_values(write, row, key):
    del row[key]
    write({"schema": 3, "checkpoints": [row]})
    with pytest.raises(WeightsError, match=key):
        weights.manifest()


def test_names_are_unique(write, row):
    write({"schema": 3, "checkpoints": [row, row]})
    with pytest.raises(WeightsError, match="same name"):
        weights.manifest()


def test_corrupt_checkpoint(write, row):
    write({"schema": 3, "checkpoints": [{**row, "name": "crepe-tiny", "network": "crepe"}]})
    with pytest.raises(WeightsError, match="SHA-256"):
        weights.load_checkpoint("crepe-tiny")
