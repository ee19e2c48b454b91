"""Write audio files block by block, or whole: completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.audio import ogg
from vocalsep.audio import tags as tags_of
from vocalsep.audio.formats import validate_capacity, validate_format
from vocalsep.audio.wav import WavFile, bytes_per_sample
from vocalsep.audio.waveform import MAX_CHANNELS, Float32, validate_sample_rate, validate_waveform
from vocalsep.errors import AudioError, OptionError, printable

_PIECE = 1 << 16  # samples at a time; libsndfile's Vorbis encoder overflows the stack on one write of minutes
_NAME_LIMIT = 255  # bytes that the file systems in use allow for a name


class AudioWriter:
    """A wav, flac, ogg or mp3 file that is written block by block under a temporary name.

    The format goes by the suffix of the target. `commit` gives the file its name; without it no trace is left once
    `discard` has been called, which leaving the context does.

    Parameters
    ----------
    target
        Path of the file; its folder is made where it is missing.
    sample_rate
        Hz, a whole number.
    channels
        From 1 to `MAX_CHANNELS`, or what the format holds.
    bit_depth
        "16", "24" or "float32" (wav only). Ogg and mp3 have one quality, under "16".
    tags
        Title, artist and so on, under the names of `vocalsep.audio.tags.KEYS`; others are left out, long ones cut.
    samples
        How many are to be written, where that is known: a wav file for which the disk has no room is then refused
        at once. Nothing else depends on it.
    temporary
        Path to write under, in the folder of the target; by default one that follows from the target's name, so
        that a run after one that was killed replaces what that has left.

    Attributes
    ----------
    target, temporary : Path
        Where the file will be, and where it is until then.
    clipped : int
        How many samples were beyond full scale and had to be cut so far; formats of floats (float32, ogg, mp3) cut
        none.

    Raises
    ------
    AudioError
        If the file cannot be written.
    OptionError
        If the format cannot hold such audio.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        *,
        bit_depth: str = "16",
        tags: Mapping[str, str] | None = None,
        samples: int | None = None,
        temporary: Path | None = None,
    ) -> None:
        self.target = Path(target)
        self._format = self.target.suffix.lower().lstrip(".")
        self._subtype = validate_format(self._format, bit_depth)
        self._rate = validate_sample_rate(sample_rate)
        self._channels = _validate_channels(channels)
        validate_capacity(self._format, channels, self._rate)
        self._tags = tags_of.cleaned(tags or {})
        self.temporary = temporary or temporary_name(self.target)
        self.clipped = 0
        self._written = 0
        self._waiting: list[NDArray[Any]] = []
        self._finished = self._committed = False
        self._file: Any = None
        try:
            with _refused(self.target):
                self._open(samples)
        except BaseException:
            self.discard()
            raise

    def _open(self, samples: int | None) -> None:
        _refuse_folder(self.target)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if self._format == "wav" and samples is not None:
            need = samples * self._channels * bytes_per_sample(self._subtype)
            if need > shutil.disk_usage(self.target.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Made anew, with the rights that the user's umask leaves; what an earlier run or someone else has left
        # there, such as a link, is not followed.
        self.temporary.unlink(missing_ok=True)
        os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if self._format == "wav":
            self._file = WavFile(self.temporary, self._rate, self._channels, self._subtype, self._tags)
            return
        from vocalsep.audio import sndfile

        self._file = sndfile.create(
            self.temporary, self._rate, self._channels, self._subtype, self._format.upper(), self._tags
        )

    def write(self, block: Float32) -> None:
        """Append samples.

        Parameters
        ----------
        block
            float32 of shape (channels, n), n >= 0, full scale +-1. Formats of whole numbers take the nearest step
            and cut what exceeds full scale.

        Raises
        ------
        AudioError
            If the block has another number of channels or holds NaN or infinity, or the file cannot be written.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise AudioError(f"block has shape {block.shape}; expected ({self._channels}, samples)")
        if not np.isfinite(block).all():
            raise AudioError("block holds samples that are NaN or infinite; expected finite numbers")
        with _refused(self.target):
            if self._file is None:
                raise ValueError("the file is closed")
            for start in range(0, block.shape[1], _PIECE):
                steps, clipped = _quantised(block[:, start : start + _PIECE].T, self._subtype)
                self._pass_on(steps)
                self.clipped += clipped

    def _pass_on(self, steps: NDArray[Any]) -> None:
        """Give samples to the encoder in pieces of one length: Vorbis makes other bytes of other pieces."""
        self._waiting.append(steps)
        self._written += len(steps)
        held = sum(map(len, self._waiting))
        if held >= _PIECE:
            joined = np.concatenate(self._waiting)
            whole = held - held % _PIECE
            for start in range(0, whole, _PIECE):
                self._file.write(joined[start : start + _PIECE])
            self._waiting = [joined[whole:]]

    def finish(self) -> None:
        """Complete the file under its temporary name and flush it to the disk.

        Raises
        ------
        AudioError
            If that fails: libsndfile does not say that the disk was full when it wrote the last block, so the end
            is read back.
        """
        if self._finished:
            return
        with _refused(self.target):
            if self._file is None:
                raise ValueError("the file is closed")
            if self._waiting:
                self._file.write(np.concatenate(self._waiting))
                self._waiting = []
            file, self._file = self._file, None
            file.close()
            if self._format == "ogg":
                ogg.renumber(self.temporary)
            if self._format == "mp3":
                _prepend(self.temporary, tags_of.id3(self._tags))
            with self.temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            from vocalsep.audio import sndfile

            sndfile.check_end(self.temporary, self._written)
        self._finished = True

    def commit(self) -> None:
        """Give the file its name, in place of what has it now; finish it first where that has not been done.

        Raises
        ------
        AudioError
            If that fails.
        """
        self.finish()
        if not self._committed:
            with _refused(self.target):
                self.temporary.replace(self.target)
            self._committed = True

    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there; what has been committed stays."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(Exception):
                file.close()
        if not self._committed:
            with suppress(OSError, ValueError):
                self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def write(
    path: str | os.PathLike[str],
    audio: ArrayLike,
    sample_rate: int,
    *,
    bit_depth: str = "16",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a waveform to wav, flac, ogg or mp3, by the suffix of `path`, completely or not at all.

    Parameters
    ----------
    path
        Target; its folder is made where it is missing. The file is written under a temporary name in the same
        folder, another one each time, and renamed at the end.
    audio
        Shape (samples,) or (channels, samples), full scale +-1. What exceeds full scale is clipped by formats of
        whole numbers and kept by float32.
    sample_rate
        Hz, a whole number.
    bit_depth
        "16", "24" or "float32" (wav only). Ogg and mp3 have one quality, under "16".
    tags
        Title, artist and so on, under the names of `vocalsep.audio.tags.KEYS`.

    Raises
    ------
    AudioError
        If the waveform is not valid or the file cannot be written.
    OptionError
        If the format cannot hold such audio.
    """
    target = Path(path)
    validate_format(target.suffix.lower().lstrip("."), bit_depth)
    waveform = validate_waveform(audio)
    with AudioWriter(
        target,
        sample_rate,
        waveform.shape[0],
        bit_depth=bit_depth,
        tags=tags,
        samples=waveform.shape[1],
        temporary=target.parent / f".vocalsep-{uuid4().hex}",
    ) as writer:
        writer.write(waveform)
        writer.commit()


def temporary_name(target: Path) -> Path:
    """Return the hidden path beside `target` under which it is written, the same each time.

    Examples
    --------
    >>> temporary_name(Path("out/alto.wav")).name
    '.alto.wav.part'
    """
    name = f".{target.name}.part"
    if len(os.fsencode(name)) > _NAME_LIMIT:
        digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
        name = f".{os.fsencode(target.name)[:128].decode(errors='ignore')}-{digest}.part"
    return target.parent / name


@contextmanager
def _refused(target: Path) -> Iterator[None]:
    """Turn what encoders and the system raise into an AudioError of one sentence."""
    from vocalsep.audio import sndfile

    try:
        yield
    except (AudioError, OptionError):
        raise
    except sndfile.FAILURES as error:
        raise AudioError(
            f"{printable(target)}: cannot be written ({sndfile.reason(error)}); "
            "expected a folder that can be written to, with room"
        ) from error


def _validate_channels(channels: int) -> int:
    if not 1 <= channels <= MAX_CHANNELS:
        raise OptionError(f"channels is {channels}; expected 1 to {MAX_CHANNELS}")
    return channels


def _refuse_folder(target: Path) -> None:
    # Also tells at once, not after an hour of work, that a name is too long.
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(target.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _quantised(samples: Float32, subtype: str) -> tuple[NDArray[Any], int]:
    """Return samples as the file holds them, and how many had to be cut.

    Whole numbers are the nearest ones (libsndfile rounds wav down), in the highest bits of int32.
    """
    bits = {"PCM_16": 16, "PCM_24": 24}.get(subtype)
    if bits is None:
        return np.ascontiguousarray(samples), 0
    full = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(samples * full), -full, full - 1).astype(np.int32)
    return steps << (32 - bits), int(np.count_nonzero(np.abs(samples) > 1))


def _prepend(path: Path, head: bytes) -> None:
    """Put bytes before a file's first one, within the file."""
    if not head:
        return
    with path.open("rb+") as stream:
        end = os.fstat(stream.fileno()).st_size
        reading = writing = 0
        carried = head
        while carried:
            stream.seek(reading)
            following = stream.read(min(max(len(head), 1 << 20), end - reading))
            reading += len(following)
            stream.seek(writing)
            writing += stream.write(carried)
            carried = following
