"""Files through FFmpeg's libraries (PyAV): m4a, aac, wma and the sound of video, which libsndfile does not know.

Which demuxer opens a file is decided here by the file's first bytes. FFmpeg's own guess would also take texts for
playlists and open what they name, other files or addresses in the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vocalsep.audio import tags
from vocalsep.audio.source import Description
from vocalsep.audio.waveform import Float32

if TYPE_CHECKING:
    import av.container

SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm", ".3gp"),
    *(".avi", ".wma", ".wmv", ".asf", ".mpg", ".mpeg", ".ac3", ".wv", ".ape", ".tta"),
)
"""Suffixes of files that only PyAV reads."""

# Offset, first bytes, FFmpeg's name of the demuxer.
_SIGNATURES = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (4, b"pnot", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf"),
    (0, b"MAC ", "ape"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\0\0\x01\xba", "mpeg"),
    (0, b"MP+", "mpc"),
    (0, b"MPCK", "mpc8"),
    (0, b"#!AMR", "amr"),
    (0, b"caff", "caf"),
    (0, b"OggS", "ogg"),
    (0, b"\x0bw", "ac3"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"G", "mpegts"),
)
_TS_PACKET = 188  # bytes; each begins with G
_TELL_DURATION = ("mov", "ape", "wv", "tta", "ogg")  # demuxers whose durations are not guessed from the bit rate
_SLACK = 0.25  # s by which durations in headers and what is decoded differ: delays of encoders, edit lists
_LOSSLESS = ("pcm_", "flac", "alac", "ape", "wavpack", "tta", "truehd", "mlp", "dsd")
_PROTECTED = ("drms", "enca")  # what stands for the codec in mp4 files with locks
_TAGS = {"track": "tracknumber", "year": "date", "creation_time": "date"}  # FFmpeg's names of tags


def demuxer_of(path: Path) -> str | None:
    """Return FFmpeg's name of the container that a file begins like, None where it is none of those we open.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_TS_PACKET + 1)
    for offset, signature, demuxer in _SIGNATURES:
        if head[offset:].startswith(signature) and (demuxer != "mpegts" or head[_TS_PACKET:] == b"G"):
            return demuxer
    return None


def describe(path: Path) -> Description:
    """Read a file's header and its first frame: some codecs tell their true rate only there.

    Raises
    ------
    RuntimeError, OSError
        If FFmpeg cannot read the file, or it has no sound.
    """
    with _opened(path) as (container, stream):
        frame = next(_frames(container, stream), None)
        if frame is None:
            raise RuntimeError("it holds no sound")
        samples = None
        if stream.duration is not None and stream.time_base is not None and stream.duration > 0:
            samples = int(stream.duration * Fraction(stream.time_base) * frame.sample_rate)
        sure = demuxer_of(path) in _TELL_DURATION and samples is not None
        return Description(
            sample_rate=frame.sample_rate,
            channels=len(frame.layout.channels),
            samples=samples,
            bit_depth=_bit_depth(stream.codec_context.name, frame.format.name),
            tags=_tags_of(container.metadata, stream.metadata),
            least=max(0, (samples or 0) - int(_SLACK * frame.sample_rate)) if sure else 0,
        )


def decode(path: Path) -> Iterator[Float32]:
    """Yield the samples of a file's first audio stream as float32 arrays of shape (channels, n).

    Raises
    ------
    RuntimeError, OSError
        If the stream is broken or changes its rate or channels on the way.
    """
    with _opened(path) as (container, stream):
        first: tuple[int, int] | None = None
        for frame in _frames(container, stream):
            form = frame.sample_rate, len(frame.layout.channels)
            if first not in (None, form):
                raise RuntimeError(f"it changes from {first} to {form} Hz and channels on its way")
            first = form
            if frame.samples:
                yield _floats(frame)


class _File:
    """A file for FFmpeg, which goes wherever a header says; PyAV would print what is raised then."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            self.failure = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, Any]]:
    try:
        import av
    except ImportError:
        raise RuntimeError("install vocalsep[av] for m4a, aac, wma and the sound of video") from None

    # As an open file: FFmpeg would take a name such as "concat:a" or "http:b" for more than a name.
    with path.open("rb") as stream:
        file = _File(stream)
        try:
            with av.open(file, format=demuxer_of(path), metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise RuntimeError("it has no sound")
                sound = container.streams.audio[0]
                if sound.codec_context is None:
                    raise RuntimeError("its codec is not known")
                if sound.codec_context.codec_tag in _PROTECTED:
                    raise RuntimeError("it is protected against copying")
                yield container, sound
                if file.failure:
                    raise file.failure
        except (av.FFmpegError, EOFError, LookupError) as error:
            raise RuntimeError(getattr(error, "strerror", None) or str(error)) from error


def _frames(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise RuntimeError("it is damaged")
        # PyAV before 16 cannot tell; the decoder then finds invalid data.
        if hasattr(packet, "has_sidedata") and packet.has_sidedata("encryption_info"):
            raise RuntimeError("it is protected against copying")
        yield from packet.decode()


def _floats(frame: Any) -> Float32:
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype.kind == "u":
        return ((values.astype(np.float32) - 128) / 128).astype(np.float32)  # type: ignore[no-any-return]
    if values.dtype.kind == "i":
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)  # type: ignore[no-any-return]
    with np.errstate(over="ignore"):
        return values.astype(np.float32)  # type: ignore[no-any-return]


def _bit_depth(codec: str, sample_format: str) -> str:
    if not codec.startswith(_LOSSLESS) or sample_format.startswith(("u8", "s16")):
        return "16"
    if sample_format.startswith("s32") and not codec.startswith("pcm_s32"):
        return "24"  # which FFmpeg gives as the highest of 32 bits
    return "float32"


def _tags_of(*sources: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for source in reversed(sources):
        for name, text in source.items():
            found[_TAGS.get(name.lower(), name.lower())] = text
    return tags.cleaned(found)
