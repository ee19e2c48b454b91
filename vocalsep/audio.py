"""Read, write, resample and validate audio: the only module that touches audio files.

Waveforms are float32 arrays of shape (channels, samples) with full scale at +-1. Files are read and written
with libsndfile (soundfile), resampled with soxr; a file is written beside its target and then renamed, so that
a stem under its final name is always complete.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, ParameterError

MODEL_SAMPLE_RATE = 16000
"""Sample rate in Hz at which f0 is tracked and source parameters are estimated."""

MIN_SAMPLE_RATE = 4000
"""Hz. Below it (Nyquist at 2 kHz) little more than the fundamentals of a choir is left to separate."""

MAX_CHANNELS = 128
"""More than that is taken for an array whose axes are the wrong way round."""

# libsndfile's names of what we write: format -> bit depth -> subtype.
_SUBTYPES: dict[str, dict[str, str]] = {
    "wav": {"16": "PCM_16", "24": "PCM_24", "float32": "FLOAT"},
    "flac": {"16": "PCM_16", "24": "PCM_24"},
    "ogg": {"16": "VORBIS"},
    "mp3": {"16": "MPEG_LAYER_III"},
}
FORMATS = tuple(_SUBTYPES)
_OGG_BLOCK = 1 << 16  # samples; libsndfile's Vorbis encoder overflows the stack on one write of minutes
_MP3_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

Float32 = NDArray[np.float32]


class Audio(NamedTuple):
    """A waveform and its sample rate."""

    waveform: Float32
    """Shape (channels, samples), full scale +-1."""
    sample_rate: int
    """Hz."""


def validate_sample_rate(sample_rate: Any) -> int:
    """Return `sample_rate` as an int.

    Raises
    ------
    AudioError
        If it is not a whole number of at least `MIN_SAMPLE_RATE` Hz.
    """
    try:
        rate = int(sample_rate)
        whole = rate == float(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole, rate = False, 0
    if not whole or isinstance(sample_rate, bool) or rate < MIN_SAMPLE_RATE:
        raise AudioError(f"sample_rate is {sample_rate!r}; expected a whole number of Hz, {MIN_SAMPLE_RATE} or more")
    return rate


def validate_waveform(audio: ArrayLike) -> Float32:
    """Return `audio` as a float32 array of shape (channels, samples).

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples). Floating point with full scale +-1, or signed integers, which
        are scaled by their type's range.

    Raises
    ------
    AudioError
        If the array is empty, holds NaN or infinity, is not real numbers, or has more than two dimensions or
        more than `MAX_CHANNELS` channels.

    Examples
    --------
    >>> validate_waveform([0.0, 0.5, -0.5]).shape
    (1, 3)
    """
    array = np.asarray(audio)
    if array.ndim not in (1, 2):
        raise AudioError(f"audio has shape {array.shape}; expected (samples,) or (channels, samples)")
    if array.size == 0:
        raise AudioError(f"audio is empty (shape {array.shape}); expected at least one sample")
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind != "f":
        raise AudioError(f"audio has dtype {array.dtype}; expected floating point or signed integers")
    waveform = np.atleast_2d(array).astype(np.float32)
    if waveform.shape[0] > MAX_CHANNELS:
        raise AudioError(
            f"audio has shape {array.shape}, {waveform.shape[0]} channels; expected (channels, samples) with at "
            f"most {MAX_CHANNELS} channels: transpose it if it is (samples, channels)"
        )
    if not np.isfinite(waveform).all():
        bad = int(waveform.size - np.isfinite(waveform).sum())
        raise AudioError(f"audio holds {bad} samples that are NaN, infinite or beyond float32's range")
    return waveform


def read(path: str | os.PathLike[str]) -> Audio:
    """Read an audio file that libsndfile knows (wav, flac, ogg, mp3, aiff, ...).

    Returns
    -------
    Audio
        waveform of shape (channels, samples) and sample rate in Hz, as stored in the file.

    Raises
    ------
    AudioError
        If the file is missing, empty, not audio, or holds values that are not finite.
    """
    import soundfile

    source = Path(path)
    if not source.exists():
        raise AudioError(f"{source}: no such file")
    if not source.is_file():
        raise AudioError(f"{source}: is not a file; expected an audio file")
    try:
        samples, sample_rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(
            f"{source}: cannot be read as audio ({reason}); expected wav, flac, ogg, mp3 or aiff"
        ) from error
    if samples.shape[0] == 0:
        raise AudioError(f"{source}: holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError(f"{source}: holds samples that are NaN or infinite")
    return Audio(np.ascontiguousarray(samples.T), validate_sample_rate(sample_rate))


def validate_format(audio_format: str, bit_depth: str) -> str:
    """Return libsndfile's subtype for a format ("wav") and a bit depth ("16", "24", "float32").

    Raises
    ------
    ParameterError
        If the format is unknown or cannot hold that depth.
    """
    if audio_format not in _SUBTYPES:
        raise ParameterError(f"format is {audio_format!r}; expected one of {', '.join(FORMATS)}")
    subtypes = _SUBTYPES[audio_format]
    if bit_depth not in subtypes:
        raise ParameterError(f"{audio_format} cannot hold {bit_depth} samples; expected one of {', '.join(subtypes)}")
    return subtypes[bit_depth]


def write(path: str | os.PathLike[str], audio: ArrayLike, sample_rate: int, *, bit_depth: str = "16") -> None:
    """Write a waveform to wav, flac, ogg or mp3, by the suffix of `path`, completely or not at all.

    Parameters
    ----------
    path
        Target; its folder is made where it is missing. The file is written under a temporary name in the same
        folder and renamed at the end.
    audio
        Shape (samples,) or (channels, samples), full scale +-1. What exceeds full scale is clipped by formats of
        whole numbers and kept by float32.
    sample_rate
        Hz.
    bit_depth
        "16", "24" or "float32" (wav only). Ogg and mp3 have one quality, under "16".

    Raises
    ------
    AudioError
        If the waveform is not valid or the file cannot be written.
    ParameterError
        If the format cannot hold such audio.
    """
    import soundfile

    target = Path(path)
    audio_format = target.suffix.lower().lstrip(".")
    subtype = validate_format(audio_format, bit_depth)
    samples = validate_waveform(audio).T
    _validate_capacity(audio_format, samples.shape[1], sample_rate)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".vocalsep-", delete=False) as stream:
            temporary = Path(stream.name)
            with soundfile.SoundFile(
                stream, "w", sample_rate, samples.shape[1], subtype, format=audio_format.upper()
            ) as sound:
                for start in range(0, len(samples), _OGG_BLOCK):
                    sound.write(samples[start : start + _OGG_BLOCK])
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(f"{target}: cannot be written ({error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _validate_capacity(audio_format: str, channels: int, sample_rate: int) -> None:
    if audio_format == "mp3" and (sample_rate not in _MP3_SAMPLE_RATES or channels > 2):
        raise ParameterError(
            f"mp3 cannot hold {channels} channels at {sample_rate} Hz; expected 1 or 2 channels at one of "
            f"{', '.join(map(str, _MP3_SAMPLE_RATES))} Hz: choose wav or flac"
        )
    if audio_format == "flac" and channels > 8:
        raise ParameterError(f"flac cannot hold {channels} channels; expected at most 8: choose wav")


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def resample(audio: ArrayLike, source_rate: int, target_rate: int) -> Float32:
    """Resample a waveform with soxr's high-quality filter.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples).
    source_rate, target_rate
        Hz.

    Returns
    -------
    ndarray
        Shape (channels, round(samples * target_rate / source_rate)), float32.
    """
    import soxr

    waveform = validate_waveform(audio)
    if source_rate == target_rate:
        return waveform
    length = max(1, round(waveform.shape[1] * target_rate / source_rate))
    resampled = soxr.resample(waveform.T, source_rate, target_rate, quality="HQ").T[:, :length]
    missing = length - resampled.shape[1]
    return np.ascontiguousarray(np.pad(resampled, ((0, 0), (0, missing))), dtype=np.float32)


def to_model_rate(audio: ArrayLike, sample_rate: int) -> Float32:
    """Mix a waveform down to one channel at `MODEL_SAMPLE_RATE`.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples) at `sample_rate` Hz.

    Returns
    -------
    ndarray
        Shape (samples at 16 kHz,), float32.
    """
    mono = validate_waveform(audio).mean(axis=0, keepdims=True)
    resampled: Float32 = resample(mono, sample_rate, MODEL_SAMPLE_RATE)[0]
    return resampled
