"""Soft masks: the share of every voice in each bin, and stems cut with them out of the recording.

The mask of a voice is its expected power over that of all voices (Wiener filter). Masks add up to 1 in every bin,
so the stems add up to the recording.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FLOOR = 1e-14  # of power, far below 16-bit noise (-140 dB): where nothing is expected masks are equal


def soft_masks(power: Tensor) -> Tensor:
    """Return each voice's share of the power.

    Parameters
    ----------
    power
        Expected power, shape (..., voices, frequency bins, frames).

    Returns
    -------
    Tensor
        In [0, 1], same shape; the sum over voices is 1.

    Examples
    --------
    >>> soft_masks(torch.tensor([[[3.0]], [[1.0]]])).flatten().tolist()
    [0.75, 0.25]
    """
    floored = power + _FLOOR
    return floored / floored.sum(dim=-3, keepdim=True)


_HOLD_FRAMES = 10  # 160 ms either side: consonants and breaths between notes belong to the voices
_FADE_FRAMES = 5


def residual_gate(f0: Tensor) -> Tensor:
    """Return in which frames the voices own the sound: 1 where one sings, 0 where none does, with short fades.

    Parameters
    ----------
    f0
        Hz, shape (voices, frames), 0 = unvoiced.

    Returns
    -------
    Tensor
        In [0, 1], shape (frames,).
    """
    sung = (f0 > 0).any(dim=0).to(torch.float32)[None, None]
    held = torch.nn.functional.max_pool1d(sung, 2 * _HOLD_FRAMES + 1, stride=1, padding=_HOLD_FRAMES)
    faded = torch.nn.functional.avg_pool1d(
        held, _FADE_FRAMES, stride=1, padding=_FADE_FRAMES // 2, count_include_pad=False
    )
    return faded[0, 0]
