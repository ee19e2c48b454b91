"""Read, write, resample and validate audio: the only package that touches audio files.

Waveforms are float32 arrays of shape (channels, samples) with full scale at +-1. soundfile (libsndfile) reads wav,
flac, ogg and aiff and writes wav, flac and ogg; PyAV (FFmpeg) reads everything else and writes mp3 and m4a.
`AudioReader` and `AudioWriter` go block by block; `read` and `write` take a file whole.
"""

from vocalsep.audio.downmix import Downmix, to_model_rate
from vocalsep.audio.formats import AUDIO_SUFFIXES
from vocalsep.audio.io import read, write
from vocalsep.audio.recording import ArrayRecording, Recording
from vocalsep.audio.resample import Resampler, resample
from vocalsep.audio.stream import AudioReader, AudioWriter
from vocalsep.audio.waveform import Audio, Float32, validate_sample_rate, validate_waveform
from vocalsep.timebase import MODEL_SAMPLE_RATE

__all__ = [
    "AUDIO_SUFFIXES",
    "MODEL_SAMPLE_RATE",
    "ArrayRecording",
    "Audio",
    "AudioReader",
    "AudioWriter",
    "Downmix",
    "Float32",
    "Recording",
    "Resampler",
    "read",
    "resample",
    "to_model_rate",
    "validate_sample_rate",
    "validate_waveform",
    "write",
]
