"""Spectral metrics against closed forms and references written another way."""

import numpy as np
import pytest
import torch
from scipy.fft import dct

from vocalsep.errors import AudioError
from vocalsep.evaluation.metrics import frame_scores, si_sdr
from vocalsep.evaluation.spectral_metrics import (
    METRICS,
    mel_cepstral_distance,
    spectral_scores,
    spectral_si_snr,
    spectral_snr,
)

RNG = np.random.default_rng(0)
RATE = 16000
NOISE, OTHER = RNG.normal(size=(2, RATE))


def magnitude(waveform: np.ndarray) -> np.ndarray:
    """Return |STFT| as PyTorch gives it: Hann 512, hop 256, centred, mirrored."""
    window = torch.hann_window(512, dtype=torch.float64)
    return torch.stft(torch.from_numpy(waveform), 512, 256, window=window, return_complex=True).abs().numpy()


def filter_bank() -> np.ndarray:
    """Return 128 triangles on the mel scale 2595 log10(1 + f / 700), a bin and a band at a time."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 130) / 2595) - 1)
    bank = np.zeros((128, 257))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        bank[band] = np.interp(np.arange(257) * RATE / 512, [low, centre, high], [0, 1, 0], left=0, right=0)
    return bank


class TestSpectralSnr:
    @pytest.mark.parametrize(("gain", "expected"), [(0.5, 20 * np.log10(2)), (0.9, 20.0), (2.0, 0.0), (-1.0, np.inf)])
    def test_a_wrong_level_is_the_error(self, gain, expected):
        """|gain| S - S is the error; the sign of the waveform does not show in magnitudes."""
        assert float(spectral_snr(NOISE, gain * NOISE)) == pytest.approx(expected, abs=1e-9)

    def test_parity_with_the_definition(self):
        s, e = magnitude(NOISE), magnitude(OTHER)
        expected = 10 * np.log10((s**2).sum() / ((e - s) ** 2).sum())
        assert float(spectral_snr(NOISE, OTHER)) == pytest.approx(expected, abs=1e-9)

    def test_phase_does_not_matter(self):
        """A quarter of a period later, a tone has nothing of its old waveform, and the same magnitudes."""
        time = np.arange(RATE) / RATE
        tones = [np.hanning(RATE) * np.sin(2 * np.pi * 440 * time + phase) for phase in (0.0, np.pi / 2)]
        assert float(si_sdr(*tones)) < -60
        assert float(spectral_snr(*tones)) > 40

    def test_silence(self):
        assert float(spectral_snr(NOISE, 0 * NOISE)) == 0


class TestSpectralSiSnr:
    @pytest.mark.parametrize("gain", [1e-3, 0.5, -3.0])
    def test_scale_does_not_matter(self, gain):
        expected = float(spectral_si_snr(NOISE, OTHER))
        assert float(spectral_si_snr(NOISE, gain * OTHER)) == pytest.approx(expected, abs=1e-9)
        assert float(spectral_si_snr(gain * NOISE, OTHER)) == pytest.approx(expected, abs=1e-9)

    def test_parity_with_the_angle_between_spectra(self):
        """It is 20 log10 of the cotangent of that angle."""
        s, e = magnitude(NOISE).ravel(), magnitude(OTHER).ravel()
        angle = np.arccos(s @ e / np.linalg.norm(s) / np.linalg.norm(e))
        assert float(spectral_si_snr(NOISE, OTHER)) == pytest.approx(-20 * np.log10(np.tan(angle)), abs=1e-6)

    @pytest.mark.filterwarnings("error")
    def test_silence(self):
        assert float(spectral_si_snr(NOISE, 0 * NOISE)) == -np.inf
        assert np.isnan(float(spectral_si_snr(0 * NOISE, NOISE)))


class TestMelCepstralDistance:
    @pytest.mark.parametrize("level", [1.0, 1e-4])
    def test_parity_with_scipy(self, level):
        s, e = (
            dct(np.log(filter_bank() @ magnitude(level * x) ** 2 + 1e-6), axis=0, norm="ortho")[:13]
            for x in (NOISE, OTHER)
        )
        expected = np.sqrt(((s - e) ** 2).sum(axis=0)).mean()
        assert float(mel_cepstral_distance(level * NOISE, level * OTHER)) == pytest.approx(expected, rel=1e-4)

    def test_a_level_moves_the_first_cepstrum_only(self):
        """By ln(gain^2) in each of 128 bands, less the one band without a bin; its norm over sqrt(128)."""
        bands = (filter_bank().sum(axis=1) > 0).sum()
        found = float(mel_cepstral_distance(NOISE, 10 * NOISE))
        assert found == pytest.approx(np.log(100) * bands / np.sqrt(128), rel=0.01)

    def test_the_same_is_at_no_distance(self):
        assert float(mel_cepstral_distance(NOISE, -NOISE)) == 0


@pytest.mark.parametrize("metric", METRICS.values())
def test_rows_are_independent_and_shapes_the_same(metric):
    s, e = RNG.normal(size=(2, 3, 2, 4000))
    found = metric(s, e)
    assert found.shape == (3, 2)
    assert found[2, 1] == pytest.approx(float(metric(s[2, 1], e[2, 1])), abs=1e-9)
    with pytest.raises(AudioError):
        metric(np.ones(3), np.ones(4))
    with pytest.raises(AudioError, match="256"):
        metric(np.ones(256), np.ones(256))


class TestProtocol:
    def stems(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s = RNG.normal(size=(2, 9 * RATE))
        s[1, 5 * RATE : 7 * RATE] = 0
        return s, s + 0.5 * RNG.normal(size=s.shape), s.sum(axis=0)

    def test_each_frame_of_the_protocol_is_scored_by_itself(self):
        s, e, x = self.stems()
        scores = spectral_scores(s, e, x)
        for voices in scores.values():
            assert [len(values) for values in voices] == [len(values) for values in frame_scores(s, e, x)] == [4, 2]
        expected = [float(spectral_snr(s[1, i : i + RATE], e[1, i : i + RATE])) for i in (4 * RATE, 7 * RATE)]
        np.testing.assert_allclose(scores["spectral SNR"][1], expected)

    def test_cepstra_are_those_at_a_mixture_that_peaks_at_1(self):
        s, e, x = self.stems()
        peak = np.abs(x[4 * RATE : 8 * RATE]).max()
        first = slice(4 * RATE, 5 * RATE)
        for level in (1.0, 1e-3):
            found = spectral_scores(level * s, level * e, level * x)["MCD"][0][0]
            assert found == pytest.approx(float(mel_cepstral_distance(s[0, first] / peak, e[0, first] / peak)))

    def test_shapes_must_fit(self):
        with pytest.raises(AudioError):
            spectral_scores(np.ones((2, 9)), np.ones((3, 9)), np.ones(9))
