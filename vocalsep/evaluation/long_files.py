"""Long recordings: memory, time, and whether the stems still add up.

A recording is repeated until it lasts as long as is wanted, brought to 48 kHz and two channels, and separated by a
process of its own, whose peak memory the system tells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vocalsep.audio import AudioReader, AudioWriter, read, resample
from vocalsep.errors import ParameterError

SAMPLE_RATE = 48000
"""Hz."""
_BLOCK = 10 * SAMPLE_RATE  # samples that are compared at once
_FAINTER = 0.7  # gain of the second channel


class Long(NamedTuple):
    """What the separation of a long recording took."""

    minutes: float
    """Of audio."""
    seconds: float
    """That it took."""
    megabytes: float
    """Peak of the memory that was resident, in MB (10**6 bytes)."""
    error: float
    """Of the sum of the stems, in dB relative to the recording."""


def write_repeated(source: Path, target: Path, minutes: float) -> None:
    """Write a recording over and over, at 48 kHz in stereo, until it lasts so many minutes.

    Raises
    ------
    AudioError
        If it cannot be read or written.
    """
    waveform, sample_rate = read(source)
    mono = resample(waveform.mean(axis=0), sample_rate, SAMPLE_RATE)
    stereo = np.concatenate([mono, _FAINTER * np.roll(mono, 24, axis=1)]).astype(np.float32)
    left = round(60 * minutes * SAMPLE_RATE)
    with AudioWriter(target, SAMPLE_RATE, 2, bit_depth="24", samples=left) as writer:
        while left:
            part = stereo[:, :left]
            writer.write(part)
            left -= part.shape[1]
        writer.commit()


def measure(source: Path, folder: Path, minutes: float) -> Long:
    """Separate a recording that lasts so many minutes with `vocalsep separate`, in a folder for it alone.

    Raises
    ------
    ParameterError
        If this system does not tell the memory of a process, or the separation fails.
    """
    if not hasattr(os, "wait4"):
        raise ParameterError("this system does not tell how much memory a process took; expected Linux or macOS")
    recording, out = folder / "long.wav", folder / "separated"
    write_repeated(source, recording, minutes)
    command = [sys.executable, "-m", "vocalsep", "separate", str(recording), "--float32"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "-o", str(out)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ParameterError(f"{' '.join(command[3:])} ended with exit code {process.returncode}")
    stems = sorted((out / "long").glob("*.wav"))
    error = sum_error(recording, stems)
    for path in (recording, *stems):
        path.unlink()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return Long(minutes, seconds, usage.ru_maxrss * unit / 1e6, error)


def sum_error(recording: Path, stems: list[Path]) -> float:
    """Return the power of what the stems' sum differs from the recording by, in dB relative to it."""
    different = power = 0.0
    with ExitStack() as stack:
        readers = [stack.enter_context(AudioReader(path)) for path in (recording, *stems)]
        for whole, *parts in zip(*(reader.blocks(_BLOCK) for reader in readers), strict=True):
            different += float(np.square(np.sum(parts, axis=0, dtype=np.float64) - whole).sum())
            power += float(np.square(whole, dtype=np.float64).sum())
    return 10 * float(np.log10(max(different, 1e-30) / power))


def format_table(rows: list[Long]) -> Iterator[str]:
    """Yield the lines of a table of several lengths."""
    yield f"{'minutes':>8}{'time':>10}{'of real time':>14}{'peak memory':>13}{'sum of stems':>14}"
    for row in rows:
        share = row.seconds / (60 * row.minutes)
        yield (f"{row.minutes:8g}{row.seconds:8.0f} s{share:14.2f}{row.megabytes:10.0f} MB{row.error:11.0f} dB")
