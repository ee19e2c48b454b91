"""Folders: what is found in them, the names of stems, what is refused before anything is written, and the report."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
import unicodedata
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import vocalsep
from vocalsep import audio, separate_files
from vocalsep.audio.writer import temporary_name
from vocalsep.batch import folders, planning, records, report, running, workers
from vocalsep.batch.planning import plan
from vocalsep.errors import AudioError, OptionError, WeightsError, printable
from vocalsep.paths import safe_name, stem_paths
from vocalsep.separation.files import Settings, Written
from vocalsep.voices import folded

STEMS = ["soprano", "alto"]
RESERVED = ["CON", "prn", "aux.x", "NUL", "com1", "LPT9.take", "COM²", "CONIN$", "nul ."]


class FakePending:
    """Stems whose content tells what they are made of, as `stem_files.PendingStems` would hold them."""

    def __init__(self, content: bytes, targets: dict[str, Path]) -> None:
        self.written = Written(1.0, 16000, 1, "16", 1.0, 0, dict.fromkeys(targets, 0.5), None, None)
        self.targets = targets
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary_name(target).write_bytes(name.encode() + b" of " + content)

    def commit(self) -> None:
        for target in self.targets.values():
            temporary_name(target).replace(target)

    def discard(self) -> None:
        for target in self.targets.values():
            temporary_name(target).unlink(missing_ok=True)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """No network is loaded and stems are quick; returns the names of the recordings that are separated."""
    names = []

    def write(separator, source, targets, settings, f0s, *, progress):
        progress("f0", 0.5)
        content = source.read_bytes()
        if content.startswith(b"bad"):
            raise AudioError(f"{source}: cannot be read as audio")
        names.append(source.name)
        return FakePending(content, dict(targets))

    monkeypatch.setattr(running, "write_stems", write)
    monkeypatch.setattr(running, "_separator", lambda *_: None)
    return names


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if path.stem.startswith("bad") else b"sound of " + os.fsencode(name))


def targets(inputs, out="out", **options) -> dict[str, list[str]]:
    planned = plan(inputs, out, STEMS, **options)
    return {task.source.as_posix(): [path.as_posix() for path in task.targets.values()] for task in planned.tasks}


def files_in(folder: Path | str) -> list[str]:
    """Files in a folder but records, reports and what locks need."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] != ".vocalsep" and path.name != "report.json")


class TestWalk:
    def test_structure_is_kept(self):
        put("in/a.wav", "in/sub/b.FLAC", "in/sub/dir/c d.mp3", "in/notes.txt", "in/film.mp4")
        assert targets(["in"]) == {
            "in/a.wav": ["out/a/soprano.wav", "out/a/alto.wav"],
            "in/film.mp4": ["out/film/soprano.wav", "out/film/alto.wav"],
        }
        deep = targets(["in"], recursive=True)
        assert deep["in/sub/b.FLAC"] == ["out/sub/b/soprano.wav", "out/sub/b/alto.wav"]
        assert deep["in/sub/dir/c d.mp3"][0] == "out/sub/dir/c d/soprano.wav"
        assert list(deep) == ["in/a.wav", "in/film.mp4", "in/sub/b.FLAC", "in/sub/dir/c d.mp3"]

    def test_files_and_folders_mixed(self):
        put("in/a.wav", "x/b.wav")
        assert list(targets(["x/b.wav", "in"])) == ["x/b.wav", "in/a.wav"]

    def test_hidden_files_are_left_out(self):
        put("in/a.wav", "in/.b.wav", "in/.git/c.wav")
        assert list(targets(["in"], recursive=True)) == ["in/a.wav"]

    @pytest.mark.parametrize("out", ["in/out", "in", "in/sub"])
    def test_stems_of_an_earlier_run_are_no_recordings(self, made, out):
        put("in/a.wav", "in/sub/b.wav")
        first = list(targets(["in"], out, recursive=True))
        separate_files(["in"], out, voices="SA", recursive=True, check=False)
        assert len(files_in(out)) >= len(first) * 2
        assert list(targets(["in"], out, recursive=True)) == first
        # Nor for a run with another output folder.
        assert set(targets(["in"], "elsewhere", recursive=True)) == {"in/a.wav", "in/sub/b.wav"}

    def test_a_folder_inside_the_output_of_an_earlier_run(self, made):
        put("in/x/a.wav")
        separate_files(["in"], "out", voices="SA", recursive=True)
        with pytest.raises(AudioError, match="holds no audio"):
            plan(["out/x"], "other", STEMS, recursive=True)

    def test_loops_and_links(self):
        put("in/real/a.wav")
        try:
            Path("in/real/loop").symlink_to("..", target_is_directory=True)
            Path("in/again").symlink_to("real", target_is_directory=True)
            Path("in/b.wav").symlink_to("real/a.wav")
            Path("in/broken.wav").symlink_to("nowhere.wav")
        except OSError:
            pytest.skip("links cannot be made here")
        assert list(targets(["in"], recursive=True)) == ["in/b.wav", "in/broken.wav", "in/real/a.wav"]

    def test_a_folder_without_audio(self):
        put("in/notes.txt", "in/sub/a.wav")
        with pytest.raises(AudioError, match=r"in: holds no audio files \(1 other files\).*-r"):
            plan(["in"], "out", STEMS)
        assert len(targets(["in"], recursive=True)) == 1

    def test_a_folder_that_cannot_be_looked_into_is_a_failure(self, made, monkeypatch):
        put("in/a.wav", "in/locked/b.wav")
        look = os.scandir

        def refuse(path):
            if Path(path).name == "locked":
                raise PermissionError(13, "Permission denied")
            return look(path)

        monkeypatch.setattr(planning.os, "scandir", refuse)
        outcomes = separate_files(["in"], "out", voices="SA", recursive=True, check=False)
        assert [outcome.status for outcome in outcomes] == ["done", "failed"]
        assert "in/locked: cannot be looked into (Permission denied)" in outcomes[1].error.replace("\\", "/")

    def test_one_file_named_twice_is_one_recording(self):
        put("in/a.wav")
        inputs = ["in/a.wav", "in/a.wav", Path("in/a.wav").absolute(), "in/../in/a.wav", "in"]
        assert list(targets(inputs)) == ["in/a.wav"]


