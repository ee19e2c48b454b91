"""The rungs of the API: `separate` takes an array, `separate_file` a file; `vocalsep.batch` takes files to files."""

from __future__ import annotations

import os

from numpy.typing import ArrayLike

from vocalsep.audio import read
from vocalsep.f0.polyphonic import DEFAULT_TRACKER
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.given import F0sLike
from vocalsep.separation.result import Separation
from vocalsep.separation.separator import DEFAULT_MODEL, Separator
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.voices import VoicesLike


def separate(
    audio: ArrayLike,
    f0s: F0sLike = None,
    *,
    sample_rate: int = MODEL_SAMPLE_RATE,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    adapt: bool = False,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Take a recording of an ensemble apart into its voices.

    K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
    Differentiable Parametric Source Models", arXiv 2201.09592.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples), full scale +-1.
    f0s
        F0 of every voice: an `F0Tracks`, or an array (voices, frames) in Hz on the 16-ms grid, 0 = unvoiced, rows
        in the order of `voices`, high to low. None tracks them in the recording.
    sample_rate
        Hz.
    voices
        Part letters ("SATB", "SAB"), a list of names, or a number of voices. None means the names of `f0s`, or,
        for a bare array, SATB if it has four rows and voice1, voice2, ... else; without `f0s`, SATB.
    model
        Name of weights, path of a .safetensors file, or a file on the Hub; see `vocalsep.weights.names`.
    device
        "auto", "cpu", "cuda" or "mps".
    tracker
        The same, for the weights that track f0 where none is given.
    refine
        How many times CREPE tracks the voices again in their stems, near their first f0, before the final separation.
        None means once where f0 is tracked in the recording, and not at all where `f0s` are given.
    residual
        Whether to put what sounds while no voice sings into a stem of its own, "residual", instead of sharing it
        among the voices.
    adapt
        Whether the network first goes on learning, unsupervised, from the recording itself, for a minute or less; see
        `Separator.adapted`.
    progress
        Called with the stage ("reading", "f0", "adaptation", "masks") and the fraction done.

    Returns
    -------
    Separation
        Stems in the shape of `audio`, which they add up to.

    Raises
    ------
    AudioError, F0Error, VoicesError, OptionError, WeightsError
        If something cannot be used; all of them are `VocalsepError`.

    Examples
    --------
    Two tones, an octave and a fifth apart, with their f0 given:

    >>> import numpy as np
    >>> time = np.arange(16000) / 16000
    >>> tones = [0.3 * np.sin(2 * np.pi * f * time) for f in (660.0, 220.0)]
    >>> f0s = np.repeat([[660.0], [220.0]], 63, axis=1)
    >>> result = separate(tones[0] + tones[1], f0s)
    >>> list(result.stems)
    ['voice1', 'voice2']
    >>> bool(np.abs(sum(result.stems.values()) - (tones[0] + tones[1])).max() < 1e-6)
    True
    """
    return Separator(model, device, tracker=tracker).separate(
        audio,
        f0s,
        sample_rate=sample_rate,
        voices=voices,
        refine=refine,
        residual=residual,
        adapt=adapt,
        progress=progress,
    )


def separate_file(
    path: str | os.PathLike[str],
    f0s: F0sLike = None,
    *,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    adapt: bool = False,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Take an audio file apart; everything but `path` is as in `separate`."""
    waveform, sample_rate = read(path)
    return separate(
        waveform,
        f0s,
        sample_rate=sample_rate,
        voices=voices,
        model=model,
        device=device,
        tracker=tracker,
        refine=refine,
        residual=residual,
        adapt=adapt,
        progress=progress,
    )
