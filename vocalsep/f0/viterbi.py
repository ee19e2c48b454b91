"""Most likely paths through state sequences whose transitions reach only a few states up or down.

Viterbi, A. (1967), "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm".
With transitions limited to a band of +-width states the step from one frame to the next costs
O(states * width) and is one vectorised maximum, for all sequences of a batch at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096  # frames whose costs of transition are worked out at once


def decode(log_likelihood: NDArray[np.floating], log_transition: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the most likely path of states: argmax over paths s of sum_t L[t, s_t] + B[s_t - s_{t-1}].

    Parameters
    ----------
    log_likelihood
        L, shape (..., frames, states). -inf marks states that cannot be taken.
    log_transition
        B, shape (2 * width + 1,): log weight of a step by -width ... +width states. Longer steps are impossible.

    Returns
    -------
    ndarray
        Shape (..., frames), the state of each frame.

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
    # Window offset o of state s is the state s + o - width before, so the step taken is width - o.
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


def decode_with_rests(
    log_ratio: NDArray[np.floating],
    log_transition: NDArray[np.floating],
    *,
    onset_cost: float,
    offset_cost: float,
    leap_cost: float,
) -> NDArray[np.int64]:
    """Return the most likely path through states and rests.

    Beside the steps of `decode`, a path may rest (score 0 a frame), start in any state after a rest, and leap from
    any state to any other, each at a fixed cost: a note starts, ends, or gives way to the next. A frame still costs
    O(states * width), since the best state to leap or stop from is the same for all.

    Parameters
    ----------
    log_ratio
        Log-likelihood of each state over that of a rest, shape (voices, frames, states).
    log_transition
        Log weight of a step by -width ... +width states, shape (2 * width + 1,).
    onset_cost, offset_cost, leap_cost
        What leaving a rest, entering one, and a leap take off the score.

    Returns
    -------
    ndarray
        Shape (voices, frames), the state of each frame, -1 for a rest.

    Examples
    --------
    >>> ratio = np.array([[[-2.0, -2.0], [2.0, -1.0], [2.0, -1.0], [-1.0, 3.0]]])
    >>> decode_with_rests(ratio, np.zeros(1), onset_cost=1, offset_cost=1, leap_cost=1)
    array([[-1,  0,  0,  1]])
    """
    voices, frames, states = log_ratio.shape
    width = len(log_transition) // 2
    rows, own = np.arange(voices), np.arange(states)
    score, rest = np.array(log_ratio[:, 0], dtype=np.float32), np.zeros(voices, dtype=np.float32)
    origin = np.zeros((frames, voices, states), dtype=np.int16)
    rest_origin = np.zeros((frames, voices), dtype=np.int16)
    padded = np.full((voices, states + 2 * width), -np.inf, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1, axis=1)
    weights = np.asarray(log_transition, dtype=np.float32)[::-1]
    for frame in range(1, frames):
        padded[:, width : width + states] = score
        candidates = windows + weights
        offset = candidates.argmax(axis=-1)
        stepped = np.take_along_axis(candidates, offset[..., None], axis=-1)[..., 0]
        top = score.argmax(axis=-1)
        top_score = score[rows, top]
        # A leap and an onset reach every state alike, so they compete once for each voice.
        leaps = top_score - leap_cost > rest - onset_cost
        jump = np.where(leaps, top_score - leap_cost, rest - onset_cost)
        jumped = jump[:, None] > stepped
        origin[frame] = np.where(jumped, np.where(leaps, top, -1)[:, None], offset - width + own)
        stops = top_score - offset_cost > rest
        rest_origin[frame] = np.where(stops, top, -1)
        rest = np.where(stops, top_score - offset_cost, rest)
        score = np.where(jumped, jump[:, None], stepped) + log_ratio[:, frame]
        # Relative to the rest: sums over an hour would round nats away.
        score, rest = score - rest[:, None], np.zeros_like(rest)
    path = np.empty((voices, frames), dtype=np.int64)
    path[:, -1] = np.where(score.max(axis=-1) > rest, score.argmax(axis=-1), -1)
    for frame in range(frames - 1, 0, -1):
        state = path[:, frame]
        path[:, frame - 1] = np.where(state >= 0, origin[frame, rows, np.maximum(state, 0)], rest_origin[frame])
    return path


def decode_candidates(
    log_ratio: NDArray[np.floating],
    position: NDArray[np.floating],
    *,
    step_cost: float,
    leap_cost: float,
    onset_cost: float,
    offset_cost: float,
) -> NDArray[np.int64]:
    """Return the most likely path through a few candidates a frame, and rests.

    Parameters
    ----------
    log_ratio
        Log-likelihood of each candidate over that of a rest, shape (voices, frames, candidates); -inf = none.
    position
        Of each candidate, in semitones, same shape.
    step_cost
        What a step of a semitone between two frames takes off the score.
    leap_cost
        What a step takes off at most.
    onset_cost, offset_cost
        What leaving a rest and entering one take off.

    Returns
    -------
    ndarray
        Shape (voices, frames), the candidate of each frame, -1 for a rest.

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
            # Against the rest: the sum over an hour would leave single precision no digits for nats.
            best -= best[:, :1]
    path = np.empty((voices, frames), dtype=np.int64)
    path[:, -1] = best.argmax(axis=-1)
    rows = np.arange(voices)
    for frame in range(frames - 1, 0, -1):
        path[:, frame - 1] = origin[frame, rows, path[:, frame]]
    return path - 1
