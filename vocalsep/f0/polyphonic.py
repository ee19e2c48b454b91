"""F0 of every voice in a mixture: posteriors of the tracker network, candidates, one Viterbi path per voice.

1. The network (`vocalsep.f0.network`) gives the probability of every pitch, and of silence, for each voice and frame.
2. Each posterior is reduced to a few candidates: its peaks, each with the probability that f0 lies within 50 cents of
   it, and with the centroid of the posterior around it, which is far more exact than the grid.
3. A Viterbi path through candidates and rests is the track of a voice; its probabilities are the confidence.

Steps 1 and 2 process 4 s at a time with 2 s of context, step 3 a minute with 8 s, so memory stays bounded. Only the
loudness of the whole recording, which scales the input of the network, reaches further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.chunks import chunks, with_context
from vocalsep.f0 import viterbi
from vocalsep.f0.network import LEVEL_BLOCK, Logits, Tracker, TrackerConfig, describe, harmonic_stack, loudness_gain
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP_LENGTH
from vocalsep.voices import Voice

# Frames for the network (4 s), and their context (2 s). The recurrent layer saw 4 s in training; with half a minute a
# voice that rests for long stays lost when it comes back.
_CHUNK_FRAMES, _CONTEXT_FRAMES = 250, 125
_WINDOW_FRAMES = 8  # half of the longest window, 256 ms
# Chunks for a Viterbi path, and their context. After 8 s, paths from different starts have converged.
_PATH_CHUNKS, _PATH_CONTEXT = 15, 2
_SILENCE = 1e-5  # full scale (-100 dB): a recording with a lower peak is silent
_CANDIDATES = 6  # peaks kept of each posterior; the right one is hardly ever further down
_TOLERANCE = 50.0  # cents: the tolerance of the field's measures
_TINY = 1e-9

# Bias and calibration were chosen with weights of the development split on the held-out ends of singers 1 and 2 and on
# Locus Iste, the costs on singer 2 with weights that knew singer 1 only. The evidence for a note is its probability
# within +-50 cents over that of a rest. Even so the weights, trained on reverberant rooms and noise, prefer rests, and
# the more so the fewer voices there are.
_VOICING_BIAS, _SMALL_BIAS = -1.0, 6.0  # nats for singing rather than resting: constant, and over the number of voices
_CALIBRATION = (1.2, 1.8)  # slope, and nats
_STEP_COST = 1.0  # nats for each semitone between two frames
_LEAP_COST = 5.0  # nats at most: a new note
_ONSET_COST, _OFFSET_COST = 2.0, 2.0  # nats
# Voices are decoded one by one, so two may take the same note: each is decoded again while the others are fixed
# (iterated conditional modes: J. Besag, "On the statistical analysis of dirty pictures", J. R. Stat. Soc. B 1986).
_UNISON_COST = 3.0  # nats for the note of another voice, times its probability
_SWEEPS = 2


class Candidates(NamedTuple):
    """The notes that each voice may sing in each frame."""

    probability: Float32
    """Probability that f0 lies within 50 cents, shape (voices, frames, candidates); 0 for no candidate."""
    position: Float32
    """Position on the network's grid in bins, shape (voices, frames, candidates)."""
    silent: Float32
    """Probability of silence, shape (voices, frames)."""

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return candidates of consecutive frames as one."""
        return cls(*(np.concatenate(group, axis=1) for group in zip(*parts, strict=True)))


def track(
    downmix: Downmix,
    voices: tuple[Voice, ...],
    network: Tracker,
    *,
    voicing_bias: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> F0Tracks:
    """Track the f0 of every voice, high to low, in a recording of any length; see `vocalsep.track_polyphonic`."""
    bias = _VOICING_BIAS + _SMALL_BIAS / max(len(voices), 2) + voicing_bias
    tracks = []
    stream = find_candidates(downmix, voices, network, progress)
    for before, own, after in with_context(stream, _PATH_CHUNKS, _PATH_CONTEXT):
        start, length = (sum(part.silent.shape[1] for part in parts) for parts in (before, own))
        found = Candidates.joined([*before, *own, *after])
        tracks.append(_path(found, slice(start, start + length), network.config, bias))
    f0, confidence = (np.concatenate(group, axis=1) for group in zip(*tracks, strict=True))
    return F0Tracks(f0, tuple(voice.name for voice in voices), confidence=confidence)


def _path(candidates: Candidates, inner: slice, config: TrackerConfig, bias: float) -> tuple[Float32, Float32]:
    """Return f0 and confidence, shape (voices, frames), of the inner frames of some candidates."""
    chosen = decode(candidates, config.bins_per_octave, bias)[:, inner]
    picked = np.maximum(chosen, 0)[..., None]
    position = np.take_along_axis(candidates.position[:, inner], picked, axis=-1)[..., 0].astype(np.float64)
    probability = np.take_along_axis(candidates.probability[:, inner], picked, axis=-1)[..., 0]
    sung = chosen >= 0
    f0 = np.where(sung, config.fmin * np.exp2(position / config.bins_per_octave), 0)
    return f0.astype(np.float32), np.where(sung, _calibrated(probability), 0)


def _calibrated(probability: Float32) -> Float32:
    """Return calibrated probabilities by Platt scaling of the log-odds.

    J. Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    odds = np.log(np.maximum(probability, _TINY)) - np.log(np.maximum(1 - probability, _TINY))
    calibrated: Float32 = (1 / (1 + np.exp(-(_CALIBRATION[0] * odds + _CALIBRATION[1])))).astype(np.float32)
    return calibrated


