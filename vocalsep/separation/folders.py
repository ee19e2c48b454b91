"""Folders that hold one recording of each voice: stems to score, or guides to track f0 in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from vocalsep.audio import AUDIO_SUFFIXES, AudioReader, Float32, read
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import AudioError, F0Error, printable, reason
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.monophonic import f0_from_downmixes
from vocalsep.f0.tracks import F0Tracks


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the audio files of a folder by name without suffix, in order of name."""
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES and path.name[0] != "."
        )
    except (OSError, ValueError) as error:
        raise AudioError(f"{printable(folder)}: {reason(error)}; expected a folder of audio files") from error
    if not paths:
        raise AudioError(f"{printable(folder)}: holds no audio files; expected one file for each voice")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise AudioError(f"{path} and {files[path.stem]} have the same name; expected one file for each voice")
        files[path.stem] = path
    return files


def read_stems(files: Mapping[str, Path]) -> tuple[dict[str, Float32], int]:
    """Read audio files of one sample rate; return waveforms by name, and the rate in Hz."""
    recordings = {name: read(path) for name, path in files.items()}
    rates = {recording.sample_rate for recording in recordings.values()}
    if len(rates) > 1:
        listed = ", ".join(f"{name} {recording.sample_rate} Hz" for name, recording in recordings.items())
        raise AudioError(f"the files have several sample rates ({listed}); expected the same for all")
    return {name: recording.waveform for name, recording in recordings.items()}, rates.pop()


def f0_from_guides(folder: Path, names: Sequence[str] | None, crepe: Crepe) -> F0Tracks:
    """Track voices in a folder with a recording of each voice alone, in time with the ensemble.

    `names` are the voices to track, high to low; None takes all guides and orders them by their median f0.
    """
    files = audio_files(folder)
    missing = [name for name in names or [] if name not in files]
    if missing:
        raise F0Error(
            f"{printable(folder)}: has no recording of {missing[0]}, but of {', '.join(files)}", parameter="voices"
        )
    with ExitStack() as stack:
        downmixes = {}
        for name in names or files:
            with AudioReader(files[name]) as reader:
                downmixes[name] = stack.enter_context(Downmix.of_recording(reader))
        tracks = f0_from_downmixes(downmixes, crepe)
    return tracks.high_to_low() if names is None else tracks
