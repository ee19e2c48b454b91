"""Read, write, resample and validate audio: the only module that touches audio files.

Waveforms are float32 arrays of shape (channels, samples) with full scale at +-1. Files are read and written
with libsndfile (soundfile), resampled with soxr; a file is written beside its target and then renamed, so that
a stem under its final name is always complete.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, ParameterError

MODEL_SAMPLE_RATE = 16000
"""Sample rate in Hz at which f0 is tracked and source parameters are estimated."""

MIN_SAMPLE_RATE = 4000
"""Hz. Below it (Nyquist at 2 kHz) little more than the fundamentals of a choir is left to separate."""

MAX_SAMPLE_RATE = 768000
"""Hz, the fastest converters there are. A larger number is a mistake that would fill the memory."""

MAX_CHANNELS = 128
"""More than that is taken for an array whose axes are the wrong way round."""

MAX_PEAK = 1e6
"""Times full scale: louder samples are no audio, and their powers would overflow."""

_CANCELLED = 0.01  # of the channels' mean power: less of it in their mean is cancellation

# libsndfile's names of what we write: format -> bit depth -> subtype.
_SUBTYPES: dict[str, dict[str, str]] = {
    "wav": {"16": "PCM_16", "24": "PCM_24", "float32": "FLOAT"},
    "flac": {"16": "PCM_16", "24": "PCM_24"},
    "ogg": {"16": "VORBIS"},
    "mp3": {"16": "MPEG_LAYER_III"},
}
FORMATS = tuple(_SUBTYPES)
_BLOCK = 1 << 16  # samples; libsndfile's Vorbis encoder overflows the stack on one write of minutes
_WAV_LIMIT = (1 << 32) - (1 << 16)  # bytes; sizes in the header of wav have 32 bits, those of RF64 have 64
_MP3_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

_STDERR = Lock()

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
        If it is not a whole number from `MIN_SAMPLE_RATE` to `MAX_SAMPLE_RATE` Hz.
    """
    try:
        rate = int(sample_rate)
        whole = rate == float(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole, rate = False, 0
    if not whole or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"sample_rate is {sample_rate!r}; expected a whole number of Hz from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        )
    return rate


def validate_waveform(audio: ArrayLike) -> Float32:
    """Return `audio` as a float32 array of shape (channels, samples).

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples). Floating point with full scale +-1, or integers of type int8,
        int16 or int32, which are scaled by their type's range. Other integers are refused: a list of Python's, say,
        has no full scale.

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
    if isinstance(audio, (str, os.PathLike)):
        raise AudioError(f"audio is the path {str(audio)!r}; expected an array, or use separate_file for files")
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError("audio is no array; expected shape (samples,) or (channels, samples)") from error
    if array.ndim not in (1, 2):
        raise AudioError(f"audio has shape {array.shape}; expected (samples,) or (channels, samples)")
    if array.size == 0:
        raise AudioError(f"audio is empty (shape {array.shape}); expected at least one sample")
    if array.dtype.kind == "i" and array.dtype.itemsize <= 4:
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind != "f":
        raise AudioError(f"audio has dtype {array.dtype}; expected floating point, int16 or int32")
    with np.errstate(over="ignore"):
        waveform = np.atleast_2d(array).astype(np.float32, order="C")
    if waveform.shape[0] > MAX_CHANNELS:
        raise AudioError(
            f"audio has shape {array.shape}, {waveform.shape[0]} channels; expected (channels, samples) with at "
            f"most {MAX_CHANNELS} channels: transpose it if it is (samples, channels)"
        )
    if not np.isfinite(waveform).all():
        bad = int(waveform.size - np.isfinite(waveform).sum())
        raise AudioError(f"audio holds {bad} samples that are NaN, infinite or beyond float32; expected finite numbers")
    _validate_peak(waveform)
    return waveform


def _validate_peak(waveform: Float32) -> None:
    peak = max(abs(float(waveform.max())), abs(float(waveform.min())))
    if peak > MAX_PEAK:
        raise AudioError(f"audio peaks at {peak:.2g} times full scale; expected about 1, at most {MAX_PEAK:g}")


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
    source = Path(path)
    try:
        if not source.exists():
            raise AudioError(f"{source}: no such file; expected an audio file")
        if not source.is_file():
            raise AudioError(f"{source}: is a folder or a device; expected an audio file")
        samples, sample_rate = _decode(source)
    except _failures() as error:
        raise AudioError(
            f"{source}: cannot be read as audio ({_reason(error)}); expected wav, flac, ogg, mp3 or aiff"
        ) from error
    if samples.shape[0] == 0:
        raise AudioError(f"{source}: holds no samples; expected at least one")
    if not np.isfinite(samples).all():
        raise AudioError(f"{source}: holds samples that are NaN or infinite; expected finite numbers")
    try:
        _validate_peak(samples)
        return Audio(np.ascontiguousarray(samples.T), validate_sample_rate(sample_rate))
    except AudioError as error:
        raise AudioError(f"{source}: {error}") from None


def _decode(source: Path) -> tuple[Float32, int]:
    import soundfile

    with _quiet():
        samples, sample_rate = soundfile.read(source, dtype="float32", always_2d=True)
    return samples, sample_rate


def _failures() -> tuple[type[Exception], ...]:
    """Return what soundfile and the system raise when a file cannot be read or written."""
    import soundfile

    # soundfile asserts that libsndfile took what it was given; a header that lies asks for all the memory there is.
    return soundfile.SoundFileError, OSError, RuntimeError, AssertionError, MemoryError


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "its header promises more samples than fit into memory"
    words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or "it is cut short"
    return str(words).strip().removeprefix("Error : ").rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libsndfile's decoders print about broken files from the terminal: they write to descriptor 2."""
    with _STDERR:
        try:
            terminal = os.dup(2)
        except OSError:  # a program without a terminal
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (devnull is no path)
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


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
        raise ParameterError(f"{audio_format} has no bit depth {bit_depth!r}; expected one of {', '.join(subtypes)}")
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
        Hz, a whole number.
    bit_depth
        "16", "24" or "float32" (wav only). Ogg and mp3 have one quality, under "16".

    Raises
    ------
    AudioError
        If the waveform is not valid or the file cannot be written.
    ParameterError
        If the format cannot hold such audio.
    """
    target = Path(path)
    audio_format = target.suffix.lower().lstrip(".")
    subtype = validate_format(audio_format, bit_depth)
    samples = validate_waveform(audio).T
    rate = validate_sample_rate(sample_rate)
    _validate_capacity(audio_format, samples.shape[1], rate)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".vocalsep-")
        os.close(handle)
        temporary = Path(name)
        _encode(temporary, samples, rate, audio_format, subtype)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except _failures() as error:
        raise AudioError(
            f"{target}: cannot be written ({_reason(error)}); expected a folder that can be written to, with room"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _encode(path: Path, samples: Float32, sample_rate: int, audio_format: str, subtype: str) -> None:
    import soundfile

    container = "RF64" if audio_format == "wav" and samples.nbytes > _WAV_LIMIT else audio_format.upper()
    with soundfile.SoundFile(path, "w", sample_rate, samples.shape[1], subtype, format=container) as sound:
        for start in range(0, len(samples), _BLOCK):
            sound.write(_quantised(samples[start : start + _BLOCK], subtype))
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
    # libsndfile does not say that the disk was full when it wrote the last block at closing: look for the end.
    with _quiet(), soundfile.SoundFile(path) as sound:
        start = max(0, len(samples) - 2 * _BLOCK)
        sound.seek(start)
        if start + len(sound.read(2 * _BLOCK)) != len(samples):
            raise OSError("its end is missing")


def _quantised(samples: Float32, subtype: str) -> NDArray[Any]:
    """Return samples as the whole numbers nearest to them where the file holds such: libsndfile rounds wav down."""
    bits = {"PCM_16": 16, "PCM_24": 24}.get(subtype)
    if bits is None:
        return samples
    full = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(samples * full), -full, full - 1).astype(np.int32)
    return steps << (32 - bits)  # type: ignore[no-any-return]


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
        Shape (channels, round(samples * target_rate / source_rate)), at least one sample, float32.

    Raises
    ------
    AudioError
        If the waveform or a rate is not valid.
    """
    import soxr

    waveform = validate_waveform(audio)
    source_rate, target_rate = validate_sample_rate(source_rate), validate_sample_rate(target_rate)
    if source_rate == target_rate:
        return waveform
    length = max(1, round(waveform.shape[1] * target_rate / source_rate))
    resampled = soxr.resample(waveform.T.copy(), source_rate, target_rate, quality="HQ").T[:, :length]
    missing = length - resampled.shape[1]
    return np.ascontiguousarray(np.pad(resampled, ((0, 0), (0, missing))), dtype=np.float32)


def to_model_rate(audio: ArrayLike, sample_rate: int) -> Float32:
    """Mix a waveform down to one channel at `MODEL_SAMPLE_RATE`.

    Where channels cancel each other (one of a stereo pair is out of phase) the loudest is taken instead.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples) at `sample_rate` Hz.

    Returns
    -------
    ndarray
        Shape (samples at 16 kHz,), float32.
    """
    waveform = validate_waveform(audio)
    mono = waveform.mean(axis=0, keepdims=True, dtype=np.float64)
    power = np.square(waveform, dtype=np.float64).mean(axis=1)
    if np.square(mono).mean() < _CANCELLED * power.mean():
        mono = waveform[[power.argmax()]]
    resampled: Float32 = resample(mono, sample_rate, MODEL_SAMPLE_RATE)[0]
    return resampled
