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
_BINS_AT_ONCE = 200_000  # bins times frames that are in memory at once: a second at 48 kHz
_CORRECTED_FRAMES = 128  # frames that are corrected at once, to the nearest number of blocks


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
    """What is heard in some frames of a chunk."""

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
        # Patches of a correction begin on even frames, and a block holds at least the context of its neighbours.
        self._block_frames = max(2, self._reach, _BINS_AT_ONCE // grid.n_bins // 2 * 2)
        self._blocks_at_once = (1, 0)  # and blocks of context
        if correction is not None:
            self._blocks_at_once = max(1, round(_CORRECTED_FRAMES / self._block_frames)), 1
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
        first = max(0, chunk.first - self.context)  # of the parameters
        known = Chunk.of(chunk.first, chunk.last, first + parameters.n_frames, _MASK_FRAMES + self._reach)
        n_stems = parameters.f0.shape[0] + (self.gate is not None)
        inverses = [InverseStft(self.grid, (n_stems, waveform.shape[-1]), waveform.device) for _ in waveform]
        start = known.low
        blocks = self._blocks(chunk, known, waveform.mean(dim=0), parameters)
        for before, own, after in with_context(blocks, *self._blocks_at_once):
            masks = self._masks(start, before, own, after)
            stop = start + masks.shape[-1]
            for channel, inverse in zip(waveform, inverses, strict=True):
                inverse.add(masks * stft(channel, self.grid, start - chunk.low, stop - chunk.low), start - chunk.low)
            start = stop
        first_sample = round(chunk.inner.start * self.grid.hop_length)
        inner = slice(first_sample, first_sample + round(CHUNK_FRAMES * self.grid.hop_length))
        stems: Float32 = torch.stack([inverse.result(inner) for inverse in inverses], dim=1).cpu().numpy()
        return stems

    def _blocks(self, chunk: Chunk, known: Chunk, mono: Tensor, parameters: VoiceParameters) -> Iterator[_Block]:
        """Yield what is heard in the frames on which the masks of a chunk depend, block by block."""
        first = max(0, chunk.first - self.context)  # of the parameters
        next_low, before = chunk.last - _MASK_FRAMES - self._reach, self._reverberation
        for start in range(known.low, known.high, self._block_frames):
            stop = min(start + self._block_frames, known.high)
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
            yield _Block(power, squared_magnitude(spectrum), frequency, parameters.f0[:, start - first : stop - first])

    def _masks(self, start: int, before: list[_Block], own: list[_Block], after: list[_Block]) -> Tensor:
        """Return the masks of some blocks that begin at a frame, shape (stems, frequency bins, frames)."""
        heard = _Block(*(torch.cat(tensors, dim=-1) for tensors in zip(*before, *own, *after, strict=True)))
        low = sum(block.f0.shape[-1] for block in before)
        high = low + sum(block.f0.shape[-1] for block in own)
        power = heard.power[..., low:high]
        if self.correction is not None:
            known = Chunk.of(low, high, heard.f0.shape[-1], self._reach)
            seen = (tensor[None, ..., known.low : known.high] for tensor in heard)
            power = self.correction(*seen, self.grid)[0][..., known.inner]
        masks = soft_masks(power)
        if self.gate is None:
            return masks
        owned = self.gate[start : start + high - low].to(masks)
        return torch.cat([masks * owned, (1 - owned).expand(1, *masks.shape[1:])])
