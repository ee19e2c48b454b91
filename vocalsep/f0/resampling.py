"""Regular grids of f0: tables with any times are brought onto one, and tracks move from one to another.

Arrays of f0 have the shape (voices, frames), in Hz, with 0 = unvoiced. Frame t of a grid is centred on t * hop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vocalsep.errors import F0Error
from vocalsep.timebase import HOP

MIN_HOP, MAX_HOP = 1e-4, 1.0
"""Range of the seconds between frames; other values are mistakes, such as times in samples."""
_MAX_SECONDS = 24 * 3600.0
_TOLERANCE = 1e-6  # in hops


def resample(f0: NDArray[np.float32], hop: float, new_hop: float, n_frames: int) -> NDArray[np.float32]:
    """Return f0 on another grid of `n_frames` frames, unvoiced past the end; see `F0Tracks.resampled`."""
    times = np.arange(f0.shape[1], dtype=np.float64)
    return _interpolate(f0, times, np.arange(n_frames) * (new_hop / hop), reach=0.5)


def to_grid(times: NDArray[np.float64], f0: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return f0 on a regular grid that starts at 0, and the hop of this grid in seconds.

    Regular times from 0 on keep their hop. Other times, such as those of a table without its unvoiced frames, are
    replaced by the 16-ms grid. Times that are negative, do not increase or are not in seconds raise `F0Error`.
    """
    steps = np.diff(times)
    if times[0] < 0 or (steps <= 0).any():
        raise F0Error("times are negative or do not increase; expected seconds from 0 upwards")
    hop = float(np.median(steps)) if steps.size else HOP
    if times[-1] > _MAX_SECONDS or not MIN_HOP <= hop <= MAX_HOP:
        raise F0Error(
            f"times reach {times[-1]:g} in steps of {hop:g}; expected seconds, at most 24 hours in steps of "
            f"{MIN_HOP:g} to {MAX_HOP:g}"
        )
    mean = float(times[-1]) / steps.size if steps.size else HOP
    if np.abs(times - np.arange(len(times)) * mean).max() <= 0.25 * mean:  # times are rounded, often to 1 ms
        return f0, HOP if abs(mean - HOP) * steps.size < 1e-3 else mean
    centres = np.arange(int(np.ceil(times[-1] / HOP - _TOLERANCE)) + 1) * HOP
    # A value holds for half a hop on either side, and a little longer where times are uneven.
    return _interpolate(f0, times / hop, centres / hop, reach=0.75), HOP


def _interpolate(
    f0: NDArray[np.float32], times: NDArray[np.float64], points: NDArray[np.floating], reach: float
) -> NDArray[np.float32]:
    """Return f0 at the points, interpolated on a logarithmic axis, without glides over rests and gaps.

    Times, points, and `reach`, the distance from its time at which a value still holds, are in hops.
    """
    left = np.clip(np.searchsorted(times, points + _TOLERANCE, side="right") - 1, 0, len(times) - 1)
    right = np.minimum(left + 1, len(times) - 1)
    gap = times[right] - times[left]
    weight = np.clip((points - times[left]) / np.where(gap > 0, gap, 1.0), 0, 1)
    near = np.abs(points - times[np.where(weight < 0.5, left, right)]) <= reach + _TOLERANCE
    low, high = f0[:, left].astype(np.float64), f0[:, right].astype(np.float64)
    glides = (low > 0) & (high > 0) & (weight > _TOLERANCE) & (weight < 1) & (gap <= 2 * reach + _TOLERANCE)
    with np.errstate(divide="ignore", invalid="ignore"):
        glide = np.exp2(np.log2(low) * (1 - weight) + np.log2(high) * weight)
    return np.where(glides, glide, np.where(weight < 0.5, low, high) * near).astype(np.float32)
