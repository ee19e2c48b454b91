"""The command line: help, errors and exit codes of all commands, and the small commands f0, evaluate, completion."""

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
COMMANDS = ["separate", "f0", "adapt", "models", "train", "evaluate", "bench", "completion"]


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

        result = invoke(fail, *(["--verbose", ""] if verbose else []))
        if verbose:
            result = invoke(fail, "--verbose", "--low=1")
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
class TestF0:
    def test_table_and_picture(self):
        result = run("f0", "choir.wav")
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == ["choir.csv", "choir.png"]
        assert Path("choir.csv").read_text().startswith("time,soprano,alto,tenor,bass\n0.000000,")
        assert Path("choir.png").read_bytes().startswith(b"\x89PNG")

    def test_without_matplotlib_there_is_still_a_table(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        result = run("f0", "choir.wav")
        assert (result.exit_code, result.stdout) == (0, "choir.csv\n")
        assert "vocalsep[plot]" in result.stderr

    @pytest.mark.parametrize("per_voice", [False, True])
    def test_the_csv_gives_the_stems_of_its_tracks(self, tiny_model, per_voice):
        table = ["--per-voice", "-o", "tracks"] if per_voice else ["-o", "tracks.csv"]
        options = ["--voices", "SATB", "-n", tiny_model, "-d", "cpu"]
        assert run("f0", "choir.wav", "--no-picture", "--voices", "SATB", "-d", "cpu", *table).exit_code == 0
        assert run("separate", "choir.wav", "-o", "tracked", *options).exit_code == 0
        assert run("separate", "choir.wav", "-o", "read", "--f0", table[-1], *options).exit_code == 0
        for name in NAMES:
            one, other = (audio.read(Path(out, "choir", f"{name}.wav")).waveform for out in ("tracked", "read"))
            np.testing.assert_array_equal(one, other)

    def test_columns_that_are_swapped_swap_the_stems(self, tiny_model):
        head, *lines = Path("f0.csv").read_text().splitlines()
        swapped = [",".join((t, s, tenor, alto, b)) for t, s, alto, tenor, b in (line.split(",") for line in lines)]
        Path("swapped.csv").write_text("\n".join([head, *swapped]))
        stems = {}
        for table in ("f0", "swapped"):
            options = ["--f0", f"{table}.csv", "--voices", "SATB", "--float32", "-o", table, "-n", tiny_model]
            assert run("separate", "choir.wav", *options).exit_code == 0
            stems[table] = {name: audio.read(Path(table, "choir", f"{name}.wav")).waveform for name in NAMES}
        for name, source in zip(NAMES, ("soprano", "tenor", "alto", "bass"), strict=True):
            np.testing.assert_allclose(stems["swapped"][name], stems["f0"][source], atol=1e-6)
        assert np.abs(stems["f0"]["alto"] - stems["f0"]["tenor"]).max() > 0.01

    def test_guides_and_notes(self):
        options = ["--guides", "stems", "--no-picture", "--midi", "deep/notes.mid"]
        result = run("f0", "choir.wav", *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == ["choir.csv", "deep/notes.mid"]
        tracks = F0Tracks.from_midi("deep/notes.mid")
        assert tracks.names == NAMES
        np.testing.assert_allclose(np.median(tracks.frequencies, axis=1), F0[:, 0], rtol=0.01)
        assert "notes.mid" in refused("f0", "choir.wav", *options, "-o", "other.csv")
        assert not Path("other.csv").exists()
        assert run("f0", "choir.wav", *options, "--overwrite").exit_code == 0

    def test_per_voice(self):
        result = run("f0", "choir.wav", "--guides", "stems", "--per-voice", "-o", "take.1")
        assert result.stdout.split() == [*(f"take.1/{name}.csv" for name in NAMES), "take.1.png"]
        for row, expected in zip(F0Tracks.from_csv("take.1", NAMES).frequencies, F0[:, 0], strict=True):
            assert np.median(row[row > 0]) == pytest.approx(expected, rel=0.01)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nowhere.wav"],
            ["f0.csv", "-o", "y.csv"],
            ["choir.wav", "--voices", "Q"],
            ["choir.wav", "-o", "choir.wav/x.csv"],
            ["choir.wav", "--per-voice", "-o", "."],
            ["choir.wav", "--guides", "nowhere"],
            ["choir.wav", "-o", "choir.wav", "--overwrite"],
            ["choir.wav", "-o", "x.png"],
            ["choir.wav", "-o", "f0.csv"],
            ["choir.wav", "--midi", "notes.txt"],
            ["choir.wav", "-o", "x.mid", "--midi", "stems/../x.mid"],
        ],
    )
    def test_bad_input(self, folder, arguments):
        before = {name: Path(name).read_bytes() for name in files_in(folder)}
        refused("f0", *arguments)
        assert {name: Path(name).read_bytes() for name in files_in(folder)} == before


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


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts(self, shell):
        assert f"_VOCALSEP_COMPLETE={shell}_complete" in run("completion", shell).stdout

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("vocalsep sep", ["separate"]),
            ("vocalsep separate --clip-mode r", ["rescale"]),
            ("vocalsep separate --two", ["--two-stems"]),
            ("vocalsep separate -n def", ["default"]),
        ],
    )
    def test_in_bash(self, words, expected):
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
        path = {"PATH": f"{Path(script).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [bash, "--norc", "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **path}
        )
        assert done.stdout.split() == expected, done.stderr
