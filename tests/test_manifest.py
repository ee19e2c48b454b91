"""The register of weights: what ours says is true, and what another says is checked."""

import json
from pathlib import Path

import pytest

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.weights import register, store
from vocalsep.weights.publishing import LICENCES

CHECKPOINTS = Path(weights.__file__).parent.parent / "checkpoints"
PINNED = {"repository": "o/r", "revision": "a" * 40, "file": "x.safetensors"}
WHEEL = {"package": "p", "version": "1", "file": "p/x.pth", "size": 3, "sha256": "0" * 64}


@pytest.fixture
def rows() -> list[dict]:
    """The entries of the register, to be changed."""
    return json.loads(register.manifest_path().read_text(encoding="utf-8"))["checkpoints"]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Let a text be the register."""

    def give(text: str | dict) -> None:
        content = text if isinstance(text, str) else json.dumps(text)
        (tmp_path / "register.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "register.json"))

    return give


@pytest.mark.parametrize("entry", weights.manifest().values(), ids=lambda entry: entry.name)
def test_it_describes_its_files(entry):
    assert entry.licence in LICENCES
    assert entry.file == f"{entry.name}.safetensors"
    assert entry.loads_in("0.1.0")
    assert entry.scores or entry.name.startswith("crepe-")
    assert entry.card is None or (CHECKPOINTS / Path(entry.card).name).is_file()
    path = store.local_path(entry)
    if path is None and not entry.bundled:
        pytest.skip(f"{entry.name} is not on this machine; it is made with: {entry.source}")
    assert path.stat().st_size == entry.size
    assert weights.sha256(path) == entry.sha256


def test_nothing_is_called_published_that_is_not():
    """Whoever publishes weights changes this with the register: the commit must be one that the Hub has."""
    for entry in weights.manifest().values():
        assert (entry.publication, entry.hub) == ("not published yet", None), entry.name


def test_it_and_the_wheel_hold_the_same_files():
    bundled = {entry.file for entry in weights.manifest().values() if entry.bundled}
    assert {path.name for path in CHECKPOINTS.iterdir() if path.suffix != ".md"} == bundled


def test_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("VOCALSEP_MANIFEST", raising=False)
    monkeypatch.setattr(register, "_PACKAGE", tmp_path / "package")
    with pytest.raises(WeightsError, match="is missing; expected the register of weights: install vocalsep again"):
        weights.manifest()
    monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "none.json"))
    with pytest.raises(WeightsError, match=r"none\.json: cannot be read \(.*\); expected the register of weights"):
        weights.manifest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        '{"checkpoints": []}',
        '{"schema": 1, "checkpoints": []}',
        '{"schema": 2}',
        '{"schema": 2, "checkpoints": {}}',
        '{"schema": 2, "checkpoints": ["x"]}',
        '{"schema": 2, "schema": 2, "checkpoints": []}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_damaged(given, text):
    given(text)
    with pytest.raises(WeightsError, match=r"register\.json: is damaged \(.*\); expected the register of weights"):
        weights.manifest()


WRONG = [
    ({"name": "../x"}, "name is '../x'; expected letters, digits, - and _"),
    ({"name": None}, "name is None"),
    ({"purpose": "magic"}, "purpose is 'magic'; expected f0 or estimator"),
    ({"file": "../x.safetensors"}, "file is .*; expected the name of a .safetensors file"),
    ({"file": "x.pth"}, "file is 'x.pth'"),
    ({"size": True}, "size is True; expected a number of bytes"),
    ({"size": 0}, "size is 0"),
    ({"size": 10**12}, "size is 1000000000000"),
    ({"sha256": "A" * 64}, "sha256 is .*; expected 64 hexadecimal digits"),
    ({"licence": ""}, "licence is ''; expected the name of a licence"),
    ({"credit": "  "}, "credit is '  '; expected who made the weights, and the data"),
    ({"bundled": 1}, "bundled is 1; expected true or false"),
    ({"vocalsep": "soon"}, "vocalsep is 'soon'; expected a range of versions"),
    ({"vocalsep": ""}, "vocalsep is ''"),
    ({"scores": [1]}, "scores is .*; expected a table"),
    ({"card": 3}, "card is 3"),
    ({"publication": "published"}, "publication is 'published' but hub is None"),
    ({"publication": "maybe"}, "publication is 'maybe'; expected 'published' or 'not published yet'"),
    ({"hub": PINNED}, "publication is 'not published yet' but hub is {'repository'"),
    (
        {"hub": {**PINNED, "revision": "main"}, "publication": "published"},
        "revision is 'main'; expected a commit of 40",
    ),
    (
        {"hub": {**PINNED, "repository": "../r"}, "publication": "published"},
        "repository is '../r'; expected owner/name",
    ),
    ({"hub": {**PINNED, "file": "../x.safetensors"}, "publication": "published"}, "the file is '../x.safetensors'"),
    ({"hub": {**PINNED, "branch": "main"}, "publication": "published"}, "it has branch, .*; expected repository, rev"),
    ({"hub": "o/r"}, "hub is 'o/r'; expected a table of repository"),
    ({"found_in": {**WHEEL, "file": "../x"}}, "found_in is {'package'.*; expected package, version, file"),
    ({"found_in": {**WHEEL, "sha256": 3}}, "found_in is {'package'"),
    ({"found_in": {"package": "p"}}, "it has package; expected package, version"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_wrong_entry(given, rows, change, message):
    given({"schema": 2, "checkpoints": [rows[0], {**rows[1], **change}]})
    with pytest.raises(WeightsError, match=rf"is damaged \(entry 2 \({change.get('name', 'tracker')}\): .*{message}"):
        weights.manifest()


@pytest.mark.parametrize("key", ["name", "sha256", "size", "licence", "credit", "hub", "publication", "vocalsep"])
def test_an_entry_that_lacks_something(given, rows, key):
    del rows[0][key]
    given({"schema": 2, "checkpoints": rows})
    with pytest.raises(WeightsError, match=rf"entry 1 \(.*\): has no {key}; expected"):
        weights.manifest()


@pytest.mark.parametrize("key", ["name", "file"])
def test_entries_that_are_one(given, rows, key):
    rows[1][key] = rows[0][key]
    given({"schema": 2, "checkpoints": rows})
    with pytest.raises(WeightsError, match="its name or file is also that of another entry"):
        weights.manifest()


def test_a_published_entry(given, rows):
    rows[3] |= {"hub": PINNED, "publication": "published"}
    given({"schema": 2, "checkpoints": rows})
    assert str(weights.manifest()["crepe-full"].hub) == f"o/r@{'a' * 40}:x.safetensors"
    assert weights.manifest()["default"].details["parameters"] == 1177958


def test_the_register_is_not_to_be_changed():
    with pytest.raises(TypeError):
        weights.manifest()["mine"] = None


@pytest.mark.parametrize(
    ("version", "loads"),
    [("0.1.0", True), ("0.1.9", True), ("0.1.0.dev1", True), ("0.2.0", False), ("0.0.9", False), ("1.0", False)],
)
def test_versions(version, loads):
    assert weights.manifest()["default"].loads_in(version) is loads
