"""Soft masks, stems cut with them, and the gate of the residual."""

import pytest
import torch

from vocalsep.dsp.stft import StftGrid
from vocalsep.model.masks import cut, near_notes, residual_gate, soft_masks


def powers(*shape: int, decades: float = 12) -> torch.Tensor:
    """Return powers over many decades, as in spectra."""
    return 10 ** (decades * (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 1))


class TestSoftMasks:
    def test_they_are_shares(self):
        for shape in (1, 9, 5), (8, 30, 20), (3, 4, 30, 20):
            masks = soft_masks(powers(*shape))
            assert masks.shape == shape
            assert 0 <= masks.min() <= masks.max() <= 1
            assert (masks.sum(dim=-3) - 1).abs().max() < 1e-6
        masks = soft_masks(torch.tensor([4.0, 1.0, 0.0])[:, None, None] * 1e-6)
        assert masks.flatten().tolist() == pytest.approx([0.8, 0.2, 0.0], abs=1e-6)

    def test_shares_of_silence_are_equal(self):
        power = powers(5, 30, 20, decades=4)
        power[:, :, 7] = 0
        masks = soft_masks(power)
        assert masks[:, :, 7].numpy() == pytest.approx(0.2, abs=1e-6)
        assert masks[:, :, 8].std() > 0.1

    def test_loudness_does_not_matter(self):
        power = powers(3, 30, 20, decades=3)
        assert (soft_masks(power) - soft_masks(1e-4 * power)).abs().max() < 1e-5


@pytest.mark.parametrize("samples", [100, 60_000])
def test_stems_add_up_to_the_recording(samples):
    waveform = torch.rand(samples, generator=torch.Generator().manual_seed(0)) - 0.5
    grid = StftGrid.of_duration()
    expected = powers(3, grid.n_bins, grid.n_frames(samples))
    stems = cut(waveform, grid, 3, lambda first, last: expected[..., first:last])
    assert (stems.sum(dim=0) - waveform).abs().max() < 1e-5


def test_near_notes_reach_both_ways():
    f0 = torch.zeros(1, 10)
    f0[0, 4] = 220.0
    assert near_notes(f0, 2).tolist() == [[0, 0, 1, 1, 1, 1, 1, 0, 0, 0]]


class TestResidualGate:
    def test_it_holds_160_ms_and_fades(self):
        f0 = torch.zeros(2, 100)
        f0[1, 40:60] = 220.0
        gate = residual_gate(f0)
        # Held 10 frames either side (30 ... 69), faded over 5: still 1 two frames inside, 0 three frames outside.
        assert (gate[32:68] == 1).all()
        assert gate[27:32].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
        assert gate[68:73].tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
        assert gate[:28].abs().max() < 1e-6
        assert gate[72:].abs().max() < 1e-6

    @pytest.mark.parametrize(("gap", "least"), [(5, 1.0), (16, 1.0), (60, 0.0)])
    def test_short_rests_belong_to_the_voices(self, gap, least):
        f0 = torch.full((1, 150), 220.0)
        f0[:, 50 : 50 + gap] = 0
        assert float(residual_gate(f0).min()) == pytest.approx(least, abs=1e-6)

    @pytest.mark.parametrize("frames", [1, 2, 7, 300])
    @pytest.mark.parametrize("f0", [0.0, 300.0])
    def test_all_or_nothing(self, f0, frames):
        gate = residual_gate(torch.full((3, frames), f0))
        assert gate.tolist() == pytest.approx([float(f0 > 0)] * frames)
