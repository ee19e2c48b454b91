"""Training of the mask correction, with stems as targets, on the power that an estimator gives to the voices."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalsep.dsp.stft import StftGrid, spectrum_and_frequency, squared_magnitude, stft
from vocalsep.model.correction import MaskCorrection
from vocalsep.model.estimator import Estimator
from vocalsep.model.fitting import fit
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import reverberation
from vocalsep.model.synthesizer import voice_power
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.data import Batch
from vocalsep.training.losses import distortion, dried_waveform

_GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE)
_TINY = 1e-9


def correction_loss(network: MaskCorrection, batch: Batch, estimator: Estimator, *, bfloat16: bool = False) -> Tensor:
    """Return the distortion of mixtures that are masked by corrected powers, against their stems at the best scale.

    The powers are those of a separation: the estimator hears the mixtures without their rooms, its parameters are
    fitted, and the rooms are added.
    """
    assert batch.stems is not None
    device = next(network.parameters()).device
    mixture, f0, stems = (tensor.to(device) for tensor in (batch.mixture, batch.f0, batch.stems))
    with torch.no_grad():
        spectrum, frequency = spectrum_and_frequency(mixture, _GRID)
        dry = dried_waveform(mixture, batch.room)
        fitted = [
            fit(estimator(dry[row : row + 1], f0[row : row + 1]).without_batch(), dry[row]) for row in range(len(dry))
        ]
        power = torch.stack(
            [
                voice_power(parameters, _GRID, instantaneous_frequency=heard)
                for parameters, heard in zip(fitted, frequency, strict=True)
            ]
        )
        if batch.room is not None:
            power = power + reverberation(power, batch.room)[..., :-1]
        moved = torch.stack([parameters.f0 for parameters in fitted])
        target = stft(stems, _GRID)
    with torch.autocast(mixture.device.type, torch.bfloat16, enabled=bfloat16):
        corrected = network(power, squared_magnitude(spectrum), frequency, moved, _GRID)
    estimate = soft_masks(corrected) * spectrum[:, None]
    # As SI-SDR does: without it, the first thing to learn is to turn voices down that are hard to separate.
    overlap, energy = (estimate * target.conj()).real, squared_magnitude(target)
    target = target * (overlap.sum(dim=(-1, -2)) / energy.sum(dim=(-1, -2)).clamp_min(_TINY))[..., None, None]
    return distortion(estimate - target, target, spectrum)
