"""Decode audio files, with libsndfile (through soundfile) or FFmpeg (through PyAV).

libsndfile decodes wav, flac, ogg, aiff and their relatives, FFmpeg all other files. The first bytes of a file decide,
not its name. `open_file` reads the header; `OpenFile.decode` yields the samples from the start, as often as needed.

FFmpeg detects the format by itself. It may only open containers of sound and video, because it would take a text for a
playlist, and open the files and addresses in it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

from vocalsep.audio import tags
from vocalsep.audio.formats import ffmpeg_depth, sndfile_depth
from vocalsep.audio.waveform import Float32
from vocalsep.errors import AudioError, printable, reason

FAILURES = (soundfile.SoundFileError, av.FFmpegError, OSError, RuntimeError, ValueError, LookupError, AssertionError)
"""Exceptions of the libraries and the system when a file cannot be read or written."""

_BLOCK = 1 << 16  # samples that libsndfile decodes at a time
_MAX_SAMPLES = 1 << 40  # libsndfile reports more if a FLAC header gives no number
_SNDFILE = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC", b"OggS")
_DEMUXERS = (
    "mov,matroska,webm,mp3,aac,asf,avi,ogg,flac,wav,w64,aiff,caf,au,ape,wv,tta,mpc,mpc8,ac3,eac3,amr,flv,mpeg,mpegts"
)
_RESYNCING = ("mp3", "aac", "mpegts", "mpeg")  # streams without an index, in which a decoder finds the next frame
_TIMED = ("mov", "matroska", "asf", "avi", "ogg", "ape", "wv")  # containers with their duration in the header
_SLACK = 0.25  # s by which a duration in a header and the decoded samples differ: delays of encoders, edit lists
_PROTECTED = ("drms", "enca")  # instead of a codec's tag in mp4 files with copy protection


class OpenFile(NamedTuple):
    """The header of a file, and the function that decodes it."""

    decode: Callable[[], Iterator[Float32]]
    """Yields the samples from the start, shape (channels, n)."""
    sample_rate: int
    channels: int
    samples: int | None
    """In each channel, according to the header or to FFmpeg's guess; None if unknown."""
    least: int
    """In each channel; a file with fewer samples has lost its end."""
    bit_depth: str
    tags: dict[str, str]


def open_file(path: Path) -> OpenFile:
    """Read the header of a file; raises AudioError or one of `FAILURES`, see `unreadable`."""
    _check_is_file(path)
    with path.open("rb") as stream:
        head = stream.read(32)
    _check_size(path, head)
    if head.startswith(_SNDFILE):
        try:
            return _open_sndfile(path)
        except (soundfile.SoundFileError, TypeError, ValueError):
            pass  # AVI begins like wav, and some wav files hold codecs of FFmpeg
    return _open_ffmpeg(path)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turn errors while a file is read into an AudioError of one sentence that names the file."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{printable(path)}: {error}") from error.__cause__
    except FAILURES as error:
        raise AudioError(
            f"{printable(path)}: cannot be read as audio ({explanation(error)}); expected a file such as wav, flac, "
            "mp3 or m4a"
        ) from error


def explanation(error: BaseException) -> str:
    """Return a library's explanation of an error on one line, without the path."""
    words = getattr(error, "error_string", None) or reason(error) or type(error).__name__
    return " ".join(str(words).split()).removeprefix("Error : ").rstrip(".")


def cut_short(found: int, expected: int, unit: str) -> AudioError:
    """Return the error of a file that has lost its end."""
    return AudioError(
        f"is cut short ({found} of {expected} {unit}); expected a whole file: copy it again, or "
        "save what there is with an audio editor"
    )


def _check_is_file(path: Path) -> None:
    """Refuse folders, and devices and FIFOs, which would hang or never end."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise AudioError("no such file; expected an audio file") from None
    if not stat.S_ISREG(found.st_mode):
        raise AudioError(f"is a {'folder' if path.is_dir() else 'device'}; expected an audio file")
    if not found.st_size:
        raise AudioError("is empty (0 bytes); expected an audio file")


def _check_size(path: Path, head: bytes) -> None:
    """Refuse a wav or aiff file that is smaller than its header says; libsndfile would read the rest."""
    if len(head) < 28 or head[8:12] not in (b"WAVE", b"AVI ", b"AIFF", b"AIFC"):
        return
    promised = int.from_bytes(head[4:8], "little" if head[3:4] == b"F" else "big")
    if head[:4] == b"RF64":
        promised = int.from_bytes(head[20:28], "little")
    elif 0x7FFF0000 <= promised <= 0x80000000 or promised >= 0xFFFF0000:
        return  # a program that writes to a pipe does not know the size
    found = path.stat().st_size
    if promised > found:  # not promised + 8: some programs count the first 8 bytes, too
        raise cut_short(found, promised + 8, "bytes")


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from the start to the end: soundfile seeks after every block of a seekable file."""

    def seekable(self) -> bool:
        return False


