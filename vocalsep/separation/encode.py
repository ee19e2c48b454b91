"""Stems to files: the one place where stems are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vocalsep.audio import AudioWriter, Float32

_FULL_SCALE = 1 - 2**-15  # the largest positive 16-bit sample


class StemFormat(NamedTuple):
    """Format that the stems of a recording share."""

    format: str
    bit_depth: str
    sample_rate: int
    channels: int
    samples: int
    tags: Mapping[str, str]
    clamp: bool


def rescaling_gain(peak: float, bit_depth: str) -> float:
    """Return the gain that brings a peak into full scale; it is 1 if the peak fits, or for float samples.

    Examples
    --------
    >>> round(rescaling_gain(2.0, "16"), 3), rescaling_gain(2.0, "float32"), rescaling_gain(1.0, "24")
    (0.5, 1.0, 1.0)
    """
    return 1.0 if bit_depth == "float32" or peak <= 1 else _FULL_SCALE / peak


def encode(blocks: Iterable[Float32], paths: Sequence[Path], form: StemFormat, gain: float = 1.0) -> int:
    """Write stems, each to its file, and return the number of clipped samples.

    Blocks have the shape (stems, channels, samples). No file is left behind if one of them cannot be written, which
    raises `OutputError`, or `OptionError` if the format cannot hold such audio.
    """
    clamped = 0
    with ExitStack() as stack:  # after an error, every writer removes its file
        writers = [stack.enter_context(_writer(path, form)) for path in paths]
        for block in blocks:
            stems = block if gain == 1 else block * np.float32(gain)
            if form.clamp:
                clamped += int((np.abs(stems) > 1).sum())
                stems = stems.clip(-1, 1)
            for writer, stem in zip(writers, stems, strict=True):
                writer.write(stem)
        for writer in writers:
            writer.close()
    return clamped or sum(writer.clipped for writer in writers)


def _writer(path: Path, form: StemFormat) -> AudioWriter:
    return AudioWriter(
        path,
        form.sample_rate,
        form.channels,
        bit_depth=form.bit_depth,
        tags=form.tags,
        format=form.format,
        samples=form.samples,
    )
