"""F0 tracks: their values, other grids, and tables of f0 as users and programs write them."""

from pathlib import Path

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocalsep.errors import F0Error, OutputError
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
    ("frequencies", "names", "options"),
    [
        ([100.0], ("a",), {}),
        (np.zeros((0, 5)), (), {}),
        (np.zeros((1, 0)), ("a",), {}),
        (np.zeros((2, 3)), ("a",), {}),
        ([[-1.0]], ("a",), {}),
        ([[np.nan]], ("a",), {}),
        ([[8000.5]], ("a",), {}),
        ([["x"]], ("a",), {}),
        ([[1.0], [1.0, 2.0]], ("a", "b"), {}),
        ([[1.0], [2.0]], ("a", "A"), {}),
        ([[1.0], [2.0]], ("\xe9", "e\u0301"), {}),  # the same file on systems that decompose letters
        ([[1.0]], ("../a",), {}),
        ([[1.0]], (5,), {}),
        ([[1.0]] * 17, tuple("abcdefghijklmnopq"), {}),
        ([[1.0]], ("a",), {"hop": 0}),
        ([[1.0]], ("a",), {"hop": 16}),
        ([[1.0]], ("a",), {"hop": float("nan")}),
        ([[1.0]], ("a",), {"confidence": [[1.0, 1.0]]}),
        ([[1.0]], ("a",), {"confidence": [["x"]]}),
    ],
)
def test_invalid_tracks(frequencies, names, options):
    with pytest.raises(F0Error) as caught:
        F0Tracks(frequencies, names, **options)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()


def test_values_are_copied_and_confidence_is_clipped():
    values = np.full((1, 3), 100.0, dtype=np.float32)
    tracks = F0Tracks(values, ["a"], confidence=[[-1, np.nan, 2]])
    values[:] = 5
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
    with pytest.raises(F0Error, match="'t'"):
        tracks.select(["t"])


@pytest.mark.parametrize("factor", [1, 2, 4, 5])
def test_resampled_to_a_finer_grid_and_back_keeps_every_value(factor):
    tracks = random_tracks()
    fine = tracks.resampled(HOP / factor, tracks.n_frames * factor)
    assert (fine is tracks) == (factor == 1)
    np.testing.assert_array_equal(fine.frequencies[:, ::factor], tracks.frequencies)
    np.testing.assert_array_equal(fine.resampled(HOP, tracks.n_frames).frequencies, tracks.frequencies)


