"""The differentiable source-filter synthesizer.

A voice is harmonics of f0 with a glottal roll-off, plus noise (`excitation`), through an all-pole vocal-tract filter
(`all_pole`). From the parameters of all voices (`parameters`) it computes their expected power spectrogram
(`spectrogram`, with the shape of the harmonics from `lobes`) or their waveforms (`waveform`).
"""

from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.model.synthesizer.waveform import synthesize

__all__ = ["VoiceParameters", "synthesize", "voice_power"]
