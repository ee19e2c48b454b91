"""What training makes small.

For the parameter estimator, without targets: the power of the synthesised voices, summed, must match the mixture; with
stems as targets: what the masks of the voices leave over must be small, and each voice must match its stem. For the
tracker, with targets: the cross-entropy of what each voice does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, power, stft
from vocalsep.f0.network import Logits, Tracker, harmonic_stack, normalised
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_powers
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.data import Batch
from vocalsep.training.ensembles import EnsembleBatch

WINDOWS = (2048, 1024, 512)
"""Samples at 16 kHz of the spectrograms that are compared."""
_FLOOR = 1e-3  # of magnitude, relative to the mean of the mixture's: 60 dB below it nothing counts
_STEP = 3
"""One frame in so many is compared, 48 ms apart: windows of 128 ms overlap enough, and a step takes half the time."""

_STEM_SHARE = 0.3  # of the distance between stems and voices, beside what masks leave over
_SEGMENTS = 4  # of an excerpt, about 1 s each, whose distortion counts alike, loud or soft
_AUDIBLE = 3e-3  # of a segment's energy, -25 dB: stems and errors below it do not count
_SILENT_WEIGHT = 0.1  # of segments in which a voice is silent


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
    grids = loss_grids()
    voices = voice_powers(parameters, grids, step=_STEP)
    distances = [
        spectral_distance(expected.sum(dim=-3), power(mixture, grid)[..., ::_STEP])
        for expected, grid in zip(voices, grids, strict=True)
    ]
    return torch.stack(distances).mean()


def estimator_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the unsupervised loss of a network that estimates parameters, on a batch."""
    device = next(network.parameters()).device
    mixture = batch.mixture.to(device)
    return mixture_loss(network(mixture, batch.f0.to(device)), mixture)


def supervised_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of a network that estimates parameters, by stems where the batch knows them, else without."""
    if batch.stems is None:
        return estimator_loss(network, batch)
    device = next(network.parameters()).device
    mixture, stems = batch.mixture.to(device), batch.stems.to(device)
    return stem_loss(network(mixture, batch.f0.to(device)), mixture, stems)


def stem_loss(parameters: VoiceParameters, mixture: Tensor, stems: Tensor) -> Tensor:
    """Return the supervised loss: log distortion of the masked mixture, and spectral distance of each voice.

    Parameters
    ----------
    parameters
        Of the voices, with leading axis batch.
    mixture
        Shape (batch, samples) at 16 kHz.
    stems
        Shape (batch, voices, samples).
    """
    grid = loss_grids()[0]
    heard = instantaneous_frequency(mixture, grid)[..., ::_STEP]
    plain, sharp = voice_powers(parameters, (grid, grid), step=_STEP, instantaneous_frequency=(None, heard))
    spectrum, target = stft(mixture, grid)[..., ::_STEP], stft(stems, grid)[..., ::_STEP]
    left = soft_masks(sharp) * spectrum[:, None] - target
    return distortion(left, target, spectrum) + _STEM_SHARE * spectral_distance(
        plain.flatten(0, 1), target.abs().square().flatten(0, 1)
    )


def distortion(left: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Return the mean log ratio of the energy of what is left over to that of a stem, over segments of about 1 s.

    Parameters
    ----------
    left, target
        Spectra of the error and of the stem, shape (batch, voices, frequency bins, frames).
    mixture
        Its spectrum, shape (batch, frequency bins, frames).
    """
    length = max(1, left.shape[-1] // _SEGMENTS)

    def energy(spectrum: Tensor) -> Tensor:
        frames = (spectrum.real**2 + spectrum.imag**2).sum(dim=-2)
        whole = frames[..., : frames.shape[-1] // length * length]
        return whole.reshape(*whole.shape[:-1], -1, length).sum(dim=-1)

    threshold = _AUDIBLE * energy(mixture)[:, None] + 1e-9
    wanted = energy(target)
    ratio = torch.log((energy(left) + threshold) / (wanted + threshold))
    weight = wanted / (wanted + threshold) + _SILENT_WEIGHT
    return (ratio * weight).sum() / weight.sum()


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
