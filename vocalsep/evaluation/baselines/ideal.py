"""Upper bounds that know the true stems: ideal ratio masks, and the source-filter model at its best.

No soft mask beats the ideal ratio mask. No estimator of source-filter parameters beats parameters that are estimated
and fitted in the true stems; the gap between these two bounds is the price of the model.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, power
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.separation.separator import Separator

GRID = StftGrid.of_duration()


def separate_ideal(mixture: Float32, stems: Float32) -> Float32:
    """Return the stems that ideal ratio masks, the shares of the true stems in the power, cut out of a mixture."""
    true = torch.from_numpy(stems)
    return cut(torch.from_numpy(mixture), GRID, len(stems), lambda first, last: power(true, GRID, first, last)).numpy()


def ideal_parameters(stems: Float32, tracks: F0Tracks, separator: Separator) -> list[VoiceParameters]:
    """Return the parameters of each voice, estimated and fitted in its true stem at 16 kHz, at the stem's level."""
    found = []
    for name, stem in zip(tracks.names, stems, strict=True):
        downmix = Downmix.of_array(stem)
        parameters = separator.parameters(downmix, tracks.select([name]))
        # Parameters are relative to the level at which the estimator works.
        down = math.log(downmix.gain)
        found.append(replace(parameters, log_gain=parameters.log_gain - down, log_noise=parameters.log_noise - down))
    return found


def separate_by_parameters(mixture: Float32, voices: list[VoiceParameters], *, use_phase: bool = True) -> Float32:
    """Return the stems that the masks of `ideal_parameters` cut out of a mixture.

    With `use_phase`, harmonics are weighed by the mixture's instantaneous frequency.
    """
    waveform = torch.from_numpy(mixture)

    def expected(first: int, last: int) -> Tensor:
        frequency = instantaneous_frequency(waveform, GRID, first, last) if use_phase else None
        return torch.cat([voice_power(voice, GRID, first, last, instantaneous_frequency=frequency) for voice in voices])

    with torch.inference_mode():
        return cut(waveform, GRID, len(voices), expected).numpy()
