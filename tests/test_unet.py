"""The conditioned U-Net: its condition, invariants of any weights, its loss, and that it learns."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from vocalsep.errors import OptionError, WeightsError
from vocalsep.evaluation.baselines import unet
from vocalsep.evaluation.baselines.unet import ConditionedUnet, UnetConfig, pitch_bells, separate_unet, unet_loss
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import parameter_count
from vocalsep.training.data import Batch
from vocalsep.weights import load_network, save_checkpoint

TINY = UnetConfig(channels=(4, 8, 8), control_channels=(8, 8), control_kernel_size=4)
FRAMES = 60
NAMES = ("a", "b", "c")


def untrained(seed: int = 0) -> ConditionedUnet:
    """Return a small network with random weights and masks that are far from flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ConditionedUnet(TINY)
        network.decoder[-1].weight.data *= 8
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.1, 0.3)
    return network.eval().requires_grad_(False)


def f0_of(frames: int = FRAMES) -> np.ndarray:
    """Return the f0 of three voices that glide by a third, with rests, shape (voices, frames)."""
    f0 = np.array([[600.0], [350.0], [170.0]]) * 2 ** np.linspace(0, 1 / 3, frames)
    for row in range(3):
        f0[row, 10 * row : 10 * row + 5] = 0
    return f0.astype(np.float32)


@pytest.fixture(scope="module")
def stems(sing) -> np.ndarray:
    """Three voices that sing `f0_of()`, shape (voices, samples)."""
    return sing(f0_of())


@pytest.fixture(scope="module")
def batch(stems) -> Batch:
    return Batch(
        torch.from_numpy(stems.sum(axis=0)[None]), torch.from_numpy(f0_of())[None], torch.from_numpy(stems)[None]
    )