class TestNames:
    @pytest.mark.parametrize(
        "name", [*RESERVED, 'a<b>c:"d/e\\f|g?h*i', "tab\tnew\nline\x1b[31m", "dots...", "blank ", ""]
    )
    def test_they_are_safe_on_windows(self, name):
        safe = safe_name(name)
        assert safe
        assert not set(safe) & set('<>:"/\\|?*') and safe.isprintable()
        assert safe[-1] not in ". " and safe[0] != "."
        assert safe.split(".")[0].strip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "COM²", "CONIN$"}
        assert safe_name(safe) == safe

    @pytest.mark.parametrize("name", [".", "..", "...", ". .", ".hidden"])
    def test_names_of_dots(self, name):
        assert safe_name(name).startswith("_")

    @pytest.mark.parametrize("name", ["Ave Maria", "-n", "œuvre 2.0", "😀 take", "日本語", "con brio", "nullity"])
    def test_good_names_stay(self, name):
        assert safe_name(name) == name

    def test_composed_and_decomposed_are_one_name(self):
        assert safe_name(unicodedata.normalize("NFD", "Gésu è")) == unicodedata.normalize("NFC", "Gésu è")

    def test_bytes_that_are_no_text(self):
        assert safe_name(os.fsdecode(b"caf\xe9")) == "caf%E9" or sys.platform == "win32"

    @pytest.mark.parametrize("letter", ["a", "é", "日", "😀"])
    @pytest.mark.parametrize(
        "filename", ["{track}/{stem}.{ext}", "{stem} - {track}.{ext}", "{track}{track}/{stem}.{ext}"]
    )
    def test_every_name_fits_with_its_temporary_one(self, letter, filename):
        long = letter * (255 // len(letter.encode()))
        place, paths = stem_paths(long, ["soprano", "residual"], filename=filename)
        other = stem_paths(long[:-1] + "x", ["soprano", "residual"], filename=filename)[0]
        assert place != other
        for path in paths.values():
            assert all(len(part.encode()) <= 255 for part in path.parts)
            assert len(temporary_name(Path(path)).name.encode()) <= 255
            assert path.name.startswith(("soprano", "residual"))
            written = Path("out", *path.parts)
            written.parent.mkdir(parents=True, exist_ok=True)
            temporary_name(written).touch()
            written.touch()

    def test_templates_that_leave_no_room(self):
        with pytest.raises(OptionError, match="cannot be a file"):
            stem_paths("x", STEMS, filename="{stem}" + 300 * "o" + ".{ext}")

    @pytest.mark.parametrize(
        ("filename", "message"),
        [
            ("{track}.{ext}", "the same for every stem"),
            ("../{stem}.{ext}", "leads out"),
            ("/{stem}.{ext}", "leads out"),
            ("{stem}.flac", "end in"),
            ("{stem.__class__}.{ext}", "expected a template"),
            ("{stem!r}.{ext}", "expected a template"),
            ("{stem:>9}.{ext}", "expected a template"),
            ("{", "expected a template"),
            ("\0{stem}.{ext}", "expected a template"),
            ("\udce9{stem}.{ext}", "expected a template"),
        ],
    )
    def test_templates_that_do_not_serve(self, filename, message):
        with pytest.raises(OptionError, match=message):
            stem_paths("x", STEMS, filename=filename)

    def test_what_terminals_see(self):
        assert printable("a\x1b[2J\n\udce9\u202e") == "a\\x1b[2J\\n\\xe9\\u202e"
        printable("a\x1b[2J\n\udce9\u202e").encode("utf-8")

    def test_what_is_one_path_to_a_file_system(self):
        assert folded("Straße/É") == folded(unicodedata.normalize("NFD", "STRASSE/é"))
        assert folded("a") != folded("b")


class TestCollisions:
    @pytest.mark.parametrize(
        ("inputs", "template"),
        [
            (["a/choir.wav", "b/choir.wav"], "{track}/{stem}.{ext}"),
            (["a/choir.wav", "a/choir.flac"], "{track}/{stem}.{ext}"),
            (["a/choir.wav", "a/Choir.wav"], "{track}/{stem}.{ext}"),
            (["a/\u00e9.wav", "a/e\u0301.wav"], "{track}/{stem}.{ext}"),
            (["a/what?.wav", "a/what*.wav"], "{track}/{stem}.{ext}"),
            (["a/one.wav", "a/two.wav"], "{stem}.{ext}"),
            (["soprano.wav"], "{stem}.{ext}"),
            (["SOPRANO.wav"], "{stem}.{ext}"),
            (["choir"], "{track}/{stem}.{ext}"),
        ],
    )
    def test_they_are_refused(self, here, inputs, template):
        with pytest.raises(OptionError, match=r"would (both )?(be|replace)") as caught:
            plan(inputs, here, STEMS, filename=template)
        assert all(str(Path(name)) in str(caught.value) for name in inputs)

    def test_a_stem_that_is_the_folder_of_others(self):
        put("in/x.wav", "in/x/soprano.wav/deep.wav")
        with pytest.raises(OptionError, match="would both be"):
            plan(["in"], "out", STEMS, recursive=True)

    def test_through_a_link(self, here):
        Path("real").mkdir()
        try:
            Path("link").symlink_to("real", target_is_directory=True)
        except OSError:
            pytest.skip("links cannot be made here")
        put("real/soprano.wav")
        with pytest.raises(OptionError, match="would replace the recording"):
            plan(["real/soprano.wav"], "link", STEMS, filename="{stem}.{ext}")

    def test_nothing_is_written(self, made):
        put("in/a.wav", "in/a.flac", "in/b.wav")
        with pytest.raises(OptionError, match=r"a\.(wav|flac) and in.a\.(wav|flac) would both be"):
            separate_files(["in"], "out", voices="SA")
        assert not Path("out").exists() and made == []


class TestSeparateFiles:
    def test_all_are_done_once(self, made):
        put("in/a.wav", "in/b/c.wav")
        first = separate_files(["in"], "out", voices="SA", recursive=True)
        assert [(outcome.status, outcome.files) for outcome in first] == [
            ("done", ("a/soprano.wav", "a/alto.wav")),
            ("done", ("b/c/soprano.wav", "b/c/alto.wav")),
        ]
        assert Path("out/b/c/alto.wav").read_bytes() == b"alto of sound of in/b/c.wav"
        second = separate_files(["in"], "out", voices="SA", recursive=True)
        assert [outcome.status for outcome in second] == ["skipped", "skipped"]
        assert made == ["a.wav", "c.wav"]
        third = separate_files(["in"], "out", voices="SA", recursive=True, overwrite=True)
        assert [outcome.status for outcome in third] == ["done", "done"]

    def test_a_bad_file_does_not_stop_the_others(self, made):
        put("in/a.wav", "in/bad.wav", "in/c.wav")
        told = []
        with pytest.raises(OptionError, match=r"1 of 3 recordings.*bad\.wav: cannot be read"):
            separate_files(["in", "nowhere.wav"][:1], "out", voices="SA", finished=told.append)
        assert [outcome.status for outcome in told] == ["done", "failed", "done"]
        assert made == ["a.wav", "c.wav"]

    def test_missing_and_strange_inputs(self, made):
        put("a.wav")
        inputs = ["a.wav", "nowhere.wav", "zero\0byte.wav", "x" * 300 + ".wav"]
        if hasattr(os, "mkfifo"):
            os.mkfifo("pipe.wav")
            inputs.append("pipe.wav")
        outcomes = separate_files(inputs, "out", voices="SA", check=False)
        assert [outcome.status for outcome in outcomes] == ["done"] + ["failed"] * (len(inputs) - 1)
        errors = [outcome.error for outcome in outcomes]
        assert "no such file" in errors[1]
        assert "a device" in errors[-1] or not hasattr(os, "mkfifo")

    def test_what_nobody_expected_is_a_failure_of_that_recording(self, made, monkeypatch):
        put("in/a.wav", "in/b.wav")
        write = running.write_stems

        def fail(separator, source, *rest, **more):
            if source.name == "a.wav":
                raise RuntimeError("two\n lines")
            return write(separator, source, *rest, **more)

        monkeypatch.setattr(running, "write_stems", fail)
        outcomes = separate_files(["in"], "out", voices="SA", check=False)
        assert [outcome.status for outcome in outcomes] == ["failed", "done"]
        assert "RuntimeError: two lines (unexpected" in outcomes[0].error

    def test_weights_that_do_not_load_end_the_run(self, made, monkeypatch):
        put("in/a.wav", "in/b.wav")

        def fail(*_: object) -> None:
            raise WeightsError("no network")

        monkeypatch.setattr(running, "_separator", fail)
        with pytest.raises(WeightsError, match="no network"):
            separate_files(["in"], "out", voices="SA")
        with pytest.raises(WeightsError, match="no weights named"):
            separate_files(["in"], "out", model="no-such")

    def test_a_recording_that_changes_meanwhile(self, made, monkeypatch):
        put("a.wav")
        write = running.write_stems

        def late(separator, source, *rest, **more):
            pending = write(separator, source, *rest, **more)
            source.write_bytes(b"more")
            return pending

        monkeypatch.setattr(running, "write_stems", late)
        (outcome,) = separate_files(["a.wav"], "out", voices="SA", check=False)
        assert "was changed while" in outcome.error
        assert files_in("out") == []

    @pytest.mark.skipif(os.name == "nt", reason="folders have no such rights")
    def test_a_folder_that_cannot_be_written_to(self, made, monkeypatch):
        put("a.wav", "file")
        with pytest.raises(AudioError, match=r"file.out: cannot be written to"):
            separate_files(["a.wav"], "file/out", voices="SA")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"jobs": 0}, "jobs is 0"),
            ({"clip_mode": "loud"}, "clip_mode is 'loud'"),
            ({"audio_format": "flac", "bit_depth": "float32"}, "has no bit depth"),
            ({"audio_format": "aiff"}, "format is 'aiff'"),
            ({"two_stems": "tenor"}, "two_stems is 'tenor'"),
            ({"device": "abacus"}, "device is 'abacus'"),
            ({"report": "out/a/alto.wav"}, "is a recording or a stem"),
            ({"report": "a.wav"}, "is a recording or a stem"),
            ({"report": "notes.txt"}, "is no report"),
        ],
    )
    def test_what_is_refused_before_anything_is_written(self, made, options, message):
        put("a.wav", "notes.txt")
        with pytest.raises(OptionError, match=message):
            separate_files(["a.wav"], "out", voices="SA", **options)
        assert not Path("out").exists()

    def test_a_path_is_no_list(self):
        with pytest.raises(OptionError, match="expected a list"):
            separate_files("a.wav", "out")

    @pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
    def test_hostile_names_all_the_way(self, made):
        names = [
            b"two words.wav",
            b"-n.wav",
            b"new\nline.wav",
            "e\u0301t\u00e9 \U0001f600.wav".encode(),
            b"\xff\xfe.wav",
        ]
        names += [b"...wav", b"con.wav", b"x" * 251 + b".wav", b"\x1b[31m.wav", b"a|b:c.wav"]
        Path("in").mkdir()
        for name in names:
            Path("in", os.fsdecode(name)).write_bytes(b"sound")
        outcomes = separate_files(["in"], "out", voices="SA")
        assert [outcome.status for outcome in outcomes] == ["done"] * len(outcomes)
        assert len(outcomes) == len(names) - 1  # "...wav" is hidden
        assert all(path == safe_name(path) for file in files_in("out") for path in file.split("/"))
        told = json.loads(Path("out/report.json").read_bytes())
        assert {os.fsencode(row["input"]) for row in told["recordings"]} == {b"in/" + n for n in names if n[0] != 46}
        assert {outcome.status for outcome in separate_files(["in"], "out", voices="SA")} == {"skipped"}


