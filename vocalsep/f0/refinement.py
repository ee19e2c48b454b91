"""F0 tracks made more exact by CREPE on the separated stems, each voice near its first path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vocalsep.audio import Float32
from vocalsep.errors import F0Error
from vocalsep.f0.crepe import CENTS_PER_BIN, activations, bins_to_hz, hz_to_bins, load_crepe
from vocalsep.tracks import F0Tracks

_REACH = 60.0  # cents: a voice's first f0 is wrong by more only where it is another's
_CENTROID = 60.0  # cents either side of the peak that take part in the refinement
_MIN_ACTIVATION = 0.2  # of CREPE: below, a stem does not say enough and the first f0 stays


def refine_tracks(stems: Float32, tracks: F0Tracks, *, capacity: str = "tiny", device: str = "cpu") -> F0Tracks:
    """Return tracks whose f0 is CREPE's wherever it hears the voice in its stem within 60 cents of the first f0.

    Which frames are sung, and the confidence, stay as they are.

    Parameters
    ----------
    stems
        Shape (voices, samples) at 16 kHz.
    tracks
        The first f0, on the 16-ms grid.
    capacity
        CREPE "tiny" or "full".
    device
        Where CREPE runs.

    Raises
    ------
    F0Error
        If there is not one stem for each voice.
    """
    if stems.ndim != 2 or len(stems) != tracks.n_voices:
        raise F0Error(f"stems have shape {stems.shape}; expected ({tracks.n_voices}, samples)")
    network = load_crepe(capacity, device)
    refined = tracks.frequencies.copy()
    for row, (stem, f0) in enumerate(zip(stems, tracks.frequencies, strict=True)):
        sung = np.flatnonzero(f0 > 0)
        if not sung.size:
            continue
        heard = activations(stem, network)
        sung = sung[sung < len(heard)]
        pitches = np.arange(heard.shape[1])
        first = hz_to_bins(f0[sung])[:, None]
        near = np.where(np.abs(pitches - first) <= _REACH / CENTS_PER_BIN, heard[sung], 0)
        peak = near.argmax(axis=1)[:, None]
        weight = np.where(np.abs(pitches - peak) <= _CENTROID / CENTS_PER_BIN, heard[sung], 0).astype(np.float64)
        centroid = (weight * pitches).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
        clear = near.max(axis=1) >= _MIN_ACTIVATION
        refined[row, sung] = np.where(clear, bins_to_hz(centroid), f0[sung])
    return replace(tracks, frequencies=refined)
