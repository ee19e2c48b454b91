"""The network of the paper: its size, invariants of any weights, and that it learns."""

import math
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch

from vocalsep.dsp.stft import power
from vocalsep.evaluation.baselines import us
from vocalsep.evaluation.baselines.us import UsConfig, UsNetwork, separate_us
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import parameter_count
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.training.data import Batch
from vocalsep.training.losses import estimator_loss
from vocalsep.weights import load_network, save_checkpoint

TINY = UsConfig(encoder_size=12, latent_size=8, decoder_size=16, noise_bands=6)
FRAMES = 60
NAMES = ("a", "b", "c")
OUTPUTS = ("log_gain", "lsf", "log_noise")


def untrained(seed: int = 0) -> UsNetwork:
    """Return a small network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UsNetwork(TINY)
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
    return Batch(torch.from_numpy(stems.sum(axis=0)[None]), torch.from_numpy(f0_of())[None])


def differences(one: VoiceParameters, other: VoiceParameters) -> list[float]:
    return [float((getattr(one, name) - getattr(other, name)).abs().max()) for name in OUTPUTS]


def picked(parameters: VoiceParameters, voices: list[int]) -> VoiceParameters:
    return VoiceParameters(**{name: getattr(parameters, name)[:, voices] for name in ("f0", *OUTPUTS)})


def test_default_has_the_size_of_the_paper():
    """5.57 M (US, section IV), and exactly what its description gives, counted by hand."""

    def gru(inputs: int, units: int) -> int:
        return 3 * units * (inputs + units + 2)

    def perceptron(inputs: int) -> int:
        return 512 * (inputs + 1) + 2 * 512 * 513 + 3 * 2 * 512

    encoder = 2 * 257 + gru(257, 256) + 2 * gru(256, 256) + 128 * 257
    decoder = perceptron(1) + perceptron(128) + gru(1024, 512) + perceptron(512)
    heads = 513 * (1 + 1 + 21) + gru(512, 40)
    assert parameter_count(UsNetwork()) == encoder + decoder + heads
    assert round(parameter_count(UsNetwork()) / 1e6, 2) == 5.57


def test_voices_are_independent_and_follow_their_order(batch):
    network = untrained()
    found = network(batch.mixture, batch.f0)
    order = [2, 0, 1]
    assert max(differences(picked(found, order), network(batch.mixture, batch.f0[:, order]))) < 1e-5
    assert max(differences(picked(found, [1]), network(batch.mixture, batch.f0[:, 1:2]))) < 1e-5
    assert min(differences(found, network(batch.mixture, 1.2 * batch.f0))) > 1e-3
    assert min(differences(found, network(batch.mixture.flip(-1), batch.f0))) > 1e-3


def test_excerpts_of_a_batch_are_independent(batch):
    network = untrained()
    one, other = network(batch.mixture, batch.f0), network(batch.mixture.flip(-1), batch.f0.flip(-1))
    both = network(torch.cat([batch.mixture, batch.mixture.flip(-1)]), torch.cat([batch.f0, batch.f0.flip(-1)]))
    for name in OUTPUTS:
        expected = torch.cat([getattr(one, name), getattr(other, name)])
        assert (getattr(both, name) - expected).abs().max() < 1e-5


def test_recurrences_run_forwards(batch):
    """Later f0 changes nothing earlier, but for the colour of the noise, which belongs to the excerpt."""
    network, later = untrained(), batch.f0.clone()
    later[..., 40:] *= 1.3
    before, after = network(batch.mixture, batch.f0), network(batch.mixture, later)
    assert torch.equal(before.log_gain[..., :40], after.log_gain[..., :40])
    assert torch.equal(before.lsf[..., :40, :], after.lsf[..., :40, :])
    assert (before.log_gain[..., 40:] - after.log_gain[..., 40:]).abs().max() > 1e-4


def test_noise_has_one_colour_for_each_voice(batch):
    log_noise = untrained()(batch.mixture, batch.f0).log_noise
    colour = log_noise - log_noise.mean(dim=-1, keepdim=True)
    assert (colour - colour[..., :1, :]).abs().max() < 1e-5
    assert (colour[:, 0] - colour[:, 1]).abs().max() > 1e-3
    assert log_noise.mean(dim=-1).std(dim=-1).min() > 1e-3  # its level moves


@pytest.mark.parametrize("gain", [4.0, 0.3])
def test_levels_follow_the_mixture(batch, gain):
    network = untrained()
    reference, scaled = network(batch.mixture, batch.f0), network(gain * batch.mixture, batch.f0)
    assert (scaled.log_gain - reference.log_gain).numpy() == pytest.approx(math.log(gain), abs=0.05)
    assert (scaled.log_noise - reference.log_noise).numpy() == pytest.approx(math.log(gain), abs=0.05)
    assert (scaled.lsf - reference.lsf).abs().max() < 0.01


def test_lsfs_are_ordered_and_spaced(batch):
    network = untrained()
    network.spacings.weight.data *= 100
    lsf = network(batch.mixture, batch.f0).lsf
    edges = torch.cat([torch.zeros_like(lsf[..., :1]), lsf, torch.full_like(lsf[..., :1], math.pi)], dim=-1)
    assert edges.diff(dim=-1).min() > 0.0099


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-20])
@pytest.mark.parametrize("sung", [0.0, 1.0])
def test_mixtures_without_sound_give_finite_parameters(batch, level, sung):
    found = untrained()(level * torch.ones(1, 15104), sung * batch.f0)
    assert all(bool(getattr(found, name).isfinite().all()) for name in OUTPUTS)


def test_loss_reaches_all_parameters(batch):
    network = untrained().train().requires_grad_(True)
    estimator_loss(network, batch).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.slow
def test_it_learns_from_the_mixture_alone(batch, stems):
    """Trained on one mixture, without its stems: the loss falls, and every stem is better than the mixture."""
    torch.manual_seed(0)
    network = UsNetwork(TINY)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        loss = estimator_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    mixture = stems.sum(axis=0)
    found = separate_us(mixture, F0Tracks(f0_of(), NAMES), network.eval())
    assert (si_sdr(stems, found) - si_sdr(stems, np.stack([mixture] * 3))).min() > 5


class TestSeparation:
    @pytest.mark.parametrize("samples", [1, 255, 256, 16001, 256 * 520 + 100])
    @pytest.mark.parametrize("level", [0.0, 1e-4, 1.0])
    def test_stems_add_up_to_the_mixture(self, samples, level):
        mixture = np.random.default_rng(0).uniform(-level, level, samples).astype(np.float32)
        tracks = F0Tracks(f0_of(max(1, samples // 256)), NAMES)
        stems = separate_us(mixture, tracks, untrained())
        assert stems.shape == (3, samples)
        assert np.abs(stems.sum(axis=0) - mixture).max() <= 2e-5 * level

    def test_first_chunk_is_that_of_an_excerpt(self, sing):
        f0 = f0_of(300)
        mono = torch.from_numpy(sing(f0).sum(axis=0))
        network, tracks = untrained(), torch.from_numpy(f0)
        found = us.estimate_chunks(mono, tracks, network)
        assert found.n_frames == 300
        scaled = (0.5 / mono.abs().max()) * mono
        excerpt = network.estimate(power(scaled, us.GRID)[None, :, :250], tracks[None, :, :250]).without_batch()
        assert max(differences(found.frames(0, 250), excerpt)) < 1e-4

    def test_later_chunks_are_warm(self, sing, monkeypatch):
        """With warm-up, parameters jump less where a chunk begins."""
        f0 = np.array([[500.0], [300.0]], dtype=np.float32).repeat(300, axis=1)
        mono, tracks, network = torch.from_numpy(sing(f0).sum(axis=0)), torch.from_numpy(f0), untrained()

        def jump() -> float:
            found = us.estimate_chunks(mono, tracks, network)
            return float((found.lsf[:, 250] - found.lsf[:, 249]).abs().max())

        warm = jump()
        monkeypatch.setattr(us, "_WARM_UP_FRAMES", 0)
        assert warm < 0.5 * jump()


class TestCheckpoints:
    def test_round_trip(self, stems, tmp_path):
        network = untrained(seed=3)
        save_checkpoint(tmp_path / "us", network)
        loaded = load_network(tmp_path / "us", UsNetwork)
        assert loaded.config == network.config
        separate = partial(separate_us, stems.sum(axis=0), F0Tracks(f0_of(), NAMES))
        assert np.array_equal(separate(loaded), separate(network))
        assert np.abs(separate(loaded) - separate(untrained(seed=4))).max() > 1e-3

    @pytest.mark.parametrize("field", [field.name for field in fields(UsConfig)])
    @pytest.mark.parametrize("value", [0, 2000, 16.0, "16", None, (16,), True])
    def test_bad_sizes(self, field, value):
        with pytest.raises(ValueError, match="but got"):
            UsConfig(**{field: value})

    @pytest.mark.parametrize("change", [{"order": 21}, {"noise_bands": 1}])
    def test_sizes_that_do_not_fit(self, change):
        with pytest.raises(ValueError, match="but got"):
            UsConfig(**change)
