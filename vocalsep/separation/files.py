"""From an audio file to the files of its stems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vocalsep.audio import AudioReader, AudioWriter, Float32
from vocalsep.audio.downmix import Mixdown
from vocalsep.audio.formats import fitting_gain, nearest_depth
from vocalsep.errors import OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.asked import stem_names
from vocalsep.separation.given import F0sLike
from vocalsep.separation.separator import Analysis, Separator
from vocalsep.voices import VoicesLike


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
        OptionError
            If the wanted voice is not among them, or a voice is named residual beside a residual.
        """
        names = stem_names(tracks, self.voices, self.residual)
        if self.two_stems is None:
            return names
        if self.two_stems not in names:
            raise OptionError(f"two_stems is {self.two_stems!r}; expected one of {', '.join(names)}")
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
    writers
        Of the stems.
    """

    def __init__(self, written: Written, writers: Sequence[AudioWriter]) -> None:
        self.written = written
        self._writers = list(writers)

    def commit(self) -> None:
        """Give the stems their names.

        Raises
        ------
        AudioError
            If one cannot be put in its place.
        """
        for writer in self._writers:
            writer.commit()

    def discard(self) -> None:
        """Remove what has not got its name yet."""
        for writer in self._writers:
            writer.discard()


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

    The file is read in two passes or more, block by block: memory does not grow with its length. Nothing is left
    behind if this does not return.

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
        Called with the stage ("reading", "f0", "adaptation", "masks") and the fraction done.

    Raises
    ------
    AudioError
        If the file cannot be read, or a stem cannot be written.
    F0Error, VoicesError, OptionError, WeightsError
        If something else cannot be used.
    """
    depth = settings.bit_depth
    with (
        AudioReader(source) as reader,
        Mixdown.of_recording(reader, lambda done: progress("reading", done)) as mixdown,
    ):
        settings = replace(settings, bit_depth=depth or nearest_depth(reader.bit_depth, settings.audio_format))
        tracks = separator.track(mixdown, f0s, voices=settings.voices, refine=settings.refine, progress=progress)
        system = separator
        if settings.adapt:
            system = separator.adapted(
                [(mixdown, tracks)], seconds=settings.adapt_seconds, seed=settings.seed, progress=progress
            )
        job = _Job(system, reader, Analysis(mixdown, tracks), settings, targets)
        pending = job.write(1.0, progress) or job.write(job.fitting_gain, progress)
        assert pending is not None  # with that gain all stems fit
    given = f0s.n_frames * f0s.hop if isinstance(f0s, F0Tracks) else None
    pending.written = replace(pending.written, given_seconds=given)
    return pending


class _Job:
    """A recording that is written as stems, a second time if they need a gain."""

    def __init__(
        self,
        separator: Separator,
        reader: AudioReader,
        analysis: Analysis,
        settings: Settings,
        targets: Mapping[str, Path],
    ) -> None:
        self.separator = separator
        self.reader = reader
        self.analysis = analysis
        self.settings = settings
        self.targets = [targets[name] for name in settings.stem_names(analysis.tracks)]
        self.range = (0.0, 0.0)

    @property
    def fitting_gain(self) -> float:
        """Gain with which the stems of the last pass fit into the format."""
        return fitting_gain(*self.range, str(self.settings.bit_depth))

    def write(self, gain: float, progress: ProgressCallback) -> PendingStems | None:
        """Cut the stems and write them, times a gain, under temporary names.

        None if they do not fit with a gain of 1, and shall: then it is known with which gain they do.
        """
        reader, settings = self.reader, self.settings
        writers: list[AudioWriter] = []
        self.range = (0.0, 0.0)
        samples = clamped = 0
        try:
            for target in self.targets:
                writers.append(
                    AudioWriter(
                        target,
                        reader.sample_rate,
                        reader.channels,
                        bit_depth=str(settings.bit_depth),
                        tags=reader.tags,
                        samples=reader.samples,
                    )
                )
            for block in self._blocks(progress):
                samples += block.shape[-1]
                self.range = min(self.range[0], float(block.min())), max(self.range[1], float(block.max()))
                if self._overflows(gain):
                    continue  # written anew, with a gain, once the peak is known
                stems = block * np.float32(gain)
                if settings.clip_mode == "clamp":
                    clamped += int((np.abs(stems) > 1).sum())
                    stems = stems.clip(-1, 1)
                for writer, stem in zip(writers, stems, strict=True):
                    writer.write(stem)
            if self._overflows(gain):
                for writer in writers:
                    writer.discard()
                return None
            for writer in writers:
                writer.finish()
        except BaseException:
            for writer in writers:
                writer.discard()
            raise
        clipped = clamped or sum(writer.clipped for writer in writers)
        return PendingStems(self._written(samples, gain, clipped), writers)

    def _overflows(self, gain: float) -> bool:
        return self.settings.clip_mode == "rescale" and gain == 1 and self.fitting_gain < 1

    def _blocks(self, progress: ProgressCallback) -> Iterator[Float32]:
        """Yield the stems as they are to be written, shape (stems, channels, samples)."""
        wanted = self.settings.two_stems
        names = stem_names(self.analysis.tracks, self.settings.voices, self.settings.residual)
        index = None if wanted is None else names.index(wanted)
        for block in self.separator.stems(
            self.reader, self.analysis, residual=self.settings.residual, progress=progress
        ):
            if index is None:
                yield block
            else:
                yield np.stack([block[index], np.delete(block, index, axis=0).sum(axis=0)])

    def _written(self, samples: int, gain: float, clipped: int) -> Written:
        tracks, adaptation = self.analysis.tracks, self.separator.adaptation
        return Written(
            seconds=samples / self.reader.sample_rate,
            sample_rate=self.reader.sample_rate,
            channels=self.reader.channels,
            bit_depth=str(self.settings.bit_depth),
            gain=gain,
            clipped=clipped,
            singing=dict(zip(tracks.names, tracks.voiced.mean(axis=1).tolist(), strict=True)),
            adaptation=None if adaptation is None else str(adaptation),
            given_seconds=None,
        )
