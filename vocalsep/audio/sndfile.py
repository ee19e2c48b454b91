"""Files through libsndfile: wav, flac, ogg, mp3, aiff and its other formats.

This module imports soundfile, which takes a moment; import it where it is needed.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np
import soundfile

from vocalsep.audio import tags
from vocalsep.audio.formats import depth_of
from vocalsep.audio.mp3 import CountedFile, Frames, count_frames
from vocalsep.audio.source import Description
from vocalsep.audio.waveform import Float32

FAILURES = (soundfile.SoundFileError, OSError, RuntimeError, AssertionError, MemoryError, ValueError, TypeError)
"""What soundfile and the system raise when a file cannot be read or written (ValueError: a zero byte in its name,
TypeError: headerless audio, whose format soundfile wants to be told)."""

_PIECE = 1 << 16  # samples that are decoded at a time
_UNKNOWN = np.iinfo(np.int64).max  # libsndfile's count of samples of a FLAC stream of unknown length
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
"""Those that are read. libsndfile knows more, of samplers and measurements, but takes what is left of a file cut short
for a whole one there, and prints about broken ones."""
_BEGINNINGS = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"riff",
    b"FORM",
    b".snd",
    b"dns.",
    b"caff",
    b"fLaC",
    b"OggS",
    b"ID3",
)
_TALKATIVE = ("MP3", "CAF")  # formats whose decoders (mpg123, ALAC) print what they do not like

_STDERR = Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit a lock that another thread of its parent held
    os.register_at_fork(before=_STDERR.acquire, after_in_parent=_STDERR.release, after_in_child=_STDERR.release)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from its start to its end.

    soundfile seeks after every block of what it takes for seekable. That fails at the end of a FLAC stream whose
    header does not tell its length, and formats that cannot seek would not be read at all.
    """

    def seekable(self) -> bool:
        return False


def describe(path: Path) -> Description:
    """Read a file's header.

    Raises
    ------
    SoundFileError, OSError, ...
        One of `FAILURES`, if libsndfile does not know the file.
    """
    with _opened(path) as sound:
        samples = sound.frames if 0 < sound.frames < _UNKNOWN else None
        described = Description(
            sample_rate=sound.samplerate,
            channels=sound.channels,
            samples=samples,
            bit_depth=depth_of(sound.subtype),
            tags=tags.cleaned(sound.copy_metadata()),
            least=samples or 0,
        )
    if sound.format != "MP3":
        return described
    frames = _miscounted(path)
    if frames is not None:
        # Decoders drop their own delay, less than a frame.
        slack = frames.samples_per_frame if frames.cut else -frames.samples_per_frame
        return described._replace(samples=frames.samples, least=max(0, frames.samples + slack))
    return described if sound.subtype == "MPEG_LAYER_III" else described._replace(least=0)  # a guess


def decode(path: Path) -> Iterator[Float32]:
    """Yield a file's samples as float32 arrays of shape (channels, n) with n >= 1.

    Raises
    ------
    SoundFileError, OSError, ...
        One of `FAILURES`, if the file is broken.
    """
    with _opened(path, whole=True) as sound:
        talkative = sound.format in _TALKATIVE
        left = sound.frames
        while left > 0:  # not until nothing comes: a tag at the end would be an error of the decoder
            piece = np.empty((min(_PIECE, left), sound.channels), np.float32)
            if talkative:
                with quiet():
                    piece = sound.read(out=piece)
            else:
                piece = sound.read(out=piece)
            if not len(piece):
                return
            left -= len(piece)
            yield piece.T


def _miscounted(path: Path) -> Frames | None:
    """Return the frames of an mp3 file that does not say how many they are, or that has more than it says."""
    frames = count_frames(path)
    return None if frames is None or frames.found <= (frames.promised or 0) else frames


@contextmanager
def _opened(path: Path, *, whole: bool = False) -> Iterator[_Sequential]:
    """Open a file for reading; with `whole`, so that mp3 files are read to their end."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if not head.startswith(_BEGINNINGS) and not (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        raise RuntimeError("its format is not known")
    with ExitStack() as stack:
        with quiet():
            sound = stack.enter_context(_Sequential(_readable(path)))
        frames = _miscounted(path) if whole and sound.format == "MP3" else None
        if frames is not None:
            counted = stack.enter_context(CountedFile(path, frames))
            with quiet():
                sound = stack.enter_context(_Sequential(counted))
        if sound.format not in _FORMATS:
            raise RuntimeError(f"files of the kind {sound.format_info} are not read")
        yield sound


def create(
    path: Path, sample_rate: int, channels: int, subtype: str, container: str, strings: Mapping[str, str]
) -> soundfile.SoundFile:
    """Open a file for writing; `strings` are cleaned tags, which mp3 gets otherwise: LAME mistakes UTF-8 for Latin-1.

    Raises
    ------
    SoundFileError, OSError, ...
        One of `FAILURES`.
    """
    with quiet():
        sound = soundfile.SoundFile(_name(path), "w", sample_rate, channels, subtype, format=container)
    if container != "MP3":
        for key, text in strings.items():
            with suppress(*FAILURES):
                setattr(sound, key, text)
    return sound


def check_end(path: Path, samples: int) -> None:
    """Read the end of a file back.

    Raises
    ------
    SoundFileError, OSError, ...
        One of `FAILURES`; OSError if the file does not hold so many samples.
    """
    with quiet(), soundfile.SoundFile(_name(path)) as sound:
        start = max(0, samples - 2 * _PIECE)
        sound.seek(start)
        if start + len(sound.read(2 * _PIECE)) != samples:
            raise OSError("its end is missing")


def _name(path: Path) -> str | bytes:
    # Names that are not UTF-8 are strings that only fsencode can encode.
    return str(path) if sys.platform == "win32" else os.fsencode(path)


def _readable(path: Path) -> str | int:
    """Return what soundfile is to open for reading: a descriptor, so that it judges the file and not its name."""
    if sys.platform == "win32":  # where libsndfile has descriptors of its own
        return str(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no longer a file")
    return descriptor


def reason(error: BaseException) -> str:
    """Return in a few words why a file could not be read or written."""
    if isinstance(error, MemoryError):
        return "its header promises more samples than fit into memory"
    words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or "it is cut short"
    return " ".join(str(words).split()).removeprefix("Error : ").rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libsndfile's decoders print about broken files from the terminal: they write to descriptor 2."""
    with _STDERR:
        try:
            terminal = os.dup(2)
        except OSError:  # a program without a terminal
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (devnull is no path)
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
