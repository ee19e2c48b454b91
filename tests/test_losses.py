"""Losses: they are smallest for true parameters, and lead back to them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from melodies import melody, piece

from vocalsep.dsp.stft import StftGrid, power, stft
from vocalsep.f0.network import Logits, Tracker, TrackerConfig
from vocalsep.model.room import RoomParameters
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.training.data import Batch
from vocalsep.training.ensembles import EnsembleSource
from vocalsep.training.losses import (
    distortion,
    dried_waveform,
    estimator_loss,
    mixture_loss,
    spectral_distance,
    stem_loss,
    supervised_loss,
    tracker_loss,
    tracking_loss,
)
from vocalsep.training.rooms import in_room

FRAMES = 100


@pytest.fixture(scope="module")
def parameters() -> VoiceParameters:
    """Two voices, with a leading batch axis."""
    f0 = torch.from_numpy(np.stack([melody(330.0, FRAMES, 1), melody(150.0, FRAMES, 2)]))[None]
    lsf = lsf_from_logits(0.5 * torch.sin(torch.arange(42.0).reshape(2, 1, 21)), 0.05).expand(1, 2, FRAMES, 20)
    return VoiceParameters(f0, torch.full((1, 2, FRAMES), -2.0), lsf, torch.full((1, 2, FRAMES, 16), -12.0))


@pytest.fixture(scope="module")
def stems(parameters) -> torch.Tensor:
    return synthesize(parameters, samples=FRAMES * 256 - 1, generator=torch.Generator().manual_seed(0))


CHANGES = {
    "louder": {"log_gain": lambda x: x + 0.7},
    "softer": {"log_gain": lambda x: x - 0.7},
    "unbalanced": {"log_gain": lambda x: x + torch.tensor([[1.0], [-1.0]])},
    "filters exchanged": {"lsf": lambda x: x.flip(1)},
    "no filters": {"lsf": lambda x: torch.arange(1, 21) * torch.pi / 21 + 0 * x},
    "noisy": {"log_noise": lambda x: x + 4.0},
    "sharp": {"f0": lambda x: 1.03 * x},
    "early": {"f0": lambda x: x.roll(20, -1)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_true_parameters_have_the_lowest_losses(parameters, stems, change):
    mixture = stems.sum(dim=1)
    changed = replace(parameters, **{name: edit(getattr(parameters, name)) for name, edit in CHANGES[change].items()})
    assert mixture_loss(parameters, mixture) < mixture_loss(changed, mixture) - 0.01
    assert stem_loss(parameters, mixture, stems) < stem_loss(changed, mixture, stems) - 0.01


def test_gradients_lead_back_to_the_true_gain(parameters, stems):
    mixture = stems.sum(dim=1)
    compared = (parameters.f0 > 0) & (torch.arange(FRAMES) % 3 == 0)
    gain = (parameters.log_gain + 1.0).requires_grad_()
    mixture_loss(replace(parameters, log_gain=gain), mixture).backward()
    assert (gain.grad[compared] > 0).float().mean() > 0.9
    gain = (parameters.log_gain + torch.tensor([[0.8], [-0.8]])).requires_grad_()
    stem_loss(replace(parameters, log_gain=gain), mixture, stems).backward()
    both = compared.all(dim=1)[0]
    assert (gain.grad[0, 0, both] > 0).float().mean() > 0.8
    assert (gain.grad[0, 1, both] < 0).float().mean() > 0.8


def test_exchanged_stems_are_worse(parameters, stems):
    mixture = stems.sum(dim=1)
    assert stem_loss(parameters, mixture, stems) < stem_loss(parameters, mixture, stems.flip(1)) - 1.0


def test_silence_has_a_finite_loss(parameters):
    assert mixture_loss(parameters, torch.zeros(1, FRAMES * 256 - 1)).isfinite()


def test_spectral_distance_is_zero_for_equals_and_ignores_loudness():
    target = torch.rand(2, 50, 30, generator=torch.Generator().manual_seed(0)) + 0.1
    assert spectral_distance(target, target) < 1e-5
    other = target.flip(-1)
    distance = spectral_distance(other, target)
    assert distance > 0.1
    assert float(spectral_distance(1e-3 * other, 1e-3 * target)) == pytest.approx(float(distance), rel=1e-3)


class TestDistortion:
    @pytest.fixture
    def target(self) -> torch.Tensor:
        waveform = torch.randn(1, 2, 64000, generator=torch.Generator().manual_seed(0))
        return stft(waveform, StftGrid.of_duration())

    def test_it_is_the_log_ratio_of_energies(self, target):
        value = distortion(0.1 * target, target, target.sum(dim=1))
        # -20 dB; 0.3 % of the mixture, which has twice the energy of a stem, counts as silence.
        assert float(value) == pytest.approx(math.log((0.01 + 0.006) / (1 + 0.006)), abs=0.05)

    def test_a_silent_stem_has_a_finite_loss_that_grows_with_leakage(self, target):
        silent = target * torch.tensor([1.0, 0.0])[:, None, None]
        clean, leaking = (distortion(leak * target, silent, silent.sum(dim=1)) for leak in (0.01, 0.3))
        assert clean.isfinite()
        assert clean < leaking


def test_batches_without_stems_have_the_unsupervised_loss(parameters, stems):
    class Constant(torch.nn.Linear):
        def forward(self, mixture: torch.Tensor, f0: torch.Tensor) -> VoiceParameters:
            return replace(parameters, log_gain=parameters.log_gain + self.bias)

    network = Constant(1, 1)
    batch = Batch(stems.sum(dim=1), parameters.f0)
    assert torch.equal(supervised_loss(network, batch), estimator_loss(network, batch))
    assert supervised_loss(network, batch._replace(stems=stems)) != estimator_loss(network, batch)


class TestRooms:
    """The same two voices, dry and in a church: noise that decays within 1.5 s, 3 dB louder than the direct sound."""

    time, ratio = 1.5, -3.0

    @pytest.fixture
    def wet(self, stems) -> torch.Tensor:
        t = torch.arange(16000) / 16000
        noise = torch.randn(16000, generator=torch.Generator().manual_seed(1)) * 10 ** (-3 * t / self.time)
        noise[: 8 * 16] = 0
        noise *= 10 ** (-self.ratio / 20) / noise.square().sum().sqrt()
        noise[0] = 1.0
        return in_room(stems, noise.expand(*stems.shape[:2], -1))

    def room(self, time: float, ratio: float) -> RoomParameters:
        return RoomParameters(torch.tensor([time]), torch.tensor([ratio]))

    def test_the_true_room_has_the_lowest_losses(self, parameters, wet):
        mixture = wet.sum(dim=1)
        losses = [
            (mixture_loss(parameters, mixture, room), stem_loss(parameters, mixture, wet, room))
            for room in (
                self.room(self.time, self.ratio),
                self.room(0.3, self.ratio),
                self.room(6.0, self.ratio),
                self.room(self.time, 12.0),
                self.room(self.time, -12.0),
                None,
            )
        ]
        for unsupervised, supervised in losses[1:]:
            assert unsupervised > losses[0][0] + 0.01
            assert supervised > losses[0][1] + 0.01

    def test_a_dried_waveform_is_nearer_to_the_dry_one(self, stems, wet):
        dry, mixture = stems.sum(dim=1), wet.sum(dim=1)
        found = dried_waveform(mixture, self.room(self.time, self.ratio))
        assert found.shape == mixture.shape
        grid = StftGrid.of_duration()
        levels = [torch.log(power(waveform, grid) + 1e-6) for waveform in (dry, mixture, found)]
        assert (levels[2] - levels[0]).abs().mean() < 0.7 * (levels[1] - levels[0]).abs().mean()

    def test_excerpts_that_are_dry_stay_as_they_are(self, parameters, stems, wet):
        """In a batch with a room, and alone."""
        mixtures = torch.cat([stems.sum(dim=1), wet.sum(dim=1)])
        rooms = RoomParameters(torch.tensor([0.0, self.time]), torch.tensor([torch.inf, self.ratio]))
        torch.testing.assert_close(dried_waveform(mixtures, rooms)[:1], mixtures[:1], atol=1e-5, rtol=0)
        assert dried_waveform(mixtures, None) is mixtures
        dry = self.room(0.0, torch.inf)
        assert mixture_loss(parameters, mixtures[:1], dry) == mixture_loss(parameters, mixtures[:1])
        assert stem_loss(parameters, mixtures[:1], stems, dry) == stem_loss(parameters, mixtures[:1], stems)

    @pytest.mark.parametrize("loss", [estimator_loss, supervised_loss])
    def test_networks_hear_the_dried_mixture(self, parameters, wet, loss):
        heard = []

        class Listener(torch.nn.Linear):
            def forward(self, mixture: torch.Tensor, f0: torch.Tensor) -> VoiceParameters:
                heard.append(mixture)
                return replace(parameters, log_gain=parameters.log_gain + self.bias)

        room, network = self.room(self.time, self.ratio), Listener(1, 1)
        mixture = wet.sum(dim=1)
        loss(network, Batch(mixture, parameters.f0, wet, room=room)).backward()
        assert torch.equal(heard[0], dried_waveform(mixture, room))
        assert network.bias.grad.isfinite().all()


PITCHES = TrackerConfig().pitches()
N = len(PITCHES)


class TestTrackingLoss:
    f0 = torch.tensor([[[220.0, 0.0, 331.7], [0.0, 101.3, 110.0]]])  # (batch, voices, frames)

    def right(self) -> Logits:
        """Logits of the target: bells with a width of one step, and silence."""
        steps = 60 * torch.log2(self.f0.clamp_min(100.0)[..., None].double() / PITCHES)
        return Logits((-0.5 * steps**2).float(), torch.where(self.f0 > 0, -40.0, 40.0))

    def test_flat_logits_cost_the_logarithm_of_the_number_of_choices(self):
        logits = Logits(torch.zeros(1, 2, 3, N), torch.zeros(1, 2, 3))
        for f0 in (self.f0, 0 * self.f0):
            assert float(tracking_loss(logits, f0, PITCHES)) == pytest.approx(np.log(N + 1), rel=1e-5)

    def test_right_logits_cost_the_entropy_of_the_targets(self):
        """A Gaussian of one step has ln sqrt(2 pi e) nats; four of six frames are sung."""
        expected = 4 / 6 * 0.5 * np.log(2 * np.pi * np.e)
        assert float(tracking_loss(self.right(), self.f0, PITCHES)) == pytest.approx(expected, abs=0.01)

    def test_it_is_lowest_for_right_logits(self):
        pitch, silent = (part.clone().requires_grad_() for part in self.right())
        tracking_loss(Logits(pitch, silent), self.f0, PITCHES).backward()
        assert pitch.grad.abs().max() < 1e-5
        assert silent.grad.abs().max() < 1e-5
        right = self.right()
        lowest = tracking_loss(right, self.f0, PITCHES)
        for wrong in (
            right._replace(pitch=right.pitch.roll(1, -1)),
            right._replace(pitch=right.pitch.flip(1)),
            right._replace(pitch=0.5 * right.pitch),
            right._replace(silent=-right.silent),
            right._replace(silent=right.silent + 41),
        ):
            assert tracking_loss(wrong, self.f0, PITCHES) > lowest + 0.05

    def test_the_centroid_of_the_target_is_the_f0(self):
        """To a tenth of a cent, also between two steps: the gradient of flat logits shows the target."""
        f0 = torch.tensor([[[200.0, 201.0, 203.3, 440.0, 97.3]]])
        pitch = torch.zeros(1, 1, 5, N, requires_grad=True)
        tracking_loss(Logits(pitch, torch.zeros(1, 1, 5)), f0, PITCHES).backward()
        centroid = ((1 / (N + 1) - 5 * pitch.grad) * torch.arange(N)).sum(dim=-1)
        torch.testing.assert_close(centroid, 60 * torch.log2(f0 / PITCHES[0]).float(), atol=0.005, rtol=0)

    @pytest.mark.parametrize("outside", [40.0, 62.0, 1190.0, 3000.0])
    def test_f0_outside_the_grid_does_not_count(self, outside):
        generator = torch.Generator().manual_seed(0)
        pitch = torch.randn(1, 2, 3, N, generator=generator).requires_grad_()
        silent = torch.randn(1, 2, 3, generator=generator)
        f0 = self.f0.clone()
        f0[..., 2] = outside
        found = tracking_loss(Logits(pitch, silent), f0, PITCHES)
        without = tracking_loss(Logits(pitch[..., :2, :], silent[..., :2]), f0[..., :2], PITCHES)
        torch.testing.assert_close(found, without)
        found.backward()
        assert pitch.grad[..., 2, :].abs().max() == 0
        assert tracking_loss(Logits(pitch, silent), torch.full_like(f0, outside), PITCHES) == 0


@pytest.fixture(scope="module")
def batch(sing) -> Batch:
    return EnsembleSource([piece(sing, 1)], frames=40, augmented=False).draw(np.random.default_rng(0), 2)


class TestTrackerLoss:
    @pytest.fixture
    def network(self) -> Tracker:
        torch.manual_seed(0)
        return Tracker(TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4))

    def test_it_ignores_the_level_and_depends_on_the_targets(self, network, batch):
        changed = (batch, batch._replace(mixture=7 * batch.mixture), batch._replace(f0=batch.f0.flip(-1)))
        with torch.no_grad():
            found, louder, backwards = (float(tracker_loss(network.eval(), one)) for one in changed)
            half = float(tracker_loss(network, batch, bfloat16=True))
        assert louder == pytest.approx(found, abs=1e-4)
        assert backwards != pytest.approx(found, abs=1e-4)
        assert half == pytest.approx(found, rel=0.02)

    def test_every_weight_has_a_gradient(self, network, batch):
        tracker_loss(network, batch).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
