"""CREPE and the f0 of single voices."""

from typing import NamedTuple

import numpy as np
import pytest

from vocalsep.api import f0_from_stems
from vocalsep.audio import read
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.units import hz_to_cents
from vocalsep.errors import AudioError, F0Error, OptionError
from vocalsep.f0 import crepe, monophonic
from vocalsep.timebase import HOP, HOP_LENGTH
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN
from vocalsep.weights import load_network

RATE = 16000


def sung_tone(frequency: float, seconds: float, sample_rate: int = RATE) -> np.ndarray:
    """A tone whose harmonics fall off like those of a voice."""
    phase = 2 * np.pi * frequency / sample_rate * np.arange(int(seconds * sample_rate))
    harmonics = [np.sin(k * phase) / k for k in range(1, 12) if k * frequency < sample_rate / 2]
    return (0.2 * np.sum(harmonics, axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> crepe.Crepe:
    return load_network("crepe-tiny", crepe.Crepe)


class Reference(NamedTuple):
    """torchcrepe 0.0.24 on two seconds of one singer, and our activations of the same."""

    ours: np.ndarray
    activation: np.ndarray
    f0: np.ndarray
    periodicity: np.ndarray


@pytest.fixture(scope="module", params=["soprano", "bass"])
def reference(request, data, network) -> Reference:
    part = request.param
    stored = np.load(data / "crepe" / "torchcrepe_0.0.24_reference.npz")
    waveform, rate = read(data / str(stored[f"{part}_file"]))
    start = int(stored[f"{part}_start_s"]) * rate
    ours = crepe.activations(waveform[0, start : start + 2 * rate], network)
    return Reference(ours, *(stored[f"{part}_tiny_{key}"] for key in ("activation", "viterbi_f0", "periodicity")))


def test_activations_are_those_of_torchcrepe(reference):
    np.testing.assert_allclose(reference.ours, reference.activation, rtol=0, atol=1e-3)


def test_path_is_that_of_torchcrepe(reference):
    """Network, grid, range and Viterbi decoder together reproduce torchcrepe, with its idea of a likelihood.

    torchcrepe takes the softmax of the activations, so these are the scores here. The f0 it returns has triangular
    noise of +-20 cents added to hide the grid, and the stored values hold one draw of it: frame by frame they bound
    our path to 20 cents (one bin), and the median of such noise is 20 * (1 - sqrt(1/2)) = 5.9 cents, so the median
    deviation must be below 10. The stored periodicity is not dithered; it is the activation on the path, and equal
    values in every frame mean equal paths.
    """
    path = crepe.pitch_path(reference.ours)
    deviation = np.abs(hz_to_cents(crepe.bins_to_hz(path), reference.f0))
    assert deviation.max() <= 20 + 1e-2
    assert np.median(deviation) <= 10
    on_path = np.take_along_axis(reference.ours, path[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(on_path, reference.periodicity, rtol=0, atol=1e-3)


def test_decoded_f0_agrees_with_torchcrepe(reference):
    """Our sharper likelihood (see `decode`) may choose a neighbouring bin: 20 cents more than the dither's 20.

    Where it moves away from the arg max of torchcrepe's path, it moves to a higher activation, on the whole.
    """
    f0, periodicity = crepe.decode(reference.ours)
    deviation = np.abs(hz_to_cents(f0, reference.f0))[reference.periodicity > 0.5]
    assert deviation.max() <= 40
    assert np.median(deviation) <= 10
    assert periodicity.mean() > reference.periodicity.mean() + 1e-3


def test_decoding_the_stored_activations_gives_the_same_path(reference):
    (f0, periodicity), theirs = crepe.decode(reference.ours), crepe.decode(reference.activation)
    np.testing.assert_array_equal(crepe.pitch_path(reference.ours), crepe.pitch_path(reference.activation))
    np.testing.assert_allclose(hz_to_cents(f0, theirs[0]), 0, atol=0.1)
    np.testing.assert_allclose(periodicity, theirs[1], atol=1e-3)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
@pytest.mark.parametrize("frequency", [110, 220, 440, 880])
def test_tones_are_right_to_10_cents(frequency, sample_rate):
    tracks = f0_from_stems([sung_tone(frequency, 0.5, sample_rate)], sample_rate)
    assert tracks.n_frames == 1 + 8000 // 256
    assert np.abs(hz_to_cents(tracks.frequencies[0, 3:-3], frequency)).max() < 10
    assert tracks.confidence[0, 3:-3].min() > 0.8


def test_a_leap_is_followed_at_once(network):
    waveform = np.concatenate([sung_tone(220, 0.5), sung_tone(440, 0.5)])
    f0 = monophonic.track(Downmix.of_array(waveform), network).f0
    time = np.arange(len(f0)) * HOP
    expected = np.where(time < 0.5, 220, 440)
    wrong = np.abs(hz_to_cents(f0, expected)) > 50
    # The window is 64 ms; an octave takes 6 frames of at most 11 bins.
    assert not wrong[np.abs(time - 0.5) > 0.08].any()


def test_frame_grid(network):
    for samples in (1, 255, 256, 1023, 5000, 16000):
        assert crepe.activations(sung_tone(220, 1)[:samples], network).shape == (1 + samples // HOP_LENGTH, 360)


def test_frame_is_centred_on_its_time(network):
    """A tone that starts at frame 30 first shows in frames whose window of +-2 hops reaches it."""
    waveform = np.concatenate([np.zeros(30 * HOP_LENGTH), sung_tone(300, 0.5)]).astype(np.float32)
    activation = crepe.activations(waveform, network)
    assert activation[:28].max() < 0.1
    assert activation[33:60].max(axis=1).min() > 0.8


@pytest.mark.parametrize("level", [1.0, 0.01, 1e-4])
def test_silence_and_noise_are_unvoiced(level):
    rng = np.random.default_rng(0)
    stems = {"silence": np.zeros(8000), "noise": level * rng.standard_normal(8000), "dc": np.full(8000, level)}
    assert not f0_from_stems(stems).voiced.any()


def test_breath_between_notes_is_unvoiced():
    """Sound more than 45 dB below the notes is unvoiced, however periodic it is."""
    waveform = np.concatenate([sung_tone(300, 0.5), 1e-3 * sung_tone(300, 0.5), sung_tone(300, 0.5)])
    voiced = f0_from_stems([waveform]).voiced[0]
    time = np.arange(len(voiced)) * HOP
    assert not voiced[(time > 0.55) & (time < 0.95)].any()
    assert voiced[(time < 0.45) | ((time > 1.05) & (time < 1.45))].all()


@pytest.mark.parametrize("frequency", [45, 66, 1040, 1500])
def test_f0_is_in_the_range_of_voices(network, frequency):
    f0 = monophonic.track(Downmix.of_array(sung_tone(frequency, 0.3)), network).f0
    assert f0.min() >= VOICE_FMIN * (1 - 1e-6)
    assert f0.max() <= VOICE_FMAX * (1 + 1e-6)


def test_bins_and_hz_are_inverse():
    bins = np.linspace(0, 359, 100)
    np.testing.assert_allclose(crepe.hz_to_bins(crepe.bins_to_hz(bins)), bins, atol=1e-9)
    np.testing.assert_allclose(hz_to_cents(crepe.bins_to_hz(bins + 1), crepe.bins_to_hz(bins)), 20)


def test_stems_of_several_lengths_in_lists_and_dicts():
    stems = {"high": sung_tone(440, 0.5), "low": np.stack([sung_tone(220, 0.3)] * 2)}
    tracks = f0_from_stems(stems)
    assert (tracks.names, tracks.hop, tracks.n_frames) == (("high", "low"), HOP, 1 + 8000 // 256)
    np.testing.assert_allclose(hz_to_cents(tracks.frequencies[0, 3:-3], 440), 0, atol=10)
    np.testing.assert_allclose(hz_to_cents(tracks.frequencies[1, 3:15], 220), 0, atol=10)
    assert not tracks.frequencies[1, 1 + 4800 // 256 :].any()
    assert not tracks.confidence[1, 1 + 4800 // 256 :].any()
    listed = f0_from_stems(list(stems.values()))
    assert listed.names == ("voice1", "voice2")
    np.testing.assert_array_equal(listed.frequencies, tracks.frequencies)
    rows = f0_from_stems(np.stack([sung_tone(440, 0.3), sung_tone(220, 0.3)]))
    np.testing.assert_array_equal(rows.frequencies[1], tracks.frequencies[1, : rows.n_frames])


def test_bad_arguments():
    tone = sung_tone(220, 0.1)
    for stems in ([], {}, {"a/b": tone}):
        with pytest.raises(F0Error):
            f0_from_stems(stems)
    with pytest.raises(OptionError):
        f0_from_stems([tone], device="toaster")
    with pytest.raises(OptionError):
        f0_from_stems([tone], threshold=50)
    with pytest.raises(AudioError):
        f0_from_stems([tone], 0)


@pytest.mark.parametrize("channels", [(), (8,) * 5, (8, 8, 8, 8, 8, 10**9), (8, 8, 8, 8, 8, 0)])
def test_bad_configurations(channels):
    with pytest.raises(ValueError, match="channels"):
        crepe.CrepeConfig("tiny", channels)


@pytest.mark.slow
def test_chunks_give_the_same_track_as_the_whole(network):
    """A line with leaps and rests of more than a minute, against one path through all activations."""
    phrase = [sung_tone(f0, 1.7) for f0 in (220, 330, 247)] + [np.zeros(20_000), sung_tone(294, 3.0)]
    line = np.concatenate(phrase * 8).astype(np.float32)
    found = monophonic.track(Downmix.of_array(line), network)
    f0, periodicity = crepe.decode(crepe.activations(line, network))
    assert len(found.f0) > 4000
    voiced = monophonic.voiced_f0(found) > 0
    np.testing.assert_allclose(found.f0[voiced], f0[voiced], rtol=1e-4)
    np.testing.assert_allclose(found.periodicity[voiced], periodicity[voiced], atol=1e-4)
