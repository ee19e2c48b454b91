"""Resample waveforms with soxr's high-quality filter, whole or block by block: the same samples either way."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import ArrayLike

from vocalsep.audio.waveform import Float32, validate_sample_rate, validate_waveform


class Resampler:
    """Resample a waveform that comes in blocks, from and to rates in Hz.

    The result equals that of `resample` for the whole, sample for sample, whatever the sizes of the blocks.

    Examples
    --------
    >>> resampler = Resampler(44100, 16000)
    >>> parts = [resampler.push(np.zeros((1, 22050), np.float32)) for _ in range(2)] + [resampler.finish()]
    >>> sum(part.shape[1] for part in parts)
    16000
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1) -> None:
        self._rates = validate_sample_rate(source_rate), validate_sample_rate(target_rate)
        self._channels = channels
        self._stream = None
        if self._rates[0] != self._rates[1]:
            self._stream = soxr.ResampleStream(*self._rates, channels, dtype="float32", quality="HQ")
        self._taken = self._returned = 0  # samples

    def push(self, block: Float32) -> Float32:
        """Take samples, shape (channels, n), and return the samples at the target rate that they complete.

        The filter looks ahead, so there may be none.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ValueError(f"block has shape {block.shape}; expected ({self._channels}, samples)")
        self._taken += block.shape[1]
        return block if self._stream is None else self._feed(block, last=False)

    def finish(self) -> Float32:
        """Return the samples that are left after the last block, shape (channels, m).

        All in all, `max(1, round(samples * target_rate / source_rate))` samples have then been returned.
        """
        nothing = np.zeros((self._channels, 0), np.float32)
        if self._stream is None:
            return nothing
        rest = self._feed(nothing, last=True)
        return np.pad(rest, ((0, 0), (0, self._length - self._returned)))

    @property
    def _length(self) -> int:
        source, target = self._rates
        return max(1, round(self._taken * target / source))

    def _feed(self, block: Float32, *, last: bool) -> Float32:
        assert self._stream is not None
        fed = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T
        fed = np.ascontiguousarray(fed[:, : self._length - self._returned])
        self._returned += fed.shape[1]
        return fed


def resample(audio: ArrayLike, source_rate: int, target_rate: int) -> Float32:
    """Resample a waveform with soxr's high-quality filter.

    Parameters
    ----------
    audio : array_like, shape (samples,) or (channels, samples)
        Waveform at `source_rate`.
    source_rate, target_rate : int
        Hz.

    Returns
    -------
    ndarray, shape (channels, round(samples * target_rate / source_rate))
        Float32, at least one sample.

    Raises
    ------
    AudioError
        If the waveform or a rate is not valid.
    """
    waveform = validate_waveform(audio)
    resampler = Resampler(source_rate, target_rate, waveform.shape[0])
    return np.concatenate([resampler.push(waveform), resampler.finish()], axis=1)
