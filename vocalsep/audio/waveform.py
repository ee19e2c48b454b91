"""Waveforms: float32 arrays of shape (channels, samples) with full scale at +-1, and what is refused as such."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, shown

MIN_SAMPLE_RATE = 4000
"""Hz. Below it (Nyquist at 2 kHz) little more than the fundamentals of a choir is left to separate."""

MAX_SAMPLE_RATE = 768000
"""Hz, the fastest converters there are. A larger number is a mistake that would fill the memory."""

MAX_CHANNELS = 128
"""More than that is taken for an array whose axes are the wrong way round."""

MAX_PEAK = 1e6
"""Times full scale: louder samples are no audio, and their powers would overflow."""

Float32 = NDArray[np.float32]


class Audio(NamedTuple):
    """A waveform and its sample rate."""

    waveform: Float32
    """Shape (channels, samples), full scale +-1."""
    sample_rate: int
    """Hz."""


def validate_sample_rate(sample_rate: Any) -> int:
    """Return `sample_rate` as an int.

    Raises
    ------
    AudioError
        If it is not a whole number from `MIN_SAMPLE_RATE` to `MAX_SAMPLE_RATE` Hz.
    """
    try:
        rate = int(sample_rate)
        whole = rate == float(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole, rate = False, 0
    if not whole or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"sample_rate is {shown(sample_rate)}; expected a whole number of Hz from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE}"
        )
    return rate


def validate_waveform(audio: ArrayLike) -> Float32:
    """Return `audio` as a float32 array of shape (channels, samples).

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples). Floating point with full scale +-1, or integers of type int8,
        int16 or int32, which are scaled by their type's range. Other integers are refused: a list of Python's, say,
        has no full scale.

    Raises
    ------
    AudioError
        If the array is empty, holds NaN or infinity, is not real numbers, or has more than two dimensions or
        more than `MAX_CHANNELS` channels.

    Examples
    --------
    >>> validate_waveform([0.0, 0.5, -0.5]).shape
    (1, 3)
    """
    if isinstance(audio, (str, os.PathLike)):
        raise AudioError(f"audio is the path {shown(str(audio))}; expected an array, or use separate_file for files")
    if np.ma.is_masked(audio):
        raise AudioError("audio has masked samples; expected all of them: fill the array first")
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError("audio is no array; expected shape (samples,) or (channels, samples)") from error
    if array.ndim not in (1, 2):
        raise AudioError(f"audio has shape {array.shape}; expected (samples,) or (channels, samples)")
    if array.size == 0:
        raise AudioError(f"audio is empty (shape {array.shape}); expected at least one sample")
    if array.dtype.kind == "i" and array.dtype.itemsize <= 4:
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind != "f":
        raise AudioError(f"audio has dtype {array.dtype}; expected floating point, int16 or int32")
    with np.errstate(over="ignore"):
        waveform = np.atleast_2d(array).astype(np.float32, order="C")
    if waveform.shape[0] > MAX_CHANNELS:
        raise AudioError(
            f"audio has shape {array.shape}, {waveform.shape[0]} channels; expected (channels, samples) with at "
            f"most {MAX_CHANNELS} channels: transpose it if it is (samples, channels)"
        )
    if not np.isfinite(waveform).all():
        bad = int(waveform.size - np.isfinite(waveform).sum())
        raise AudioError(f"audio holds {bad} samples that are NaN, infinite or beyond float32; expected finite numbers")
    validate_peak(waveform)
    return waveform


def validate_peak(waveform: Float32) -> None:
    """Refuse a waveform that is no audio by its level.

    Raises
    ------
    AudioError
        If it exceeds `MAX_PEAK`.
    """
    peak = max(abs(float(waveform.max())), abs(float(waveform.min())))
    if peak > MAX_PEAK:
        raise AudioError(f"audio peaks at {peak:.2g} times full scale; expected about 1, at most {MAX_PEAK:g}")
