"""The f0 tracks of a recording drawn over its spectrogram (needs the extra vocalsep[plot])."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vocalsep.audio import Float32, to_model_rate
from vocalsep.audio.downmix import Mixdown
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import AudioError, MissingExtraError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import write_file
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE

_COLOURS = ("#ff4d6d", "#ffb703", "#57cc99", "#4cc9f0", "#c77dff", "#f4f1de", "#ff9e6d", "#90e0ef")
_FMIN, _FMAX = 60.0, 2000.0  # Hz: f0 of all voices and the first harmonics
_RANGE_DB = 70.0
_SILENCE_DB = -120.0  # is black, also where nothing else sounds
_WINDOW = 0.256  # seconds: pictures want sharper lines than masks
_MAX_PIXELS = 16000
_PIXELS_PER_SECOND = 60.0
_BLOCK_FRAMES = 500  # columns that are worked out at once
_PALE, _SOLID = (0.3, 0.2), (0.9, 1.0)  # confidence, opacity; linear between them
_LARGEST_STEP = 2 ** (1.5 / 12)  # ratio of f0 in two frames: beyond it a track leaps, and no line joins them


def save_picture(
    path: str | os.PathLike[str], audio: Mixdown | ArrayLike, sample_rate: int, tracks: F0Tracks, *, title: str = ""
) -> None:
    """Draw f0 tracks over the spectrogram of a recording and write a PNG.

    Parameters
    ----------
    path
        Of the PNG.
    audio
        A mixdown, or a waveform of shape (samples,) or (channels, samples).
    sample_rate
        Hz, of a waveform.
    tracks
        F0 of every voice; where their confidence is low, lines are pale: up to 0.3 they hardly show, from 0.9 on they
        are solid.
    title
        Above the picture.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    AudioError
        If the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.collections import LineCollection
        from matplotlib.colors import to_rgba
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed; pip install 'vocalsep[plot]' brings it") from error

    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE, _WINDOW)
    mixdown = audio if isinstance(audio, Mixdown) else Mixdown.of_array(to_model_rate(audio, sample_rate))
    # Of a long recording, every so many frames: more than two for each pixel cannot be seen.
    step = 1 + int(mixdown.n_frames / (2 * _MAX_PIXELS))
    tracks = F0Tracks(
        tracks.frequencies[:, ::step],
        tracks.names,
        step * tracks.hop,
        None if tracks.confidence is None else tracks.confidence[:, ::step],
    )
    width = min(_MAX_PIXELS, max(900.0, mixdown.n_frames * HOP * _PIXELS_PER_SECOND)) / 100
    figure = Figure(figsize=(width, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frequency = grid.frequencies().numpy()
    shown = (frequency >= _FMIN / 1.2) & (frequency <= _FMAX * 1.2)
    level = _levels(mixdown, grid, torch.from_numpy(shown), step)
    times = np.arange(level.shape[1]) * HOP * step
    peak = max(float(level.max()), _SILENCE_DB + _RANGE_DB)
    axes.pcolormesh(times, frequency[shown], level, cmap="gray", vmin=peak - _RANGE_DB, vmax=peak, shading="nearest")
    for row, name in enumerate(tracks.names):
        colour = _COLOURS[row % len(_COLOURS)]
        confidence = np.ones(tracks.n_frames) if tracks.confidence is None else tracks.confidence[row]
        opacity = np.interp(confidence, (_PALE[0], _SOLID[0]), (_PALE[1], _SOLID[1]))
        voiced = tracks.voiced[row]
        # Butt ends: where pieces overlap, pale ones would add up to solid ones.
        lines = LineCollection(
            list(_pieces(tracks.times, tracks.frequencies[row])[voiced]),
            colors=[to_rgba(colour, float(a)) for a in opacity[voiced]],
            linewidths=2.2,
            capstyle="butt",
        )
        axes.add_collection(lines, autolim=False)
        axes.plot([], [], color=colour, linewidth=3, label=name)
    axes.set(yscale="log", ylim=(_FMIN, _FMAX), xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    axes.set_yticks([100, 200, 400, 800, 1600], labels=["100", "200", "400", "800", "1600"])
    axes.minorticks_off()
    axes.legend(loc="upper right", framealpha=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_file(Path(path), content.getvalue(), "PNG", AudioError)


def _levels(mixdown: Mixdown, grid: StftGrid, shown: Tensor, step: int) -> Float32:
    """Return the level of the bins that are shown in dB, shape (bins, frames): of `step` frames the loudest."""
    margin = grid.win_length // 2 // HOP_LENGTH + 1  # frames
    parts = []
    for first in range(0, mixdown.n_frames, _BLOCK_FRAMES * step):
        last = min(first + _BLOCK_FRAMES * step, mixdown.n_frames)
        waveform = mixdown.read((first - margin) * HOP_LENGTH, (last + margin) * HOP_LENGTH)
        block = power(torch.from_numpy(waveform), grid, margin, margin + last - first)[shown]
        loudest = [group.amax(dim=1) for group in torch.split(block, step, dim=1)]
        parts.append(10 * torch.log10(torch.stack(loudest, dim=1) + 10 ** (_SILENCE_DB / 10)))
    return torch.cat(parts, dim=1).numpy()


def _pieces(times: NDArray[np.float64], f0: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each frame's piece of a line, shape (frames, 3 points, time and f0): half-way to its neighbours."""
    centre = f0.astype(np.float64)
    after = np.append(centre[1:], 0.0)
    joined = (centre > 0) & (after > 0)
    joined &= np.maximum(centre, after) <= _LARGEST_STEP * np.minimum(centre, after)
    between = np.sqrt(centre * after)
    right = np.where(joined, between, centre)
    left = np.append(centre[:1], np.where(joined, between, after)[:-1])
    half = 0.5 * (times[1] - times[0] if len(times) > 1 else HOP)
    return np.stack(
        [np.stack([times - half, times, times + half], axis=-1), np.stack([left, centre, right], axis=-1)], axis=-1
    )
