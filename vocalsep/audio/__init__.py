"""Read, write, resample and validate audio: the only package that touches audio files.

Waveforms are float32 arrays of shape (channels, samples) with full scale at +-1. Files are read and written
with libsndfile (soundfile) and, where that does not know them, read with FFmpeg's libraries (PyAV, the extra
`vocalsep[av]`). `AudioReader` and `AudioWriter` go block by block, `read` and `write` take a file whole. A file is
written beside its target and then renamed, so that a stem under its final name is always complete.
"""

from vocalsep.audio.formats import FORMATS, validate_format
from vocalsep.audio.reader import AudioReader, read
from vocalsep.audio.resample import Resampler, resample, to_model_rate
from vocalsep.audio.waveform import (
    MAX_CHANNELS,
    MAX_PEAK,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Audio,
    Float32,
    validate_sample_rate,
    validate_waveform,
)
from vocalsep.audio.writer import AudioWriter, write
from vocalsep.timebase import MODEL_SAMPLE_RATE

__all__ = [
    "FORMATS",
    "MAX_CHANNELS",
    "MAX_PEAK",
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "MODEL_SAMPLE_RATE",
    "Audio",
    "AudioReader",
    "AudioWriter",
    "Float32",
    "Resampler",
    "read",
    "resample",
    "to_model_rate",
    "validate_format",
    "validate_sample_rate",
    "validate_waveform",
    "write",
]
