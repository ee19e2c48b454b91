"""Fitting to the recording: f0 by phase, partials by multiplicative steps, masks that listen to the phase."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, istft, stft
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.model.fitting import fit
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer import VoiceParameters, synthesize, voice_power
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.spectrogram import agreement, harmonic_log_amplitude, lobes_on, path_of

GRID = StftGrid.of_duration()
FRAMES = 120


def choir(*notes: float, log_noise: float = -16.0) -> VoiceParameters:
    """Return voices with a filter each, on steady notes with a vibrato of 20 cents."""
    cents = 20 * torch.sin(torch.arange(FRAMES) * 0.016 * 2 * math.pi * 5)
    f0 = torch.tensor(notes)[:, None] * 2 ** (cents / 1200)
    phase = torch.arange(21.0) + 2.0 * torch.arange(len(notes))[:, None]
    lsf = lsf_from_logits(0.5 * torch.sin(phase), 0.05)
    return VoiceParameters(
        f0=f0,
        log_gain=torch.full(f0.shape, -2.5),
        lsf=lsf[:, None].expand(*f0.shape, 20),
        log_noise=torch.full((*f0.shape, 16), log_noise),
    )


def sung(parameters: VoiceParameters) -> torch.Tensor:
    """Return the stems, shape (voices, samples)."""
    return synthesize(parameters, generator=torch.Generator().manual_seed(0))


def quality(parameters: VoiceParameters, stems: torch.Tensor, *, listening: bool = True) -> float:
    """Return the mean SI-SDR in dB of stems cut out by masks."""
    mixture = stems.sum(dim=0)
    heard = instantaneous_frequency(mixture, GRID) if listening else None
    masks = soft_masks(voice_power(parameters, GRID, heard=heard))
    found = istft(masks * stft(mixture, GRID), GRID, len(mixture))
    return float(si_sdr(stems.numpy(), found.numpy()).mean())


def cents(f0: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return 1200 * torch.log2(f0 / truth)


class TestInstantaneousFrequency:
    @pytest.mark.parametrize("sample_rate", [16000, 44100])
    @pytest.mark.parametrize("frequency", [100.0, 440.3, 3210.7])
    def test_every_bin_of_the_main_lobe_hears_the_tone(self, sample_rate, frequency):
        grid = StftGrid.of_duration(sample_rate)
        tone = torch.sin(2 * math.pi * frequency * torch.arange(sample_rate, dtype=torch.float64) / sample_rate)
        heard = instantaneous_frequency(tone, grid)[:, 10:50]
        lobe = (grid.frequencies() - frequency).abs() < 1.5 / grid.window_seconds
        assert lobe.sum() >= 3
        assert (heard[lobe] - frequency).abs().max() < 0.02

    def test_a_glide_is_heard_in_the_middle_of_the_window(self):
        time = torch.arange(16000, dtype=torch.float64) / 16000
        tone = torch.sin(2 * math.pi * (400 * time + 0.5 * 200 * time**2))
        heard = instantaneous_frequency(tone, GRID)
        expected = 400 + 200 * 0.016 * np.arange(63)
        for frame in range(10, 50):
            peak = round(expected[frame] / 7.8125)
            assert float(heard[peak, frame]) == pytest.approx(expected[frame], abs=2.0)

    def test_the_stronger_of_two_neighbours_is_heard(self):
        """Two tones 12 Hz apart, closer than the window resolves: the bins between turn at the louder one's rate."""
        time = torch.arange(16000) / 16000
        tones = torch.sin(2 * math.pi * 440 * time) + 0.3 * torch.sin(2 * math.pi * 452 * time)
        heard = instantaneous_frequency(tones, GRID)[56, 10:50]  # the bin of 437.5 Hz
        assert (heard - 440).abs().median() < 4

    def test_silence_is_heard_at_the_frequency_of_the_bin(self):
        heard = instantaneous_frequency(torch.zeros(4000), GRID)
        assert torch.equal(heard, GRID.frequencies()[:, None].expand_as(heard))

    def test_blocks_equal_the_whole(self):
        noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
        whole = instantaneous_frequency(noise, GRID)
        torch.testing.assert_close(instantaneous_frequency(noise, GRID, 20, 31), whole[:, 20:31])


class TestAgreement:
    def test_it_is_one_where_the_harmonic_is_heard_and_the_floor_elsewhere(self):
        f0 = torch.full((1, 10), 200.0)
        centre, spread, share = path_of(f0, 0, 10)
        lobes = lobes_on(GRID, 39, centre, spread, share)
        exact = agreement(lobes, spread, lobes.frequency[0].T)
        far = agreement(lobes, spread, lobes.frequency[0].T + 60)
        assert torch.equal(exact, torch.ones_like(exact))
        near_fundamental = lobes.number == 1
        assert far[near_fundamental].max() < 0.06
        # 60 Hz from the 39th harmonic at 7800 Hz are 13 cents: less sure that it is another's.
        assert far[lobes.number == 39].min() > far[near_fundamental].max()

    def test_masks_that_listen_tell_neighbouring_partials_apart(self):
        """A fifth's partials meet at every second and third harmonic, a little apart: where phase decides."""
        parameters = choir(330.0, 221.5)
        stems = sung(parameters)
        assert quality(parameters, stems) > quality(parameters, stems, listening=False) + 1.0

    def test_masks_still_sum_to_one(self):
        parameters = choir(330.0, 221.5, 150.0)
        heard = instantaneous_frequency(sung(parameters).sum(dim=0), GRID)
        masks = soft_masks(voice_power(parameters, GRID, heard=heard))
        torch.testing.assert_close(masks.sum(dim=0), torch.ones_like(masks[0]))


