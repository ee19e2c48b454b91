"""The result of a separation in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vocalsep.audio import Float32
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import check_place, part_path
from vocalsep.model.room import RoomParameters
from vocalsep.options import OutputOptions
from vocalsep.paths import stem_paths
from vocalsep.separation.encode import StemFormat, encode, rescaling_gain


@dataclass(frozen=True, eq=False)
class Separation:
    """The voices of a recording.

    Parameters
    ----------
    stems : mapping of str to ndarray
        Waveform of each voice, float32, in the shape of the input: (samples,) or (channels, samples). The stems add up
        to the recording.
    f0 : F0Tracks
        F0 of the voices on the 16-ms grid.
    sample_rate : int
        Sample rate in Hz, that of the recording.
    room : RoomParameters
        The room of the recording, as estimated or given.
    """

    stems: Mapping[str, Float32]
    f0: F0Tracks
    sample_rate: int
    room: RoomParameters = field(default_factory=RoomParameters.of)

    @property
    def confidence(self) -> Float32 | None:
        """Confidence of the f0 in [0, 1], shape (voices, frames); None if the f0 came without it."""
        return self.f0.confidence

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        track: str = "",
        filename: str = "{stem}.{ext}",
        format: str = OutputOptions.format,
        bit_depth: str = "16",
        clip_mode: str = OutputOptions.clip_mode,
    ) -> list[Path]:
        """Write the stems and return their paths.

        Parameters
        ----------
        folder : str or path
            Output folder; it is made if it is missing.
        track : str
            Value of {track} in `filename`, usually the name of the recording.
        filename, format, bit_depth, clip_mode : str
            See `vocalsep.options.OutputOptions`.

        Raises
        ------
        OptionError
            If the template, the format or the mode cannot be used.
        OutputError
            If a file cannot be written. No stem is left behind then.
        """
        output = OutputOptions(format=format, bit_depth=bit_depth, clip_mode=clip_mode, filename=filename)
        inside = stem_paths(track, self.stems, filename=filename, audio_format=format)
        stems = np.stack([np.atleast_2d(stem) for stem in self.stems.values()])  # (stems, channels, samples)
        gain = rescaling_gain(float(np.abs(stems).max()), bit_depth) if clip_mode == "rescale" else 1.0
        targets = [Path(folder) / path for path in inside.values()]
        parts = [part_path(target) for target in targets]
        channels, samples = stems.shape[1:]
        form = StemFormat(
            format, output.depth(bit_depth), self.sample_rate, channels, samples, {}, clip_mode == "clamp"
        )
        for target in targets:
            check_place(target)
        encode([stems], parts, form, gain)
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
        return targets
