"""Soft masks: the share of every voice in each bin, and stems cut with them out of the recording.

The mask of a voice is its expected power over that of all voices (Wiener filter). Masks add up to 1 in every bin,
so the stems add up to the recording.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vocalsep.dsp.stft import InverseStft, StftGrid, stft

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


_CUT_FRAMES = 128  # frames (2 s) whose masks are in memory at once


def cut(waveform: Tensor, grid: StftGrid, n_voices: int, power: Callable[[int, int], Tensor]) -> Tensor:
    """Return the stems that soft masks cut out of a mono recording, made block by block.

    Parameters
    ----------
    waveform
        Shape (samples,).
    grid
        Of the masks.
    n_voices
        Number of stems.
    power
        From first and last frame of a block to expected power, shape (voices, frequency bins, last - first).

    Returns
    -------
    Tensor
        Shape (voices, samples); the stems add up to the recording.
    """
    inverse = InverseStft(grid, (n_voices, len(waveform)), waveform.device)
    frames = grid.n_frames(len(waveform))
    for first in range(0, frames, _CUT_FRAMES):
        last = min(first + _CUT_FRAMES, frames)
        inverse.add(soft_masks(power(first, last)) * stft(waveform, grid, first, last), first)
    return inverse.result()


_HOLD_FRAMES = 10  # 160 ms either side: consonants and breaths between notes belong to the voices
_FADE_FRAMES = 5


def near_notes(f0: Tensor, reach: int = _HOLD_FRAMES) -> Tensor:
    """Return 1 where a voice sings or is no more than `reach` frames from a note of its own, else 0.

    Parameters
    ----------
    f0
        Hz, shape (voices, frames), 0 = unvoiced.
    reach
        Frames: 160 ms unless told.

    Returns
    -------
    Tensor
        Shape (voices, frames).
    """
    sung = (f0 > 0).to(f0.dtype)
    return torch.nn.functional.max_pool1d(sung, 2 * reach + 1, stride=1, padding=reach)


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
    held = near_notes(f0).amax(dim=0)[None, None]
    faded = torch.nn.functional.avg_pool1d(
        held, _FADE_FRAMES, stride=1, padding=_FADE_FRAMES // 2, count_include_pad=False
    )
    return faded[0, 0]
