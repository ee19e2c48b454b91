"""`vocalsep f0`: the files that it writes, and the ones that it leaves alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.f0.tracks import F0Tracks

pytestmark = pytest.mark.slow

NAMES = ("soprano", "alto", "tenor", "bass")
F0 = np.float32([[440], [330], [220], [110]]) * np.ones(100, dtype=np.float32)


@pytest.fixture(scope="module")
def quartet(sing) -> np.ndarray:
    return sing(F0) / 4


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, quartet) -> Path:
    """A working folder with choir.wav and its stems in stems/."""
    monkeypatch.chdir(tmp_path)
    audio.write("choir.wav", quartet.sum(axis=0), 16000, bit_depth="float32")
    for name, stem in zip(NAMES, quartet, strict=True):
        audio.write(f"stems/{name}.wav", stem, 16000, bit_depth="float32")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["f0", *map(str, arguments), "-d", "cpu"])


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_table_and_a_picture(tiny_tracker):
    result = run("choir.wav", "--tracker", tiny_tracker)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == ["choir.csv", "choir.png"]
    tracks = F0Tracks.from_csv("choir.csv")
    assert (tracks.names, tracks.n_frames) == (NAMES, 100)
    assert Path("choir.png").read_bytes().startswith(b"\x89PNG")


def test_voices(tiny_tracker):
    assert run("choir.wav", "--tracker", tiny_tracker, "--voices", "lead=100-500,bass", "--no-picture").exit_code == 0
    assert F0Tracks.from_csv("choir.csv").names == ("lead", "bass")


def test_guides_per_voice_and_notes():
    result = run("choir.wav", "--guides", "stems", "--per-voice", "-o", "take.1", "--midi", "deep/notes.mid")
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [*(f"take.1/{name}.csv" for name in NAMES), "deep/notes.mid", "take.1.png"]
    for tracks in (F0Tracks.from_csv("take.1", NAMES), F0Tracks.from_midi("deep/notes.mid")):
        assert tracks.names == NAMES
        for row, expected in zip(tracks.frequencies, F0[:, 0], strict=True):
            assert np.median(row[row > 0]) == pytest.approx(expected, rel=0.01)


def test_existing_files_are_kept_without_overwrite(tiny_tracker):
    Path("choir.png").write_text("mine")
    result = run("choir.wav", "--tracker", tiny_tracker)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert Path("choir.png").read_text() == "mine"
    assert not Path("choir.csv").exists()
    assert run("choir.wav", "--tracker", tiny_tracker, "--overwrite").exit_code == 0
    assert Path("choir.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_still_a_table(monkeypatch, tiny_tracker):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("choir.wav", "--tracker", tiny_tracker)
    assert (result.exit_code, result.stdout) == (0, "choir.csv\n")
    assert "vocalsep[plot]" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.wav"],
        ["stems"],
        ["choir.wav", "--voices", "Q"],
        ["choir.wav", "--tracker", "nowhere"],
        ["choir.wav", "--guides", "nowhere"],
        ["choir.wav", "--guides", "stems", "-o", "choir.wav/x.csv"],
        ["choir.wav", "-o", "choir.wav", "--overwrite"],
        ["choir.wav", "-o", "stems/../choir.wav", "--overwrite"],
        ["choir.wav", "-o", "x.png"],  # the place of the picture
        ["choir.wav", "--midi", "choir.wav"],
        ["choir.wav", "--midi", "notes.txt"],
        ["choir.wav", "-o", "x.mid", "--midi", "stems/../x.mid"],
    ],
)
def test_errors_change_no_file(folder, arguments):
    before = files_in(folder)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert files_in(folder) == before
