"""What audio files can hold: the formats that are written, their bit depths, rates and channels."""

from __future__ import annotations

from vocalsep.errors import OptionError

# libsndfile's names of what we write: format -> bit depth -> subtype.
_SUBTYPES: dict[str, dict[str, str]] = {
    "wav": {"16": "PCM_16", "24": "PCM_24", "float32": "FLOAT"},
    "flac": {"16": "PCM_16", "24": "PCM_24"},
    "ogg": {"16": "VORBIS"},
    "mp3": {"16": "MPEG_LAYER_III"},
}
FORMATS = tuple(_SUBTYPES)
CLIP_MODES = ("rescale", "clamp", "none")
"""What may become of stems beyond full scale; see `stem_files.Settings`."""
_MP3_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_FLAC_MAX_RATE = 655350  # Hz; more has no place in the header
_OGG_MAX_RATE = 200000  # Hz; libvorbis has no mode for more

# libsndfile's subtypes whose samples have more than 16 bits; all others, the lossy ones too, are served by 16.
_DEPTHS = {
    "PCM_24": "24",
    "DWVW_24": "24",
    "ALAC_20": "24",
    "ALAC_24": "24",
    "PCM_32": "float32",
    "ALAC_32": "float32",
    "FLOAT": "float32",
    "DOUBLE": "float32",
}


def validate_format(audio_format: str, bit_depth: str) -> str:
    """Return libsndfile's subtype for a format ("wav") and a bit depth ("16", "24", "float32").

    Raises
    ------
    OptionError
        If the format is unknown or cannot hold that depth.
    """
    if audio_format not in _SUBTYPES:
        raise OptionError(f"format is {audio_format!r}; expected one of {', '.join(FORMATS)}")
    subtypes = _SUBTYPES[audio_format]
    if bit_depth not in subtypes:
        raise OptionError(f"{audio_format} has no bit depth {bit_depth!r}; expected one of {', '.join(subtypes)}")
    return subtypes[bit_depth]


def validate_capacity(audio_format: str, channels: int, sample_rate: int) -> None:
    """Check that a format can hold so many channels at so many Hz.

    Raises
    ------
    OptionError
        If it cannot.
    """
    if audio_format == "mp3" and (sample_rate not in _MP3_SAMPLE_RATES or channels > 2):
        raise OptionError(
            f"mp3 cannot hold {channels} channels at {sample_rate} Hz; expected 1 or 2 channels at one of "
            f"{', '.join(map(str, _MP3_SAMPLE_RATES))} Hz: choose wav or flac"
        )
    if audio_format == "flac" and channels > 8:
        raise OptionError(f"flac cannot hold {channels} channels; expected at most 8: choose wav")
    limit = {"flac": _FLAC_MAX_RATE, "ogg": _OGG_MAX_RATE}.get(audio_format)
    if limit is not None and sample_rate > limit:
        raise OptionError(f"{audio_format} cannot hold {sample_rate} Hz; expected at most {limit} Hz: choose wav")


def depth_of(subtype: str) -> str:
    """Return the bit depth ("16", "24", "float32") that stems of a file with libsndfile's `subtype` should have."""
    return _DEPTHS.get(subtype, "16")


def nearest_depth(bit_depth: str, audio_format: str) -> str:
    """Return the bit depth of a format that is nearest to one that is wanted: the deepest where it has no such.

    Examples
    --------
    >>> nearest_depth("float32", "flac"), nearest_depth("24", "mp3")
    ('24', '16')
    """
    depths = list(_SUBTYPES[audio_format])
    return bit_depth if bit_depth in depths else depths[-1]


_FULL_SCALE = 1 - 2**-15  # the largest positive 16-bit sample


def fitting_gain(low: float, high: float, bit_depth: str) -> float:
    """Return the gain with which samples from `low` to `high` fit into full scale, 1 where they do.

    Samples of float32 need none.

    Examples
    --------
    >>> round(fitting_gain(-2.0, 0.5, "16"), 3), fitting_gain(-2.0, 0.5, "float32"), fitting_gain(-1.0, 1.0, "16")
    (0.5, 1.0, 1.0)
    """
    peak = max(-low, high)
    return 1.0 if bit_depth == "float32" or peak <= 1 else _FULL_SCALE / peak
