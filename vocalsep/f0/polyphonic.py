"""F0 of every voice in a mixture: posteriors of the tracker network, candidates, one Viterbi path for each voice.

1. The network (`vocalsep.f0.network`) says for each voice and frame how likely it is to sing each pitch, or to rest.
2. What is left of that posterior is a handful of candidates: its peaks, each with the probability that f0 lies within
   50 cents of it and the centroid of the posterior around it, which tells f0 far below a step of the grid.
3. A Viterbi path through candidates and rests is the track of a voice; its probabilities are the confidence.

Steps 1 and 2 go through the recording in chunks of 4 s, at fixed places, with 2 s of context on both sides, step 3 in
spans of a minute with 8 s: memory does not grow with its length, and what is further away than the context cannot
change a frame (but for the loudness of the whole, to which it is brought). Paths that begin anywhere have long met by
then.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vocalsep.audio import Float32, to_model_rate
from vocalsep.audio.downmix import Mixdown, mixdown_of
from vocalsep.device import resolve_device
from vocalsep.f0 import viterbi
from vocalsep.f0.network import (
    LEVEL_BLOCK,
    Logits,
    Tracker,
    TrackerConfig,
    describe,
    harmonic_stack,
    load_tracker,
    loudness_gain,
)
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP_LENGTH
from vocalsep.voices import Voice, VoicesLike, parse_voices
from vocalsep.weights.names import as_text

DEFAULT_TRACKER = "tracker"

# Frames that go through the network at once (4 s), and on both sides of them (2 s). Not more: in training the recurrent
# layer hears 4 s, and with half a minute it would believe too long that a voice is not there.
_CHUNK_FRAMES, _CONTEXT_FRAMES = 250, 125
_WINDOW_FRAMES = 8  # on both sides: half of the longest window, 256 ms
_SPAN_CHUNKS, _SPAN_CONTEXT = 15, 2  # chunks whose paths are found at once, and on both sides of them
_SILENCE = 1e-5  # full scale (-100 dB): the peak of a recording with nothing in it
_CANDIDATES = 6  # peaks of a posterior that are kept; the right one is hardly ever further down
_TOLERANCE = 50.0  # cents: what counts as right in the field's measures
_TINY = 1e-9

# Bias and calibration were chosen with weights of the development split on the held-out ends of singers 1 and 2 and on
# Locus Iste, the costs on singer 2 with weights that knew singer 1 only. A note is weighed by all its probability
# within 50 cents, not by the one best step of the grid, against that of a rest. Even so the weights say rest too
# often, having learned in wet rooms and noise where much is uncertain, and the more so the fewer voices are asked for.
_VOICING_BIAS, _SMALL_BIAS = -1.0, 6.0  # nats for singing rather than resting: constant, and over the number of voices
_CALIBRATION = (1.2, 1.8)  # slope, and nats
_STEP_COST = 1.0  # nats for each semitone between two frames
_LEAP_COST = 5.0  # nats at most: a new note
_ONSET_COST, _OFFSET_COST = 2.0, 2.0  # nats
# Voices are read off one by one, so two may take one note: each is weighed again, knowing the others (iterated
# conditional modes: J. Besag, "On the statistical analysis of dirty pictures", J. R. Stat. Soc. B 1986).
_UNISON_COST = 3.0  # nats for the note of another voice, times its probability; a cost of crossing changes nothing
_SWEEPS = 2


class Candidates(NamedTuple):
    """What each voice may sing in each frame."""

    probability: Float32
    """That f0 lies within 50 cents of the candidate, shape (voices, frames, candidates); 0 for none."""
    position: Float32
    """Of the candidate on the network's grid, in bins, shape (voices, frames, candidates)."""
    silent: Float32
    """Probability that the voice is unvoiced, shape (voices, frames)."""

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return candidates of consecutive frames as one."""
        return cls(*(np.concatenate(group, axis=1) for group in zip(*parts, strict=True)))


def track_polyphonic(
    audio: ArrayLike,
    sample_rate: int,
    voices: VoicesLike = "SATB",
    *,
    model: str | os.PathLike[str] = DEFAULT_TRACKER,
    device: str = "auto",
    voicing_bias: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> F0Tracks:
    """Track the f0 of every voice of a mixture on the 16-ms grid.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples); channels are mixed.
    sample_rate
        Hz.
    voices
        The voices to find, high to low, as `vocalsep.voices.parse_voices` understands them. A section of singers on
        one part is one voice.
    model
        Weights of a tracker: name, path of a .safetensors file, or file on the Hub; see `vocalsep.weights.names`.
    device
        "auto", "cpu", "cuda" or "mps".
    voicing_bias
        Nats added to the evidence for every pitch: above 0 finds more notes, below 0 fewer.
    progress
        Called with the fraction that is done.

    Returns
    -------
    F0Tracks
        Hz, 0 = unvoiced, with confidence: the probability that f0 is right to 50 cents, 0 where unvoiced.

    Raises
    ------
    AudioError
        If the audio is empty, not finite or of a wrong shape.
    VoicesError
        If `voices` cannot be understood.
    WeightsError
        If the weights are unknown, missing or corrupt.
    OptionError
        If the device is not there.
    """
    return track_mixdown(
        mixdown_of(to_model_rate(audio, sample_rate)),
        voices,
        model=model,
        device=device,
        voicing_bias=voicing_bias,
        progress=progress,
    )


def track_mixdown(
    mixdown: Mixdown,
    voices: VoicesLike = "SATB",
    *,
    model: str | os.PathLike[str] = DEFAULT_TRACKER,
    device: str = "auto",
    voicing_bias: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> F0Tracks:
    """Track the f0 of every voice of a recording of any length; see `track_polyphonic`."""
    parts = parse_voices(voices)
    network = load_tracker(as_text(model), resolve_device(device))
    names = tuple(part.name for part in parts)
    recording = Levelled(mixdown)
    if recording.peak < _SILENCE:
        nothing = np.zeros((len(parts), mixdown.n_frames), dtype=np.float32)
        progress(1.0)
        return F0Tracks(nothing, names, confidence=nothing)
    config = network.config
    bias = _VOICING_BIAS + _SMALL_BIAS / max(len(parts), 2) + voicing_bias
    found = find_candidates(network, recording, parts, progress)
    tracks = [_path(*span, config, bias) for span in _spans(found)]
    f0, confidence = (np.concatenate(group, axis=1) for group in zip(*tracks, strict=True))
    return F0Tracks(f0, names, confidence=confidence)


def _path(found: Candidates, kept: slice, config: TrackerConfig, bias: float) -> tuple[Float32, Float32]:
    """Return f0 and confidence, shape (voices, frames), of the frames of a span that are kept."""
    chosen = decode(found, config.bins_per_octave, bias)[:, kept]
    picked = np.maximum(chosen, 0)[..., None]
    position = np.take_along_axis(found.position[:, kept], picked, axis=-1)[..., 0].astype(np.float64)
    probability = np.take_along_axis(found.probability[:, kept], picked, axis=-1)[..., 0]
    sung = chosen >= 0
    f0 = np.where(sung, config.fmin * np.exp2(position / config.bins_per_octave), 0)
    return f0.astype(np.float32), np.where(sung, _calibrated(probability), 0)


def _spans(chunks: Iterable[Candidates]) -> Iterator[tuple[Candidates, slice]]:
    """Yield chunks in spans with context on both sides, and which frames of each span are its own."""
    before: list[Candidates] = []
    held: deque[Candidates] = deque()
    for chunk in chain(chunks, (None,)):
        if chunk is not None:
            held.append(chunk)
        while held and (chunk is None or len(held) == _SPAN_CHUNKS + _SPAN_CONTEXT):
            own = [held.popleft() for _ in range(min(_SPAN_CHUNKS, len(held)))]
            after = list(held)[:_SPAN_CONTEXT]
            start, length = (sum(part.silent.shape[1] for part in parts) for parts in (before, own))
            yield Candidates.joined([*before, *own, *after]), slice(start, start + length)
            before = own[-_SPAN_CONTEXT:]


def _calibrated(probability: Float32) -> Float32:
    """Return how often a candidate with a probability of the network is right: Platt scaling of its log-odds.

    J. Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    odds = np.log(np.maximum(probability, _TINY)) - np.log(np.maximum(1 - probability, _TINY))
    calibrated: Float32 = (1 / (1 + np.exp(-(_CALIBRATION[0] * odds + _CALIBRATION[1])))).astype(np.float32)
    return calibrated


