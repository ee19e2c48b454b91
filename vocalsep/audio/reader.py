"""Read audio files block by block, or whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from vocalsep.audio.completeness import promised_size
from vocalsep.audio.source import Description, identify
from vocalsep.audio.waveform import MAX_CHANNELS, Audio, Float32, validate_peak, validate_sample_rate
from vocalsep.errors import AudioError, printable

_BLOCK = 1 << 20  # samples that `read` takes at a time


class AudioReader:
    """An audio file that is read block by block, as often as wanted.

    The file is opened anew for each pass and not held open in between; each pass gives the same samples or an error.

    Parameters
    ----------
    path
        Of a file that libsndfile knows (wav, flac, ogg, mp3, aiff, ...), or that FFmpeg's libraries know (m4a, aac,
        wma, mkv, the sound of mp4 and mov video, ...) where PyAV is installed.

    Attributes
    ----------
    path : Path
        As given.
    sample_rate : int
        Hz.
    channels : int
        From 1 to `MAX_CHANNELS`.
    samples : int or None
        How many the header promises in each channel; None where it does not say.
    bit_depth : str
        What stems of the file should have to lose nothing: "16" for samples of 8 or 16 bits and for lossy files,
        "24", or "float32" for more and for floating point.
    tags : Mapping
        Title, artist and so on, under the names of `vocalsep.audio.tags.KEYS`.

    Raises
    ------
    AudioError
        If the file is missing, a folder, a device, empty, unreadable or no audio, or its sample rate or number of
        channels is out of range.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._closed = False
        with _refused(self.path):
            self._identity = identify(self.path)
            _refuse_cut(self.path, self._identity.size)
            self._decode, described = _describe(self.path)
        self._least = described.least
        self.samples = described.samples
        self.bit_depth = described.bit_depth
        self.tags: Mapping[str, str] = described.tags
        self.channels = described.channels
        try:
            self.sample_rate = validate_sample_rate(described.sample_rate)
        except AudioError as error:
            raise AudioError(f"{printable(self.path)}: {error}") from None
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioError(f"{printable(self.path)}: has {self.channels} channels; expected 1 to {MAX_CHANNELS}")

    def blocks(self, size: int) -> Iterator[Float32]:
        """Yield the file's samples from its start.

        Parameters
        ----------
        size
            Samples of a block, at least 1.

        Yields
        ------
        ndarray
            float32 of shape (channels, n), contiguous; n is `size` but for the last block, which may be shorter.

        Raises
        ------
        AudioError
            If the file cannot be decoded to its end, holds fewer samples than its header promises or none at all,
            holds samples that are not finite or far beyond full scale, or has changed since it was opened.
        """
        if size < 1:
            raise ValueError(f"size is {size}; expected at least one sample")
        counted = 0
        with _refused(self.path):
            self._check_same()
            for block in _regrouped(self._decode(self.path), size):
                counted += block.shape[1]
                _validate_block(block, self)
                yield block
            self._check_count(counted)

    def _check_same(self) -> None:
        if self._closed:
            raise ValueError("the reader is closed; expected an open one")
        if identify(self.path) != self._identity:
            raise AudioError(
                f"{printable(self.path)}: has changed while it was read; expected a file that stays as it is"
            )

    def _check_count(self, counted: int) -> None:
        self._check_same()
        if not counted:
            raise AudioError(f"{printable(self.path)}: holds no samples; expected at least one")
        if counted < self._least:
            raise _cut_short(self.path, counted, self._least, "samples")

    def close(self) -> None:
        """End the use of the reader: further passes are refused."""
        self._closed = True

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> Audio:
    """Read an audio file (wav, flac, ogg, mp3, aiff, ...; with PyAV also m4a, wma, video and others).

    Returns
    -------
    Audio
        waveform of shape (channels, samples) and sample rate in Hz, as stored in the file.

    Raises
    ------
    AudioError
        If the file is missing, empty, not audio, cut short, or holds values that are not finite.
    """
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(_BLOCK))
    return Audio(np.concatenate(blocks, axis=1), reader.sample_rate)


def _describe(path: Path) -> tuple[Callable[[Path], Iterator[Float32]], Description]:
    """Return who decodes a file, and what its header says: libsndfile where it can, else PyAV."""
    from vocalsep.audio import containers, sndfile

    try:
        return sndfile.decode, sndfile.describe(path)
    except sndfile.FAILURES:
        if containers.demuxer_of(path) is None:
            raise
    return containers.decode, containers.describe(path)


def _refuse_cut(path: Path, size: int) -> None:
    promised = promised_size(path)
    if promised is not None and promised > size:
        raise _cut_short(path, size, promised, "bytes")


def _cut_short(path: Path, found: int, promised: int, unit: str) -> AudioError:
    return AudioError(
        f"{printable(path)}: is cut short ({found} of at least {promised} {unit}); expected a whole file: copy it "
        "again, or save what there is with an audio editor"
    )


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn what decoders and the system raise into an AudioError of one sentence."""
    from vocalsep.audio import sndfile

    try:
        yield
    except AudioError:
        raise
    except sndfile.FAILURES as error:
        raise AudioError(
            f"{printable(path)}: cannot be read as audio ({sndfile.reason(error)}); expected wav, flac, ogg, mp3 or "
            "aiff"
        ) from error


def _regrouped(pieces: Iterable[Float32], size: int) -> Iterator[Float32]:
    """Yield the samples of pieces of any length in blocks of `size`, the last of which may be shorter."""
    waiting: list[Float32] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += piece.shape[1]
        if held >= size:
            joined = np.concatenate(waiting, axis=1)
            whole = held - held % size
            for start in range(0, whole, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            waiting, held = [joined[:, whole:].copy()], held - whole
    if held:
        yield np.ascontiguousarray(np.concatenate(waiting, axis=1))


def _validate_block(block: Float32, reader: AudioReader) -> None:
    if block.shape[0] != reader.channels:
        raise AudioError(
            f"{printable(reader.path)}: changes its number of channels; expected {reader.channels} throughout"
        )
    if not np.isfinite(block).all():
        raise AudioError(f"{printable(reader.path)}: holds samples that are NaN or infinite; expected finite numbers")
    try:
        validate_peak(block)
    except AudioError as error:
        raise AudioError(f"{printable(reader.path)}: {error}") from None
