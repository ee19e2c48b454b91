"""F0 as a tracker finds it in a mixture: what it gets wrong, put into true f0 for training.

An estimator that only ever saw the f0 of the stems believes every f0 it is given. What a tracker mistakes most are the
borders of notes, short rests and sung notes, and the note of another voice; and it is some cents off.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.audio import Float32

_DRIFT_CENTS, _DRIFT_FRAMES = 7.0, 6  # of slow deviations: standard deviation, and frames between their knots
_JITTER_CENTS = 2.0  # of deviations from frame to frame
_BORDER_FRAMES = 6  # by which notes may begin or end early or late: 0.1 s
_GAP = _GHOST = 0.3  # probability, for each voice of an excerpt, of a rest that is none, and of notes that are none
_GAP_FRAMES, _GHOST_FRAMES = (5, 30), (5, 40)
_STOLEN = 0.6  # of ghosts that are another voice's note; the others are any note
_OVER_SUNG = 0.4  # of ghosts that stand in place of what the voice does sing
_GHOST_FMIN, _GHOST_FMAX = 100.0, 500.0


def with_errors(f0: Float32, rng: Generator) -> Float32:
    """Return f0 tracks with the errors of a tracker.

    Parameters
    ----------
    f0
        True f0 in Hz, shape (voices, frames), 0 = unvoiced.
    rng
        Source of chance.
    """
    wrong = np.stack([_moved_borders(_detuned(row, rng), rng) for row in f0.astype(np.float64)])
    frames = f0.shape[1]
    for row in wrong:
        if rng.random() < _GAP:
            row[_span(rng, frames, _GAP_FRAMES)] = 0
        if rng.random() < _GHOST:
            span = _span(rng, frames, _GHOST_FRAMES)
            note = float(np.exp(rng.uniform(np.log(_GHOST_FMIN), np.log(_GHOST_FMAX))))
            ghost = f0[int(rng.integers(len(f0))), span] if rng.random() < _STOLEN else np.full(len(row[span]), note)
            row[span] = ghost if rng.random() < _OVER_SUNG else np.where(row[span] > 0, row[span], ghost)
    return wrong.astype(np.float32)


def _span(rng: Generator, frames: int, lengths: tuple[int, int]) -> slice:
    first = int(rng.integers(frames))
    return slice(first, first + int(rng.integers(*lengths)))


def _detuned(f0: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    frames = len(f0)
    knots = np.arange(0, frames + _DRIFT_FRAMES, _DRIFT_FRAMES)
    cents = np.interp(np.arange(frames), knots, rng.normal(0, _DRIFT_CENTS, len(knots)))
    detuned: NDArray[np.float64] = f0 * 2 ** ((cents + rng.normal(0, _JITTER_CENTS, frames)) / 1200)
    return detuned


def _moved_borders(f0: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = f0.copy()
    for border in np.flatnonzero(np.diff(f0 > 0)) + 1:  # the first frame behind a border
        shift = int(rng.integers(-_BORDER_FRAMES, _BORDER_FRAMES + 1))
        span = slice(max(0, border - shift), border) if shift > 0 else slice(border, border - shift)
        begins = f0[border] > 0
        # A note that begins early or ends late holds its f0; one that begins late or ends early is silent there.
        moved[span] = (f0[border] if begins else f0[border - 1]) if begins == (shift > 0) else 0
    return moved