class Levelled:
    """A recording without its mean, at the loudness that the network knows.

    Parameters
    ----------
    mixdown
        The recording.
    """

    def __init__(self, mixdown: Mixdown) -> None:
        self.mixdown = mixdown
        total = sum(block.sum(dtype=np.float64) for block in mixdown.blocks())
        self._mean = np.float32(total / mixdown.samples)
        self.peak = 0.0
        """Of the recording about its mean, before it is brought to any loudness."""
        energies = []
        for block in mixdown.blocks():
            centred = block - self._mean
            self.peak = max(self.peak, float(np.abs(centred).max()))
            whole = len(centred) // LEVEL_BLOCK * LEVEL_BLOCK if mixdown.samples >= LEVEL_BLOCK else len(centred)
            if whole:
                energies.append(np.square(centred[:whole].reshape(max(1, whole // LEVEL_BLOCK), -1)).mean(axis=1))
        self._gain = float(loudness_gain(torch.from_numpy(np.concatenate(energies))))

    def read(self, first: int, last: int) -> Tensor:
        """Return samples first ... last - 1, shape (last - first,), with silence outside the recording."""
        waveform = self.mixdown.read(first, last)
        inside = slice(max(0, -first), max(0, self.mixdown.samples - first))
        waveform[inside] -= self._mean
        return torch.from_numpy(waveform).mul_(self._gain)


def find_candidates(
    network: Tracker,
    recording: Levelled,
    voices: tuple[Voice, ...],
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Candidates]:
    """Yield what each voice may sing, chunk by chunk.

    Parameters
    ----------
    network
        The tracker.
    recording
        What is tracked.
    voices
        High to low.
    progress
        Called with the fraction that is done.
    """
    device = next(network.parameters()).device
    described = describe(voices)[None].to(device)
    inside = _inside(network.config, voices).to(device)
    frames = recording.mixdown.n_frames
    for first in range(0, frames, _CHUNK_FRAMES):
        last = min(first + _CHUNK_FRAMES, frames)
        low, high = max(0, first - _CONTEXT_FRAMES), min(frames, last + _CONTEXT_FRAMES)
        start = low - _WINDOW_FRAMES
        waveform = recording.read(start * HOP_LENGTH, (high + _WINDOW_FRAMES) * HOP_LENGTH)
        with torch.inference_mode():
            stack = harmonic_stack(waveform, network.config, low - start, high - start)[None].to(device)
            logits = network(stack, described)
            chunk = _peaks(Logits(*(part[0, :, first - low : last - low] for part in logits)), inside, network.config)
        yield chunk
        progress(last / frames)


def _inside(config: TrackerConfig, voices: tuple[Voice, ...]) -> Tensor:
    """Return which pitches lie in the range of each voice, shape (voices, pitches)."""
    pitches, half_step = config.pitches(), 2 ** (0.5 / config.bins_per_octave)
    return torch.stack([(pitches * half_step >= v.fmin) & (pitches <= v.fmax * half_step) for v in voices])


def _peaks(logits: Logits, inside: Tensor, config: TrackerConfig) -> Candidates:
    """Return the peaks of posteriors; `inside` is of shape (voices, pitches)."""
    pitch = logits.pitch.masked_fill(~inside[:, None], -torch.inf)
    everything = torch.cat([pitch, logits.silent[..., None]], dim=-1).softmax(dim=-1)
    posterior, silent = everything[..., :-1], everything[..., -1]
    reach = int(_TOLERANCE / 1200 * config.bins_per_octave)  # bins
    around = torch.nn.functional.pad(posterior, (reach, reach)).unfold(-1, 2 * reach + 1, 1)
    mass = around.sum(dim=-1)
    crest = torch.nn.functional.max_pool1d(mass, 2 * reach + 1, stride=1, padding=reach)
    peaks = torch.where((mass == crest) & inside[:, None], mass, torch.zeros_like(mass))
    probability, index = peaks.topk(_CANDIDATES, dim=-1)
    weight = around.gather(-2, index[..., None].expand(*index.shape, around.shape[-1]))
    offset = torch.arange(-reach, reach + 1, device=weight.device)
    centroid = index + (weight * offset).sum(dim=-1) / weight.sum(dim=-1).clamp_min(_TINY)
    return Candidates(*(part.float().cpu().numpy() for part in (probability, centroid, silent)))


def decode(candidates: Candidates, bins_per_octave: int, voicing_bias: float = 0.0) -> NDArray[np.int64]:
    """Return which candidate each voice sings in each frame, shape (voices, frames), -1 = none.

    Parameters
    ----------
    candidates
        Of all voices.
    bins_per_octave
        Of the grid on which they lie.
    voicing_bias
        Nats for singing rather than resting.
    """
    score = np.log(np.maximum(candidates.probability, _TINY)) - np.log(np.maximum(candidates.silent, _TINY))[..., None]
    score = np.where(candidates.probability > 0, score + voicing_bias, -np.inf).astype(np.float32)
    semitones = candidates.position * (12 / bins_per_octave)

    def path(score: Float32, semitones: Float32) -> NDArray[np.int64]:
        return viterbi.decode_candidates(
            score,
            semitones,
            step_cost=_STEP_COST,
            leap_cost=_LEAP_COST,
            onset_cost=_ONSET_COST,
            offset_cost=_OFFSET_COST,
        )

    chosen = path(score, semitones)
    for voice in [*range(len(score))] * _SWEEPS:
        conflicts = _conflicts(candidates, chosen, voice, bins_per_octave)
        if conflicts.any():
            given = score[voice] - conflicts
            chosen[voice] = path(given[None], semitones[voice : voice + 1])[0]
    return chosen


def _conflicts(candidates: Candidates, chosen: NDArray[np.int64], voice: int, bins_per_octave: int) -> Float32:
    """Return what the paths of the other voices speak against each candidate of a voice, in nats.

    Shape (frames, candidates).
    """
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
