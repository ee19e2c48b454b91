"""The result of a separation, and where its stems go on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import numpy as np

from vocalsep import audio as audio_io
from vocalsep.audio import Float32
from vocalsep.errors import AudioError, ParameterError
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
            If a file cannot be written, or the stems are far louder than the format holds. No stem is left then.
        """
        paths = stem_paths(folder, self.stems, track=track, filename=filename, audio_format=audio_format)
        audio_io.validate_format(audio_format, bit_depth)
        stems = np.stack(list(self.stems.values()))
        if bit_depth != "float32":
            stems = within_full_scale(stems)
            if len(stems) > 1 and np.abs(stems).max() > 1:
                raise AudioError(
                    f"the stems peak at {np.abs(stems).max():.2g} times full scale, more than {bit_depth}-bit samples "
                    "hold; expected a recording within full scale, or float32 stems"
                )
        written: list[Path] = []
        try:
            for path, stem in zip(paths, stems, strict=True):
                audio_io.write(path, stem, self.sample_rate, bit_depth=bit_depth)
                written.append(path)
        except BaseException:
            # All stems or none: half a set would look like a finished separation.
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return paths


_FULL_SCALE = 1 - 2**-15  # the largest positive 16-bit sample


def within_full_scale(stems: Float32) -> Float32:
    """Return stems that formats of whole numbers can hold and that still add up to the recording.

    A stem may have peaks that other stems cancel in the recording. What exceeds full scale, in one sample or a few,
    goes to the other stems in equal parts instead of being clipped off.

    Parameters
    ----------
    stems
        Shape (stems, ...).

    Examples
    --------
    >>> within_full_scale(np.array([[1.25], [-0.5]], dtype=np.float32)).ravel().tolist()
    [0.999969482421875, -0.249969482421875]
    """
    for _ in range(len(stems)):
        excess = stems - np.clip(stems, -_FULL_SCALE, _FULL_SCALE)
        if len(stems) == 1 or not excess.any():
            break
        stems = stems - excess + (excess.sum(axis=0) - excess) / np.float32(len(stems) - 1)
    return stems


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
    if not _is_template(filename):
        raise ParameterError(f"filename is {filename!r}; expected a template of {{track}}, {{stem}} and {{ext}}")
    names = [filename.format(track=track, stem=stem, ext=audio_format) for stem in stems]
    paths = [Path(folder) / name for name in names]
    if len(set(paths)) < len(paths):
        raise ParameterError(f"filename is {filename!r}, the same for every stem; expected {{stem}} in it")
    if any(Path(name).anchor or ".." in Path(name).parts for name in names):  # C:x has an anchor, too
        raise ParameterError(f"filename is {filename!r}, which leads out of the folder {folder}")
    if any(path.suffix.lower() != f".{audio_format}" for path in paths):
        raise ParameterError(f"filename is {filename!r}; expected it to end in .{{ext}}")
    return paths


def _is_template(filename: str) -> bool:
    """Return whether a template has no fields but the plain {track}, {stem} and {ext}.

    Attributes ({track.__class__}), items, conversions and widths are no business of a file name.
    """
    try:
        parts = list(Formatter().parse(filename))
    except ValueError:
        return False
    known = all(
        field is None or (field in ("track", "stem", "ext") and not width and not conversion)
        for _, field, width, conversion in parts
    )
    return known and "\0" not in filename


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
            if not overwrite and _exists(target):
                raise ParameterError(f"{target} exists; use --overwrite to replace it or -o for another folder")
    return planned


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ParameterError(f"{path}: cannot be a file ({error.strerror}); choose another --filename") from error
