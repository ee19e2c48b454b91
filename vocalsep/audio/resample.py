"""Resample waveforms with soxr's high-quality filter, whole or block by block: the same samples either way."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vocalsep.audio.waveform import Float32, validate_sample_rate, validate_waveform
from vocalsep.timebase import MODEL_SAMPLE_RATE

CANCELLED = 0.01
"""Of the channels' mean power: less of it in their mean is cancellation."""


class Resampler:
    """Resample a waveform that comes in blocks.

    All blocks together become what `resample` makes of the whole, sample for sample, whatever their sizes.

    Parameters
    ----------
    source_rate, target_rate
        Hz.
    channels
        Of the waveform.

    Raises
    ------
    AudioError
        If a rate is not valid.

    Examples
    --------
    >>> resampler = Resampler(44100, 16000)
    >>> parts = [resampler.push(np.zeros((1, 22050), np.float32)) for _ in range(2)] + [resampler.finish()]
    >>> sum(part.shape[1] for part in parts)
    16000
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1) -> None:
        import soxr

        self._rates = validate_sample_rate(source_rate), validate_sample_rate(target_rate)
        self._channels = channels
        self._stream = None
        if self._rates[0] != self._rates[1]:
            self._stream = soxr.ResampleStream(*self._rates, channels, dtype="float32", quality="HQ")
        self._pushed = self._given = 0

    def push(self, block: Float32) -> Float32:
        """Take samples of shape (channels, n) and return those of the target that they complete.

        Parameters
        ----------
        block
            float32 of shape (channels, n), any n.

        Returns
        -------
        ndarray
            Shape (channels, m), m >= 0: the filter looks ahead, so the target's samples come later than the source's.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ValueError(f"block has shape {block.shape}; expected ({self._channels}, samples)")
        self._pushed += block.shape[1]
        if self._stream is None:
            return block
        return self._feed(block, last=False)

    def finish(self) -> Float32:
        """Return the samples that are left, shape (channels, m), after the last block.

        In total `max(1, round(samples * target_rate / source_rate))` samples have then been given.
        """
        if self._stream is None:
            return np.zeros((self._channels, 0), np.float32)
        rest = self._feed(np.zeros((self._channels, 0), np.float32), last=True)
        missing = self._length - self._given
        self._given += missing
        return np.pad(rest, ((0, 0), (0, missing)))

    @property
    def _length(self) -> int:
        source, target = self._rates
        return max(1, round(self._pushed * target / source))

    def _feed(self, block: Float32, *, last: bool) -> Float32:
        assert self._stream is not None
        fed = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T
        fed = np.ascontiguousarray(fed[:, : self._length - self._given])
        self._given += fed.shape[1]
        return fed


def resample(audio: ArrayLike, source_rate: int, target_rate: int) -> Float32:
    """Resample a waveform with soxr's high-quality filter.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples).
    source_rate, target_rate
        Hz.

    Returns
    -------
    ndarray
        Shape (channels, round(samples * target_rate / source_rate)), at least one sample, float32.

    Raises
    ------
    AudioError
        If the waveform or a rate is not valid.
    """
    waveform = validate_waveform(audio)
    source_rate, target_rate = validate_sample_rate(source_rate), validate_sample_rate(target_rate)
    if source_rate == target_rate:
        return waveform
    resampler = Resampler(source_rate, target_rate, waveform.shape[0])
    return np.concatenate([resampler.push(waveform), resampler.finish()], axis=1)


def to_model_rate(audio: ArrayLike, sample_rate: int) -> Float32:
    """Mix a waveform down to one channel at `MODEL_SAMPLE_RATE`.

    Where channels cancel each other (one of a stereo pair is out of phase) the loudest is taken instead.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples) at `sample_rate` Hz.

    Returns
    -------
    ndarray
        Shape (samples at 16 kHz,), float32.
    """
    waveform = validate_waveform(audio)
    mono = waveform.mean(axis=0, keepdims=True, dtype=np.float64)
    power = np.square(waveform, dtype=np.float64).mean(axis=1)
    if np.square(mono).mean() < CANCELLED * power.mean():
        mono = waveform[[power.argmax()]]
    resampled: Float32 = resample(mono, sample_rate, MODEL_SAMPLE_RATE)[0]
    return resampled
