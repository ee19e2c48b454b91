"""Downmixes: recordings as the networks take them, with one channel at 16 kHz.

A recording is read once to make its downmix. After that any part can be read in any order, and memory does not grow
with the length: a long downmix is kept in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike

from vocalsep.audio.recording import ArrayRecording, Recording
from vocalsep.audio.resample import Resampler
from vocalsep.audio.waveform import Float32, validate_waveform
from vocalsep.errors import OutputError, reason
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE

LEVEL = 0.5
"""Peak that recordings are brought to before parameters are estimated, as in training."""

_CANCELLED = 0.01  # channels cancel each other if their mean has less than this share of their power
_IN_MEMORY = 64 << 20  # bytes (17 minutes)
_BLOCK_SECONDS = 10  # of a recording that are mixed at once
_READ = 1 << 20  # samples at a time
_ITEM = 4  # bytes of a sample


class Downmix:
    """A recording with one channel at `MODEL_SAMPLE_RATE`, any part of which can be read.

    Use `of_array` or `of_recording` to make one. Close it, or use it as a context manager, to remove its temporary
    file.

    Attributes
    ----------
    samples : int
        Number of samples.
    peak : float
        Largest absolute value.
    source_samples : int
        Number of samples of the recording at its own rate.

    Raises
    ------
    OutputError
        If there is no room for the temporary file.
    """

    def __init__(self, blocks: Iterable[Float32]) -> None:
        self.samples, self.peak = 0, 0.0
        # It outlives this function; `close` ends it.
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        try:
            for block in blocks:
                self._append(block)
        except BaseException:
            self.close()
            raise
        self.source_samples = self.samples

    def _append(self, block: Float32) -> None:
        self.samples += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        try:
            self._file.write(np.ascontiguousarray(block, dtype=np.float32).data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"there is no room for temporary files ({reason(error)}); expected "
                f"{_ITEM * MODEL_SAMPLE_RATE // 1000} kB a second of audio: set TMPDIR to another folder"
            ) from error

    @classmethod
    def of_array(cls, mono: Float32) -> Downmix:
        """Return a downmix of a waveform, shape (samples,), that is at `MODEL_SAMPLE_RATE` already."""
        return cls([mono])

    @classmethod
    def of_recording(cls, recording: Recording, progress: Callable[[float], None] = lambda _: None) -> Downmix:
        """Mix a recording down to the mean of its channels, or to the loudest channel if they cancel each other.

        `progress` is called with the fraction that is done.
        """
        powers = np.zeros(recording.channels + 1)  # of the mean, and of each channel
        done = 0

        def mixed(channel: int | None) -> Iterator[Float32]:
            nonlocal done
            done = 0
            resampler = Resampler(recording.sample_rate, MODEL_SAMPLE_RATE)
            for block in recording.blocks(_BLOCK_SECONDS * recording.sample_rate):
                if channel is None:
                    mono = block.mean(axis=0, dtype=np.float64)
                    powers[0] += np.square(mono).sum()
                    powers[1:] += np.square(block, dtype=np.float64).sum(axis=1)
                else:
                    mono = block[channel]
                yield resampler.push(mono.astype(np.float32)[None])[0]
                done += block.shape[1]
                if recording.samples:
                    progress(min(1.0, done / recording.samples))
            yield resampler.finish()[0]

        downmix = cls(mixed(None))
        if powers[0] < _CANCELLED * powers[1:].mean():
            downmix.close()
            downmix = cls(mixed(int(powers[1:].argmax())))
        downmix.source_samples = done
        return downmix

    def __enter__(self) -> Downmix:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):  # a file that found no room is flushed once more
            self._file.close()

    @property
    def gain(self) -> float:
        """Factor that brings the peak to `LEVEL`; 1 for silence."""
        return LEVEL / self.peak if self.peak > np.finfo(np.float32).tiny else 1.0

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return 1 + self.samples // HOP_LENGTH

    def read(self, first: int, last: int) -> Float32:
        """Return samples first ... last - 1, shape (last - first,), with silence outside the recording."""
        low, high = min(max(first, 0), self.samples), min(max(last, 0), self.samples)
        self._file.seek(low * _ITEM)
        waveform = np.zeros(last - first, dtype=np.float32)
        waveform[low - first : high - first] = np.frombuffer(self._file.read((high - low) * _ITEM), np.float32)
        return waveform

    def blocks(self, size: int = _READ) -> Iterator[Float32]:
        """Yield all samples in blocks of shape (size,); the last block may be shorter."""
        for start in range(0, self.samples, size):
            yield self.read(start, min(start + size, self.samples))


def to_model_rate(audio: ArrayLike, sample_rate: int) -> Float32:
    """Mix a waveform down to one channel at `MODEL_SAMPLE_RATE`.

    Parameters
    ----------
    audio : array_like, shape (samples,) or (channels, samples)
        At `sample_rate` Hz.

    Returns
    -------
    ndarray, shape (samples at 16 kHz,)
        The mean of the channels, or the loudest channel if they cancel each other.

    Raises
    ------
    AudioError
        If the waveform or the rate is not valid.
    """
    with Downmix.of_recording(ArrayRecording(validate_waveform(audio), sample_rate)) as downmix:
        return downmix.read(0, downmix.samples)
