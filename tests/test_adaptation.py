"""Adaptation: it learns if there is something to learn, never raises the loss, and keeps its limits."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest
import torch

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import AudioError, OptionError
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator
from vocalsep.separation.separator import Separator
from vocalsep.training import adaptation
from vocalsep.training.adaptation import Adapted, adapt, separated, split
from vocalsep.training.learner import mean_loss
from vocalsep.training.losses import supervised_loss
from vocalsep.training.takes import Take

pytestmark = pytest.mark.slow

NAMES = ("soprano", "bass")


def melody(seconds: float) -> np.ndarray:
    """F0 of two voices with notes of half a second in different ranges, shape (voices, frames)."""
    frames = 1 + int(seconds * 62.5)
    rng = np.random.default_rng(0)
    notes = np.repeat(rng.integers(-5, 6, (2, -(-frames // 31))), 31, axis=1)[:, :frames]
    return (np.array([[440.0], [150.0]]) * 2 ** (notes / 12)).astype(np.float32)


@pytest.fixture(scope="module")
def take(sing) -> Take:
    """Six seconds of two voices with their true stems, with a peak of 0.5."""
    stems = sing(melody(6.0)).astype(np.float32)
    return Take(np.float32(0.5 / np.abs(stems.sum(axis=0)).max()) * stems, melody(6.0))


@pytest.fixture(scope="module")
def recording(take) -> tuple[Downmix, F0Tracks]:
    return Downmix.of_array(take.waveform.sum(axis=0)), F0Tracks(take.f0, NAMES)


class Oracle:
    """A separator whose stems are the true ones."""

    def __init__(self, estimator: Estimator, stems: Float32) -> None:
        self.estimator, self.true = estimator, stems

    def stems(self, *recording: object) -> Iterator[Float32]:
        yield self.true[:, None]

    def with_estimator(self, estimator: Estimator) -> "Oracle":
        return Oracle(estimator, self.true)


@pytest.fixture(scope="module")
def oracle(tiny_estimator, take) -> Oracle:
    return Oracle(tiny_estimator, take.waveform)


def parameters(network: Estimator) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class TestAdapt:
    @pytest.fixture(scope="class")
    @staticmethod
    def adapted(oracle, recording) -> Adapted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adaptation, "LEARNING_RATE", 1e-2)
            return adapt(oracle, [recording], steps=20)

    def test_an_untrained_network_learns_to_separate(self, tiny_model, tiny_tracker, take, recording, adapted):
        assert adapted.improved
        assert adapted.after < adapted.before - 0.3
        before = Separator(tiny_model, "cpu", tracker=tiny_tracker, fitting=False)
        after = before.with_estimator(adapted.separator.estimator)
        mixture, tracks = take.waveform.sum(axis=0), recording[1]
        found = [list(separator.separate(mixture, tracks).stems.values()) for separator in (before, after)]
        gains = si_sdr(take.waveform, found[1]) - si_sdr(take.waveform, found[0])
        assert gains.min() > 0
        assert gains.mean() > 0.5

    def test_the_losses_are_those_of_the_blocks_that_are_held_back(self, tiny_estimator, take, adapted):
        held_back = split([take])[1]
        assert mean_loss(tiny_estimator, supervised_loss, held_back) == pytest.approx(adapted.before, rel=1e-5)
        network = adapted.separator.estimator
        assert mean_loss(network, supervised_loss, held_back) == pytest.approx(adapted.after, rel=1e-5)
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_worse_weights_are_dropped(self, oracle, recording, monkeypatch):
        monkeypatch.setattr(adaptation, "LEARNING_RATE", 30.0)
        spoiled = adapt(oracle, [recording], steps=3)
        assert not spoiled.improved
        assert spoiled.after == spoiled.before
        assert torch.equal(parameters(spoiled.separator.estimator), parameters(oracle.estimator))
        assert "did not help" in str(spoiled)

    def test_seeds_decide_and_the_separator_stays_as_it_is(self, oracle, recording):
        before = parameters(oracle.estimator).clone()
        runs = [adapt(oracle, [recording], steps=2, seed=seed) for seed in (5, 5, 6)]
        first, again, other = (parameters(run.separator.estimator) for run in runs)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(parameters(oracle.estimator), before)
        assert not oracle.estimator.training

    def test_time_is_limited(self, oracle, recording, monkeypatch):
        """The clock advances by a second whenever it is read; the last second is for the validation."""
        ticks = count()
        monkeypatch.setattr(adaptation.time, "monotonic", lambda: float(next(ticks)))
        calls: list[tuple[str, float]] = []
        found = adapt(oracle, [recording], steps=1000, seconds=6, progress=lambda *call: calls.append(call))
        assert found.steps == 4
        assert [stage for stage, _ in calls] == ["adaptation"] * 4
        fractions = [fraction for _, fraction in calls]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0

    @pytest.mark.parametrize(("name", "value"), [("steps", 0), ("seconds", 0), ("seconds", float("nan")), ("seed", -1)])
    def test_numbers_out_of_range(self, oracle, recording, name, value):
        with pytest.raises(OptionError) as caught:
            adapt(oracle, [recording], **{name: value})
        assert caught.value.parameter == name


class TestStems:
    def test_they_are_those_of_the_separator_at_the_level_of_training(self, recording, tiny_separator):
        quiet = Downmix.of_array(0.3 * recording[0].read(0, 40000))
        tracks = F0Tracks(recording[1].frequencies[:, :157], NAMES)
        take = separated(tiny_separator, quiet, tracks)
        level = np.float32(quiet.gain) * quiet.read(0, 40000)
        stems = tiny_separator.separate(level, tracks).stems
        np.testing.assert_allclose(take.waveform, list(stems.values()), atol=1e-5)
        np.testing.assert_array_equal(take.f0, tracks.frequencies)
        assert np.abs(take.waveform.sum(axis=0)).max() == pytest.approx(0.5, abs=1e-4)

    def test_ten_minutes_of_a_long_recording_are_spread_over_it(self, tiny_estimator):
        samples = 16000 * 1200
        downmix = Downmix.of_array(np.linspace(0, 0.5, samples, dtype=np.float32))
        f0 = np.arange(1, 2 + samples // 256, dtype=np.float32)[None] / 100

        class Copy(Oracle):
            def stems(self, recording, downmix, tracks) -> Iterator[Float32]:
                yield recording.waveform[None]

        take = separated(Copy(tiny_estimator, f0), downmix, F0Tracks(f0, ("voice",)))
        assert take.f0.shape[1] == 1 + take.waveform.shape[1] // 256
        assert 570 <= take.waveform.shape[1] / 16000 <= 600  # the last of 20 chunks may be short
        # Sound and f0 come from the same frames: both rise linearly over the recording.
        assert np.corrcoef(take.waveform[0, ::256], take.f0[0, :-1])[0, 1] > 1 - 1e-9
        assert take.f0[0, 0] == f0[0, 0]
        assert take.f0[0, -1] == f0[0, -1]
        assert np.diff(take.f0[0]).max() < 60  # Hz: gaps of a minute or less


class TestSplit:
    @pytest.mark.parametrize(("seconds", "blocks"), [(2.0, 1), (5.0, 1), (40.0, 2), (400.0, 12)])
    def test_blocks_are_held_back_throughout_and_not_trained_on(self, seconds, blocks):
        """Samples that count up show where excerpts come from."""
        samples = int(seconds * 16000)
        ramp = np.linspace(0.25, 0.5, samples, dtype=np.float64).astype(np.float32)
        f0 = np.full((2, 1 + samples // 256), 200.0, dtype=np.float32)
        training, held_back = split([Take(np.stack([ramp, 0 * ramp]), f0)])
        spans = [(float(batch.mixture.min()), float(batch.mixture.max())) for batch in held_back]
        assert len(spans) == blocks
        assert spans == sorted(spans)
        trained = [part.waveform[0] for part in training.takes]
        for waveform in trained:
            assert len(waveform) >= training.frames * 256
            assert all(waveform[-1] < low or waveform[0] > high for low, high in spans)
        held = sum(batch.mixture.shape[-1] for batch in held_back)
        total = sum(len(waveform) for waveform in trained)
        assert samples - 256 * 16 < held + total <= samples
        assert held <= total + 256

    def test_excerpts_are_mixed_again(self):
        """Stems of constant level get random levels within the stated limits; mixtures are sums of stems."""
        noise = np.random.default_rng(0).normal(size=(2, 6 * 16000)).astype(np.float32)
        training, _ = split([Take(noise, np.full((2, 376), 200.0, dtype=np.float32))])
        batch = training.draw(np.random.default_rng(0), 16)
        assert torch.equal(batch.mixture, batch.stems.sum(dim=1))
        levels = 20 * torch.log10(batch.stems.square().mean(dim=-1).sqrt())
        assert levels.abs().max() < 9  # the gain, and two bands of the equaliser
        assert levels.std() > 1
        assert (levels[:, 0] - levels[:, 1]).std() > 1

    def test_rests_are_left_out(self, take):
        frames = take.f0.shape[1]
        resting = np.where(np.arange(frames) < frames // 2, take.f0, 0)
        training, held_back = split([Take(take.waveform, resting)])
        assert all((batch.f0 > 0).any() for batch in held_back)
        assert sum(part.n_frames for part in training.takes) < 0.55 * frames

    def test_recordings_with_different_numbers_of_voices(self, take):
        training, held_back = split([take, Take(take.waveform[:1], take.f0[:1])])
        rng = np.random.default_rng(0)
        assert {training.draw(rng, 1).stems.shape[1] for _ in range(20)} == {1, 2}
        assert {batch.stems.shape[1] for batch in held_back} <= {1, 2}

    @pytest.mark.parametrize(("seconds", "sung"), [(0.5, 0.5), (1.5, 1.5), (6.0, 0.0), (6.0, 0.9)])
    def test_too_little_singing(self, take, seconds, sung):
        frames = 1 + int(seconds * 62.5)
        f0 = np.where(np.arange(frames) < sung * 62.5, take.f0[:, :frames], 0)
        with pytest.raises(AudioError, match=rf"{sung:.1f} s"):
            split([Take(take.waveform[:, : int(seconds * 16000)], f0)])
