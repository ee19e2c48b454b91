"""The differentiable source-filter synthesizer: parameters, excitation, vocal tract, spectrogram and waveform."""

from vocalsep.synthesizer.parameters import VoiceParameters
from vocalsep.synthesizer.render import voice_power
from vocalsep.synthesizer.waveform import synthesize

__all__ = ["VoiceParameters", "synthesize", "voice_power"]
