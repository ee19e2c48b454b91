"""The options of a separation: frozen dataclasses that are validated when they are made.

Every default of a separation is decided here and nowhere else. Public functions spell the fields out as keywords and
take their defaults from these classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vocalsep.errors import OptionError, VoicesError, shown
from vocalsep.paths import validate_template
from vocalsep.voices import Voice, VoicesLike, parse_voices

FORMATS = {
    "wav": ("16", "24", "float32"),
    "flac": ("16", "24"),
    "ogg": ("16",),
    "mp3": ("16",),
    "m4a": ("16",),
}
"""Formats that stems can be written in, each with its bit depths; lossy formats have one quality, under "16"."""

CLIP_MODES = ("rescale", "clamp", "none")
"""Ways to treat stems that exceed full scale; see `OutputOptions`."""

DEFAULT_VOICES = "SATB"
"""Voices to separate if neither the user nor f0 tracks name them."""

LONGEST_ROOM = 20.0
"""Longest reverberation time in s that a user can name; a large cathedral has 8 s."""

RESIDUAL = "residual"
"""Name of the stem with the sound of passages in which no voice sings."""

RoomLike: TypeAlias = "float | str"
"""A reverberation time in s, "auto" or "none"."""


@dataclass(frozen=True)
class NetworkOptions:
    """The networks to use, and the device they run on.

    Parameters
    ----------
    model : str
        Weights of the estimator: a name in the manifest, a checkpoint folder, or `owner/repo[@revision]` on the Hub.
    tracker : str
        Weights of the f0 tracker, likewise.
    crepe : str
        Weights of CREPE, likewise, for the f0 of single voices.
    masks : str
        Weights of the network that corrects the masks, likewise, or "none".
    device : str
        "auto" (CUDA if present, else the CPU), "cpu", "cuda" or "mps".
    """

    model: str = "default"
    tracker: str = "tracker"
    crepe: str = "crepe-tiny"
    masks: str = "none"
    device: str = "auto"


@dataclass(frozen=True)
class SeparationOptions:
    """Options of the separation itself.

    Parameters
    ----------
    voices : str, int or sequence of str or Voice, optional
        See `vocalsep.parse_voices`. None takes the names of the f0 tracks if there are any, else SATB.
    room : float or str
        The room that the recording sounds in: its reverberation time (T60) in s, "auto" to estimate it, or "none".
    residual : bool
        Put passages in which no voice sings into a stem of their own instead of sharing them among the voices.

    Raises
    ------
    VoicesError
        If the voices cannot be understood, or one of them is named residual beside a residual.
    OptionError
        If a number is out of range.
    """

    voices: VoicesLike | None = None
    room: RoomLike = "auto"
    residual: bool = False

    def __post_init__(self) -> None:
        if self.voices is not None:
            object.__setattr__(self, "voices", parse_voices(self.voices))
            self.stem_names()
        object.__setattr__(self, "room", _validated_room(self.room))

    def stem_names(self, tracked: Sequence[str] | None = None) -> list[str]:
        """Return the names of the stems of a recording.

        Parameters
        ----------
        tracked : sequence of str, optional
            Names of the f0 tracks that the user supplies, used if `voices` is None.

        Raises
        ------
        VoicesError
            If a voice is named residual beside a residual.
        """
        names = list(tracked) if self.voices is None and tracked is not None else [voice.name for voice in self.parts]
        if not self.residual:
            return names
        if RESIDUAL in [name.casefold() for name in names]:
            raise VoicesError(
                f"a voice is named {RESIDUAL!r}, which is the name of the residual stem; rename the voice",
                parameter="voices",
            )
        return [*names, RESIDUAL]

    @property
    def parts(self) -> tuple[Voice, ...]:
        """The voices to find in a recording without f0 tracks."""
        return parse_voices(DEFAULT_VOICES if self.voices is None else self.voices)


def _validated_room(room: RoomLike) -> RoomLike:
    if room in ("auto", "none"):
        return room
    try:
        seconds = float(room)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= LONGEST_ROOM:
        raise OptionError(
            f"room is {shown(room)}; expected auto, none, or a reverberation time up to {LONGEST_ROOM:g} s",
            parameter="room",
        )
    return seconds


@dataclass(frozen=True)
class OutputOptions:
    """Options of writing stems.

    Parameters
    ----------
    format : str
        "wav", "flac", "ogg", "mp3" or "m4a".
    bit_depth : str, optional
        "16", "24" or "float32"; None takes the depth of the recording, or the nearest that the format has.
    clip_mode : str
        Treatment of stems that would exceed full scale: "rescale" turns all stems down by the same amount if the
        format has integer samples, "clamp" clips in every format, "none" leaves the samples to the format.
    two_stems : str, optional
        Name of one voice: write two stems, this voice and everything else ("no_" and the name).
    filename : str
        Template of a stem's path inside the output folder, with the fields {track}, {stem} and {ext}.

    Raises
    ------
    OptionError
        If the format is unknown or cannot hold the bit depth, or the template cannot be used.
    """

    format: str = "wav"
    bit_depth: str | None = None
    clip_mode: str = "rescale"
    two_stems: str | None = None
    filename: str = "{track}/{stem}.{ext}"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise OptionError(
                f"format is {shown(self.format)}; expected one of {', '.join(FORMATS)}", parameter="format"
            )
        if self.bit_depth is not None and self.bit_depth not in FORMATS[self.format]:
            raise OptionError(
                f"{self.format} has no bit depth {shown(self.bit_depth)}; expected one of "
                f"{', '.join(FORMATS[self.format])}",
                parameter="bit_depth",
            )
        if self.clip_mode not in CLIP_MODES:
            raise OptionError(
                f"clip_mode is {shown(self.clip_mode)}; expected one of {', '.join(CLIP_MODES)}", parameter="clip_mode"
            )
        validate_template(self.filename, self.format)

    def files_of(self, stems: Sequence[str]) -> list[str]:
        """Return the names of the stems to write, out of all stems of a recording.

        Raises
        ------
        VoicesError
            If `two_stems` is not among them.
        """
        if self.two_stems is None:
            return list(stems)
        name = {stem.casefold(): stem for stem in stems}.get(self.two_stems.casefold())
        if name is None:
            raise VoicesError(
                f"there is no voice {shown(self.two_stems)}; the voices are {', '.join(stems)}", parameter="two_stems"
            )
        return [name, f"no_{name}"]

    def depth(self, recorded: str) -> str:
        """Return the bit depth of the stems of a recording whose own depth is `recorded`.

        Examples
        --------
        >>> OutputOptions(format="flac").depth("float32"), OutputOptions(bit_depth="16").depth("24")
        ('24', '16')
        """
        depths = FORMATS[self.format]
        return self.bit_depth or (recorded if recorded in depths else depths[-1])
