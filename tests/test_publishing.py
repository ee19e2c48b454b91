"""Publishing on the Hub: what the card says, what is refused, and what a server of the test's own receives."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hub_server import TOKEN, Hub, hub_server
from huggingface_hub import constants, file_download

from vocalsep import weights
from vocalsep.cli import main
from vocalsep.errors import WeightsError
from vocalsep.weights import publishing, store
from vocalsep.weights.register import manifest_path

CHECKPOINTS = Path(weights.__file__).parent.parent / "checkpoints"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A Hub that takes uploads of whoever has the token, which we have."""
    with hub_server() as server:
        server.token = TOKEN
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for module in (constants, file_download):  # versions before 1.0 keep a copy
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Let the register's entry of crepe-tiny be another."""

    def change(**values: object) -> None:
        table = json.loads(manifest_path().read_text(encoding="utf-8"))
        next(row for row in table["checkpoints"] if row["name"] == "crepe-tiny").update(values)
        (tmp_path / "register.json").write_text(json.dumps(table))
        monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "register.json"))

    return change


@pytest.mark.parametrize(
    ("name", "licence"), [("default", "cc-by-4.0"), ("tracker", "cc-by-4.0"), ("crepe-tiny", "mit")]
)
def test_the_card(name, licence):
    entry = weights.manifest()[name]
    card = publishing.model_card(entry, "o/r")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == licence
    assert "choir" in yaml.safe_load(front)["tags"]
    assert body.lstrip().startswith(f"# {name}: ")
    assert body.count("\n# ") == 1
    for text in (entry.sha256, entry.credit, entry.source, f"{entry.size} bytes", entry.vocalsep):
        assert text in body
    if entry.card:
        assert (CHECKPOINTS / Path(entry.card).name).read_text(encoding="utf-8").strip() in body


def test_what_a_server_receives(hub):
    upload = publishing.prepare("crepe-tiny", "somebody/crepe")
    published = publishing.publish(upload)
    (commit,) = hub.commits
    assert [row["key"] for row in commit] == ["header", "file", "lfsFile"]
    assert commit[0]["value"]["summary"] == "crepe-tiny, cdfff8d6558f"
    assert commit[2]["value"] == {
        "path": "crepe-tiny.safetensors",
        "algo": "sha256",
        "oid": weights.manifest()["crepe-tiny"].sha256,
        "size": 981240,
    }
    assert published.repository == "somebody/crepe"
    assert published.pinned
    content = (CHECKPOINTS / "crepe-tiny.safetensors").read_bytes()
    assert hub.files["somebody/crepe", published.revision, "crepe-tiny.safetensors"] == content
    assert hub.files["somebody/crepe", published.revision, "README.md"].decode() == upload.card
    (created,) = [json.loads(seen.body) for seen in hub.seen if seen.path == "/api/repos/create"]
    assert created["name"] == "crepe"
    assert created["organization"] == "somebody"
    assert created.get("visibility", "public") != "private"


def test_the_command_prints_what_is_to_be_pinned(hub):
    result = CliRunner().invoke(main, ["models", "publish", "crepe-tiny", "somebody/crepe", "--private"])
    assert result.exit_code == 0, result.stderr
    pinned = json.loads("{" + result.stdout + "}")
    assert pinned["publication"] == "published"
    commit = pinned["hub"]["revision"]
    assert hub.files["somebody/crepe", commit, "crepe-tiny.safetensors"]
    (created,) = [json.loads(seen.body) for seen in hub.seen if seen.path == "/api/repos/create"]
    assert created.get("visibility") == "private" or created.get("private")  # which of them, versions differ on


def test_a_dry_run_touches_nothing(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    result = CliRunner().invoke(main, ["models", "publish", "default", "somebody/choir", "--dry-run"])
    assert result.exit_code == 0
    assert hub.seen == []
    assert result.stdout == publishing.model_card(weights.manifest()["default"], "somebody/choir") + "\n"
    entry = weights.manifest()["default"]
    assert f"Would upload default.safetensors: {entry.size} bytes, SHA-256 {entry.sha256}." in result.stderr
    assert "Nothing was touched" in result.stderr


class TestRefused:
    def test_a_licence_that_nobody_knows(self, changed):
        changed(licence="all rights reserved")
        with pytest.raises(WeightsError, match=r"licence is 'all rights reserved'; expected one of MIT, .*CC BY 4\.0"):
            publishing.prepare("crepe-tiny", "o/r")

    @pytest.mark.parametrize("change", [{"licence": ""}, {"credit": ""}, {"credit": None}])
    def test_no_licence_and_no_credits(self, changed, change):
        changed(**change)
        with pytest.raises(WeightsError, match=rf"crepe-tiny\): {next(iter(change))} is .*; expected"):
            publishing.prepare("crepe-tiny", "o/r")

    def test_another_file_than_the_registered_one(self, tmp_path, monkeypatch):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "crepe-tiny.safetensors").write_bytes(b"other")
        monkeypatch.setattr(store, "_PACKAGE", tmp_path)
        with pytest.raises(WeightsError, match="'crepe-tiny' are corrupt"):
            publishing.prepare("crepe-tiny", "o/r")

    def test_a_card_that_is_missing(self, changed):
        changed(card="vocalsep/checkpoints/none.md")
        with pytest.raises(WeightsError, match=r"its card \S+none\.md cannot be read"):
            publishing.prepare("crepe-tiny", "o/r")

    @pytest.mark.parametrize("repository", ["crepe", "a/b/c", "../x", "o/r x", ""])
    def test_what_is_no_repository(self, repository):
        with pytest.raises(WeightsError, match="expected owner/name"):
            publishing.prepare("crepe-tiny", repository)

    def test_what_is_not_on_this_machine(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VOCALSEP_HOME", str(tmp_path))
        monkeypatch.setattr("vocalsep.f0.crepe_weights.find_spec", lambda name: None)
        with pytest.raises(WeightsError, match="'crepe-full' are not on this machine"):
            publishing.prepare("crepe-full", "o/r")

    def test_without_a_token(self, hub, monkeypatch, tmp_path):
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        with pytest.raises(WeightsError, match=r"needs a token that may write: set HF_TOKEN or run `hf auth login`"):
            publishing.publish(publishing.prepare("crepe-tiny", "o/r"))
        assert hub.seen == []

    def test_by_the_hub(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_another")
        with pytest.raises(WeightsError, match=r"o/r: cannot be published: \S+ answers 401 .*needs a token"):
            publishing.publish(publishing.prepare("crepe-tiny", "o/r"))
        assert hub.commits == []

    def test_a_hub_that_has_another_file_then(self, hub, monkeypatch):
        upload = publishing.prepare("crepe-tiny", "o/r")
        monkeypatch.setattr(hub, "add", lambda *place: Hub.add(hub, *place[:2], b"other", *place[3:]))
        with pytest.raises(WeightsError, match=r"the Hub has 5 bytes, .* expected 981240, .*do not pin this commit"):
            publishing.publish(upload)
