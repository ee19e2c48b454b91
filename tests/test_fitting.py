"""Fitting to the recording: f0 by phase, partials by multiplicative steps, masks that use the phase."""

import math
from dataclasses import replace

import pytest
import torch

from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, istft, stft
from vocalsep.dsp.units import cents_to_hz, hz_to_cents
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.model import fitting
from vocalsep.model.fitting import fit
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer import VoiceParameters, synthesize, voice_power
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.lobes import agreement, f0_path, harmonic_lobes
from vocalsep.model.synthesizer.spectrogram import harmonic_log_amplitude

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


def quality(parameters: VoiceParameters, stems: torch.Tensor, *, use_phase: bool = True) -> float:
    """Return the mean SI-SDR in dB of stems cut out by masks."""
    mixture = stems.sum(dim=0)
    frequency = instantaneous_frequency(mixture, GRID) if use_phase else None
    masks = soft_masks(voice_power(parameters, GRID, instantaneous_frequency=frequency))
    found = istft(masks * stft(mixture, GRID), GRID, len(mixture))
    return float(si_sdr(stems.numpy(), found.numpy()).mean())


def detuned(parameters: VoiceParameters, cents: float) -> VoiceParameters:
    return replace(parameters, f0=torch.from_numpy(cents_to_hz(cents, parameters.f0)).float())


def error(found: VoiceParameters, truth: VoiceParameters) -> torch.Tensor:
    """Return the distance of f0 in cents, away from the ends."""
    return torch.from_numpy(hz_to_cents(found.f0, truth.f0))[:, 5:-5].abs()


class TestAgreement:
    def test_it_is_one_at_the_frequency_of_the_harmonic_and_falls_with_the_distance(self):
        path = f0_path(torch.full((1, 10), 200.0))
        lobes = harmonic_lobes(path, GRID, 39)
        frequency = 200 * lobes.number[0].T
        exact, far = agreement(lobes, path, frequency), agreement(lobes, path, frequency + 60)
        assert torch.equal(exact, torch.ones_like(exact))
        near_fundamental = lobes.number == 1
        assert far[near_fundamental].max() < 0.06
        # 60 Hz from the 39th harmonic at 7800 Hz are 13 cents: it may still be the same voice.
        assert far[lobes.number == 39].min() > far[near_fundamental].max()

    def test_masks_with_phase_separate_neighbouring_partials(self):
        """In a fifth every second or third harmonic meets one of the other voice, slightly detuned: phase decides."""
        parameters = choir(330.0, 221.5)
        stems = sung(parameters)
        assert quality(parameters, stems) > quality(parameters, stems, use_phase=False) + 1.0


class TestFitting:
    @pytest.mark.parametrize("cents", [-18.0, 12.0])
    def test_f0_moves_to_the_true_f0(self, cents):
        truth = choir(392.0, 247.0, 147.0)
        left = error(fit(detuned(truth, cents), sung(truth).sum(dim=0)), truth)
        assert left.median() < 0.35 * abs(cents)
        assert left.mean() < 0.5 * abs(cents)

    def test_true_f0_stays(self):
        """A window of 128 ms flattens vibrato by a few cents."""
        truth = choir(392.0, 247.0, 147.0)
        assert error(fit(truth, sung(truth).sum(dim=0)), truth).median() < 2.5

    def test_rests_stay_rests(self):
        truth = choir(392.0, 247.0)
        f0 = truth.f0.clone()
        f0[0, 40:70] = 0
        fitted = fit(replace(truth, f0=f0), sung(replace(truth, f0=f0)).sum(dim=0))
        assert torch.equal(fitted.f0 > 0, f0 > 0)

    def test_noise_is_lowered_except_beside_the_notes_of_the_voice(self):
        truth = choir(392.0, 247.0)
        f0 = truth.f0.clone()
        f0[0, 40:80] = 0
        fitted = fit(replace(truth, f0=f0), sung(replace(truth, f0=f0)).sum(dim=0))
        lowered = (truth.log_noise - fitted.log_noise)[..., 0]
        beside = torch.zeros_like(lowered, dtype=torch.bool)
        beside[0, 40:50] = beside[0, 70:80] = True
        torch.testing.assert_close(lowered, torch.where(beside, 0.0, -0.5 * math.log(0.3)))

    def test_partials_move_to_their_true_amplitudes(self):
        """Fitting corrects most of an error of 3 dB in both voices."""
        truth = choir(392.0, 247.0)
        wrong = replace(truth, log_gain=truth.log_gain + torch.tensor([[0.35], [-0.35]]))
        mixture = sung(truth).sum(dim=0)
        fitted = fit(wrong, mixture)
        assert fitted.log_partials is not None
        strong = harmonic_log_amplitude(truth, 8)[:, 10:-10]
        before = (harmonic_log_amplitude(wrong, 8)[:, 10:-10] - strong).abs().mean()
        after = (harmonic_log_amplitude(fitted, 8)[:, 10:-10] - strong).abs().mean()
        assert after < 0.5 * before

    def test_stems_get_better(self):
        truth = choir(392.0, 261.0, 196.5, 131.0)
        stems = sung(truth)
        flat = replace(
            detuned(truth, 10),
            lsf=(torch.arange(1, 21) * torch.pi / 21).expand_as(truth.lsf),
        )
        assert quality(fit(flat, stems.sum(dim=0)), stems) > quality(flat, stems) + 0.4

    def test_chunks_equal_the_whole(self, monkeypatch):
        truth = choir(392.0, 247.0, 147.0)
        mixture = sung(truth).sum(dim=0)
        wrong = detuned(truth, 10)
        whole = fit(wrong, mixture)
        monkeypatch.setattr(fitting, "CHUNK_FRAMES", 37)
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
    def test_they_scale_their_harmonics(self):
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
