"""Degradations of a recording, shape (samples,), for tests of robustness: room, noise, mp3, tuning, narrow band.

They keep the time of events, so the f0 of the clean stems stays the truth. Random numbers come from a fixed seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from vocalsep.audio import Float32, resample
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.augment import shift_by_resampling

_EARLY_GAP = 0.005  # seconds: the path of the first reflection is about 1.7 m longer than the direct one
_MP3_RATE = 44100  # Hz
_MP3_LEVEL = (320 - 64) / (320 - 32)  # libsndfile's compression level of 64 kbit/s, between 320 and 32

Degradation: TypeAlias = Callable[[Float32, F0Tracks], tuple[Float32, int, F0Tracks]]
"""From a waveform at 16 kHz and its f0 tracks to a waveform, its sample rate in Hz and its f0 tracks."""


def reverberate(audio: Float32, rt60: float, ratio_db: float = 0.0) -> Float32:
    """Put a recording at 16 kHz into a room: the direct sound, then white noise that decays exponentially.

    The reverberation time is in seconds, the ratio of direct to reverberant sound in dB. All frequencies decay alike,
    so the treble is harsher than in a real room.
    """
    length = round(1.2 * rt60 * MODEL_SAMPLE_RATE)  # down to -72 dB
    time = np.arange(length) / MODEL_SAMPLE_RATE
    response = np.random.default_rng(0).normal(size=length) * 10 ** (-3 * time / rt60)
    response[: round(_EARLY_GAP * MODEL_SAMPLE_RATE)] = 0
    response *= 10 ** (-ratio_db / 20) / math.sqrt((response**2).sum())
    response[0] = 1
    n_fft = 1 << (len(audio) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(audio, n_fft) * np.fft.rfft(response, n_fft), n_fft)
    return wet[: len(audio)].astype(np.float32)


def add_noise(audio: Float32, snr_db: float) -> Float32:
    """Add white noise at a signal-to-noise ratio in dB."""
    noise = np.random.default_rng(0).normal(size=len(audio))
    power = np.mean(np.square(audio, dtype=np.float64))
    return (audio + noise * math.sqrt(power) * 10 ** (-snr_db / 20)).astype(np.float32)


def mp3(audio: Float32) -> Float32:
    """Code a recording at 44.1 kHz as mp3 of 64 kbit/s, and decode it; libsndfile removes the delay of the codec."""
    import soundfile

    scale = np.float32(max(1.0, float(np.abs(audio).max(initial=0))))
    stream = io.BytesIO()
    coding = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    soundfile.write(stream, audio / scale, _MP3_RATE, compression_level=_MP3_LEVEL, **coding)
    stream.seek(0)
    decoded: Float32 = soundfile.read(stream, dtype="float32")[0] * scale
    return decoded


def _room(rt60: float, volume: float, distance: float) -> Degradation:
    """Return a room of a volume in m^3, with the microphone at a distance in m.

    In a diffuse field, direct and reverberant sound are equally loud at the critical distance, 0.057 sqrt(volume /
    rt60) in m (H. Kuttruff, "Room Acoustics").
    """
    ratio_db = 20 * math.log10(0.057 * math.sqrt(volume / rt60) / distance)
    return lambda audio, truth: (reverberate(audio, rt60, ratio_db), MODEL_SAMPLE_RATE, truth)


def _mp3(audio: Float32, truth: F0Tracks) -> tuple[Float32, int, F0Tracks]:
    return mp3(resample(audio, MODEL_SAMPLE_RATE, _MP3_RATE)[0]), _MP3_RATE, truth


def _detuned(cents: float) -> Degradation:
    def detune(audio: Float32, truth: F0Tracks) -> tuple[Float32, int, F0Tracks]:
        shifted, tracks = shift_by_resampling(audio, truth, cents / 100)
        return shifted, MODEL_SAMPLE_RATE, tracks

    return detune


DEGRADATIONS: dict[str, Degradation] = {
    "clean": lambda audio, truth: (audio, MODEL_SAMPLE_RATE, truth),
    # A rehearsal room with the microphone at 1.5 m (direct sound 2.4 dB below the reverberant), a church at 3 m (0.4).
    "reverberation 0.5 s": _room(0.5, 200.0, 1.5),
    "reverberation 2 s": _room(2.0, 5000.0, 3.0),
    "noise at 20 dB": lambda audio, truth: (add_noise(audio, 20.0), MODEL_SAMPLE_RATE, truth),
    "mp3 64 kbit/s": _mp3,
    "30 cents up": _detuned(30.0),
    "30 cents down": _detuned(-30.0),
    "8 kHz": lambda audio, truth: (resample(audio, MODEL_SAMPLE_RATE, 8000)[0], 8000, truth),
}
"""Conditions of the robustness table by name."""
