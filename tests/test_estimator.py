"""The estimator: any number of voices in any order, pieces as the whole, levels, checkpoints that are refused."""

import json
import math

import numpy as np
import pytest
import torch

from vocalsep import stretches, weights
from vocalsep.errors import WeightsError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator, EstimatorConfig, load_estimator, parameter_count
from vocalsep.model.features import extract
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.separation.separator import Separator
from vocalsep.training.losses import mixture_loss

FRAMES = 80
OUTPUTS = ("log_gain", "lsf", "log_noise")


@pytest.fixture(scope="module")
def network(tiny_model) -> Estimator:
    return load_estimator(str(tiny_model))


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


@pytest.mark.parametrize("voices", range(1, 9))
def test_one_network_serves_any_number_of_voices(network, mixture, voices):
    found = estimate(network, mixture, f0_of(voices))
    assert found.log_gain.shape == (1, voices, FRAMES)
    assert found.lsf.shape == (1, voices, FRAMES, 20)
    assert found.log_noise.shape == (1, voices, FRAMES, 16)
    assert all(bool(getattr(found, name).isfinite().all()) for name in OUTPUTS)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]])
def test_permuted_voices_have_permuted_parameters(network, mixture, order):
    straight, permuted = estimate(network, mixture, f0_of(4)), estimate(network, mixture, f0_of(4)[order])
    assert torch.equal(permuted.f0, straight.f0[:, order])
    for name in OUTPUTS:
        assert (getattr(permuted, name) - getattr(straight, name)[:, order]).abs().max() < 1e-5


def test_voices_know_of_each_other(network, mixture):
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


@pytest.mark.parametrize("silent", [[0], [0, 2], [0, 1, 2, 3]])
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
    level = extract(mixture, torch.from_numpy(f0_of(2))[None], network.config.layout).log_level
    assert (found.log_gain - level).numpy() == pytest.approx(reached, abs=1e-4)
    assert (found.log_noise - level[..., None]).numpy() == pytest.approx(reached - 4, abs=1e-4)


def test_lsfs_are_ordered_and_spaced(network, mixture):
    lsf = estimate(network, 40 * mixture, f0_of(5)).lsf
    edges = torch.cat([torch.zeros_like(lsf[..., :1]), lsf, torch.full_like(lsf[..., :1], math.pi)], dim=-1)
    assert edges.diff(dim=-1).min() > 0.0099


@pytest.mark.parametrize("chunk", [37, 64, 200, 401])
def test_chunks_equal_the_whole(tiny_model, sing, monkeypatch, chunk):
    f0 = f0_of(3, 400)
    mono = sing(f0).sum(axis=0)[: 399 * 256 - 50]  # ends between two frames
    tracks = F0Tracks(f0[:, :399], ("a", "b", "c"))
    system = Separator(tiny_model, "cpu")
    whole = system.estimate(mono, tracks)
    monkeypatch.setattr(stretches, "STRETCH_FRAMES", chunk)
    pieces = system.estimate(mono, tracks)
    assert pieces.n_frames == 399
    assert max(differences(whole, pieces)) < 1e-4


def test_chunks_need_their_context(tiny_model, sing, monkeypatch):
    """That a piece equals the whole is due to the frames around it; without them it does not."""
    f0 = f0_of(2, 200)
    mono, tracks = sing(f0).sum(axis=0), F0Tracks(f0[:, :200], ("a", "b"))
    system = Separator(tiny_model, "cpu")
    whole = system.estimate(mono, tracks)
    monkeypatch.setattr(stretches, "STRETCH_FRAMES", 50)
    monkeypatch.setattr(stretches, "_WINDOW_FRAMES", -system.network.config.reach)
    assert max(differences(whole, system.estimate(mono, tracks))) > 1e-2


def test_a_frame_depends_on_no_more_than_its_reach(network):
    """A click 4 frames of window beyond the reach changes nothing."""
    frames, f0 = 300, f0_of(2, 300)
    mixture = 0.1 * torch.rand(1, 299 * 256, generator=torch.Generator().manual_seed(0)) - 0.05
    clicked = mixture.clone()
    clicked[0, 200 * 256] += 1.0
    before, after = estimate(network, mixture, f0), estimate(network, clicked, f0)
    changed = torch.nonzero((before.log_gain - after.log_gain).abs().amax(dim=(0, 1)) > 1e-5).flatten()
    reach = network.config.reach + 4
    assert 200 - reach <= int(changed.min()) < 200 < int(changed.max()) <= min(200 + reach, frames - 1)


