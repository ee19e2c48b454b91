"""Losses.

The parameter estimator learns without targets that the power of the synthesised voices adds up to the power of the
mixture. With stems as targets, it learns that the masks of the voices leave little of the other voices, and that each
voice matches its stem. In a room, the network hears the mixture without the room, and the room is added to the power
of its voices before they are compared. The tracker learns with f0 as target, by cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, istft, power, squared_magnitude, stft
from vocalsep.f0.network import Logits, Tracker, harmonic_stack, normalised
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import RoomParameters, dried_spectrum, reverberation
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_powers
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.data import Batch

_GRIDS = tuple(StftGrid.of_duration(MODEL_SAMPLE_RATE, window / MODEL_SAMPLE_RATE) for window in (2048, 1024, 512))
"""Grids of the spectrograms that are compared."""
_FLOOR = 1e-3  # magnitude, relative to the mixture's mean, below which differences do not count (-60 dB)
_STEP = 3  # every third frame is compared: windows of 128 ms overlap enough, and a step takes half the time

_STEM_SHARE = 0.3  # weight of the distance between stems and voices, next to the distortion
_SEGMENTS = 4  # segments of an excerpt, about 1 s each, whose distortion counts equally, loud or soft
_AUDIBLE = 3e-3  # fraction of a segment's energy (-25 dB) below which stems and errors do not count
_SILENT_WEIGHT = 0.1  # weight of segments in which a voice is silent


def spectral_distance(expected_power: Tensor, target_power: Tensor) -> Tensor:
    """Return the distance between power spectrograms of shape (batch, frequency bins, frames), mean over the batch.

    It is the L1 norm of magnitudes plus that of log-magnitudes. Magnitudes are relative to the mean of the target, so
    the loudness of the target has no influence.
    """
    target = target_power.sqrt()
    mean = target.mean(dim=(-1, -2), keepdim=True).clamp_min(1e-8)
    target = target / mean
    expected = (expected_power / mean**2 + 1e-10).sqrt()
    linear = (expected - target).abs().mean()
    logarithmic = (torch.log(expected + _FLOOR) - torch.log(target + _FLOOR)).abs().mean()
    return linear + logarithmic


def dried_waveform(waveform: Tensor, room: RoomParameters | None, grid: StftGrid = _GRIDS[0]) -> Tensor:
    """Return waveforms, shape (batch, samples), without their rooms, shape (batch,); the phase stays as it is."""
    if room is None:
        return waveform
    with torch.no_grad():
        return istft(dried_spectrum(stft(waveform, grid), room)[0], grid, waveform.shape[-1])


def mixture_loss(parameters: VoiceParameters, mixture: Tensor, room: RoomParameters | None = None) -> Tensor:
    """Return the unsupervised loss for mixtures of shape (batch, samples) at 16 kHz, in rooms of shape (batch,).

    It is the multi-resolution spectral distance of US (section III). The room is added to the power of the voices.
    """
    distances = [
        spectral_distance(_heard(voices, room).sum(dim=-3), power(mixture, grid)[..., ::_STEP])
        for voices, grid in zip(voice_powers(parameters, _GRIDS, step=_STEP), _GRIDS, strict=True)
    ]
    return torch.stack(distances).mean()


def stem_loss(
    parameters: VoiceParameters,
    mixture: Tensor,
    stems: Tensor,
    room: RoomParameters | None = None,
    dry: Tensor | None = None,
) -> Tensor:
    """Return the supervised loss for mixtures of shape (batch, samples) and stems of shape (batch, voices, samples).

    It is the distortion of the masked mixture, plus the spectral distance between each voice and its stem. In rooms,
    shape (batch,), mixtures and stems hold the reverberation, and `dry` are the mixtures without it.
    """
    grid = _GRIDS[0]
    frequency = instantaneous_frequency(mixture if dry is None else dry, grid)[..., ::_STEP]
    powers = voice_powers(parameters, (grid, grid), step=_STEP, instantaneous_frequency=(None, frequency))
    plain, sharp = (_heard(voices, room) for voices in powers)
    spectrum, target = stft(mixture, grid)[..., ::_STEP], stft(stems, grid)[..., ::_STEP]
    error = soft_masks(sharp) * spectrum[:, None] - target
    distance = spectral_distance(plain.flatten(0, 1), squared_magnitude(target).flatten(0, 1))
    return distortion(error, target, spectrum) + _STEM_SHARE * distance


def _heard(voices: Tensor, room: RoomParameters | None) -> Tensor:
    """Return the power that is heard of voices in a room, from the power that they sing in every third frame."""
    return voices if room is None else voices + reverberation(voices, room, step=_STEP)[..., :-1]


def distortion(error: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Return the mean log ratio between the energies of error and stem, over segments of about 1 s.

    The spectra have the shape (batch, voices, frequency bins, frames), that of the mixture has no axis of voices.
    """
    length = max(1, error.shape[-1] // _SEGMENTS)

    def energy(spectrum: Tensor) -> Tensor:
        frames = (spectrum.real**2 + spectrum.imag**2).sum(dim=-2)
        whole = frames[..., : frames.shape[-1] // length * length]
        return whole.reshape(*whole.shape[:-1], -1, length).sum(dim=-1)

    threshold = _AUDIBLE * energy(mixture)[:, None] + 1e-9
    wanted = energy(target)
    ratio = torch.log((energy(error) + threshold) / (wanted + threshold))
    weight = wanted / (wanted + threshold) + _SILENT_WEIGHT
    return (ratio * weight).sum() / weight.sum()


def estimator_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the unsupervised loss of a network that estimates parameters.

    The network hears the mixtures without their rooms. With the rooms, its voices must add up to the mixtures.
    """
    mixture, f0 = _on_device(network, batch.mixture, batch.f0)
    return mixture_loss(network(dried_waveform(mixture, batch.room), f0), mixture, batch.room)


def supervised_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the supervised loss of a network that estimates parameters; without stems, the unsupervised loss."""
    if batch.stems is None:
        return estimator_loss(network, batch)
    mixture, f0, stems = _on_device(network, batch.mixture, batch.f0, batch.stems)
    dry = dried_waveform(mixture, batch.room)
    return stem_loss(network(dry, f0), mixture, stems, batch.room, dry)


def tracking_loss(logits: Logits, f0: Tensor, pitches: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of logits against f0 in Hz, shape (batch, voices, frames).

    The target of a sung frame is a bell around the true f0 with the width of one step of the grid of pitches in Hz. So
    the centroid of the posterior resolves f0 far below a step, and an error of a few cents in the target costs little.
    """
    log_pitches = torch.log2(pitches).to(f0)
    step = log_pitches[1] - log_pitches[0]
    distance = (torch.log2(f0.clamp_min(1.0))[..., None] - log_pitches) / step
    bell = torch.softmax(-0.5 * distance**2, dim=-1)
    inside = (f0 <= 0) | ((f0 > pitches[0]) & (f0 < pitches[-1]))  # other frames do not count
    log_probability = torch.cat([logits.pitch, logits.silent[..., None]], dim=-1).log_softmax(dim=-1)
    sung = -(bell * log_probability[..., :-1]).sum(dim=-1)
    nats = torch.where(f0 > 0, sung, -log_probability[..., -1])
    return (nats * inside).sum() / inside.sum().clamp_min(1)


def tracker_loss(network: Tracker, batch: Batch, *, bfloat16: bool = False) -> Tensor:
    """Return the mean cross-entropy of a tracker in nats; `bfloat16` halves the time on processors that support it."""
    assert batch.voices is not None
    mixture, f0, voices = _on_device(network, batch.mixture, batch.f0, batch.voices)
    with torch.no_grad():
        stack = harmonic_stack(normalised(mixture), network.config)[..., : f0.shape[-1]]
    with torch.autocast(mixture.device.type, torch.bfloat16, enabled=bfloat16):
        logits = network(stack, voices)
    return tracking_loss(logits, f0, network.config.pitches().to(f0.device))


def _on_device(network: nn.Module, *tensors: Tensor) -> list[Tensor]:
    device = next(network.parameters()).device
    return [tensor.to(device) for tensor in tensors]
