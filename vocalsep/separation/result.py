"""The result of a separation, and where its stems go on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalsep import audio as audio_io
from vocalsep.audio import Float32
from vocalsep.audio.formats import CLIP_MODES, fitting_gain
from vocalsep.errors import OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.paths import stem_paths


@dataclass(frozen=True, eq=False)
class Separation:
    """The voices of a recording.

    Parameters
    ----------
    stems
        Voice name -> waveform, float32, in the shape of the input: (samples,) or (channels, samples). They add up
        to the recording.
    f0
        The f0 tracks that the separation rests on, on the 16-ms grid.
    sample_rate
        Hz, that of the recording.
    """

    stems: Mapping[str, Float32]
    f0: F0Tracks
    sample_rate: int

    @property
    def confidence(self) -> Float32 | None:
        """How sure the f0 tracker was, in [0, 1], shape (voices, frames); None for f0s that were given bare."""
        return self.f0.confidence

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        track: str = "",
        filename: str = "{stem}.{ext}",
        audio_format: str = "wav",
        bit_depth: str = "16",
        clip_mode: str = "rescale",
    ) -> list[Path]:
        """Write the stems and return their paths.

        Parameters
        ----------
        folder
            Where to; made if it is missing.
        track
            What {track} stands for in `filename`: usually the name of the recording. Names are made such that every
            system can give them to a file.
        filename
            Template of the path of a stem inside `folder`, with {track}, {stem} and {ext}.
        audio_format
            "wav", "flac", "ogg" or "mp3".
        bit_depth
            "16", "24" or "float32" (wav).
        clip_mode
            What becomes of stems beyond full scale: "rescale" gives all of them one common gain where samples are
            whole numbers; "clamp" cuts them; "none" leaves them, and whole numbers are cut all the same.

        Raises
        ------
        OptionError
            If the template, the format or the mode cannot be used.
        AudioError
            If a file cannot be written. No stem is left then.
        """
        if clip_mode not in CLIP_MODES:
            raise OptionError(f"clip_mode is {clip_mode!r}; expected one of {', '.join(CLIP_MODES)}")
        _, inside = stem_paths(track, self.stems, filename=filename, audio_format=audio_format)
        audio_io.validate_format(audio_format, bit_depth)
        stems = list(self.stems.values())
        low, high = min(float(stem.min()) for stem in stems), max(float(stem.max()) for stem in stems)
        gain = np.float32(fitting_gain(low, high, bit_depth) if clip_mode == "rescale" else 1)
        written: list[Path] = []
        try:
            for path, stem in zip(inside.values(), stems, strict=True):
                target = Path(folder) / path
                scaled = stem.clip(-1, 1) if clip_mode == "clamp" else stem * gain
                audio_io.write(target, scaled, self.sample_rate, bit_depth=bit_depth)
                written.append(target)
        except BaseException:
            # All stems or none: half a set would look like a finished separation.
            for target in written:
                target.unlink(missing_ok=True)
            raise
        return written