def test_loudness_of_a_recording_does_not_matter(tiny_model, sing):
    """Recordings are brought to one peak before estimation."""
    f0 = f0_of(3)
    mono, tracks = sing(f0).sum(axis=0), F0Tracks(f0, ("a", "b", "c"))
    system = Separator(tiny_model, "cpu")
    loud, quiet = system.estimate(mono, tracks), system.estimate(np.float32(0.01) * mono, tracks)
    assert max(differences(loud, quiet)) < 1e-3


@pytest.mark.parametrize("gain", [0.5, 0.1])
def test_gains_follow_the_level_of_the_mixture(network, mixture, gain):
    """Features are relative to the level, which is given too: untrained, gains follow to 1 dB."""
    f0 = f0_of(4)
    reference, scaled = estimate(network, mixture, f0), estimate(network, gain * mixture, f0)
    followed = (scaled.log_gain - reference.log_gain).mean()
    assert float(followed) == pytest.approx(math.log(gain), abs=0.12)


def test_relative_features_do_not_know_the_level(mixture):
    f0 = torch.from_numpy(f0_of(4))[None]
    layout = EstimatorConfig().layout
    one, other = extract(mixture, f0, layout), extract(0.25 * mixture, f0, layout)
    assert one.values.shape[-1] == layout.size
    level = (other.log_level - one.log_level)[..., 0, :]
    assert level.numpy() == pytest.approx(math.log(0.25), abs=1e-3)
    # All but the last, which is the level; faint bins feel the floor.
    assert (one.values - other.values)[..., :-1].abs().mean() < 0.01


def test_gradients_reach_all_parameters(mixture):
    torch.manual_seed(0)
    network = Estimator(EstimatorConfig(channels=16))
    mixture_loss(estimate(network, mixture, f0_of(4)), mixture).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert parameter_count(network) == sum(parameter.numel() for parameter in network.parameters())


class TestConfig:
    def test_round_trip_through_json(self):
        config = EstimatorConfig(channels=24, dilations=(1, 3), kernel_size=5)
        assert EstimatorConfig.from_json(json.loads(json.dumps(config.to_json()))) == config

    @pytest.mark.parametrize(
        "change",
        [
            {"channels": 0},
            {"channels": 100_000},
            {"channels": "16"},
            {"channels": 16.0},
            {"channels": None},
            {"order": 21},
            {"kernel_size": 4},
            {"dilations": 3},
            {"dilations": None},
            {"dilations": [1, 0]},
            {"dilations": [1] * 33},
            pytest.param({"dilations": ["many"]}),
            pytest.param({"dilations": [float("inf")]}),
            {"n_mels": -1},
            pytest.param({"n_between": 100}),
            pytest.param({"noise_bands": 1}),
            {"depth": 3},
        ],
    )
    def test_bad_settings_are_refused(self, change):
        with pytest.raises(WeightsError, match="estimator"):
            EstimatorConfig.from_json({**EstimatorConfig().to_json(), **change})

    def test_missing_settings_are_refused(self):
        with pytest.raises(WeightsError, match="its settings are channels"):
            EstimatorConfig.from_json({"channels": 16})


class TestLoading:
    def rewritten(self, tiny_model, path, change):
        config, tensors = weights.load(tiny_model)
        change(tensors)
        weights.save(path, config, tensors)
        return str(path)

    def test_what_was_saved_is_loaded(self, tiny_model):
        network = load_estimator(str(tiny_model))
        for name, tensor in weights.load(tiny_model).tensors.items():
            assert torch.equal(network.state_dict()[name], tensor)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda tensors: tensors["head.bias"].fill_(math.nan), id="NaN"),
            pytest.param(lambda tensors: tensors["head.bias"].fill_(math.inf), id="infinite"),
            pytest.param(lambda tensors: tensors.pop("head.bias"), id="missing"),
            pytest.param(lambda tensors: tensors.update(more=torch.zeros(3)), id="extra"),
            pytest.param(lambda tensors: tensors.update({"head.bias": torch.zeros(3)}), id="shape"),
        ],
    )
    def test_damaged_weights_are_refused(self, tiny_model, tmp_path, change):
        path = self.rewritten(tiny_model, tmp_path / "x.safetensors", change)
        with pytest.raises(WeightsError, match=r"x\.safetensors"):
            load_estimator(path)

    def test_weights_of_another_network_are_refused(self):
        with pytest.raises(WeightsError, match="not one of an estimator"):
            load_estimator("crepe-tiny")
