"""Learning from stems, and from f0 with a tracker's errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vocalsep.dsp.stft import StftGrid, stft
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.training.data import Batch, SingerSource, Take
from vocalsep.training.f0_errors import with_errors
from vocalsep.training.losses import distortion, estimator_loss, stem_loss, supervised_loss

FRAMES = 90


@pytest.fixture(scope="module")
def parameters() -> VoiceParameters:
    f0 = torch.tensor([[330.0], [221.5]]).expand(2, FRAMES).clone()
    f0[0, 40:55] = 0
    lsf = lsf_from_logits(0.5 * torch.sin(torch.arange(42.0).reshape(2, 1, 21)), 0.05).expand(2, FRAMES, 20)
    gain, noise = torch.full(f0.shape, -2.0), torch.full((*f0.shape, 16), -14.0)
    return VoiceParameters(f0[None], gain[None], lsf[None], noise[None])


@pytest.fixture(scope="module")
def stems(parameters) -> torch.Tensor:
    return synthesize(parameters, samples=(FRAMES - 1) * 256, generator=torch.Generator().manual_seed(0))


class TestStemLoss:
    @pytest.mark.parametrize(
        "change",
        [
            {"log_gain": lambda x: x + torch.tensor([[1.0], [-1.0]])},
            {"lsf": lambda x: x.flip(1)},
            {"lsf": lambda x: torch.arange(1, 21) * torch.pi / 21 + 0 * x},
            {"log_noise": lambda x: x + 4.0},
        ],
    )
    def test_true_parameters_lose_least(self, parameters, stems, change):
        changed = replace(parameters, **{name: edit(getattr(parameters, name)) for name, edit in change.items()})
        mixture = stems.sum(dim=1)
        assert stem_loss(parameters, mixture, stems) < stem_loss(changed, mixture, stems) - 0.02

    def test_it_leads_back_to_the_true_gain(self, parameters, stems):
        gain = (parameters.log_gain + torch.tensor([[0.8], [-0.8]])).requires_grad_()
        stem_loss(replace(parameters, log_gain=gain), stems.sum(dim=1), stems).backward()
        compared = (parameters.f0 > 0).all(dim=1)[0] & (torch.arange(FRAMES) % 3 == 0)
        assert (gain.grad[0, 0, compared] > 0).float().mean() > 0.8
        assert (gain.grad[0, 1, compared] < 0).float().mean() > 0.8

    def test_exchanged_stems_are_worse(self, parameters, stems):
        mixture = stems.sum(dim=1)
        assert stem_loss(parameters, mixture, stems) < stem_loss(parameters, mixture, stems.flip(1)) - 1.0

    def test_distortion_is_the_log_ratio_of_energies(self):
        grid = StftGrid.of_duration()
        target = stft(torch.randn(1, 2, 64000, generator=torch.Generator().manual_seed(0)), grid)
        value = distortion(0.1 * target, target, target.sum(dim=1))
        # -20 dB, and 0.3 % of the mixture, which has twice a stem's energy, that counts as silence.
        assert float(value) == pytest.approx(math.log((0.01 + 0.006) / (1 + 0.006)), abs=0.05)

    def test_a_silent_stem_is_finite_and_wants_silence(self):
        grid = StftGrid.of_duration()
        target = stft(torch.randn(1, 2, 64000, generator=torch.Generator().manual_seed(0)), grid)
        silent = target * torch.tensor([1.0, 0.0])[:, None, None]
        mixture = silent.sum(dim=1)
        clean, leaking = (distortion(leak * target, silent, mixture) for leak in (0.01, 0.3))
        assert clean.isfinite()
        assert clean < leaking

    def test_batches_without_stems_are_learned_from_as_mixtures(self, parameters, stems):
        class Constant(torch.nn.Linear):
            def forward(self, mixture: torch.Tensor, f0: torch.Tensor) -> VoiceParameters:
                return replace(parameters, log_gain=parameters.log_gain + self.bias)

        network = Constant(1, 1)
        batch = Batch(stems.sum(dim=1), parameters.f0)
        assert torch.equal(supervised_loss(network, batch), estimator_loss(network, batch))
        assert supervised_loss(network, batch._replace(stems=stems)) != estimator_loss(network, batch)


class TestErrorsOfF0:
    F0 = np.repeat([[440.0], [300.0], [150.0]], 250, axis=1).astype(np.float32)

    def test_seeds_reproduce_them_and_the_truth_stays(self):
        before = self.F0.copy()
        one, other = (with_errors(self.F0, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(one, other)
        assert np.array_equal(before, self.F0)
        assert not np.array_equal(one, self.F0)
        assert (one.dtype, one.shape) == (np.float32, self.F0.shape)

    def test_most_frames_are_a_few_cents_off(self):
        found = np.concatenate([with_errors(self.F0, np.random.default_rng(seed)) for seed in range(20)])
        truth = np.tile(self.F0, (20, 1))
        both = found > 0
        cents = 1200 * np.log2(found[both] / truth[both])
        near = np.abs(cents) < 50
        assert near.mean() > 0.95
        assert 4 < cents[near].std() < 10

    def test_rests_and_ghosts(self):
        """Three of ten voices have a gap of 5 to 29 frames; three of ten a ghost, which a resting voice shows."""
        sung = [with_errors(self.F0[:1], np.random.default_rng(seed))[0] for seed in range(200)]
        gaps = [int((row == 0).sum()) for row in sung]
        assert 0.2 < np.mean(np.array(gaps) > 0) < 0.45
        assert max(gaps) < 40
        resting = [with_errors(0 * self.F0[:1], np.random.default_rng(seed))[0] for seed in range(200)]
        ghosts = [row for row in resting if row.any()]
        assert 0.05 < len(ghosts) / 200 < 0.35  # most ghosts are another voice's note, and here nobody sings
        assert all(100 <= row[row > 0].min() <= row.max() <= 500 for row in ghosts)

    def test_borders_move_by_a_tenth_of_a_second_at_most(self, monkeypatch):
        monkeypatch.setattr("vocalsep.training.f0_errors._GAP", 0.0)
        monkeypatch.setattr("vocalsep.training.f0_errors._GHOST", 0.0)
        f0 = self.F0[:1].copy()
        f0[:, 100:150] = 0
        moves = []
        for seed in range(100):
            found = with_errors(f0, np.random.default_rng(seed))[0, 80:170] > 0
            end, start = np.flatnonzero(np.diff(found.astype(int)))
            moves.append((end - 19, start - 69))
        assert np.abs(moves).max() == 6
        assert len({move for pair in moves for move in pair}) > 8

    def test_a_source_makes_the_share_that_is_asked_for(self, sing):
        f0 = np.full((1, 200), 200.0, np.float32)
        take = Take("bass", sing(f0)[0], f0)
        rng = np.random.default_rng(0)
        source = SingerSource([{"bass": [take]}], (2, 2), 60, augmented=False, f0_errors=0.5)
        wrong = np.mean([bool((source.draw(rng, 1).f0 != 200).any()) for _ in range(60)])
        assert 0.3 < wrong < 0.7
