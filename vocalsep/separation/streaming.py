"""Recordings of any length at their own sample rate, cut into stems chunk by chunk.

A chunk has 12 s and a context of 2 s on both sides. Both are whole numbers of samples at every sample rate, and the
context is longer than anything that a stem depends on, so chunks give the same stems as the whole recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.audio.recording import Recording
from vocalsep.dsp.chunks import Chunk, chunks, with_context
from vocalsep.dsp.stft import InverseStft, StftGrid, spectrum_and_frequency, squared_magnitude, stft
from vocalsep.model.correction import MaskCorrection
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import RoomParameters, reverberation
from vocalsep.model.synthesizer import VoiceParameters, voice_power

CHUNK_FRAMES = 750
"""Frames of a chunk."""
CONTEXT_FRAMES = 125
"""Frames before and after a chunk."""
_MASK_FRAMES = 6  # before and after a chunk: its windows reach 5, and patches of a correction begin on even frames
_F0_FRAMES = 2  # before and after a frame on whose f0 its power depends
_BINS_AT_ONCE = 200_000  # bins times frames for which power is computed at once: a second at 48 kHz
_CUT_FRAMES = 250  # frames whose masks are in memory at once


def recorded_chunks(recording: Recording, grid: StftGrid, n_frames: int) -> Iterator[tuple[Chunk, Float32]]:
    """Yield the chunks of a recording of `n_frames` frames, each with its samples, shape (channels, samples).

    The samples begin at the frame `chunk.low`, and include the context.
    """
    context = round(CONTEXT_FRAMES * grid.hop_length)
    blocks = with_context(recording.blocks(round(CHUNK_FRAMES * grid.hop_length)), 1, 1)
    for chunk, (before, own, after) in zip(chunks(n_frames, CHUNK_FRAMES, CONTEXT_FRAMES), blocks, strict=False):
        parts = [block[:, -context:] for block in before] + own + [block[:, :context] for block in after]
        yield chunk, np.concatenate(parts, axis=1)


class _Heard(NamedTuple):
    """What is heard in some frames."""

    first: int  # number of the first frame in the recording
    power: Tensor  # of each voice with its reverberation, shape (voices, frequency bins, frames)
    recorded: Tensor  # power of the recording, shape (frequency bins, frames)
    frequency: Tensor  # instantaneous frequency of the recording in Hz, shape (frequency bins, frames)
    f0: Tensor  # in Hz, shape (voices, frames)


class StemCutter:
    """Cuts the chunks of a recording into stems with soft masks, one chunk after the other.

    Parameters
    ----------
    grid : StftGrid
        STFT grid of the masks.
    room : RoomParameters
        Room of the recording.
    use_phase : bool
        Compare the recording's instantaneous frequency with the harmonics; see `synthesizer.lobes.agreement`.
    gate : Tensor, shape (frames of the recording,), optional
        1 where the voices own the sound, 0 where it goes to the residual stem.
    correction : MaskCorrection, optional
        Network that corrects the power of the voices.
    """

    def __init__(
        self,
        grid: StftGrid,
        room: RoomParameters,
        *,
        use_phase: bool = True,
        gate: Tensor | None = None,
        correction: MaskCorrection | None = None,
    ) -> None:
        self.grid, self.room, self.use_phase, self.gate, self.correction = grid, room, use_phase, gate, correction
        self._reach = 0 if correction is None else correction.config.reach
        self._reverberation: Tensor | None = None  # in the first frame that the next chunk needs

    @property
    def context(self) -> int:
        """Frames before and after a chunk on whose parameters its stems depend."""
        return _MASK_FRAMES + self._reach + _F0_FRAMES

    def cut(self, chunk: Chunk, samples: Float32, parameters: VoiceParameters) -> Float32:
        """Return the stems of the next chunk: each voice and, with a gate, the residual.

        Parameters
        ----------
        chunk : Chunk
            Frames of the chunk.
        samples : ndarray, shape (channels, samples)
            Samples of the chunk and of its context.
        parameters : VoiceParameters
            Parameters of its voices, with `context` frames before and after it where the recording has them.

        Returns
        -------
        ndarray, shape (stems, channels, samples of the chunk)
            The stems.
        """
        waveform = torch.from_numpy(samples).to(parameters.f0.device)
        heard = self._heard(chunk, waveform.mean(dim=0), parameters)
        n_frames = heard.first + heard.power.shape[-1]
        n_stems = len(heard.power) + (self.gate is not None)
        inverses = [InverseStft(self.grid, (n_stems, waveform.shape[-1]), waveform.device) for _ in waveform]
        for start in range(max(0, chunk.first - _MASK_FRAMES), min(n_frames, chunk.last + _MASK_FRAMES), _CUT_FRAMES):
            stop = min(start + _CUT_FRAMES, chunk.last + _MASK_FRAMES, n_frames)
            masks = self._masks(heard, Chunk.of(start, stop, n_frames, self._reach))
            for channel, inverse in zip(waveform, inverses, strict=True):
                inverse.add(masks * stft(channel, self.grid, start - chunk.low, stop - chunk.low), start - chunk.low)
        first_sample = round(chunk.inner.start * self.grid.hop_length)
        inner = slice(first_sample, first_sample + round(CHUNK_FRAMES * self.grid.hop_length))
        stems: Float32 = torch.stack([inverse.result(inner) for inverse in inverses], dim=1).cpu().numpy()
        return stems

    def _heard(self, chunk: Chunk, mono: Tensor, parameters: VoiceParameters) -> _Heard:
        """Return what is heard in all frames on which the masks of a chunk depend."""
        first = max(0, chunk.first - self.context)  # of the parameters
        _, _, low, high = Chunk.of(chunk.first, chunk.last, first + parameters.n_frames, _MASK_FRAMES + self._reach)
        next_low, before = chunk.last - _MASK_FRAMES - self._reach, self._reverberation
        step = max(1, _BINS_AT_ONCE // self.grid.n_bins)
        blocks = []
        for start in range(low, high, step):
            stop = min(start + step, high)
            spectrum, frequency = spectrum_and_frequency(mono, self.grid, start - chunk.low, stop - chunk.low)
            power = voice_power(
                parameters,
                self.grid,
                start - first,
                stop - first,
                instantaneous_frequency=frequency if self.use_phase else None,
            )
            if not self.room.is_dry:
                tail = reverberation(power, self.room, before)
                power, before = power + tail[..., :-1], tail[..., -1]
                if start <= next_low < stop:
                    self._reverberation = tail[..., next_low - start]
            blocks.append((power, squared_magnitude(spectrum), frequency))
        power, recorded, frequency = (torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))
        return _Heard(low, power, recorded, frequency, parameters.f0[:, low - first : high - first])

    def _masks(self, heard: _Heard, block: Chunk) -> Tensor:
        """Return the masks of a block of frames, shape (stems, frequency bins, frames)."""
        known = slice(block.low - heard.first, block.high - heard.first)
        power = heard.power[..., known]
        if self.correction is not None:
            others = (tensor[None, ..., known] for tensor in (heard.recorded, heard.frequency, heard.f0))
            power = self.correction(power[None], *others, self.grid)[0]
        masks = soft_masks(power[..., block.inner])
        if self.gate is None:
            return masks
        owned = self.gate[block.first : block.last].to(masks)
        return torch.cat([masks * owned, (1 - owned).expand(1, *masks.shape[1:])])
