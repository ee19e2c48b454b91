"""The source-filter form at its best: parameters of every voice from its own true stem.

What such parameters leave to the ideal ratio masks no estimator can win; what an estimator leaves to them is its own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.audio.downmix import LEVEL
from vocalsep.dsp.stft import StftGrid, instantaneous_frequency
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.separation.separator import Separator
from vocalsep.timebase import MODEL_SAMPLE_RATE


def form_of(stems: Float32, tracks: F0Tracks, separator: Separator) -> list[VoiceParameters]:
    """Return the parameters of every voice, estimated and fitted in its true stem.

    Parameters
    ----------
    stems
        Shape (voices, samples) at 16 kHz.
    tracks
        F0 of the voices on the 16-ms grid.
    separator
        Estimates filters and noise.
    """
    return [_of_stem(stem, tracks, row, separator) for row, stem in enumerate(stems)]


def separate_form(mixture: Float32, voices: list[VoiceParameters], *, listening: bool = True) -> Float32:
    """Return stems cut by the masks of parameters that were found in the true stems.

    Parameters
    ----------
    mixture
        Shape (samples,) at 16 kHz.
    voices
        What `form_of` returns.
    listening
        Whether masks listen to the mixture's phase; see `synthesizer.render.agreement`.

    Returns
    -------
    ndarray
        Shape (voices, samples).
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    waveform = torch.from_numpy(mixture)

    def power(first: int, last: int) -> Tensor:
        heard = instantaneous_frequency(waveform, grid, first, last) if listening else None
        return torch.cat([voice_power(voice, grid, first, last, instantaneous_frequency=heard) for voice in voices])

    with torch.inference_mode():
        return cut(waveform, grid, len(voices), power).numpy()


def _of_stem(stem: Float32, tracks: F0Tracks, row: int, separator: Separator) -> VoiceParameters:
    """Return the parameters of one voice, at the level of its stem."""
    own = F0Tracks(tracks.frequencies[row : row + 1], tracks.names[row : row + 1])
    parameters = separator.fitted(stem, separator.estimate(stem, own))
    down = math.log(max(float(np.abs(stem).max()), 1e-9) / LEVEL)
    return replace(parameters, log_gain=parameters.log_gain + down, log_noise=parameters.log_noise + down)
