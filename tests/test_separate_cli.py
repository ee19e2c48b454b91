"""`vocalsep separate` and `vocalsep completion`: what is written, printed and refused."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tqdm
from click.testing import CliRunner
from test_cli import F0, NAMES, files_in, folder, model, quartet, refused, run  # noqa: F401 (fixtures)

from vocalsep import audio, separator, weights
from vocalsep.batch import running
from vocalsep.cli import main
from vocalsep.cli.completion import completion
from vocalsep.errors import AudioError
from vocalsep.f0.tracks import F0Tracks


@pytest.fixture(autouse=True)
def _loaded_anew():
    """Networks that a test replaces are not those that another has loaded."""
    running._separator.cache_clear()


def stems_in(place: str) -> list[str]:
    """Return the stems in a folder, without records and report."""
    return [name for name in files_in(Path(place)) if not name.startswith(".vocalsep/") and name != "report.json"]


def told(place: str | Path = "separated/report.json") -> dict:
    return json.loads(Path(place).read_text())


class TestOneRecording:
    def test_stems_are_written_and_told(self, model):  # noqa: F811
        result = run("separate", "choir.wav", "--f0", "f0.csv", *model)
        assert result.exit_code == 0, result.output
        written = [f"separated/choir/{name}.wav" for name in NAMES]
        assert stems_in("separated") == sorted(path.removeprefix("separated/") for path in written)
        head, *lines = result.stdout.splitlines()
        assert head.startswith("choir.wav: 1.6 s, separated in ")
        assert [line.replace("\\", "/") for line in lines] == [
            f"  {path}  (sings 100% of the time)" for path in written
        ]
        assert result.stderr == ""

    def test_they_add_up_to_the_recording_at_its_own_depth(self, model, quartet):  # noqa: F811
        assert run("separate", "choir.wav", "--f0", "f0.csv", "-o", "out", *model).exit_code == 0
        total = sum(audio.read(f"out/choir/{name}.wav").waveform for name in NAMES)
        np.testing.assert_allclose(total[0], quartet.sum(axis=0), atol=1e-6)
        assert told("out/report.json")["recordings"][0]["bit_depth"] == "float32"

    @pytest.mark.parametrize(
        ("option", "subtype"), [("--int16", "PCM_16"), ("--int24", "PCM_24"), ("--float32", "FLOAT")]
    )
    def test_depths(self, model, option, subtype):  # noqa: F811
        assert run("separate", "choir.wav", "--f0", "f0.csv", option, *model).exit_code == 0
        assert pytest.importorskip("soundfile").info("separated/choir/bass.wav").subtype == subtype

    def test_without_f0_it_is_tracked(self, model):  # noqa: F811
        result = run("separate", "choir.wav", "--voices", "SA", *model)
        assert result.exit_code == 0, result.output
        assert stems_in("separated") == ["choir/alto.wav", "choir/soprano.wav"]
        assert told()["recipe"]["tracker"]["name"] == "tracker"

    def test_options(self, model):  # noqa: F811
        arguments = ["--format", "flac", "--int24", "--residual", "--filename", "{stem}-{track}.{ext}", "-o", "x/y"]
        result = run("separate", "choir.wav", "--f0", "f0.csv", *arguments, *model)
        assert result.exit_code == 0, result.output
        assert stems_in("x/y") == sorted(f"{name}-choir.flac" for name in (*NAMES, "residual"))
        assert pytest.importorskip("soundfile").info("x/y/bass-choir.flac").subtype == "PCM_24"

    def test_f0_as_folder_and_midi(self, model):  # noqa: F811
        F0Tracks(F0, NAMES).to_csv_per_voice("tracks")
        assert run("separate", "choir.wav", "--f0", "tracks", "-o", "a", *model).exit_code == 0
        assert run("separate", "choir.wav", "--f0", "f0.csv", "-o", "b", *model).exit_code == 0
        for name in NAMES:
            assert Path(f"a/choir/{name}.wav").read_bytes() == Path(f"b/choir/{name}.wav").read_bytes()

    def test_guides(self, model):  # noqa: F811
        result = run("separate", "choir.wav", "--guides", "stems", *model)
        assert result.exit_code == 0, result.output
        assert stems_in("separated") == sorted(f"choir/{name}.wav" for name in NAMES)

    def test_two_stems(self, model):  # noqa: F811
        f0 = ["--f0", "f0.csv", *model]
        assert run("separate", "choir.wav", "--two-stems", "alto", "-o", "two", *f0).exit_code == 0
        assert run("separate", "choir.wav", "-o", "all", *f0).exit_code == 0
        assert stems_in("two") == ["choir/alto.wav", "choir/no_alto.wav"]
        assert Path("two/choir/alto.wav").read_bytes() == Path("all/choir/alto.wav").read_bytes()
        rest = sum(audio.read(f"all/choir/{name}.wav").waveform for name in NAMES if name != "alto")
        np.testing.assert_allclose(audio.read("two/choir/no_alto.wav").waveform, rest, atol=1e-6)
        assert "two_stems is 'lead'" in refused("separate", "choir.wav", "--two-stems", "lead", *f0)

    @pytest.mark.parametrize(("mode", "gain"), [("rescale", 0.25), ("clamp", 1), ("none", 1)])
    def test_clip_modes(self, model, quartet, mode, gain):  # noqa: F811
        peak = np.abs(quartet[0]).max()
        audio.write("loud.wav", quartet[0] * 4 / peak, 16000, bit_depth="float32")
        arguments = ["--clip-mode", mode, "--int16", "--f0", "f0.csv", "--voices", "S"]
        result = run("separate", "loud.wav", *arguments, *model)
        assert result.exit_code == 0, result.output
        (row,) = told()["recordings"]
        assert row["gain"] == pytest.approx(gain, rel=1e-3)
        assert (row["clipped"] > 0) == (mode != "rescale")
        assert ("add up to 0.25" in result.stderr) == (mode == "rescale")
        assert ("were cut at full scale" in result.stderr) == (mode != "rescale")

    def test_what_is_complete_is_skipped(self, model):  # noqa: F811
        assert run("separate", "choir.wav", "--f0", "f0.csv", *model).exit_code == 0
        before = {path: path.stat().st_mtime_ns for path in Path("separated/choir").iterdir()}
        result = run("separate", "choir.wav", "--f0", "f0.csv", *model)
        assert (result.exit_code, result.stdout) == (0, "choir.wav: is complete, skipped\n")
        assert {path: path.stat().st_mtime_ns for path in Path("separated/choir").iterdir()} == before

    def test_stems_that_exist(self, model):  # noqa: F811
        Path("separated/choir").mkdir(parents=True)
        Path("separated/choir/alto.wav").write_text("mine")
        assert "alto.wav exists, and no record" in refused("separate", "choir.wav", "--f0", "f0.csv", *model)
        assert stems_in("separated") == ["choir/alto.wav"]
        assert run("separate", "choir.wav", "--f0", "f0.csv", "--overwrite", *model).exit_code == 0
        assert audio.read("separated/choir/alto.wav").sample_rate == 16000

    def test_seed_is_told(self, model):  # noqa: F811
        assert run("separate", "choir.wav", "--f0", "f0.csv", "--seed", 9, *model).exit_code == 0
        report = told()
        assert report["recipe"]["settings"]["seed"] == 9
        assert report["recipe"]["model"]["sha256"] == weights.sha256(model[1])
        assert report["command"][0] == "vocalsep"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.wav"], "nowhere.wav: no such file"),
            (["empty"], "empty: holds no audio files"),
            (["f0.csv"], "cannot be read as audio"),
            (["choir.wav", "--f0", "nowhere.csv"], "nowhere.csv: cannot be read (No such file or directory)"),
            (["choir.wav", "--f0", "choir.wav"], "is not text"),
            (["choir.wav", "--guides", "nowhere"], "nowhere: is not a folder"),
            (["choir.wav", "--guides", "stems", "--voices", "SATR"], "has no recording of baritone"),
            (["choir.wav", "--f0", "f0.csv", "--guides", "stems"], "expected one of them"),
            (["choir.wav", "x.wav", "--f0", "f0.csv"], "belong to one recording; got 2 files"),
            (["stems", "--f0", "f0.csv"], "belong to one recording; got 4 recordings"),
            (["choir.wav", "--f0", "f0.csv", "--voices", "SMA"], "no column 'mezzo'"),
            (["choir.wav", "--voices", "XYZ"], "expected part letters"),
            (["choir.wav", "--f0", "short.csv"], "expected 100 frames"),
            (["choir.wav", "--int24", "--float32"], "expected one of them"),
            (["choir.wav", "--format", "mp3", "--int24"], "mp3 has no bit depth"),
            (["choir.wav", "--filename", "../{stem}.{ext}"], "leads out of the output folder"),
            (["choir.wav", "--filename", "{track.__class__}/{stem}.{ext}"], "expected a template"),
            (["choir.wav", "--filename", "{stem}" + "o" * 300 + ".{ext}", "-o", "."], "cannot be a file"),
            (["choir.wav", "stems/choir.wav"], "would both be"),
            (["choir.wav", "--voices", "residual,b", "--residual"], "a voice is named 'residual'"),
            (["choir.wav", "--adapt-seconds", "3"], "goes with --adapt"),
            (["choir.wav", "-o", "f0.csv"], "f0.csv: cannot be written to"),
            (["choir.wav", "--report", "choir.wav"], "is a recording or a stem"),
        ],
    )
    def test_what_is_refused(self, folder, model, arguments, message):  # noqa: F811
        F0Tracks(np.full((4, 400), 200.0, np.float32), NAMES).to_csv("short.csv")
        Path("empty").mkdir()
        before = [name for name in files_in(folder) if not name.startswith("separated/")]
        assert message in refused("separate", *arguments, *model)
        assert [name for name in files_in(folder) if not name.startswith("separated/")] == before
        assert not Path("separated").exists() or stems_in("separated") == []

    @pytest.mark.parametrize("name", ["no-such", "nowhere.safetensors", "crepe-tiny", "choir.wav"])
    def test_weights_that_do_not_serve(self, name):
        refused("separate", "choir.wav", "--f0", "f0.csv", "-n", name)

    def test_weights_that_do_not_fit(self, tiny_model):
        config, tensors = weights.load(tiny_model)
        weights.save("x.safetensors", {**config, "channels": 8}, tensors)
        assert "do not fit the estimator" in refused("separate", "choir.wav", "--f0", "f0.csv", "-n", "x.safetensors")

    def test_verbose_shows_the_traceback(self):
        result = run("--verbose", "separate", "nowhere.wav", "--f0", "f0.csv", "-n", "no-such")
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: no weights named")

    @pytest.mark.parametrize("verbose", [False, True])
    def test_what_nobody_expected_exits_with_1(self, model, monkeypatch, verbose):  # noqa: F811
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("two\n  lines")

        monkeypatch.setattr(separator.Separator, "stems", fail)
        result = run(*["--verbose"] * verbose, "separate", "choir.wav", "--f0", "f0.csv", *model)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert lines[-1].startswith("Error: RuntimeError: two lines (unexpected: run `vocalsep --verbose")
        assert ("Traceback" in result.stderr) == verbose
        assert verbose or len(lines) == 1

    def test_a_name_that_is_no_text(self, model, sing):  # noqa: F811
        name = os.fsdecode(b"na\xefve\x1b[31m\n.wav")
        try:
            shutil.copy("choir.wav", name)
        except (OSError, UnicodeError):
            pytest.skip("no such names here")
        command = [sys.executable, "-c", "from vocalsep.cli import main; main()", "separate", name, "--f0", "f0.csv"]
        done = subprocess.run(
            [*command, *model], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].startswith(rb"na\xefve\x1b[31m\n.wav: 1.6 s")
        assert len(stems_in("separated")) == 4
        bad = subprocess.run([*command, *model, "--seed", "4"], capture_output=True, check=False)
        assert bad.returncode == 2
        assert bad.stderr.startswith(rb"Error: na\xefve\x1b[31m\n.wav: ")
        assert bad.stderr.count(b"\n") == 1


class TestFolders:
    @pytest.fixture
    def recordings(self) -> None:
        Path("in/sub").mkdir(parents=True)
        shutil.copy("choir.wav", "in/one.wav")
        shutil.copy("choir.wav", "in/sub/two.wav")
        Path("in/bad.wav").write_text("no sound")

    def test_a_folder_with_a_bad_file(self, recordings, model):  # noqa: F811
        result = run("separate", "in", "-r", "--voices", "SA", "--refine", 0, *model)
        assert result.exit_code == 1
        assert stems_in("separated") == [
            f"{track}/{voice}.wav" for track in ("one", "sub/two") for voice in ("alto", "soprano")
        ]
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: in/bad.wav: cannot be read as audio") or os.sep == "\\"
        table = result.stdout.splitlines()[-5:]
        assert [row.split()[:2] for row in table[:3]] == [["done", "2"], ["skipped", "0"], ["failed", "1"]]
        assert "bad.wav: cannot be read as audio" in table[3]
        assert told()["summary"] == {"done": 2, "skipped": 0, "failed": 1, "unfinished": 0}
        again = run("separate", "in", "-r", "--voices", "SA", "--refine", 0, *model)
        assert again.exit_code == 1
        assert again.stdout.count("is complete, skipped") == 2

    def test_one_recording_that_fails_in_a_folder_of_one(self, model):  # noqa: F811
        Path("in").mkdir()
        Path("in/bad.wav").write_text("no sound")
        assert "bad.wav: cannot be read as audio" in refused("separate", "in", *model)

    def test_a_dry_run_writes_nothing(self, folder, recordings, model):  # noqa: F811
        assert run("separate", "in/one.wav", "--voices", "SA", "--refine", 0, *model).exit_code == 0
        Path("separated/sub/two").mkdir(parents=True)
        Path("separated/sub/two/alto.wav").write_text("mine")
        before = {name: Path(name).stat().st_mtime_ns for name in files_in(folder)}
        result = run("separate", "in", "-r", "--voices", "SA", "--refine", 0, "--dry-run", *model)
        assert result.exit_code == 0, result.output
        assert result.stdout.replace("\\", "/").splitlines() == [
            "in/bad.wav: would be separated",
            "  separated/bad/soprano.wav",
            "  separated/bad/alto.wav",
            "in/one.wav: is complete, would be skipped",
            "in/sub/two.wav: would fail: separated/sub/two/alto.wav exists, and no record tells that vocalsep wrote "
            "it; --overwrite replaces it",
        ]
        assert {name: Path(name).stat().st_mtime_ns for name in files_in(folder)} == before

    def test_stems_of_another_format_are_never_taken_for_recordings(self, recordings, model):  # noqa: F811
        """Nor forgotten: what an earlier run wrote beside them stays known."""
        call = ("separate", "in", "-r", "-o", "in", "--voices", "SA", "--refine", 0, *model)
        for _ in range(2):
            for more in ((), ("--format", "flac"), ("--two-stems", "alto", "--overwrite")):
                run(*call, *more)
                inputs = [Path(row["input"]).as_posix() for row in told("in/report.json")["recordings"]]
                assert inputs == ["in/bad.wav", "in/one.wav", "in/sub/two.wav"]
        assert "is of an earlier run with other settings" in run(*call).stderr

    def test_a_report_that_cannot_be_written_is_said_first(self, model):  # noqa: F811
        Path("file").write_text("no folder")
        result = run("separate", "choir.wav", "--report", "file/report.json", "--voices", "SA", *model)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith("Error: file/report.json: cannot be written")
        assert not Path("separated/choir").exists()

    def test_a_path_that_is_empty(self, model):  # noqa: F811
        for arguments in (["separate", ""], ["separate", "choir.wav", "-o", ""]):
            result = run(*arguments, *model)
            assert result.exit_code == 2
            assert "it is empty; expected the path of a file or folder" in result.stderr

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash to close what it prints to")
    def test_work_goes_on_without_a_terminal_or_anybody_who_reads(self, model):  # noqa: F811
        command = [sys.executable, "-m", "vocalsep", "separate", "choir.wav", "--voices", "SA", "--refine", "0"]
        for number, closing in enumerate((">&-", "2>&-", ">/dev/full", "| true")):
            line = shlex.join([*command, *map(str, model), "-o", f"out{number}"])
            done = subprocess.run(["bash", "-c", f"{line} {closing}"], capture_output=True, text=True)
            assert stems_in(f"out{number}") == ["choir/alto.wav", "choir/soprano.wav"], (closing, done.stderr)

    def test_what_lies_there_from_before_is_said(self, model):  # noqa: F811
        call = ("separate", "choir.wav", "--voices", "SA", "--refine", 0, *model)
        run(*call)
        again = run(*call, "--two-stems", "alto", "--overwrite")
        assert again.exit_code == 0
        assert "soprano.wav is still there, from an earlier run" in again.stderr

    @pytest.mark.parametrize(("free", "code", "others"), [(0, 2, "unfinished"), (1 << 30, 1, "failed")])
    def test_a_full_disk_ends_the_run(self, recordings, model, monkeypatch, free, code, others):  # noqa: F811
        """But not one that only lacks room for a long recording."""

        def full(separator, source, *_, **__):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise AudioError(f"{source}: cannot be written (No space left on device)") from error

        monkeypatch.setattr(running, "write_stems", full)
        monkeypatch.setattr(running.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        result = run("separate", "in", "-r", "--voices", "SA", *model)
        assert result.exit_code == code
        assert "Error: in/bad.wav: cannot be written (No space left" in result.stderr
        assert [row["status"] for row in told()["recordings"]] == ["failed", others, others]

    def test_an_interruption(self, recordings, model, monkeypatch):  # noqa: F811
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(running, "write_stems", interrupted)
        result = run("separate", "in", "-r", "--voices", "SA", *model)
        assert result.exit_code == 130
        assert result.stderr == "Interrupted: the same command takes it up again.\n"
        assert told()["interrupted"]

    def test_names_that_begin_with_a_dash(self, model):  # noqa: F811
        Path("-n.wav").write_bytes(Path("choir.wav").read_bytes())
        result = run("separate", "--voices", "SA", "--refine", 0, *model, "--", "-n.wav")
        assert result.exit_code == 0, result.output
        assert stems_in("separated") == ["-n/alto.wav", "-n/soprano.wav"]

    def test_progress_is_weighed_by_length(self, recordings, model, monkeypatch, quartet):  # noqa: F811
        """On a terminal there is one bar over all, on which a long recording has a long share."""
        from vocalsep.batch.folders import prepare
        from vocalsep.cli import batch_display
        from vocalsep.separation.files import Settings

        audio.write("in/long.wav", np.tile(quartet.sum(axis=0), 9), 16000)
        batch = prepare(["in"], "out", Settings(), model=model[1])
        assert batch_display._lengths(batch) == pytest.approx([8, 14.4, 1.6], abs=0.2)
        display = batch_display.Display(batch, [])
        assert display._bar.disable  # no terminal here
        display.close()
        stream, bar = io.StringIO(), tqdm.tqdm
        terminal = {"disable": False, "file": stream, "ncols": 80}
        monkeypatch.setattr(tqdm, "tqdm", lambda **given: bar(**{**given, **terminal}))
        display = batch_display.Display(batch, [])
        listener = display.listener()
        listener.finished(0, running.Outcome(Path("in/bad.wav"), "failed", "bad"))
        listener.progress(1, 0.5)
        assert display._bar.n / display._bar.total == pytest.approx((8 + 7.2) / 24, abs=0.01)
        listener.finished(1, running.Outcome(Path("in/long.wav"), "skipped"))
        assert display._bar.n / display._bar.total == pytest.approx(8 / 9.6, abs=0.01)
        display.close()
        assert " left long.wav" in stream.getvalue()


class TestCompletion:
    @pytest.fixture(autouse=True)
    def command(self, monkeypatch) -> None:
        monkeypatch.setitem(main.commands, "completion", completion)

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts(self, shell):
        result = run("completion", shell)
        assert result.exit_code == 0, result.output
        assert f"_VOCALSEP_COMPLETE={shell}_complete" in result.stdout

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("vocalsep sep", ["separate"]),
            ("vocalsep separate --clip-mode r", ["rescale"]),
            ("vocalsep separate --two", ["--two-stems"]),
        ],
    )
    def test_in_bash(self, words, expected):
        bash = shutil.which("bash")
        script = shutil.which("vocalsep", path=str(Path(sys.executable).parent))
        if bash is None or script is None or os.name == "nt":
            pytest.skip("needs bash, and the package installed with its script")
        typed = " ".join(f"'{word}'" for word in words.split())
        code = f"""
            {CliRunner().invoke(main, ["completion", "bash"]).stdout}
            COMP_WORDS=({typed}); COMP_CWORD={len(words.split()) - 1}
            _vocalsep_completion vocalsep; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        path = {"PATH": f"{Path(script).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [bash, "--norc", "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **path}
        )
        assert done.stdout.split() == expected, done.stderr


def test_a_real_choir_with_the_default_weights(data, tmp_path):
    """A whole choir in a room: four stems, none empty, that add up to the recording within 16-bit rounding."""
    source = data / "mixtures" / "dagstuhl_tebe_poem_full_choir_take02.flac"
    result = run("separate", source, "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    recording = audio.read(source).waveform
    stems = [audio.read(tmp_path / source.stem / f"{name}.wav").waveform for name in NAMES]
    gain = told(tmp_path / "report.json")["recordings"][0]["gain"]
    assert gain > 0.8  # stems have peaks that others cancel
    np.testing.assert_allclose(sum(stems), gain * recording, rtol=0, atol=4 * 2.0**-16 + 1e-5)
    levels = [float((stem**2).sum() / (recording**2).sum()) for stem in stems]
    assert min(levels) > 0.05
