"""A picture of f0 tracks over the spectrogram of a recording, as PNG (needs the extra vocalsep[plot])."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import MissingExtraError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import write_file
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE

if TYPE_CHECKING:
    from matplotlib.collections import LineCollection

COLOURS = ("#ff4d6d", "#ffb703", "#57cc99", "#4cc9f0", "#c77dff", "#f4f1de", "#ff9e6d", "#90e0ef")
"""Colours of the voices, in their order; more voices start again with the first."""

_FMIN, _FMAX = 60.0, 2000.0  # Hz: f0 of all voices and their first harmonics
_RANGE_DB = 70.0
_SILENCE_DB = -120.0  # black, even if the recording has nothing louder
_WINDOW = 0.256  # seconds: lines are sharper than with the window of the masks
_DPI, _HEIGHT, _MIN_WIDTH, _MAX_WIDTH = 100, 600, 900, 16000  # pixels
_PIXELS_PER_SECOND = 60
_CHUNK_COLUMNS = 500  # columns of the spectrogram computed at once
_CONFIDENCES, _OPACITIES = (0.3, 0.9), (0.2, 1.0)  # opacity is linear between the two confidences
_LARGEST_STEP = 2 ** (1.5 / 12)  # ratio of f0 between two frames; larger steps are leaps, drawn without a line


def save_plot(path: str | os.PathLike[str], downmix: Downmix, tracks: F0Tracks) -> None:
    """Draw f0 tracks on the 16-ms grid over the spectrogram of a recording, and write a PNG.

    Lines are pale where the confidence is low. Without matplotlib, `MissingExtraError` is raised.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed; install it with: pip install 'vocalsep[plot]'") from error

    # At most two frames for each pixel: more cannot be seen in a long recording.
    step = 1 + downmix.n_frames // (2 * _MAX_WIDTH)
    width = np.clip(downmix.n_frames * HOP * _PIXELS_PER_SECOND, _MIN_WIDTH, _MAX_WIDTH)
    figure = Figure(figsize=(width / _DPI, _HEIGHT / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frequencies, level = _spectrogram(downmix, step)
    times = np.arange(level.shape[1]) * HOP * step
    peak = max(float(level.max()), _SILENCE_DB + _RANGE_DB)
    axes.pcolormesh(times, frequencies, level, cmap="gray", vmin=peak - _RANGE_DB, vmax=peak, shading="nearest")
    for row, name in enumerate(tracks.names):
        colour = COLOURS[row % len(COLOURS)]
        confidence = np.ones(tracks.n_frames) if tracks.confidence is None else tracks.confidence[row]
        axes.add_collection(
            _line(tracks.times[::step], tracks.frequencies[row, ::step], confidence[::step], colour), autolim=False
        )
        axes.plot([], [], color=colour, linewidth=3, label=name)
    axes.set(yscale="log", ylim=(_FMIN, _FMAX), xlabel="time (s)", ylabel="frequency (Hz)")
    axes.set_yticks([100, 200, 400, 800, 1600], labels=["100", "200", "400", "800", "1600"])
    axes.minorticks_off()
    axes.legend(loc="upper right", framealpha=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_file(Path(path), content.getvalue())


def _spectrogram(downmix: Downmix, step: int) -> tuple[NDArray[np.float32], Float32]:
    """Return the frequencies in Hz of the bins that are shown, and their level in dB, shape (bins, columns).

    A column is the loudest of `step` frames.
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE, _WINDOW)
    frequencies = grid.frequencies()
    shown = (frequencies >= _FMIN / 1.2) & (frequencies <= _FMAX * 1.2)
    columns = []
    for chunk in chunks(downmix.n_frames, _CHUNK_COLUMNS * step, grid.win_length // 2 // HOP_LENGTH + 1):
        waveform = torch.from_numpy(downmix.read(chunk.low * HOP_LENGTH, chunk.high * HOP_LENGTH))
        frames = power(waveform, grid, chunk.inner.start, chunk.inner.stop)[shown]
        columns += [group.amax(dim=1) for group in torch.split(frames, step, dim=1)]
    level = 10 * torch.log10(torch.stack(columns, dim=1) + 10 ** (_SILENCE_DB / 10))
    return frequencies[shown].numpy(), level.numpy()


def _line(
    times: NDArray[np.float64], f0: NDArray[np.float32], confidence: NDArray[np.floating], colour: str
) -> LineCollection:
    """Return the track of a voice as a line for each voiced frame, pale where confidence is low."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    # Each line reaches half-way to its neighbours.
    centre = f0.astype(np.float64)
    after = np.append(centre[1:], 0.0)
    joined = (centre > 0) & (after > 0)
    joined &= np.maximum(centre, after) <= _LARGEST_STEP * np.minimum(centre, after)
    between = np.sqrt(centre * after)
    right = np.where(joined, between, centre)
    left = np.append(centre[:1], np.where(joined, between, after)[:-1])
    half = 0.5 * (times[1] - times[0] if len(times) > 1 else HOP)
    x = np.stack([times - half, times, times + half], axis=-1)
    points = np.stack([x, np.stack([left, centre, right], axis=-1)], axis=-1)  # (frames, 3, x and y)
    voiced = centre > 0
    opacities = np.interp(confidence[voiced], _CONFIDENCES, _OPACITIES)
    # Round or square ends would overlap, and pale lines look solid there.
    return LineCollection(
        list(points[voiced]), colors=[to_rgba(colour, float(a)) for a in opacities], linewidths=2.2, capstyle="butt"
    )