class TestFitting:
    @pytest.mark.parametrize("error", [-18.0, 12.0])
    def test_f0_moves_to_what_is_sung(self, error):
        truth = choir(392.0, 247.0, 147.0)
        mixture = sung(truth).sum(dim=0)
        fitted = fit(replace(truth, f0=truth.f0 * 2 ** (error / 1200)), mixture)
        left = cents(fitted.f0, truth.f0)[:, 5:-5].abs()
        assert left.median() < 0.35 * abs(error)
        assert left.mean() < 0.5 * abs(error)

    def test_true_f0_stays(self):
        """But for vibrato, which a window of 128 ms hears flattened by a few cents."""
        truth = choir(392.0, 247.0, 147.0)
        fitted = fit(truth, sung(truth).sum(dim=0))
        assert cents(fitted.f0, truth.f0)[:, 5:-5].abs().median() < 2.5

    def test_rests_stay_rests(self):
        truth = choir(392.0, 247.0)
        f0 = truth.f0.clone()
        f0[0, 40:70] = 0
        fitted = fit(replace(truth, f0=f0), sung(replace(truth, f0=f0)).sum(dim=0))
        assert torch.equal(fitted.f0 > 0, f0 > 0)

    def test_noise_is_lowered_but_beside_a_voices_own_notes(self):
        truth = choir(392.0, 247.0)
        f0 = truth.f0.clone()
        f0[0, 40:80] = 0
        fitted = fit(replace(truth, f0=f0), sung(replace(truth, f0=f0)).sum(dim=0))
        lowered = (truth.log_noise - fitted.log_noise)[..., 0]
        beside = torch.zeros_like(lowered, dtype=torch.bool)
        beside[0, 40:50] = beside[0, 70:80] = True
        torch.testing.assert_close(lowered, torch.where(beside, 0.0, -0.5 * math.log(0.3)))

    def test_partials_move_to_their_true_amplitudes(self):
        """The network is 6 dB wrong about one voice, low notes too soft: fitting takes most of that back."""
        truth = choir(392.0, 247.0)
        wrong = replace(truth, log_gain=truth.log_gain + torch.tensor([[0.35], [-0.35]]))
        mixture = sung(truth).sum(dim=0)
        fitted = fit(wrong, mixture)
        assert fitted.log_partials is not None
        strong = harmonic_log_amplitude(truth, 8)[:, 10:-10]
        before = (harmonic_log_amplitude(wrong, 8)[:, 10:-10] - strong).abs().mean()
        after = (harmonic_log_amplitude(fitted, 8)[:, 10:-10] - strong).abs().mean()
        assert after < 0.5 * before

    def test_stems_are_better_for_it(self):
        truth = choir(392.0, 261.0, 196.5, 131.0)
        stems = sung(truth)
        flat = replace(
            truth,
            f0=truth.f0 * 2 ** (10 / 1200),
            lsf=(torch.arange(1, 21) * torch.pi / 21).expand_as(truth.lsf),
        )
        assert quality(fit(flat, stems.sum(dim=0)), stems) > quality(flat, stems) + 0.4

    def test_blocks_equal_the_whole(self, monkeypatch):
        truth = choir(392.0, 247.0, 147.0)
        mixture = sung(truth).sum(dim=0)
        wrong = replace(truth, f0=truth.f0 * 2 ** (10 / 1200))
        whole = fit(wrong, mixture)
        monkeypatch.setattr("vocalsep.model.fitting._BLOCK", 37)
        parts = fit(wrong, mixture)
        torch.testing.assert_close(parts.f0, whole.f0, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(parts.log_partials, whole.log_partials, rtol=1e-3, atol=1e-3)

    def test_silence_and_nobody_singing(self):
        truth = choir(392.0, 247.0)
        for parameters in (truth, replace(truth, f0=torch.zeros_like(truth.f0))):
            fitted = fit(parameters, torch.zeros((FRAMES - 1) * 256))
            assert fitted.f0.isfinite().all()
            assert fitted.log_partials is not None
            assert fitted.log_partials.isfinite().all()
            assert voice_power(fitted, GRID).isfinite().all()


class TestPartials:
    def test_they_scale_the_harmonics_they_are_of(self):
        plain = choir(247.0)
        louder = replace(plain, log_partials=torch.tensor([0.0, 1.0, 0.0]).expand(1, FRAMES, 3))
        more = harmonic_log_amplitude(louder, 6) - harmonic_log_amplitude(plain, 6)
        torch.testing.assert_close(more, torch.tensor([0.0, 1, 0, 0, 0, 0]).expand_as(more))

    def test_they_go_with_their_frames(self):
        plain = choir(247.0)
        rising = replace(plain, log_partials=torch.arange(FRAMES)[None, :, None].expand(1, FRAMES, 2).float())
        parts = [rising.frames(0, 50), rising.frames(50, FRAMES)]
        assert torch.equal(VoiceParameters.joined(parts).log_partials, rising.log_partials)
        assert rising.frames(10, 20, 3).log_partials[0, :, 0].tolist() == [10, 13, 16, 19]
