"""Augmentation: every effect does what it says, and nothing else."""

import numpy as np
import pytest
import torch

from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.f0 import monophonic
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.excitation import glottal_roll_off
from vocalsep.model.synthesizer.spectrogram import filter_log_magnitude
from vocalsep.training import augment
from vocalsep.weights import load_network


def tracked(waveform: np.ndarray) -> np.ndarray:
    return monophonic.track(Downmix.of_array(waveform), load_network("crepe-tiny", Crepe)).f0


@pytest.mark.parametrize("semitones", [-3, 2])
def test_transposition_moves_f0_and_its_tracks(sing, semitones):
    f0 = np.repeat([[220.0, 0.0, 330.0]], (60, 20, 70), axis=1)
    ratio = 2 ** (semitones / 12)
    shifted, tracks = augment.shift_by_resampling(sing(f0)[0], F0Tracks(f0, ("a",)), semitones)
    assert len(shifted) == pytest.approx(149 * 256 / ratio, abs=2)
    assert (tracks.n_frames, tracks.hop) == (1 + len(shifted) // 256, 0.016)
    steady = np.r_[8 : round(52 / ratio), round(88 / ratio) : tracks.n_frames - 10]
    cents = 1200 * np.log2(tracked(shifted)[steady] / tracks.frequencies[0, steady])
    assert np.abs(cents).max() < 25
    assert tracks.frequencies[0, 10] == pytest.approx(220 * ratio, rel=1e-4)
    assert (tracks.frequencies[0, round(63 / ratio) : round(77 / ratio)] == 0).all()


def test_transposition_by_nothing_changes_nothing(sing):
    f0 = np.full((1, 40), 220.0, np.float32)
    waveform, tracks = sing(f0)[0], F0Tracks(f0, ("a",))
    assert augment.shift_by_resampling(waveform, tracks, 0) == (waveform, tracks)


@pytest.mark.parametrize("ratio", [0.85, 1.2])
def test_formants_move_and_f0_stays(ratio):
    """The level of harmonic k changes from envelope(k f0) to envelope(k f0 / ratio)."""
    f0 = torch.full((1, 80), 110.0)
    lsf = lsf_from_logits(1.5 * torch.sin(0.9 * torch.arange(21.0)), 0.03)
    gain, noise = torch.full((1, 80), -2.0), torch.full((1, 80, 16), -14.0)
    parameters = VoiceParameters(f0, gain, lsf.expand(1, 80, 20), noise)
    waveform = synthesize(parameters, generator=torch.Generator().manual_seed(0))[0]
    moved = augment.shift_formants(waveform, ratio)
    assert moved.shape == waveform.shape
    grid, number = StftGrid.of_duration(16000), torch.arange(3, 50)
    peaks = torch.round(number * 110 * 2048 / 16000).long()
    before, after = (power(sound, grid)[peaks, 20:60].mean(dim=-1).log() / 2 for sound in (waveform, moved))
    steady, shifted = (
        glottal_roll_off(frequency) + filter_log_magnitude(lsf, frequency)
        for frequency in (number * 110.0, number * 110.0 / ratio)
    )
    expected, found = (shifted - steady).numpy(), (after - before).numpy()
    assert np.corrcoef(expected, found)[0, 1] > 0.8
    assert np.polyfit(expected, found, 1)[0] == pytest.approx(1, abs=0.4)
    assert np.abs(1200 * np.log2(tracked(moved.numpy())[10:-10] / 110)).max() < 25


def test_neutral_settings_change_nothing(sing):
    waveform = torch.from_numpy(sing(np.full((2, 60), 220.0)))
    assert (augment.shift_formants(waveform, 1.0) - waveform).abs().max() < 1e-4
    assert (augment.equalise(waveform, np.random.default_rng(0), 0.0) - waveform).abs().max() < 1e-5


def test_equalisation_is_smooth_random_and_of_the_stated_strength():
    waveform = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 4096)).astype(np.float32))
    filtered = augment.equalise(waveform, np.random.default_rng(1), strength_db=5.0)
    gain = 20 * torch.log10(torch.fft.rfft(filtered).abs() / torch.fft.rfft(waveform).abs())
    assert float(gain.std(dim=0)[[1, -2]].mean()) == pytest.approx(5.0, rel=0.15)
    assert gain.diff(dim=-1).abs().max() < 1.0
    assert (gain[0] - gain[1]).abs().max() > 1.0


@pytest.mark.parametrize("seed", range(3))
def test_rooms_keep_the_direct_sound_and_decay(seed):
    click = torch.zeros(1, 32000)
    click[0, 100] = 1.0
    wet = augment.reverberate(click, np.random.default_rng(seed))[0]
    assert wet[:100].abs().max() < 1e-5
    assert float(wet[100]) == pytest.approx(1.0, abs=1e-4)
    assert wet[101:131].abs().max() < 1e-4  # the early gap of 2 ms or more
    tail = wet[101:]
    assert -16 < 10 * float(torch.log10((tail**2).sum())) < 1
    assert (tail[:1600] ** 2).sum() > 2 * (tail[16000:17600] ** 2).sum()


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_levels_within_the_stated_range(seed):
    mixture = torch.sin(torch.arange(16001) * 0.05).repeat(40, 1) * torch.logspace(0, -2, 40)[:, None]
    noise = augment.add_noise(mixture, np.random.default_rng(seed), (-25.0, -5.0)) - mixture
    levels = 10 * torch.log10((noise**2).mean(dim=-1) / (mixture**2).mean(dim=-1))
    assert -25.1 < levels.min() < -20
    assert -10 < levels.max() < -4.9
    assert augment.add_noise(torch.zeros(1, 999), np.random.default_rng(0)).abs().max() == 0


@pytest.mark.parametrize("samples", [16000, 15999])
def test_a_band_limit_removes_high_frequencies_only(samples):
    time = torch.arange(samples) / 16000
    low, high = (torch.sin(2 * torch.pi * f * time) for f in (2990.0, 3010.0))
    inside = slice(1600, 14400)  # at its ends, a tone has energy at all frequencies
    limited = augment.limit_band(torch.stack([low, high]), 3000)
    assert limited.shape == (2, samples)
    assert (limited[0] - low)[inside].abs().max() < 0.05
    assert limited[1][inside].abs().max() < 0.05
