"""Pictures: f0 lies where the spectrogram has its lines, in the colour of its voice."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vocalsep.audio.downmix import Downmix
from vocalsep.errors import MissingExtraError, OutputError
from vocalsep.f0.plot import COLOURS, save_plot
from vocalsep.f0.tracks import F0Tracks

image = pytest.importorskip("matplotlib.image")

NAMES = ("soprano", "alto", "tenor", "bass")


def draw(path: Path, waveform: np.ndarray, tracks: F0Tracks) -> np.ndarray:
    """Return the pixels of a picture, shape (rows, columns, red green blue)."""
    with Downmix.of_array(waveform.astype(np.float32)) as downmix:
        save_plot(path, downmix, tracks)
    return image.imread(path)[..., :3]


def pixels_of(picture: np.ndarray, colour: str) -> np.ndarray:
    """Return rows and columns of the pixels of a colour, left of the legend."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    close = np.abs(picture - wanted).max(axis=-1) < 0.02
    close[: picture.shape[0] // 4, picture.shape[1] * 3 // 4 :] = False
    return np.argwhere(close)


@pytest.fixture
def tracks() -> F0Tracks:
    f0 = np.float32([[600], [400], [200], [100]]) * np.ones(126, np.float32)
    f0[1, 60:] = 0
    return F0Tracks(f0, NAMES)


def test_voices_are_drawn_in_their_colours_at_their_f0(tmp_path, tracks):
    picture = draw(tmp_path / "deep" / "x.png", np.zeros(32000), tracks)
    heights = []
    for row in range(4):
        places = pixels_of(picture, COLOURS[row])
        assert len(places) > 100
        heights.append(np.median(places[:, 0]))
        assert np.ptp(places[:, 1]) > (0.3 if row == 1 else 0.8) * 0.8 * picture.shape[1]
    # 400, 200 and 100 Hz have equal distances on a logarithmic axis, and high voices are on top.
    assert heights == sorted(heights)
    assert heights[2] - heights[1] == pytest.approx(heights[3] - heights[2], abs=2)


@pytest.mark.parametrize(
    ("confidence", "least", "most"), [(0.0, 0.1, 0.3), (0.3, 0.1, 0.3), (0.9, 0.9, 1), (1, 0.9, 1)]
)
def test_low_confidence_is_pale(tmp_path, confidence, least, most):
    """Compare the line's brightest pixels with the colour's own brightness, on a black spectrogram."""
    tracks = F0Tracks(np.full((1, 126), 220.0), ("a",), confidence=np.full((1, 126), confidence))
    red = draw(tmp_path / "x.png", np.zeros(32000), tracks)[..., 0]
    # Inside the axes and clear of the legend, only the line is red.
    inside = red[red.shape[0] // 2 : red.shape[0] * 3 // 4, red.shape[1] // 4 : red.shape[1] // 2]
    assert least <= np.median(inside.max(axis=0)) <= most


def test_the_spectrogram_shows_a_tone_as_one_line(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 400 * np.arange(32000) / 16000)
    picture = draw(tmp_path / "x.png", tone, F0Tracks(np.zeros((1, 126)), ("a",)))
    middle = picture.min(axis=-1)[:, picture.shape[1] // 2]
    inside = np.flatnonzero(middle < 0.1)
    lit = np.flatnonzero(middle[inside.min() : inside.max()] > 0.8)
    assert 0 < len(lit) < 40


@pytest.mark.parametrize("samples", [1, 300, 16000 * 30])
@pytest.mark.filterwarnings("error")
def test_recordings_of_any_length(tmp_path, samples):
    frames = 1 + samples // 256
    picture = draw(tmp_path / "x.png", np.zeros(samples), F0Tracks(np.full((1, frames), 220.0), ("a",)))
    assert picture.shape[0] == 600
    assert picture.shape[1] == pytest.approx(max(900, frames * 0.016 * 60), abs=1)


def test_more_voices_than_colours(tmp_path):
    f0 = np.linspace(900, 80, 16)[:, None] * np.ones(63)
    picture = draw(tmp_path / "x.png", np.zeros(16000), F0Tracks(f0, tuple(f"v{i}" for i in range(16))))
    assert len(pixels_of(picture, COLOURS[0])) > 100


def test_paths_that_cannot_be_written(tmp_path, tracks):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(OutputError):
            draw(path, np.zeros(32000), tracks)


def test_without_matplotlib_the_extra_is_named(tmp_path, tracks, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[plot\]"):
        draw(tmp_path / "x.png", np.zeros(32000), tracks)
