"""`vocalsep f0`: the files that it writes, and the ones that it leaves alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from test_cli import F0, NAMES, files_in, folder, quartet, refused  # noqa: F401 (fixtures)
from test_cli import run as run_command

from vocalsep import audio
from vocalsep.f0.tracks import F0Tracks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]


def run(*arguments: object) -> Result:
    return run_command("f0", *arguments, "-d", "cpu")


def test_a_table_and_a_picture(tiny_tracker):
    result = run("choir.wav", "--tracker", tiny_tracker)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == ["choir.csv", "choir.png"]
    tracks = F0Tracks.from_csv("choir.csv")
    assert (tracks.names, tracks.n_frames) == (NAMES, 100)
    assert Path("choir.csv").read_text().startswith("time,soprano,alto,tenor,bass\n0.000000,")
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


@pytest.mark.parametrize("existing", ["choir.png", "choir.mid"])
def test_existing_files_are_kept_without_overwrite(tiny_tracker, existing):
    Path(existing).write_text("mine")
    options = ["choir.wav", "--tracker", tiny_tracker, "--midi", "choir.mid"]
    assert "--overwrite" in refused("f0", *options)
    assert Path(existing).read_text() == "mine"
    assert not Path("choir.csv").exists()
    assert run(*options, "--overwrite").exit_code == 0
    assert Path(existing).read_bytes() != b"mine"


def test_without_matplotlib_there_is_still_a_table(monkeypatch, tiny_tracker):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("choir.wav", "--tracker", tiny_tracker)
    assert (result.exit_code, result.stdout) == (0, "choir.csv\n")
    assert "vocalsep[plot]" in result.stderr


@pytest.mark.parametrize("table", [["--per-voice", "-o", "tracks"], ["-o", "tracks.csv"]])
def test_the_csv_gives_the_stems_of_its_tracks(tiny_model, table):
    options = ["--voices", "SATB", "-n", tiny_model, "-d", "cpu"]
    assert run("choir.wav", "--no-picture", "--voices", "SATB", *table).exit_code == 0
    assert run_command("separate", "choir.wav", "-o", "tracked", *options).exit_code == 0
    assert run_command("separate", "choir.wav", "-o", "read", "--f0", table[-1], *options).exit_code == 0
    for name in NAMES:
        one, other = (audio.read(Path(out, "choir", f"{name}.wav")).waveform for out in ("tracked", "read"))
        np.testing.assert_array_equal(one, other)


def test_columns_that_are_swapped_swap_the_stems(tiny_model):
    head, *lines = Path("f0.csv").read_text().splitlines()
    swapped = [",".join((t, s, tenor, alto, b)) for t, s, alto, tenor, b in (line.split(",") for line in lines)]
    Path("swapped.csv").write_text("\n".join([head, *swapped]))
    stems = {}
    for table in ("f0", "swapped"):
        options = ["--f0", f"{table}.csv", "--voices", "SATB", "--float32", "-o", table, "-n", tiny_model]
        assert run_command("separate", "choir.wav", *options).exit_code == 0
        stems[table] = {name: audio.read(Path(table, "choir", f"{name}.wav")).waveform for name in NAMES}
    for name, source in zip(NAMES, ("soprano", "tenor", "alto", "bass"), strict=True):
        np.testing.assert_allclose(stems["swapped"][name], stems["f0"][source], atol=1e-6)
    assert np.abs(stems["f0"]["alto"] - stems["f0"]["tenor"]).max() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.wav"],
        ["stems"],
        ["f0.csv", "-o", "y.csv"],
        ["choir.wav", "--voices", "Q"],
        ["choir.wav", "--tracker", "nowhere"],
        ["choir.wav", "--guides", "nowhere"],
        ["choir.wav", "--guides", "stems", "-o", "choir.wav/x.csv"],
        ["choir.wav", "--per-voice", "-o", "."],
        ["choir.wav", "-o", "stems/../choir.wav", "--overwrite"],
        ["choir.wav", "-o", "x.png"],  # the place of the picture
        ["choir.wav", "-o", "f0.csv"],
        ["choir.wav", "--midi", "choir.wav"],
        ["choir.wav", "--midi", "notes.txt"],
        ["choir.wav", "-o", "x.mid", "--midi", "stems/../x.mid"],
    ],
)
def test_errors_change_no_file(folder, arguments):  # noqa: F811
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    refused("f0", *arguments, "-d", "cpu")
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before
