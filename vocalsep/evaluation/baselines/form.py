"""The source-filter form at its best: parameters of every voice from its own true stem.

What such parameters leave to the ideal ratio masks no estimator can win; what an estimator leaves to them is its own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from vocalsep.audio import MODEL_SAMPLE_RATE, Float32
from vocalsep.masks import soft_masks
from vocalsep.separator import LEVEL, Separator
from vocalsep.spectrum import StftGrid, instantaneous_frequency, istft, stft
from vocalsep.synthesizer.parameters import VoiceParameters
from vocalsep.synthesizer.render import voice_power
from vocalsep.tracks import F0Tracks

_BLOCK = 500  # frames rendered at once


def separate_form(
    mixture: Float32, stems: Float32, tracks: F0Tracks, separator: Separator, *, listening: bool = True
) -> Float32:
    """Return stems cut by the masks of parameters that were estimated, and fitted, in the true stems one by one.

    Parameters
    ----------
    mixture
        Shape (samples,) at 16 kHz.
    stems
        Shape (voices, samples).
    tracks
        F0 of the voices on the 16-ms grid.
    separator
        Estimates filters and noise.
    listening
        Whether masks listen to the mixture's phase; see `synthesizer.render.agreement`.

    Returns
    -------
    ndarray
        Shape (voices, samples).
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    voices = [_of_stem(stem, tracks, row, separator) for row, stem in enumerate(stems)]
    waveform = torch.from_numpy(mixture)
    spectrum = stft(waveform, grid)
    masks = []
    with torch.inference_mode():
        for first in range(0, tracks.n_frames, _BLOCK):
            last = min(first + _BLOCK, tracks.n_frames)
            heard = instantaneous_frequency(waveform, grid, first, last) if listening else None
            power = [voice_power(voice, grid, first, last, heard=heard) for voice in voices]
            masks.append(soft_masks(torch.cat(power)))
    return istft(torch.cat(masks, dim=-1) * spectrum, grid, len(mixture)).numpy()


def _of_stem(stem: Float32, tracks: F0Tracks, row: int, separator: Separator) -> VoiceParameters:
    """Return the parameters of one voice, at the level of its stem."""
    own = F0Tracks(tracks.frequencies[row : row + 1], tracks.names[row : row + 1])
    parameters = separator.fitted(stem, separator.estimate(stem, own))
    down = math.log(max(float(np.abs(stem).max()), 1e-9) / LEVEL)
    return replace(parameters, log_gain=parameters.log_gain + down, log_noise=parameters.log_noise + down)
