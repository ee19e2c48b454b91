"""Metrics of f0 tracks.

Conventions
-----------
`truth` and `estimate` are arrays of one shape (voices, frames) in Hz on the 16-ms grid, 0 = unvoiced; other shapes
raise F0Error. A pitch is right if it is within 50 cents of the true one. A voice that never sings has no score (NaN).

Metrics
-------
* `f_measure`: F-measure of each voice.
* `outcomes`: numbers of frames by kind of mistake.
* `calibration`: how often estimates of a certain confidence are right [1]_.
* `multipitch_scores`: the set of pitches in each frame, whoever sings them [2]_, by mir_eval.
* `melody_scores`: each voice as if it were the melody [3]_, by mir_eval.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017.
.. [2] M. Bay, A. Ehmann, J. Downie, "Evaluation of multiple-F0 estimation and tracking systems", ISMIR 2009.
.. [3] J. Salamon, E. Gómez, D. Ellis, G. Richard, "Melody extraction from polyphonic music signals", IEEE Signal
   Processing Magazine 2014.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.dsp.units import hz_to_cents
from vocalsep.errors import F0Error, MissingExtraError
from vocalsep.timebase import HOP

TOLERANCE_CENTS = 50.0
"""Largest deviation of a right pitch: half a semitone."""
OUTCOMES = ("right", "other voice", "octave", "other pitch", "false alarm", "missed")
"""Kinds of frames that are voiced in truth or estimate, in the order of `outcomes`."""
MELODY_METRICS = (
    "Raw Pitch Accuracy",
    "Raw Chroma Accuracy",
    "Voicing Recall",
    "Voicing False Alarm",
    "Overall Accuracy",
)
"""mir_eval's names, in the order of `melody_scores`."""
MULTIPITCH_METRICS = ("Precision", "Recall", "Accuracy", "Total Error", "Chroma Accuracy")
"""mir_eval's names, in the order of `multipitch_scores`."""
CONFIDENCE_BINS = 10
"""Bins of equal width into which `calibration` divides confidence."""

Tracks = NDArray[np.float64]


