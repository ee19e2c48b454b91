"""The STFT: exact inverse, levels, positions of frames, instantaneous frequency, parity with SciPy and PyTorch."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import signal

from vocalsep.dsp.stft import (
    InverseStft,
    StftGrid,
    instantaneous_frequency,
    istft,
    mel_bands,
    mel_points,
    power,
    spectrum_and_frequency,
    stft,
)

GRID = StftGrid.of_duration()
RATES = [8000, 16000, 44100, 96000]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 1.8 - 0.9


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 33333])
@pytest.mark.parametrize("sample_rate", RATES)
def test_the_inverse_gives_back_the_waveform(sample_rate, samples):
    grid = StftGrid.of_duration(sample_rate)
    waveform = noise(samples)
    found = istft(stft(waveform, grid), grid, samples)
    assert found.shape == waveform.shape
    assert (found - waveform).abs().max() < 2e-6


def test_the_inverse_of_other_windows():
    waveform = noise(20000, dtype=torch.float64)
    for window in (0.032, 0.064, 0.256):
        grid = StftGrid.of_duration(44100, window)
        assert (istft(stft(waveform, grid), grid, 20000) - waveform).abs().max() < 1e-12


def test_channels_and_batches_are_independent():
    grid = StftGrid.of_duration(22050)
    waveform = noise(3, 2, 4000)
    together = stft(waveform, grid)
    assert together.shape == (3, 2, grid.n_bins, grid.n_frames(4000))
    assert torch.equal(together[1, 1], stft(waveform[1, 1], grid))
    assert (istft(together, grid, 4000) - waveform).abs().max() < 2e-6


@pytest.mark.parametrize("sample_rate", RATES)
def test_a_sinusoid_has_its_amplitude_at_the_peak(sample_rate):
    grid = StftGrid.of_duration(sample_rate)
    frequency = float(grid.frequencies()[57])  # 445 Hz or so, in the middle of a bin
    time = torch.arange(sample_rate, dtype=torch.float64) / sample_rate
    magnitude = stft(0.03 * torch.sin(2 * torch.pi * frequency * time), grid).abs()
    middle = magnitude[:, 20:40]
    assert (middle.argmax(dim=0) == 57).all()
    assert middle.max(dim=0).values.numpy() == pytest.approx(0.03, rel=1e-3)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("frame", [0, 1, 7, 40])
def test_frames_are_centred_on_multiples_of_16_ms(sample_rate, frame):
    """An impulse is loudest in the frame centred on it, and equally loud in the frames before and after."""
    grid = StftGrid.of_duration(sample_rate)
    waveform = torch.zeros(sample_rate)
    waveform[round(frame * 0.016 * sample_rate)] = 1.0
    level = power(waveform, grid).sum(dim=0)
    assert int(level.argmax()) == frame
    if frame:
        assert float(level[frame - 1] / level[frame + 1]) == pytest.approx(1, rel=0.02)


def test_frames_are_centred_on_the_nearest_sample_and_do_not_drift_within_an_hour():
    grid = StftGrid.of_duration(44100)
    np.testing.assert_array_equal(grid.centres(0, 1000).numpy(), np.rint(np.arange(1000) * 705.6))
    assert int(grid.centres(225_000, 225_001)) == 3600 * 44100


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_blocks_equal_the_whole(sample_rate):
    grid = StftGrid.of_duration(sample_rate)
    waveform = noise(2, sample_rate)
    whole = stft(waveform, grid)
    frames = whole.shape[-1]
    edges = [*range(0, frames, 17), frames]
    blocks = [stft(waveform, grid, *pair) for pair in pairwise(edges)]
    assert torch.equal(torch.cat(blocks, dim=-1), whole)
    inverse = InverseStft(grid, tuple(waveform.shape))
    for first, block in zip(edges[:-1], blocks, strict=True):
        inverse.add(block, first)
    assert (inverse.result() - istft(whole, grid, waveform.shape[-1])).abs().max() < 1e-6


def test_parity_with_scipy_and_torch():
    grid = StftGrid.of_duration(16000)
    waveform = noise(16000, dtype=torch.float64)
    ours = stft(waveform, grid).numpy()
    window = torch.hann_window(2048, dtype=torch.float64)
    theirs = torch.stft(waveform, 2048, 256, 2048, window, pad_mode="constant", return_complex=True).numpy()
    np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]] * 4 / 2048, atol=1e-12)
    # SciPy scales by the sum of the window, which makes a sinusoid of amplitude 1 half as large.
    _, _, scipys = signal.stft(waveform.numpy(), window="hann", nperseg=2048, noverlap=1792, padded=False)
    common = min(ours.shape[1], scipys.shape[1])
    np.testing.assert_allclose(ours[:, :common], 2 * scipys[:, :common], atol=1e-12)


def test_gradients():
    grid = StftGrid.of_duration(16000, window=0.004, hop=0.001)
    waveform = noise(70, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: power(x, grid), waveform)
    assert torch.autograd.gradcheck(lambda x: istft(2 * stft(x, grid), grid, 70), waveform)


@pytest.mark.parametrize(
    ("sample_rate", "win_length", "n_fft"), [(8000, 1024, 1024), (44100, 5644, 5760), (22050, 2822, 2880)]
)
def test_transforms_have_an_even_length_without_large_factors(sample_rate, win_length, n_fft):
    grid = StftGrid.of_duration(sample_rate)
    assert (grid.win_length, grid.n_fft) == (win_length, n_fft)


class TestInstantaneousFrequency:
    @pytest.mark.parametrize("sample_rate", [16000, 44100])
    @pytest.mark.parametrize("frequency", [100.0, 440.3, 3210.7])
    def test_every_bin_of_the_main_lobe_has_the_frequency_of_the_tone(self, sample_rate, frequency):
        grid = StftGrid.of_duration(sample_rate)
        tone = torch.sin(2 * math.pi * frequency * torch.arange(sample_rate, dtype=torch.float64) / sample_rate)
        found = instantaneous_frequency(tone, grid)[:, 10:50]
        lobe = (grid.frequencies() - frequency).abs() < 1.5 / grid.window_seconds
        assert lobe.sum() >= 3
        assert (found[lobe] - frequency).abs().max() < 0.02

    def test_a_glide_has_its_frequency_in_the_middle_of_the_window(self):
        time = torch.arange(16000, dtype=torch.float64) / 16000
        tone = torch.sin(2 * math.pi * (400 * time + 0.5 * 200 * time**2))
        found = instantaneous_frequency(tone, GRID)
        expected = 400 + 200 * 0.016 * np.arange(63)
        for frame in range(10, 50):
            peak = round(expected[frame] / 7.8125)
            assert float(found[peak, frame]) == pytest.approx(expected[frame], abs=2.0)

    def test_the_stronger_of_two_neighbours_wins(self):
        """Two tones 12 Hz apart are closer than the window resolves."""
        time = torch.arange(16000) / 16000
        tones = torch.sin(2 * math.pi * 440 * time) + 0.3 * torch.sin(2 * math.pi * 452 * time)
        found = instantaneous_frequency(tones, GRID)[56, 10:50]  # the bin of 437.5 Hz
        assert (found - 440).abs().median() < 4

    def test_silence_has_the_frequency_of_the_bin(self):
        found = instantaneous_frequency(torch.zeros(4000), GRID)
        assert torch.equal(found, GRID.frequencies()[:, None].expand_as(found))

    def test_blocks_equal_the_whole_and_the_spectrum_is_that_of_the_stft(self):
        waveform = noise(16000)
        whole = instantaneous_frequency(waveform, GRID)
        spectrum, frequency = spectrum_and_frequency(waveform, GRID, 20, 31)
        torch.testing.assert_close(frequency, whole[:, 20:31])
        assert torch.equal(spectrum, stft(waveform, GRID, 20, 31))


class TestMelBands:
    @pytest.mark.parametrize(("window", "bands"), [(0.128, 64), (0.008, 80)])  # the latter has bands without a bin
    def test_a_flat_spectrum_stays_flat(self, window, bands):
        weights = mel_bands(bands, StftGrid.of_duration(16000, window), 0.0, 8000.0)
        assert weights.sum(dim=1).numpy() == pytest.approx(1, abs=1e-6)
        assert weights.min() >= 0

    def test_bands_cover_all_between_the_outer_centres(self):
        centres = mel_points(66, 0.0, 8000.0)[1:-1]
        inside = (GRID.frequencies() >= centres[0]) & (GRID.frequencies() <= centres[-1])
        assert (mel_bands(64, GRID, 0.0, 8000.0).sum(dim=0)[inside] > 0).all()

    def test_a_tone_lands_in_the_band_of_its_frequency(self):
        bands, centres = mel_bands(64, GRID, 0.0, 8000.0), mel_points(66, 0.0, 8000.0)[1:-1]
        for band in (10, 30, 60):
            bin_ = int((GRID.frequencies() - centres[band]).abs().argmin())
            assert int(bands[:, bin_].argmax()) == band

    def test_mel_points_follow_the_formula(self):
        mel = 2595 * np.log10(1 + mel_points(9, 100.0, 7000.0).numpy() / 700)
        np.testing.assert_allclose(np.diff(mel), np.diff(mel)[0], rtol=1e-3)
