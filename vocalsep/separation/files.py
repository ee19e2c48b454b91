"""From an audio file to the files of its stems, in bounded memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    """Facts about the stems of a recording."""

    seconds: float
    sample_rate: int
    channels: int
    bit_depth: str
    gain: float
    """Common gain of all stems; 1 unless they were turned down to fit into full scale."""
    clipped: int
    """Number of samples that were clipped, in all stems."""
    singing: Mapping[str, float]
    """Share of the time that each voice sings, in [0, 1]."""
    room: Mapping[str, float] | None
    """Reverberation time (T60) in s and direct-to-reverberant ratio in dB; None without a room."""


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

    `targets` are the files of the stems by the names of `OutputOptions.files_of`; `output` decides the format, not the
    suffix. `AudioError` means that the file cannot be read, `OutputError` that a
    stem cannot be written.
    """
    with (
        AudioReader(source) as reader,
        Downmix.of_recording(reader, lambda done: progress("reading", done)) as downmix,
    ):
        analysis = separator.analyse(downmix, f0s, options.voices, room=options.room, progress=progress)
        names = options.stem_names(analysis.tracks.names)
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
        blocks = separator.stems(reader, analysis, residual=options.residual, progress=progress)
        if output.two_stems is not None:
            blocks = _with_the_rest(blocks, names.index(output.files_of(names)[0]))
        gain = 1.0
        with ExitStack() as stack:
            if output.clip_mode == "rescale" and form.bit_depth != "float32":
                peak, blocks = stack.enter_context(_spooled(blocks, paths[0].parent, progress))
                gain = rescaling_gain(peak, form.bit_depth)
            clipped = encode(blocks, paths, form, gain)
        return StemSummary(
            seconds=downmix.source_samples / reader.sample_rate,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            bit_depth=form.bit_depth,
            gain=gain,
            clipped=clipped,
            singing=singing_shares(analysis.tracks),
            room=None if analysis.room.is_dry else analysis.room.as_dict(),
        )


def singing_shares(tracks: F0Tracks) -> dict[str, float]:
    """Return the share of the time that each voice sings, in [0, 1]."""
    return dict(zip(tracks.names, tracks.voiced.mean(axis=1).tolist(), strict=True))


def _with_the_rest(blocks: Iterable[Float32], index: int) -> Iterator[Float32]:
    """Yield one stem and the sum of all others, shape (2, channels, samples)."""
    for block in blocks:
        yield np.stack([block[index], np.delete(block, index, axis=0).sum(axis=0)])


@contextmanager
def _spooled(
    blocks: Iterable[Float32], folder: Path, progress: ProgressCallback
) -> Iterator[tuple[float, Iterator[Float32]]]:
    """Store stems in a temporary file without a name; yield their peak and, once more, the stems."""
    with ExitStack() as stack:
        with _refusing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        peak = 0.0
        shapes: list[tuple[int, ...]] = []
        for block in blocks:
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            shapes.append(block.shape)
            with _refusing(folder):
                file.write(np.ascontiguousarray(block).data)
        file.seek(0)

        def stored() -> Iterator[Float32]:
            for done, shape in enumerate(shapes, 1):
                yield np.frombuffer(file.read(4 * math.prod(shape)), dtype=np.float32).reshape(shape)
                progress("writing", done / len(shapes))

        yield peak, stored()


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{printable(folder)}: cannot be written ({reason(error)}); expected a folder with room for the "
            "stems, and for a second copy while they are written"
        ) from error