def f_measure(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Return the F-measure of each voice in [0, 1], shape (voices,): the harmonic mean of precision and recall.

    Precision is the share of right frames among those voiced in the estimate, recall among those voiced in the truth.

    Examples
    --------
    >>> f_measure([[200.0, 200.0, 0.0]], [[201.0, 300.0, 0.0]])
    array([0.5])
    """
    true, found = _pair(truth, estimate)
    with np.errstate(invalid="ignore"):
        measure: NDArray[np.float64] = (
            2 * _right(true, found).sum(axis=-1) / ((true > 0).sum(axis=-1) + (found > 0).sum(axis=-1))
        )
    return measure


def outcomes(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.int64]:
    """Count the frames that are voiced in truth or estimate by kind, shape (voices, 6), as in `OUTCOMES`.

    Where both are voiced, the first of these that fits counts: right; the true note of another voice; one or two
    octaves off; another pitch. A frame that is voiced in the estimate only is a false alarm, one that is voiced in the
    truth only is missed.

    Examples
    --------
    >>> outcomes([[400.0, 400.0, 400.0, 0.0], [200.0, 200.0, 0.0, 200.0]], [[400.0, 200.0, 0.0, 0.0], [400.0] * 4])
    array([[1, 1, 0, 0, 0, 1],
           [0, 2, 1, 0, 1, 0]])
    """
    true, found = _pair(truth, estimate)
    both = (true > 0) & (found > 0)
    other_voice = np.array(
        [_right(found[voice], np.delete(true, voice, axis=0)).any(axis=0) for voice in range(len(true))]
    )
    octave = np.any([_right(found, true * factor) for factor in (0.25, 0.5, 2, 4)], axis=0)
    kinds = [_right(found, true), other_voice, octave, np.ones_like(both)]
    masks = [both & kind & ~np.any(kinds[:rank], axis=0) for rank, kind in enumerate(kinds)]
    masks += [(true == 0) & (found > 0), (true > 0) & (found == 0)]
    return np.stack([mask.sum(axis=1) for mask in masks], axis=1)


class Calibration(NamedTuple):
    """How often estimates of a confidence are right, in bins of equal width over [0, 1]; NaN for empty bins."""

    frames: NDArray[np.int64]  # number of voiced estimates
    confidence: NDArray[np.float64]  # their mean confidence
    right: NDArray[np.float64]  # share of them that are right

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean of |right - confidence| over all frames; NaN without frames."""
        filled = self.frames > 0
        gap = np.abs(self.right - self.confidence)[filled]
        return float(np.average(gap, weights=self.frames[filled])) if filled.any() else float("nan")


def calibration(truth: ArrayLike, estimate: ArrayLike, confidence: ArrayLike) -> Calibration:
    """Compare the confidence of voiced estimates with how often they are right.

    An estimate in a frame that is unvoiced in the truth is wrong. Frames that are unvoiced in the estimate do not
    count. Confidence has the shape of the tracks and is in [0, 1]; a value on an edge counts in the bin above it.

    Examples
    --------
    >>> found = calibration([[200.0, 200.0, 0.0]], [[200.0, 300.0, 200.0]], [[0.95, 0.45, 0.15]])
    >>> found.frames, round(found.expected_error, 2)
    (array([0, 1, 0, 0, 1, 0, 0, 0, 0, 1]), 0.22)
    """
    true, found = _pair(truth, estimate)
    probability = np.asarray(confidence, dtype=np.float64)
    if probability.shape != found.shape:
        raise F0Error(f"confidence must have the shape of the estimate, {found.shape}, but got {probability.shape}")
    voiced = found > 0
    # The margin puts 0.8 in float32, which is a little above or below 0.8, into the bin from 0.8 to 0.9.
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    place = np.clip(np.searchsorted(edges, probability[voiced] + 1e-6, side="right") - 1, 0, CONFIDENCE_BINS - 1)
    frames = np.bincount(place, minlength=CONFIDENCE_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=probability[voiced], minlength=CONFIDENCE_BINS) / frames
        right = np.bincount(place, weights=_right(found, true)[voiced], minlength=CONFIDENCE_BINS) / frames
    return Calibration(frames, mean, right)


def multipitch_scores(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Return mir_eval's figures for the set of pitches in each frame, shape (5,), as in `MULTIPITCH_METRICS`."""
    true, found = _pair(truth, estimate)
    if not (true > 0).any():
        return np.full(len(MULTIPITCH_METRICS), np.nan)
    times = np.arange(true.shape[1]) * HOP
    true_sets, found_sets = ([np.sort(column[column > 0]) for column in tracks.T] for tracks in (true, found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval warns of an estimate without pitches, which scores 0
        scores = require_mir_eval().multipitch.evaluate(times, true_sets, times, found_sets)
    return np.array([scores[name] for name in MULTIPITCH_METRICS])


def melody_scores(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Return mir_eval's figures of melody extraction for each voice, shape (voices, 5), as in `MELODY_METRICS`.

    A frame that the estimate leaves unvoiced has no pitch, so it also counts against raw pitch accuracy.
    """
    melody = require_mir_eval().melody
    true, found = _pair(truth, estimate)
    times = np.arange(true.shape[1]) * HOP
    table = np.full((len(true), len(MELODY_METRICS)), np.nan)
    for voice in np.flatnonzero((true > 0).any(axis=1)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = melody.evaluate(times, true[voice], times, found[voice])
        table[voice] = [scores[name] for name in MELODY_METRICS]
    return table


def require_mir_eval() -> ModuleType:
    """Return mir_eval; raise MissingExtraError if it is not installed."""
    try:
        import mir_eval.melody
        import mir_eval.multipitch
    except ImportError as error:
        raise MissingExtraError("mir_eval is not installed; install it with pip install 'vocalsep[eval]'") from error
    module: ModuleType = mir_eval
    return module


def _pair(truth: ArrayLike, estimate: ArrayLike) -> tuple[Tracks, Tracks]:
    true, found = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if true.shape != found.shape or true.ndim != 2:
        shapes = f"{true.shape} and {found.shape}"
        raise F0Error(f"truth and estimate must have one shape (voices, frames), but have {shapes}")
    return true, found


def _right(found: Tracks, true: Tracks) -> NDArray[np.bool_]:
    """Return where both are voiced and no more than the tolerance apart; shapes broadcast."""
    both = (true > 0) & (found > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        near: NDArray[np.bool_] = both & (np.abs(hz_to_cents(found, true)) <= TOLERANCE_CENTS)
    return near