class TestReal:
    @pytest.fixture
    def recordings(self, sing) -> list[Path]:
        voices = sing(np.array([[440.0], [220.0]]) * np.ones(60)) / 4
        for name, gain in (("one.wav", 1.0), ("two.flac", 0.5), ("three.wav", 0.7)):
            audio.write(Path("in", name), gain * voices.sum(axis=0), 16000)
        return sorted(Path("in").iterdir())

    def test_the_networks_load_once(self, recordings, tiny_model, monkeypatch):
        from vocalsep import separator

        loads = []
        load = separator.load_estimator
        monkeypatch.setattr(separator, "load_estimator", lambda *given: loads.append(given) or load(*given))
        running._separator.cache_clear()
        outcomes = separate_files(["in"], "out", voices=2, model=tiny_model, device="cpu", refine=0, residual=True)
        assert [outcome.status for outcome in outcomes] == ["done"] * 3
        assert len(loads) == 1
        assert files_in("out") == sorted(
            f"{path.stem}/{stem}.wav" for path in recordings for stem in ("voice1", "voice2", "residual")
        )
        for path in recordings:
            stems = [audio.read(file).waveform for file in Path("out", path.stem).iterdir()]
            np.testing.assert_allclose(sum(stems), audio.read(path).waveform, atol=3 * 2.0**-16)

    @pytest.mark.usefixtures("one_thread")
    def test_processes_and_threads_write_the_same(self, recordings, tiny_model):
        options = {"voices": 2, "model": tiny_model, "device": "cpu", "refine": 0}
        alone = separate_files(["in"], "alone", **options)
        together = separate_files(["in"], "together", jobs=2, **options)
        batch = folders.prepare(["in"], "threads", Settings(voices=2, refine=0), model=tiny_model, device="cpu", jobs=2)
        found = {}
        listener = running.Listener(lambda *_: None, found.__setitem__)
        running.run_threads(list(enumerate(batch.plan.tasks)), batch.job, listener, 2)
        for one, other, third in zip(alone, together, (found[n] for n in range(3)), strict=True):
            sums = [[mark.sha256 for mark in outcome.record.files.values()] for outcome in (one, other, third)]
            assert sums[0] == sums[1] == sums[2]

    def test_one_stem_and_the_rest(self, recordings, tiny_model):
        options = {"voices": 2, "model": tiny_model, "device": "cpu", "refine": 0, "bit_depth": "float32"}
        separate_files(recordings[:1], "all", **options)
        separate_files(recordings[:1], "two", two_stems="voice2", **options)
        track = recordings[0].stem
        assert files_in("two") == [f"{track}/no_voice2.wav", f"{track}/voice2.wav"]
        for name, other in (("voice2", "voice2"), ("no_voice2", "voice1")):
            found = audio.read(f"two/{track}/{name}.wav").waveform
            np.testing.assert_allclose(found, audio.read(f"all/{track}/{other}.wav").waveform, atol=1e-7)


