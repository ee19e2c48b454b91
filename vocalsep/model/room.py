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

from vocalsep.dsp.stft import squared_magnitude
from vocalsep.timebase import HOP

_KEPT = 0.1  # share of the power that stays where the room explains all of it

_TIMES = tuple(0.2 * 1.3**step for step in range(13))  # s: candidates for T60, from 0.2 to 4.7
_BINS, _FRAMES = slice(0, 512, 2), 2  # that count in the estimate: below 4 kHz, every second of both
_STEPS = 30  # of the levels: they change by less than 1 % after that
# In a room time has a direction. A shorter room counts only if reverberation explains this much more than the same
# filter run backwards in time does, or the model's own errors, which are the same in both directions, would be a room.
# Chosen on dry and reverberant ensembles of singers 1 and 2.
_LONG, _ARROW = 0.65, 0.93  # s, and ratio of the divergences
_TINY = 1e-12
_SILENCE = 1e-20  # power of a bin below which there is no spectrum to change


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

    @property
    def is_dry(self) -> bool:
        """Whether there is no room."""
        return bool((self.reverberation_time == 0).all())

    def as_dict(self) -> dict[str, float]:
        """Return T60 in s and the ratio in dB, rounded, by their names."""
        return {
            "reverberation_time": round(float(self.reverberation_time), 2),
            "ratio": round(float(self.ratio), 1),
        }


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


def dried_spectrum(spectrum: Tensor, room: RoomParameters, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the complex spectrum of a recording with the power of `dried` and its own phase, and the reverberation."""
    power = squared_magnitude(spectrum)
    dry, after = dried(power, room, before)
    return spectrum * (dry / power.clamp_min(_SILENCE)).sqrt(), after


def estimate(sung: Tensor, heard: Tensor, reverberation_time: float | None = None) -> RoomParameters:
    """Return the room of a recording, from the power that its voices sing by the model.

    The recording's power is explained as a sum of three parts: the voices, their reverberation, and a steady
    background (the mean over time in each bin), which takes what the model does not explain. For each candidate of T60,
    multiplicative steps give the levels of the parts with the least Kullback-Leibler divergence, a convex problem, and
    the best candidate wins. A room that is shorter than the window only blurs the notes a little more than the model
    does, so it counts as none. Candidates last at most a quarter of the recording, which tells nothing of longer rooms.

    Parameters
    ----------
    sung, heard : Tensor, shape (frequency bins, frames)
        Power of all voices and of the recording, on the STFT grid of the model rate.
    reverberation_time : float, optional
        T60 in s if it is known; then only the ratio is estimated.

    References
    ----------
    D. D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
    """
    voices, target = sung[_BINS], heard[_BINS]
    if not bool(target.any() and voices.any()):
        return RoomParameters.of()
    background = target.mean(dim=-1, keepdim=True).expand_as(target)

    def explained(time: float, *, backwards: bool = False) -> tuple[float, float, float]:
        """Return the divergence with a room, its T60 and its ratio."""
        tail = reverberation((voices.flip(-1) if backwards else voices)[None], RoomParameters.of(time, 0.0))[0, :, :-1]
        parts = torch.stack([voices, tail.flip(-1) if backwards else tail, background])[..., ::_FRAMES].flatten(1)
        levels, divergence = _fitted_levels(parts, target[:, ::_FRAMES].flatten())
        return divergence, time, 10 * math.log10(float(levels[0] / levels[1].clamp_min(_TINY)))

    if reverberation_time is not None:
        return RoomParameters.of(*explained(reverberation_time)[1:])
    longest = target.shape[-1] * HOP / 4
    divergence, time, ratio = min(explained(time) for time in _TIMES if time == _TIMES[0] or time < longest)
    is_room = time > _TIMES[0] and (time > _LONG or divergence < _ARROW * explained(time, backwards=True)[0])
    return RoomParameters.of(time, ratio) if is_room else RoomParameters.of()


def _fitted_levels(parts: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Return the levels of the parts, shape (parts, n), whose sum is closest to the target, and their divergence."""
    sums = parts.sum(dim=-1).clamp_min(_TINY)
    levels = target.sum() / sums / len(parts)
    for _ in range(_STEPS):
        levels = levels * (parts @ (target / (levels @ parts + _TINY))) / sums
    expected = levels @ parts + _TINY
    divergence = (target * torch.log((target + _TINY) / expected) - target + expected).sum() / target.sum()
    return levels, float(divergence)
