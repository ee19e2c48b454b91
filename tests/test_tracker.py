"""The tracker network: its input, the descriptions of voices, and properties that hold for any weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vocalsep.f0.network import Logits, Tracker, TrackerConfig, describe, harmonic_stack, normalised
from vocalsep.voices import Voice, parse_voices

CONFIG = TrackerConfig()
TINY = TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4)


def untrained(config: TrackerConfig = TINY, seed: int = 0) -> Tracker:
    """A network with random weights whose posteriors are far from flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Tracker(config)
        network.reader.weight.data *= 8
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


def tone(f0: float, amplitudes: tuple[float, ...], seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(16000 * seconds), dtype=torch.float64) / 16000
    parts = [a * torch.sin(2 * torch.pi * f0 * k * time + k) for k, a in enumerate(amplitudes, 1)]
    return torch.stack(parts).sum(dim=0).float()


class TestConfig:
    @pytest.mark.parametrize(
        "change",
        [
            *({"channels": 5}, {"channels": ()}, {"channels": (8, 8, "8", 8)}, {"n_bins": 250}, {"n_bins": 0}),
            *({"hidden": -8}, {"features": 4.5}, {"fmin": 0}, {"fmin": "62"}, {"harmonics": ()}),
            {"windows": (0.1, float("nan"))},
        ],
    )
    def test_bad_values(self, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="expected"):
            replace(CONFIG, **change)

    def test_the_grid_covers_every_voice(self) -> None:
        pitches = CONFIG.pitches()
        assert len(pitches) == CONFIG.n_bins
        assert pitches[0] < 65.0
        assert pitches[-1] > 1050.0
        np.testing.assert_allclose(1200 * torch.log2(pitches[1:] / pitches[:-1]), 20.0)
        assert CONFIG.n_bins % 2 ** len(CONFIG.channels) == 0

    def test_the_network_is_small_enough_for_a_wheel(self) -> None:
        assert sum(parameter.numel() for parameter in Tracker().parameters()) <= 3_000_000


class TestLevel:
    def test_loudness_is_one_in_loud_passages_whatever_the_gain(self) -> None:
        sound = tone(220.0, (1.0, 0.5), 2.0)
        sound[16000:] *= 0.1
        loud = normalised(sound)
        assert float(loud[2000:14000].square().mean().sqrt()) == pytest.approx(1, rel=0.02)
        for gain in (1e-3, 0.3, 40.0):
            torch.testing.assert_close(normalised(gain * sound), loud, rtol=1e-5, atol=1e-5)

    def test_each_recording_has_a_level_of_its_own(self) -> None:
        sounds = torch.stack([tone(220.0, (1.0,)), tone(330.0, (0.01,))])[None]
        found = normalised(sounds)
        assert found.shape == sounds.shape
        torch.testing.assert_close(found[0, 1], normalised(sounds[0, 1]))
        np.testing.assert_allclose(found.square().mean(dim=-1), 1, rtol=0.02)

    def test_silence_is_unchanged_and_a_note_in_it_stays_moderate(self) -> None:
        silence = torch.zeros(5000)
        assert torch.equal(normalised(silence), silence)
        noise = 1e-8 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
        assert torch.equal(normalised(noise), noise)
        note = torch.cat([torch.zeros(320000), tone(220.0, (0.2,), 0.5), torch.zeros(320000)])
        assert 1 < normalised(note).abs().max() < 20

    @pytest.mark.parametrize("samples", [1, 100, 1023, 1025])
    def test_recordings_of_a_few_samples(self, samples: int) -> None:
        found = normalised(torch.full((samples,), 0.25))
        torch.testing.assert_close(found, torch.ones(samples))


