"""Waveforms: float32 arrays of shape (channels, samples) with full scale at +-1, and their validation."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, shown

MIN_SAMPLE_RATE = 4000
"""Hz. Below it (Nyquist at 2 kHz) little more than the fundamentals of a choir is left to separate."""

MAX_SAMPLE_RATE = 768000
"""Hz, the rate of the fastest converters. A larger number is a mistake that would fill the memory."""

MAX_CHANNELS = 128
"""An array with more channels most likely has its axes the wrong way round."""

MAX_PEAK = 1e6
"""Times full scale. The powers of louder samples would overflow."""

Float32 = NDArray[np.float32]


class Audio(NamedTuple):
    """A waveform and its sample rate."""

    waveform: Float32
    """Shape (channels, samples), full scale +-1."""
    sample_rate: int
    """Hz."""


def validate_sample_rate(sample_rate: Any) -> int:
    """Return a sample rate as an int; raise AudioError unless it is whole and in the range of the constants."""
    try:
        rate = int(sample_rate)
        whole = rate == float(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole, rate = False, 0
    if not whole or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"sample_rate is {shown(sample_rate)}; expected a whole number of Hz from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE}",
            parameter="sample_rate",
        )
    return rate


def validate_waveform(audio: ArrayLike) -> Float32:
    """Return `audio` as a new float32 array of shape (channels, samples).

    Parameters
    ----------
    audio : array_like, shape (samples,) or (channels, samples)
        Floating-point samples with full scale +-1, or signed integers of up to 32 bits, which are scaled to it.

    Raises
    ------
    AudioError
        If the array is empty, has another type or shape, more than `MAX_CHANNELS` channels, or samples that are
        masked, NaN, infinite or beyond `MAX_PEAK`.

    Examples
    --------
    >>> validate_waveform([0.0, 0.5, -0.5]).shape
    (1, 3)
    """
    if isinstance(audio, (str, os.PathLike)):
        raise AudioError(f"audio is the path {shown(str(audio))}; expected an array, or use separate_file for files")
    if np.ma.is_masked(audio):
        raise AudioError("audio has masked samples; fill the array first")
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError("audio is not an array; expected shape (samples,) or (channels, samples)") from error
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
    validate_samples(waveform)
    return waveform


def validate_samples(waveform: Float32) -> None:
    """Raise AudioError unless all samples are finite and at most `MAX_PEAK`."""
    peak = max(abs(float(waveform.max())), abs(float(waveform.min())))  # NaN if a sample is
    if not np.isfinite(peak):
        raise AudioError("audio holds samples that are NaN, infinite or beyond float32; expected finite numbers")
    if peak > MAX_PEAK:
        raise AudioError(f"audio peaks at {peak:.2g} times full scale; expected about 1, at most {MAX_PEAK:g}")
