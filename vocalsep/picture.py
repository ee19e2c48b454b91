"""The f0 tracks of a recording drawn over its spectrogram (needs the extra vocalsep[plot])."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from vocalsep.audio import MODEL_SAMPLE_RATE, to_model_rate
from vocalsep.errors import AudioError, MissingExtraError
from vocalsep.spectrum import StftGrid, power
from vocalsep.tracks import HOP, F0Tracks

_COLOURS = ("#ff4d6d", "#ffb703", "#57cc99", "#4cc9f0", "#c77dff", "#f4f1de", "#ff9e6d", "#90e0ef")
_FMIN, _FMAX = 60.0, 2000.0  # Hz: f0 of all voices and the first harmonics
_RANGE_DB = 70.0
_WINDOW = 0.256  # seconds: pictures want sharper lines than masks
_MAX_PIXELS = 16000
_PIXELS_PER_SECOND = 60.0


def save_picture(
    path: str | os.PathLike[str], audio: ArrayLike, sample_rate: int, tracks: F0Tracks, *, title: str = ""
) -> None:
    """Draw f0 tracks over the spectrogram of a recording and write a PNG.

    Parameters
    ----------
    path
        Of the PNG.
    audio
        Shape (samples,) or (channels, samples).
    sample_rate
        Hz.
    tracks
        F0 of every voice; where their confidence is low, lines are pale.
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
        from matplotlib.colors import to_rgba
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed; pip install 'vocalsep[plot]' brings it") from error

    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE, _WINDOW)
    waveform = torch.from_numpy(to_model_rate(audio, sample_rate))
    level = (10 * torch.log10(power(waveform, grid) + 1e-12)).numpy()
    seconds = level.shape[1] * HOP
    width = min(_MAX_PIXELS, max(900.0, seconds * _PIXELS_PER_SECOND)) / 100
    figure = Figure(figsize=(width, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frequency = grid.frequencies().numpy()
    shown = (frequency >= _FMIN / 1.2) & (frequency <= _FMAX * 1.2)
    times = np.arange(level.shape[1]) * HOP
    peak = level.max()
    axes.pcolormesh(
        times, frequency[shown], level[shown], cmap="gray", vmin=peak - _RANGE_DB, vmax=peak, shading="nearest"
    )
    for row, name in enumerate(tracks.names):
        colour = _COLOURS[row % len(_COLOURS)]
        alpha = np.ones(tracks.n_frames) if tracks.confidence is None else 0.25 + 0.75 * tracks.confidence[row]
        voiced = tracks.frequencies[row] > 0
        axes.scatter(
            tracks.times[voiced], tracks.frequencies[row][voiced], s=5, marker="s", linewidths=0,
            c=[to_rgba(colour, float(a)) for a in alpha[voiced]],
        )  # fmt: skip
        axes.plot([], [], color=colour, linewidth=3, label=name)
    axes.set(yscale="log", ylim=(_FMIN, _FMAX), xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    axes.set_yticks([100, 200, 400, 800, 1600], labels=["100", "200", "400", "800", "1600"])
    axes.minorticks_off()
    axes.legend(loc="upper right", framealpha=0.8)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise AudioError(f"{path}: cannot be written ({error.strerror})") from error
