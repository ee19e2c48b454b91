"""The STFT: exact inverse, levels, where frames lie, blocks, parity with SciPy and PyTorch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import signal

from vocalsep import spectrum
from vocalsep.dsp.stft import InverseStft, StftGrid, istft, mel_bands, mel_points, power, stft

RATES = [8000, 16000, 22050, 44100, 48000, 96000]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 1.8 - 0.9


@pytest.mark.parametrize("samples", [1, 2, 100, 255, 256, 257, 5000, 33333])
@pytest.mark.parametrize("sample_rate", RATES)
def test_the_inverse_gives_back_the_waveform(sample_rate, samples):
    grid = StftGrid.of_duration(sample_rate)
    waveform = noise(samples)
    found = istft(stft(waveform, grid), grid, samples)
    assert found.shape == waveform.shape
    assert (found - waveform).abs().max() < 2e-6


@pytest.mark.parametrize("window", [0.032, 0.064, 0.256])
def test_the_inverse_of_other_windows(window):
    grid = StftGrid.of_duration(44100, window)
    waveform = noise(20000, dtype=torch.float64)
    assert (istft(stft(waveform, grid), grid, 20000) - waveform).abs().max() < 1e-12


def test_channels_and_batches_are_independent():
    grid = StftGrid.of_duration(22050)
    waveform = noise(3, 2, 4000)
    together = stft(waveform, grid)
    assert together.shape == (3, 2, grid.n_bins, grid.n_frames(4000))
    assert torch.equal(together[1, 1], stft(waveform[1, 1], grid))
    assert (istft(together, grid, 4000) - waveform).abs().max() < 2e-6


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("amplitude", [1.0, 0.03])
def test_a_sinusoid_has_its_amplitude_at_the_peak(sample_rate, amplitude):
    grid = StftGrid.of_duration(sample_rate)
    frequency = float(grid.frequencies()[57])  # 445 Hz or so, in the middle of a bin
    time = torch.arange(sample_rate, dtype=torch.float64) / sample_rate
    magnitude = stft(amplitude * torch.sin(2 * torch.pi * frequency * time), grid).abs()
    middle = magnitude[:, 20:40]
    assert (middle.argmax(dim=0) == 57).all()
    assert middle.max(dim=0).values.numpy() == pytest.approx(amplitude, rel=1e-3)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("frame", [0, 1, 7, 40])
def test_frames_are_centred_on_multiples_of_16_ms(sample_rate, frame):
    """Of all frames that hear an impulse, the one centred on it hears it loudest, and its neighbours alike."""
    grid = StftGrid.of_duration(sample_rate)
    waveform = torch.zeros(sample_rate)
    waveform[round(frame * 0.016 * sample_rate)] = 1.0
    level = power(waveform, grid).sum(dim=0)
    assert int(level.argmax()) == frame
    if frame:
        assert float(level[frame - 1] / level[frame + 1]) == pytest.approx(1, rel=0.02)


def test_frames_are_centred_on_the_nearest_sample():
    centres = StftGrid.of_duration(44100).centres(0, 1000).numpy()
    np.testing.assert_array_equal(centres, np.rint(np.arange(1000) * 705.6))


def test_frames_do_not_drift_within_an_hour():
    grid = StftGrid.of_duration(44100)
    frame = 225_000  # 16 ms each
    assert int(grid.centres(frame, frame + 1)) == 3600 * 44100


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


def test_gradients_flow_through_both():
    grid = StftGrid.of_duration(16000, window=0.004, hop=0.001)
    waveform = noise(70, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: power(x, grid), waveform)
    assert torch.autograd.gradcheck(lambda x: istft(2 * stft(x, grid), grid, 70), waveform)


@pytest.mark.parametrize("length", range(1, 700, 7))
def test_fast_length_is_the_next_even_number_without_large_factors(length):
    def fast(number: int) -> bool:
        for prime in (2, 3, 5):
            while number % prime == 0:
                number //= prime
        return number == 1

    expected = next(n for n in range(length, 4 * length + 4) if n % 2 == 0 and fast(n))
    assert spectrum._fast_length(length) == expected


class TestMelBands:
    def test_a_flat_spectrum_stays_flat(self):
        bands = mel_bands(64, StftGrid.of_duration(16000), 0.0, 8000.0)
        assert bands.sum(dim=1).numpy() == pytest.approx(1, abs=1e-6)
        assert bands.min() >= 0

    def test_bands_cover_all_between_the_outer_centres(self):
        grid = StftGrid.of_duration(16000)
        centres = mel_points(66, 0.0, 8000.0)[1:-1]
        inside = (grid.frequencies() >= centres[0]) & (grid.frequencies() <= centres[-1])
        assert (mel_bands(64, grid, 0.0, 8000.0).sum(dim=0)[inside] > 0).all()

    def test_a_tone_lands_in_the_band_of_its_frequency(self):
        grid = StftGrid.of_duration(16000)
        bands, centres = mel_bands(64, grid, 0.0, 8000.0), mel_points(66, 0.0, 8000.0)[1:-1]
        for band in (10, 30, 60):
            bin_ = int((grid.frequencies() - centres[band]).abs().argmin())
            assert int(bands[:, bin_].argmax()) == band

    def test_bands_narrower_than_a_bin_take_their_nearest(self):
        grid = StftGrid.of_duration(16000, window=0.008)
        bands = mel_bands(80, grid, 0.0, 8000.0)
        assert bands.sum(dim=1).numpy() == pytest.approx(1, abs=1e-6)

    def test_mel_points_follow_the_formula(self):
        mel = 2595 * np.log10(1 + mel_points(9, 100.0, 7000.0).numpy() / 700)
        np.testing.assert_allclose(np.diff(mel), np.diff(mel)[0], rtol=1e-3)
