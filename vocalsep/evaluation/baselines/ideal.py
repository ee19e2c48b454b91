"""The ideal ratio mask, made of the true stems: the ceiling of all separation by soft masks."""

from __future__ import annotations

import torch

from vocalsep.audio import Float32
from vocalsep.dsp.stft import StftGrid, istft, power, stft
from vocalsep.model.masks import soft_masks


def separate_ideal(mixture: Float32, stems: Float32, sample_rate: int) -> Float32:
    """Return stems of shape (voices, samples) cut by the power ratio of the true stems, (voices, samples)."""
    grid = StftGrid.of_duration(sample_rate)
    masks = soft_masks(power(torch.from_numpy(stems), grid))
    return istft(masks * stft(torch.from_numpy(mixture), grid), grid, len(mixture)).numpy()