def test_resampled_interpolates_logarithmically():
    fine = F0Tracks([[100, 400]], ("a",), confidence=[[0, 1]]).resampled(HOP / 4, 4)
    np.testing.assert_allclose(fine.frequencies[0], [100, 100 * 2**0.5, 200, 200 * 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(fine.confidence[0], [0, 0.25, 0.5, 0.75], atol=1e-6)


def test_resampled_has_no_glides_over_rests():
    """Onsets and releases stay within half a frame, and every value is one of the original values."""
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


@pytest.mark.parametrize(("hop", "frames"), [(2, 5), (-HOP, 5), (HOP, 0)])
def test_resampled_to_no_grid(hop, frames):
    with pytest.raises(F0Error):
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


@given(st.lists(st.floats(0, 8000, width=32), min_size=1, max_size=20))
@settings(max_examples=30, derandomize=True, deadline=None, database=None)
def test_csv_keeps_every_digit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "f0.csv"
    tracks = F0Tracks([values], ("a",))
    tracks.to_csv(path)
    np.testing.assert_array_equal(F0Tracks.from_csv(path).frequencies, tracks.frequencies)


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
    written(tmp_path, b"\0\5\x16\7\xff", "._aaa.csv")  # macOS leaves such files
    found = F0Tracks.from_csv(tmp_path)
    assert found.names == ("zzz", "mmm", "aaa")
    assert found.hop == 0.008
    np.testing.assert_array_equal(found.frequencies[:, 4], [0, 220, 0])
    assert F0Tracks.from_csv(tmp_path, ["aaa", "zzz"]).names == ("aaa", "zzz")


def test_missing_files(tmp_path):
    with pytest.raises(F0Error, match=r"none\.csv"):
        F0Tracks.from_csv(tmp_path / "none.csv")
    with pytest.raises(F0Error, match="holds no"):
        F0Tracks.from_csv(tmp_path)
    written(tmp_path, "0,100,200\n0.016,100,200\n", "alto.csv")
    with pytest.raises(F0Error, match=r"bass\.csv"):
        F0Tracks.from_csv(tmp_path, ["bass"])
    with pytest.raises(F0Error, match=r"alto\.csv"):
        F0Tracks.from_csv(tmp_path)


def test_cannot_write(tmp_path):
    written(tmp_path, "", "file")
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "file" / "f0.csv", tmp_path / "folder.csv"):
        with pytest.raises(OutputError):
            random_tracks().to_csv(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_sonic_visualiser_leaves_out_unvoiced_frames(tmp_path):
    tracks = random_tracks(1)
    lines = [f"{t:.9f},{f}" for t, f in zip(tracks.times, tracks.frequencies[0], strict=True) if f]
    found = F0Tracks.from_csv(written(tmp_path, "\n".join(lines), "tenor.csv"))
    assert (found.names, found.hop) == (("tenor",), HOP)
    np.testing.assert_array_equal(found.frequencies, tracks.frequencies[:, : found.n_frames])


@pytest.mark.parametrize("hop", [256 / 44100, 0.010, 0.0232])
def test_other_hops_with_rests_left_out(tmp_path, hop):
    """Voicing is right to half a hop of either grid, and f0 to a few cents."""
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
        '"time", "a", "b"\n"0", "440", "220"\n"0.016", "0", "220"\n',
        "time\ta\tb\n0\t440\t220\n0.016\t0\t220",
        "#time a b\n0 440 220\n0.016   0 220\n",
        "0, 440, 220\n\n0.016, -300, 220\n",
        "0,440,220\n0.016,,220\n,,\n",
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
    with pytest.raises(F0Error, match="'alto'"):
        F0Tracks.from_csv(path, ["soprano", "alto"])


def test_names_of_a_single_column(tmp_path):
    path = written(tmp_path, "time,f0\n0,110\n0.016,111\n")
    assert F0Tracks.from_csv(path, ["bass"]).names == ("bass",)
    assert F0Tracks.from_csv(written(tmp_path, "0,110\n", "tenor 2.csv")).names == ("tenor 2",)
    assert F0Tracks.from_csv(written(tmp_path, "f0 of a voice\n0,110\n", "title.csv")).names == ("title",)


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("time,soprano\n", "no values"),
        (RNG.bytes(500) + b"\xff", "read"),
        ("0,100\n0.016,100,200\n", "line 2"),
        ("0,100\n0.016,la\n", "line 2"),
        ("0,la\n0.016,100\n", "line 1"),
        ("0,nan\n0.016,100\n", "nan"),
        ("0,inf\n0.016,100\n", "inf"),
        ("0,100\n0.032,100\n0.016,100\n", "increase"),
        ("0,100\n0,100\n", "increase"),
        ("-1,100\n0,100\n", "negative"),
        ("0,100\n16,100\n32,100\n", "seconds"),  # milliseconds
        ("100000,100\n100000.016,100\n", "seconds"),
        ("0,44000\n0.016,100\n", "8000"),
        ("time,alto,Alto\n0,1,1\n", "Alto"),
        ("time,../../x\n0,100\n", "name"),
        ("time,,alto\n0,1,1\n", "name"),
        ("time,alto\n0,1,1\n", "names"),
        ("0,100,200\n0.016,100,200\n", "names"),
        ("0" + ",100" * 17, "names"),
    ],
)
def test_malformed_csv(tmp_path, text, keyword):
    path = written(tmp_path, text)
    with pytest.raises(F0Error, match=keyword) as caught:
        F0Tracks.from_csv(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


NUMBERS = ("0", "0.016", "0.032", "1", "440", "8000.1", "-1", "nan", "1e308", "9" * 400)
CELLS = st.sampled_from([*NUMBERS, "", " ", '"', "=1+1", "time", "a", "\0"])
TABLES = st.builds(
    lambda rows, mark: "\n".join(mark.join(row) for row in rows).encode(),
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6),
    st.sampled_from([",", ";", "\t", " ", ", "]),
)


@given(TABLES | st.binary(max_size=200))
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@pytest.mark.filterwarnings("ignore:overflow")
def test_any_table_gives_tracks_or_one_error(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content, "any.csv")
    try:
        tracks = F0Tracks.from_csv(path)
    except F0Error as error:
        assert str(error).isprintable()
        return
    assert np.isfinite(tracks.frequencies).all()
