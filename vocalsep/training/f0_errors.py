"""The errors of an f0 tracker, added to true f0 for training.

An estimator that is trained with true f0 only trusts every f0. A tracker misplaces the borders of notes, misses short
rests and short notes, confuses voices, and is some cents off.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.audio import Float32

_DRIFT_CENTS, _DRIFT_FRAMES = 7.0, 6  # slow deviations: standard deviation, and frames between their knots
_JITTER_CENTS = 2.0  # standard deviation from frame to frame
_BORDER_FRAMES = 6  # notes begin or end up to 0.1 s early or late
_GAP = _GHOST = 0.3  # probability, per voice of an excerpt, of a gap in its notes and of a note that nobody sings
_GAP_FRAMES, _GHOST_FRAMES = (5, 30), (5, 40)
_STOLEN = 0.6  # fraction of ghosts that are the note of another voice; the others are random notes
_OVER_SUNG = 0.4  # fraction of ghosts that replace notes; the others sound in rests only
_GHOST_FMIN, _GHOST_FMAX = 100.0, 500.0  # Hz


def with_errors(f0: Float32, rng: Generator) -> Float32:
    """Return f0 in Hz, shape (voices, frames), with random errors."""
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
    for border in np.flatnonzero(np.diff(f0 > 0)) + 1:  # the first frame after a border
        shift = int(rng.integers(-_BORDER_FRAMES, _BORDER_FRAMES + 1))
        span = slice(max(0, border - shift), border) if shift > 0 else slice(border, border - shift)
        begins = f0[border] > 0
        # A note that begins early or ends late holds its f0; one that begins late or ends early is silent there.
        moved[span] = (f0[border] if begins else f0[border - 1]) if begins == (shift > 0) else 0
    return moved
