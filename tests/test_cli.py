"""The command line: help, errors and exit codes of all commands, and the small commands evaluate and completion."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from vocalsep import __version__, audio
from vocalsep.cli import main
from vocalsep.cli.base import Command
from vocalsep.errors import OptionError
from vocalsep.f0.tracks import F0Tracks

FRAMES = 100
F0 = np.array([[440.0], [330.0], [220.0], [110.0]], dtype=np.float32) * np.ones(FRAMES, dtype=np.float32)
NAMES = ("soprano", "alto", "tenor", "bass")
COMMANDS = ["separate", "f0", "models", "train", "evaluate", "bench", "completion"]


@pytest.fixture(scope="module")
def quartet(sing) -> np.ndarray:
    return sing(F0) / 4


@pytest.fixture
def folder(tmp_path, monkeypatch, quartet) -> Path:
    """The working folder: choir.wav, its f0 as f0.csv, its stems in stems/."""
    monkeypatch.chdir(tmp_path)
    audio.write(Path("choir.wav"), quartet.sum(axis=0), 16000, bit_depth="float32")
    F0Tracks(F0, NAMES).to_csv("f0.csv")
    for name, stem in zip(NAMES, quartet, strict=True):
        audio.write(Path(f"stems/{name}.wav"), stem, 16000, bit_depth="float32")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Run a command that must refuse its input in one line, and return that line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def all_commands() -> list[list[str]]:
    """Return the words of every command."""
    found: list[list[str]] = [[]]
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        found.append([name])
        if isinstance(command, click.Group):
            found.extend([name, inner] for inner in command.commands)
    return found


class TestStart:
    @pytest.mark.parametrize("words", all_commands(), ids=" ".join)
    def test_help(self, words):
        result = run(*words, "--help")
        assert result.exit_code == 0
        described: click.Command = main
        for word in words:
            assert isinstance(described, click.Group)
            described = described.get_command(click.Context(described), word)
        assert "\\b" not in result.stdout
        for parameter in described.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in result.stdout
        if isinstance(described, click.Group):
            listed = [line.split(maxsplit=1) for line in result.stdout.split("Commands:\n")[1].splitlines()]
            assert all(summary.endswith(".") and not summary.endswith("...") for _, summary in listed)
        else:
            assert isinstance(described, Command)
        if not words:
            assert [name for name, _ in listed] == COMMANDS

    def test_version(self):
        assert run("--version").stdout == f"vocalsep, version {__version__}\n"

    @pytest.mark.parametrize("code", ["import vocalsep", "from vocalsep.cli import main; main(['separate', '--help'])"])
    def test_importing_is_quick(self, code):
        report = f"import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]))); {code}"
        done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
        loaded = json.loads(done.stdout.strip().splitlines()[-1])
        assert not {"torch", "numpy", "soundfile", "av", "matplotlib", "tqdm"} & set(loaded)

    def test_the_installed_command(self, tmp_path):
        script = shutil.which("vocalsep", path=str(Path(sys.executable).parent))
        if script is None:
            pytest.skip("the package is not installed with its script")
        done = subprocess.run([script, "separate", "nowhere.wav"], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", [["divide"], ["separate"], ["separate", "--no-such", "x"], ["f0", "a", "b"]])
    def test_wrong_usage(self, arguments):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Usage: " in result.stderr


class TestCommand:
    """The class of all commands, on one that does what a test wants."""

    @pytest.fixture
    def invoke(self):
        def call(action, *arguments: str) -> Result:
            @click.group()
            @click.option("--verbose", is_flag=True)
            def group(verbose: bool) -> None:
                pass

            @group.command(cls=Command, option_groups={"Input": ("low", "f0s"), "Output": ("out",)})
            @click.option("--low", help="Low.")
            @click.option("-o", "--out", help="Out.")
            @click.option("--f0", "f0s", help="F0.")
            def command(**_: object) -> None:
                action()

            return CliRunner().invoke(group, [*arguments[:-1], "command", *arguments[-1:]])

        return call

    def test_help_in_groups(self, invoke):
        text = invoke(lambda: None, "--help").stdout
        places = [text.index(word) for word in ("Input:", "--low", "--f0", "Output:", "-o, --out", "Other", "--help")]
        assert places == sorted(places)

    @pytest.mark.parametrize(
        ("parameter", "flag"), [("f0s", " (--f0)"), ("out", " (--out)"), ("other", ""), (None, "")]
    )
    def test_errors_name_the_flag(self, invoke, parameter, flag):
        def fail() -> None:
            raise OptionError("two\n  lines\x1b", parameter=parameter)

        result = invoke(fail)
        assert (result.exit_code, result.stderr) == (2, f"Error: two lines\\x1b{flag}\n")

    @pytest.mark.parametrize("verbose", [False, True])
    def test_unexpected_errors(self, invoke, verbose):
        def fail() -> None:
            raise RuntimeError("two\n  lines")

        result = invoke(fail, *(["--verbose", "--low=1"] if verbose else []))
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("Error: RuntimeError: two lines")
        assert ("Traceback" in result.stderr) == verbose

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals(self, invoke, number):
        before = signal.getsignal(number)
        result = invoke(lambda: signal.raise_signal(number))
        assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")
        assert signal.getsignal(number) == before

    def test_warnings(self, invoke):
        class OwnWarning(UserWarning):
            __module__ = "vocalsep.somewhere"

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            result = invoke(lambda: warnings.warn("mind\nthe gap", OwnWarning, stacklevel=1))
        assert (result.exit_code, result.stderr) == (0, "Warning: mind the gap\n")


@pytest.mark.usefixtures("folder")
class TestEvaluate:
    @pytest.fixture
    def estimates(self, quartet) -> None:
        noise = np.random.default_rng(0).normal(size=quartet.shape)
        for name, stem, hiss in zip(NAMES, quartet, noise, strict=True):
            scale = 0.1 * np.sqrt((stem**2).mean())
            audio.write(Path(f"estimates/{name}.flac"), 0.5 * (stem + scale * hiss), 16000, bit_depth="24")

    def test_short_stems(self, estimates):
        result = run("evaluate", "stems", "estimates")
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.stdout.splitlines()]
        assert [line[0] for line in lines[1:]] == [*sorted(NAMES), "all"]
        assert all(float(line[-1]) == pytest.approx(20, abs=0.3) for line in lines[1:])
        assert result.stderr  # no frames to score

    def test_a_silent_voice_does_not_count(self, estimates, quartet):
        audio.write(Path("stems/tenor.wav"), 0 * quartet[2], 16000)
        lines = run("evaluate", "stems", "estimates").stdout.splitlines()
        assert lines[-2].split()[-1] == "nan"
        assert float(lines[-1].split()[-1]) == pytest.approx(20, abs=0.3)

    def test_bad_input(self, estimates):
        Path("estimates/alto.flac").unlink()
        assert "alto" in refused("evaluate", "stems", "estimates")
        assert "nowhere" in refused("evaluate", "nowhere", "estimates")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vocalsep sep", ["separate"]),
        ("vocalsep separate --clip-mode r", ["rescale"]),
        ("vocalsep separate --two", ["--two-stems"]),
        ("vocalsep separate -n def", ["default"]),
    ],
)
def test_completion_in_bash(words, expected):
    bash = shutil.which("bash")
    script = shutil.which("vocalsep", path=str(Path(sys.executable).parent))
    if bash is None or script is None or os.name == "nt":
        pytest.skip("needs bash, and the package installed with its script")
    typed = " ".join(f"'{word}'" for word in words.split())
    code = f"""
        {run("completion", "bash").stdout}
        COMP_WORDS=({typed}); COMP_CWORD={len(words.split()) - 1}
        _vocalsep_completion vocalsep; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{Path(script).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([bash, "--norc", "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == expected, done.stderr
