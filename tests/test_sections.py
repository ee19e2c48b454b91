"""Sections: several singers who sing almost the same."""

import numpy as np
import pytest
import torch
from melodies import energy_at_harmonics, melody, take

from vocalsep.training.sections import section, variation
from vocalsep.training.takes import Take


@pytest.fixture(scope="module")
def soprano(sing) -> Take:
    return take(melody(330.0, 250, 1), sing)


def cents(f0: np.ndarray, reference: np.ndarray) -> np.ndarray:
    both = (f0 > 0) & (reference > 0)
    return 1200 * np.log2(f0[both] / reference[both])


@pytest.mark.parametrize("seed", range(4))
class TestVariations:
    def test_a_variation_has_the_f0_that_comes_with_it(self, soprano, seed):
        waveform, f0 = variation(soprano.waveform, soprano.f0, 20.0, 0.06, np.random.default_rng(seed))
        assert waveform.shape == soprano.waveform.shape
        assert f0.shape == soprano.f0.shape
        assert waveform.dtype == f0.dtype == np.float32
        assert energy_at_harmonics(torch.from_numpy(waveform), torch.from_numpy(f0)) > 0.95

    def test_it_is_out_of_tune_and_time_within_the_limits(self, sing, seed):
        steady = np.full((1, 250), 220.0, np.float32)
        steady[:, 100:130] = 0
        _, f0 = variation(sing(steady)[0], steady, 20.0, 0.06, np.random.default_rng(seed))
        detuning = cents(f0, steady)
        assert 1 < np.abs(detuning).max() <= 20.01
        assert np.abs(np.diff(cents(f0[:, :90], steady[:, :90]))).max() < 1
        borders = np.flatnonzero(np.diff(f0[0, 10:-10] > 0)) + 11
        np.testing.assert_allclose(borders, [100, 130], atol=6.5)  # 60 ms, and 40 ms of drift

    def test_high_frequencies_stay(self, soprano, seed):
        other, _ = variation(soprano.waveform, soprano.f0, 20.0, 0.06, np.random.default_rng(seed))
        before, after = (np.abs(np.fft.rfft(waveform)[20000:28000]) ** 2 for waveform in (soprano.waveform, other))
        assert 10 * np.log10(after.sum() / before.sum()) == pytest.approx(0, abs=2.5)


class TestSections:
    def test_one_singer_stays_as_he_is(self, soprano):
        singers, f0 = section([soprano, soprano], 20, 100, 1, np.random.default_rng(0))
        samples, expected = soprano.excerpt(20, 100)
        assert np.array_equal(singers, samples[None])
        assert np.array_equal(f0, expected)

    @pytest.mark.parametrize("number", [2, 3, 6])
    def test_several_singers(self, soprano, number):
        singers, f0 = section([soprano], 0, 249, number, np.random.default_rng(0))
        assert singers.shape == (number, 249 * 256)
        assert f0.shape == (1, 250)
        correlation = np.corrcoef(singers)[np.triu_indices(number, 1)]
        assert np.abs(correlation).max() < 0.9
        single = soprano.waveform[: 249 * 256]
        assert 10 * np.log10((singers**2).sum() / (single**2).sum()) == pytest.approx(0, abs=3.1)
        assert energy_at_harmonics(torch.from_numpy(singers.sum(axis=0)), torch.from_numpy(f0)) > 0.9

    def test_recorded_singers_come_first(self, sing, soprano):
        other, short = take(melody(340.0, 250, 2), sing), soprano.part(0, 0.5)
        singers, f0 = section([soprano, short, other], 100, 140, 2, np.random.default_rng(0))
        for row, one in zip(singers, (soprano, other), strict=True):
            assert np.corrcoef(row, one.excerpt(100, 140)[0])[0, 1] == pytest.approx(1)
        mean = np.sqrt(soprano.f0[0, 100:241] * other.f0[0, 100:241])
        both = mean > 0
        np.testing.assert_allclose(f0[0, both], mean[both], rtol=1e-5)
