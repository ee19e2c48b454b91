"""separation.json: what is skipped, what is done again, what is left alone, and a kill at every step."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_batch import here, made, put, stems_in  # noqa: F401 (fixtures)

import vocalsep
from vocalsep import separate_files
from vocalsep.batch.record import difference, make_setup, read_record
from vocalsep.errors import OutputError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.options import NetworkOptions, OutputOptions, SeparationOptions

RECORD = Path("out/a/separation.json")


def separate(**options):
    (result,) = separate_files(["a.wav"], "out", **{"voices": "SA", **options})
    return result


def change(*keys: str, value: object) -> None:
    """Change one value of the record."""
    record = json.loads(RECORD.read_text())
    parent = record
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    RECORD.write_text(json.dumps(record))


def temporary_files() -> list[str]:
    return [path.name for path in Path("out").rglob(".*")]


@pytest.fixture
def done(made):  # noqa: F811
    """A finished recording; returns the names of those that are separated from then on."""
    put("a.wav")
    assert separate().status == "done"
    made.clear()
    return made


class TestSkipping:
    def test_a_finished_recording(self, done):
        result = separate()
        assert (result.status, done) == ("skipped", [])
        assert result.record == json.loads(RECORD.read_text())

    def test_a_recording_that_was_touched_or_moved(self, done):
        os.utime("a.wav", ns=(0, 0))
        assert separate().status == "skipped"
        Path("b").mkdir()
        shutil.move("a.wav", "b/a.wav")
        (result,) = separate_files(["b/a.wav"], "out", voices="SA")
        assert result.status == "skipped"

    def test_stems_that_were_copied(self, done):
        shutil.copytree("out", "copy")
        (result,) = separate_files(["a.wav"], "copy", voices="SA")
        assert result.status == "skipped"

    def test_the_same_weights_by_another_name(self, done):
        shutil.copytree(Path(vocalsep.__file__).parent / "checkpoints" / "default", "mine")
        assert separate(model="mine").status == "skipped"

    def test_a_patch_version(self, done):
        change("setup", "vocalsep", value=vocalsep.__version__ + "7")
        assert separate().status == "skipped"

    def test_overwrite(self, done):
        assert separate(overwrite=True).status == "done"
        assert done == ["a.wav"]

    def test_a_missing_stem(self, done):
        Path("out/a/alto.wav").unlink()
        assert separate().status == "done"
        assert done == ["a.wav"]

    def test_leftovers_are_removed(self, done):
        put("out/a/.alto.wav.part", "out/a/.separation.json.part")
        assert separate().status == "skipped"
        assert temporary_files() == []
        shutil.rmtree("out")
        put("out/a/.alto.wav.part", "out/a/.soprano.wav.part", "out/a/.separation.json.part")
        assert separate().status == "done"
        assert temporary_files() == []


class TestObstacles:
    def refused(self, **options) -> str:
        """Check that nothing is changed unless the run overwrites; return the message."""
        before = {file: Path("out", file).read_bytes() for file in stems_in("out")}
        result = separate(**options)
        assert isinstance(result.error, OutputError)
        assert result.error.parameter == "overwrite"
        assert {file: Path("out", file).read_bytes() for file in stems_in("out")} == before
        assert separate(overwrite=True, **options).status == "done"
        assert separate(**options).status == "skipped"
        return str(result.error)

    @pytest.mark.parametrize("file", ["alto.wav", "separation.json"])
    def test_files_of_somebody_else(self, made, file):  # noqa: F811
        put("a.wav", f"out/a/{file}")
        assert file in self.refused()

    @pytest.mark.parametrize(
        "options",
        [
            {"clip_mode": "none"},
            {"bit_depth": "24"},
            {"format": "flac"},
            {"voices": "soprano=300-900, alto"},
            {"two_stems": "alto"},
        ],
    )
    def test_stems_made_with_other_options(self, done, options):
        assert next(iter(options)) in self.refused(**options)

    def test_overwriting_leaves_no_stem_of_the_earlier_run(self, done):
        Path("out/a/notes.wav").write_bytes(b"not a stem")
        assert separate(overwrite=True, two_stems="alto").status == "done"
        assert sorted(path.name for path in Path("out/a").glob("*.wav")) == ["alto.wav", "no_alto.wav", "notes.wav"]
        assert separate(overwrite=True, format="flac").status == "done"
        assert [path.name for path in Path("out/a").glob("*.wav")] == ["notes.wav"]

    def test_a_stem_that_was_edited_to_the_same_size(self, done):
        path = Path("out/a/alto.wav")
        path.write_bytes(b"x" * path.stat().st_size)
        os.utime(path, ns=(0, 0))
        Path("out/a/soprano.wav").unlink()
        assert "alto.wav" in self.refused()

    def test_a_stem_that_is_the_recording_is_kept(self, made):  # noqa: F811
        """With this template the stem soprano/a.wav is a recording of the same name."""
        template = {"filename": "{stem}/{track}.{ext}"}
        put("a.wav")
        assert separate_files(["a.wav"], "out", voices="SA", **template)[0].status == "done"
        stem = Path("out/soprano/a.wav")
        results = separate_files([stem], "out", voices="SA", two_stems="alto", overwrite=True, **template)
        assert results[0].status == "done"
        assert stem.exists()

    def test_a_stem_that_was_edited_is_kept(self, done):
        with Path("out/a/soprano.wav").open("ab") as file:
            file.write(b"edited")
        assert separate(overwrite=True, two_stems="alto").status == "done"
        assert Path("out/a/soprano.wav").exists()

    def test_stems_made_with_other_weights(self, done, tiny_model):
        assert "other weights" in self.refused(model=tiny_model)

    def test_stems_made_with_another_configuration(self, done):
        shutil.copytree(Path(vocalsep.__file__).parent / "checkpoints" / "default", "mine")
        config = json.loads(Path("mine/config.json").read_text())
        Path("mine/config.json").write_text(json.dumps({**config, "dilations": [1, 2, 4, 8, 2]}))
        assert "other weights" in self.refused(model="mine")

    def test_stems_made_by_another_version(self, done):
        change("setup", "vocalsep", value="0.0.9")
        assert "vocalsep" in self.refused()

    def test_stems_of_the_recording_before_it_was_changed(self, done):
        Path("a.wav").write_bytes(b"another take")
        self.refused()

    def test_another_recording_of_the_same_size(self, done):
        Path("a.wav").write_bytes(b"x" * Path("a.wav").stat().st_size)
        os.utime("a.wav", ns=(0, 0))
        self.refused()

    def test_stems_that_were_edited(self, done):
        Path("out/a/alto.wav").write_bytes(b"mine")
        assert "alto.wav" in self.refused()

    def test_a_folder(self, made):  # noqa: F811
        put("a.wav", "out/a/alto.wav/x")
        assert separate().status == "failed"
        assert isinstance(separate(overwrite=True).error, OutputError)
        assert temporary_files() == [".separation.json.part"]  # since soprano.wav is in place

    def test_one_place_for_all_recordings(self, done):
        put("b.wav")
        options = {"voices": "SA", "filename": "{stem}.{ext}"}
        for source, overwrite, status in (("a", False, "done"), ("b", False, "failed"), ("b", True, "done")):
            (result,) = separate_files([f"{source}.wav"], "one", overwrite=overwrite, **options)
            assert result.status == status


class Kill(BaseException):
    """The end of the process at some moment."""


class TestKills:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_at_every_step(self, done, monkeypatch, overwrite):
        """Count the changes of files during a run, then end it before each of them."""
        replace, unlink = Path.replace, Path.unlink
        steps, limit = 0, 1000

        def step(change):
            def changed(*arguments, **keywords):
                nonlocal steps
                steps += 1
                if steps > limit:
                    raise Kill
                return change(*arguments, **keywords)

            return changed

        def run() -> None:
            nonlocal steps
            steps = 0
            with monkeypatch.context() as patched:
                patched.setattr(Path, "replace", step(replace))
                patched.setattr(Path, "unlink", step(unlink))
                separate(overwrite=overwrite)

        def prepare() -> None:
            shutil.rmtree("out")
            if overwrite:  # there is something to overwrite
                separate(clip_mode="clamp")

        prepare()
        run()
        total = steps
        assert total >= 6  # two reports, two stems, the record twice
        for limit in range(total):  # noqa: B007 (step reads it)
            prepare()
            with pytest.raises(Kill):
                run()
            record = read_record(RECORD)
            if record is not None:  # then its stems are complete
                for stem in record["stems"].values():
                    assert (RECORD.parent / stem["file"]).stat().st_size == stem["size"]
            killed_before_work = overwrite and record is not None and record["setup"]["options"]["clip_mode"] == "clamp"
            assert separate(overwrite=killed_before_work).status in ("done", "skipped")
            assert temporary_files() == []
            assert separate().status == "skipped"


class TestRecord:
    def test_fields(self, done):
        record = json.loads(RECORD.read_text())
        assert record["vocalsep_separation"] == 1
        assert record["input"]["name"] == "a.wav"
        assert record["input"]["size"] == Path("a.wav").stat().st_size
        assert record["setup"]["options"]["voices"] == ["soprano=220-1050", "alto=155-700"]
        stem = record["stems"]["alto"]
        assert (stem["file"], stem["size"]) == ("alto.wav", Path("out/a/alto.wav").stat().st_size)
        assert record["summary"]["singing"] == {"soprano": 0.5, "alto": 0.5}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"{",
            b"null",
            b"[]",
            b"{}",
            b"[" * 100_000,
            b'{"vocalsep_separation": 1}',
            b'{"vocalsep_separation": 99, "stems": {}}',
            b'{"vocalsep_separation": 1, "stems": [1]}',
            b'{"vocalsep_separation": 1, "stems": {}, "input": {}, "setup": 3}',
            b" " * ((1 << 20) + 1),
        ],
    )
    def test_damaged_ones_are_none(self, done, content):
        RECORD.write_bytes(content)
        assert read_record(RECORD) is None
        assert separate().status == "failed"
        assert separate(overwrite=True).status == "done"

    def test_other_f0_tracks_are_another_setup(self, here):  # noqa: F811
        Path("a.wav").write_bytes(b"sound")
        status = Path("a.wav").stat()
        options = SeparationOptions(), OutputOptions(), NetworkOptions()
        tracks = [
            None,
            F0Tracks(np.full((1, 5), 220.0, np.float32), ("alto",)),
            F0Tracks(np.full((1, 5), 221.0, np.float32), ("alto",)),
            F0Tracks(np.full((1, 5), 220.0, np.float32), ("bass",)),
        ]
        setups = [make_setup(*options, f0s) for f0s in tracks]
        assert setups[1]["networks"]["tracker"] is None  # it is not used
        recorded = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        for one in setups:
            for other in setups:
                same = not difference({"input": recorded, "setup": one}, Path("a.wav"), other)
                assert same == (one is other)