def _sndfile(path: Path) -> _SoundFile:
    # libsndfile gets a descriptor: with a name, the suffix would decide how it reads the file.
    return _SoundFile(str(path) if sys.platform == "win32" else os.open(path, os.O_RDONLY))


def _open_sndfile(path: Path) -> OpenFile:
    with _sndfile(path) as sound:
        if sound.frames > _MAX_SAMPLES:
            return _open_ffmpeg(path)
        return OpenFile(
            decode=lambda: _decode_sndfile(path),
            sample_rate=sound.samplerate,
            channels=sound.channels,
            samples=sound.frames,
            least=sound.frames,
            bit_depth=sndfile_depth(sound.subtype),
            tags=tags.cleaned(sound.copy_metadata()),
        )


def _decode_sndfile(path: Path) -> Iterator[Float32]:
    with _sndfile(path) as sound:
        left = sound.frames
        while left > 0:
            block = sound.read(min(_BLOCK, left), dtype="float32", always_2d=True).T
            if not block.shape[1]:
                return
            left -= block.shape[1]
            yield block


def _open_ffmpeg(path: Path) -> OpenFile:
    with _ffmpeg(path) as (container, stream):
        # Some codecs have their true rate only in the first frame.
        frame = next(_frames(container, stream), None)
        if frame is None:
            raise RuntimeError("it holds no sound")
        samples, sure = _length(container, stream, frame.sample_rate)
        return OpenFile(
            decode=lambda: _decode_ffmpeg(path),
            sample_rate=frame.sample_rate,
            channels=len(frame.layout.channels),
            samples=samples or None,
            least=max(0, samples - int(_SLACK * frame.sample_rate)) if sure else 0,
            bit_depth=ffmpeg_depth(stream.codec_context.name, frame.format.name),
            tags=tags.from_ffmpeg(container.metadata, stream.metadata),
        )


def _decode_ffmpeg(path: Path) -> Iterator[Float32]:
    with _ffmpeg(path) as (container, stream):
        fifo, form, count, last = av.AudioFifo(), None, 0, 0
        for frame in _frames(container, stream):
            found = frame.sample_rate, frame.layout.name, frame.format.name
            form = form or found
            if found != form:  # the fifo would not notice other channels, and crash
                raise RuntimeError("its sample rate or channels change in the middle")
            frame.pts = None  # the fifo would refuse gaps
            fifo.write(frame)
            last = frame.samples
            if fifo.samples >= 2 * _BLOCK:
                count += _BLOCK
                yield _floats(fifo.read(_BLOCK))
        end, sure = _length(container, stream, stream.codec_context.sample_rate)
        padding = count + fifo.samples - end  # the encoder fills the last frame
        exact = sure and stream.time_base * stream.codec_context.sample_rate <= 1  # Matroska counts milliseconds
        rest = fifo.samples - padding if exact and 0 < padding < last else fifo.samples
        if rest:
            yield _floats(fifo.read(rest))


@contextmanager
def _ffmpeg(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file; yield its container and its first audio stream."""
    # Without "file:" FFmpeg would take a name such as "concat:a" or "http:b" for more than a name.
    name, options = f"file:{path}", {"format_whitelist": _DEMUXERS}
    try:
        opened = av.open(name, container_options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise RuntimeError("its format is not known, or its header is damaged") from error
    with opened as container:
        if not container.streams.audio:
            raise RuntimeError("it has no sound")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise RuntimeError("its codec is not known")
        if stream.codec_context.codec_tag in _PROTECTED:
            raise RuntimeError("it is protected against copying")
        yield container, stream


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    resyncing = container.format.name in _RESYNCING
    good = bad = 0
    for packet in container.demux(stream):
        try:
            if packet.is_corrupt:
                raise RuntimeError("it is damaged")
            frames = packet.decode()
        except av.InvalidDataError:
            bad += 1
            if not resyncing:
                raise
            continue
        good += len(frames)
        yield from (frame for frame in frames if frame.samples)
    if bad > good:
        raise RuntimeError("it is damaged")


def _length(container: Any, stream: Any, rate: int) -> tuple[int, bool]:
    """Return the number of samples in each channel, 0 if unknown, and whether it is more than a guess."""
    kind = container.format.name.split(",")[0]
    if stream.duration:
        samples = stream.duration * stream.time_base * rate
        # If an mp3 file has no count, FFmpeg guesses from the bit rate, which hardly gives a whole number.
        return round(samples), kind in _TIMED or (kind == "mp3" and samples.denominator == 1)
    samples = Fraction(max(0, container.duration or 0), av.time_base) * rate
    return round(samples), kind in _TIMED and len(container.streams) == 1


def _floats(frame: Any) -> Float32:
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype.kind == "u":
        return (values.astype(np.float32) - 128) / np.float32(128)  # type: ignore[no-any-return]
    if values.dtype.kind == "i":
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)  # type: ignore[no-any-return]
    with np.errstate(over="ignore"):
        return values.astype(np.float32)  # type: ignore[no-any-return]
