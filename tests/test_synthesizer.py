"""The source-filter synthesizer: closed forms against SciPy, spectrogram against waveform, gradients, f0."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.dsp.units import hz_to_cents
from vocalsep.f0 import monophonic
from vocalsep.f0.crepe import Crepe
from vocalsep.model.synthesizer import VoiceParameters, all_pole, synthesize, voice_power
from vocalsep.model.synthesizer.lobes import f0_path, harmonic_lobes, lobe_integral
from vocalsep.model.synthesizer.spectrogram import harmonic_log_amplitude, harmonic_power, noise_power
from vocalsep.model.synthesizer.waveform import harmonic_waveform, noise_waveform
from vocalsep.weights import load_network

ORDER = 20
GRID = StftGrid.of_duration()
TIME = torch.arange(190) * 0.016
VIBRATO = 300 * 2 ** (50 / 1200 * torch.sin(2 * math.pi * 6 * TIME))[None]  # 6 Hz, +-50 cents


def random_lsf(*shape: int, seed: int = 0, spacing: float = 0.02) -> torch.Tensor:
    logits = torch.randn(*shape, ORDER + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return all_pole.lsf_from_logits(logits, spacing)


def vowel(f0: torch.Tensor, *, log_noise: float = -30.0, dtype: torch.dtype = torch.float32) -> VoiceParameters:
    """Return voices with f0, shape (voices, frames), and one smooth filter in all frames."""
    lsf = all_pole.lsf_from_logits(0.5 * torch.sin(torch.arange(ORDER + 1.0)), 0.05).to(dtype)
    return VoiceParameters(
        f0=f0.to(dtype),
        log_gain=torch.full(f0.shape, -2.0, dtype=dtype),
        lsf=lsf.expand(*f0.shape, ORDER),
        log_noise=torch.full((*f0.shape, 16), log_noise, dtype=dtype),
    )


def decibels(power_ratio: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(power_ratio)


def polynomial(lsf: torch.Tensor) -> np.ndarray:
    """Return the coefficients of A(z) = (P(z) + Q(z)) / 2 from the roots of P and Q."""
    p, q = (np.concatenate([np.exp(1j * w), np.exp(-1j * w)]) for w in (lsf[0::2].numpy(), lsf[1::2].numpy()))
    return (np.poly([*p, -1]) + np.poly([*q, 1])).real[:-1] / 2


class TestAllPole:
    @pytest.mark.parametrize("seed", range(3))
    def test_closed_form_equals_the_polynomial_in_scipy(self, seed: int) -> None:
        lsf = random_lsf(seed=seed)
        omega = torch.linspace(0.01, 3.13, 400, dtype=torch.float64)
        _, response = signal.freqz(1.0, polynomial(lsf), worN=omega.numpy())
        expected = np.log(np.abs(response))
        assert np.abs(all_pole.log_magnitude(lsf, omega).numpy() - expected).max() < 1e-6

    def test_any_ordered_frequencies_make_a_stable_filter(self) -> None:
        roots = np.roots(polynomial(random_lsf(seed=3)))
        assert np.abs(roots).max() < 1

    def test_lsf_are_ordered_and_spaced(self) -> None:
        lsf = all_pole.lsf_from_logits(torch.randn(50, ORDER + 1) * 10, 0.01)
        edges = torch.cat([torch.zeros(50, 1), lsf, torch.full((50, 1), math.pi)], dim=1)
        assert edges.diff(dim=1).min() > 0.0099

    def test_resonances_become_the_poles_of_the_filter(self) -> None:
        frequency = torch.tensor([[600.0, 1040.0, 2250.0], [250.0, 1750.0, 2600.0]])
        bandwidth = torch.tensor([[80.0, 90.0, 120.0], [60.0, 90.0, 200.0]])
        lsf = all_pole.lsf_from_resonances(frequency, bandwidth, torch.tensor([0.3, 0.5]), 16000)
        edges = torch.nn.functional.pad(lsf, (1, 1))
        edges[:, -1] = math.pi
        assert edges.diff(dim=-1).min() > 0
        for row, real_pole in enumerate((0.3, 0.5)):
            roots = np.roots(polynomial(lsf[row]))
            upper = roots[np.argsort(np.angle(roots))][-3:]
            assert np.angle(upper) / (2 * np.pi) * 16000 == pytest.approx(frequency[row].numpy(), rel=1e-4)
            assert -np.log(np.abs(upper)) / np.pi * 16000 == pytest.approx(bandwidth[row].numpy(), rel=1e-3)
            assert np.sort(np.abs(roots - real_pole))[:2] == pytest.approx(0, abs=1e-3)

    def test_gradient(self) -> None:
        lsf = random_lsf(3).requires_grad_()
        omega = torch.linspace(0.1, 3.0, 7, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda w: all_pole.log_magnitude(w, omega), lsf)

    def test_gradient_through_the_spacings(self) -> None:
        logits = torch.randn(2, ORDER + 1, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: all_pole.lsf_from_logits(x, 0.01), logits)


class TestGradients:
    @pytest.fixture
    def inputs(self) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        frames = 4
        log_gain = torch.randn(2, frames, generator=generator, dtype=torch.float64).requires_grad_()
        log_noise = torch.randn(2, frames, 6, generator=generator, dtype=torch.float64).requires_grad_()
        logits = torch.randn(2, frames, 7, generator=generator, dtype=torch.float64).requires_grad_()
        return log_gain, logits, log_noise

    def parameters(self, log_gain: torch.Tensor, logits: torch.Tensor, log_noise: torch.Tensor) -> VoiceParameters:
        f0 = torch.tensor([[1500.0, 1520.0, 1510.0, 1400.0], [0.0, 1100.0, 1100.0, 0.0]], dtype=torch.float64)
        return VoiceParameters(f0, log_gain, all_pole.lsf_from_logits(logits, 0.05), log_noise)

    def test_spectrogram(self, inputs: tuple[torch.Tensor, ...]) -> None:
        grid = StftGrid.of_duration(16000, window=0.008)
        assert torch.autograd.gradcheck(lambda *x: voice_power(self.parameters(*x), grid).sqrt(), inputs)

    def test_waveform(self, inputs: tuple[torch.Tensor, ...]) -> None:
        def render(*x: torch.Tensor) -> torch.Tensor:
            return synthesize(self.parameters(*x), samples=40, generator=torch.Generator().manual_seed(0))

        assert torch.autograd.gradcheck(render, inputs)


class TestSpectrogramAgainstWaveform:
    """The expected spectrogram is that of the synthesized waveform."""

    @pytest.mark.parametrize("sample_rate", [16000, 44100])
    @pytest.mark.parametrize("f0", [98.0, 233.0, 620.0])
    def test_steady_tone_within_1_db_at_each_harmonic(self, f0: float, sample_rate: int) -> None:
        parameters = vowel(torch.full((1, 80), f0))
        grid = StftGrid.of_duration(sample_rate)
        samples = round(79 * grid.hop_length)
        waveform = harmonic_waveform(parameters, StftGrid.of_duration(sample_rate, 0.032), samples)
        measured = power(waveform, grid)[0, :, 20:60].mean(dim=-1)
        expected = voice_power(parameters, grid)[0, :, 20:60].mean(dim=-1)
        width = sample_rate / grid.n_fft
        for k in range(1, int(7000 / f0)):
            bins = slice(round((k * f0 - 40) / width), round((k * f0 + 40) / width) + 1)
            assert abs(decibels(measured[bins].sum() / expected[bins].sum())) < 1.0, k

    def test_steady_tone_keeps_the_shape_of_the_lobe(self) -> None:
        """Bins around low harmonics are right to 2.5 dB: lobes are widened on purpose for jitter and glides."""
        parameters = vowel(torch.full((1, 80), 200.0))
        measured = power(harmonic_waveform(parameters, GRID, 79 * 256), GRID)[0, :, 40]
        expected = voice_power(parameters, GRID)[0, :, 40]
        for k in (1, 2, 3):
            peak = round(k * 200 * 2048 / 16000)
            for offset in (-1, 0, 1):
                ratio = decibels(measured[peak + offset] / expected[peak + offset])
                assert abs(ratio) < 2.5, (k, offset, float(ratio))

    def test_vibrato_within_1_5_db_in_third_octaves(self) -> None:
        """The energy lies where the glide takes it, band by band, averaged over 2 s."""
        parameters = vowel(VIBRATO)
        measured = power(harmonic_waveform(parameters, GRID, 189 * 256), GRID)[0, :, 20:170]
        expected = voice_power(parameters, GRID)[0, :, 20:170]
        frequency = GRID.frequencies()
        for centre in 300 * 2 ** (torch.arange(0, 13) / 3):
            band = (frequency >= centre * 2 ** (-1 / 6)) & (frequency < centre * 2 ** (1 / 6))
            total = measured[band].sum(), expected[band].sum()
            if total[0] > 1e-4 * measured.sum():
                assert abs(decibels(total[0] / total[1])) < 1.5, float(centre)

    def test_vibrato_frame_by_frame(self) -> None:
        """The magnitudes of each frame are close to the expected ones, closer than if f0 stood still in a window."""
        parameters = vowel(VIBRATO)
        measured = power(harmonic_waveform(parameters, GRID, 189 * 256), GRID)[0, :400, 20:170].sqrt()
        amplitude2 = torch.exp(2 * harmonic_log_amplitude(parameters, 27))
        path = f0_path(VIBRATO)

        def cosine(spread: torch.Tensor) -> torch.Tensor:
            lobes = harmonic_lobes(path._replace(spread=spread), GRID, 27)
            expected = lobes.fill(amplitude2)[0, 20:170, :400].T.sqrt()
            return torch.nn.functional.cosine_similarity(measured, expected, dim=0)

        gliding, still = cosine(path.spread), cosine(torch.zeros_like(path.spread))
        assert gliding.median() > 0.9
        assert gliding.min() > 0.85
        assert gliding.mean() > still.mean() + 0.02

    def test_noise_within_1_db_in_each_band(self) -> None:
        parameters = vowel(torch.zeros(1, 400), log_noise=-6.0)
        grid = StftGrid.of_duration(44100)
        waveform = noise_waveform(
            parameters, StftGrid.of_duration(44100, 0.032), round(399 * 705.6), torch.Generator().manual_seed(0)
        )
        measured, expected = power(waveform, grid)[0].mean(dim=-1), noise_power(parameters, grid)[0].mean(dim=-1)
        for start in range(20, 2600, 100):  # bands of 770 Hz
            band = slice(start, start + 100)
            assert abs(decibels(measured[band].mean() / expected[band].mean())) < 1.0

    def test_lobe_integral_is_that_of_the_window(self) -> None:
        """The noise bandwidth of a Hann window is 1.5 bins; half of it lies on either side."""
        assert float(lobe_integral(torch.tensor(2.0))) == pytest.approx(0.75, abs=1e-6)
        n = 2048
        window = np.abs(np.fft.fft(np.hanning(n + 1)[:n], 32 * n) / (n / 2)) ** 2
        for bins in (0.25, 0.5, 1.0, 1.5):
            x = torch.tensor([bins - 0.01, bins + 0.01], dtype=torch.float64)
            low, high = lobe_integral(x)
            ratio_db = 10 * math.log10(float(high - low) / 0.02 / window[round(32 * bins)])
            assert abs(ratio_db) < (0.15 if bins <= 1 else 1.4)


class TestVoice:
    @pytest.mark.parametrize("f0", [110.0, 440.0, 700.0])
    def test_crepe_finds_the_f0(self, f0: float) -> None:
        parameters = vowel(torch.full((1, 80), f0), log_noise=-14.0)
        waveform = synthesize(parameters, generator=torch.Generator().manual_seed(0))[0].numpy()
        output = monophonic.track(Downmix.of_array(waveform), load_network("crepe-tiny", Crepe))
        cents = hz_to_cents(output.f0[10:-10], f0)
        assert np.abs(np.median(cents)) < 10
        assert np.abs(cents).max() < 25
        assert output.periodicity[10:-10].min() > 0.5

    def test_a_rest_is_silent(self) -> None:
        f0 = torch.full((1, 60), 200.0)
        f0[:, 20:40] = 0
        waveform = harmonic_waveform(vowel(f0), StftGrid.of_duration(16000, 0.032), 59 * 256)[0]
        assert waveform[21 * 256 : 39 * 256].abs().max() == 0
        assert waveform[: 19 * 256].abs().max() > 0.05

    def test_no_harmonic_above_nyquist(self) -> None:
        amplitude = harmonic_log_amplitude(vowel(torch.full((1, 10), 3000.0)), 2)
        total = harmonic_power(amplitude, torch.full((1, 10), 3000.0), GRID)[0, :, 5]
        peaks = GRID.frequencies()[total > 0.01 * total.max()]
        assert ((peaks - 3000).abs() < 100).logical_or((peaks - 6000).abs() < 100).all()

    def test_blocks_equal_the_whole(self) -> None:
        f0 = 200 + 100 * torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
        f0[:, 10:14] = 0
        parameters = vowel(f0, log_noise=-5.0)
        grid = StftGrid.of_duration(22050)
        whole = voice_power(parameters, grid)
        blocks = torch.cat([voice_power(parameters, grid, a, min(a + 7, 50)) for a in range(0, 50, 7)], dim=-1)
        assert torch.allclose(whole, blocks, rtol=1e-4, atol=1e-12)