class TestReport:
    def test_two_runs_differ_in_times_only(self, made):
        put("in/a.wav", "in/bad.wav")
        found = []
        for _ in range(2):
            separate_files(["in"], "out", voices="SA", overwrite=True, seed=5, check=False)
            found.append(json.loads(Path("out/report.json").read_text()))
        times = [one.pop("times") for one in found]
        assert found[0] == found[1]
        assert len(times[0]["recordings"]) == 2
        told = found[0]
        assert told["summary"] == {"done": 1, "skipped": 0, "failed": 1, "unfinished": 0}
        assert told["recipe"]["settings"]["seed"] == 5
        assert told["recipe"]["model"]["sha256"] == vocalsep.weights.manifest()["default"].sha256
        assert told["versions"]["vocalsep"] == vocalsep.__version__
        good, bad = told["recordings"]
        assert good["sha256"] == vocalsep.weights.sha256("in/a.wav")
        assert good["files"]["alto"]["sha256"] == vocalsep.weights.sha256("out/a/alto.wav")
        assert (bad["status"], bad["files"], bad["error"][:10]) == ("failed", {}, "in/bad.wav")

    def test_skipped_recordings_are_told_in_full(self, made):
        put("a.wav")
        separate_files(["a.wav"], "out", voices="SA")
        done = json.loads(Path("out/report.json").read_text())["recordings"][0]
        separate_files(["a.wav"], "out", voices="SA")
        skipped = json.loads(Path("out/report.json").read_text())["recordings"][0]
        assert {**done, "status": "skipped"} == skipped

    def test_another_place(self, made):
        put("a.wav")
        separate_files(["a.wav"], "out", voices="SA", report="reports/mine.json")
        assert not Path("out/report.json").exists()
        assert report._KEY in json.loads(Path("reports/mine.json").read_text())

    def test_it_is_written_when_the_run_is_broken_off(self, made, monkeypatch):
        put("in/a.wav", "in/b.wav", "in/c.wav")
        write = running.write_stems

        def interrupted(separator, source, *rest, **more):
            if source.name == "b.wav":
                raise KeyboardInterrupt
            return write(separator, source, *rest, **more)

        monkeypatch.setattr(running, "write_stems", interrupted)
        with pytest.raises(KeyboardInterrupt):
            separate_files(["in"], "out", voices="SA")
        told = json.loads(Path("out/report.json").read_text())
        assert told["interrupted"]
        assert [row["status"] for row in told["recordings"]] == ["done", "unfinished", "unfinished"]


