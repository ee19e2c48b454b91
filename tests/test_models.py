"""`vocalsep models` and the completion of the names of weights."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vocalsep import weights
from vocalsep.cli import main

NAMES = ["default", "tracker", "crepe-tiny"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


@pytest.fixture
def broken_manifest(tmp_path, monkeypatch) -> None:
    """A manifest with another SHA-256 for crepe-tiny, and a checkpoint that is not on this machine."""
    entries = json.loads(run("list", "--json").stdout)
    entries[2]["sha256"] = "0" * 64
    entries.append({**entries[0], "name": "remote", "bundled": False, "repository": "a/b", "revision": "a" * 40})
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 3, "checkpoints": entries}))
    monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "manifest.json"))


def test_list():
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", *NAMES]
    assert [line.split()[1] for line in lines] == ["NETWORK", "estimator", "tracker", "crepe"]


def test_list_as_json():
    rows = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in rows] == NAMES
    assert [row["path"] for row in rows] == [str(weights.find(name)) for name in NAMES]
    assert [row["sha256"] for row in rows] == [entry.sha256 for entry in weights.manifest().values()]


@pytest.mark.parametrize("name", NAMES)
def test_info(name):
    entry = weights.manifest()[name]
    result = run("info", name)
    for text in (entry.sha256, str(entry.size), entry.licence, entry.credit, entry.source, *entry.scores):
        assert text in result.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert json.loads(run("info", name, "--json").stdout) == rows[NAMES.index(name)]


def test_path_and_download():
    assert run("path", "default").stdout == f"{weights.find('default')}\n"
    assert run("download", "default", "tracker").stdout == (
        f"default: {weights.find('default')}\ntracker: {weights.find('tracker')}\n"
    )


def test_verify():
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "default: ok\ntracker: ok\ncrepe-tiny: ok\n")


def test_verify_finds_wrong_files(broken_manifest):
    result = run("verify")
    assert result.exit_code == 2
    default, tracker, crepe = result.stdout.splitlines()
    assert (default, tracker) == ("default: ok", "tracker: ok")
    assert "SHA-256" in crepe
    assert "crepe-tiny" in result.stderr
    assert run("verify", "remote").exit_code == 2


def test_verify_folders(tmp_path: Path):
    shutil.copytree(weights.find("crepe-tiny"), tmp_path / "mine")
    assert run("verify", str(tmp_path / "mine")).exit_code == 0
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"no")
    assert run("verify", str(tmp_path / "mine")).exit_code == 2


@pytest.mark.parametrize("command", ["path", "info", "download", "verify"])
def test_unknown_names(command):
    result = run(command, "nobody")
    assert result.exit_code == 2
    assert "nobody" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vocalsep models path d", ["plain,default"]),
        ("vocalsep models info cre", ["plain,crepe-tiny"]),
        ("vocalsep separate x.wav -n d", ["plain,default"]),
        ("vocalsep separate x.wav --tracker tr", ["plain,tracker"]),
        ("vocalsep separate x.wav -n ./my", ["file,./my"]),
    ],
)
def test_completion_of_names(words, expected):
    environment = {
        "_VOCALSEP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert CliRunner().invoke(main, [], env=environment, prog_name="vocalsep").stdout.split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_VOCALSEP_COMPLETE" in result.stdout
