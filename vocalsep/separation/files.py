"""From an audio file to the files of its stems, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vocalsep.audio import AudioReader, Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import OutputError, printable, reason
from vocalsep.f0.grid import F0sLike
from vocalsep.f0.tracks import F0Tracks
from vocalsep.options import OutputOptions, SeparationOptions
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.encode import StemFormat, encode, rescaling_gain
from vocalsep.separation.separator import Separator


@dataclass(frozen=True)
class StemSummary:
    """Facts about the stems of a recording.

    Parameters
    ----------
    seconds : float
        Length of the recording.
    sample_rate : int
        Sample rate in Hz.
    channels : int
        Number of channels of the recording and of each stem.
    bit_depth : str
        Bit depth of the stems.
    gain : float
        Common gain of all stems; 1 unless they were turned down to fit into full scale.
    clipped : int
        Number of samples that were clipped, in all stems.
    singing : dict of str to float
        Share of the time that each voice sings, in [0, 1].
    """

    seconds: float
    sample_rate: int
    channels: int
    bit_depth: str
    gain: float
    clipped: int
    singing: Mapping[str, float]


def write_stems(
    separator: Separator,
    source: Path,
    targets: Mapping[str, Path],
    options: SeparationOptions,
    output: OutputOptions,
    f0s: F0sLike = None,
    progress: ProgressCallback = no_progress,
) -> StemSummary:
    """Separate an audio file and write its stems.

    The file is read twice, block by block. If the stems may have to be turned down, they are kept in an unnamed
    temporary file beside the targets until their peak is known.

    Parameters
    ----------
    separator : Separator
        The separator.
    source : Path
        Audio file.
    targets : mapping of str to Path
        File of each stem, by the names of `OutputOptions.files_of`; the format is that of `output`, whatever the
        suffix.
    options, output
        How to separate, and how to write; `options.adapt` is left to the caller.
    f0s : F0Tracks or array_like, optional
        See `vocalsep.separate`.
    progress : callable
        Called with the stage ("reading", "f0", "masks", "writing") and the fraction that is done.

    Raises
    ------
    AudioError
        If the file cannot be read.
    OutputError
        If a stem cannot be written.
    F0Error, VoicesError, OptionError
        If something else cannot be used.
    """
    with (
        AudioReader(source) as reader,
        Downmix.of_recording(reader, lambda done: progress("reading", done)) as downmix,
    ):
        tracks = separator.track(downmix, f0s, options.voices, progress)
        names = options.stem_names(tracks.names)
        paths = [targets[name] for name in output.files_of(names)]
        form = StemFormat(
            output.format,
            output.depth(reader.bit_depth),
            reader.sample_rate,
            reader.channels,
            downmix.source_samples,
            reader.tags,
            output.clip_mode == "clamp",
        )
        blocks = separator.stems(reader, downmix, tracks, residual=options.residual, progress=progress)
        if output.two_stems is not None:
            blocks = _with_the_rest(blocks, names.index(output.two_stems))
        gain = 1.0
        with ExitStack() as stack:
            if output.clip_mode == "rescale" and form.bit_depth != "float32":
                spool = stack.enter_context(_Spool(paths[0].parent))
                peak = spool.take(blocks)
                gain, blocks = rescaling_gain(peak, form.bit_depth), spool.blocks(progress)
            clipped = encode(blocks, paths, form, gain)
        return StemSummary(
            seconds=downmix.source_samples / reader.sample_rate,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            bit_depth=form.bit_depth,
            gain=gain,
            clipped=clipped,
            singing=singing_shares(tracks),
        )


def singing_shares(tracks: F0Tracks) -> dict[str, float]:
    """Return the share of the time that each voice sings, in [0, 1]."""
    return dict(zip(tracks.names, tracks.voiced.mean(axis=1).tolist(), strict=True))


def _with_the_rest(blocks: Iterable[Float32], index: int) -> Iterator[Float32]:
    """Yield one stem and the sum of all others, shape (2, channels, samples)."""
    for block in blocks:
        yield np.stack([block[index], np.delete(block, index, axis=0).sum(axis=0)])


class _Spool:
    """Stems on disk, in a temporary file without a name, until their peak is known."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes: list[tuple[int, ...]] = []

    def __enter__(self) -> _Spool:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, blocks: Iterable[Float32]) -> float:
        """Store the stems and return their peak."""
        peak = 0.0
        for block in blocks:
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            try:
                self._file.write(np.ascontiguousarray(block).data)
            except OSError as error:
                raise self._refusal(error) from error
            self._shapes.append(block.shape)
        return peak

    def blocks(self, progress: ProgressCallback) -> Iterator[Float32]:
        """Yield the stems as they were stored."""
        self._file.seek(0)
        for done, shape in enumerate(self._shapes, 1):
            size = int(np.prod(shape))
            yield np.frombuffer(self._file.read(4 * size), dtype=np.float32).reshape(shape)
            progress("writing", done / len(self._shapes))

    def _refusal(self, error: OSError) -> OutputError:
        return OutputError(
            f"{printable(self._folder)}: cannot be written ({reason(error)}); expected a folder with room for the "
            "stems, twice for as long as they are written"
        )
