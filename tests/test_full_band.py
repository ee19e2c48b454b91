"""The full-band benchmark: SDR by band, mixtures, the rules for the treble, and the command."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.errors import AudioError
from vocalsep.evaluation import full_band as band
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.masks import soft_masks
from vocalsep.separator import Separator
from vocalsep.spectrum import StftGrid
from vocalsep.synthesizer import VoiceParameters
from vocalsep.tracks import F0Tracks

RATE = 44100
TIME = np.arange(RATE) / RATE
GRID = StftGrid.of_duration(RATE)


def tones(*amplitudes: float) -> np.ndarray:
    """Return a second of one tone in the middle of each band, of these amplitudes."""
    return sum(a * np.sin(2 * np.pi * f * TIME) for a, f in zip(amplitudes, range(2000, 22000, 4000), strict=True))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parameters(voices: int = 2, frames: int = 30) -> VoiceParameters:
    """Return parameters of voices on notes of 20 frames with rests of 10 in turn."""
    rng = torch.Generator().manual_seed(0)
    f0 = torch.linspace(300, 150, voices)[:, None].repeat(1, frames)
    for voice in range(voices):
        f0[voice, 10 * voice : 10 * voice + 5] = 0
    return VoiceParameters(
        f0=f0,
        log_gain=torch.full(f0.shape, -2.0),
        lsf=torch.cumsum(0.1 + 0.05 * torch.rand(*f0.shape, 20, generator=rng), dim=-1),
        log_noise=-8 + torch.randn(*f0.shape, 16, generator=rng),
    )


class TestBandSdr:
    def test_known_tones(self):
        wrong = [0.0, 0.1, 0.01, -0.1, 1.0]  # of the amplitude, so 20 log10 of it is the error
        reference, estimate = tones(1, 0.5, 0.1, 0.1, 0.01), tones(1, 0.55, 0.101, 0.09, 0.02)
        found = band.band_sdr(reference[None], estimate[None], RATE)
        assert found[0] > 200
        np.testing.assert_allclose(found[1:], [-20 * np.log10(abs(error)) for error in wrong[1:]], atol=1e-6)

    def test_what_is_right_has_no_error(self):
        assert (band.band_sdr(noise(2, RATE), noise(2, RATE), RATE) == np.inf).all()

    def test_a_band_without_energy_has_no_figure(self):
        low = tones(1, 0, 0, 0, 0)[None]
        assert np.isnan(band.band_sdr(0 * low, low, RATE)).all()
        assert band.band_sdr(low, 0 * low, RATE)[0] == pytest.approx(0, abs=1e-9)

    def test_voices_count_as_much_as_their_energy(self):
        stems = noise(2, RATE) * np.array([[1.0], [0.1]])
        estimates = stems + np.array([[0.1], [0.1]]) * noise(2, RATE, seed=1)
        expected = 10 * np.log10((stems**2).sum() / ((stems - estimates) ** 2).sum())
        np.testing.assert_allclose(band.band_sdr(stems, estimates, RATE, (0, np.inf)), expected, atol=1e-3)

    @pytest.mark.parametrize("voices", [2, 3])
    def test_equal_shares_of_strangers(self, voices):
        stems = noise(voices, 4 * RATE)
        shares = np.broadcast_to(stems.mean(axis=0), stems.shape)
        # Each misses (n - 1) / n of itself and has 1 / n of the others: an error of (n - 1) / n of its energy.
        expected = 10 * np.log10(voices / (voices - 1))
        np.testing.assert_allclose(band.band_sdr(stems, shares, RATE), expected, atol=0.05)

    def test_shapes_must_be_the_same(self):
        with pytest.raises(AudioError, match=r"\(2, 100\), estimates \(1, 100\)"):
            band.band_sdr(noise(2, 100), noise(1, 100), RATE)


class TestCombine:
    SHORT, LONG = noise(1000), 7 * noise(1600, seed=1)

    @pytest.mark.parametrize("shift", [0.0, 0.25, 0.75])
    def test_mixing_is_as_documented(self, shift):
        for first in (False, True):
            stems = band.combine([self.SHORT, self.LONG][:: -1 if first else 1], shift)[:: -1 if first else 1]
            assert stems.shape == (2, 1000)
            np.testing.assert_allclose(np.sqrt((stems.astype(np.float64) ** 2).mean(axis=1)), band.LEVEL, rtol=1e-5)
            expected = [self.SHORT, np.concatenate([self.LONG, self.LONG])[int(shift * 1600) :][:1000]]
            np.testing.assert_allclose(si_sdr(expected, stems), 140, atol=40)

    def test_silence_cannot_be_brought_to_a_level(self):
        with pytest.raises(AudioError, match="recording 2 is silent"):
            band.combine([self.SHORT, 0 * self.LONG])

    def test_groups(self, monkeypatch):
        monkeypatch.setattr(
            band,
            "f0_from_stems",
            lambda stems, *_, **__: F0Tracks(
                np.ones((len(stems), 1), np.float32), [f"v{n}" for n in range(len(stems))]
            ),
        )
        solos = {name: noise(4000, seed=seed) for seed, name in enumerate("abc")}
        solos["c"] = noise(round(2.5 * band.PHRASE_SECONDS * 16000), seed=3)
        groups = [take.group for take in band.takes(solos, 16000, per_group=2)]
        assert groups == ["a + b"] * 2 + ["a + c"] * 2 + ["b + c"] * 2 + ["a + b + c"] * 2 + ["c, 2 phrases"]


class TestLoadSolos:
    def test_channels_are_averaged(self, tmp_path):
        stereo = 0.1 * np.stack([tones(1, 0, 0, 0, 0), tones(0, 0, 1, 0, 0)]).astype(np.float32)
        for name in "ab":
            audio.write(tmp_path / f"{name}.wav", stereo, RATE, bit_depth="float32")
        solos, rate = band.load_solos(tmp_path)
        assert (list(solos), rate) == (["a", "b"], RATE)
        np.testing.assert_allclose(solos["b"], stereo.mean(axis=0), atol=1e-7)

    @pytest.mark.parametrize(("rate", "names", "message"), [(RATE, "a", "one recording"), (16000, "ab", "16000 Hz")])
    def test_what_cannot_be_judged(self, tmp_path, rate, names, message):
        for name in names:
            audio.write(tmp_path / f"{name}.wav", 0.1 * noise(rate), rate)
        with pytest.raises(AudioError, match=message):
            band.load_solos(tmp_path)


class TestRules:
    def test_level_top_takes_the_power_that_is_heard(self):
        power = torch.rand(2, GRID.n_bins, 5, generator=torch.Generator().manual_seed(0))
        found, frequency = band.level_top(power, GRID), GRID.frequencies()
        assert torch.equal(found[:, frequency < 7500], power[:, frequency < 7500])
        mean = power[:, (frequency >= 5000) & (frequency < 7500)].mean(dim=1, keepdim=True)
        assert torch.allclose(found[:, frequency >= 7500], mean.expand(-1, int((frequency >= 7500).sum()), -1))

    def test_consonants_are_favoured_beside_notes_only(self):
        f0 = torch.full((2, 80), 200.0)
        f0[0, 20:26] = 0  # a consonant
        f0[0, 40:75] = 0  # a rest
        power = torch.ones(2, GRID.n_bins, 80)
        gain = 10 * torch.log10(band.favour_consonants(power, f0, GRID))
        frequency = GRID.frequencies()
        assert gain[1].abs().max() < 1e-4
        assert gain[:, frequency <= 3000].abs().max() < 1e-4
        high = gain[0, frequency >= 5000]
        assert (high == high[0]).all()
        assert high[0, 21:25].tolist() == pytest.approx([9.0] * 4, abs=1e-4)
        assert high[0, [19, 20, 47]].tolist() == pytest.approx([3.0, 6.0, 3.0], abs=1e-4)
        assert high[0, 48:67].abs().max() < 1e-4
        middle = gain[0, (frequency - 4000).abs().argmin(), 22]
        assert float(middle) == pytest.approx(4.5, abs=0.05)

    def test_the_separator_does_as_is_said(self, tiny_model, sing):
        mixture = 0.1 * sing(np.repeat([[300.0], [200.0]], 60, axis=1), RATE).sum(axis=0)
        mono, separator = audio.to_model_rate(mixture, RATE), Separator(tiny_model, "cpu")
        tracks = F0Tracks(np.repeat(np.float32([[300.0], [200.0]]), 1 + len(mono) // 256, axis=1), ("high", "low"))
        parameters = separator.fitted(mono, separator.estimate(mono, tracks))
        stems = band.separate_by(band.as_separated, mixture, parameters, RATE)
        separated = separator.separate(mixture, tracks, sample_rate=RATE).stems
        np.testing.assert_allclose(stems, list(separated.values()), atol=1e-6)

    @pytest.mark.parametrize("rule", band.RULES)
    def test_stems_add_up(self, rule):
        voices = parameters()
        mixture = 0.1 * noise(29 * 706)
        stems = band.separate_by(band.RULES[rule], mixture, voices, RATE)
        assert stems.shape == (2, len(mixture))
        np.testing.assert_allclose(stems.sum(axis=0), mixture, atol=1e-5)

    def test_rules_differ_only_where_they_say(self):
        voices, frequency = parameters(), GRID.frequencies()
        heard = frequency[:, None].expand(-1, voices.n_frames)
        separated = soft_masks(band.as_separated(voices, GRID, heard))
        for name, rule in band.RULES.items():
            least = {"level top": 7500, "frequency unheard": 0}.get(name, 3000)
            difference = (soft_masks(rule(voices, GRID, heard)) - separated).abs().amax(dim=(0, 2))
            assert not (difference[frequency < least] > 1e-5).any(), name
            assert difference[frequency > 9000].max() > 0.1, name


def row(group: str, system: str, value: float) -> band.Row:
    return band.Row(group, system, value, value + np.arange(1.0, 6.0))


def test_table_has_means_by_group_and_over_all():
    rows = [row("a", "x", 0.0), row("a", "y", 1.0), row("a", "x", 2.0), row("a", "y", 3.0)]
    rows += [row("b", "x", 7.0), row("b", "y", 9.0)]
    lines = [line.split() for line in band.format_table(rows)]
    assert lines[0] == ["a", "(2)", "SI-SDR", "0-4", "4-8", "8-12", "12-16", "16-"]
    assert lines[1] == ["x", "1.00", "2.00", "3.00", "4.00", "5.00", "6.00"]
    assert lines[6][:3] == ["all", "groups", "(3)"]
    assert [line[:2] for line in lines[7:]] == [["x", "3.00"], ["y", "4.33"]]


def test_command(tmp_path, tiny_model, sing):
    for number, f0 in enumerate((330.0, 220.0)):
        audio.write(tmp_path / f"singer{number}.wav", 0.2 * sing(np.full((1, 70), f0), RATE)[0], RATE)
    result = CliRunner().invoke(main, ["benchmark-band", str(tmp_path), "--takes", "1", "-n", str(tiny_model)])
    assert result.exit_code == 0, result.output
    figures = {line[:44].strip(): line[44:].split() for line in result.output.splitlines() if line.startswith("  ")}
    assert list(figures) == ["equal shares", "separator", "not fitted", *band.RULES, "ideal power mask"]
    assert float(figures["ideal power mask"][0]) > 10 > float(figures["equal shares"][0])
    refused = CliRunner().invoke(main, ["benchmark-band", str(tmp_path / "none"), "-n", str(tiny_model)])
    assert refused.exit_code == 2
