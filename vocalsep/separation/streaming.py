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
from vocalsep.model.correction import PATCH, MaskCorrection
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import RoomParameters, reverberation
from vocalsep.model.synthesizer import VoiceParameters, voice_power

CHUNK_FRAMES = 750
"""Frames of a chunk."""
CONTEXT_FRAMES = 125
"""Frames before and after a chunk."""
_MASK_FRAMES = 5  # before and after a chunk whose windows reach into it
_F0_FRAMES = 2  # before and after a frame on whose f0 its power depends
_BINS_AT_ONCE = 200_000  # bins times frames that are in memory at once: a second at 48 kHz
_CORRECTED_FRAMES = 256  # that are corrected at once, to the nearest number of blocks


def recorded_chunks(recording: Recording, grid: StftGrid, n_frames: int) -> Iterator[tuple[Chunk, Float32]]:
    """Yield the chunks of a recording of `n_frames` frames, each with its samples, shape (channels, samples).

    The samples begin at the frame `chunk.low`, and include the context.
    """
    context = round(CONTEXT_FRAMES * grid.hop_length)
    blocks = with_context(recording.blocks(round(CHUNK_FRAMES * grid.hop_length)), 1, 1)
    for chunk, (before, own, after) in zip(chunks(n_frames, CHUNK_FRAMES, CONTEXT_FRAMES), blocks, strict=False):
        parts = [block[:, -context:] for block in before] + own + [block[:, :context] for block in after]
        yield chunk, np.concatenate(parts, axis=1)


class _Block(NamedTuple):
    """Power and frequency in some frames of a recording."""

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
        frames = max(self._reach, _BINS_AT_ONCE // grid.n_bins, 1)
        self._block_frames = frames + -frames % PATCH[1]  # at least the context of a neighbouring block
        self._reverberation: Tensor | None = None  # in the first frame that the next chunk needs

    @property
    def context(self) -> int:
        """Frames before and after a chunk on whose parameters its stems depend."""
        return _MASK_FRAMES + self._reach + PATCH[1] + _F0_FRAMES

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
        n_stems = parameters.f0.shape[0] + (self.gate is not None)
        inverses = [InverseStft(self.grid, (n_stems, waveform.shape[-1]), waveform.device) for _ in waveform]
        blocks = self._blocks(chunk, waveform.mean(dim=0), parameters)
        for block in blocks if self.correction is None else self._corrected(blocks, self.correction):
            masks = self._masks(block)
            local = block.first - chunk.low, block.first - chunk.low + masks.shape[-1]
            for channel, inverse in zip(waveform, inverses, strict=True):
                inverse.add(masks * stft(channel, self.grid, *local), local[0])
        first_sample = round(chunk.inner.start * self.grid.hop_length)
        inner = slice(first_sample, first_sample + round(CHUNK_FRAMES * self.grid.hop_length))
        stems: Float32 = torch.stack([inverse.result(inner) for inverse in inverses], dim=1).cpu().numpy()
        return stems

    def _low(self, first: int) -> int:
        """Return the first frame on which the masks of a chunk that begins at a frame depend; a patch begins there."""
        return max(0, first - _MASK_FRAMES - self._reach) // PATCH[1] * PATCH[1]

    def _blocks(self, chunk: Chunk, mono: Tensor, parameters: VoiceParameters) -> Iterator[_Block]:
        """Yield the frames on which the masks of a chunk depend, block by block."""
        offset = max(0, chunk.first - self.context)  # of the parameters
        high = min(offset + parameters.n_frames, chunk.last + _MASK_FRAMES + self._reach)
        before = self._reverberation
        for start in range(self._low(chunk.first), high, self._block_frames):
            stop = min(start + self._block_frames, high)
            first, last = start - offset, stop - offset
            spectrum, frequency = spectrum_and_frequency(mono, self.grid, start - chunk.low, stop - chunk.low)
            seen = frequency if self.use_phase else None
            power = voice_power(parameters, self.grid, first, last, instantaneous_frequency=seen)
            if not self.room.is_dry:
                tail = reverberation(power, self.room, before)
                power, before = power + tail[..., :-1], tail[..., -1]
                if start <= self._low(chunk.last) < stop:
                    self._reverberation = tail[..., self._low(chunk.last) - start]
            yield _Block(start, power, squared_magnitude(spectrum), frequency, parameters.f0[:, first:last])

    def _corrected(self, blocks: Iterator[_Block], correction: MaskCorrection) -> Iterator[_Block]:
        """Yield blocks with corrected power, each corrected with its neighbours as context."""
        size = max(1, round(_CORRECTED_FRAMES / self._block_frames))
        for before, own, after in with_context(blocks, size, 1):
            lengths = [block.f0.shape[-1] for block in own]
            first = sum(block.f0.shape[-1] for block in before)
            tensors = [
                torch.cat(parts, dim=-1) for parts in zip(*(one[1:] for one in (*before, *own, *after)), strict=True)
            ]
            known = Chunk.of(first, first + sum(lengths), tensors[0].shape[-1], self._reach)
            corrected = correction(*(tensor[None, ..., known.low : known.high] for tensor in tensors), self.grid)
            for block, found in zip(own, corrected[0, ..., known.inner].split(lengths, dim=-1), strict=True):
                yield block._replace(power=found)

    def _masks(self, block: _Block) -> Tensor:
        """Return the masks of a block, shape (stems, frequency bins, frames)."""
        masks = soft_masks(block.power)
        if self.gate is None:
            return masks
        owned = self.gate[block.first : block.first + masks.shape[-1]].to(masks)
        return torch.cat([masks * owned, (1 - owned).expand(1, *masks.shape[1:])])
