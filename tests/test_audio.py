"""Waveforms: validation, resampling, mixing down to the model's rate."""

import numpy as np
import pytest
import soxr

from vocalsep import audio
from vocalsep.errors import AudioError

RATES = [(44100, 16000), (16000, 48000), (44056, 16000), (16000, 16000)]


def tone(frequency: float, sample_rate: int, samples: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency / sample_rate * np.arange(samples))).astype(np.float32)


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 16384, -32768], dtype=np.int16), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], dtype=np.int32), [0, 0.5, -1]),
        (np.array([0, 64, -128], dtype=np.int8), [0, 0.5, -1]),
        (np.array([0, 0.25, -2.5], dtype=np.float64), [0, 0.25, -2.5]),
        (np.array([0, 0.25, -2.5], dtype=np.float16), [0, 0.25, -2.5]),
        ([0.0, 0.25], [0, 0.25]),
    ],
)
def test_validate_waveform_scales(values, expected):
    waveform = audio.validate_waveform(values)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, [expected])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((1, 2, 3)),
        np.float32(1),
        np.zeros(3, dtype=complex),
        np.zeros(3, dtype=bool),
        np.zeros(3, dtype=np.uint8),
        [0, 1, -1],
        ["a"],
        "choir.wav",
        [[0.0], [0.0, 1.0]],
        np.ma.masked_array([0.0, 1.0], [False, True]),
        np.zeros(0),
        np.zeros((2, 0)),
        [0.0, np.nan, 0.5],
        [0.0, -np.inf],
        [0.0, 1e300],
        [0.0, -2e7],
        np.zeros((1000, 2)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_validate_waveform_refuses(values):
    with pytest.raises(AudioError, match="audio"):
        audio.validate_waveform(values)


def test_validate_waveform_returns_a_copy():
    original = np.zeros(3, dtype=np.float32)
    audio.validate_waveform(original)[:] = 1
    assert (original == 0).all()


@pytest.mark.parametrize("rate", [0, -44100, 3999, 44100.5, 768001, True, None, "fast", float("nan"), float("inf")])
def test_sample_rates_refused(rate):
    with pytest.raises(AudioError, match="sample_rate") as caught:
        audio.validate_sample_rate(rate)
    assert caught.value.parameter == "sample_rate"
    with pytest.raises(AudioError):
        audio.resample([0.0], 16000, rate)


@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 44100), (48000, 16000), (22050, 48000), (8000, 16000)])
def test_resample_keeps_frequency_and_level(rates):
    source, target = rates
    resampled = audio.resample(tone(997, source, 2 * source), source, target)
    expected = tone(997, target, 2 * target)
    inner = slice(target // 10, -target // 10)  # the filter sees zeros past the ends
    np.testing.assert_allclose(resampled[0, inner], expected[inner], atol=2e-4)


def test_resample_removes_frequencies_beyond_the_target():
    resampled = audio.resample(tone(9000, 48000, 48000), 48000, 16000)
    assert np.abs(resampled[0, 1000:-1000]).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 2, 999, 44101])
@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 44100), (11025, 96000)])
def test_resample_length(samples, rates):
    resampled = audio.resample(np.zeros((3, samples)), *rates)
    assert resampled.shape == (3, max(1, round(samples * rates[1] / rates[0])))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("sizes", [[1], [441, 7, 10000], [100000]])
def test_resampling_in_blocks_equals_the_whole(rates, channels, sizes):
    waveform = noise(channels, 6000 if sizes == [1] else 70001)
    resampler = audio.Resampler(*rates, channels)
    parts, start = [], 0
    while start < waveform.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(resampler.push(waveform[:, start : start + size]))
        start += size
    parts.append(resampler.finish())
    found = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(found, audio.resample(waveform, *rates))
    if rates[0] != rates[1]:
        reference = soxr.resample(waveform.T.copy(), *rates, quality="HQ").T
        length = min(found.shape[1], reference.shape[1])
        np.testing.assert_array_equal(found[:, :length], reference[:, :length])


def test_resampler_refuses_other_channels():
    with pytest.raises(ValueError, match="shape"):
        audio.Resampler(44100, 16000).push(np.zeros((2, 5), np.float32))


def test_to_model_rate_mixes_and_resamples():
    stereo = np.stack([tone(440, 44100, 44100), tone(660, 44100, 44100)])
    mono = audio.to_model_rate(stereo, 44100)
    assert (mono.shape, mono.dtype) == ((16000,), np.float32)
    expected = (tone(440, 16000, 16000) + tone(660, 16000, 16000)) / 2
    np.testing.assert_allclose(mono[1000:-1000], expected[1000:-1000], atol=2e-4)
    assert audio.to_model_rate([[0.25], [-0.5]], 44100).shape == (1,)


@pytest.mark.filterwarnings("error")
def test_channels_that_cancel_do_not_silence_the_downmix():
    one = tone(220, 16000, 4000)
    np.testing.assert_array_equal(audio.to_model_rate(np.stack([0.5 * one, -one, 0.5 * one]), 16000), -one)
    np.testing.assert_allclose(audio.to_model_rate(np.stack([one, 0 * one]), 16000), one / 2, atol=1e-7)
