"""Degradations of a recording for tests of robustness: room, noise, mp3, tuning, narrow band.

All are pure functions of waveforms of shape (samples,) and keep events at their time, so that f0 of the clean stems
stays the truth; what is random comes from a seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vocalsep.audio import Float32, resample
from vocalsep.errors import OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.augment import shift_by_resampling

_EARLY_GAP = 0.005  # s: the first reflection's way is some 1.7 m longer than the direct one
_MP3_RATE = 44100  # Hz: the rate that mp3 files come at
# kbit/s that the slowest and the fastest stream at a rate can have: MPEG-1 from 32 kHz on, MPEG-2 below.
_MPEG1_KBITS, _MPEG2_KBITS = (32.0, 320.0), (8.0, 160.0)


class Degraded(NamedTuple):
    """A recording as a tracker gets it, and what it should find."""

    audio: Float32
    """Shape (samples,)."""
    sample_rate: int
    """Hz."""
    truth: F0Tracks
    """On the 16-ms grid."""


Degradation = Callable[[Float32, F0Tracks], Degraded]
"""From a waveform of shape (samples,) at 16 kHz and its f0 tracks."""


def direct_to_reverberant_db(rt60: float, volume: float, distance: float) -> float:
    """Return the level of direct over reverberant sound in a diffuse field, from a source that sounds all round.

    20 log10(r_c / distance) with the critical distance r_c = 0.057 sqrt(volume / rt60), in m (H. Kuttruff, "Room
    Acoustics", from Sabine's formula).

    Parameters
    ----------
    rt60
        Seconds.
    volume
        Cubic metres.
    distance
        Metres from the source to the microphone.

    Examples
    --------
    >>> round(direct_to_reverberant_db(2.0, 5000.0, 2.85), 1)
    0.0
    """
    return 20 * math.log10(0.057 * math.sqrt(volume / rt60) / distance)


def reverberate(
    audio: Float32, rt60: float, ratio_db: float = 0.0, *, sample_rate: int = MODEL_SAMPLE_RATE, seed: int = 0
) -> Float32:
    """Put a recording into a room: the direct sound, then white noise that decays exponentially.

    The direct sound keeps its time and level. The decay is the same at all frequencies, which is harsher than the
    treble of a real room.

    Parameters
    ----------
    audio
        Shape (samples,).
    rt60
        Seconds in which the reverberation falls by 60 dB.
    ratio_db
        Level of the direct over the reverberant sound; 0 dB is at the critical distance.
    sample_rate
        Hz.
    seed
        Of the noise.
    """
    length = max(2, round(1.2 * rt60 * sample_rate))  # down to -72 dB
    time = np.arange(length) / sample_rate
    response = np.random.default_rng(seed).normal(size=length) * 10 ** (-3 * time / rt60)
    response[: round(_EARLY_GAP * sample_rate)] = 0
    response *= 10 ** (-ratio_db / 20) / max(math.sqrt((response**2).sum()), 1e-12)
    response[0] = 1
    n_fft = 1 << (len(audio) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(audio, n_fft) * np.fft.rfft(response, n_fft), n_fft)
    return wet[: len(audio)].astype(np.float32)


def add_noise(audio: Float32, snr_db: float, *, seed: int = 0) -> Float32:
    """Add white noise so many dB below the mean power of a recording of shape (samples,)."""
    noise = np.random.default_rng(seed).normal(size=len(audio))
    power = np.mean(np.square(audio, dtype=np.float64))
    return (audio + noise * math.sqrt(power) * 10 ** (-snr_db / 20)).astype(np.float32)


def mp3(audio: Float32, kbits: float, *, sample_rate: int = _MP3_RATE) -> Float32:
    """Code a mono recording as mp3 of a constant bit rate, and decode it.

    libsndfile (LAME) writes the codec's delay into the file and takes it off on reading, so that times stay. Frames
    of few bits (below 56 kbit/s at 44.1 kHz) cannot hold it; such rates are refused.

    Parameters
    ----------
    audio
        Shape (samples,), scaled for the coding if it exceeds full scale.
    kbits
        kbit/s, one of the standard's rates, such as 64.
    sample_rate
        Hz, one that mp3 knows.

    Raises
    ------
    OptionError
        If mp3 has no such bit rate, or one too low to keep times.
    """
    import soundfile

    slowest, fastest = _MPEG1_KBITS if sample_rate >= 32000 else _MPEG2_KBITS
    if not slowest < kbits <= fastest:
        raise OptionError(f"mp3 is to have {kbits:g} kbit/s; expected more than {slowest:g}, at most {fastest:g}")
    scale = max(1.0, float(np.abs(audio).max(initial=0)))
    stream = io.BytesIO()
    soundfile.write(
        stream,
        audio / scale,
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=(fastest - kbits) / (fastest - slowest),
    )
    stream.seek(0)
    decoded: Float32 = soundfile.read(stream, dtype="float32")[0] * np.float32(scale)
    if len(decoded) != len(audio):
        raise OptionError(
            f"mp3 of {kbits:g} kbit/s at {sample_rate} Hz has no room for its delay, so times would move; expected "
            "more kbit/s"
        )
    return decoded


def _clean(audio: Float32, truth: F0Tracks) -> Degraded:
    return Degraded(audio, MODEL_SAMPLE_RATE, truth)


def _room(rt60: float, volume: float, distance: float) -> Degradation:
    ratio_db = direct_to_reverberant_db(rt60, volume, distance)
    return lambda audio, truth: _clean(reverberate(audio, rt60, ratio_db), truth)


def _noisy(audio: Float32, truth: F0Tracks) -> Degraded:
    return _clean(add_noise(audio, 20.0), truth)


def _mp3(audio: Float32, truth: F0Tracks) -> Degraded:
    return Degraded(mp3(resample(audio, MODEL_SAMPLE_RATE, _MP3_RATE)[0], 64.0), _MP3_RATE, truth)


def _detuned(cents: float) -> Degradation:
    return lambda audio, truth: _clean(*shift_by_resampling(audio, truth, cents / 100))


def _narrow(audio: Float32, truth: F0Tracks) -> Degraded:
    return Degraded(resample(audio, MODEL_SAMPLE_RATE, 8000)[0], 8000, truth)


DEGRADATIONS: dict[str, Degradation] = {
    "clean": _clean,
    # A rehearsal room with the microphone at 1.5 m (direct sound 2.4 dB below the reverberant), a church at 3 m (0.4).
    "reverberation 0.5 s": _room(0.5, 200.0, 1.5),
    "reverberation 2 s": _room(2.0, 5000.0, 3.0),
    "noise at 20 dB": _noisy,
    "mp3 64 kbit/s": _mp3,
    "30 cents up": _detuned(30.0),
    "30 cents down": _detuned(-30.0),
    "8 kHz": _narrow,
}
"""The conditions of the robustness table, by name."""
