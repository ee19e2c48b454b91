"""Pictures: f0 lies where the spectrogram has its lines, in the colour of its voice; files and failures."""

import sys

import numpy as np
import pytest

from vocalsep import picture
from vocalsep.errors import AudioError, MissingExtraError, VocalsepError
from vocalsep.f0.plot import save_picture
from vocalsep.f0.tracks import F0Tracks

image = pytest.importorskip("matplotlib.image")

NAMES = ("soprano", "alto", "tenor", "bass")


def pixels_near(path, colour: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Return rows and columns of pixels of a colour, left of the legend, and the size of the picture."""
    found = image.imread(path)[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    close = np.abs(found - wanted).max(axis=-1) < 0.02
    close[: found.shape[0] // 4, found.shape[1] * 3 // 4 :] = False
    return np.argwhere(close), found.shape[:2]


@pytest.fixture
def tracks() -> F0Tracks:
    f0 = np.float32([[600], [400], [200], [100]]) * np.ones(126, np.float32)
    f0[1, 60:] = 0
    return F0Tracks(f0, NAMES)


def test_voices_are_drawn_in_their_colours_at_their_f0(tmp_path, tracks):
    save_picture(tmp_path / "deep" / "x.png", np.zeros(32000), 16000, tracks, title="Locus iste")
    heights = []
    for row in range(4):
        places, (_, width) = pixels_near(tmp_path / "deep" / "x.png", picture._COLOURS[row])
        assert len(places) > 100
        heights.append(np.median(places[:, 0]))
        assert np.ptp(places[:, 1]) > (0.3 if row == 1 else 0.8) * 0.8 * width
    # One octave from 400 to 200 Hz and from 200 to 100 Hz: equal distances on a logarithmic axis, high voices on top.
    assert heights == sorted(heights)
    assert heights[2] - heights[1] == pytest.approx(heights[3] - heights[2], abs=2)


def test_uncertain_f0_is_pale(tmp_path, tracks):
    sure = F0Tracks(tracks.frequencies, NAMES, confidence=np.ones((4, 126)))
    unsure = F0Tracks(tracks.frequencies, NAMES, confidence=np.zeros((4, 126)))
    for name, given in (("sure", sure), ("unsure", unsure)):
        save_picture(tmp_path / f"{name}.png", np.zeros(32000), 16000, given)
    assert len(pixels_near(tmp_path / "sure.png", picture._COLOURS[0])[0]) > 100
    assert len(pixels_near(tmp_path / "unsure.png", picture._COLOURS[0])[0]) < 20


@pytest.mark.parametrize(
    ("confidence", "least", "most"), [(0.0, 0.1, 0.3), (0.3, 0.1, 0.3), (0.9, 0.9, 1), (1, 0.9, 1)]
)
def test_how_pale_a_confidence_is(tmp_path, confidence, least, most):
    """The line's brightest pixels, as a share of the colour's own brightness on a black spectrogram."""
    given = F0Tracks(np.full((1, 126), 220.0), ("a",), confidence=np.full((1, 126), confidence))
    save_picture(tmp_path / "x.png", np.zeros(32000), 16000, given)
    red = image.imread(tmp_path / "x.png")[..., 0]
    # Inside the axes, clear of the legend, only the line is red.
    rows = slice(red.shape[0] // 2, red.shape[0] * 3 // 4)
    column = red[rows, red.shape[1] // 4 : red.shape[1] // 2]
    assert least <= np.median(column.max(axis=0)) <= most


def test_the_spectrogram_shows_what_sounds(tmp_path):
    silent = F0Tracks(np.zeros((1, 126), np.float32), ("a",))
    time = np.arange(88200) / 44100
    save_picture(tmp_path / "tone.png", 0.3 * np.sin(2 * np.pi * 400 * time), 44100, silent)
    bright = image.imread(tmp_path / "tone.png")[..., :3].min(axis=-1)
    middle = bright[:, bright.shape[1] // 2]
    inside = np.flatnonzero(middle < 0.1)
    lit = np.flatnonzero(middle[inside.min() : inside.max()] > 0.8)
    assert 0 < len(lit) < 40  # one line


@pytest.mark.parametrize("samples", [1, 300, 16000 * 30])
@pytest.mark.filterwarnings("error")
def test_recordings_of_any_length(tmp_path, samples):
    frames = 1 + samples // 256
    save_picture(tmp_path / "x.png", np.zeros((2, samples)), 16000, F0Tracks(np.full((1, frames), 220.0), ("a",)))
    height, width = image.imread(tmp_path / "x.png").shape[:2]
    assert height == 600
    assert width == pytest.approx(max(900, frames * 0.016 * 60), abs=1)


def test_more_voices_than_colours(tmp_path):
    f0 = np.linspace(900, 80, 16)[:, None] * np.ones(63)
    save_picture(tmp_path / "x.png", np.zeros(16000), 16000, F0Tracks(f0, tuple(f"v{i}" for i in range(16))))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_folders_that_cannot_be_written(tmp_path, tracks):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AudioError, match="cannot be written"):
        save_picture(tmp_path / "file" / "x.png", np.zeros(32000), 16000, tracks)
    with pytest.raises(AudioError, match="cannot be written"):
        save_picture(tmp_path, np.zeros(32000), 16000, tracks)


def test_without_matplotlib_the_extra_is_named(tmp_path, tracks, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[plot\]") as caught:
        save_picture(tmp_path / "x.png", np.zeros(32000), 16000, tracks)
    assert isinstance(caught.value, VocalsepError)
