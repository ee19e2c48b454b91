"""A recording taken apart stretch by stretch, each with as much beside it as its stems depend on.

So memory does not grow with the length of the recording, and a stretch gives what the whole would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vocalsep.audio.downmix import Mixdown
from vocalsep.dsp.stft import InverseStft, StftGrid, instantaneous_frequency, stft
from vocalsep.model.estimator import Estimator
from vocalsep.model.fitting import fit
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer import VoiceParameters, voice_power
from vocalsep.timebase import HOP_LENGTH

STRETCH_FRAMES = 1875
"""Frames (30 s) whose parameters are found at once: a whole number of samples at every sample rate, as 125 are."""
MASK_FRAMES = 5
"""Frames on both sides whose windows reach into a stretch."""
_MARGIN_FRAMES = MASK_FRAMES + 4  # on both sides of what is cut: those frames, and half of a window
_FIT_FRAMES = 48  # on both sides: those of the masks, and half as much again as fitting reaches
_WINDOW_FRAMES = 8  # besides those that the network reaches: half a window of the STFT that it looks at
_BINS_AT_ONCE = 200_000  # bins times frames whose masks are rendered at once: a second at 48 kHz


class Blocks(NamedTuple):
    """How a recording is gone through at its own sample rate."""

    frames: int
    """Of a block, a divisor of a stretch."""
    margin: int
    """Frames beside a block, on both sides, that its stems depend on."""

    @classmethod
    def of(cls, sample_rate: int, values: int, most: int) -> Blocks:
        """Return the longest blocks, and the shortest margins, that are whole numbers of samples.

        Parameters
        ----------
        sample_rate
            Hz.
        values
            Numbers in memory for each sample: channels times stems.
        most
            Numbers that a block may have, if it can have so few.

        Examples
        --------
        >>> Blocks.of(48000, 10, 20_000_000), Blocks.of(44100, 10, 1), Blocks.of(4001, 1, 1)
        (Blocks(frames=1875, margin=9), Blocks(frames=15, margin=10), Blocks(frames=125, margin=125))
        """
        unit = 125 // math.gcd(125, 2 * sample_rate)  # 16 ms are 2 / 125 s
        margin = unit * math.ceil(_MARGIN_FRAMES / unit)
        lengths = [n for n in range(margin, STRETCH_FRAMES + 1) if n % unit == 0 and STRETCH_FRAMES % n == 0]
        fitting = [n for n in lengths if n * values * 2 * sample_rate <= 125 * most]
        return cls(max(fitting, default=lengths[0]), margin)


def stretches(n_frames: int) -> Iterator[tuple[int, int]]:
    """Yield first frame, and that after the last, of the stretches of a recording of so many frames."""
    for first in range(0, n_frames, STRETCH_FRAMES):
        yield first, min(first + STRETCH_FRAMES, n_frames)


class Span(NamedTuple):
    """Parameters of some frames of a recording."""

    parameters: VoiceParameters
    """Of the frames first, first + 1, ..."""
    first: int
    """First frame, in the recording."""

    @property
    def last(self) -> int:
        """Frame after the last."""
        return self.first + self.parameters.n_frames


def estimate_span(
    network: Estimator, mixdown: Mixdown, gain: float, f0: Tensor, first: int, last: int, device: str
) -> VoiceParameters:
    """Estimate the parameters of frames first ... last - 1.

    Parameters
    ----------
    network
        The estimator.
    mixdown
        The recording.
    gain
        Factor that brings it to the level at which parameters are estimated.
    f0
        Hz, shape (voices, frames of the recording), 0 = unvoiced.
    first, last
        Frames.
    device
        Where the network is.
    """
    context = network.config.reach + _WINDOW_FRAMES
    low, high = max(0, first - context), min(f0.shape[-1], last + context)
    stop = min(high * HOP_LENGTH - 1, mixdown.samples)  # an STFT has one frame more than whole hops
    mixture = torch.from_numpy(mixdown.read(low * HOP_LENGTH, stop)) * gain
    with torch.inference_mode():
        found = network(mixture[None].to(device), f0[None, :, low:high].to(device))
    return found.frames(first - low, last - low).without_batch()  # type: ignore[no-any-return]


def fitted_span(
    network: Estimator, mixdown: Mixdown, gain: float, f0: Tensor, first: int, last: int, device: str, *, fitting: bool
) -> Span:
    """Return the parameters that the stems of frames first ... last - 1 depend on; see `estimate_span`.

    Parameters
    ----------
    fitting
        Whether they are fitted to the recording.
    """
    low, high = max(0, first - _FIT_FRAMES), min(f0.shape[-1], last + _FIT_FRAMES)
    parameters = estimate_span(network, mixdown, gain, f0, low, high, device)
    if fitting:
        stop = min(high * HOP_LENGTH - 1, mixdown.samples)
        mixture = torch.from_numpy(mixdown.read(low * HOP_LENGTH, stop)) * gain
        with torch.inference_mode():
            parameters = fit(parameters, mixture.to(device))
    return Span(parameters, low)


def cut_span(
    span: Span,
    waveform: Tensor,
    origin: int,
    grid: StftGrid,
    first: int,
    last: int,
    n_frames: int,
    kept: slice,
    *,
    listening: bool = True,
    gate: Tensor | None = None,
) -> Tensor:
    """Return the stems that masks cut out of a piece of a recording.

    Parameters
    ----------
    span
        Parameters of at least `MASK_FRAMES` more on both sides, where the recording has them.
    waveform
        Shape (channels, samples), with what lies beside those frames.
    origin
        Frame of the recording on which the first sample of `waveform` lies, a whole number of samples from its start.
    grid
        Of the masks.
    first, last
        Frames of the recording.
    n_frames
        How many it has.
    kept
        Samples of `waveform` whose stems are returned, between those frames.
    listening
        Whether masks listen to the recording's phase; see `synthesizer.render.agreement`.
    gate
        In which frames of the recording the voices own the sound, shape (frames,), for a residual.

    Returns
    -------
    Tensor
        Shape (voices, channels, samples kept), or one more where there is a gate: the residual is the last.
    """
    device = span.parameters.f0.device
    low, high = max(first - MASK_FRAMES, span.first), min(last + MASK_FRAMES, n_frames)
    stems = span.parameters.f0.shape[0] + (gate is not None)
    inverse = [InverseStft(grid, (stems, waveform.shape[-1])) for _ in waveform]
    mono = waveform.mean(dim=0)
    step = max(1, _BINS_AT_ONCE // grid.n_bins)
    for start in range(low, high, step):
        stop = min(start + step, high)
        local = start - origin, stop - origin
        with torch.inference_mode():
            heard = instantaneous_frequency(mono, grid, *local).to(device) if listening else None
            power = voice_power(span.parameters, grid, start - span.first, stop - span.first, instantaneous_frequency=heard)
            masks = soft_masks(power)  # (voices, bins, frames)
            if gate is not None:
                sung = gate[start:stop].to(device)
                masks = torch.cat([masks * sung, (1 - sung).expand(1, *masks.shape[1:])])
            for channel, added in zip(waveform, inverse, strict=True):
                added.add((masks * stft(channel, grid, *local).to(device)).cpu(), local[0])
    return torch.stack([added.result(kept) for added in inverse], dim=1)
