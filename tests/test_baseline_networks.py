"""The baselines with networks, the conditioned U-Net and the network of the paper."""

import math
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch

from vocalsep.dsp.stft import power
from vocalsep.errors import OptionError, WeightsError
from vocalsep.evaluation.baselines import unet, us
from vocalsep.evaluation.baselines.unet import ConditionedUnet, UnetConfig, pitch_bells, separate_unet, unet_loss
from vocalsep.evaluation.baselines.us import UsConfig, UsNetwork, separate_us
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import parameter_count
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.training.data import Batch
from vocalsep.training.learner import Learner
from vocalsep.training.losses import estimator_loss
from vocalsep.weights import load_network, save_checkpoint

pytestmark = pytest.mark.slow

FRAMES = 60
NAMES = ("a", "b", "c")
SEPARATE = {"unet": separate_unet, "us": separate_us}
LOSS = {"unet": unet_loss, "us": estimator_loss}

both = pytest.mark.parametrize("kind", ["unet", "us"])


def untrained(kind: str, seed: int = 0) -> torch.nn.Module:
    """Return a small network with random weights; the masks of the U-Net are far from flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "us":
            network = UsNetwork(UsConfig(encoder_size=12, latent_size=8, decoder_size=16, noise_bands=6))
        else:
            network = ConditionedUnet(UnetConfig((4, 8, 8), control_channels=(8, 8), control_kernel_size=4))
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


def outputs(network: torch.nn.Module, mixture: torch.Tensor, f0: torch.Tensor) -> list[torch.Tensor]:
    """Return what a network estimates: masks, or gain, filter and noise; the second axis is the voices."""
    found = network(mixture, f0)
    return [found.log_gain, found.lsf, found.log_noise] if isinstance(found, VoiceParameters) else [found]


def distances(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[float]:
    return [float((a - b).abs().max()) for a, b in zip(one, other, strict=True)]


@both
class TestBoth:
    def test_voices_are_independent_and_follow_their_order(self, kind, batch):
        network, order = untrained(kind), [2, 0, 1]
        found = outputs(network, batch.mixture, batch.f0)
        assert min(float(values.std()) for values in found) > 0.01
        permuted = outputs(network, batch.mixture, batch.f0[:, order])
        assert max(distances([values[:, order] for values in found], permuted)) < 1e-5
        alone = outputs(network, batch.mixture, batch.f0[:, 1:2])
        assert max(distances([values[:, 1:2] for values in found], alone)) < 1e-5

    def test_f0_and_mixture_matter(self, kind, batch):
        network = untrained(kind)
        found = outputs(network, batch.mixture, batch.f0)
        assert min(distances(found, outputs(network, batch.mixture, 1.2 * batch.f0))) > 1e-3
        assert min(distances(found, outputs(network, batch.mixture.flip(-1), batch.f0))) > 1e-3

    def test_excerpts_of_a_batch_are_independent(self, kind, batch):
        network = untrained(kind)
        excerpts = [(batch.mixture, batch.f0), (batch.mixture.flip(-1), batch.f0.flip(-1))]
        together = outputs(network, *(torch.cat(pair) for pair in zip(*excerpts, strict=True)))
        apart = [torch.cat(pair) for pair in zip(*(outputs(network, *excerpt) for excerpt in excerpts), strict=True)]
        assert max(distances(together, apart)) < 1e-5

    def test_loss_reaches_all_parameters(self, kind, batch):
        network = untrained(kind).train().requires_grad_(True)
        LOSS[kind](network, batch).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad.isfinite().all(), name
            # In the U-Net, a bias before a normalisation has no effect.
            assert parameter.grad.abs().max() > 0 or (kind == "unet" and name.endswith("bias")), name

    def test_it_learns(self, kind, batch, stems):
        """Trained on one mixture: the loss falls, and every stem is better than the mixture."""
        torch.manual_seed(0)
        network = untrained(kind).train().requires_grad_(True)
        learner = Learner(network, LOSS[kind], torch.optim.Adam(network.parameters(), 1e-2), average=0.0)
        losses = [learner.step(batch) for _ in range({"unet": 30, "us": 8}[kind])]
        assert losses[-1] < 0.6 * losses[0]
        mixture = stems.sum(axis=0)
        found = SEPARATE[kind](mixture, F0Tracks(f0_of(), NAMES), network.eval())
        assert (si_sdr(stems, found) - si_sdr(stems, np.stack([mixture] * 3))).min() > 3

    def test_checkpoint_round_trip(self, kind, stems, tmp_path):
        network = untrained(kind, seed=3)
        save_checkpoint(tmp_path / "saved", network)
        loaded = load_network(tmp_path / "saved", type(network))
        assert loaded.config == network.config
        separate = partial(SEPARATE[kind], stems.sum(axis=0), F0Tracks(f0_of(), NAMES))
        assert np.array_equal(separate(loaded), separate(network))
        assert np.abs(separate(loaded) - separate(untrained(kind, seed=4))).max() > 1e-3

    def test_weights_of_another_network(self, kind, tiny_model):
        with pytest.raises(WeightsError):
            load_network(tiny_model, type(untrained(kind)))


def test_default_sizes_are_those_of_the_papers():
    """Counted by hand from the layers that the papers describe; US, section IV, says 5.57 M."""
    assert parameter_count(UsNetwork()) == 5_573_961
    assert parameter_count(ConditionedUnet()) == 10_319_011


@pytest.mark.parametrize("size", [0, 2000, 16.0, "16", None, True])
def test_sizes_must_be_whole_numbers_up_to_1024(size):
    for change in ({"channels": (16, size)}, {"control_channels": (size,)}, {"kernel_size": size}):
        with pytest.raises(ValueError, match="but got"):
            UnetConfig(**change)
    for field in fields(UsConfig):
        with pytest.raises(ValueError, match="but got"):
            UsConfig(**{field.name: size})


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (UnetConfig, {"channels": ()}),
        (UnetConfig, {"channels": 16}),
        (UnetConfig, {"control_channels": None}),
        (UnetConfig, {"control_kernel_size": 0}),
        (UnetConfig, {"kernel_size": 4}),
        (UsConfig, {"order": 21}),
        (UsConfig, {"noise_bands": 1}),
    ],
)
def test_other_bad_sizes(config, change):
    with pytest.raises(ValueError, match="but got"):
        config(**change)


class TestUnet:
    @pytest.mark.parametrize(("f0", "step"), [(32.7, 0), (65.4, 60), (261.6, 180), (32.7 * 2 ** (7 / 60), 7)])
    def test_pitch_bell_on_the_grid(self, f0, step):
        bell = pitch_bells(torch.tensor([f0]))[:, 0]
        assert int(bell.argmax()) == step
        assert bell[step : step + 2].tolist() == pytest.approx([1, math.exp(-0.5)], abs=1e-2)

    def test_pitch_bell_between_two_steps_and_in_a_rest(self):
        bells = pitch_bells(torch.tensor([32.7 * 2 ** (100.5 / 60), 0.0]))
        assert bells[100:102, 0].tolist() == pytest.approx([math.exp(-0.125)] * 2, abs=1e-3)
        assert float(bells[:, 1].abs().max()) == 0

    def test_masks_lie_between_0_and_1_at_any_level(self, batch):
        network = untrained("unet")
        masks = network(batch.mixture, batch.f0)
        assert masks.shape == (1, 3, 513, FRAMES)
        assert 0 <= masks.min() < masks.max() <= 1
        assert (masks - network(0.01 * batch.mixture, batch.f0)).abs().max() < 1e-4

    @pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
    def test_loss_parity_with_numpy(self, batch, stems, monkeypatch, value):
        """With constant masks, against NumPy's transform of the frames within the signal; the scale cancels."""

        def magnitude(waveform: np.ndarray) -> np.ndarray:
            frames = np.lib.stride_tricks.sliding_window_view(waveform, 1024, axis=-1)[..., ::256, :]
            return np.abs(np.fft.rfft(frames * np.hanning(1025)[:-1]))

        network = with_masks(monkeypatch, value)
        mixture, targets = magnitude(stems.sum(axis=0)), magnitude(stems)
        expected = np.abs(value * mixture - targets).mean() / mixture.mean()
        assert float(unet_loss(network, batch)) == pytest.approx(expected, rel=0.05)

    def test_half_precision_is_nearly_the_same(self, batch):
        full, half = (float(unet_loss(untrained("unet"), batch, half=half)) for half in (False, True))
        assert half == pytest.approx(full, rel=0.02)

    def test_loss_needs_stems(self, batch):
        with pytest.raises(OptionError):
            unet_loss(untrained("unet"), Batch(batch.mixture, batch.f0))

    @pytest.mark.parametrize("samples", [1, 255, 256, 16001, 256 * 513 + 100])
    def test_open_masks_give_the_mixture(self, monkeypatch, samples):
        mixture = np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)
        tracks = F0Tracks(f0_of(max(1, samples // 256)), NAMES)
        assert np.abs(separate_unet(mixture, tracks, with_masks(monkeypatch, 1.0)) - mixture).max() < 1e-5

    def test_chunks_equal_the_whole(self, sing, monkeypatch):
        """On sound of one level: each chunk is normalised by itself."""
        f0 = np.array([[500.0], [300.0]], dtype=np.float32).repeat(300, axis=1)
        separate = partial(separate_unet, sing(f0).sum(axis=0), F0Tracks(f0, NAMES[:2]), untrained("unet"))
        whole = separate()
        monkeypatch.setattr(unet, "_CHUNK_FRAMES", 128)
        assert si_sdr(whole, separate()).min() > 40
        monkeypatch.setattr(unet, "_CONTEXT_FRAMES", 0)
        assert si_sdr(whole, separate()).min() < 40

    @pytest.mark.parametrize("sung", [True, False])
    def test_silence_stays_silent(self, sung):
        tracks = F0Tracks(f0_of() * np.float32(sung), NAMES)
        assert np.abs(separate_unet(np.zeros(15000, dtype=np.float32), tracks, untrained("unet"))).max() == 0


def with_masks(monkeypatch, value: float) -> ConditionedUnet:
    """Return a U-Net with masks of one value."""
    network = untrained("unet")
    monkeypatch.setattr(
        network, "masks", lambda magnitude, f0: torch.full((*f0.shape[:2], *magnitude.shape[1:]), value)
    )
    return network


class TestUs:
    def test_recurrences_run_forwards(self, batch):
        """Later f0 changes nothing earlier, but for the colour of the noise, which belongs to the excerpt."""
        network, later = untrained("us"), batch.f0.clone()
        later[..., 40:] *= 1.3
        before, after = network(batch.mixture, batch.f0), network(batch.mixture, later)
        assert torch.equal(before.log_gain[..., :40], after.log_gain[..., :40])
        assert torch.equal(before.lsf[..., :40, :], after.lsf[..., :40, :])
        assert (before.log_gain[..., 40:] - after.log_gain[..., 40:]).abs().max() > 1e-4

    def test_noise_has_one_colour_for_each_voice(self, batch):
        log_noise = untrained("us")(batch.mixture, batch.f0).log_noise
        colour = log_noise - log_noise.mean(dim=-1, keepdim=True)
        assert (colour - colour[..., :1, :]).abs().max() < 1e-5
        assert (colour[:, 0] - colour[:, 1]).abs().max() > 1e-3
        assert log_noise.mean(dim=-1).std(dim=-1).min() > 1e-3  # its level moves

    @pytest.mark.parametrize("gain", [4.0, 0.3])
    def test_levels_follow_the_mixture(self, batch, gain):
        network = untrained("us")
        reference, scaled = network(batch.mixture, batch.f0), network(gain * batch.mixture, batch.f0)
        assert (scaled.log_gain - reference.log_gain).numpy() == pytest.approx(math.log(gain), abs=0.05)
        assert (scaled.log_noise - reference.log_noise).numpy() == pytest.approx(math.log(gain), abs=0.05)
        assert (scaled.lsf - reference.lsf).abs().max() < 0.01

    def test_lsfs_are_ordered_and_spaced(self, batch):
        network = untrained("us")
        network.spacings.weight.data *= 100
        lsf = network(batch.mixture, batch.f0).lsf
        edges = torch.cat([torch.zeros_like(lsf[..., :1]), lsf, torch.full_like(lsf[..., :1], math.pi)], dim=-1)
        assert edges.diff(dim=-1).min() > 0.0099

    @pytest.mark.parametrize("level", [0.0, 1.0, 1e-20])
    @pytest.mark.parametrize("sung", [0.0, 1.0])
    def test_mixtures_without_sound_give_finite_parameters(self, batch, level, sung):
        found = outputs(untrained("us"), level * torch.ones(1, 15104), sung * batch.f0)
        assert all(bool(values.isfinite().all()) for values in found)

    @pytest.mark.parametrize("samples", [1, 255, 256, 16001, 256 * 520 + 100])
    @pytest.mark.parametrize("level", [0.0, 1e-4, 1.0])
    def test_stems_add_up_to_the_mixture(self, samples, level):
        mixture = np.random.default_rng(0).uniform(-level, level, samples).astype(np.float32)
        stems = separate_us(mixture, F0Tracks(f0_of(max(1, samples // 256)), NAMES), untrained("us"))
        assert stems.shape == (3, samples)
        assert np.abs(stems.sum(axis=0) - mixture).max() <= 2e-5 * level

    def test_first_chunk_is_that_of_an_excerpt(self, sing):
        f0, network = torch.from_numpy(f0_of(300)), untrained("us")
        mono = torch.from_numpy(sing(f0.numpy()).sum(axis=0))
        found = us.estimate_chunks(mono, f0, network)
        assert found.n_frames == 300
        scaled = (0.5 / mono.abs().max()) * mono
        excerpt = network.estimate(power(scaled, us.GRID)[None, :, :250], f0[None, :, :250]).without_batch()
        for name in ("log_gain", "lsf", "log_noise"):
            assert (getattr(found.frames(0, 250), name) - getattr(excerpt, name)).abs().max() < 1e-4

    def test_later_chunks_are_warm(self, sing, monkeypatch):
        """With warm-up, parameters jump less where a chunk begins."""
        f0 = np.array([[500.0], [300.0]], dtype=np.float32).repeat(300, axis=1)
        mono, tracks, network = torch.from_numpy(sing(f0).sum(axis=0)), torch.from_numpy(f0), untrained("us")

        def jump() -> float:
            found = us.estimate_chunks(mono, tracks, network)
            return float((found.lsf[:, 250] - found.lsf[:, 249]).abs().max())

        warm = jump()
        monkeypatch.setattr(us, "_WARM_UP_FRAMES", 0)
        assert warm < 0.5 * jump()
