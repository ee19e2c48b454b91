"""The parameters of the source-filter models of a group of voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

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
    """

    f0: Tensor
    log_gain: Tensor
    lsf: Tensor
    log_noise: Tensor

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.f0.shape[-1]

    @classmethod
    def joined(cls, parts: Sequence[VoiceParameters]) -> VoiceParameters:
        """Return parameters of consecutive frames as one."""
        return cls(
            torch.cat([part.f0 for part in parts], dim=-1),
            torch.cat([part.log_gain for part in parts], dim=-1),
            torch.cat([part.lsf for part in parts], dim=-2),
            torch.cat([part.log_noise for part in parts], dim=-2),
        )

    def without_batch(self) -> VoiceParameters:
        """Return the first and only element of a batch."""
        return VoiceParameters(*(getattr(self, field.name).squeeze(0) for field in fields(self)))

    def frames(self, first: int, last: int) -> VoiceParameters:
        """Return frames first ... last - 1."""
        return VoiceParameters(
            self.f0[..., first:last],
            self.log_gain[..., first:last],
            self.lsf[..., first:last, :],
            self.log_noise[..., first:last, :],
        )