class TestStack:
    @pytest.mark.parametrize("f0", [98.0, 131.3, 222.2, 311.0, 447.0, 702.0])
    def test_a_tone_peaks_at_its_f0_in_every_window(self, f0: float) -> None:
        """The half is left out of the sum: an octave above, all multiples and the half are harmonics."""
        sound = tone(f0, tuple(1 / k for k in range(1, 9)))
        stack = harmonic_stack(normalised(sound), CONFIG)
        assert stack.shape == (CONFIG.n_inputs, CONFIG.n_bins, 63)
        expected = float(60 * np.log2(f0 / CONFIG.fmin))
        for window in stack.unflatten(0, (len(CONFIG.windows), -1)):
            found = window[1:, :, 12:-12].sum(dim=0).argmax(dim=0)
            assert (found - expected).abs().max() <= 1

    def test_channels_hold_the_levels_of_their_harmonics(self) -> None:
        """(ln(amplitude) + 5) / 3, less up to 1.5 dB between the bins of a Hann window; -1.4 for silence."""
        amplitudes = (0.8, 0.4, 0.3, 0.05, 0.2, 0.1)
        bin_ = 120
        f0 = float(CONFIG.pitches()[bin_])
        stack = harmonic_stack(tone(f0, amplitudes), CONFIG)[:, bin_, 25:35]
        levels = [amplitudes[int(k) - 1] if k <= 6 else 0.0 for k in CONFIG.harmonics[1:]]
        expected = (np.log(np.array(levels) + 1e-4) + 5) / 3
        for window in stack.unflatten(0, (len(CONFIG.windows), -1)):
            assert window[0].max() < -1  # nothing at half the f0
            for found, level in zip(window[1:], expected, strict=True):
                assert float(found.max()) == pytest.approx(level, abs=0.08)

    def test_nothing_beyond_the_nyquist_frequency(self) -> None:
        noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        stack = harmonic_stack(noise, CONFIG).unflatten(0, (len(CONFIG.windows), -1))
        beyond = torch.tensor(CONFIG.harmonics)[:, None] * CONFIG.pitches() > 8000
        assert beyond.any()
        np.testing.assert_allclose(stack[:, beyond], (np.log(1e-4) + 5) / 3, rtol=1e-5)
        assert (stack[:, ~beyond].mean(dim=-1) > -1).all()

    @pytest.mark.parametrize(("first", "last"), [(0, 5), (3, 4), (17, 40), (50, 63)])
    def test_some_frames_are_those_of_the_whole(self, first: int, last: int) -> None:
        waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
        whole = harmonic_stack(waveform, CONFIG)
        part = harmonic_stack(waveform, CONFIG, first, last)
        torch.testing.assert_close(part, whole[..., first:last], atol=1e-4, rtol=0)


class TestDescription:
    def test_range_rank_and_number(self) -> None:
        """Octaves from 262 Hz; half the octaves of the range, less 1; a quarter of the voices above, below, in all."""
        high, low = describe([Voice("high", 262.0, 1048.0), Voice("low", 65.5, 262.0)]).tolist()
        assert high == pytest.approx([1.0, 0.0, 0.0, 0.25, -0.5])
        assert low == pytest.approx([-1.0, 0.0, 0.25, 0.0, -0.5])
        assert describe([Voice("any", 131.0, 8 * 131.0)]).tolist()[0] == pytest.approx([0.5, 0.5, 0, 0, -0.75])

    def test_names_do_not_matter_and_no_two_voices_are_the_same(self) -> None:
        one, other = (describe([Voice(name, 100, 400), Voice("b")]) for name in "xy")
        assert torch.equal(one, other)
        for voices in ("SSAATTBB", 8):
            rows = describe(parse_voices(voices))
            assert len(rows.unique(dim=0)) == 8


def assert_close(one: Logits, other: Logits) -> None:
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


class TestNetwork:
    @pytest.mark.parametrize("frames", [1, 2, 7, 33])
    def test_a_posterior_does_not_depend_on_the_batch(self, frames: int) -> None:
        network = untrained()
        stack = torch.randn(3, TINY.n_inputs, TINY.n_bins, frames, generator=torch.Generator().manual_seed(0))
        voices = torch.stack([describe(parse_voices(text)) for text in ("SATB", "SSAA", "TTBB")])
        together = network(stack, voices)
        assert together.pitch.shape == (3, 4, frames, 256)
        assert together.silent.shape == (3, 4, frames)
        for row in range(3):
            alone = network(stack[[row]], voices[[row]])
            assert_close(alone, Logits(*(part[[row]] for part in together)))
        assert (together.pitch[0] - together.pitch[1]).abs().max() > 0.01

    @pytest.mark.parametrize("n_voices", range(1, 9))
    def test_voices_may_come_in_any_order(self, n_voices: int) -> None:
        network = untrained()
        stack = torch.randn(1, TINY.n_inputs, TINY.n_bins, 5, generator=torch.Generator().manual_seed(1))
        voices = describe(parse_voices("SMATRBBB"[:n_voices]))[None]
        order = torch.randperm(n_voices, generator=torch.Generator().manual_seed(2))
        found, shuffled = network(stack, voices), network(stack, voices[:, order])
        assert_close(shuffled, Logits(*(part[:, order] for part in found)))
        for voice in range(n_voices - 1):
            assert not torch.allclose(found.pitch[0, voice], found.pitch[0, voice + 1])

    def test_every_pitch_and_every_frame_counts(self) -> None:
        """A change of one pitch moves the logits around it, and through the recurrent layer those of all frames."""
        network = untrained()
        stack = torch.randn(1, TINY.n_inputs, TINY.n_bins, 9, generator=torch.Generator().manual_seed(3))
        voices = describe(parse_voices("SB"))[None]
        before = network(stack, voices)
        for pitch in (0, 100, 255):
            changed = stack.clone()
            changed[:, :, pitch, 4] += 1
            after = network(changed, voices)
            moved = (after.pitch - before.pitch).abs()[0, 0]
            assert abs(int(moved[4].argmax()) - pitch) <= 32
            assert (moved.amax(dim=-1) > 1e-7).all()
            assert ((after.silent - before.silent).abs()[0, 0] > 1e-7).all()
