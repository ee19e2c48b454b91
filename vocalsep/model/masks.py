"""Soft masks: the share of every voice in each bin, and stems cut out of the recording with them.

The mask of a voice is its expected power over that of all voices (a Wiener filter). Masks add up to 1 in every bin, so
the stems add up to the recording.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import InverseStft, StftGrid, stft

_FLOOR = 1e-14  # power (-140 dB, far below 16-bit noise) added to every voice, so that masks of silence are equal
_CUT_FRAMES = 128  # frames (2 s) whose masks are in memory at once
_HOLD_FRAMES = 10  # 160 ms before and after a note: its consonants and breaths belong to the voice
_FADE_FRAMES = 5


def soft_masks(power: Tensor) -> Tensor:
    """Return the share of each voice in the power of all voices, both of shape (..., voices, frequency bins, frames).

    Masks are in [0, 1], and their sum over voices is 1.

    Examples
    --------
    >>> soft_masks(torch.tensor([[[3.0]], [[1.0]]])).flatten().tolist()
    [0.75, 0.25]
    """
    floored = power + _FLOOR
    return floored / floored.sum(dim=-3, keepdim=True)


def cut(waveform: Tensor, grid: StftGrid, n_voices: int, power: Callable[[int, int], Tensor]) -> Tensor:
    """Return the stems, shape (voices, samples), that soft masks cut out of a waveform of shape (samples,).

    The stems add up to the waveform. `power(first, last)` returns the expected power in frames first ... last - 1,
    shape (voices, frequency bins, frames).
    """
    inverse = InverseStft(grid, (n_voices, len(waveform)), waveform.device)
    for first, last, *_ in chunks(grid.n_frames(len(waveform)), _CUT_FRAMES):
        inverse.add(soft_masks(power(first, last)) * stft(waveform, grid, first, last), first)
    return inverse.result()


def near_notes(f0: Tensor, reach: int = _HOLD_FRAMES) -> Tensor:
    """Return 1 where a voice sings or is within `reach` frames of one of its notes, else 0; shape (voices, frames)."""
    voiced = (f0 > 0).to(f0.dtype)
    return torch.nn.functional.max_pool1d(voiced, 2 * reach + 1, stride=1, padding=reach)


def residual_gate(f0: Tensor) -> Tensor:
    """Return the gain of the stems, shape (frames,): 1 near notes of any voice, 0 elsewhere, with short fades.

    The rest of the recording, with a gain of 1 - gate, is the residual.
    """
    held = near_notes(f0).amax(dim=0)[None, None]
    faded = torch.nn.functional.avg_pool1d(
        held, _FADE_FRAMES, stride=1, padding=_FADE_FRAMES // 2, count_include_pad=False
    )
    return faded[0, 0]
