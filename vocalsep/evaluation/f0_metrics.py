"""Metrics of f0 tracks of an ensemble: what is wrong with them, mir_eval's figures, and what confidence is worth.

Truth and estimate are arrays of one shape (voices, frames) in Hz, 0 = unvoiced; a pitch is right within 50 cents.
The F-measure for each voice is `metrics.f0_f_measure`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import F0Error, MissingExtraError
from vocalsep.evaluation.metrics import agree
from vocalsep.timebase import HOP

OUTCOMES = ("right", "other voice", "octave", "other pitch", "false alarm", "missed")
"""What can become of a frame that is voiced in truth or estimate, in the order of `outcomes`."""
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
_OCTAVES = (-2400.0, -1200.0, 1200.0, 2400.0)  # cents


def outcomes(truth: ArrayLike, estimate: ArrayLike) -> NDArray[np.int64]:
    """Count what became of the frames of each voice that are voiced in truth or estimate.

    Where both are voiced the pitch is, of these, the first that fits: right; the true note of another voice (two
    voices are swapped, or follow one); one or two octaves off; another pitch. Where only the estimate is voiced it is
    a false alarm, whatever its pitch; where only the truth is, the frame is missed.

    Parameters
    ----------
    truth, estimate
        Hz, shape (voices, frames), 0 = unvoiced.

    Returns
    -------
    ndarray
        Frames, shape (voices, 6), in the order of `OUTCOMES`.

    Raises
    ------
    F0Error
        If the shapes differ.

    Examples
    --------
    >>> outcomes([[400.0, 400.0, 400.0, 0.0], [200.0, 200.0, 0.0, 200.0]], [[400.0, 200.0, 0.0, 0.0], [400.0] * 4])
    array([[1, 1, 0, 0, 0, 1],
           [0, 2, 1, 0, 1, 0]])
    """
    true, found = _pair(truth, estimate)
    both = (true > 0) & (found > 0)
    right = agree(found, true)
    others = np.zeros_like(both)
    for voice in range(len(true)):
        theirs = np.delete(true, voice, axis=0)
        others[voice] = agree(found[voice], theirs).any(axis=0)
    octave = np.any([agree(found, true * 2 ** (cents / 1200)) for cents in _OCTAVES], axis=0)
    kinds = [right, others, octave, np.ones_like(both)]
    masks = [both & kind & ~np.any(kinds[:rank], axis=0) for rank, kind in enumerate(kinds)]
    masks += [(true == 0) & (found > 0), (true > 0) & (found == 0)]
    return np.stack([mask.sum(axis=1) for mask in masks], axis=1)


def _pair(truth: ArrayLike, estimate: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, found = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if true.shape != found.shape or true.ndim != 2:
        raise F0Error(f"truth has shape {true.shape} and estimate {found.shape}; expected (voices, frames) twice")
    return true, found


class Calibration(NamedTuple):
    """How often estimates of a confidence are right, in bins of equal width over [0, 1]."""

    edges: NDArray[np.float64]
    """Of the bins, shape (bins + 1,)."""
    frames: NDArray[np.int64]
    """Voiced estimates in each bin, shape (bins,)."""
    confidence: NDArray[np.float64]
    """Their mean confidence, shape (bins,); NaN for an empty bin."""
    right: NDArray[np.float64]
    """The fraction of them within 50 cents of the truth, shape (bins,); NaN for an empty bin."""

    @property
    def expected_error(self) -> float:
        """Expected calibration error: sum over bins of frames / all frames * |right - confidence|; NaN without frames.

        C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017.
        """
        filled = self.frames > 0
        gap = np.abs(self.right - self.confidence)[filled]
        return float(np.average(gap, weights=self.frames[filled])) if filled.any() else float("nan")


def calibration(truth: ArrayLike, estimate: ArrayLike, confidence: ArrayLike, *, bins: int = 10) -> Calibration:
    """Compare the confidence of voiced estimates with how often they are right.

    An estimate where the truth is unvoiced is wrong. Frames that the estimate leaves unvoiced do not count: their
    confidence is 0 by convention.

    Parameters
    ----------
    truth, estimate
        Hz, shape (voices, frames), 0 = unvoiced.
    confidence
        In [0, 1], same shape; a value on an edge belongs to the bin above it.

    Raises
    ------
    F0Error
        If the shapes differ.

    Examples
    --------
    >>> found = calibration([[200.0, 200.0, 0.0]], [[200.0, 300.0, 200.0]], [[0.9, 0.4, 0.1]], bins=2)
    >>> found.frames, found.right, round(found.expected_error, 2)
    (array([2, 1]), array([0., 1.]), 0.2)
    """
    true, found = _pair(truth, estimate)
    given = np.asarray(confidence, dtype=np.float64)
    if given.shape != found.shape:
        raise F0Error(f"confidence has shape {given.shape}; expected that of the estimate, {found.shape}")
    edges = np.linspace(0, 1, bins + 1)
    voiced = found > 0
    # The margin keeps 0.8 as float32, a little above or below it, in the bin that a reader looks it up in.
    place = np.clip(np.searchsorted(edges, given[voiced] + 1e-6, side="right") - 1, 0, bins - 1)
    frames = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=given[voiced], minlength=bins) / frames
        right = np.bincount(place, weights=agree(found, true)[voiced], minlength=bins) / frames
    return Calibration(edges, frames, mean, right)


def require_mir_eval() -> ModuleType:
    """Return mir_eval.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import mir_eval.melody
        import mir_eval.multipitch
    except ImportError as error:
        raise MissingExtraError("mir_eval is not installed; pip install 'vocalsep[eval]' brings it") from error
    module: ModuleType = mir_eval
    return module


