"""The parameters of the source-filter models of a group of voices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VoiceParameters:
    """What the synthesizer needs to know of every voice in every frame.

    Frames are 16 ms apart, frame t centred on t * 16 ms. Leading axes (a batch) are free.

    Parameters
    ----------
    f0
        Hz, shape (..., voices, frames), 0 = unvoiced.
    log_gain
        Natural log of the gain g of the harmonics, shape (..., voices, frames).
    lsf
        Line spectral frequencies of the vocal-tract filter in rad (pi is half the model rate), increasing,
        shape (..., voices, frames, order).
    log_noise
        Natural log of the amplitude density of the noise before the filter, in full scale per sqrt(Hz), at
        frequencies equally spaced in mel from 0 to 8 kHz, shape (..., voices, frames, noise bands).
    log_partials
        Natural log of a factor on the amplitudes of the first harmonics, besides gain and filter, shape (..., voices,
        frames, partials); those above it have none. Only `fitting` knows such.
    """

    f0: Tensor
    log_gain: Tensor
    lsf: Tensor
    log_noise: Tensor
    log_partials: Tensor | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.f0.shape[-1]

    @classmethod
    def joined(cls, parts: Sequence[VoiceParameters]) -> VoiceParameters:
        """Return parameters of consecutive frames as one."""
        partials = [part.log_partials for part in parts if part.log_partials is not None]
        return cls(
            torch.cat([part.f0 for part in parts], dim=-1),
            torch.cat([part.log_gain for part in parts], dim=-1),
            torch.cat([part.lsf for part in parts], dim=-2),
            torch.cat([part.log_noise for part in parts], dim=-2),
            torch.cat(partials, dim=-2) if partials else None,
        )

    def without_batch(self) -> VoiceParameters:
        """Return the first and only element of a batch."""
        return self._each(lambda tensor, _: tensor.squeeze(0))

    def frames(self, first: int, last: int, step: int = 1) -> VoiceParameters:
        """Return every `step`-th of the frames first ... last - 1."""
        part = slice(first, last, step)
        return self._each(lambda tensor, vectors: tensor[..., part, :] if vectors else tensor[..., part])

    def _each(self, function: Callable[[Tensor, bool], Tensor]) -> VoiceParameters:
        """Apply a function to every tensor, told whether a frame is a vector."""
        partials = None if self.log_partials is None else function(self.log_partials, True)
        return VoiceParameters(
            function(self.f0, False),
            function(self.log_gain, False),
            function(self.lsf, True),
            function(self.log_noise, True),
            partials,
        )
