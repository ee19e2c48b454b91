"""Formats: how they are encoded, and the rates and channels that they hold.

`vocalsep.options.FORMATS` has the names of the formats that are written, and their bit depths.
"""

from __future__ import annotations

from vocalsep.audio.waveform import MAX_CHANNELS, MAX_SAMPLE_RATE
from vocalsep.errors import OptionError

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aac", ".wma", ".mov"),
    *(".webm", ".mkv", ".mka", ".m4b", ".m4v", ".3gp", ".avi", ".wmv", ".asf", ".mpg", ".mpeg", ".ac3", ".wv"),
    *(".ape", ".tta", ".w64", ".rf64", ".caf", ".au"),
)
"""Suffixes by which audio files are found in folders. Files that are named are read whatever their suffix is."""

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

# Format -> most channels, sample rates in Hz.
_CAPACITIES: dict[str, tuple[int, range | tuple[int, ...]]] = {
    "wav": (MAX_CHANNELS, range(MAX_SAMPLE_RATE + 1)),
    "flac": (8, range(655351)),  # the header has no place for more
    "ogg": (MAX_CHANNELS, range(200001)),  # libvorbis has no mode for more
    "mp3": (2, _MP3_RATES),
    "m4a": (2, (*_MP3_RATES, 64000, 88200, 96000)),
}

# libsndfile's subtypes of more than 16 bits; 16 bits are enough for all others, including the lossy ones.
_DEPTHS = {"PCM_24": "24", "PCM_32": "float32", "FLOAT": "float32", "DOUBLE": "float32"}
_LOSSLESS = ("pcm_", "flac", "alac", "ape", "wavpack", "tta", "truehd", "mlp")  # beginnings of FFmpeg's codec names


def validate_capacity(audio_format: str, channels: int, sample_rate: int) -> None:
    """Raise OptionError if a format cannot hold so many channels at so many Hz."""
    most, rates = _CAPACITIES[audio_format]
    if not 1 <= channels <= most or sample_rate not in rates:
        listed = f"at most {rates[-1]}" if isinstance(rates, range) else f"one of {', '.join(map(str, rates))}"
        raise OptionError(
            f"{audio_format} cannot hold {channels} channels at {sample_rate} Hz; expected 1 to {most} channels and "
            f"{listed} Hz: choose wav",
            parameter="format",
        )


def sndfile_depth(subtype: str) -> str:
    """Return the bit depth that stems of a file with libsndfile's `subtype` need to lose nothing."""
    return _DEPTHS.get(subtype, "16")


def ffmpeg_depth(codec: str, sample_format: str) -> str:
    """Return the bit depth that stems need, from FFmpeg's names of the codec and of the format of its samples."""
    if not codec.startswith(_LOSSLESS) or sample_format.startswith(("u8", "s16")):
        return "16"
    if sample_format.startswith("s32") and not codec.startswith("pcm_s32"):
        return "24"  # FFmpeg stores 24 bits as the highest of 32
    return "float32"
