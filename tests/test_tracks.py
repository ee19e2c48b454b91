import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import mido
import mir_eval
import numpy as np
import pytest
import torch

from vocalsep.errors import F0Error
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP

RNG = np.random.default_rng(0)


def random_tracks(voices: int = 3, frames: int = 200) -> F0Tracks:
    f0 = RNG.uniform(60, 1100, (voices, frames)).astype(np.float32)
    f0[RNG.random(f0.shape) < 0.2] = 0
    return F0Tracks(f0, ("soprano", "alto", "tenor", "bass")[:voices])


def written(folder: Path, text: str | bytes, name: str = "f0.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("frequencies", "names", "options", "message"),
    [
        ([100.0], ("a",), {}, r"shape \(1,\); expected \(voices, frames\)"),
        (np.zeros((0, 5)), (), {}, "neither of them 0"),
        (np.zeros((1, 0)), ("a",), {}, "neither of them 0"),
        (np.zeros((2, 3)), ("a",), {}, "2 voices but there are 1 names"),
        ([[-1.0]], ("a",), {}, "negative"),
        ([[np.nan]], ("a",), {}, "NaN"),
        ([[1e300]], ("a",), {}, "above 8000 Hz"),
        ([[8000.5]], ("a",), {}, "above 8000 Hz"),
        ([["x"]], ("a",), {}, "cannot be read as numbers"),
        ([[1.0], [1.0, 2.0]], ("a", "b"), {}, "cannot be read as numbers"),
        ([[1j]], ("a",), {}, "cannot be read as numbers"),
        ([[True]], ("a",), {}, "cannot be read as numbers"),
        ([[1.0], [2.0]], ("a", "A"), {}, "name of voice 2 is 'A'"),
        ([[1.0]], ("../a",), {}, "name of voice 1 is '../a'"),
        ([[1.0]], (5,), {}, "name of voice 1 is 5"),
        ([[1.0]], ("a",), {"hop": 0}, "hop is 0 s"),
        ([[1.0]], ("a",), {"hop": 16}, "hop is 16 s"),
        ([[1.0]], ("a",), {"hop": float("nan")}, "hop is nan s"),
        ([[1.0]], ("a",), {"hop": "x"}, "hop is 'x' s"),
        ([[1.0]], ("a",), {"confidence": [[1.0, 1.0]]}, r"confidence has shape \(1, 2\)"),
        ([[1.0]], ("a",), {"confidence": [["x"]]}, "confidence cannot be read as numbers"),
        ([[1.0]] * 17, tuple("abcdefghijklmnopq"), {}, "f0s have 17 voices; expected 1 to 16"),
        ([[1.0]], None, {}, "names is None; expected one name for each voice"),
        ([[1.0], [2.0]], ("\xe9", "e\u0301"), {}, "name of voice 2"),  # one file where letters are decomposed
        ([[1.0]], (np.zeros((9, 9)),), {}, r"name of voice 1 is array\(\[\[0\., .*\.\.\.; expected one of its own"),
        ([[1.0]], ("a",), {"hop": True}, "hop is True s"),
        ([[1.0]], ("a",), {"hop": 1e-9}, "hop is 1e-09 s; expected seconds, from 1e-05 to 1"),
        ([[1.0]], ("a",), {"hop": 10**5000}, r"hop is (<int>|10000+\.+) s"),
        ([[1.0]], ("a",), {"hop": np.ones(9)}, r"hop is array\("),
        (np.ma.masked_array([[1.0, 2.0]], [[0, 1]]), ("a",), {}, "f0s are masked in places"),
        (torch.zeros(1, 2).to_sparse(), ("a",), {}, "cannot be read as numbers"),
        (np.zeros((1, 1), [(f"column{n}", "f4") for n in range(99)]), ("a",), {}, r"\(dtype \[.*\.\.\.\)"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_validation(frequencies, names, options, message):
    with pytest.raises(F0Error, match=message) as caught:
        F0Tracks(frequencies, names, **options)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()


def test_values_are_copied_and_confidence_clipped():
    given = np.full((1, 3), 100.0, dtype=np.float32)
    tracks = F0Tracks(given, ["a"], confidence=[[-1, np.nan, 2]])
    given[:] = 5
    np.testing.assert_array_equal(tracks.frequencies, [[100, 100, 100]])
    np.testing.assert_array_equal(tracks.confidence, [[0, 0, 1]])
    np.testing.assert_allclose(tracks.times, [0, 0.016, 0.032])


def test_select_reorders():
    tracks = F0Tracks([[300, 0], [200, 200], [100, 0]], ("s", "a", "b"), confidence=[[0.3, 0], [0.2, 0], [0.1, 0]])
    picked = tracks.select(["b", "s"])
    np.testing.assert_array_equal(picked.frequencies, [[100, 0], [300, 0]])
    np.testing.assert_allclose(picked.confidence[:, 0], [0.1, 0.3])
    assert picked.names == ("b", "s")
    assert picked.voiced.tolist() == [[True, False], [True, False]]
    with pytest.raises(F0Error, match="no voice named 't'; the tracks have s, a, b"):
        tracks.select(["t"])


def test_resampled_to_its_own_grid_is_itself():
    tracks = random_tracks()
    assert tracks.resampled(HOP, tracks.n_frames) is tracks


@pytest.mark.parametrize("factor", [2, 4, 5])
def test_resampled_to_a_finer_grid_keeps_the_values_it_had(factor):
    tracks = random_tracks()
    fine = tracks.resampled(HOP / factor, tracks.n_frames * factor)
    np.testing.assert_array_equal(fine.frequencies[:, ::factor], tracks.frequencies)
    np.testing.assert_array_equal(fine.resampled(HOP, tracks.n_frames).frequencies, tracks.frequencies)


def test_resampled_interpolates_logarithmically():
    fine = F0Tracks([[100, 400]], ("a",), confidence=[[0, 1]]).resampled(HOP / 4, 4)
    np.testing.assert_allclose(fine.frequencies[0], [100, 100 * 2**0.5, 200, 200 * 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(fine.confidence[0], [0, 0.25, 0.5, 0.75], atol=1e-6)


def test_resampled_has_no_glides_over_rests():
    """Onsets and releases stay within half a frame, and every value is one that was sung."""
    fine = F0Tracks([[0, 200, 200, 0, 400, 400, 0]], ("a",)).resampled(HOP / 10, 70)
    assert set(fine.frequencies[0].tolist()) == {0, 200, 400}
    voiced = np.flatnonzero(fine.frequencies[0] == 200)
    assert abs(voiced[0] - 5) <= 1
    assert abs(voiced[-1] - 25) <= 1


def test_resampled_is_unvoiced_past_the_end():
    longer = F0Tracks([[100, 100]], ("a",), confidence=[[1, 1]]).resampled(HOP, 4)
    np.testing.assert_array_equal(longer.frequencies, [[100, 100, 0, 0]])
    np.testing.assert_array_equal(longer.confidence, [[1, 1, 0, 0]])


@pytest.mark.parametrize("hop", [0.0058049887, 0.010, 0.0213])
def test_resampled_there_and_back_follows_a_vibrato(hop):
    time = np.arange(300) * HOP
    tracks = F0Tracks([300 * 2 ** (0.05 * np.sin(2 * np.pi * 3 * time))], ("a",))
    back = tracks.resampled(hop, int(300 * HOP / hop)).resampled(HOP, 290)
    cents = 1200 * np.abs(np.log2(back.frequencies[0] / tracks.frequencies[0, :290]))
    assert cents.max() < 4


@pytest.mark.parametrize(
    ("hop", "frames"), [(0, 5), (-HOP, 5), (2, 5), (float("nan"), 5), (HOP, 0), (HOP, -1), (HOP, 2.5)]
)
def test_resampled_refuses(hop, frames):
    with pytest.raises(F0Error, match="grid has"):
        random_tracks().resampled(hop, frames)


@pytest.mark.parametrize("hop", [HOP, 0.01, 256 / 44100, 0.1])
def test_csv_round_trip_is_exact(tmp_path, hop):
    tracks = F0Tracks(random_tracks(3, 2000).frequencies, ("soprano", "alto, solo", "合唱"), hop)
    tracks.to_csv(tmp_path / "sub" / "f0.csv")
    found = F0Tracks.from_csv(tmp_path / "sub" / "f0.csv")
    np.testing.assert_array_equal(found.frequencies, tracks.frequencies)
    assert found.names == tracks.names
    assert found.hop == pytest.approx(hop, rel=1e-6)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["f0.csv"]


@pytest.mark.parametrize("value", [1e-40, 1.17549435e-38, 16777.217 / 4, 440.00003, 7999.9995])
def test_csv_round_trip_of_awkward_values(tmp_path, value):
    tracks = F0Tracks([[value, 0]], ("a",))
    tracks.to_csv(tmp_path / "f0.csv")
    np.testing.assert_array_equal(F0Tracks.from_csv(tmp_path / "f0.csv").frequencies, tracks.frequencies)


def test_csv_per_voice_round_trip_and_mir_eval(tmp_path):
    tracks = random_tracks()
    paths = tracks.to_csv_per_voice(tmp_path)
    for path, row in zip(paths, tracks.frequencies, strict=True):
        times, values = mir_eval.io.load_time_series(str(path), delimiter=",")
        np.testing.assert_array_equal(values.astype(np.float32), row)
        np.testing.assert_allclose(times, tracks.times, atol=1e-6)
        np.testing.assert_array_equal(F0Tracks.from_csv(path).frequencies, [row])
    found = F0Tracks.from_csv(tmp_path, tracks.names)
    assert (found.names, found.hop) == (tracks.names, tracks.hop)
    np.testing.assert_array_equal(found.frequencies, tracks.frequencies)


def test_folder_without_names_goes_from_high_to_low(tmp_path):
    written(tmp_path, "0,110\n0.016,110\n", "aaa.csv")
    written(tmp_path, "0,440\n0.016,0\n", "zzz.csv")
    written(tmp_path, "0,0\n0.008,220\n0.016,220\n0.024,220\n0.032,220\n", "mmm.csv")
    found = F0Tracks.from_csv(tmp_path)
    assert found.names == ("zzz", "mmm", "aaa")
    assert found.hop == 0.008
    np.testing.assert_array_equal(found.frequencies[:, 4], [0, 220, 0])


def test_folder_errors(tmp_path):
    with pytest.raises(F0Error, match=r"holds no \.csv files"):
        F0Tracks.from_csv(tmp_path)
    written(tmp_path, "0,100,200\n0.016,100,200\n", "alto.csv")
    with pytest.raises(F0Error, match=r"has no bass\.csv; it has alto"):
        F0Tracks.from_csv(tmp_path, ["bass"])
    with pytest.raises(F0Error, match=r"alto\.csv: has 2 columns of f0 and 1 names"):
        F0Tracks.from_csv(tmp_path)


def test_folder_leaves_out_what_is_no_file_of_a_voice(tmp_path):
    """Hidden copies of macOS, and folders: one that is a link to the folder itself is never searched."""
    written(tmp_path, "0,110\n0.016,110\n", "bass.csv")
    written(tmp_path, b"\0\5\x16\7\xff", "._bass.csv")
    (tmp_path / "alto.csv").mkdir()
    with suppress(OSError):  # Windows asks for a privilege
        for name in ("x.csv", "y.csv"):
            (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    assert F0Tracks.from_csv(tmp_path).names == ("bass",)


def test_folder_of_too_many_files(tmp_path):
    for number in range(17):
        written(tmp_path, "0,110\n0.016,110\n", f"{number}.csv")
    with pytest.raises(F0Error, match=r"holds 17 \.csv files; expected one for each voice, at most 16"):
        F0Tracks.from_csv(tmp_path)
    assert F0Tracks.from_csv(tmp_path, ["3", "1"]).names == ("3", "1")


def test_folder_of_a_fine_grid_and_a_long_voice(tmp_path):
    """On the finer grid the longer voice would fill the memory."""
    written(tmp_path, "0,110\n0.00001,110\n", "fine.csv")
    written(tmp_path, "0,220\n0.016,220\n50000,220\n", "long.csv")
    with pytest.raises(F0Error, match="steps of"):
        F0Tracks.from_csv(tmp_path)
    lines = "".join(f"{time},220\n" for time in [*np.arange(300) * 0.5, 5000])
    written(tmp_path, lines, "long.csv")
    found = F0Tracks.from_csv(tmp_path, ["fine", "long"])
    assert found.hop == HOP
    assert found.voiced[0].sum() == 1
    assert found.n_frames == 5000 / HOP + 1


@pytest.mark.parametrize("name", ["f0.csv", "f0.mid"])
def test_paths_that_are_none(tmp_path, name, monkeypatch):
    reader = F0Tracks.from_midi if name.endswith("mid") else F0Tracks.from_csv
    for path in ("a\0b", "x" * 5000, tmp_path / ("y" * 300), tmp_path / "none\n"):
        with pytest.raises(F0Error, match=r"cannot be read \(") as caught:
            reader(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
    for path in (None, 5, [name]):
        with pytest.raises(F0Error, match=r"path is .*; expected that of a file of f0"):
            reader(path)
    monkeypatch.setattr("vocalsep.f0.csv.MAX_CSV_BYTES", 10)
    monkeypatch.setattr("vocalsep.f0.midi._MAX_BYTES", 10)
    with pytest.raises(F0Error, match="has more than 0 MB"):
        reader(written(tmp_path, "0,100\n0.016,100\n", name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.csv", "pipe.mid", "bass.csv"])
def test_nobody_waits_for_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    reader = F0Tracks.from_midi if name.endswith("mid") else F0Tracks.from_csv
    with pytest.raises(F0Error, match=rf"{name}: cannot be read, being a pipe or a device"):
        reader(tmp_path if name == "bass.csv" else tmp_path / name)


@pytest.mark.parametrize("names", [5, [5], [], ["a"] * 17, np.zeros((3, 3)), [np.zeros(3)]])
def test_names_that_are_none(tmp_path, names):
    written(tmp_path, "time,a,b\n0,110,100\n0.016,110,100\n", "f0.csv")
    singing(melody((60, 50))).to_midi(tmp_path / "song.mid")
    for call in (lambda: F0Tracks.from_csv(tmp_path / "f0.csv", names), lambda: F0Tracks.from_csv(tmp_path, names),
                 lambda: F0Tracks.from_midi(tmp_path / "song.mid", names)):  # fmt: skip
        with pytest.raises(F0Error, match=r"names is .*; expected (the names of|one name)") as caught:
            call()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("columns", [17, 256, 257, 1_000_000])
@pytest.mark.parametrize("mark", [",", " "])
def test_tables_of_many_columns(tmp_path, columns, mark):
    row = mark.join(["1"] * columns)
    header = mark.join(["time", *(f"v{n}" for n in range(columns - 1))])
    for text in (f"{row}\n", f"{header}\n{row}\n", f"0{mark}1\n{row}\n"):
        path = written(tmp_path, text)
        if columns == 17 and text.startswith("time"):
            assert F0Tracks.from_csv(path).n_voices == 16
            continue
        with pytest.raises(F0Error, match=r"columns|voices|line 2 is") as caught:
            F0Tracks.from_csv(path)
        assert len(str(caught.value)) < 400


def test_cannot_write(tmp_path):
    written(tmp_path, "", "file")
    with pytest.raises(F0Error, match="cannot be written"):
        random_tracks().to_csv(tmp_path / "file" / "f0.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(F0Error, match="cannot be written"):
        random_tracks().to_csv(tmp_path / "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_sonic_visualiser_leaves_out_unvoiced_frames(tmp_path):
    tracks = random_tracks(1)
    lines = [f"{t:.9f},{f}" for t, f in zip(tracks.times, tracks.frequencies[0], strict=True) if f]
    found = F0Tracks.from_csv(written(tmp_path, "\n".join(lines), "tenor.csv"))
    assert (found.names, found.hop) == (("tenor",), HOP)
    np.testing.assert_array_equal(found.frequencies[0], tracks.frequencies[0, : found.n_frames])
    assert not tracks.frequencies[0, found.n_frames :].any()


@pytest.mark.parametrize("hop", [256 / 44100, 0.010, 0.0232])
def test_other_hops_with_rests_left_out(tmp_path, hop):
    """Voicing is right to half a hop of either grid and f0 to a few cents."""
    time = 0.3 + np.arange(int(3 / hop)) * hop
    sung = (time % 1) < 0.7
    f0 = 220 * 2 ** (0.04 * np.sin(2 * np.pi * 4 * time))
    text = "\n".join(f"{t:.6f}\t{f:.4f}" for t, f in zip(time[sung], f0[sung], strict=True))
    found = F0Tracks.from_csv(written(tmp_path, text))
    centre = found.times
    inside = (centre > 0.3) & ((centre % 1) < 0.7)
    edge = np.abs(centre[:, None] - [0.3, 0.7, 1, 1.7, 2, 2.7, 3, 3.3]).min(axis=1) < hop + 1e-3
    np.testing.assert_array_equal(found.voiced[0][~edge], inside[~edge])
    both = found.voiced[0] & ~edge
    truth = 220 * 2 ** (0.04 * np.sin(2 * np.pi * 4 * centre[both]))
    assert np.abs(1200 * np.log2(found.frequencies[0, both] / truth)).max() < (12 if hop > HOP else 3)


def test_other_hop_in_full_is_kept(tmp_path):
    text = "\n".join(f"{round(i * 0.0058, 3)},{100 + i}" for i in range(100))  # times rounded to 1 ms
    found = F0Tracks.from_csv(written(tmp_path, text))
    assert found.hop == pytest.approx(0.0058, rel=1e-3)
    np.testing.assert_array_equal(found.frequencies[0], 100 + np.arange(100))


@pytest.mark.parametrize(
    "text",
    [
        "0,440,220\n0.016,0,220\n",
        "time,a,b\n0,440,220\n0.016,0,220\n",
        "\ufefftime,a,b\r\n0,440,220\r\n0.016,0,220\r\n",
        '"time";"a";"b"\n0,0;440,0;220,0\n0,016;0;220\n',
        "time\ta\tb\n0\t440\t220\n0.016\t0\t220",
        "# time a b\n0 440 220\n0.016   0 220\n".replace("# time", "#time"),
        "0, 440, 220\n\n0.016, -300, 220\n",
        "0,440,220\n0.016,,220\n",
    ],
)
def test_ways_to_write_a_table(tmp_path, text):
    found = F0Tracks.from_csv(written(tmp_path, text), ["a", "b"])
    np.testing.assert_array_equal(found.frequencies, [[440, 0], [220, 220]])
    assert (found.names, found.hop) == (("a", "b"), HOP)


def test_columns_go_by_their_names(tmp_path):
    path = written(tmp_path, "Bass,Time,Soprano\n110,0,440\n111,0.016,441\n")
    assert F0Tracks.from_csv(path).names == ("Bass", "Soprano")
    found = F0Tracks.from_csv(path, ["soprano", "bass"])
    assert found.names == ("soprano", "bass")
    np.testing.assert_array_equal(found.frequencies, [[440, 441], [110, 111]])
    with pytest.raises(F0Error, match=r"f0\.csv: has no column 'alto'; it has Bass, Soprano"):
        F0Tracks.from_csv(path, ["soprano", "alto"])


def test_single_column_takes_the_name_asked_for(tmp_path):
    path = written(tmp_path, "time,f0\n0,110\n0.016,111\n")
    assert F0Tracks.from_csv(path, ["bass"]).names == ("bass",)
    assert F0Tracks.from_csv(written(tmp_path, "0,110\n", "CON.csv")).names == ("voice1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("time,soprano\n", "has a line of names but no values"),
        (RNG.bytes(500) + b"\xff", "is not text in UTF-8"),
        ("\0\0\0\n\0", "line 2 is|no values"),
        ("0,100\n0.016,100,200\n", "line 2 is '0.016,100,200'"),
        ("0,100\n0.016\n", "line 2 is|line 1 is"),
        ("0,100\n0.016,la\n", "line 2 is '0.016,la'; expected time and f0"),
        ("0,la\n0.016,100\n", "line 1 is '0,la'"),
        ("0,100\n0.032,100\n0.016,100\n", "times are negative, NaN or do not grow"),
        ("0,100\n0,100\n", "do not grow"),
        ("-1,100\n0,100\n", "times are negative"),
        ("nan,100\n1,100\n", "times are negative, NaN"),
        ("0,100\n16,100\n32,100\n", "steps of 16; expected seconds"),
        ("100000,100\n100000.016,100\n", "expected seconds"),
        ("0,nan\n0.016,100\n", "NaN"),
        ("0,100\n1,1e300\n1.1,100\n", "above 8000"),
        ("0,100\n1,inf\n1.1,100\n", "above 8000"),
        ("0,100\n5e-324,100\n1e-323,100\n1,100\n", "in steps of 4.*expected seconds"),
        ("0,100\n1e-9,100\n", "in steps of 1e-09"),
        ("0,100\n1e308,100\n1.7e308,100\n", "times reach 1.7e\\+308"),
        ("0,1_000\n0.016,100\n", "line 1 is '0,1_000'"),
        ("0,inf\n0.016,100\n", "above 8000"),
        ("0,44000\n0.016,100\n", "above 8000"),
        ("time,alto,Alto\n0,1,1\n", "name of voice 2 is 'Alto'"),
        ("time,../../x\n0,100\n", "name of voice 1"),
        ("time,,alto\n0,1,1\n", "name of voice 1 is ''"),
        ("0,100,200\n0.016,100,200\n", "has 2 columns of f0 and 0 names"),
        ("0," + "1" * 200_000 + "\n", "no values"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(F0Error, match=message) as caught:
        F0Tracks.from_csv(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_csv(tmp_path):
    with pytest.raises(F0Error, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        F0Tracks.from_csv(tmp_path / "none.csv")


BEAT = 480


def on(note, time=0, channel=0, velocity=80):
    return mido.Message("note_on", note=note, time=time, channel=channel, velocity=velocity)


def off(note, time=0, channel=0):
    return mido.Message("note_off", note=note, time=time, channel=channel)


def tempo(seconds_per_beat, time=0):
    return mido.MetaMessage("set_tempo", tempo=round(seconds_per_beat * 1e6), time=time)


def named(name):
    return mido.MetaMessage("track_name", name=name)


def midi(folder: Path, *tracks, kind: int = 1, ticks_per_beat: int = BEAT) -> Path:
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks_per_beat)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    file.save(folder / "song.mid")
    return folder / "song.mid"


def sung(tracks: F0Tracks, voice: int = 0) -> list[tuple[int, float, float]]:
    """Return what a voice sings as (MIDI note, start in s, end in s)."""
    f0 = tracks.frequencies[voice]
    notes = np.where(f0 > 0, np.round(69 + 12 * np.log2(np.maximum(f0, 1) / 440)), 0).astype(int)
    edges = [0, *np.flatnonzero(np.diff(notes)) + 1, len(notes)]
    return [(int(notes[a]), a * HOP, b * HOP) for a, b in pairwise(edges) if notes[a]]


def assert_sung(found, expected):
    assert [note for note, *_ in found] == [note for note, *_ in expected]
    np.testing.assert_allclose([span for _, *span in found], [span for _, *span in expected], atol=HOP)


def test_midi_notes_and_rests(tmp_path):
    tracks = F0Tracks.from_midi(midi(tmp_path, [on(69, BEAT), off(69, BEAT), on(57, BEAT), off(57, BEAT)]))
    assert_sung(sung(tracks), [(69, 0.5, 1), (57, 1.5, 2)])
    assert set(tracks.frequencies[0].tolist()) == {0, 440, 220}
    assert (tracks.names, tracks.hop) == (("voice1",), HOP)


def test_midi_tempo_changes_hold_for_all_tracks(tmp_path):
    path = midi(tmp_path, [tempo(1), tempo(0.25, 2 * BEAT)], [on(60, BEAT), off(60, 3 * BEAT)], [on(50), off(50, BEAT)])
    tracks = F0Tracks.from_midi(path)
    assert_sung(sung(tracks, 0), [(60, 1, 2.5)])
    assert_sung(sung(tracks, 1), [(50, 0, 1)])


def test_midi_legato_is_cut_and_velocity_0_ends(tmp_path):
    legato = [on(60), on(62, BEAT), off(60, 48), on(62, BEAT, velocity=0), on(64, BEAT), off(64, BEAT)]
    assert_sung(sung(F0Tracks.from_midi(midi(tmp_path, legato))), [(60, 0, 0.5), (62, 0.5, 1.05), (64, 1.55, 2.05)])


def test_midi_long_note_does_not_come_back_after_a_short_one(tmp_path):
    path = midi(tmp_path, [on(60), on(67, BEAT), off(67, BEAT), off(60, 2 * BEAT)])
    assert_sung(sung(F0Tracks.from_midi(path)), [(60, 0, 0.5), (67, 0.5, 1)])


def test_midi_chord_gives_its_highest_note(tmp_path):
    chord = [on(64), on(72), on(60), off(72, BEAT), off(60, BEAT), off(64)]
    assert_sung(sung(F0Tracks.from_midi(midi(tmp_path, chord))), [(72, 0, 0.5)])


def test_midi_note_never_released_lasts_to_the_end(tmp_path):
    path = midi(tmp_path, [on(60), mido.MetaMessage("end_of_track", time=4 * BEAT)])
    assert_sung(sung(F0Tracks.from_midi(path)), [(60, 0, 2)])


def test_midi_names(tmp_path):
    note = [on(60), off(60, BEAT)]
    tracks = [[named("Conductor")], [named(" Alto "), *note], [named("a/b"), *note], [named("alto"), *note], note]
    path = midi(tmp_path, *tracks)
    assert F0Tracks.from_midi(path).names == ("Alto1", "a_b", "alto2", "voice4")
    assert F0Tracks.from_midi(path, list("wxyz")).names == ("w", "x", "y", "z")
    with pytest.raises(F0Error, match=r"has 4 voices with notes; expected 2 \(s, a\)"):
        F0Tracks.from_midi(path, ["s", "a"])


def test_midi_names_in_utf_8(tmp_path):
    path = midi(tmp_path, [named("Ténor".encode().decode("latin-1")), on(60), off(60, BEAT)])
    assert F0Tracks.from_midi(path).names == ("Ténor",)


def test_midi_tracks_go_by_the_names_asked_for(tmp_path):
    path = midi(tmp_path, [named("Bass"), on(48), off(48, BEAT)], [named("Soprano"), on(72), off(72, BEAT)])
    tracks = F0Tracks.from_midi(path, ["soprano", "bass"])
    assert tracks.names == ("soprano", "bass")
    assert [sung(tracks, voice)[0][0] for voice in (0, 1)] == [72, 48]


def test_midi_channels_of_a_single_track_are_voices(tmp_path):
    track = [named("Motet"), on(50, channel=3), on(72, channel=0), on(64, channel=1), on(38, channel=9)]
    track += [off(72, BEAT, channel=0), off(64, channel=1), off(50, channel=3), off(38, channel=9)]
    tracks = F0Tracks.from_midi(midi(tmp_path, track, kind=0))
    assert tracks.names == ("voice1", "voice2", "voice3")
    assert [sung(tracks, voice)[0][0] for voice in range(3)] == [72, 64, 50]


def test_midi_channels_of_one_among_several_tracks_are_one_voice(tmp_path):
    path = midi(tmp_path, [on(60), off(60, BEAT), on(62, channel=1), off(62, BEAT, channel=1)], [on(50), off(50, BEAT)])
    tracks = F0Tracks.from_midi(path)
    assert tracks.n_voices == 2
    assert_sung(sung(tracks, 0), [(60, 0, 0.5), (62, 0.5, 1)])


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([[named("x")]], "holds no notes; expected one track for each voice"),
        ([[on(60), off(60)]], "holds no notes"),
        ([[on(40, channel=9), off(40, BEAT, channel=9)]], "holds no notes"),
        ([[tempo(16), on(60), off(61, 0x0FFFFFFF), off(60, 1)]], "hours; expected at most 24"),
        ([[on(127), off(127, BEAT)]], "above 8000 Hz"),
        ([[tempo(0), on(60), off(60, BEAT)]], "a beat lasts no time in it"),
        ([[on(60), off(60, BEAT)]] * 17, "has 17 voices with notes; expected 1 to 16"),
        ([[on(60), off(60, BEAT)]] * 3000, "has 3000 voices with notes; expected 1 to 16"),
    ],
)
def test_midi_that_says_nothing_of_use(tmp_path, tracks, message):
    with pytest.raises(F0Error, match=rf"song\.mid: .*{message}"):
        F0Tracks.from_midi(midi(tmp_path, *tracks))


@pytest.mark.parametrize("division", [0, -7400])
def test_midi_in_film_frames(tmp_path, division):
    content = bytearray(midi(tmp_path, [on(60), off(60, BEAT)]).read_bytes())
    content[12:14] = division.to_bytes(2, "big", signed=True)
    with pytest.raises(F0Error, match="film frames; expected ticks per beat"):
        F0Tracks.from_midi(written(tmp_path, bytes(content), "film.mid"))


@pytest.mark.parametrize("content", [b"", b"garbage" * 20, b"MThd", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\xff\xff\0"])
def test_midi_garbage(tmp_path, content):
    with pytest.raises(F0Error, match=r"x\.mid: cannot be read as MIDI"):
        F0Tracks.from_midi(written(tmp_path, content, "x.mid"))
    with pytest.raises(F0Error, match="No such file"):
        F0Tracks.from_midi(tmp_path / "none.mid")


def test_midi_with_damaged_bytes_never_leaks_an_exception(tmp_path):
    track = [named("x"), mido.MetaMessage("key_signature", key="C"), tempo(0.5)]
    content = midi(tmp_path, [*track, *[message for n in range(20) for message in (on(60 + n), off(60 + n, 60))]])
    original = content.read_bytes()
    for _ in range(400):
        damaged = bytearray(original)
        for place in RNG.integers(14, len(damaged), 2):
            damaged[place] = RNG.integers(256)
        try:
            found = F0Tracks.from_midi(written(tmp_path, bytes(damaged), "damaged.mid"))
        except F0Error:
            continue
        assert np.isfinite(found.frequencies).all()


def test_midi_of_endless_numbers(tmp_path):
    """Deltas and lengths may have any number of digits in the eyes of mido: thousands are too long, a million hang."""
    header = b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\xff\xff"
    for digits, message in ((4000, "hours; expected at most 24"), (5000, "damaged"), (1_000_000, "damaged")):
        delta = b"\xff" * digits + b"\x7f"
        for start in (b"\0\x90\x3c\x40", b"\0\x90\x3c\x40" + delta + b"\xff\x51\x03\x07\xa1\x20"):
            events = start + delta + b"\x80\x3c\x40"
            content = header[:-4] + len(events).to_bytes(4, "big") + events
            with pytest.raises(F0Error, match=message):
                F0Tracks.from_midi(written(tmp_path, content, "endless.mid"))


def melody(*notes: tuple[float | None, int], hop: float = HOP) -> np.ndarray:
    """Return the pitch in semitones of notes (pitch or None for a rest, frames)."""
    return np.concatenate([np.full(frames, np.nan if pitch is None else pitch) for pitch, frames in notes])


def singing(*voices: np.ndarray, names: tuple[str, ...] = ("soprano", "alto", "tenor", "bass")) -> F0Tracks:
    return F0Tracks(np.nan_to_num(440 * 2 ** ((np.stack(voices) - 69) / 12)), names[: len(voices)])


def through_midi(folder: Path, tracks: F0Tracks) -> F0Tracks:
    tracks.to_midi(folder / "out.mid")
    return F0Tracks.from_midi(folder / "out.mid")


SCALE = ((60, 40), (62, 40), (64, 30), (None, 20), (65, 60), (64, 12), (62, 12), (60, 50))
SPANS = [(60, 0, 40), (62, 40, 80), (64, 80, 110), (65, 130, 190), (64, 190, 202), (62, 202, 214), (60, 214, 264)]


def assert_notes(found: F0Tracks, spans: list[tuple[int, int, int]], frames: int, voice: int = 0) -> None:
    heard = sung(found, voice)
    assert [note for note, *_ in heard] == [note for note, *_ in spans]
    edges = np.array([span for _, *span in heard]) / HOP
    np.testing.assert_allclose(edges, [span for _, *span in spans], atol=frames + 1e-6)


def test_to_midi_gives_plain_notes_back_exactly(tmp_path):
    tracks = singing(melody(*SCALE), melody(*((pitch and pitch - 5, n) for pitch, n in SCALE)))
    found = through_midi(tmp_path, tracks)
    np.testing.assert_allclose(found.frequencies[:, : tracks.n_frames], tracks.frequencies, rtol=1e-6)
    assert found.names == tracks.names


@pytest.mark.parametrize(("rate", "depth"), [(4, 0.3), (4, 0.7), (5, 0.3), (5, 1), (6, 1), (7, 1)])
def test_to_midi_hears_no_notes_in_vibrato(tmp_path, rate, depth):
    pitch = melody((60, 120), (62, 120), (None, 15), (67, 90))
    vibrato = depth * np.sin(2 * np.pi * rate * HOP * np.arange(len(pitch)))
    found = through_midi(tmp_path, singing(pitch + vibrato))
    assert_notes(found, [(60, 0, 120), (62, 120, 240), (67, 255, 345)], frames=4)


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("interval", [1, 3, 7, 12])
def test_to_midi_puts_the_change_into_the_middle_of_a_glide(tmp_path, seconds, interval):
    time = np.arange(200) * HOP
    pitch = 60 + interval * np.clip((time - 1.5) / seconds + 0.5, 0, 1)
    assert_notes(through_midi(tmp_path, singing(pitch)), [(60, 0, 94), (60 + interval, 94, 200)], frames=2)


def test_to_midi_bridges_drop_outs_and_drops_blips(tmp_path):
    pitch = melody((60, 60), (None, 30), (62, 60), (None, 30), (64, 60), (None, 30))
    pitch[20:24] = np.nan  # a drop-out
    pitch[110:113] = 62 + 12  # an octave error
    pitch[160:164] = 70  # too short to be a note
    found = through_midi(tmp_path, singing(pitch))
    assert_notes(found, [(60, 0, 60), (62, 90, 150), (64, 180, 240)], frames=0)


def test_to_midi_keeps_notes_apart_that_a_rest_separates(tmp_path):
    found = through_midi(tmp_path, singing(melody((60, 30), (None, 8), (60, 30))))
    assert_notes(found, [(60, 0, 30), (60, 38, 68)], frames=0)


@pytest.mark.parametrize("hop", [0.005, 0.01, 256 / 44100, 0.02])
def test_to_midi_of_other_hops(tmp_path, hop):
    repeat = np.repeat(melody(*SCALE), 4)
    fine = F0Tracks(singing(repeat).frequencies, ("a",), hop=HOP / 4).resampled(hop, int(264 * HOP / hop))
    assert_notes(through_midi(tmp_path, fine), SPANS, frames=2)


@pytest.mark.parametrize("cents", [-40, 25, 60])
def test_to_midi_rounds_to_the_tuning_of_the_ensemble(tmp_path, cents):
    """Every voice is as sharp as the others, and sings thirds a little wide: the intervals are as written."""
    lower = melody((60, 100), (62, 100), (64, 100))
    found = through_midi(tmp_path, singing(lower + 0.01 * cents + 4.1, lower + 0.01 * cents - 0.1))
    shift = round(0.01 * cents)
    assert [note for note, *_ in sung(found, 1)] == [60 + shift, 62 + shift, 64 + shift]
    assert [note for note, *_ in sung(found, 0)] == [64 + shift, 66 + shift, 68 + shift]
    text = next(message.text for message in mido.MidiFile(tmp_path / "out.mid").tracks[0] if message.type == "text")
    assert float(text.split("(")[1].split()[0]) == pytest.approx(cents - 100 * shift, abs=3)


def test_to_midi_what_the_file_says(tmp_path):
    names = ("soprano1", "soprano2", "Ténor", "合唱")
    singing(*[melody((60 - n, 50)) for n in range(4)], names=names).to_midi(tmp_path / "deep" / "out.mid")
    file = mido.MidiFile(tmp_path / "deep" / "out.mid", charset="utf-8")
    assert (file.type, file.ticks_per_beat) == (1, 500)
    assert next(message.tempo for message in file.tracks[0] if message.type == "set_tempo") == 500_000
    assert [track.name for track in file.tracks[1:]] == list(names)
    notes = [message for track in file.tracks for message in track if not message.is_meta]
    assert {message.velocity for message in notes if message.type == "note_on"} == {80}
    assert {message.channel for message in notes} == {0, 1, 2, 3}
    assert F0Tracks.from_midi(tmp_path / "deep" / "out.mid").names == names
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.mid"]


def test_to_midi_of_sixteen_voices_avoids_percussion(tmp_path):
    names = tuple(f"voice{n}" for n in range(16))
    found = through_midi(tmp_path, singing(*[melody((80 - n, 50)) for n in range(16)], names=names))
    assert found.names == names
    assert [sung(found, voice)[0][0] for voice in range(16)] == [80 - n for n in range(16)]


def test_to_midi_of_voices_that_rest_throughout(tmp_path):
    silent = np.full(50, np.nan)
    singing(melody((60, 50)), silent).to_midi(tmp_path / "one.mid")
    assert F0Tracks.from_midi(tmp_path / "one.mid").names == ("soprano",)
    found = F0Tracks.from_midi(tmp_path / "one.mid", ["alto", "soprano"])
    assert found.voiced.any(axis=1).tolist() == [False, True]
    singing(silent).to_midi(tmp_path / "none.mid")
    with pytest.raises(F0Error, match="holds no notes"):
        F0Tracks.from_midi(tmp_path / "none.mid")


@pytest.mark.parametrize("hop", [HOP, 0.001, 0.3, 1.0])
@pytest.mark.parametrize("value", [0.0, 1e-40, 8.0, 8.2, 8000.0])
def test_to_midi_of_extremes_can_be_read(tmp_path, hop, value):
    for frames in (1, 2, 7, 40):
        given = np.float32([[value] * frames, [440.0] * frames])
        F0Tracks(given, ("a", "b"), hop).to_midi(tmp_path / "x.mid")
        try:
            found = F0Tracks.from_midi(tmp_path / "x.mid")
        except F0Error as error:
            assert frames * hop < 0.1, error
        else:
            assert found.frequencies.max() <= 8000


def test_to_midi_of_noise_is_a_melody(tmp_path):
    """Whatever f0 is, notes follow each other, none shorter than 0.1 s less half a frame."""
    random_tracks(4, 5000).to_midi(tmp_path / "x.mid")
    for track in mido.MidiFile(tmp_path / "x.mid").tracks[1:]:
        notes = [message for message in track if not message.is_meta]
        assert [message.type for message in notes] == ["note_on", "note_off"] * (len(notes) // 2)
        assert all(message.time >= 92 for message in notes[1::2])


def test_to_midi_cannot_write(tmp_path):
    tracks = singing(melody((60, 50)))
    written(tmp_path, "", "file")
    for path in (tmp_path, tmp_path / "file" / "x.mid", Path("/"), tmp_path / "a\0b.mid"):
        with pytest.raises(F0Error, match=r"cannot be written .*; expected the path of a MIDI file"):
            tracks.to_midi(path)
