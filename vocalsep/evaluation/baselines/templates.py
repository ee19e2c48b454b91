"""F0 of every voice in a mixture, without learning: harmonic templates, ordered voices, one Viterbi path for each.

1. `salience` explains every frame as a non-negative mixture of harmonic series (Klapuri 2006; Vincent et al. 2010).
2. How far a pitch's activation stands out, and crests its ridge, becomes the log-likelihood ratio of "sung" over
   "not sung". Frames whose spectrum is as flat as noise's are left out.
3. In each frame the voices are chosen together: from high to low, never on one note, each in its range. The best
   total with voice v on pitch p, over all choices for the others, is found exactly by running maxima.
4. Each voice's path through time is a Viterbi path with rests over these totals; then, in turn, over its own evidence
   with the paths of the others known and the overtones of lower voices marked down (iterated conditional modes:
   J. Besag, "On the statistical analysis of dirty pictures", J. R. Stat. Soc. B 1986).
5. F0 is refined below the grid by the centroid of the activations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.audio import Float32, to_model_rate
from vocalsep.evaluation.baselines.salience import (
    BINS_PER_OCTAVE,
    CENTS_PER_BIN,
    PITCHES,
    activations,
    box_sum,
    log_spectrum,
    tonality,
)
from vocalsep.f0 import viterbi
from vocalsep.tracks import F0Tracks
from vocalsep.voices import Voice, VoicesLike, parse_voices

Paths = NDArray[np.int64]

# Constants were chosen on singers 1 and 2 of the development split, by per-voice F at 50 cents.
# Log-likelihood ratio of a pitch from log activations summed over +-0, +-20 and +-120 cents: a narrow ridge counts,
# a broad one does not. Weights from a logistic regression of "sung" on the three, then rounded and tuned by hand.
_EVIDENCE_WEIGHTS = ((0, 1.3), (1, 1.9), (6, -1.1))
_ACTIVATION_FLOOR = 0.1  # of an activation; notes have 1 to 30
_EVIDENCE_BIAS = 0.5  # leans towards voicing: for separation a missed note costs more than a ghost
# Nats off for each nat that a pitch's activation stays below the ridge next to it: slopes of a low, wide ridge are no
# voices of their own.
_SLOPE_COST = 2.0
_EVIDENCE_RANGE = (-5.0, 6.0)  # nats a frame; frames overlap, so one alone must not outweigh its neighbours
_SILENCE = 1e-5  # full scale (-100 dB): the loudest partial of a recording with nothing in it
_SILENCE_LEVEL = -35.0  # dB below the loudest partials: reverberation and breath
_NOISE_TONALITY = 2.0  # dB: noise has at most 1.7, ninety-nine of a hundred frames with two voices 3 or more

_MIN_GAP = 4  # bins: two voices less than 80 cents apart are one note to this tracker
_PRIOR_WIDTH = 700.0  # cents: standard deviation of a part's pitches about its centre
_CENTRE_OFFSET = -130.0  # cents: parts keep to the lower side of their range's middle
_WIDE_RANGE = 3600.0  # cents: a wider range says nothing about where the voice lies
_FORBIDDEN = -1000.0  # nats: outside the range
_CONFLICT = 8.0  # nats against crossing another voice or sharing its note: enough unless evidence is overwhelming
# A formant on a partial of a lower voice looks like a voice of its own; nats that such a note has to make up for, the
# partials where formants of voices lie, and how near a partial (bins) the note has to be.
_GHOST_COST = 1.0
_GHOST_PARTIALS = (2, 3)
_GHOST_REACH = 1
_STEP_REACH = 5  # bins a frame, 100 cents in 16 ms: the fastest portamento and vibrato
_STEP_COST = 0.1  # nats for each bin of a step
_ONSET_COST, _OFFSET_COST, _LEAP_COST = 4.0, 4.0, 12.0  # nats for the events of a note; a leap ends one, starts one
_SWEEPS = 2  # of re-decoding each voice given the others; more change next to nothing
_REFINE_REACH = 5  # bins either side of the path: 100 cents, as wide as the ridge of a low note


class Decoding(NamedTuple):
    """What the decoder found for each voice."""

    path: Paths
    """Shape (voices, frames): index into `PITCHES`, -1 = unvoiced."""
    score: Float32
    """Shape (voices, frames): log-likelihood ratio at the path, given the other voices; 0 where unvoiced."""


def track_templates(
    audio: ArrayLike, sample_rate: int, voices: VoicesLike = "SATB", *, voicing_bias: float = 0.0
) -> F0Tracks:
    """Track the f0 of every voice of a mixture on the 16-ms grid.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples); channels are mixed.
    sample_rate
        Hz.
    voices
        The voices to find, high to low, as `vocalsep.voices.parse_voices` understands them.
    voicing_bias
        Nats added to the evidence for every pitch: above 0 finds more notes, below 0 fewer.

    Returns
    -------
    F0Tracks
        Hz, 0 = unvoiced, with confidence (probability that the voice sings there, 0 where unvoiced).

    Raises
    ------
    AudioError
        If the audio is empty, not finite or of a wrong shape.
    VoicesError
        If `voices` cannot be understood.
    """
    parts = parse_voices(voices)
    waveform = to_model_rate(audio, sample_rate)
    names = tuple(part.name for part in parts)
    spectrum = log_spectrum(waveform - waveform.mean())
    loudest = float(np.percentile(spectrum.max(axis=1), 95))
    if loudest < _SILENCE:
        nothing = np.zeros((len(parts), len(spectrum)), dtype=np.float32)
        return F0Tracks(nothing, names, confidence=nothing)
    spectrum /= loudest
    active = activations(spectrum)
    decoding = decode(_evidence(active, spectrum) + voicing_bias, parts)
    frequencies = np.where(decoding.path >= 0, _refine(active, decoding.path), 0)
    confidence = np.where(decoding.path >= 0, 1 / (1 + np.exp(-decoding.score)), 0)
    return F0Tracks(frequencies.astype(np.float32), names, confidence=confidence.astype(np.float32))


def _evidence(active: Float32, spectrum: Float32) -> Float32:
    """Return the log-likelihood ratio of each pitch being sung, shape (frames, pitches), in nats."""
    ratio = np.full_like(active, _EVIDENCE_BIAS)
    for reach, weight in _EVIDENCE_WEIGHTS:
        ratio += weight * np.log(np.maximum(box_sum(active, reach), 0) + _ACTIVATION_FLOOR)
    ridge = np.log(np.maximum(box_sum(active, 1), 0) + _ACTIVATION_FLOOR)
    ratio -= _SLOPE_COST * (_running_max(ridge, _MIN_GAP + 1) - ridge)
    level = 20 * np.log10(spectrum.max(axis=1, keepdims=True) + 1e-9)
    unsung = (level < _SILENCE_LEVEL) | (tonality(spectrum)[:, None] < _NOISE_TONALITY)
    ratio = np.where(unsung, _EVIDENCE_RANGE[0], ratio)
    return np.clip(ratio, *_EVIDENCE_RANGE).astype(np.float32)


def _running_max(values: Float32, reach: int) -> Float32:
    """Return the maximum over +-`reach` neighbours along the last axis."""
    padded = np.pad(values, ((0, 0), (reach, reach)), mode="edge")
    running: Float32 = np.max([padded[:, shift : shift + values.shape[1]] for shift in range(2 * reach + 1)], axis=0)
    return running


def decode(evidence: Float32, voices: tuple[Voice, ...]) -> Decoding:
    """Find one path for each voice, high to low, no two on one note at a time.

    Parameters
    ----------
    evidence
        Log-likelihood ratio of each pitch of `PITCHES`, shape (frames, pitches).
    voices
        Their ranges; a voice with a part's range keeps to the middle of it where the evidence leaves a choice.
    """
    scores = np.stack([evidence + _prior(voice) for voice in voices])
    transition = -_STEP_COST * np.abs(np.arange(-_STEP_REACH, _STEP_REACH + 1))

    def viterbi_paths(log_ratio: Float32) -> Paths:
        return viterbi.decode_with_rests(
            log_ratio, transition, onset_cost=_ONSET_COST, offset_cost=_OFFSET_COST, leap_cost=_LEAP_COST
        )

    path = viterbi_paths(np.clip(ordered_totals(scores), -_CONFLICT, _CONFLICT))
    final = np.empty(path.shape, dtype=np.float32)
    for _ in range(_SWEEPS):
        for voice in range(len(voices)):
            given = scores[voice] - _CONFLICT * _taken(path, voice) - _GHOST_COST * _overtones(path, voice)
            path[voice] = viterbi_paths(given[None])[0]
            final[voice] = np.take_along_axis(given, np.maximum(path[voice], 0)[:, None], axis=1)[:, 0]
    return Decoding(path, np.where(path >= 0, final, 0))


def _prior(voice: Voice) -> Float32:
    """Return the log prior of each pitch for a voice: Gaussian about its centre inside its range, -inf outside."""
    cents = 1200 * np.log2(PITCHES)
    low, high = 1200 * np.log2(voice.fmin), 1200 * np.log2(voice.fmax)
    inside = (cents >= low - CENTS_PER_BIN / 2) & (cents <= high + CENTS_PER_BIN / 2)
    centre = (low + high) / 2 + _CENTRE_OFFSET
    bell = -0.5 * ((cents - centre) / _PRIOR_WIDTH) ** 2 if high - low < _WIDE_RANGE else np.zeros_like(cents)
    return np.where(inside, bell, _FORBIDDEN).astype(np.float32)


def ordered_totals(scores: Float32) -> Float32:
    """Return what the best ordered choice of pitches gains if a voice takes a pitch rather than rests.

    With U_v(q) the best total of the voices above v at or above q, and D_v(q) that of the voices below v under q,

        M_v(p) = S_v(p) + U_v(p + gap) + D_v(p - gap + 1) - max_q [U_v(q) + D_v(q - gap + 1)],

    and U, D follow from one voice to the next by running maxima.

    Parameters
    ----------
    scores
        S, shape (voices, frames, pitches): gain of a voice on a pitch over a rest.

    Returns
    -------
    ndarray
        M, same shape.
    """
    pitches = scores.shape[2]
    own = np.arange(pitches)
    above = _best_beyond(scores)
    below = [best[:, ::-1] for best in _best_beyond(scores[::-1, :, ::-1])][::-1]
    split = np.arange(pitches + _MIN_GAP)
    over, under = np.minimum(split, pitches), np.clip(split - _MIN_GAP + 1, 0, pitches)
    totals = np.empty_like(scores)
    for voice, score in enumerate(scores):
        up, down = above[voice], below[voice + 1]
        resting = (up[:, over] + down[:, under]).max(axis=1, keepdims=True)
        fits = up[:, np.minimum(own + _MIN_GAP, pitches)] + down[:, np.maximum(own - _MIN_GAP + 1, 0)]
        totals[voice] = score + fits - resting
    return totals


def _best_beyond(scores: Float32) -> list[Float32]:
    """Return, for 0 ... all voices from the first, their best total with every pitch at or above q = 0 ... pitches."""
    _, frames, pitches = scores.shape
    best = [np.zeros((frames, pitches + 1), dtype=np.float32)]
    clear = np.minimum(np.arange(pitches) + _MIN_GAP, pitches)
    for score in scores:
        joined = np.maximum.accumulate((score + best[-1][:, clear])[:, ::-1], axis=1)[:, ::-1]
        extended = best[-1].copy()
        np.maximum(extended[:, :pitches], joined, out=extended[:, :pitches])
        best.append(extended)
    return best


def _taken(path: Paths, voice: int) -> Float32:
    """Return how many of the other voices a pitch would cross or share, shape (frames, pitches)."""
    own = np.arange(len(PITCHES))
    conflicts = np.zeros((path.shape[1], len(PITCHES)), dtype=np.float32)
    for other, pitch in enumerate(path[:, :, None]):
        if other < voice:
            conflicts += (pitch >= 0) & (own > pitch - _MIN_GAP)
        elif other > voice:
            conflicts += (pitch >= 0) & (own < pitch + _MIN_GAP)
    return conflicts


def _overtones(path: Paths, voice: int) -> Float32:
    """Return where a pitch is a low overtone of a voice below, shape (frames, pitches), 0 or 1."""
    own = np.arange(len(PITCHES))
    overtones = np.zeros((path.shape[1], len(PITCHES)), dtype=np.float32)
    for lower in path[voice + 1 :, :, None]:
        for partial in _GHOST_PARTIALS:
            offset = round(BINS_PER_OCTAVE * np.log2(partial))
            hit = (lower >= 0) & (np.abs(own - lower - offset) <= _GHOST_REACH)
            overtones[hit] = 1
    return overtones


def _refine(active: Float32, path: Paths) -> NDArray[np.float64]:
    """Return the f0 in Hz at the centroid of the activations around each path, shape (voices, frames)."""
    reach = np.arange(-_REFINE_REACH, _REFINE_REACH + 1)
    around = np.clip(path[:, :, None] + reach, 0, len(PITCHES) - 1)
    weight = active[np.arange(active.shape[0])[:, None], around].astype(np.float64) + 1e-9
    centroid = (weight * around).sum(axis=2) / weight.sum(axis=2)
    frequency: NDArray[np.float64] = PITCHES[0] * np.exp2(centroid * CENTS_PER_BIN / 1200)
    return frequency
