"""Folders: which recordings are found, where their stems go, what is refused, and how a run goes on."""

import dataclasses
import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

import vocalsep
from vocalsep import audio, separate_files, weights
from vocalsep.batch.job import JobOptions
from vocalsep.batch.plan import Job, make_plan
from vocalsep.batch.processes import run_in_processes
from vocalsep.batch.run import BatchOptions, BatchRun, Monitor, prepare
from vocalsep.errors import AudioError, OptionError, OutputError, VocalsepError, WeightsError
from vocalsep.options import NetworkOptions, OutputOptions, SeparationOptions
from vocalsep.paths import safe_name
from vocalsep.separation.files import StemSummary

STEMS = ["soprano", "alto"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Replace the separation by something quick; return the names of the recordings that are separated."""
    names = []

    def write(separator, source, targets, options, output, f0s=None, progress=None):
        content = source.read_bytes()
        if content.startswith(b"bad"):
            raise AudioError(f"{source}: is not audio")
        if content.startswith(b"strange"):
            raise RuntimeError("two\n lines")
        if content.startswith(b"stop"):
            raise KeyboardInterrupt
        names.append(source.name)
        for name, path in targets.items():
            path.write_bytes(name.encode() + b" of " + content)
        return StemSummary(1.0, 16000, 1, "16", 1.0, 0, dict.fromkeys(targets, 0.5), None)

    monkeypatch.setattr("vocalsep.separation.files.write_stems", write)
    monkeypatch.setattr("vocalsep.separation.separator.Separator", lambda *_, **__: None)
    return names


def put(*names: str) -> None:
    """Write recordings; the name of one that fails says how."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.stem.encode() + b" sound of " + os.fsencode(name))


def stems_in(folder: str | Path) -> list[str]:
    """Return the files in a folder, without records and report."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.suffix != ".json")


def planned(paths, out="out", recursive=False, **output) -> dict[str, list[str]]:
    jobs, _ = make_plan(paths, Path(out), STEMS, OutputOptions(**output), recursive)
    return {job.source.as_posix(): [path.as_posix() for path in job.targets.values()] for job in jobs}


def statuses(results) -> list[str]:
    return [result.status for result in results]


class TestPlan:
    def test_structure_is_kept(self):
        put("in/a.wav", "in/sub/b.FLAC", "in/sub/dir/c d.mp3", "in/notes.txt", "in/film.mp4")
        assert planned(["in"]) == {
            "in/a.wav": ["out/a/soprano.wav", "out/a/alto.wav"],
            "in/film.mp4": ["out/film/soprano.wav", "out/film/alto.wav"],
        }
        deep = planned(["in"], recursive=True)
        assert list(deep) == ["in/a.wav", "in/film.mp4", "in/sub/b.FLAC", "in/sub/dir/c d.mp3"]
        assert deep["in/sub/dir/c d.mp3"][0] == "out/sub/dir/c d/soprano.wav"

    def test_records_lie_at_the_place_of_a_stem(self):
        put("a.wav")
        for filename, record in (
            ("{track}/{stem}.{ext}", "out/a/separation.json"),
            ("{stem}s/{track}.wav", "out/separations/a.json"),
        ):
            (job,) = make_plan(["a.wav"], Path("out"), STEMS, OutputOptions(filename=filename), False)[0]
            assert job.record.as_posix() == record

    def test_hidden_files_are_left_out(self):
        put("in/a.wav", "in/.b.wav", "in/.git/c.wav")
        assert list(planned(["in"], recursive=True)) == ["in/a.wav"]

    @pytest.mark.parametrize("filename", ["{track}/{stem}.{ext}", "{stem}/{track}.{ext}"])
    @pytest.mark.parametrize("out", ["in/out", "in", "in/sub"])
    def test_stems_of_earlier_runs_are_left_out(self, made, out, filename):
        put("in/a.wav", "in/sub/b.wav")
        first = list(planned(["in"], out, recursive=True))
        separate_files(["in"], out, voices="SA", recursive=True, filename=filename)
        assert len(stems_in(out)) >= 2 * len(first)
        assert list(planned(["in"], out, recursive=True)) == first
        assert list(planned(["in"], "elsewhere", recursive=True)) == ["in/a.wav", "in/sub/b.wav"]

    def test_folder_of_stems(self, made):
        put("a.wav")
        separate_files(["a.wav"], "out", voices="SA")
        with pytest.raises(AudioError):
            planned(["out/a"], "elsewhere")

    def test_links(self):
        put("in/real/a.wav")
        try:
            Path("in/real/loop").symlink_to("..", target_is_directory=True)
            Path("in/again").symlink_to("real", target_is_directory=True)
            Path("in/broken.wav").symlink_to("nowhere.wav")
        except OSError:
            pytest.skip("no symbolic links")
        found = planned(["in"], recursive=True)
        assert [Path(path).name for path in found] == ["a.wav", "broken.wav"]  # a.wav once

    def test_folder_without_audio(self):
        put("in/notes.txt", "in/sub/a.wav")
        with pytest.raises(AudioError, match="recursive"):
            planned(["in"])

    def test_one_file_named_twice_is_one_recording(self):
        put("in/a.wav")
        paths = ["in/a.wav", "in/a.wav", Path("in/a.wav").absolute(), "in/../in/a.wav", "in"]
        assert list(planned(paths)) == ["in/a.wav"]

    @pytest.mark.parametrize(
        ("paths", "filename"),
        [
            (["a/choir.wav", "b/choir.wav"], "{track}/{stem}.{ext}"),
            (["a/choir.wav", "a/choir.flac"], "{track}/{stem}.{ext}"),
            (["a/choir.wav", "a/Choir.wav"], "{track}/{stem}.{ext}"),
            (["a/\u00e9.wav", "a/e\u0301.wav"], "{track}/{stem}.{ext}"),
            (["a/what?.wav", "a/what*.wav"], "{track}/{stem}.{ext}"),
            (["a/one.wav", "a/two.wav"], "{stem}.{ext}"),
            (["soprano.wav"], "{stem}.{ext}"),
            (["SOPRANO.wav"], "{stem}.{ext}"),
        ],
    )
    def test_collisions_are_refused(self, here, paths, filename):
        with pytest.raises(OptionError) as caught:
            planned(paths, here, filename=filename)
        assert caught.value.parameter == ("out" if len(paths) == 1 else "filename")
        assert list(here.iterdir()) == []


class TestSeparateFiles:
    def test_recordings_are_separated_once(self, made):
        put("in/a.wav", "in/b/c.wav")
        first = separate_files(["in"], "out", voices="SA", recursive=True)
        assert statuses(first) == ["done", "done"]
        assert first[1].files == {name: Path(f"out/b/c/{name}.wav") for name in STEMS}
        assert Path("out/b/c/alto.wav").read_bytes().startswith(b"alto of c sound")
        assert statuses(separate_files(["in"], "out", voices="SA", recursive=True)) == ["skipped", "skipped"]
        assert made == ["a.wav", "c.wav"]
        assert statuses(separate_files(["in"], "out", voices="SA", recursive=True, overwrite=True)) == ["done"] * 2

    def test_one_failure_does_not_stop_the_others(self, made):
        put("in/a.wav", "in/bad.wav", "in/c.wav", "in/strange.wav")
        seen = []
        results = separate_files(["in", "nowhere.wav", "x" * 300 + ".wav"], "out", voices="SA", on_result=seen.append)
        assert statuses(results) == ["done", "failed", "done", "failed", "failed", "failed"]
        assert made == ["a.wav", "c.wav"]
        assert sorted(map(id, seen)) == sorted(map(id, results))
        assert isinstance(results[1].error, AudioError)
        assert isinstance(results[3].error.__cause__, RuntimeError)
        assert "\n" not in str(results[3].error) and "strange.wav" in str(results[3].error)
        assert stems_in("out") == ["a/alto.wav", "a/soprano.wav", "c/alto.wav", "c/soprano.wav"]

    def test_folders_that_cannot_be_read_are_failures(self, made, monkeypatch):
        put("in/a.wav", "in/locked/b.wav")
        scan = os.scandir

        def refuse(path):
            if Path(path).name == "locked":
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        results = separate_files(["in"], "out", voices="SA", recursive=True)
        assert statuses(results) == ["done", "failed"]
        assert "locked" in str(results[1].error)

    def test_keywords_replace_fields(self, made):
        put("a.wav")
        (result,) = separate_files(
            ["a.wav"], "out", separation=SeparationOptions(voices="SA", residual=True), format="flac", room=None
        )
        assert list(result.files) == [*STEMS, "residual"]
        assert result.files["alto"].suffix == ".flac"
        assert result.record["setup"]["options"]["residual"] is True

    @pytest.mark.parametrize(
        ("options", "parameter"),
        [
            ({"jobs": 0}, "jobs"),
            ({"device": "abacus"}, "device"),
            ({"format": "tape"}, "format"),
            ({"filename": "{track}.{ext}"}, "filename"),
            ({"report": "a.wav"}, "report"),
        ],
    )
    def test_wrong_options_are_refused_before_anything_is_written(self, made, here, options, parameter):
        put("a.wav")
        with pytest.raises((OptionError, OutputError)) as caught:
            separate_files(["a.wav"], "out", voices="SA", **options)
        assert caught.value.parameter == parameter
        assert list(here.iterdir()) == [here / "a.wav"] and made == []

    def test_a_single_path_is_not_a_list(self):
        with pytest.raises(OptionError, match="list"):
            separate_files("a.wav", "out")

    def test_networks_that_cannot_be_loaded_end_the_run(self, made, monkeypatch):
        put("a.wav", "b.wav")

        def fail(*_: object, **__: object) -> None:
            raise WeightsError("no network")

        monkeypatch.setattr("vocalsep.separation.separator.Separator", fail)
        with pytest.raises(WeightsError):
            separate_files(["a.wav", "b.wav"], "out", voices="SA")
        with pytest.raises(WeightsError):
            separate_files(["a.wav"], "out", model="no-such")

    def test_networks_are_loaded_only_for_work(self, made, monkeypatch):
        put("a.wav")
        separate_files(["a.wav"], "out", voices="SA")

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("loaded")

        monkeypatch.setattr("vocalsep.separation.separator.Separator", fail)
        assert statuses(separate_files(["a.wav"], "out", voices="SA")) == ["skipped"]

    @pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
    def test_strange_names(self, made):
        names = [
            b"two words.wav",
            b"-n.wav",
            b"new\nline.wav",
            "e\u0301t\u00e9 \U0001f600.wav".encode(),
            b"\xff\xfe.wav",
        ]
        names += [b"con.wav", b"x" * 251 + b".wav", b"\x1b[31m.wav", b"a|b:c.wav"]
        Path("in").mkdir()
        for name in names:
            Path("in", os.fsdecode(name)).write_bytes(b"sound")
        results = separate_files(["in"], "out", voices="SA")
        assert statuses(results) == ["done"] * len(names)
        assert all(part == safe_name(part) for file in stems_in("out") for part in file.split("/"))
        assert all(unicodedata.is_normalized("NFC", file) for file in stems_in("out"))
        report = json.loads(Path("out/report.json").read_bytes())
        assert {os.fsencode(row["source"]) for row in report["recordings"]} == {b"in/" + name for name in names}
        assert set(statuses(separate_files(["in"], "out", voices="SA"))) == {"skipped"}

    def test_many_finished_recordings_are_skipped(self, made):
        """Set VOCALSEP_MANY to 10000 to see (with --durations) that this takes seconds."""
        count = int(os.environ.get("VOCALSEP_MANY", "300"))
        put(*(f"in/{number % 100}/{number}.wav" for number in range(count)))
        for status in ("done", "skipped"):
            assert statuses(separate_files(["in"], "out", voices="SATB", recursive=True)) == [status] * count
        assert len(made) == count


class TestReport:
    def test_fields(self, made):
        put("in/a.wav", "in/bad.wav")
        separate_files(["in"], "out", voices="SA", room="none")
        report = json.loads(Path("out/report.json").read_text())
        assert report["interrupted"] is False
        assert report["summary"] == {"done": 1, "skipped": 0, "failed": 1}
        assert report["setup"]["vocalsep"] == vocalsep.__version__
        assert report["setup"]["networks"]["estimator"]["sha256"] == weights.manifest()["default"].sha256
        good, bad = report["recordings"]
        assert (good["status"], good["error"], list(good["files"])) == ("done", None, STEMS)
        assert (bad["status"], bad["files"]) == ("failed", {})

    def test_of_an_interrupted_run(self, made):
        put("in/a.wav", "in/stop.wav", "in/z.wav")
        with pytest.raises(KeyboardInterrupt):
            separate_files(["in"], "out", voices="SA", report="reports/mine.json")
        assert not Path("out/report.json").exists()
        report = json.loads(Path("reports/mine.json").read_text())
        assert report["interrupted"] is True
        assert [row["status"] for row in report["recordings"]] == ["done"]
        assert stems_in("out") == ["a/alto.wav", "a/soprano.wav"]

    def test_other_files_are_not_replaced(self, made):
        put("a.wav")
        Path("out").mkdir()
        Path("out/report.json").write_text("{}")
        with pytest.raises(OutputError):
            separate_files(["a.wav"], "out", voices="SA")
        assert Path("out/report.json").read_text() == "{}" and made == []


class DyingJob(Job):
    """A job that ends the process that reads it, as a lack of memory would."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.fixture
def recordings(sing) -> Path:
    voices = sing(np.array([[440.0], [220.0]]) * np.ones(60)) / 4
    for name, gain in (("one.wav", 1.0), ("two.flac", 0.5), ("three.wav", 0.7)):
        audio.write(Path("in", name), gain * voices.sum(axis=0), 16000)
    return Path("in")


class TestNetworks:
    @pytest.fixture
    def networks(self, tiny_model, tiny_tracker) -> dict[str, object]:
        return {"model": tiny_model, "tracker": tiny_tracker, "device": "cpu"}

    def batch(self, networks, jobs: int) -> BatchRun:
        options = NetworkOptions(model=str(networks["model"]), tracker=str(networks["tracker"]), device="cpu")
        return prepare(["in"], "out", SeparationOptions("SA"), OutputOptions(), options, BatchOptions(jobs=jobs))

    def test_stems_add_up_to_the_recordings(self, recordings, networks):
        results = separate_files([recordings], "out", voices=2, residual=True, **networks)
        assert statuses(results) == ["done"] * 3
        for result in results:
            gain = result.record["summary"]["gain"]
            stems = [audio.read(path).waveform for path in result.files.values()]
            np.testing.assert_allclose(sum(stems), gain * audio.read(result.source).waveform, atol=3 * 2.0**-16)

    def test_progress(self, recordings, networks):
        class Stages(Monitor):
            def __init__(self) -> None:
                self.seen: dict[Path, set[str]] = {}

            def progress(self, job, stage, fraction) -> None:
                self.seen.setdefault(job.source, set()).add(stage)

        monitor = Stages()
        self.batch(networks, 1).run(monitor)
        assert len(monitor.seen) == 3
        assert all({"f0", "masks"} <= stages for stages in monitor.seen.values())

    @pytest.mark.slow
    @pytest.mark.usefixtures("one_thread")
    def test_processes_write_the_same_samples(self, recordings, networks):
        alone = separate_files([recordings], "alone", voices=2, **networks)
        together = separate_files([recordings], "together", voices=2, jobs=2, **networks)
        assert statuses(alone) == statuses(together) == ["done"] * 3
        for one, other in zip(alone, together, strict=True):
            for name, path in one.files.items():
                np.testing.assert_array_equal(audio.read(path).waveform, audio.read(other.files[name]).waveform)

    @pytest.mark.slow
    def test_a_worker_that_dies_fails_only_its_recording(self, recordings, networks):
        batch = self.batch(networks, 2)
        dying = batch.jobs[1]
        jobs = [batch.jobs[0], DyingJob(dying.source, dying.targets, dying.record), batch.jobs[2]]
        results = {}
        run_in_processes(jobs, batch.options, 2, lambda job, result: results.setdefault(job.source, result))
        assert [results[job.source].status for job in jobs] == ["done", "failed", "done"]
        assert isinstance(results[dying.source].error, VocalsepError)
        assert len(stems_in("out")) == 4

    @pytest.mark.slow
    def test_networks_that_workers_cannot_load_end_the_run(self, recordings, networks, here):
        batch = self.batch(networks, 2)
        missing = dataclasses.replace(batch.options.networks, model=str(here / "nowhere"))
        options: JobOptions = dataclasses.replace(batch.options, networks=missing)
        with pytest.raises(WeightsError):
            run_in_processes(batch.jobs, options, 2, lambda *_: None)
