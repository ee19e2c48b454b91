"""What training makes small.

For the parameter estimator, without targets: the power of the synthesised voices, summed, must match the mixture. For
the tracker, with targets: the cross-entropy of what each voice does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocalsep.audio import MODEL_SAMPLE_RATE
from vocalsep.estimator import Estimator
from vocalsep.f0.tracker import Logits, Tracker, harmonic_stack, normalised
from vocalsep.spectrum import StftGrid, power
from vocalsep.synthesizer.parameters import VoiceParameters
from vocalsep.synthesizer.render import voice_power
from vocalsep.training.data import Batch
from vocalsep.training.ensembles import EnsembleBatch

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


def estimator_loss(network: Estimator, batch: Batch) -> Tensor:
    """Return the loss of a parameter estimator on a batch."""
    device = next(network.parameters()).device
    mixture = batch.mixture.to(device)
    return mixture_loss(network(mixture, batch.f0.to(device)), mixture)


def tracking_loss(logits: Logits, f0: Tensor, pitches: Tensor) -> Tensor:
    """Return the mean cross-entropy of every voice and frame, in nats.

    The target of a sung frame is a bell of one grid step's width about the true f0, which lets the posterior's
    centroid tell f0 far below a step, and forgives a target's few cents of error.

    Parameters
    ----------
    logits
        What a tracker returns.
    f0
        Hz, shape (batch, voices, frames), 0 = unvoiced.
    pitches
        The grid in Hz, shape (pitches,).
    """
    log_pitches = torch.log2(pitches).to(f0)
    step = log_pitches[1] - log_pitches[0]
    distance = (torch.log2(f0.clamp_min(1.0))[..., None] - log_pitches) / step
    bell = torch.softmax(-0.5 * distance**2, dim=-1)
    # What lies outside the grid cannot be said: such frames do not count.
    known = (f0 <= 0) | ((f0 > pitches[0]) & (f0 < pitches[-1]))
    everything = torch.cat([logits.pitch, logits.silent[..., None]], dim=-1).log_softmax(dim=-1)
    sung = -(bell * everything[..., :-1]).sum(dim=-1)
    nats = torch.where(f0 > 0, sung, -everything[..., -1])
    return (nats * known).sum() / known.sum().clamp_min(1)


class TrackerLoss:
    """The loss of a tracker on a batch.

    Parameters
    ----------
    half
        Whether convolutions run in bfloat16: twice as fast on processors that have instructions for it.
    """

    def __init__(self, *, half: bool) -> None:
        self.half = half

    def __call__(self, network: Tracker, batch: EnsembleBatch) -> Tensor:
        """Return the mean cross-entropy in nats."""
        device = next(network.parameters()).device
        with torch.no_grad():
            stack = harmonic_stack(normalised(batch.mixture.to(device)), network.config)
            stack = stack[..., : batch.f0.shape[-1]]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            logits = network(stack, batch.voices.to(device))
        return tracking_loss(logits, batch.f0.to(device), network.config.pitches().to(device))
