"""What the networks hear of a recording: one channel at 16 kHz, kept on disk where it is long.

The recording is gone through once to make it. After that any stretch can be read, in any order, and memory does not
grow with its length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import numpy as np
import torch
from torch import Tensor

from vocalsep.audio import Float32, Resampler
from vocalsep.audio.recording import Recording
from vocalsep.audio.resample import CANCELLED
from vocalsep.errors import AudioError, reason
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE

LEVEL = 0.5
"""Full scale that recordings are brought to before parameters are estimated, as in training."""
_IN_MEMORY = 64 << 20  # bytes (17 minutes); what is longer goes to a temporary file
_BLOCK_SECONDS = 10  # of a recording that are mixed at once
_READ = 1 << 20  # samples at a time where all of a mixdown is gone through
_ITEM = 4  # bytes of a sample


class Mixdown:
    """A recording mixed down to one channel at `MODEL_SAMPLE_RATE`, to be read anywhere.

    Use `of_array` or `of_recording` to make one. It is a context manager, and removes its temporary file at the end.

    Parameters
    ----------
    blocks
        The samples, block by block.
    """

    def __init__(self, blocks: Iterator[Float32]) -> None:
        self._array = np.zeros(0, dtype=np.float32)  # all samples, or none where they are in the file
        self._file: IO[bytes] | None = None
        self.samples = 0
        """Number of samples at 16 kHz."""
        self.peak = 0.0
        """Largest absolute value."""
        self.source_samples = 0
        """Number of samples, at its own rate, of the recording that it was made of."""
        try:
            self._take(blocks)
        except BaseException:
            self.close()
            raise

    def _take(self, blocks: Iterator[Float32]) -> None:
        held: list[Float32] = []
        for block in blocks:
            held.append(block)
            self.samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            if self._file is None and self.samples * _ITEM > _IN_MEMORY:
                with _room():
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it outlives this function: `close` ends it)
            if self._file is not None:
                with _room():
                    self._file.writelines(np.ascontiguousarray(part).tobytes() for part in held)
                held = []
        if self._file is not None:
            with _room():
                self._file.flush()
        elif held:
            self._array = held[0] if len(held) == 1 else np.concatenate(held)

    @classmethod
    def of_array(cls, mono: Float32) -> Mixdown:
        """Return the mixdown that a waveform of shape (samples,) at 16 kHz is."""
        mixdown = cls(iter(()))
        mixdown._array = mono
        mixdown.samples = mixdown.source_samples = len(mono)
        mixdown.peak = float(np.abs(mono).max(initial=0.0))
        return mixdown

    @classmethod
    def of_recording(cls, recording: Recording, progress: Callable[[float], None] = lambda _: None) -> Mixdown:
        """Mix a recording down; where channels cancel each other the loudest is taken, as in `audio.to_model_rate`.

        Parameters
        ----------
        recording
            At any rate, with any number of channels.
        progress
            Called with the fraction that is done.

        Raises
        ------
        AudioError
            If it cannot be read, or there is no room for a temporary file.
        """
        powers = np.zeros(recording.channels + 1)  # of the mean, and of each channel
        done = 0

        def mixed(channel: int | None) -> Iterator[Float32]:
            nonlocal done
            done = 0
            resampler = Resampler(recording.sample_rate, MODEL_SAMPLE_RATE)
            for block in recording.blocks(_BLOCK_SECONDS * recording.sample_rate):
                mono = block.mean(axis=0, dtype=np.float64) if channel is None else block[channel]
                if channel is None:
                    powers[0] += np.square(mono).sum()
                    powers[1:] += np.square(block, dtype=np.float64).sum(axis=1)
                yield resampler.push(mono.astype(np.float32)[None])[0]
                done += block.shape[1]
                if recording.samples:
                    progress(min(1.0, done / recording.samples))
            yield resampler.finish()[0]

        mixdown = cls(mixed(None))
        if powers[0] < CANCELLED * powers[1:].mean():
            mixdown.close()
            mixdown = cls(mixed(int(powers[1:].argmax())))
        mixdown.source_samples = done
        return mixdown

    def __enter__(self) -> Mixdown:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            with suppress(OSError):  # what found no room is flushed once more
                self._file.close()

    @property
    def gain(self) -> float:
        """Factor that brings it to the peak at which parameters are estimated."""
        return _level_gain(self.peak)

    @property
    def n_frames(self) -> int:
        """Number of frames of the 16-ms grid."""
        return 1 + self.samples // HOP_LENGTH

    def read(self, first: int, last: int) -> Float32:
        """Return samples first ... last - 1, shape (last - first,); outside the recording lies silence."""
        low, high = min(max(first, 0), self.samples), min(max(last, 0), self.samples)
        if self._file is None:
            inside = self._array[low:high]
        else:
            self._file.seek(low * _ITEM)
            inside = np.frombuffer(self._file.read((high - low) * _ITEM), dtype=np.float32)
        waveform = np.zeros(last - first, dtype=np.float32)
        waveform[low - first : low - first + len(inside)] = inside
        return waveform

    def blocks(self, size: int = _READ) -> Iterator[Float32]:
        """Yield all samples, `size` at a time."""
        for start in range(0, self.samples, size):
            yield self.read(start, min(start + size, self.samples))


@contextmanager
def _room() -> Iterator[None]:
    """Say in a sentence that there is no room for temporary files."""
    try:
        yield
    except OSError as error:
        # Not `from error`: the disk of the stems may well have room, also for other recordings.
        raise AudioError(
            f"there is no room for temporary files ({reason(error)}); expected "
            f"{_ITEM * MODEL_SAMPLE_RATE // 1000} kB a second of audio: set TMPDIR to another folder"
        ) from None


def mixdown_of(audio: Mixdown | Float32) -> Mixdown:
    """Return a mixdown as it is, and that of a waveform of shape (samples,) at 16 kHz."""
    return audio if isinstance(audio, Mixdown) else Mixdown.of_array(audio)


def _level_gain(peak: float) -> float:
    """Return the factor that brings a recording of this peak to the one at which parameters are estimated."""
    audible = peak > np.finfo(np.float32).tiny  # what is fainter cannot be brought to any peak
    return LEVEL / peak if audible else 1.0


def levelled(mono: Float32) -> Tensor:
    """Return a recording, shape (samples,), brought to the peak of 0.5 at which parameters are estimated."""
    return torch.from_numpy(mono) * _level_gain(float(np.abs(mono).max()))
