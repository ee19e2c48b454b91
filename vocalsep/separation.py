"""The result of a separation, and where its stems go on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vocalsep import audio as audio_io
from vocalsep.audio import Float32
from vocalsep.errors import ParameterError
from vocalsep.tracks import F0Tracks

FILENAME = "{track}/{stem}.{ext}"
"""Template of the path of a stem inside the output folder, as in Demucs."""


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
    ) -> list[Path]:
        """Write the stems and return their paths.

        Parameters
        ----------
        folder
            Where to; made if it is missing.
        track
            What {track} stands for in `filename`: usually the name of the recording.
        filename
            Template of the path of a stem inside `folder`, with {track}, {stem} and {ext}.
        audio_format
            "wav", "flac", "ogg" or "mp3".
        bit_depth
            "16", "24" or "float32" (wav).

        Raises
        ------
        ParameterError
            If the template or the format cannot be used.
        AudioError
            If a file cannot be written.
        """
        paths = stem_paths(folder, self.stems, track=track, filename=filename, audio_format=audio_format)
        audio_io.validate_format(audio_format, bit_depth)
        for path, stem in zip(paths, self.stems.values(), strict=True):
            audio_io.write(path, stem, self.sample_rate, bit_depth=bit_depth)
        return paths


def stem_paths(
    folder: str | os.PathLike[str],
    stems: Iterable[str],
    *,
    track: str,
    filename: str = FILENAME,
    audio_format: str = "wav",
) -> list[Path]:
    """Return where the stems of a track go.

    Raises
    ------
    ParameterError
        If the template has unknown fields, leads out of `folder`, or gives two stems one path.
    """
    try:
        names = [filename.format(track=track, stem=stem, ext=audio_format) for stem in stems]
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ParameterError(
            f"filename is {filename!r} ({error!r}); expected a template of {{track}}, {{stem}} and {{ext}}"
        ) from error
    paths = [Path(folder) / name for name in names]
    if len(set(paths)) < len(paths):
        raise ParameterError(f"filename is {filename!r}, the same for every stem; expected {{stem}} in it")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
        raise ParameterError(f"filename is {filename!r}, which leads out of the folder {folder}")
    if any(path.suffix.lower() != f".{audio_format}" for path in paths):
        raise ParameterError(f"filename is {filename!r}; expected it to end in .{{ext}}")
    return paths


def plan_outputs(
    sources: Iterable[Path],
    out: str | os.PathLike[str],
    stems: Iterable[str],
    *,
    filename: str = FILENAME,
    audio_format: str = "wav",
    overwrite: bool = False,
) -> dict[Path, list[Path]]:
    """Return the paths of the stems of each recording, before anything is written.

    Raises
    ------
    ParameterError
        If two recordings would write the same file, a stem would replace a recording, or a stem exists and
        `overwrite` is not set.
    """
    stems = list(stems)
    planned = {
        source: stem_paths(out, stems, track=source.stem, filename=filename, audio_format=audio_format)
        for source in sources
    }
    owner: dict[Path, Path] = {source.resolve(): source for source in planned}
    for source, targets in planned.items():
        for target in targets:
            other = owner.setdefault(target.resolve(), source)
            if other is not source or target.resolve() == source.resolve():
                raise ParameterError(f"{source} and {other} would both be {target}; use --filename or another folder")
            if target.exists() and not overwrite:
                raise ParameterError(f"{target} exists; use --overwrite to replace it or -o for another folder")
    return planned