class _Normalised:
    """A downmix without its mean, at the loudness that the network was trained on."""

    def __init__(self, downmix: Downmix) -> None:
        self.downmix = downmix
        total = sum(block.sum(dtype=np.float64) for block in downmix.blocks())
        self._mean = np.float32(total / downmix.samples)
        self.peak = 0.0
        """Peak of the downmix about its mean."""
        energies = []
        for block in downmix.blocks():
            centred = block - self._mean
            self.peak = max(self.peak, float(np.abs(centred).max()))
            whole = len(centred) // LEVEL_BLOCK * LEVEL_BLOCK if downmix.samples >= LEVEL_BLOCK else len(centred)
            if whole:
                energies.append(np.square(centred[:whole].reshape(max(1, whole // LEVEL_BLOCK), -1)).mean(axis=1))
        self._gain = float(loudness_gain(torch.from_numpy(np.concatenate(energies))))

    def read(self, first: int, last: int) -> Tensor:
        """Return samples first ... last - 1, shape (last - first,), with silence outside the recording."""
        waveform = self.downmix.read(first, last)
        inside = slice(max(0, -first), max(0, self.downmix.samples - first))
        waveform[inside] -= self._mean
        return torch.from_numpy(waveform).mul_(self._gain)


def find_candidates(
    downmix: Downmix,
    voices: tuple[Voice, ...],
    network: Tracker,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Candidates]:
    """Yield the candidates of every voice, 4 s at a time; the parameters are those of `track`."""
    device = next(network.parameters()).device
    recording = _Normalised(downmix)
    descriptions = describe(voices)[None].to(device)
    inside = _inside(network.config, voices).to(device)
    for chunk in chunks(downmix.n_frames, _CHUNK_FRAMES, _CONTEXT_FRAMES):
        start, stop = chunk.low - _WINDOW_FRAMES, chunk.high + _WINDOW_FRAMES
        waveform = recording.read(start * HOP_LENGTH, stop * HOP_LENGTH)
        with torch.inference_mode():
            stack = harmonic_stack(waveform, network.config, chunk.low - start, chunk.high - start)[None].to(device)
            logits = Logits(*(part[0, :, chunk.inner] for part in network(stack, descriptions)))
            if recording.peak < _SILENCE:
                logits = Logits(torch.full_like(logits.pitch, -torch.inf), torch.zeros_like(logits.silent))
            yield peaks(logits, inside, network.config)
        progress(chunk.last / downmix.n_frames)


def _inside(config: TrackerConfig, voices: tuple[Voice, ...]) -> Tensor:
    """Return the pitches in the range of each voice, shape (voices, pitches)."""
    pitches, half_step = config.pitches(), 2 ** (0.5 / config.bins_per_octave)
    return torch.stack([(pitches * half_step >= v.fmin) & (pitches <= v.fmax * half_step) for v in voices])


def peaks(logits: Logits, inside: Tensor, config: TrackerConfig) -> Candidates:
    """Return the peaks of posteriors; `inside`, shape (voices, pitches), is the range of each voice."""
    pitch = logits.pitch.masked_fill(~inside[:, None], -torch.inf)
    everything = torch.cat([pitch, logits.silent[..., None]], dim=-1).softmax(dim=-1)
    posterior, silent = everything[..., :-1], everything[..., -1]
    reach = int(_TOLERANCE / 1200 * config.bins_per_octave)  # bins
    around = torch.nn.functional.pad(posterior, (reach, reach)).unfold(-1, 2 * reach + 1, 1)
    mass = around.sum(dim=-1)
    crest = torch.nn.functional.max_pool1d(mass, 2 * reach + 1, stride=1, padding=reach)
    crests = torch.where((mass == crest) & inside[:, None], mass, torch.zeros_like(mass))
    probability, index = crests.topk(_CANDIDATES, dim=-1)
    weight = around.gather(-2, index[..., None].expand(*index.shape, around.shape[-1]))
    offset = torch.arange(-reach, reach + 1, device=weight.device)
    centroid = index + (weight * offset).sum(dim=-1) / weight.sum(dim=-1).clamp_min(_TINY)
    return Candidates(*(part.float().cpu().numpy() for part in (probability, centroid, silent)))


def decode(candidates: Candidates, bins_per_octave: int, voicing_bias: float = 0.0) -> NDArray[np.int64]:
    """Return the index of the candidate that each voice sings in each frame, shape (voices, frames), -1 = none.

    `voicing_bias` is in nats in favour of singing over resting.
    """
    score = np.log(np.maximum(candidates.probability, _TINY)) - np.log(np.maximum(candidates.silent, _TINY))[..., None]
    score = np.where(candidates.probability > 0, score + voicing_bias, -np.inf).astype(np.float32)
    semitones = candidates.position * (12 / bins_per_octave)

    path = partial(
        viterbi.decode_candidates,
        step_cost=_STEP_COST,
        leap_cost=_LEAP_COST,
        onset_cost=_ONSET_COST,
        offset_cost=_OFFSET_COST,
    )
    chosen = path(score, semitones)
    for voice in [*range(len(score))] * _SWEEPS:
        conflicts = _conflicts(candidates, chosen, voice, bins_per_octave)
        if conflicts.any():
            chosen[voice] = path((score[voice] - conflicts)[None], semitones[voice : voice + 1])[0]
    return chosen


def _conflicts(candidates: Candidates, chosen: NDArray[np.int64], voice: int, bins_per_octave: int) -> Float32:
    """Return the cost in nats of taking a note of another voice, shape (frames, candidates)."""
    picked = np.maximum(chosen, 0)[..., None]
    taken = np.where(chosen[..., None] >= 0, np.take_along_axis(candidates.position, picked, axis=-1), np.nan)
    sure = np.take_along_axis(candidates.probability, picked, axis=-1)  # (voices, frames, 1)
    own = candidates.position[voice]
    cost: Float32 = np.zeros_like(own)
    for other in range(len(chosen)):
        if other != voice:
            same = np.abs(own - taken[other]) * (1200 / bins_per_octave) < _TOLERANCE
            cost += _UNISON_COST * sure[other] * same
    return cost
