"""Read and write audio files block by block."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from vocalsep.audio.decode import FAILURES, cut_short, open_file, unreadable
from vocalsep.audio.encode import FFMPEG_CODECS, FfmpegEncoder, SndfileEncoder, unwritable
from vocalsep.audio.formats import validate_capacity
from vocalsep.audio.waveform import MAX_CHANNELS, Float32, validate_sample_rate, validate_samples
from vocalsep.errors import AudioError
from vocalsep.options import OutputOptions


class AudioReader:
    """An audio file that is read block by block, as often as needed.

    Each pass opens the file anew and gives the same samples.

    Parameters
    ----------
    path : str or PathLike
        A file of sound (wav, flac, mp3, m4a, ogg, aiff, ...) or of video with sound (mp4, mov, webm, ...).

    Attributes
    ----------
    path : Path
        Path of the file.
    sample_rate : int
        Hz.
    channels : int
        From 1 to `MAX_CHANNELS`.
    samples : int or None
        Samples in each channel according to the header, which may be a guess for compressed formats.
    bit_depth : str
        "16", "24" or "float32": the depth that stems of the file need to lose nothing.
    tags : dict
        Title, artist and so on; see `vocalsep.audio.tags.KEYS`.

    Raises
    ------
    AudioError
        If the file is missing, empty, cut short or not audio, or its sample rate or channels are out of range.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with unreadable(self.path):
            self._file = open_file(self.path)
            self.sample_rate = validate_sample_rate(self._file.sample_rate)
            if not 1 <= self._file.channels <= MAX_CHANNELS:
                raise AudioError(f"has {self._file.channels} channels; expected 1 to {MAX_CHANNELS}")
        self.channels, self.samples = self._file.channels, self._file.samples
        self.bit_depth, self.tags = self._file.bit_depth, self._file.tags

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the samples from the start, in contiguous blocks of shape (channels, size); the last may be shorter.

        Raises
        ------
        AudioError
            If the file is damaged or cut short, or holds samples that are not finite or far beyond full scale.
        """
        count = 0
        with unreadable(self.path):
            for block in _regrouped(self._file.decode(), size):
                validate_samples(block)
                count += block.shape[1]
                yield block
            if not count:
                raise AudioError("holds no samples; expected at least one")
            if count < self._file.least:
                raise cut_short(count, self._file.least, "samples")

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: no file is open between passes."""


def _regrouped(parts: Iterable[Float32], size: int) -> Iterator[Float32]:
    """Yield the samples of parts of any length in blocks of `size`; the last block may be shorter."""
    held: list[Float32] = []
    count = 0
    for part in parts:
        held.append(part)
        count += part.shape[1]
        if count >= size:
            joined = np.concatenate(held, axis=1)
            rest = count % size
            for start in range(0, count - rest, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            held, count = [joined[:, count - rest :]], rest
    if count:
        yield np.ascontiguousarray(np.concatenate(held, axis=1))


class AudioWriter:
    """An audio file that is written block by block, to exactly its path.

    Leaving the context after an error removes the file.

    Parameters
    ----------
    path : str or PathLike
        Path of the file, which is overwritten. Its folder is made if it is missing.
    sample_rate : int
        Hz.
    channels : int
        From 1 to `MAX_CHANNELS`, or as many as the format holds.
    bit_depth : str
        "16", "24" or "float32". Lossy formats have one quality, under "16".
    tags : mapping, optional
        Title, artist and so on; see `vocalsep.audio.tags.KEYS`. Others are left out.
    format : str, optional
        One of `vocalsep.options.FORMATS`; by default the suffix of the path.
    samples : int, optional
        Samples in each channel that will be written. A wav file needs to know if it will exceed 4 GB.

    Attributes
    ----------
    path : Path
        Path of the file.
    clipped : int
        Samples beyond full scale that have been clipped so far. Float32 and lossy formats clip none.

    Raises
    ------
    OptionError
        If there is no such format, or it cannot hold such audio.
    OutputError
        If the file cannot be written, here or later.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        *,
        bit_depth: str = "16",
        tags: Mapping[str, str] | None = None,
        format: str | None = None,
        samples: int | None = None,
    ) -> None:
        self.path = Path(path)
        name = self.path.suffix.lower().lstrip(".") if format is None else format
        OutputOptions(format=name, bit_depth=bit_depth)  # validates them
        rate = validate_sample_rate(sample_rate)
        validate_capacity(name, channels, rate)
        self._channels = channels
        self._encoder: SndfileEncoder | FfmpegEncoder | None = None
        with unwritable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("wb").close()  # libsndfile would not say why it cannot be opened
            try:
                if name in FFMPEG_CODECS:
                    self._encoder = FfmpegEncoder(self.path, name, rate, channels, tags or {})
                else:
                    self._encoder = SndfileEncoder(self.path, name, rate, channels, bit_depth, tags or {}, samples)
            except BaseException:
                self._discard()
                raise
        self.clipped = 0

    def write(self, block: Float32) -> None:
        """Append samples, shape (channels, n), with full scale +-1.

        Integer formats take the nearest step, and clip samples beyond full scale.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise AudioError(f"block has shape {block.shape}; expected ({self._channels}, samples)")
        if not block.shape[1]:
            return
        validate_samples(block)
        with unwritable(self.path):
            if self._encoder is None:
                raise ValueError("the file is closed")
            self._encoder.write(block)
            self.clipped = self._encoder.clipped

    def close(self) -> None:
        """Complete the file; a second call does nothing."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with unwritable(self.path):
                encoder.close()

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _discard(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with suppress(*FAILURES):
                encoder.file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
