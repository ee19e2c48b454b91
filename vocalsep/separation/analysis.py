"""The analysis of a recording: its room, the recording without it, and the f0 of its voices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import InverseStft, StftGrid, stft
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.room import RoomParameters, dried_spectrum
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE

_GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE)
_CHUNK_FRAMES = 750
_WINDOW_FRAMES = 4  # half a window
_EXCERPTS, _EXCERPT_FRAMES = 2, 500  # from which the room is estimated: 8 s each


class Analysis(NamedTuple):
    """What is known of a recording before its voices are separated."""

    dry: Downmix
    """The recording without its room, in which f0 is tracked and parameters are estimated."""
    tracks: F0Tracks
    """F0 of the voices on the 16-ms grid."""
    room: RoomParameters
    """The room, which the masks put back onto the voices."""


def without_room(downmix: Downmix, room: RoomParameters) -> Downmix:
    """Return a recording without its room, the same downmix if there is none.

    The phase stays as it is. The filter runs through the whole recording, so memory stays bounded at any length.
    """
    if room.is_dry:
        return downmix
    dry = Downmix(_dry_blocks(downmix, room))
    dry.source_samples = downmix.source_samples
    return dry


def _dry_blocks(downmix: Downmix, room: RoomParameters) -> Iterator[Float32]:
    before = None
    spectra = torch.zeros(_GRID.n_bins, 0, dtype=torch.complex64)  # dry, up to the frame `done`
    done = 0
    for chunk in chunks(downmix.n_frames, _CHUNK_FRAMES, _WINDOW_FRAMES):
        start = (chunk.low - _WINDOW_FRAMES) * HOP_LENGTH
        waveform = torch.from_numpy(downmix.read(start, (chunk.high + _WINDOW_FRAMES) * HOP_LENGTH))
        spectra = spectra[:, spectra.shape[1] - (done - chunk.low) :]
        if done < chunk.high:  # the last chunk may lie in the context of the one before
            local = done - chunk.low + _WINDOW_FRAMES, chunk.high - chunk.low + _WINDOW_FRAMES
            dry, before = dried_spectrum(stft(waveform, _GRID, *local), room, before)
            spectra = torch.cat([spectra, dry], dim=1)
            done = chunk.high
        inverse = InverseStft(_GRID, waveform.shape)
        inverse.add(spectra, _WINDOW_FRAMES)
        first, last = chunk.first * HOP_LENGTH, min(chunk.last * HOP_LENGTH, downmix.samples)
        yield inverse.result(slice(first - start, last - start)).numpy()


def excerpt(downmix: Downmix, tracks: F0Tracks | None) -> tuple[Downmix, F0Tracks | None]:
    """Return 16 s of a recording, from the middle of both halves, and their f0 tracks if there are any."""
    if downmix.n_frames <= _EXCERPTS * _EXCERPT_FRAMES:
        return downmix, tracks
    half = downmix.n_frames // _EXCERPTS
    firsts = [half * index + (half - _EXCERPT_FRAMES) // 2 for index in range(_EXCERPTS)]
    parts = [downmix.read(first * HOP_LENGTH, (first + _EXCERPT_FRAMES) * HOP_LENGTH) for first in firsts]
    part = Downmix.of_array(np.concatenate(parts))
    if tracks is None:
        return part, None
    f0 = np.concatenate([tracks.frequencies[:, first : first + _EXCERPT_FRAMES] for first in firsts], axis=1)
    return part, F0Tracks(f0, tracks.names)
