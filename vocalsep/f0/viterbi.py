"""Viterbi decoding: the most likely path through states or candidates, frame by frame.

References
----------
A. Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm", IEEE Trans.
Information Theory, 1967.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096  # frames whose transition costs are in memory at once


def decode(log_likelihood: NDArray[np.floating], log_transition: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the most likely path of states: argmax over paths s of sum_t L[t, s_t] + B[s_t - s_{t-1}].

    A frame costs O(states * width) and is one vectorised maximum for all sequences of a batch.

    Parameters
    ----------
    log_likelihood : ndarray, shape (..., frames, states)
        L; -inf marks states that cannot be taken.
    log_transition : ndarray, shape (2 * width + 1,)
        B, the log weight of a step by -width ... +width states. Longer steps are impossible.

    Returns
    -------
    ndarray of int, shape (..., frames)
        State of each frame.

    Examples
    --------
    >>> likelihood = np.log([[0.9, 0.1, 0.1], [0.2, 0.1, 0.3], [0.9, 0.1, 0.1]])
    >>> decode(likelihood, np.log([0.2, 1.0, 0.2]))
    array([0, 0, 0])
    """
    frames, states = log_likelihood.shape[-2:]
    width = len(log_transition) // 2
    flat = log_likelihood.reshape(-1, frames, states)
    score = np.asarray(flat[:, 0], dtype=np.float64)
    steps = np.zeros((frames, *score.shape), dtype=np.int16)
    padded = np.full((len(flat), states + 2 * width), -np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1, axis=1)
    # Offset o in the window of state s means the previous state s + o - width, a step of width - o.
    weights = np.asarray(log_transition, dtype=np.float64)[::-1]
    for frame in range(1, frames):
        padded[:, width : width + states] = score
        candidates = windows + weights
        best = candidates.argmax(axis=-1)
        steps[frame] = best - width
        score = np.take_along_axis(candidates, best[..., None], axis=-1)[..., 0] + flat[:, frame]
    path = np.empty((len(flat), frames), dtype=np.int64)
    path[:, -1] = score.argmax(axis=-1)
    rows = np.arange(len(flat))
    for frame in range(frames - 1, 0, -1):
        path[:, frame - 1] = np.clip(path[:, frame] + steps[frame, rows, path[:, frame]], 0, states - 1)
    return path.reshape(log_likelihood.shape[:-1])


def decode_candidates(
    log_ratio: NDArray[np.floating],
    position: NDArray[np.floating],
    *,
    step_cost: float,
    leap_cost: float,
    onset_cost: float,
    offset_cost: float,
) -> NDArray[np.int64]:
    """Return the most likely path through a few candidates in each frame, and rests.

    Parameters
    ----------
    log_ratio : ndarray, shape (voices, frames, candidates)
        Log-likelihood of each candidate over that of a rest; -inf where there is no candidate.
    position : ndarray, shape (voices, frames, candidates)
        Pitch of each candidate in semitones.
    step_cost, leap_cost : float
        Cost of a step for each semitone between two frames, and at most. Costs are subtracted from the log-likelihood.
    onset_cost, offset_cost : float
        Costs of leaving a rest and of entering one.

    Returns
    -------
    ndarray of int, shape (voices, frames)
        Candidate of each frame, -1 for a rest.

    Examples
    --------
    >>> ratio = np.array([[[2.0, -1.0], [-0.1, 0.1], [2.0, -1.0], [-9.0, -9.0], [-9.0, -9.0]]])
    >>> position = np.array([[[60.0, 72.0]] * 5])
    >>> decode_candidates(ratio, position, step_cost=1, leap_cost=3, onset_cost=1, offset_cost=1)
    array([[ 0,  0,  0, -1, -1]])
    """
    voices, frames, candidates = log_ratio.shape
    score = np.moveaxis(np.asarray(log_ratio, dtype=np.float32), 1, 0)  # (frames, voices, candidates)
    place = np.moveaxis(np.asarray(position, dtype=np.float32), 1, 0)
    # State 0 is the rest.
    best = np.concatenate([np.zeros((voices, 1), dtype=np.float32), score[0]], axis=1)
    origin = np.zeros((frames, voices, candidates + 1), dtype=np.int8)
    gain = np.zeros((voices, candidates + 1), dtype=np.float32)
    for first in range(1, frames, _BLOCK):
        last = min(first + _BLOCK, frames)
        cost = np.zeros((last - first, voices, candidates + 1, candidates + 1), dtype=np.float32)  # (..., to, from)
        step = np.abs(place[first:last, :, :, None] - place[first - 1 : last - 1, :, None, :])
        cost[..., 1:, 1:] = np.minimum(step_cost * step, leap_cost)
        cost[..., 1:, 0], cost[..., 0, 1:] = onset_cost, offset_cost
        for frame in range(first, last):
            total = best[:, None, :] - cost[frame - first]
            source = total.argmax(axis=-1)
            origin[frame] = source
            gain[:, 1:] = score[frame]
            best = total.max(axis=-1) + gain
            # Relative to the rest, because the sum over an hour would be too large for single precision.
            best -= best[:, :1]
    path = np.empty((voices, frames), dtype=np.int64)
    path[:, -1] = best.argmax(axis=-1)
    rows = np.arange(voices)
    for frame in range(frames - 1, 0, -1):
        path[:, frame - 1] = origin[frame, rows, path[:, frame]]
    return path - 1
