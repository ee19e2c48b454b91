"""Records of what is written: what is skipped, what is done again, what is left alone, and what cannot be trusted."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_batch import files_in, here, made, put  # noqa: F401 (fixtures)

from vocalsep import separate_files
from vocalsep.batch import records, running
from vocalsep.batch.recipe import Recipe, Weights, recipe_of
from vocalsep.batch.records import FileMark, Record, locked, read_record, recorded_files, write_record
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.files import Settings

PLACE = "a/."


def separate(**options):
    (outcome,) = separate_files(["a.wav"], "out", check=False, **{"voices": "SA", **options})
    return outcome


def record_file() -> Path:
    (path,) = Path("out/.vocalsep").glob("*.json")
    return path


def change(**values) -> None:
    path = record_file()
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def done(made):  # noqa: F811
    """A recording whose stems are complete; returns the names of those that are separated from then on."""
    put("a.wav")
    assert separate().status == "done"
    made.clear()
    return made


class TestSkipping:
    def test_what_is_complete(self, done):
        assert separate().status == "skipped"
        assert done == []

    def test_a_recording_that_was_touched_or_moved_is_the_same(self, done):
        os.utime("a.wav", ns=(0, 0))
        assert separate().status == "skipped"
        Path("b").mkdir()
        shutil.move("a.wav", "b/a.wav")
        (outcome,) = separate_files(["b/a.wav"], "out", voices="SA")
        assert outcome.status == "skipped"

    def test_stems_that_were_copied_are_the_same(self, done):
        shutil.copytree("out", "copy")
        for path in Path("copy").rglob("*.wav"):
            os.utime(path, ns=(0, 0))
        (outcome,) = separate_files(["a.wav"], "copy", voices="SA")
        assert outcome.status == "skipped"

    def test_weights_by_another_name_are_the_same(self, done, tmp_path):
        import vocalsep

        source = Path(vocalsep.__file__).parent / "checkpoints" / "default.safetensors"
        shutil.copy(source, "mine.safetensors")
        assert separate(model="mine.safetensors").status == "skipped"

    def test_the_same_time_and_size_in_another_place_are_not_enough(self, done):
        status = Path("a.wav").stat()
        Path("b").mkdir()
        Path("b/a.wav").write_bytes(b"x" * status.st_size)
        os.utime("b/a.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
        (outcome,) = separate_files(["b/a.wav"], "out", voices="SA", check=False)
        assert outcome.status == "failed"
        assert "is a stem of another recording" in outcome.error

    def test_overwrite_does_it_again(self, done):
        assert separate(overwrite=True).status == "done"
        assert done == ["a.wav"]


class TestTakingUp:
    def test_a_missing_stem(self, done):
        Path("out/a/alto.wav").unlink()
        assert separate().status == "done"
        assert done == ["a.wav"]

    def test_all_stems_missing_makes_way_for_anything(self, done):
        shutil.rmtree("out/a")
        assert separate(seed=7).status == "done"

    def test_what_was_interrupted_may_be_replaced(self, done):
        change(state="writing")
        Path("out/a/alto.wav").write_bytes(b"old")
        assert separate(seed=7).status == "done"
        assert Path("out/a/alto.wav").read_bytes().startswith(b"alto of")

    def test_but_only_what_the_record_names(self, done):
        content = json.loads(record_file().read_text())
        del content["files"]["alto"]
        change(state="writing", files=content["files"])
        outcome = separate()
        assert outcome.status == "failed"
        assert "alto.wav exists, and no record tells" in outcome.error

    def test_leftovers_of_a_kill_are_replaced(self, done):
        shutil.rmtree("out")
        put("out/a/.alto.wav.part", "out/a/.soprano.wav.part")
        assert separate().status == "done"
        assert files_in("out") == ["a/alto.wav", "a/soprano.wav"]

    @pytest.mark.parametrize("step", ["writing", "first stem", "complete"])
    def test_a_kill_at_every_step(self, made, monkeypatch, step):  # noqa: F811
        """Whatever was reached, the next run completes it without being told to overwrite."""
        put("a.wav")
        write, replace = running.write_record, Path.replace
        calls = []

        def stop(*given):
            calls.append(given)
            if step == "writing" or (step == "complete" and len(calls) == 2):
                raise SystemExit
            return write(*given)

        def stop_replacing(self, target):
            if step == "first stem" and Path(target).name == "alto.wav":
                raise SystemExit
            return replace(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(running, "write_record", stop)
            patched.setattr(Path, "replace", stop_replacing)
            with pytest.raises(SystemExit):
                separate()
        assert {file: Path("out", file).read_bytes()[:7] for file in files_in("out")} == {
            "writing": {},
            "first stem": {"a/soprano.wav": b"soprano"},
            "complete": {"a/soprano.wav": b"soprano", "a/alto.wav": b"alto of"},
        }[step]
        assert separate().status == "done"
        assert separate().status == "skipped"


class TestLeavingAlone:
    def refused(self, message: str, **options) -> None:
        before = {file: Path("out", file).read_bytes() for file in files_in("out")}
        outcome = separate(**options)
        assert outcome.status == "failed"
        assert message in outcome.error
        assert "use --overwrite to replace it or -o for another folder" in outcome.error
        assert {file: Path("out", file).read_bytes() for file in files_in("out")} == before
        assert separate(overwrite=True, **options).status == "done"
        assert separate(**options).status == "skipped"

    def test_stems_of_nobody(self, made):  # noqa: F811
        put("a.wav", "out/a/alto.wav")
        self.refused("alto.wav exists, and no record tells that vocalsep wrote it")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"seed": 3}, "seed 0, not 3"),
            ({"clip_mode": "none"}, "clip_mode rescale, not none"),
            ({"refine": 0}, "refine 1, not 0"),
            ({"bit_depth": "24"}, "bit_depth None, not 24"),
            ({"voices": "soprano=300-900, alto"}, "voices"),
        ],
    )
    def test_stems_of_other_settings(self, done, options, words):
        self.refused(words, **options)

    def test_stems_of_other_weights(self, done, tiny_model):
        self.refused("was made with another model", model=tiny_model)

    def test_stems_of_another_version(self, done, monkeypatch):
        recipe = json.loads(record_file().read_text())["recipe"]
        change(recipe={**recipe, "vocalsep": "0.0.9"})
        self.refused("vocalsep 0.0, not 0.1")

    def test_a_patch_version_makes_no_difference(self, done):
        recipe = json.loads(record_file().read_text())["recipe"]
        change(recipe={**recipe, "vocalsep": recipe["vocalsep"] + "7"})
        assert separate().status == "skipped"

    def test_stems_of_the_recording_before_it_was_changed(self, done):
        Path("a.wav").write_bytes(b"another take")
        self.refused("is a stem of another recording")

    def test_stems_that_were_edited(self, done):
        Path("out/a/alto.wav").write_bytes(b"mine")
        self.refused("alto.wav was changed since vocalsep wrote it")

    def test_edited_without_a_change_of_size(self, done):
        path = Path("out/a/alto.wav")
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=(0, 0))
        self.refused("was changed since")

    def test_another_recording_in_one_place(self, done):
        """Without {track} all stems go to one place, of which only the last recording's record holds."""
        put("b.wav")
        options = {"voices": "SA", "filename": "{stem}.{ext}", "check": False}
        assert separate_files(["a.wav"], "one", **options)[0].status == "done"
        assert "another recording" in separate_files(["b.wav"], "one", **options)[0].error
        assert separate_files(["b.wav"], "one", overwrite=True, **options)[0].status == "done"
        assert separate_files(["a.wav"], "one", **options)[0].status == "failed"

    def test_a_folder_in_the_way(self, made):  # noqa: F811
        put("a.wav", "out/a/alto.wav/x")
        assert "exists" in separate().error


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"{",
            b"null",
            b"[]",
            b"7",
            b'"writing"',
            b"{}",
            b"[" * 100_000,
            b'{"schema": 1, "state": "writing"}',
            b'{"schema": 99, "state": "complete"}',
            b'{"schema": NaN}',
            b" " * ((1 << 20) + 1),
        ],
    )
    def test_what_is_no_record_is_none(self, done, content):
        record_file().write_bytes(content)
        assert read_record(Path("out"), PLACE) is None
        assert "no record tells" in separate().error
        assert recorded_files(Path("out")) == frozenset()

    @pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Record)])
    @pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"alto": 3}, {"alto": {}}, [["a", "b"]]])
    def test_fields_of_any_kind_never_end_in_a_traceback(self, done, field, value):
        change(**{field: value})
        assert separate().status in ("failed", "done", "skipped")
        assert separate(overwrite=True).status == "done"

    @pytest.mark.parametrize(
        "mark",
        [
            {"path": "../a.wav"},
            {"path": "/etc/passwd"},
            {"path": "a/\0"},
            {"path": 7},
            {"size": "7"},
            {"size": None},
            {"size": True},
            {"mtime_ns": 0.5},
            {"sha256": None},
            {"more": 1},
        ],
    )
    def test_marks_that_cannot_be(self, done, mark):
        files = json.loads(record_file().read_text())["files"]
        files["alto"].update(mark)
        change(files=files)
        assert read_record(Path("out"), PLACE) is None

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
    def test_a_record_that_never_ends(self, done):
        path = record_file()
        path.unlink()
        os.mkfifo(path)
        assert "no record tells" in separate().error

    def test_recipes_that_were_damaged(self):
        recipe = recipe_of("default", "tracker", Settings())
        for damaged in ({}, {"model": 7}, {**recipe.to_json(), "settings": None}, {**recipe.to_json(), "model": None}):
            assert recipe.difference(damaged)
        assert recipe.difference(json.loads(json.dumps(recipe.to_json()))) == ""


