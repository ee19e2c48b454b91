"""The parameters of the source-filter models of a group of voices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VoiceParameters:
    """Parameters of every voice in every frame, enough to synthesize the voices.

    Frames are 16 ms apart; frame t is centred on t * 16 ms. There may be more leading axes, such as a batch.

    Parameters
    ----------
    f0 : Tensor, shape (..., voices, frames)
        F0 in Hz, 0 = unvoiced.
    log_gain : Tensor, shape (..., voices, frames)
        Natural log of the gain of the harmonics.
    lsf : Tensor, shape (..., voices, frames, order)
        Line spectral frequencies of the vocal-tract filter in rad (pi is half the model rate), increasing.
    log_noise : Tensor, shape (..., voices, frames, noise bands)
        Natural log of the amplitude density of the noise before the filter, in full scale per sqrt(Hz), at
        frequencies equally spaced in mel from 0 to 8 kHz.
    log_partials : Tensor, shape (..., voices, frames, partials), optional
        Natural log of a factor on the amplitudes of the first harmonics, beside gain and filter; higher harmonics have
        none. Only `fitting` sets it.
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
        """Return the only element of a batch."""
        return self._each(lambda tensor, _: tensor.squeeze(0))

    def frames(self, first: int, last: int | None = None, step: int = 1) -> VoiceParameters:
        """Return every `step`-th of the frames first ... last - 1 (up to the end by default)."""
        part = slice(first, last, step)
        return self._each(lambda tensor, is_vector: tensor[..., part, :] if is_vector else tensor[..., part])

    def _each(self, function: Callable[[Tensor, bool], Tensor]) -> VoiceParameters:
        """Apply `function(tensor, is_vector)` to every tensor; `is_vector` says that a frame is a vector."""
        return VoiceParameters(
            function(self.f0, False),
            function(self.log_gain, False),
            function(self.lsf, True),
            function(self.log_noise, True),
            None if self.log_partials is None else function(self.log_partials, True),
        )
