"""Adaptation: it learns where there is something to learn, never makes the loss worse, and keeps to its bounds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from vocalsep import audio
from vocalsep.api import separate
from vocalsep.audio.downmix import levelled
from vocalsep.cli import main
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator, EstimatorConfig, load_estimator
from vocalsep.separation.separator import Separator
from vocalsep.training import adaptation
from vocalsep.training.adaptation import Adapted, Example, adapt, split
from vocalsep.training.losses import supervised_loss

NAMES = ("soprano", "bass")


def melody(seconds: float) -> np.ndarray:
    """F0 of two voices with notes of half a second that keep apart, shape (voices, frames)."""
    frames = 1 + int(seconds * 62.5)
    rng = np.random.default_rng(0)
    notes = np.repeat(rng.integers(-5, 6, (2, -(-frames // 31))), 31, axis=1)[:, :frames]
    return (np.array([[440.0], [150.0]]) * 2 ** (notes / 12)).astype(np.float32)


@pytest.fixture(scope="module")
def example(sing) -> Example:
    """Six seconds of two voices, with their true stems."""
    stems = sing(melody(6.0)).astype(np.float32)
    return Example(np.float32(0.5 / np.abs(stems.sum(axis=0)).max()) * stems, melody(6.0))


@pytest.fixture(scope="module")
def recording(example) -> tuple[np.ndarray, F0Tracks]:
    return example.stems.sum(axis=0), F0Tracks(example.f0, NAMES)


@pytest.fixture(scope="module")
def excerpt(recording) -> tuple[np.ndarray, F0Tracks]:
    """Two and a half seconds of the recording."""
    return recording[0][:40000], F0Tracks(recording[1].frequencies[:, :157], NAMES)


@pytest.fixture(scope="module")
def network(tiny_model) -> Estimator:
    return load_estimator(str(tiny_model))


@pytest.fixture(scope="module")
def adapted(network, example) -> Adapted:
    return adapt(network, [example], steps=20, seconds=1e6, learning_rate=1e-2)


def parameters(network: Estimator) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def held_back_loss(network: Estimator, examples: list[Example]) -> float:
    with torch.no_grad():
        return float(np.mean([float(supervised_loss(network, batch)) for batch in split(examples)[1]]))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    target = reference * (reference @ estimate) / (reference @ reference)
    return float(10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target))))


class TestAdapt:
    def test_it_learns_voices_that_it_does_not_know(self, tiny_model, example, recording, adapted):
        """From true stems, a network that has learned nothing learns to separate, by itself, without fitting."""
        assert adapted.improved
        assert adapted.after < adapted.before - 0.3
        before, after = (Separator(tiny_model, "cpu", fitting=False) for _ in range(2))
        after.network = adapted.network
        found = [list(system.separate(*recording).stems.values()) for system in (before, after)]
        gains = [si_sdr(s, new) - si_sdr(s, old) for s, old, new in zip(example.stems, *found, strict=True)]
        assert min(gains) > 0
        assert np.mean(gains) > 0.5

    def test_the_losses_are_those_of_the_networks_on_what_was_held_back(self, network, example, adapted):
        assert held_back_loss(network, [example]) == pytest.approx(adapted.before, rel=1e-5)
        assert held_back_loss(adapted.network, [example]) == pytest.approx(adapted.after, rel=1e-5)

    def test_what_does_not_help_is_dropped(self, network, example):
        """Steps far too large make the loss worse."""
        spoiled = adapt(network, [example], steps=3, learning_rate=30.0)
        assert not spoiled.improved
        assert spoiled.after == spoiled.before
        assert torch.equal(parameters(spoiled.network), parameters(network))
        assert "did not help" in str(spoiled)

    def test_neither_network_nor_examples_are_changed(self, network, example):
        weights, kept = parameters(network).clone(), Example(example.stems.copy(), example.f0.copy())
        found = adapt(network, [example], steps=2, learning_rate=1e-3).network
        assert torch.equal(parameters(network), weights)
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training
        assert not {p.data_ptr() for p in found.parameters()} & {p.data_ptr() for p in network.parameters()}
        np.testing.assert_array_equal(example.stems, kept.stems)
        np.testing.assert_array_equal(example.f0, kept.f0)

    def test_a_seed_decides(self, network, example):
        runs = [adapt(network, [example], steps=2, seconds=1e6, learning_rate=1e-3, seed=seed) for seed in (5, 5, 6)]
        first, again, other = (parameters(run.network) for run in runs)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_time_is_bounded(self, network, example, monkeypatch):
        """A clock on which each look takes a second: six seconds are over long before a thousand steps."""
        ticks = iter(range(10**6))
        monkeypatch.setattr(adaptation.time, "monotonic", lambda: float(next(ticks)))
        calls: list[tuple[str, float]] = []
        found = adapt(network, [example], steps=1000, seconds=6, progress=lambda *call: calls.append(call))
        assert found.steps == 4  # the last second is for the validation
        assert [stage for stage, _ in calls] == ["adaptation"] * 4
        fractions = [fraction for _, fraction in calls]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0

    @pytest.mark.parametrize(
        "options",
        [{"steps": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"learning_rate": -1.0}, {"seed": -1}],
        ids=str,
    )
    def test_numbers_out_of_range(self, network, example, options):
        with pytest.raises(OptionError, match="expected 1 or more"):
            adapt(network, [example], **options)


class TestSplit:
    @pytest.mark.parametrize(("seconds", "blocks"), [(2.0, 1), (5.0, 1), (16.0, 1), (40.0, 2), (400.0, 12)])
    def test_blocks_are_held_back_throughout_and_not_trained_on(self, seconds, blocks):
        """Samples that count up tell where excerpts come from."""
        samples = int(seconds * 16000)
        mono = np.linspace(0.25, 0.5, samples, dtype=np.float64).astype(np.float32)
        f0 = np.full((2, 1 + samples // 256), 200.0, dtype=np.float32)
        training, held_back = split([Example(np.stack([mono, 0 * mono]), f0)])
        spans = [(float(batch.mixture.min()), float(batch.mixture.max())) for batch in held_back]
        assert len(spans) == blocks
        assert spans == sorted(spans)
        trained = [part.stems[0] for part in training.examples]
        for waveform in trained:
            assert len(waveform) >= training.frames * 256
            assert all(waveform[-1] < low or waveform[0] > high for low, high in spans)
        held = sum(batch.mixture.shape[-1] for batch in held_back)
        total = sum(len(waveform) for waveform in trained)
        assert samples - 256 * 16 < held + total <= samples
        assert held <= total + 256

    def test_what_is_held_back_is_as_it_was(self, example):
        """Stems and f0 belong together, and mixtures are their sums."""
        for batch in split([example])[1]:
            first = next(
                at for at in range(0, example.stems.shape[1], 256) if example.stems[0, at] == batch.stems[0, 0, 0]
            )
            samples = batch.mixture.shape[-1]
            np.testing.assert_array_equal(batch.stems[0], example.stems[:, first : first + samples])
            np.testing.assert_array_equal(batch.f0[0], example.f0[:, first // 256 : (first + samples) // 256 + 1])
            np.testing.assert_allclose(batch.mixture[0], example.stems.sum(axis=0)[first : first + samples], atol=1e-6)

    def test_excerpts_are_mixed_anew(self):
        """Stems of one level throughout get levels of their own, within what is documented; mixtures are sums."""
        noise = np.random.default_rng(0).normal(size=(2, 6 * 16000)).astype(np.float32)
        training, _ = split([Example(noise, np.full((2, 376), 200.0, dtype=np.float32))])
        batch = training.draw(np.random.default_rng(0), 16)
        assert torch.equal(batch.mixture, batch.stems.sum(dim=1))
        levels = 20 * torch.log10(batch.stems.square().mean(dim=-1).sqrt())
        assert levels.abs().max() < adaptation._GAIN_DB + 2 * adaptation._EQUALISER_DB  # two of its bands may meet
        assert levels.std() > 1
        assert (levels[:, 0] - levels[:, 1]).std() > 1

    def test_rests_are_left_out(self, example):
        frames = example.f0.shape[1]
        resting = np.where(np.arange(frames) < frames // 2, example.f0, 0)
        training, held_back = split([Example(example.stems, resting)])
        assert all((batch.f0 > 0).any() for batch in held_back)
        assert sum(part.n_frames for part in training.examples) < 0.55 * frames

    def test_recordings_of_several_numbers_of_voices(self, network, example):
        solo = Example(example.stems[:1], example.f0[:1])
        assert {batch.stems.shape[1] for batch in split([example, solo])[1]} <= {1, 2}
        found = adapt(network, [example, solo], steps=4, seconds=1e6, learning_rate=1e-3)
        assert found.after < found.before

    @pytest.mark.parametrize(("seconds", "sung"), [(0.5, 0.5), (1.5, 1.5), (6.0, 0.0), (6.0, 0.9)])
    def test_too_little_singing(self, example, seconds, sung):
        frames = 1 + int(seconds * 62.5)
        f0 = np.where(np.arange(frames) < sung * 62.5, example.f0[:, :frames], 0)
        with pytest.raises(AudioError, match=rf"voices sing for {sung:.1f} s in the recordings; adaptation needs 2 s"):
            split([Example(example.stems[:, : int(seconds * 16000)], f0)])


@pytest.fixture
def short(monkeypatch) -> None:
    """A few steps where no number is given."""
    monkeypatch.setattr(adaptation, "STEPS", 8)


@pytest.mark.usefixtures("short")
class TestSeparation:
    def test_adapt_is_adapted_then_separated(self, excerpt, tiny_model):
        stages: list[str] = []
        found = separate(
            *excerpt, model=tiny_model, device="cpu", adapt=True, progress=lambda stage, _: stages.append(stage)
        )
        assert list(dict.fromkeys(stages)) == ["reading", "adaptation", "masks"]
        assert np.abs(sum(found.stems.values()) - excerpt[0]).max() < 1e-5
        system = Separator(tiny_model, "cpu")
        other = system.adapted([excerpt])
        assert other.adaptation.improved
        by_hand, plain = other.separate(*excerpt), system.separate(*excerpt)
        for name in NAMES:
            np.testing.assert_array_equal(found.stems[name], by_hand.stems[name])
            assert np.abs(found.stems[name] - plain.stems[name]).max() > 1e-5
        assert system.adaptation is None

    @pytest.mark.parametrize("fitting", [True, False])
    def test_it_learns_from_the_stems_that_the_separator_cuts(self, excerpt, tiny_model, monkeypatch, fitting):
        seen: list[Example] = []

        def record(network: Estimator, examples: list[Example], **options: object) -> Adapted:
            seen.extend(examples)
            return Adapted(network, 1.0, 1.0, 1, 1.0)

        monkeypatch.setattr(adaptation, "adapt", record)
        mono, tracks = excerpt
        system = Separator(tiny_model, "cpu", fitting=fitting)
        system.adapted([(0.3 * mono, tracks)])
        stems = system.separate(levelled(mono).numpy(), tracks).stems
        np.testing.assert_allclose(seen[0].stems, list(stems.values()), atol=1e-5)
        np.testing.assert_array_equal(seen[0].f0, tracks.frequencies)

    def test_level_does_not_matter(self, excerpt, tiny_model):
        mono, tracks = excerpt
        system = Separator(tiny_model, "cpu")
        runs = [system.adapted([(np.float32(gain) * mono, tracks)], steps=2) for gain in (1, 2**-6)]
        first, second = (parameters(run.network) for run in runs)
        assert torch.equal(first, second)
        assert not torch.equal(first, parameters(system.network))


@pytest.mark.usefixtures("short")
class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch, excerpt) -> Path:
        monkeypatch.chdir(tmp_path)
        audio.write("choir.wav", excerpt[0], 16000, bit_depth="float32")
        excerpt[1].to_csv("f0.csv")
        return tmp_path

    @staticmethod
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    @pytest.fixture
    def model(self, tiny_model) -> list[str]:
        return ["-n", str(tiny_model), "-d", "cpu"]

    def test_saved_weights_give_the_stems_of_adapted_ones(self, model):
        learned = self.run("adapt", "choir.wav", "--f0", "f0.csv", "-o", "my.safetensors", *model)
        assert learned.exit_code == 0, learned.output
        assert learned.stdout.startswith("my.safetensors: adapted in ")
        saved = self.run("separate", "choir.wav", "--f0", "f0.csv", "-n", "my.safetensors", "-o", "saved", "--float32")
        assert saved.exit_code == 0, saved.output
        direct = self.run("separate", "choir.wav", "--f0", "f0.csv", "--adapt", "-o", "direct", "--float32", *model)
        assert direct.exit_code == 0, direct.output
        assert direct.stdout.splitlines()[1].split(" s: ")[1] == learned.stdout.strip().split(" s: ")[1]
        for name in NAMES:
            first, second = (audio.read(f"{out}/choir/{name}.wav").waveform for out in ("saved", "direct"))
            np.testing.assert_allclose(first, second, atol=1e-6)

    def test_a_limit_of_time_that_bites(self, model):
        result = self.run("separate", "choir.wav", "--f0", "f0.csv", "--adapt", "--adapt-seconds", "1e-9", *model)
        assert result.exit_code == 0, result.output
        assert "adapt" in result.stdout.splitlines()[1]

    def test_weights_that_exist_are_kept_unless_told(self, model, folder):
        target = folder / "my.safetensors"
        target.write_text("mine")
        arguments = ["adapt", "choir.wav", "--f0", "f0.csv", "-o", "my.safetensors", "--steps", 1, *model]
        result = self.run(*arguments)
        assert result.exit_code == 2
        assert "Error: my.safetensors exists; use --overwrite to replace it" in result.stderr
        assert target.read_text() == "mine"
        assert self.run(*arguments, "--overwrite").exit_code == 0
        assert load_estimator(str(target)).config == EstimatorConfig(channels=16)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["adapt", "choir.wav", "-o", "my.pt"], "expected the name of a .safetensors file"),
            (["adapt", "choir.wav", "choir.wav", "--f0", "f0.csv", "-o", "a.safetensors"], "belong to one recording"),
            (["adapt", "missing.wav", "-o", "a.safetensors"], "missing.wav"),
            (["separate", "choir.wav", "--adapt-seconds", 9], "--adapt-seconds goes with --adapt"),
        ],
    )
    def test_what_is_refused(self, arguments, message, folder):
        result = self.run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert not list(folder.glob("*.safetensors"))