class DyingJob(running.Job):
    """A job whose workers are killed when they load the networks."""

    def separator(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class TestWorkers:
    def prepared(self, **options) -> tuple[list[tuple[int, planning.Task]], running.Job]:
        put("in/a.wav")
        batch = folders.prepare(["in"], "out", Settings(voices="SA"), device="cpu", jobs=2, **options)
        return list(enumerate(batch.plan.tasks)), batch.job

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills like that here")
    def test_a_worker_that_dies_twice_fails_its_recording(self):
        tasks, job = self.prepared()
        told = {}
        dying = DyingJob(**{field.name: getattr(job, field.name) for field in dataclasses.fields(job)})
        workers.run_processes(tasks, dying, running.Listener(lambda *_: None, told.__setitem__), 1)
        assert told[0].status == "failed"
        assert "its process was killed by signal 9, twice" in told[0].error
        assert files_in("out") == []

    def test_networks_that_a_worker_cannot_load(self, tiny_model):
        model = Path("mine.safetensors")
        model.write_bytes(tiny_model.read_bytes())
        tasks, job = self.prepared(model=model)
        model.unlink()
        with pytest.raises(WeightsError, match=r"mine\.safetensors"):
            workers.run_processes(tasks, job, folders.SILENT, 1)

    def test_cores(self, tmp_path, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        cores = workers.available_cores()
        assert 1 <= cores <= os.cpu_count()
        assert workers.threads_of_each(cores) == 1
        assert workers.threads_of_each(1) == cores
        monkeypatch.setattr(workers, "available_cores", lambda: 8)
        assert [workers.threads_of_each(jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert [workers.threads_of_each(jobs) for jobs in (1, 2, 4)] == [3, 3, 2]

    def test_quotas(self, tmp_path):
        assert workers._quota(tmp_path) == float("inf")
        (tmp_path / "cpu.max").write_text("max 100000\n")
        assert workers._quota(tmp_path) == float("inf")
        (tmp_path / "cpu.max").write_text("150000 100000\n")
        assert workers._quota(tmp_path) == 1.5
        (tmp_path / "cpu.max").write_text("rubbish")
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert workers._quota(tmp_path) == 2

    def test_environment_is_put_back(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with workers._environment(2):
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MKL_NUM_THREADS" not in os.environ

    def test_threads_stop_when_the_run_is_broken_off(self, made, monkeypatch):
        put("in/a.wav", "in/b.wav", "in/c.wav", "in/d.wav")
        begun = threading.Event()

        def endless(separator, source, targets, settings, f0s, *, progress):
            pending = FakePending(b"", dict(targets))
            try:
                begun.set()
                for _ in range(1000):
                    progress("f0", 0.1)
                    time.sleep(0.01)
            finally:
                pending.discard()
            return pending

        monkeypatch.setattr(running, "write_stems", endless)
        batch = folders.prepare(["in"], "out", Settings(voices="SA"), device="cpu", jobs=2)

        def progress(number: int, share: float) -> None:
            if begun.is_set() and share:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            running.run_threads(
                list(enumerate(batch.plan.tasks)), batch.job, running.Listener(progress, lambda *_: None), 2
            )
        assert files_in("out") == []
        assert records.read_record(Path("out"), batch.plan.tasks[0].place) is None
