"""Recordings of any length: a stretch gives what the whole gives, in f0 as in stems."""

from pathlib import Path

import numpy as np
import pytest

from vocalsep import audio, separator, stretches
from vocalsep.audio.downmix import Mixdown
from vocalsep.audio.recording import ArrayRecording
from vocalsep.errors import AudioError
from vocalsep.f0 import polyphonic
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.separator import Analysis, Separator

CHORALE = Path(__file__).parent.parent / "examples" / "chorale.flac"
SECONDS = 13.3


def decibels(difference: np.ndarray, whole: np.ndarray) -> float:
    return float(10 * np.log10(max(np.square(difference).sum(), 1e-30) / np.square(whole).sum()))


def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of 6 s, cut a quarter of a second or so at a time, and paths of 8 s."""
    for module in (separator, stretches):
        monkeypatch.setattr(module, "STRETCH_FRAMES", 375)
    monkeypatch.setattr(separator, "_VALUES_AT_ONCE", 1)
    monkeypatch.setattr(polyphonic, "_SPAN_CHUNKS", 2)


@pytest.fixture(scope="module")
def f0() -> np.ndarray:
    """Two voices with vibrato and rests, one of which lasts over the border of two stretches."""
    time = np.arange(round(SECONDS * 62.5) + 1) * 0.016
    f0 = np.array([[420.0], [230.0]]) * 2 ** (0.5 * np.sin(2 * np.pi * np.array([[5.0], [0.3]]) * time) / 12)
    f0[0, 360:390] = 0
    f0[1, 120:130] = 0
    return f0.astype(np.float32)


@pytest.fixture(scope="module")
def duet(sing, f0) -> np.ndarray:
    return np.float32(0.5) * sing(f0).sum(axis=0)[: round(SECONDS * 16000)]


@pytest.mark.parametrize("fitting", [True, False])
@pytest.mark.parametrize(("sample_rate", "channels"), [(16000, 1), (44100, 2), (22050, 1)])
def test_stretches_give_what_the_whole_gives(tiny_model, duet, f0, monkeypatch, sample_rate, channels, fitting):
    moved = audio.resample(duet, 16000, sample_rate)
    recording = moved * np.linspace(1, -0.4, channels, dtype=np.float32)[:, None]
    system = Separator(tiny_model, "cpu", fitting=fitting)

    def stems() -> np.ndarray:
        found = system.separate(recording, f0, sample_rate=sample_rate, residual=True).stems
        return np.stack(list(found.values()))

    whole = stems()
    short_stretches(monkeypatch)
    pieces = stems()
    assert decibels(pieces - whole, whole) < -105
    assert decibels(pieces.sum(axis=0) - recording, recording) < -110


@pytest.mark.parametrize(("module", "name", "value"), [(stretches, "_FIT_FRAMES", 5), (stretches, "MASK_FRAMES", 0)])
def test_what_lies_beside_a_stretch_is_needed(tiny_model, duet, f0, monkeypatch, module, name, value):
    system = Separator(tiny_model, "cpu")
    whole = np.stack(list(system.separate(duet, f0).stems.values()))
    short_stretches(monkeypatch)
    monkeypatch.setattr(module, name, value)
    pieces = np.stack(list(system.separate(duet, f0).stems.values()))
    assert decibels(pieces - whole, whole) > -100


def test_tracking_and_refinement_in_stretches(monkeypatch):
    """With the bundled weights, on the chorale, everything that is done in stretches at once."""
    recording, sample_rate = audio.read(CHORALE)
    recording = recording[:, : 9 * sample_rate]
    whole = Separator(device="cpu").separate(recording, sample_rate=sample_rate)
    short_stretches(monkeypatch)
    pieces = Separator(device="cpu").separate(recording, sample_rate=sample_rate)
    np.testing.assert_array_equal(pieces.f0.voiced, whole.f0.voiced)
    np.testing.assert_allclose(pieces.f0.frequencies, whole.f0.frequencies, rtol=1e-5)
    np.testing.assert_allclose(pieces.confidence, whole.confidence, atol=1e-5)
    for name, stem in whole.stems.items():
        assert decibels(pieces.stems[name] - stem, stem) < -60


def test_more_values_are_cut_in_shorter_blocks(tiny_model, duet, f0):
    recording = np.tile(duet[: 5 * 16000], (96, 1)) * np.linspace(-1, 1.1, 96, dtype=np.float32)[:, None]
    tracks = F0Tracks(f0[:, :313], ("high", "low"))
    lengths = []
    with Mixdown.of_recording(ArrayRecording(recording, 16000)) as mixdown:
        for block in Separator(tiny_model, "cpu").stems(ArrayRecording(recording, 16000), Analysis(mixdown, tracks)):
            lengths.append(block.shape)
    assert lengths == [(2, 96, 32000), (2, 96, 32000), (2, 96, 16000)]


@pytest.mark.parametrize("samples", [150_000, 212_801, 700_000])
def test_a_recording_that_changes_is_refused(tiny_model, duet, f0, samples):
    system, tracks = Separator(tiny_model, "cpu"), F0Tracks(f0, ("high", "low"))
    other = ArrayRecording(np.resize(duet, (1, samples)), 16000)
    with Mixdown.of_array(duet) as mixdown, pytest.raises(AudioError, match="does not change while it is read"):
        list(system.stems(other, Analysis(mixdown, tracks)))


def test_adaptation_hears_ten_minutes_spread_over_a_long_recording(tiny_model, duet, f0, monkeypatch):
    short_stretches(monkeypatch)
    monkeypatch.setattr(separator, "_ADAPT_STRETCHES", 2)
    system, tracks = Separator(tiny_model, "cpu"), F0Tracks(f0, ("high", "low"))
    with Mixdown.of_array(duet) as mixdown:
        first, last = system._excerpts(mixdown, tracks)
        whole = system.separate(duet * np.float32(0.5 / mixdown.peak), tracks).stems
    assert (first[:2], last[:2]) == ((0, 375), (750, len(f0[0])))
    for low, _, stems in (first, last):
        own = np.stack(list(whole.values()))[:, low * 256 : low * 256 + stems.shape[1]]
        assert decibels(stems - own, own) < -90
