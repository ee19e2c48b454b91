"""The differentiable source-filter synthesizer: parameters, excitation, vocal tract, spectrogram and waveform."""

from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import voice_power
from vocalsep.model.synthesizer.waveform import synthesize

__all__ = ["VoiceParameters", "synthesize", "voice_power"]
