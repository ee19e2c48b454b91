"""The unsupervised loss: the power of the synthesised voices, summed, must match the mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalsep.audio import MODEL_SAMPLE_RATE
from vocalsep.spectrum import StftGrid, power
from vocalsep.synthesizer.parameters import VoiceParameters
from vocalsep.synthesizer.render import voice_power

WINDOWS = (2048, 1024, 512)
"""Samples at 16 kHz of the spectrograms that are compared."""
_FLOOR = 1e-3  # of magnitude, relative to the mean of the mixture's: 60 dB below it nothing counts


def loss_grids() -> tuple[StftGrid, ...]:
    """Return the grids on which mixture and synthesis are compared."""
    return tuple(StftGrid.of_duration(MODEL_SAMPLE_RATE, window / MODEL_SAMPLE_RATE) for window in WINDOWS)


def spectral_distance(expected_power: Tensor, target_power: Tensor) -> Tensor:
    """Return the distance between two power spectrograms: L1 of magnitudes plus L1 of log-magnitudes.

    Magnitudes are relative to the mean of the target's, so that loudness does not weigh.

    Parameters
    ----------
    expected_power, target_power
        Shape (batch, frequency bins, frames).

    Returns
    -------
    Tensor
        Scalar, mean over the batch.
    """
    target = target_power.sqrt()
    mean = target.mean(dim=(-1, -2), keepdim=True).clamp_min(1e-8)
    target = target / mean
    expected = (expected_power / mean**2 + 1e-10).sqrt()
    linear = (expected - target).abs().mean()
    logarithmic = (torch.log(expected + _FLOOR) - torch.log(target + _FLOOR)).abs().mean()
    return linear + logarithmic


def mixture_loss(parameters: VoiceParameters, mixture: Tensor) -> Tensor:
    """Return the unsupervised loss, a multi-resolution spectral distance (US, section III).

    Parameters
    ----------
    parameters
        Of the voices, with leading axis batch.
    mixture
        Shape (batch, samples) at 16 kHz.
    """
    distances = [
        spectral_distance(voice_power(parameters, grid).sum(dim=-3), power(mixture, grid)) for grid in loss_grids()
    ]
    return torch.stack(distances).mean()