class TestRecord:
    def test_it_is_read_as_it_was_written(self, here):  # noqa: F811
        mark = FileMark("a/\udce9.wav", 7, 1 << 62, "ab")
        record = Record("complete", mark, {"x": [1, None]}, {"alto": mark}, {"gain": 0.5}, "run")
        write_record(Path("out"), PLACE, record)
        assert read_record(Path("out"), PLACE) == record
        assert read_record(Path("out"), "b/.") is None

    def test_places_that_a_file_system_takes_for_one_have_one_record(self, here):  # noqa: F811
        record = Record("complete", FileMark("a", 0, 0, ""), {}, {}, {}, "")
        write_record(Path("out"), "\u00c9t\u00e9/.", record)
        assert read_record(Path("out"), "e\u0301te\u0301/.") == record

    def test_a_full_disk(self, here, monkeypatch):  # noqa: F811
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(records, "replace_file", full)
        with pytest.raises(AudioError, match="No space left"):
            write_record(Path("out"), PLACE, Record("complete", FileMark("a", 0, 0, ""), {}, {}, {}, ""))

    def test_recipes_tell_f0_apart(self):
        f0 = np.full((2, 10), 200.0)
        sums = {
            recipe_of("default", "tracker", Settings(voices=2), f0s).f0
            for f0s in (None, *(F0Tracks(row, ("x", "y")) for row in (f0, f0 + 1, f0[:, :9])), F0Tracks(f0, ("y", "x")))
        }
        assert len(sums) == 5
        assert json.dumps(recipe_of("default", "tracker", Settings(refine=np.int64(1), seed=np.int64(2))).to_json())
        given = recipe_of("default", "tracker", Settings(), F0Tracks(f0, ("x", "y")))
        assert (given.tracker, given.crepe) == (None, None)
        assert recipe_of("default", "tracker", Settings(refine=0)).crepe is None

    def test_which_difference_is_told(self):
        recipe = Recipe("0.1.0", Weights("default", "a" * 64), None, None, {"voices": ["x"]}, None)
        other = dataclasses.replace(recipe, model=Weights("default", "b" * 64)).to_json()
        assert recipe.difference(other) == "another model"
        assert recipe.difference({**recipe.to_json(), "settings": {"voices": ["y"]}}) == "voices ['y'], not ['x']"
        assert recipe.difference({**recipe.to_json(), "settings": {"voices": ["x"], "new": 1}}) == "new 1, not None"


_HOLD = """
import sys, time
from pathlib import Path
from vocalsep.batch.records import locked
with locked(Path("out"), "a/."):
    print("held", flush=True)
    time.sleep(60)
"""


class TestLock:
    def test_one_at_a_time(self, here):  # noqa: F811
        with locked(Path("out"), PLACE):
            with pytest.raises(OptionError, match="another process"), locked(Path("out"), PLACE):
                pass
            with locked(Path("out"), "b/."):
                pass
        with locked(Path("out"), PLACE):
            pass

    def test_a_lock_goes_with_the_process_that_is_killed(self, made):  # noqa: F811
        put("a.wav")
        with subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            try:
                assert "a.wav: another process is writing its stems to out" in separate().error
            finally:
                process.kill()
        assert separate().status == "done"
