"""Recordings of any length at their own sample rate, cut into stems chunk by chunk.

A chunk has 12 s and a context of 2 s on both sides. Both are whole numbers of samples at every sample rate, and the
context is longer than anything that a stem depends on, so chunks give the same stems as the whole recording.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.audio.recording import Recording
from vocalsep.dsp.chunks import Chunk, chunks, with_context
from vocalsep.dsp.stft import InverseStft, StftGrid, instantaneous_frequency, stft
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import RoomParameters, reverberation
from vocalsep.model.synthesizer import VoiceParameters, voice_power

CHUNK_FRAMES = 750
"""Frames of a chunk."""
CONTEXT_FRAMES = 125
"""Frames before and after a chunk."""
PARAMETER_CONTEXT = 8
"""Frames before and after a chunk whose parameters its stems depend on."""
_MASK_FRAMES = 5  # before and after a chunk whose windows reach into it
_BINS_AT_ONCE = 200_000  # bins times frames for which masks are in memory at once: a second at 48 kHz


def recorded_chunks(recording: Recording, grid: StftGrid, n_frames: int) -> Iterator[tuple[Chunk, Float32]]:
    """Yield the chunks of a recording of `n_frames` frames, each with its samples, shape (channels, samples).

    The samples begin at the frame `chunk.low`, and include the context.
    """
    context = round(CONTEXT_FRAMES * grid.hop_length)
    blocks = with_context(recording.blocks(round(CHUNK_FRAMES * grid.hop_length)), 1, 1)
    for chunk, (before, own, after) in zip(chunks(n_frames, CHUNK_FRAMES, CONTEXT_FRAMES), blocks, strict=False):
        parts = [block[:, -context:] for block in before] + own + [block[:, :context] for block in after]
        yield chunk, np.concatenate(parts, axis=1)


def cut_stems(
    chunk: Chunk,
    samples: Float32,
    parameters: VoiceParameters,
    grid: StftGrid,
    room: RoomParameters,
    *,
    use_phase: bool = True,
    gate: Tensor | None = None,
    before: Tensor | None = None,
) -> tuple[Float32, Tensor | None]:
    """Return the stems that soft masks cut out of a chunk of a recording, and the reverberation for the next chunk.

    Parameters
    ----------
    chunk : Chunk
        Frames of the chunk.
    samples : ndarray, shape (channels, samples)
        Samples of the chunk and of its context.
    parameters : VoiceParameters
        Parameters of its voices, with `PARAMETER_CONTEXT` frames before and after it where the recording has them.
    grid : StftGrid
        STFT grid of the masks.
    room : RoomParameters
        Room of the recording.
    use_phase : bool
        Compare the recording's instantaneous frequency with the harmonics; see `synthesizer.lobes.agreement`.
    gate : Tensor, shape (frames of the recording,), optional
        1 where the voices own the sound, 0 where it goes to the residual stem.
    before : Tensor, shape (voices, frequency bins), optional
        Reverberation of the chunks before, as the call for the last of them returned it.

    Returns
    -------
    stems : ndarray, shape (stems, channels, samples of the chunk)
        One stem for each voice and, with a gate, the residual.
    after : Tensor, optional
        Reverberation for the next chunk.
    """
    device = parameters.f0.device
    first_parameter = max(0, chunk.first - PARAMETER_CONTEXT)
    low = max(first_parameter, chunk.first - _MASK_FRAMES)
    high = min(first_parameter + parameters.n_frames, chunk.last + _MASK_FRAMES)
    waveform = torch.from_numpy(samples).to(device)
    mono = waveform.mean(dim=0)
    n_stems = parameters.f0.shape[0] + (gate is not None)
    inverses = [InverseStft(grid, (n_stems, waveform.shape[-1]), device) for _ in waveform]
    step = max(1, _BINS_AT_ONCE // grid.n_bins)
    next_low, after = chunk.last - _MASK_FRAMES, None
    for start in range(low, high, step):
        stop = min(start + step, high)
        local = start - chunk.low, stop - chunk.low
        frequency = instantaneous_frequency(mono, grid, *local) if use_phase else None
        power = voice_power(
            parameters, grid, start - first_parameter, stop - first_parameter, instantaneous_frequency=frequency
        )
        if not room.is_dry:
            tail = reverberation(power, room, before)
            power, before = power + tail[..., :-1], tail[..., -1]
            if start <= next_low < stop:
                after = tail[..., next_low - start]
        masks = soft_masks(power)  # (voices, frequency bins, frames)
        if gate is not None:
            owned = gate[start:stop].to(device)
            masks = torch.cat([masks * owned, (1 - owned).expand(1, *masks.shape[1:])])
        for channel, inverse in zip(waveform, inverses, strict=True):
            inverse.add(masks * stft(channel, grid, *local), local[0])
    first_sample = round(chunk.inner.start * grid.hop_length)
    inner = slice(first_sample, first_sample + round(CHUNK_FRAMES * grid.hop_length))
    stems: Float32 = torch.stack([inverse.result(inner) for inverse in inverses], dim=1).cpu().numpy()
    return stems, after
