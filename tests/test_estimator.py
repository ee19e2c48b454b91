"""The estimator: any number of voices in any order, chunks as the whole, levels, gradients, configurations."""

import math

import numpy as np
import pytest
import torch

from vocalsep.dsp.chunks import chunks
from vocalsep.model.estimator import Estimator, EstimatorConfig, parameter_count
from vocalsep.model.features import extract
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.training.losses import mixture_loss

FRAMES = 80
OUTPUTS = ("log_gain", "lsf", "log_noise")
WINDOW_FRAMES = 4  # half a window of the features' STFT


@pytest.fixture
def network(tiny_estimator) -> Estimator:
    return tiny_estimator


@pytest.fixture(scope="module")
def mixture(sing) -> torch.Tensor:
    """Four voices that glide, shape (1, samples)."""
    return torch.from_numpy(sing(f0_of(4)).sum(axis=0, keepdims=True))


def f0_of(voices: int, frames: int = FRAMES) -> np.ndarray:
    """F0 of voices that glide by a third, with rests, shape (voices, frames)."""
    f0 = np.linspace(700, 90, voices)[:, None] * 2 ** np.linspace(0, 1 / 3, frames)
    for row in range(voices):
        f0[row, 10 * row : 10 * row + 5] = 0
    return f0.astype(np.float32)


def estimate(network: Estimator, mixture: torch.Tensor, f0: np.ndarray) -> VoiceParameters:
    return network(mixture, torch.from_numpy(f0)[None])


def differences(one: VoiceParameters, other: VoiceParameters) -> list[float]:
    return [float((getattr(one, name) - getattr(other, name)).abs().max()) for name in OUTPUTS]


@pytest.mark.parametrize("voices", [1, 2, 8])
def test_one_network_serves_any_number_of_voices(network, mixture, voices):
    found = estimate(network, mixture, f0_of(voices))
    assert found.log_gain.shape == (1, voices, FRAMES)
    assert found.lsf.shape == (1, voices, FRAMES, 20)
    assert found.log_noise.shape == (1, voices, FRAMES, 16)
    assert all(bool(getattr(found, name).isfinite().all()) for name in OUTPUTS)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [2, 3, 0, 1]])
def test_permuted_voices_have_permuted_parameters(network, mixture, order):
    straight, permuted = estimate(network, mixture, f0_of(4)), estimate(network, mixture, f0_of(4)[order])
    assert torch.equal(permuted.f0, straight.f0[:, order])
    for name in OUTPUTS:
        assert (getattr(permuted, name) - getattr(straight, name)[:, order]).abs().max() < 1e-5


def test_voices_depend_on_each_other(network, mixture):
    alone = estimate(network, mixture, f0_of(4)[:2])
    together = estimate(network, mixture, f0_of(4))
    assert (alone.log_gain - together.log_gain[:, :2]).abs().max() > 1e-3


def test_batches_are_independent(network, mixture):
    f0 = f0_of(2)
    one, other = estimate(network, mixture, f0), estimate(network, 0.3 * mixture.flip(-1), f0[::-1].copy())
    both = network(torch.cat([mixture, 0.3 * mixture.flip(-1)]), torch.from_numpy(np.stack([f0, f0[::-1]])))
    for name in OUTPUTS:
        expected = torch.cat([getattr(one, name), getattr(other, name)])
        assert (getattr(both, name) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("silent", [[0], [0, 1, 2, 3]])
def test_voices_may_rest_throughout(network, mixture, silent):
    f0 = f0_of(4)
    f0[silent] = 0
    found = estimate(network, mixture, f0)
    assert all(bool(getattr(found, name).isfinite().all()) for name in OUTPUTS)


@pytest.mark.parametrize("waveform", [torch.zeros(1, 20400), torch.ones(1, 20400), 1e-20 * torch.ones(1, 20400)])
def test_mixtures_without_sound_give_finite_parameters(network, waveform):
    found = estimate(network, waveform, f0_of(2))
    assert all(bool(getattr(found, name).isfinite().all()) for name in OUTPUTS)


@pytest.mark.parametrize(("bias", "reached"), [(3.0, 3.0), (-5.0, -5.0), (1e3, 12.0), (-1e3, -12.0)])
def test_gain_and_noise_are_bounded_about_the_level(mixture, bias, reached):
    network = Estimator(EstimatorConfig(channels=16))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(bias)
        found = estimate(network, mixture, f0_of(2))
    _, level = extract(mixture, torch.from_numpy(f0_of(2))[None], network.config)
    assert (found.log_gain - level).numpy() == pytest.approx(reached, abs=1e-4)
    assert (found.log_noise - level[..., None]).numpy() == pytest.approx(reached - 4, abs=1e-4)


@pytest.mark.parametrize("size", [37, 200])
def test_chunks_equal_the_whole(network, sing, size):
    f0 = f0_of(3, 400)
    mixture = torch.from_numpy(sing(f0).sum(axis=0, keepdims=True))
    parts = []
    for chunk in chunks(400, size, network.config.reach + WINDOW_FRAMES):
        samples = mixture[:, chunk.low * 256 : chunk.high * 256 - 1]  # as many frames
        part = estimate(network, samples, f0[:, chunk.low : chunk.high])
        parts.append(part.frames(chunk.inner.start, chunk.inner.stop))
    assert max(differences(estimate(network, mixture, f0), VoiceParameters.joined(parts))) < 1e-4


def test_a_frame_depends_on_no_more_than_its_reach(network):
    """A click beyond the reach and the window changes nothing."""
    frames, f0 = 300, f0_of(2, 300)
    mixture = 0.1 * torch.rand(1, 299 * 256, generator=torch.Generator().manual_seed(0)) - 0.05
    clicked = mixture.clone()
    clicked[0, 200 * 256] += 1.0
    before, after = estimate(network, mixture, f0), estimate(network, clicked, f0)
    changed = torch.nonzero((before.log_gain - after.log_gain).abs().amax(dim=(0, 1)) > 1e-5).flatten()
    reach = network.config.reach + WINDOW_FRAMES
    assert 200 - reach <= int(changed.min()) < 200 < int(changed.max()) <= min(200 + reach, frames - 1)


def test_features_other_than_the_level_do_not_depend_on_it(mixture):
    f0, config = torch.from_numpy(f0_of(4))[None], EstimatorConfig()
    one, level = extract(mixture, f0, config)
    other, lower = extract(0.25 * mixture, f0, config)
    assert one.shape[-1] == config.n_features
    assert (lower - level).numpy() == pytest.approx(math.log(0.25), abs=1e-3)
    # The last feature is the level; faint bins are near the floor.
    assert (one - other)[..., :-1].abs().mean() < 0.01


def test_gradients_reach_all_parameters(mixture):
    torch.manual_seed(0)
    network = Estimator(EstimatorConfig(channels=16))
    mixture_loss(estimate(network, mixture, f0_of(4)), mixture).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert parameter_count(network) == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("channels", (0, 100_000, "16", 16.0, None)),
        ("order", (21,)),
        ("kernel_size", (4,)),
        ("dilations", (3, (), (1, 0), (1,) * 33, (math.inf,))),
        ("n_mels", (-1,)),
        ("n_between", (100,)),
        ("noise_bands", (1,)),
    ],
)
def test_bad_configurations_are_refused(field, values):
    for value in values:
        with pytest.raises(ValueError, match="expected"):
            EstimatorConfig(**{field: value})
