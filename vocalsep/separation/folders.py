"""Folders that hold a recording of each voice: stems to score, guides to track f0 in."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from vocalsep import audio
from vocalsep.audio import Float32, containers
from vocalsep.audio.downmix import Mixdown
from vocalsep.errors import AudioError, F0Error
from vocalsep.f0.monophonic import f0_from_mixdowns
from vocalsep.f0.tracks import F0Tracks, register

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".rf64", ".caf", ".au")
"""Suffixes by which audio files are found in folders, beside those that need PyAV."""


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the audio files of a folder by name without suffix, in order of name.

    Raises
    ------
    AudioError
        If there is no such folder, or no audio in it, or two files of one name.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 (a path that is too long is none)
        raise AudioError(f"{folder}: is not a folder; expected a folder of audio files")
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise AudioError(f"{folder}: cannot be looked into ({error.strerror}); expected audio files in it") from error
    paths = [
        path
        for path in found
        if path.suffix.lower() in AUDIO_SUFFIXES + containers.SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise AudioError(f"{folder}: holds no audio files; expected some of {', '.join(AUDIO_SUFFIXES)}")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise AudioError(f"{path} and {files[path.stem]} have one name; expected one file for each voice")
        files[path.stem] = path
    return files


def read_stems(files: dict[str, Path]) -> tuple[dict[str, Float32], int]:
    """Read audio files of one sample rate; return waveforms by name, and the rate in Hz.

    Raises
    ------
    AudioError
        If a file cannot be read or the rates differ.
    """
    recordings = {name: audio.read(path) for name, path in files.items()}
    rates = {recording.sample_rate for recording in recordings.values()}
    if len(rates) > 1:
        listed = ", ".join(f"{name} {recording.sample_rate} Hz" for name, recording in recordings.items())
        raise AudioError(f"the files have several sample rates ({listed}); expected one")
    return {name: recording.waveform for name, recording in recordings.items()}, rates.pop()


def f0_of_guides(folder: Path, names: list[str] | None, capacity: str = "tiny", device: str = "cpu") -> F0Tracks:
    """Track the voices in a folder of guides, in the order of `names` or else from high to low.

    Raises
    ------
    F0Error
        If a voice has no guide.
    """
    files = audio_files(folder)
    missing = [name for name in names or [] if name not in files]
    if missing:
        raise F0Error(f"{folder}: has no recording of {missing[0]}; it has {', '.join(files)}")
    with ExitStack() as stack:
        mixdowns = {}
        for name in names or files:
            with audio.AudioReader(files[name]) as reader:
                mixdowns[name] = stack.enter_context(Mixdown.of_recording(reader))
        tracks = f0_from_mixdowns(mixdowns, capacity=capacity, device=device)
    by_register = dict(zip(tracks.names, tracks.frequencies, strict=True))
    order = names or sorted(by_register, key=lambda name: -register(by_register[name]))
    return tracks.select(order)
