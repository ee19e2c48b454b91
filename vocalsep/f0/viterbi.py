"""Most likely paths through state sequences whose transitions reach only a few states up or down.

Viterbi, A. (1967), "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm".
With transitions limited to a band of +-width states the step from one frame to the next costs
O(states * width) and is one vectorised maximum, for all sequences of a batch at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
