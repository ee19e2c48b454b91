"""Read and write whole audio files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vocalsep.audio.stream import AudioReader, AudioWriter
from vocalsep.audio.waveform import Audio, validate_waveform
from vocalsep.files import replacing


def read(path: str | os.PathLike[str]) -> Audio:
    """Read an audio file.

    Parameters
    ----------
    path : str or PathLike
        See `AudioReader`.

    Returns
    -------
    Audio
        Waveform of shape (channels, samples) and sample rate in Hz, as stored in the file.

    Raises
    ------
    AudioError
        If the file is missing, empty, cut short or not audio, or holds samples that are not finite.
    """
    with AudioReader(path) as reader:
        return Audio(np.concatenate(list(reader.blocks(1 << 20)), axis=1), reader.sample_rate)


def write(
    path: str | os.PathLike[str],
    audio: ArrayLike,
    sample_rate: int,
    *,
    bit_depth: str = "16",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a waveform to wav, flac, ogg, mp3 or m4a, by the suffix of `path`, completely or not at all.

    Parameters
    ----------
    path : str or PathLike
        Path of the file. Its folder is made if it is missing.
    audio : array_like, shape (samples,) or (channels, samples)
        Full scale +-1.
    sample_rate, bit_depth, tags
        See `AudioWriter`.

    Raises
    ------
    AudioError
        If the waveform is not valid.
    OptionError
        If the format cannot hold such audio.
    OutputError
        If the file cannot be written.
    """
    target = Path(path)
    waveform = validate_waveform(audio)
    audio_format = target.suffix.lower().lstrip(".")
    with (
        replacing(target) as temporary,
        AudioWriter(
            temporary,
            sample_rate,
            waveform.shape[0],
            bit_depth=bit_depth,
            tags=tags,
            format=audio_format,
            samples=waveform.shape[1],
        ) as writer,
    ):
        writer.write(waveform)
