"""Parameters of voices fitted to the very recording, frame by frame.

A network says what voices like these sound like; the recording itself says more. With the network's parameters as a
start,

* f0 is moved, by a few cents, to where the phase of the recording turns at the harmonics' frequencies (see
  `spectrum.instantaneous_frequency`), each harmonic weighed by how far the voice rules its bins;
* the amplitude of every partial takes a few multiplicative steps that bring the sum of all voices nearer to the
  recording's power spectrogram in Kullback-Leibler divergence (D. D. Lee, H. S. Seung, "Algorithms for non-negative
  matrix factorization", NIPS 2000), smoothed over time. Few, because the optimum, where the recording is all there is
  to go by, is no better than the start.

Nothing here is learned, and nothing needs the stems.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from vocalsep.dsp.chunks import chunks
from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, power
from vocalsep.model.masks import near_notes, soft_masks
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.parameters import VoiceParameters
from vocalsep.model.synthesizer.spectrogram import (
    Lobes,
    agreement,
    harmonic_log_amplitude,
    lobes_on,
    noise_power,
    path_of,
)
from vocalsep.timebase import MODEL_SAMPLE_RATE

# Chosen on singer 2 with weights that knew singer 1 only, and on Locus Iste.
_ROUNDS = 3  # of f0
_STEPS = 3  # of the amplitudes, at the end
_EXPONENT = 0.6  # of a step: 1 is the whole of it
_MAX_STEP = 10.0  # factor on power
_SMOOTH_FRAMES = 5  # over which partials are fitted
_F0_FRAMES = 3  # over which f0 is fitted
_F0_HARMONICS = 15  # that tell f0: higher ones may be mistaken for their neighbours'
_F0_WIDTH, _F0_JITTER = 4.0, 0.006  # Hz, and relative: what is heard further off belongs to another voice
_MAX_MOVE = 0.015  # of f0 in a round, relative: 26 cents
_NOISE = 0.3
"""Share of the power of a voice's noise that masks use: in the network's it also stands for what harmonics do not
explain. Just before and after its notes a voice keeps all of it, or its consonants would go to those that sing."""
CHUNK_FRAMES = 250  # frames that are fitted at once
CONTEXT = 24  # frames either side, more than the rounds and steps reach: blocks give what the whole gives
_TINY = 1e-12


def fit(parameters: VoiceParameters, waveform: Tensor) -> VoiceParameters:
    """Return the parameters of voices fitted to a recording.

    Parameters
    ----------
    parameters
        Of every voice, without a batch.
    waveform
        The recording for which they were estimated, shape (samples,) at 16 kHz.

    Returns
    -------
    VoiceParameters
        With f0 moved, `log_partials` for all harmonics below 8 kHz, and less noise.
    """
    grid = StftGrid.of_duration(MODEL_SAMPLE_RATE)
    frames = min(parameters.n_frames, grid.n_frames(len(waveform)))
    n_harmonics = harmonic_count(parameters.f0, MODEL_SAMPLE_RATE / 2)
    quieter = _with_less_noise(parameters)
    parts = []
    for chunk in chunks(frames, CHUNK_FRAMES, CONTEXT):
        low, high = chunk.low, chunk.high
        block = _Block(quieter, waveform, grid, n_harmonics, low, high)
        for _ in range(_ROUNDS):
            block.move_f0()
        log_partials = 0.5 * torch.log(block.amplitudes() / block.start)
        fitted = replace(quieter.frames(low, high), f0=block.f0, log_partials=log_partials)
        parts.append(fitted.frames(chunk.inner.start, chunk.inner.stop))
    return VoiceParameters.joined(parts)


def _with_less_noise(parameters: VoiceParameters) -> VoiceParameters:
    beside = near_notes(parameters.f0) - (parameters.f0 > 0).to(parameters.f0)
    less = 0.5 * math.log(_NOISE) * (1 - beside)
    return replace(parameters, log_noise=parameters.log_noise + less[..., None])


class _Block:
    """A stretch of a recording and the voices in it.

    Tensors are (voices, frames, bins) or, of partials, (voices, frames, harmonics).
    """

    def __init__(
        self, parameters: VoiceParameters, waveform: Tensor, grid: StftGrid, n_harmonics: int, low: int, high: int
    ) -> None:
        self.grid = grid
        self.n_harmonics = n_harmonics
        self.heard = instantaneous_frequency(waveform, grid, low, high)  # (bins, frames)
        self.recorded = power(waveform, grid, low, high).transpose(-1, -2)  # (frames, bins)
        self.voiced = parameters.f0[..., low:high] > 0
        self.centre, self.spread, self.share = path_of(parameters.f0, low, high)
        self.start = torch.exp(2 * harmonic_log_amplitude(parameters, n_harmonics, low, high)).clamp_min(1e-30)
        self.noise = noise_power(parameters.frames(low, high), grid).transpose(-1, -2)
        self.lobes = self._lobes()

    @property
    def f0(self) -> Tensor:
        """F0 in Hz, shape (voices, frames), 0 = unvoiced."""
        return self.centre * self.voiced

    def _lobes(self) -> Lobes:
        lobes = lobes_on(self.grid, self.n_harmonics, self.centre, self.spread, self.share)
        return lobes._replace(power=lobes.power * agreement(lobes, self.spread, self.heard))

    def powers(self, amplitude2: Tensor) -> Tensor:
        """Return the power of every voice whose partials have these squared amplitudes."""
        return self.lobes.filled(amplitude2) + self.noise

    def amplitudes(self) -> Tensor:
        """Return squared amplitudes of the partials a few steps nearer to the recording."""
        index = self.lobes.number.long() - 1
        amplitude2, lobe = self.start, self.lobes.power
        weight = _smoothed(torch.zeros_like(amplitude2).scatter_add_(-1, index, lobe), _SMOOTH_FRAMES)
        for _ in range(_STEPS):
            ratio = self.recorded / self.powers(amplitude2).sum(dim=0).add_(_TINY)
            pull = _smoothed(torch.zeros_like(amplitude2).scatter_add_(-1, index, lobe * ratio), _SMOOTH_FRAMES)
            factor = ((pull + _TINY) / (weight + _TINY)).clamp_(1 / _MAX_STEP, _MAX_STEP)
            amplitude2 = amplitude2 * factor**_EXPONENT
        return amplitude2

    def move_f0(self) -> None:
        """Move f0 to the frequencies heard at the harmonics, in the mean weighed by who rules the bins.

        Least squares over harmonics k of heard_k - k f0: sum w k (heard - k f0) / sum w k^2.
        """
        lobes = self.lobes
        off = self.heard.T - lobes.frequency
        near = torch.exp(-0.5 * (off / (_F0_WIDTH + _F0_JITTER * lobes.frequency)) ** 2)
        masks = soft_masks(self.powers(self.start).transpose(-1, -2)).transpose(-1, -2)
        weight = masks**2 * near * (self.recorded * lobes.power).sqrt() * (lobes.number <= _F0_HARMONICS)
        pull = _smoothed((weight * lobes.number * off).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
        hold = _smoothed((weight * lobes.number**2).sum(dim=-1, keepdim=True), _F0_FRAMES)[..., 0]
        bound = _MAX_MOVE * self.centre
        self.centre = self.centre + torch.maximum(torch.minimum(pull / (hold + 1e-9), bound), -bound)
        self.lobes = self._lobes()


def _smoothed(values: Tensor, frames: int) -> Tensor:
    """Return the running mean over time of values of shape (voices, frames, any)."""
    across = values.transpose(-1, -2)
    mean = torch.nn.functional.avg_pool1d(across, frames, stride=1, padding=frames // 2, count_include_pad=False)
    return mean.transpose(-1, -2)
