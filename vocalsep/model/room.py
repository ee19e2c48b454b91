r"""What a room adds to the power of voices, and how to take it out of a recording.

In a church most of the sound that masks share out is the reverberation of notes that are already over. With P the power
that a voice sings in a bin of frame t, the power that is heard of it is

    R(t) = P(t) + L(t),    L(t + 1) = a L(t) + b P(t),

a recursive filter along time, the same in every bin. The decay per frame, a = 10^(-6 * 0.016 / T60), and the level,
b = (1 - a) 10^(-D / 10), belong to the recording: T60 is the reverberation time in seconds, and D the
direct-to-reverberant ratio in dB, with everything that arrives within about 8 ms as the direct sound.

Run backwards, the same filter takes the room out of the power Y of a recording,

    P(t) = max(Y(t) - L(t), 0.1 Y(t)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vocalsep.timebase import HOP

_KEPT = 0.1  # share of the power that stays where the room explains all of it


@dataclass(frozen=True)
class RoomParameters:
    """The room of a recording, or of each recording of a batch.

    Parameters
    ----------
    reverberation_time : Tensor, shape (...)
        T60 in s; 0 without a room.
    ratio : Tensor, shape (...)
        Direct-to-reverberant ratio in dB; infinite without a room.
    """

    reverberation_time: Tensor
    ratio: Tensor

    @classmethod
    def of(cls, reverberation_time: float = 0.0, ratio: float = math.inf) -> RoomParameters:
        """Return a room from numbers, by default no room."""
        return cls(torch.tensor(float(reverberation_time)), torch.tensor(float(ratio)))

    def coefficients(self, step: int = 1) -> tuple[Tensor, Tensor]:
        """Return decay a and level b for frames that are `step` * 16 ms apart, shape (..., 1, 1) both."""
        decay = 10 ** (-6 * HOP * step / self.reverberation_time)[..., None, None]
        return decay, (1 - decay) * 10 ** (-self.ratio / 10)[..., None, None]


def reverberation(power: Tensor, room: RoomParameters, before: Tensor | None = None, step: int = 1) -> Tensor:
    """Return the reverberation L of every voice, shape (..., voices, frequency bins, frames + 1).

    Parameters
    ----------
    power : Tensor, shape (..., voices, frequency bins, frames)
        Power that the voices sing, in frames that are `step` * 16 ms apart.
    room : RoomParameters, shape (...)
        The room. The result is differentiable in it, and in the power.
    before : Tensor, shape (..., voices, frequency bins), optional
        Reverberation in the first frame, of what was sung before it. The last frame of the result is that of the next
        call.
    """
    decay, level = (coefficient[..., None, :, :].to(power) for coefficient in room.coefficients(step))
    frames = torch.arange(power.shape[-1] + 1, device=power.device)
    lag = frames - frames[:-1, None] - 1  # (frames, frames + 1)
    response = torch.where(lag >= 0, level * decay ** lag.clamp_min(0), torch.zeros_like(decay))
    tail = power @ response
    return tail if before is None else tail + before[..., None] * decay**frames


def dried(power: Tensor, room: RoomParameters, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the power of a recording without its room, and the reverberation in the frame after.

    Both have the shape of the power: (..., frequency bins, frames), and (..., frequency bins).
    """
    decay, level = (coefficient[..., 0].to(power) for coefficient in room.coefficients())
    tail = torch.zeros_like(power[..., 0]) if before is None else before
    dry = torch.empty_like(power)
    for frame in range(power.shape[-1]):
        heard = power[..., frame]
        dry[..., frame] = torch.maximum(heard - tail, _KEPT * heard)
        tail = decay * tail + level * dry[..., frame]
    return dry, tail
