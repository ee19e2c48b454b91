"""The benchmark of speed and memory: the stages of a separation, and files of any length."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vocalsep import audio
from vocalsep.audio import ArrayRecording, AudioWriter, Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.chunks import chunks
from vocalsep.options import NetworkOptions, OutputOptions, SeparationOptions
from vocalsep.separation.files import write_stems
from vocalsep.separation.separator import Separator
from vocalsep.separation.streaming import CHUNK_FRAMES

SAMPLE_RATE = 44100
"""Sample rate in Hz of the recordings that are separated."""
STAGE_SECONDS = 60.0
"""Length of the recording whose stages are timed."""

FileCost: TypeAlias = tuple[float, float, int]
"""Minutes of audio, seconds that the separation took, and peak memory in bytes."""


def repeated(waveform: Float32, seconds: float) -> Iterator[Float32]:
    """Repeat a recording of shape (channels, samples) at 44.1 kHz until it lasts so many seconds."""
    left = round(seconds * SAMPLE_RATE)
    while left:
        part = waveform[:, :left]
        yield part
        left -= part.shape[1]


def load_stereo(path: Path) -> Float32:
    """Read a recording and return it at 44.1 kHz with two channels, shape (2, samples)."""
    waveform, sample_rate = audio.read(path)
    resampled = audio.resample(waveform, sample_rate, SAMPLE_RATE)
    return np.ascontiguousarray(resampled[[0, -1]])


def time_stages(separator: Separator, waveform: Float32) -> dict[str, float]:
    """Return the seconds that the stages of a separation of a repeated recording take, without input and output.

    The stages are "reading" (downmix and resampling), "analysis" (room and f0), "parameters" (estimating and fitting)
    and "masks".
    """
    waveform = np.concatenate(list(repeated(waveform, STAGE_SECONDS)), axis=1)
    separator.separate(waveform[:, : 4 * SAMPLE_RATE], sample_rate=SAMPLE_RATE)  # warms up
    recording = ArrayRecording(waveform, SAMPLE_RATE)
    times = [time.perf_counter()]
    with Downmix.of_recording(recording) as downmix:
        times.append(time.perf_counter())
        analysis = separator.analyse(downmix)
        times.append(time.perf_counter())
        for chunk in chunks(analysis.tracks.n_frames, CHUNK_FRAMES):
            separator.parameters(analysis.dry, analysis.tracks, chunk.first, chunk.last)
        times.append(time.perf_counter())
        for _ in separator.stems(recording, analysis):
            pass
        times.append(time.perf_counter())
    reading, found, parameters, stems = np.diff(times)
    # `stems` estimates the parameters again before it cuts.
    return {"reading": reading, "analysis": found, "parameters": parameters, "masks": max(0.0, stems - parameters)}


def measure_file(waveform: Float32, minutes: float, networks: NetworkOptions) -> FileCost:
    """Separate a file that repeats a recording, shape (channels, samples), in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        writer = AudioWriter(path, SAMPLE_RATE, len(waveform))
        for block in repeated(waveform, 60 * minutes):
            writer.write(block)
        writer.close()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return (minutes, *pool.submit(_separate, path, networks).result())


def _separate(path: Path, networks: NetworkOptions) -> tuple[float, int]:
    """Separate a file; return the seconds that it took and the peak memory of this process in bytes."""
    import resource  # not on Windows

    started = time.perf_counter()
    separator = Separator(networks.model, networks.device, tracker=networks.tracker, masks=networks.masks)
    options = SeparationOptions()
    targets = {name: path.with_name(f"{name}.wav") for name in options.stem_names()}
    write_stems(separator, path, targets, options, OutputOptions())
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def format_stages(stages: Mapping[str, float], device: str) -> Iterator[str]:
    """Yield the lines that say how long the stages take, in shares of the length of the recording."""
    yield f"{STAGE_SECONDS:.0f} s of 44.1 kHz stereo on {device}, time over length:"
    for name, seconds in {**stages, "all": sum(stages.values())}.items():
        yield f"{name:<12}{seconds / STAGE_SECONDS:8.3f}"


def format_file_costs(costs: Iterable[FileCost]) -> Iterator[str]:
    """Yield the lines of a table of files."""
    yield f"{'minutes':>8}{'time':>10}{'of real time':>14}{'peak memory':>13}"
    for minutes, seconds, peak in costs:
        yield f"{minutes:8g}{seconds:8.0f} s{seconds / (60 * minutes):14.2f}{peak / 1e6:10.0f} MB"
