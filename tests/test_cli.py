"""The command line: what it writes, prints and refuses; errors are one sentence on stderr, exit code 2."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from vocalsep import __version__, audio, estimator, weights
from vocalsep.cli import main
from vocalsep.evaluation import benchmark as bench
from vocalsep.f0.tracks import F0Tracks
from vocalsep.training import data, sources

FRAMES = 100
F0 = np.array([[440.0], [330.0], [220.0], [110.0]], dtype=np.float32) * np.ones(FRAMES, dtype=np.float32)
NAMES = ("soprano", "alto", "tenor", "bass")
COMMANDS = [
    *("separate", "adapt", "f0", "models", "evaluate", "train", "train-f0"),
    *("benchmark", "benchmark-f0", "benchmark-data", "benchmark-band", "benchmark-long", "completion"),
]


@pytest.fixture(scope="module")
def quartet(sing) -> np.ndarray:
    return sing(F0) / 4


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, quartet) -> Path:
    """The working folder: choir.wav, its f0 as f0.csv, its stems in stems/."""
    monkeypatch.chdir(tmp_path)
    audio.write("choir.wav", quartet.sum(axis=0), 16000, bit_depth="float32")
    F0Tracks(F0, NAMES).to_csv("f0.csv")
    for name, stem in zip(NAMES, quartet, strict=True):
        audio.write(f"stems/{name}.wav", stem, 16000, bit_depth="float32")
    return tmp_path


@pytest.fixture
def model(tiny_model) -> list[str]:
    return ["-n", str(tiny_model), "-d", "cpu"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Run a command that must refuse its input in one line, and return that."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.stderr
    return lines[0]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestStart:
    @pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
    def test_help(self, command):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: main {' '.join(command)}".rstrip())
        described = main.commands[command[0]] if command else main
        for parameter in described.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in result.stdout
        if not command:
            listed = [line.split(maxsplit=1) for line in result.stdout.split("Commands:\n")[1].splitlines()]
            assert [name for name, _ in listed] == COMMANDS  # those of every day first
            assert all(summary.endswith(".") and not summary.endswith("...") for _, summary in listed)

    def test_version(self):
        assert run("--version").stdout == f"vocalsep, version {__version__}\n"

    @pytest.mark.parametrize("code", ["import vocalsep", "from vocalsep.cli import main; main(['separate', '--help'])"])
    def test_neither_import_nor_help_loads_what_is_heavy(self, code):
        heavy = ["torch", "numpy", "soundfile", "matplotlib", "tqdm"]
        report = f"import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]))); {code}"
        done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
        loaded = json.loads(done.stdout.strip().splitlines()[-1])
        assert "vocalsep" in loaded
        assert not set(heavy) & set(loaded)

    def test_the_installed_command(self, folder):
        script = shutil.which("vocalsep", path=str(Path(sys.executable).parent))
        if script is None:
            pytest.skip("the package is not installed with its script")
        done = subprocess.run([script, "separate", "nowhere.wav"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize("arguments", [["divide"], ["separate"], ["separate", "--no-such", "x"], ["f0", "a", "b"]])
    def test_usage_errors(self, arguments):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Usage: " in result.stderr


class TestF0:
    def test_a_table_and_a_picture(self, folder):
        result = run("f0", "choir.wav")
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == ["choir.csv", "choir.png"]
        assert Path("choir.csv").read_text().startswith("time,soprano,alto,tenor,bass\n0.000000,")
        assert Path("choir.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("per_voice", [False, True])
    def test_its_csv_gives_the_stems_of_its_tracks(self, folder, model, per_voice):
        form = ["--per-voice", "-o", "tracks"] if per_voice else ["-o", "tracks.csv"]
        assert run("f0", "choir.wav", "--no-picture", "--voices", "SATB", *form, *model).exit_code == 0
        given = ["--f0", form[-1], "--voices", "SATB"]
        assert run("separate", "choir.wav", "-o", "direct", *model).exit_code == 0
        assert run("separate", "choir.wav", "-o", "given", *given, *model).exit_code == 0
        assert len(files_in(folder / "direct" / "choir")) == 4
        for name in files_in(folder / "direct" / "choir"):
            assert Path("direct/choir", name).read_bytes() == Path("given/choir", name).read_bytes()

    def test_what_is_swapped_in_the_csv_is_swapped_in_the_stems(self, folder, model):
        """With the names of two columns exchanged, and with their contents, the stems exchange their contents."""
        assert run("f0", "choir.wav", "--no-picture", "--guides", "stems", "-o", "tracks.csv").exit_code == 0
        head, *lines = Path("tracks.csv").read_text().splitlines()
        assert head == "time,soprano,alto,tenor,bass"
        swapped = [",".join((t, s, tenor, alto, b)) for t, s, alto, tenor, b in (line.split(",") for line in lines)]
        Path("contents.csv").write_text("\n".join([head, *swapped]))
        Path("names.csv").write_text("\n".join(["time,soprano,tenor,alto,bass", *lines]))
        stems = {}
        for form in ("tracks", "contents", "names"):
            arguments = ["--f0", f"{form}.csv", "--voices", "SATB", "--float32", "-o", form]
            assert run("separate", "choir.wav", *arguments, *model).exit_code == 0
            stems[form] = {name: audio.read(f"{form}/choir/{name}.wav").waveform for name in NAMES}
        for form in ("contents", "names"):
            for name, source in zip(NAMES, ("soprano", "tenor", "alto", "bass"), strict=True):
                np.testing.assert_allclose(stems[form][name], stems["tracks"][source], atol=1e-6)
        assert np.abs(stems["tracks"]["alto"] - stems["tracks"]["tenor"]).max() > 0.01

    def test_guides_csv_gives_the_stems_of_the_guides(self, folder, model):
        assert run("f0", "choir.wav", "--no-picture", "--guides", "stems", "-o", "tracks.csv").exit_code == 0
        for given in (["--guides", "stems", "-o", "direct"], ["--f0", "tracks.csv", "-o", "given"]):
            assert run("separate", "choir.wav", "--float32", *given, *model).exit_code == 0
        assert len(files_in(folder / "direct" / "choir")) == 4
        for name in files_in(folder / "direct" / "choir"):
            # Not the bytes: the header of a float file holds the second in which it was written.
            pair = [audio.read(Path(form, "choir", name)).waveform for form in ("direct", "given")]
            np.testing.assert_array_equal(*pair)

    def test_notes(self, folder, model):
        arguments = ["--guides", "stems", "--no-picture", "--midi", "deep/notes.mid"]
        result = run("f0", "choir.wav", *arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == ["choir.csv", "deep/notes.mid"]
        tracks = F0Tracks.from_midi("deep/notes.mid")
        assert tracks.names == NAMES
        np.testing.assert_allclose(np.median(tracks.frequencies, axis=1), F0[:, 0], rtol=0.01)
        assert run("separate", "choir.wav", "--f0", "deep/notes.mid", *model).exit_code == 0
        assert "notes.mid exists; use --overwrite" in refused("f0", "choir.wav", *arguments, "-o", "other.csv")
        assert not Path("other.csv").exists()
        assert run("f0", "choir.wav", *arguments, "--overwrite").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--midi", "choir.wav"], "is no name of a MIDI file"),
            (["--midi", "notes.txt"], "is no name of a MIDI file"),
            (["-o", "x.mid", "--midi", "x.mid"], "is the recording or another output"),
            (["-o", "x.mid", "--midi", "stems/../x.mid"], "is the recording or another output"),
        ],
    )
    def test_notes_that_have_no_place(self, folder, arguments, message):
        before = files_in(folder)
        assert message in refused("f0", "choir.wav", "--guides", "stems", *arguments)
        assert files_in(folder) == before

    def test_a_recording_named_as_midi_is_kept(self, folder):
        Path("choir.wav").rename("choir.mid")
        before = Path("choir.mid").read_bytes()
        assert "is the recording" in refused("f0", "choir.mid", "--midi", "choir.mid", "--overwrite")
        assert Path("choir.mid").read_bytes() == before

    def test_notes_that_cannot_be_written(self, folder):
        result = run("f0", "choir.wav", "--guides", "stems", "--no-picture", "--midi", "choir.wav/x.mid")
        assert result.exit_code == 2
        assert "cannot be written" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_guides_and_folders_of_columns(self, folder):
        result = run("f0", "choir.wav", "--guides", "stems", "--per-voice", "-o", "take.1")
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == [*(f"take.1/{name}.csv" for name in NAMES), "take.1.png"]
        tracks = F0Tracks.from_csv("take.1", NAMES)
        for row, expected in zip(tracks.frequencies, F0[:, 0], strict=True):
            assert np.median(row[row > 0]) == pytest.approx(expected, rel=0.01)

    @pytest.mark.parametrize("existing", ["choir.csv", "choir.png"])
    def test_files_that_exist_are_kept(self, folder, existing):
        Path(existing).write_text("mine")
        before = files_in(folder)
        assert f"{existing} exists; use --overwrite" in refused("f0", "choir.wav")
        assert Path(existing).read_text() == "mine"
        assert files_in(folder) == before

    @pytest.mark.parametrize("out", ["choir.wav", "x.png", "stems/../choir.wav"])
    def test_neither_recording_nor_picture_is_written_over(self, folder, out):
        before = Path("choir.wav").read_bytes()
        assert "is the recording or another output" in refused("f0", "choir.wav", "-o", out, "--overwrite")
        assert Path("choir.wav").read_bytes() == before

    def test_without_matplotlib_there_is_still_a_table(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        result = run("f0", "choir.wav")
        assert result.exit_code == 0
        assert result.stdout == "choir.csv\n"
        assert "vocalsep[plot]" in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ["nowhere.wav"],
            ["f0.csv", "-o", "y.csv"],
            ["choir.wav", "--voices", "Q"],
            ["choir.wav", "-o", "choir.wav/x.csv"],
            ["choir.wav", "--per-voice", "-o", "."],
            ["choir.wav", "-o", "/"],
            ["choir.wav", "--guides", "nowhere"],
        ],
    )
    def test_what_is_refused(self, arguments):
        refused("f0", *arguments)


class TestEvaluate:
    @pytest.fixture
    def estimates(self, quartet) -> None:
        noise = np.random.default_rng(0).normal(size=quartet.shape)
        for name, stem, hiss in zip(NAMES, quartet, noise, strict=True):
            scale = 0.1 * np.sqrt((stem**2).mean())
            audio.write(f"estimates/{name}.flac", 0.5 * (stem + scale * hiss), 16000, bit_depth="24")

    def test_plain_figures_of_short_stems(self, estimates):
        result = run("evaluate", "stems", "estimates")
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.stdout.splitlines()]
        assert [line[0] for line in lines[1:]] == [*sorted(NAMES), "all"]
        assert all(float(line[-1]) == pytest.approx(20, abs=0.3) for line in lines[1:])
        assert "No frame counts" in result.stderr

    def test_frames_of_long_stems(self, quartet):
        for name, stem in zip(NAMES, np.tile(quartet, 6), strict=True):
            audio.write(f"true/{name}.wav", stem, 16000)
            audio.write(f"found/{name}.wav", 0.5 * stem + 0.05 * np.roll(stem, 7919), 16000)
        result = run("evaluate", "true", "found")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert all(10 < float(cell) < 35 for line in result.stdout.splitlines()[1:] for cell in line.split()[1:])

    def test_a_voice_that_rests_throughout_does_not_spoil_the_mean(self, estimates, quartet):
        audio.write("stems/tenor.wav", 0 * quartet[2], 16000)
        lines = run("evaluate", "stems", "estimates").stdout.splitlines()
        assert lines[-2].split()[-1] == "nan"
        assert float(lines[-1].split()[-1]) == pytest.approx(20, abs=0.3)

    def test_missing_and_unequal_stems(self, estimates, quartet):
        audio.write("estimates/alto.flac", quartet[1, :9000], 16000)
        assert "expected references and estimates of one length" in refused("evaluate", "stems", "estimates")
        Path("estimates/alto.flac").unlink()
        assert "estimates: has no alto" in refused("evaluate", "stems", "estimates")
        assert "nowhere: is not a folder" in refused("evaluate", "nowhere", "estimates")
        Path("empty").mkdir()
        assert "empty: holds no audio files" in refused("evaluate", "stems", "empty")


class TestTrain:
    @pytest.fixture
    def singers(self, sing) -> None:
        glide = F0[:, :1] * 2 ** (0.1 * np.sin(np.arange(500) * 0.03))
        for name, stem in zip(NAMES[::3], sing(glide[::3]) / 4, strict=True):
            audio.write(f"singers/{name}_1.wav", stem, 16000)

    @pytest.fixture
    def small(self, monkeypatch) -> None:
        """A small network where none is given, and f0 that no CREPE has to track."""
        build, config = estimator.Estimator, estimator.EstimatorConfig(channels=16)
        monkeypatch.setattr(estimator, "Estimator", lambda given=None: build(given or config))

        # Bass and soprano, in the order in which they are read.
        tracks = itertools.cycle([F0Tracks(np.tile(F0[[voice], :1], 501), ("voice",)) for voice in (3, 0)])
        monkeypatch.setattr(sources, "f0_from_stems", lambda stems: next(tracks))

    SHORT = ("--steps", 2, "--batch-size", 1, "--validate-every", 2, "-d", "cpu")
    STILL = ("--steps", 1, "--batch-size", 1, "--learning-rate", 1e-12, "-d", "cpu")

    def test_init_is_where_training_starts(self, singers, small, tiny_model):
        result = run("train", "--singers", "singers", "-o", "run", "--init", tiny_model, *self.STILL)
        assert result.exit_code == 0, result.output
        (config, given), (found_config, found) = (weights.load(path) for path in (tiny_model, "run/best.safetensors"))
        assert found_config == config
        for name in given:
            np.testing.assert_allclose(found[name], given[name], atol=1e-6)
        assert run("train", "--singers", "singers", "-o", "fresh", "--seed", 1, *self.STILL).exit_code == 0
        fresh = weights.load("fresh/best.safetensors")[1]
        assert any(not np.allclose(fresh[name], given[name], atol=1e-3) for name in given)

    def test_stems_decide_on_the_loss(self, singers, small, tiny_model):
        """Weights that stand still have one loss with stems and another without."""
        losses = []
        for options in ([], ["--stems"]):
            command = ["train", "--singers", "singers", "-o", f"run{len(losses)}", "--init", tiny_model]
            result = run(*command, *options, *self.STILL)
            assert result.exit_code == 0, result.output
            losses.append(float(result.stdout.split("validation loss ")[1].split()[0]))
        assert abs(losses[0] - losses[1]) > 0.05

    @pytest.mark.parametrize(("share", "drawn"), [(0, 0), (1, 2)])
    def test_f0_errors_are_made_in_their_share_of_excerpts(self, singers, small, tiny_model, monkeypatch, share, drawn):
        made = []
        monkeypatch.setattr(data, "with_errors", lambda f0, rng: made.append(f0) or f0)
        command = ["train", "--singers", "singers", "--init", tiny_model, "--f0-errors", share, *self.SHORT]
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert len(made) == drawn  # none in validation

    def test_weights_that_separate(self, folder, singers, small):
        result = run("train", "--singers", "singers:1", "-o", "run", "--seed", 7, *self.SHORT)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("run/best.safetensors: validation loss ")
        assert result.stdout.endswith("seed 7\n")
        assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["Tracking f0 ...", "step 2"]
        assert files_in(folder / "run") == ["best.safetensors", "state.safetensors"]
        result = run("separate", "choir.wav", "--f0", "f0.csv", "-n", "run/best.safetensors", "-d", "cpu")
        assert result.exit_code == 0, result.output
        assert "holds a run already; use --resume" in refused("train", "--singers", "singers", "-o", "run", *self.SHORT)
        result = run("train", "--singers", "singers:1", "-o", "run", "--seed", 8, "--resume", *self.SHORT)
        assert (result.exit_code, "holds a run with seed 7" in result.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "nothing to train on"),
            (["--singers", "singers", "--guides", "stems"], "go with a FOLDER"),
            (["stems", "--stems"], "--stems goes with --singers"),
            (["--singers", "singers", "--steps", "0"], "must be 1 or more"),
            (["--singers", "singers", "--seed", "-1"], "seed -1"),
            (["--singers", "singers", "--learning-rate", "nan"], "learning rate is nan"),
        ],
    )
    def test_what_is_refused(self, arguments, message):
        assert message in refused("train", *arguments)
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "nowhere: is not a folder"),
            (["--singers", "stems:1,2"], "no recordings of singer 1"),
            (["--singers", "nowhere:1"], "nowhere: is not a folder"),
        ],
    )
    def test_folders_that_do_not_serve(self, arguments, message):
        result = run("train", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]


class TestBenchmark:
    def test_the_table(self, quartet, model, monkeypatch):
        monkeypatch.setattr(bench, "f0_from_stems", lambda stems, capacity: F0Tracks(np.tile(F0, 6)[:, :595], NAMES))
        for name, stem in zip(NAMES, np.tile(quartet, 6), strict=True):
            audio.write(f"csd/{name}_3.wav", stem, 16000)
        chosen = [part for name in ("comb", "vocalsep", "ideal") for part in ("--system", name)]
        result = run("benchmark", "csd", "--voices", 4, *chosen, "--no-speed", "--csv", "scores.csv", *model)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].startswith("csd, singer 3, weights ")
        first = lines.index("4 voices (SATB): SI-SDR mean / median in dB") + 1
        systems = ["mixture", *["comb"] * 2, *["vocalsep"] * 3, "ideal-form", "ideal-form-unheard", "ideal"]
        table = [line.split() for line in lines[first : first + 11]]
        assert [line[0] for line in table] == ["system", *systems, "f0"]
        assert lines[first + 10].startswith("f0 from the mixture: F at 50 cents ")
        # Each mean, between a name of one word and a slash, is that of the file of scores.
        means = [float(line[line.index("/") - 1]) for line in table[1:10]]
        assert means[0] < means[1] < means[-1]
        written = list(csv.reader(Path("scores.csv").read_text().splitlines()))
        scores = [float(line[6]) for line in written if line[1] == "all" and line[4:6] == ["SI-SDR", "all"]]
        assert scores == pytest.approx(means, abs=0.0051)
        assert (lines[-2].split()[0], lines[-1]) == ("vocalsep", "scores.csv")

    def test_missing_parts(self, model):
        Path("stems/soprano.wav").unlink()
        assert "has no recording named soprano_3" in refused("benchmark", "stems", *model)