def multipitch_scores(truth: ArrayLike, estimate: ArrayLike, *, hop: float = HOP) -> NDArray[np.float64]:
    """Return mir_eval's figures for the set of pitches in each frame, whoever sings them.

    M. Bay, A. Ehmann, J. Downie, "Evaluation of multiple-F0 estimation and tracking systems", ISMIR 2009: a pitch
    is right within half a semitone, each at most once; total error is substitutions, misses and false alarms over the
    true pitches.

    Parameters
    ----------
    truth, estimate
        Hz, shape (voices, frames), 0 = unvoiced.
    hop
        Seconds between frames.

    Returns
    -------
    ndarray
        In the order of `MULTIPITCH_METRICS`; NaN where nobody sings in the truth.

    Raises
    ------
    MissingExtraError
        If mir_eval is not installed.
    """
    true, found = _pair(truth, estimate)
    times = np.arange(true.shape[1]) * hop
    sets = [[np.sort(column[column > 0]) for column in tracks.T] for tracks in (true, found)]
    if not (true > 0).any():
        return np.full(len(MULTIPITCH_METRICS), np.nan)
    return np.array(_scores(require_mir_eval().multipitch, times, sets[0], sets[1], MULTIPITCH_METRICS))


def _scores(task: ModuleType, times: NDArray[Any], true: Any, found: Any, names: Sequence[str]) -> list[float]:
    """Return figures of one of mir_eval's tasks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an estimate without a pitch scores 0, which the table shows
        scores = task.evaluate(times, true, times, found)
    return [scores[name] for name in names]


def melody_scores(truth: ArrayLike, estimate: ArrayLike, *, hop: float = HOP) -> NDArray[np.float64]:
    """Return mir_eval's figures of melody extraction for each voice, as if it were the melody.

    J. Salamon, E. Gómez, D. Ellis, G. Richard, "Melody extraction from polyphonic music signals", IEEE Signal
    Processing Magazine 2014. Trackers here give no pitch where they find no voicing, so such frames count against
    raw pitch accuracy too.

    Parameters
    ----------
    truth, estimate
        Hz, shape (voices, frames), 0 = unvoiced.
    hop
        Seconds between frames.

    Returns
    -------
    ndarray
        Shape (voices, 5), in the order of `MELODY_METRICS`; NaN for a voice that never sings in the truth.

    Raises
    ------
    MissingExtraError
        If mir_eval is not installed.
    """
    melody = require_mir_eval().melody
    true, found = _pair(truth, estimate)
    times = np.arange(true.shape[1]) * hop
    table = np.full((len(true), len(MELODY_METRICS)), np.nan)
    for row, (reference, voice) in enumerate(zip(true, found, strict=True)):
        if not (reference > 0).any():
            continue
        table[row] = _scores(melody, times, reference, voice, MELODY_METRICS)
    return table
