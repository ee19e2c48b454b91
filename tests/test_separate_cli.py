"""`vocalsep separate`: files, output, errors and exit codes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tqdm
from test_cli import F0, NAMES, files_in, folder, quartet, refused, run  # noqa: F401 (fixtures)

from vocalsep import audio
from vocalsep.f0.tracks import F0Tracks

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def model(tiny_model, tiny_tracker) -> list[str]:
    return ["-n", str(tiny_model), "--tracker", str(tiny_tracker), "-d", "cpu"]


def stems_in(place: str) -> list[str]:
    return [name for name in files_in(Path(place)) if not name.endswith(".json")]


def record(path: str = "separated/choir/separation.json") -> dict:
    return json.loads(Path(path).read_text())


class TestOneRecording:
    def test_output(self, model):
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
        total = sum(audio.read(path).waveform for path in written)
        np.testing.assert_allclose(total, audio.read("choir.wav").waveform, atol=1e-6)
        again = run("separate", "choir.wav", "--f0", "f0.csv", *model)
        assert (again.exit_code, again.stdout) == (0, "choir.wav: done before, skipped\n")

    @pytest.mark.parametrize(
        ("options", "file", "subtype"),
        [
            (["--int16"], "choir/bass.wav", "PCM_16"),
            (["--int24", "--format", "flac"], "choir/bass.flac", "PCM_24"),
            (["--float32", "--residual"], "choir/residual.wav", "FLOAT"),
            (["--filename", "{stem}-{track}.{ext}"], "bass-choir.wav", "FLOAT"),
        ],
    )
    def test_formats(self, model, options, file, subtype):
        assert run("separate", "choir.wav", "--f0", "f0.csv", *options, *model).exit_code == 0
        assert soundfile.info(f"separated/{file}").subtype == subtype

    def test_m4a(self, model):
        assert run("separate", "choir.wav", "--f0", "f0.csv", "--format", "m4a", *model).exit_code == 0
        assert audio.read("separated/choir/alto.m4a").waveform.shape[1] == pytest.approx(25600, abs=2048)

    def test_f0_is_tracked(self, model):
        assert run("separate", "choir.wav", "--voices", "SA", *model).exit_code == 0
        assert stems_in("separated") == ["choir/alto.wav", "choir/soprano.wav"]
        assert record()["setup"]["f0"] is None

    def test_f0_from_folders_and_guides(self, model):
        F0Tracks(F0, NAMES).to_csv_per_voice("tracks")
        for out, source in (("a", ["--f0", "tracks"]), ("b", ["--f0", "f0.csv"]), ("c", ["--guides", "stems"])):
            assert run("separate", "choir.wav", *source, "-o", out, *model).exit_code == 0
            assert stems_in(out) == sorted(f"choir/{name}.wav" for name in NAMES)
        for name in NAMES:
            one, other = (audio.read(f"{out}/choir/{name}.wav").waveform for out in "ab")
            np.testing.assert_array_equal(one, other)

    def test_two_stems(self, model):
        f0 = ["--f0", "f0.csv", *model]
        assert run("separate", "choir.wav", "--two-stems", "alto", "-o", "two", *f0).exit_code == 0
        assert run("separate", "choir.wav", "-o", "all", *f0).exit_code == 0
        assert stems_in("two") == ["choir/alto.wav", "choir/no_alto.wav"]
        rest = sum(audio.read(f"all/choir/{name}.wav").waveform for name in NAMES if name != "alto")
        np.testing.assert_allclose(audio.read("two/choir/no_alto.wav").waveform, rest, atol=1e-6)

    @pytest.mark.parametrize(("mode", "gain"), [("rescale", 0.25), ("clamp", 1), ("none", 1)])
    def test_clip_modes(self, model, quartet, mode, gain):  # noqa: F811
        audio.write("loud.wav", quartet[0] * 4 / np.abs(quartet[0]).max(), 16000, bit_depth="float32")
        options = ["--clip-mode", mode, "--int16", "--f0", "f0.csv", "--voices", "S"]
        result = run("separate", "loud.wav", *options, *model)
        assert result.exit_code == 0, result.output
        summary = record("separated/loud/separation.json")["summary"]
        assert summary["gain"] == pytest.approx(gain, rel=1e-3)
        assert (summary["clipped"] > 0) == (mode != "rescale")
        assert ("turned down" in result.stderr) == (mode == "rescale")
        assert ("clipped" in result.stderr) == (mode != "rescale")

    def test_room(self, model, quartet):  # noqa: F811
        for room, seconds in ("1.8", 1.8), ("none", None):
            result = run("separate", "choir.wav", "--f0", "f0.csv", "--room", room, "--overwrite", *model)
            assert result.exit_code == 0, result.output
            found = record("separated/choir/separation.json")["summary"]["room"]
            assert (found and found["reverberation_time"]) == seconds
            assert ("1.8 s" in result.stdout) == (room == "1.8")
        assert "--room" in refused("separate", "choir.wav", "--f0", "f0.csv", "--room", "large", *model)

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["nowhere.wav"], "nowhere.wav"),
            (["empty"], "empty"),
            (["f0.csv"], "f0.csv"),
            (["choir.wav", "--f0", "nowhere.csv"], "nowhere.csv"),
            (["choir.wav", "--f0", "choir.wav"], "choir.wav"),
            (["choir.wav", "--guides", "nowhere"], "nowhere"),
            (["choir.wav", "--guides", "stems", "--voices", "SATR"], "baritone"),
            (["choir.wav", "--f0", "f0.csv", "--guides", "stems"], "--guides"),
            (["choir.wav", "x.wav", "--f0", "f0.csv"], "--f0"),
            (["stems", "--f0", "f0.csv"], "--f0"),
            (["choir.wav", "--f0", "f0.csv", "--voices", "SMA"], "mezzo"),
            (["choir.wav", "--voices", "XYZ"], "SATB"),
            (["choir.wav", "--f0", "short.csv"], "frames"),
            (["choir.wav", "--format", "mp3", "--int24"], "'24'"),
            (["choir.wav", "--filename", "../{stem}.{ext}"], "--filename"),
            (["choir.wav", "stems/choir.wav"], "--filename"),
            (["choir.wav", "--two-stems", "lead"], "--two-stems"),
            (["choir.wav", "--voices", "residual,b", "--residual"], "--voices"),
            (["choir.wav", "-o", "f0.csv"], "f0.csv"),
            (["choir.wav", "--report", "choir.wav"], "--report"),
            (["choir.wav", "-n", "no-such"], "no-such"),
            (["choir.wav", "-n", "crepe-tiny"], "crepe"),
            (["choir.wav", "-d", "cuda"], "--device"),
            (["choir.wav", "-o", "taken"], "--overwrite"),
        ],
    )
    def test_bad_input(self, folder, arguments, word, monkeypatch):  # noqa: F811
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        F0Tracks(np.full((4, 400), 200.0, np.float32), NAMES).to_csv("short.csv")
        Path("empty").mkdir()
        Path("taken/choir").mkdir(parents=True)
        Path("taken/choir/alto.wav").write_text("mine")
        before = [name for name in files_in(folder) if not name.endswith("report.json")]
        assert word in refused("separate", *arguments)
        assert [name for name in files_in(folder) if not name.endswith("report.json")] == before

    @pytest.mark.parametrize("arguments", [[""], ["choir.wav", "-o", ""], []])
    def test_wrong_usage(self, arguments):
        result = run("separate", *arguments)
        assert result.exit_code == 2
        assert "Usage: " in result.stderr

    @pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
    def test_a_file_name_that_is_not_text(self, model):
        name = os.fsdecode(b"na\xefve\x1b[31m\n.wav")
        shutil.copy("choir.wav", name)
        command = [sys.executable, "-m", "vocalsep", "separate", name, "--f0", "f0.csv", *model]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(rb"na\xefve\x1b[31m\n.wav: 1.6 s")

    def test_a_file_name_that_begins_with_a_dash(self, model):
        shutil.copy("choir.wav", "-n.wav")
        assert run("separate", "--voices", "SA", *model, "--", "-n.wav").exit_code == 0
        assert stems_in("separated") == ["-n/alto.wav", "-n/soprano.wav"]


class TestFolders:
    @pytest.fixture(autouse=True)
    def recordings(self, folder) -> None:  # noqa: F811
        Path("in/sub").mkdir(parents=True)
        shutil.copy("choir.wav", "in/one.wav")
        shutil.copy("choir.wav", "in/sub/two.wav")
        Path("in/bad.wav").write_text("no sound")

    def test_a_recording_that_fails(self, model):
        result = run("separate", "in", "-r", "--voices", "SA", *model)
        assert result.exit_code == 1
        assert stems_in("separated") == [
            f"{track}/{voice}.wav" for track in ("one", "sub/two") for voice in ("alto", "soprano")
        ]
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ") and "bad.wav" in line
        done, skipped, failed, error, report = result.stdout.splitlines()[-5:]
        assert [row.split() for row in (done, skipped, failed)] == [["done", "2"], ["skipped", "0"], ["failed", "1"]]
        assert "bad.wav" in error and "report.json" in report
        again = run("separate", "in", "-r", "--voices", "SA", *model)
        assert again.exit_code == 1
        assert again.stdout.count("done before, skipped") == 2

    def test_the_only_recording_of_a_folder_fails(self, model):
        Path("one").mkdir()
        shutil.copy("in/bad.wav", "one/bad.wav")
        assert "bad.wav" in refused("separate", "one", *model)

    def test_dry_run(self, folder, model):  # noqa: F811
        assert run("separate", "in/one.wav", "--voices", "SA", *model).exit_code == 0
        Path("separated/sub/two").mkdir(parents=True)
        Path("separated/sub/two/alto.wav").write_text("mine")
        before = {name: Path(name).stat().st_mtime_ns for name in files_in(folder)}
        result = run("separate", "in", "-r", "--voices", "SA", "--dry-run", *model)
        assert result.exit_code == 0, result.output
        bad, soprano, alto, one, two = result.stdout.replace("\\", "/").splitlines()
        assert bad == "in/bad.wav: would be separated"
        assert [soprano, alto] == ["  separated/bad/soprano.wav", "  separated/bad/alto.wav"]
        assert one == "in/one.wav: done before, would be skipped"
        assert two.startswith("in/sub/two.wav: would fail: separated/sub/two/alto.wav") and "(--overwrite)" in two
        assert {name: Path(name).stat().st_mtime_ns for name in files_in(folder)} == before

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
    def test_an_interrupt(self, model, monkeypatch, error):
        """Also if the code that it interrupts makes another exception of it."""

        def interrupted(*_, **__):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise error from None

        monkeypatch.setattr("vocalsep.separation.files.write_stems", interrupted)
        result = run("separate", "in", "-r", "--voices", "SA", *model)
        assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")
        assert record("separated/report.json")["interrupted"]

    def test_progress_bar(self, model, monkeypatch):
        stream, bar = io.StringIO(), tqdm.tqdm
        shown = {"disable": False, "file": stream, "ncols": 80}
        monkeypatch.setattr(tqdm, "tqdm", lambda **options: bar(**{**options, **shown}))
        assert run("separate", "in", "-r", "--voices", "SA", *model).exit_code == 1
        assert " left " in stream.getvalue()


@pytest.mark.slow
def test_a_real_choir_with_the_bundled_weights(data, tmp_path):
    """A whole choir in a room: four stems, none of them empty, that add up to the recording within 16-bit rounding."""
    source = data / "mixtures" / "dagstuhl_tebe_poem_full_choir_take02.flac"
    result = run("separate", source, "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    recording = audio.read(source).waveform
    stems = [audio.read(tmp_path / source.stem / f"{name}.wav").waveform for name in NAMES]
    gain = record(tmp_path / source.stem / "separation.json")["summary"]["gain"]
    assert gain > 0.8  # stems have peaks that others cancel
    np.testing.assert_allclose(sum(stems), gain * recording, rtol=0, atol=4 * 2.0**-16 + 1e-5)
    assert min(float((stem**2).sum() / (recording**2).sum()) for stem in stems) > 0.05
