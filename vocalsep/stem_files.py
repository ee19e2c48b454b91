"""From an audio file to the files of its stems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalsep import audio as audio_io
from vocalsep.errors import AudioError, ParameterError
from vocalsep.given import F0sLike, ProgressCallback, no_progress
from vocalsep.separator import Separator, stem_names
from vocalsep.tracks import F0Tracks
from vocalsep.voices import VoicesLike

CLIP_MODES = ("rescale", "clamp", "none")


@dataclass(frozen=True)
class Settings:
    """What is asked of the separation of files.

    Parameters
    ----------
    voices, refine, residual, adapt
        See `vocalsep.separate`.
    adapt_seconds
        Time that adaptation may take at most; None means no limit but its number of steps.
    seed
        Of the choice of excerpts in adaptation, the only place where chance plays a part.
    two_stems
        Name of the voice that is wanted alone: then there are two stems, it and "no_" it, all the rest.
    audio_format
        "wav", "flac", "ogg" or "mp3".
    bit_depth
        "16", "24", "float32", or None for that of the recording, as near as the format has it.
    clip_mode
        What happens where stems would exceed full scale: "rescale" gives all stems one common gain where samples are
        whole numbers, "clamp" cuts, "none" leaves them as they are, so that whole numbers are cut all the same.
    """

    voices: VoicesLike | None = None
    refine: int | None = None
    residual: bool = False
    adapt: bool = False
    adapt_seconds: float | None = None
    seed: int = 0
    two_stems: str | None = None
    audio_format: str = "wav"
    bit_depth: str | None = None
    clip_mode: str = "rescale"

    def stem_names(self, tracks: F0Tracks | None = None) -> list[str]:
        """Return the names of the stems of a recording; `tracks` are its f0s if they are given.

        Raises
        ------
        ParameterError
            If the wanted voice is not among them, or two stems would have one name.
        """
        names = stem_names(tracks, self.voices, self.residual)
        if self.two_stems is None:
            return names
        if self.two_stems not in names:
            raise ParameterError(f"two_stems is {self.two_stems!r}; expected one of {', '.join(names)}")
        return [self.two_stems, f"no_{self.two_stems}"]


@dataclass(frozen=True)
class Written:
    """What came of a recording.

    Parameters
    ----------
    seconds
        Of audio.
    sample_rate
        Hz.
    channels
        Of the recording, and of each stem.
    bit_depth
        Of the stems.
    gain
        Common gain of all stems, 1 unless they were rescaled to fit.
    clipped
        Number of samples that were cut at full scale, in all stems.
    singing
        Share of the time that each voice sings, in [0, 1].
    adaptation
        What came of the adaptation, in words, or None.
    given_seconds
        Length of the f0s that were given, None where they were tracked.
    """

    seconds: float
    sample_rate: int
    channels: int
    bit_depth: str
    gain: float
    clipped: int
    singing: Mapping[str, float]
    adaptation: str | None
    given_seconds: float | None


class PendingStems:
    """Stems that are whole, under temporary names beside their own.

    Parameters
    ----------
    written
        What came of the recording.
    """

    def __init__(self, written: Written, pairs: Sequence[tuple[Path, Path]]) -> None:
        self.written = written
        self._pairs = list(pairs)

    def commit(self) -> None:
        """Give the stems their names.

        Raises
        ------
        AudioError
            If one cannot be put in its place.
        """
        for temporary, target in self._pairs:
            try:
                temporary.replace(target)
            except OSError as error:
                raise AudioError(f"{target}: cannot be written ({error.strerror})") from error

    def discard(self) -> None:
        """Remove what has not got its name yet."""
        for temporary, _ in self._pairs:
            temporary.unlink(missing_ok=True)


def write_stems(
    separator: Separator,
    source: Path,
    targets: Mapping[str, Path],
    settings: Settings,
    f0s: F0sLike = None,
    *,
    progress: ProgressCallback = no_progress,
) -> PendingStems:
    """Separate an audio file into stems under temporary names; whoever calls commits or discards them.

    Nothing is left behind if it does not return.

    Parameters
    ----------
    separator
        Its networks are used.
    source
        Audio file.
    targets
        Path of each stem, by the names that `Settings.stem_names` gives.
    settings
        What is asked for.
    f0s
        See `vocalsep.separate`.
    progress
        Called with the stage ("f0", "adaptation", "parameters", "masks") and the fraction done.
    """
    waveform, rate = audio_io.read(source)
    mono = audio_io.to_model_rate(waveform, rate)
    tracks = separator.track(mono, f0s, voices=settings.voices, refine=settings.refine, progress=progress)
    system = separator
    if settings.adapt:
        system = separator.adapted(
            [(mono, tracks)], seconds=settings.adapt_seconds, seed=settings.seed, progress=progress
        )
    result = system.separate(waveform, tracks, sample_rate=rate, residual=settings.residual, progress=progress)
    stems = dict(result.stems)
    if settings.two_stems is not None:
        one = stems.pop(settings.two_stems)
        stems = {settings.two_stems: one, f"no_{settings.two_stems}": np.sum(list(stems.values()), axis=0)}
    pairs: list[tuple[Path, Path]] = []
    try:
        for name, stem in stems.items():
            target = targets[name]
            temporary = target.with_name(f".part.{target.name}")
            pairs.append((temporary, target))
            audio_io.write(temporary, stem, rate, bit_depth=settings.bit_depth or "16")
    except BaseException:
        PendingStems(None, pairs).discard()  # type: ignore[arg-type]
        raise
    singing = dict(zip(tracks.names, tracks.voiced.mean(axis=1).tolist(), strict=True))
    written = Written(
        seconds=waveform.shape[1] / rate,
        sample_rate=rate,
        channels=len(waveform),
        bit_depth=settings.bit_depth or "16",
        gain=1.0,
        clipped=0,
        singing=singing,
        adaptation=None if system.adaptation is None else str(system.adaptation),
        given_seconds=f0s.n_frames * f0s.hop if isinstance(f0s, F0Tracks) else None,
    )
    return PendingStems(written, pairs)
