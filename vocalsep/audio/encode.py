"""Encode audio files: wav, flac and ogg with libsndfile, mp3 and m4a with FFmpeg (through PyAV)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from vocalsep.audio import tags as tags_of
from vocalsep.audio.decode import FAILURES, explanation
from vocalsep.audio.waveform import Float32
from vocalsep.errors import OutputError, VocalsepError, printable

_BLOCK = 1 << 16  # samples at a time; libsndfile's Vorbis encoder overflows the stack on one write of minutes
_RIFF_LIMIT = (1 << 32) - (1 << 16)  # bytes of samples that a wav file holds beside its header
_RATE_PER_CHANNEL = 96_000  # bit/s of mp3 and m4a
_MAX_BITS = 6  # of a sample in AAC
_SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float32": "FLOAT"}
_BYTES = {"16": 2, "24": 3, "float32": 4}  # of a sample in a wav file
FFMPEG_CODECS = {"mp3": ("libmp3lame", "mp3"), "m4a": ("aac", "ipod")}
"""FFmpeg's names of the encoder and the container of each format that it writes; libsndfile writes the others."""


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn errors while a file is written into an OutputError of one sentence that names the file."""
    try:
        yield
    except VocalsepError:
        raise
    except FAILURES as error:
        words = explanation(error)
        if words == "System error":  # libsndfile does not say which
            words = "the disk may be full"
        raise OutputError(
            f"{printable(path)}: cannot be written ({words}); expected a folder with room that can be written to"
        ) from error


class SndfileEncoder:
    """A wav, flac or ogg file that is being encoded; a wav file becomes RF64 if its `samples` exceed 4 GB.

    `clipped` counts the samples beyond full scale that had to be clipped; `file` is open until `close` completes it.
    """

    def __init__(
        self,
        path: Path,
        audio_format: str,
        sample_rate: int,
        channels: int,
        bit_depth: str,
        tags: Mapping[str, str],
        samples: int | None,
    ) -> None:
        self.clipped = 0
        # soundfile cannot encode names that are not UTF-8.
        self._name = str(path) if sys.platform == "win32" else os.fsencode(path)
        self._written = 0
        self._bits = None if audio_format == "ogg" or bit_depth == "float32" else int(bit_depth)
        self._limit = _RIFF_LIMIT // (_BYTES[bit_depth] * channels) if audio_format == "wav" else None
        container = audio_format.upper()
        if self._limit is not None and samples is not None and samples > self._limit:
            container, self._limit = "RF64", None
        subtype = "VORBIS" if audio_format == "ogg" else _SUBTYPES[bit_depth]
        self.file = soundfile.SoundFile(self._name, "w", sample_rate, channels, subtype, format=container)
        for name, text in tags_of.cleaned(tags).items():
            with suppress(*FAILURES):  # wav has no place for a license
                setattr(self.file, name, text)

    def write(self, block: Float32) -> None:
        """Append samples of shape (channels, n)."""
        self._written += block.shape[1]
        if self._limit is not None and self._written > self._limit:
            raise OSError("a wav file of more than 4 GB needs its length in advance")
        for start in range(0, block.shape[1], _BLOCK):
            piece = block[:, start : start + _BLOCK].T
            if self._bits is not None:
                self.clipped += int(np.count_nonzero(np.abs(piece) > 1))
                piece = _quantized(piece, self._bits)
            self.file.write(piece)

    def close(self) -> None:
        """Complete the file."""
        self.file.close()
        # libsndfile does not say that the disk was full when it wrote the last block.
        with soundfile.SoundFile(self._name) as sound:
            sound.seek(max(0, self._written - 1))
            if len(sound.read(2)) != min(1, self._written):
                raise OSError("its end is missing")


class FfmpegEncoder:
    """An mp3 or m4a file that is being encoded."""

    clipped = 0  # lossy encoders take samples beyond full scale

    def __init__(self, path: Path, audio_format: str, sample_rate: int, channels: int, tags: Mapping[str, str]) -> None:
        codec, container = FFMPEG_CODECS[audio_format]
        self._rate, self._layout, self._written = sample_rate, "mono" if channels == 1 else "stereo", 0
        # The length in the header is then exact to the sample.
        options = {"movie_timescale": str(sample_rate)} if container == "ipod" else {}
        self.file: Any = av.open(f"file:{path}", "w", format=container, container_options=options)
        self.file.metadata.update(tags_of.to_ffmpeg(tags))
        bit_rate = min(_RATE_PER_CHANNEL, _MAX_BITS * sample_rate) * channels
        self._stream: Any = self.file.add_stream(
            codec, rate=sample_rate, layout=self._layout, format="fltp", bit_rate=bit_rate
        )
        self.file.start_encoding()

    def write(self, block: Float32) -> None:
        """Append samples of shape (channels, n)."""
        frame: Any = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._written
        self._written += block.shape[1]
        self.file.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file."""
        try:
            self.file.mux(self._stream.encode(None))
        finally:
            self.file.close()


def _quantized(samples: Float32, bits: int) -> NDArray[np.int32]:
    """Return the nearest steps of `bits` bits, in the highest bits of int32; libsndfile would round wav down."""
    full = 2.0 ** (bits - 1)
    steps: NDArray[np.int32] = np.clip(np.rint(samples * full), -full, full - 1).astype(np.int32)
    return steps << (32 - bits)