def with_masks(monkeypatch, network: ConditionedUnet, value: float) -> ConditionedUnet:
    """Return the network with masks of one value."""

    def masks(magnitude: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
        return torch.full((*f0.shape[:2], *magnitude.shape[1:]), value)

    monkeypatch.setattr(network, "masks", masks)
    return network


class TestPitchBells:
    @pytest.mark.parametrize(("f0", "step"), [(32.7, 0), (65.4, 60), (261.6, 180), (32.7 * 2 ** (7 / 60), 7)])
    def test_pitch_on_the_grid(self, f0, step):
        bell = pitch_bells(torch.tensor([f0]))[:, 0]
        assert int(bell.argmax()) == step
        assert float(bell[step]) == pytest.approx(1.0, abs=1e-4)
        assert float(bell[step + 1]) == pytest.approx(math.exp(-0.5), abs=1e-2)

    def test_pitch_between_two_steps(self):
        bell = pitch_bells(torch.tensor([32.7 * 2 ** (100.5 / 60)]))[:, 0]
        assert float(bell[100]) == pytest.approx(float(bell[101]), abs=1e-3)
        assert float(bell[100]) == pytest.approx(math.exp(-0.125), abs=1e-3)

    def test_rest(self):
        bells = pitch_bells(torch.tensor([[0.0, 200.0]]))
        assert float(bells[0, :, 0].abs().max()) == 0
        assert float(bells[0, :, 1].max()) > 0.8


def test_default_has_the_layers_of_the_papers():
    """Counted by hand: six 5 x 5 layers each way, 16 to 512 channels, three convolutions of 10 frames, FiLM of 513."""
    down = sum(25 * a * b + b for a, b in [(1, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512)])
    up = sum(25 * a * b + b for a, b in [(512, 256), (512, 128), (256, 64), (128, 32), (64, 16), (32, 1)])
    normalisation = 2 * (16 + 32 + 64 + 128 + 256 + 512) + 2 * (256 + 128 + 64 + 32 + 16)
    control = sum(10 * a * b + b for a, b in [(360, 16), (16, 64), (64, 256)]) + 2 * 513 * (256 + 1)
    assert parameter_count(ConditionedUnet()) == down + up + normalisation + control


def test_voices_are_independent_and_follow_their_order(batch):
    network = untrained()
    masks = network(batch.mixture, batch.f0)
    assert masks.shape == (1, 3, 513, FRAMES)
    assert masks.std() > 0.05
    order = [2, 0, 1]
    assert (network(batch.mixture, batch.f0[:, order]) - masks[:, order]).abs().max() < 1e-5
    assert (network(batch.mixture, batch.f0[:, 1:2]) - masks[:, 1:2]).abs().max() < 1e-5
    assert (network(batch.mixture, 1.2 * batch.f0) - masks).abs().mean() > 1e-3


def test_masks_lie_between_0_and_1_and_need_not_add_up(batch):
    masks = untrained()(batch.mixture, batch.f0)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert (masks.sum(dim=1) - 1).abs().mean() > 0.05


def test_excerpts_of_a_batch_are_independent(batch):
    network = untrained()
    other = batch.mixture.flip(-1)
    both = network(torch.cat([batch.mixture, other]), torch.cat([batch.f0, batch.f0.flip(-1)]))
    expected = torch.cat([network(batch.mixture, batch.f0), network(other, batch.f0.flip(-1))])
    assert (both - expected).abs().max() < 1e-5


def test_level_does_not_matter(batch):
    network = untrained()
    loud, quiet = network(batch.mixture, batch.f0), network(0.01 * batch.mixture, batch.f0)
    assert (loud - quiet).abs().max() < 1e-4
    quiet = Batch(0.01 * batch.mixture, batch.f0, 0.01 * batch.stems)
    assert float(unet_loss(network, batch)) == pytest.approx(float(unet_loss(network, quiet)), rel=1e-3)


class TestLoss:
    @pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
    def test_parity_with_numpy(self, batch, stems, monkeypatch, value):
        """Against NumPy's transform of the frames that lie within the signal; the scale cancels."""

        def magnitude(waveform: np.ndarray) -> np.ndarray:
            frames = np.lib.stride_tricks.sliding_window_view(waveform, 1024, axis=-1)[..., ::256, :]
            return np.abs(np.fft.rfft(frames * np.hanning(1025)[:-1]))

        network = with_masks(monkeypatch, untrained(), value)
        mixture, targets = magnitude(stems.sum(axis=0)), magnitude(stems)
        expected = np.abs(value * mixture - targets).mean() / mixture.mean()
        assert float(unet_loss(network, batch)) == pytest.approx(expected, rel=0.05)

    def test_half_precision_is_nearly_the_same(self, batch):
        full, half = (float(unet_loss(untrained(), batch, half=half)) for half in (False, True))
        assert half == pytest.approx(full, rel=0.02)

    def test_needs_stems(self, batch):
        with pytest.raises(OptionError):
            unet_loss(untrained(), Batch(batch.mixture, batch.f0))

    def test_reaches_all_parameters(self, batch):
        network = untrained().train().requires_grad_(True)
        unet_loss(network, batch).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A bias before a normalisation has no effect.
            assert parameter.grad.abs().max() > 0 or name.endswith("bias"), name


@pytest.mark.slow
def test_it_learns_to_follow_f0(batch, stems):
    """Trained on one mixture: the loss falls, and every stem is better than the mixture."""
    torch.manual_seed(0)
    network = ConditionedUnet(UnetConfig(channels=(6, 12), control_channels=(12,), control_kernel_size=2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = unet_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
    mixture = stems.sum(axis=0)
    found = separate_unet(mixture, F0Tracks(f0_of(), NAMES), network.eval())
    assert (si_sdr(stems, found) - si_sdr(stems, np.stack([mixture] * 3))).min() > 3


class TestSeparation:
    @pytest.mark.parametrize("samples", [1, 255, 256, 16001, 256 * 513 + 100])
    def test_open_masks_give_the_mixture(self, monkeypatch, samples):
        mixture = np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)
        tracks = F0Tracks(f0_of(max(1, samples // 256)), NAMES)
        found = separate_unet(mixture, tracks, with_masks(monkeypatch, untrained(), 1.0))
        assert np.abs(found - mixture).max() < 1e-5

    @pytest.mark.slow
    def test_chunks_equal_the_whole(self, sing, monkeypatch):
        """On sound of one level: each chunk is normalised by itself."""
        f0 = np.array([[500.0], [300.0]], dtype=np.float32).repeat(300, axis=1)
        separate = partial(separate_unet, sing(f0).sum(axis=0), F0Tracks(f0, NAMES[:2]), untrained())
        whole = separate()
        monkeypatch.setattr(unet, "_CHUNK_FRAMES", 128)
        assert si_sdr(whole, separate()).min() > 40
        monkeypatch.setattr(unet, "_CONTEXT_FRAMES", 0)
        assert si_sdr(whole, separate()).min() < 40

    @pytest.mark.parametrize("sung", [True, False])
    def test_silence_stays_silent(self, sung):
        tracks = F0Tracks(f0_of() * np.float32(sung), NAMES)
        assert np.abs(separate_unet(np.zeros(15000, dtype=np.float32), tracks, untrained())).max() == 0


class TestCheckpoints:
    def test_round_trip(self, stems, tmp_path):
        network = untrained(seed=3)
        save_checkpoint(tmp_path / "unet", network)
        loaded = load_network(tmp_path / "unet", ConditionedUnet)
        assert loaded.config == network.config
        separate = partial(separate_unet, stems.sum(axis=0), F0Tracks(f0_of(), NAMES))
        assert np.array_equal(separate(loaded), separate(network))
        assert np.abs(separate(loaded) - separate(untrained(seed=4))).max() > 1e-3

    @pytest.mark.parametrize(
        "change",
        [
            {"channels": ()},
            {"channels": 16},
            {"channels": (16, 0)},
            {"channels": (16, 2000)},
            {"channels": (16.0,)},
            {"control_channels": ("16",)},
            {"control_channels": None},
            {"kernel_size": 4},
            {"kernel_size": True},
            {"control_kernel_size": 0},
        ],
    )
    def test_bad_sizes(self, change):
        with pytest.raises(ValueError, match="but got"):
            UnetConfig(**change)

    def test_weights_of_another_network(self, tiny_model):
        with pytest.raises(WeightsError):
            load_network(tiny_model, ConditionedUnet)
