"""The short-time Fourier transform (STFT) and its inverse; the whole package uses these.

Conventions
-----------
Frame t is centred on the sample nearest to t * hop. The hop may be a fraction of a sample (16 ms are 705.6 samples at
44.1 kHz), so frames lie at the same instants at every sample rate. Outside the waveform lies silence.

The window is a periodic Hann window. Spectra have shape (..., frequency bins, frames) and are scaled so that a
sinusoid of amplitude A has magnitude A at its peak, whatever the length of the window. Phases refer to the start of
the window.

Functions that take `first` and `last` compute frames first ... last - 1, by default all frames whose centres lie in
the waveform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE

WINDOW_SECONDS = 0.128
"""Length in seconds of the window for masks: 2048 samples at 16 kHz."""
_SILENCE = 1e-14  # power of a bin, -140 dB: below it, phase means nothing


@dataclass(frozen=True)
class StftGrid:
    """Positions of the frames and bins of an STFT.

    Parameters
    ----------
    sample_rate : int
        Sample rate in Hz.
    win_length : int
        Length of the Hann window in samples.
    hop_length : float
        Samples between the centres of two frames; may be fractional.
    n_fft : int
        Length of the transform in samples, at least `win_length`.
    """

    sample_rate: int
    win_length: int
    hop_length: float
    n_fft: int

    @classmethod
    def of_duration(
        cls, sample_rate: int = MODEL_SAMPLE_RATE, window: float = WINDOW_SECONDS, hop: float = HOP
    ) -> StftGrid:
        """Return the grid with a window and a hop in seconds.

        Examples
        --------
        >>> StftGrid.of_duration(16000)
        StftGrid(sample_rate=16000, win_length=2048, hop_length=256.0, n_fft=2048)
        >>> StftGrid.of_duration(44100).hop_length
        705.6
        """
        win_length = 2 * round(window * sample_rate / 2)
        return cls(sample_rate, win_length, round(hop * sample_rate, 6), _fast_length(win_length))

    @property
    def n_bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @property
    def window_seconds(self) -> float:
        """Length of the window in seconds."""
        return self.win_length / self.sample_rate

    def n_frames(self, samples: int) -> int:
        """Return the number of frames whose centres lie in a waveform of `samples` samples."""
        return 1 + int(samples / self.hop_length)

    def frequencies(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the frequency of each bin in Hz, shape (frequency bins,)."""
        return torch.arange(self.n_bins, device=device) * (self.sample_rate / self.n_fft)

    def centres(self, first: int, last: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the samples on which the frames first ... last - 1 are centred."""
        # On the CPU, because some devices lack the double precision that an hour of audio needs.
        frames = torch.arange(first, last, dtype=torch.float64)
        return torch.round(frames * self.hop_length).long().to(device)

    def positions(self, first: int, last: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the samples under the window of the frames first ... last - 1, shape (frames, window)."""
        offsets = torch.arange(self.win_length, device=device) - self.win_length // 2
        return self.centres(first, last, device)[:, None] + offsets


def _fast_length(length: int) -> int:
    """Return the smallest even number, at least `length`, that has no prime factor above 5."""
    return next(n for n in count(length + length % 2, 2) if pow(30, 32, n) == 0)  # it divides a power of 2 * 3 * 5


def stft(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    """Return the complex spectrum, shape (..., frequency bins, frames), of a waveform, shape (..., samples)."""
    return _transform(_frames(waveform, grid, first, last), _hann(grid, waveform), grid)


def power(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    """Return the power spectrogram, shape (..., frequency bins, frames), of a waveform, shape (..., samples)."""
    return squared_magnitude(stft(waveform, grid, first, last))


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """Return the squared magnitude of a complex tensor, of the same shape."""
    return spectrum.real**2 + spectrum.imag**2


def spectrum_and_frequency(
    waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return the spectrum of a waveform and its instantaneous frequency in each bin.

    The instantaneous frequency is the speed at which the phase of a bin turns: the frequency of the strongest
    component there. With X the spectrum and X' the spectrum with the derivative of the window in time, it is

        f + Im(-X' / X) / (2 pi).

    For a sinusoid it is exact in every bin of the main lobe; in silence it is the frequency of the bin itself. Both
    tensors have the shape (..., frequency bins, frames).

    References
    ----------
    F. Auger, P. Flandrin, "Improving the readability of time-frequency and time-scale representations by the
    reassignment method", IEEE Trans. Signal Processing, 1995.
    """
    angle = torch.arange(grid.win_length, device=waveform.device) * (2 * math.pi / grid.win_length)
    slope = (0.5 * torch.sin(angle) * (2 * math.pi * grid.sample_rate / grid.win_length)).to(waveform)  # 1 / s
    frames = _frames(waveform, grid, first, last)
    spectrum, derivative = _transform(frames, _hann(grid, waveform), grid), _transform(frames, slope, grid)
    power = squared_magnitude(spectrum)
    shift = -(derivative * spectrum.conj()).imag / power.clamp_min(_SILENCE) / (2 * math.pi)
    return spectrum, grid.frequencies(waveform.device)[:, None] + shift


def instantaneous_frequency(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    """Return the instantaneous frequency in Hz in each bin; see `spectrum_and_frequency`.

    Examples
    --------
    A tone of 443 Hz shows at its own frequency in the bin of 437.5 Hz:

    >>> tone = torch.sin(2 * math.pi * 443 * torch.arange(8000) / 16000)
    >>> round(float(instantaneous_frequency(tone, StftGrid.of_duration())[56, 15]), 2)
    443.0
    """
    return spectrum_and_frequency(waveform, grid, first, last)[1]


def istft(spectrum: Tensor, grid: StftGrid, samples: int) -> Tensor:
    """Return the waveform, shape (..., samples), of a spectrum of shape (..., frequency bins, frames)."""
    inverse = InverseStft(grid, (*spectrum.shape[:-2], samples), spectrum.device, spectrum.real.dtype)
    inverse.add(spectrum)
    return inverse.result()


class InverseStft:
    """Overlap-add of spectra on a grid, block by block, into a waveform of known shape (..., samples).

    The inverse is exact: every sample is divided by the sum of the squared windows over it.
    """

    def __init__(
        self,
        grid: StftGrid,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.grid = grid
        self.waveform = torch.zeros(shape, device=device, dtype=dtype)
        self.weight = torch.zeros(shape[-1], device=device, dtype=dtype)

    def add(self, spectrum: Tensor, first: int = 0) -> None:
        """Add the frames first, first + 1, ... of a spectrum of shape (..., frequency bins, frames)."""
        window = _hann(self.grid, self.weight)
        frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=self.grid.n_fft)[..., : self.grid.win_length]
        frames = frames * (window * (self.grid.win_length / 4))
        positions = self.grid.positions(first, first + spectrum.shape[-1], spectrum.device)
        start, stop = int(positions[0, 0]), int(positions[-1, -1]) + 1
        index = (positions - start).flatten()
        block = frames.new_zeros((*frames.shape[:-2], stop - start))
        block.index_add_(-1, index, frames.flatten(-2))
        weight = self.weight.new_zeros(stop - start).index_add_(0, index, (window**2).repeat(len(positions)))
        low, high = max(start, 0), min(stop, len(self.weight))
        self.waveform[..., low:high] += block[..., low - start : high - start]
        self.weight[low:high] += weight[low - start : high - start]

    def result(self, kept: slice = slice(None)) -> Tensor:
        """Return the samples `kept` of the waveform, shape (..., samples), once all frames over them are added."""
        return self.waveform[..., kept] / self.weight[kept].clamp_min(1e-8)


def _hann(grid: StftGrid, like: Tensor) -> Tensor:
    return torch.hann_window(grid.win_length, periodic=True, dtype=torch.float64).to(like.dtype).to(like.device)


def _frames(waveform: Tensor, grid: StftGrid, first: int, last: int | None) -> Tensor:
    """Return the samples under the window, shape (..., frames, window)."""
    samples = waveform.shape[-1]
    positions = grid.positions(first, grid.n_frames(samples) if last is None else last, waveform.device)
    start, stop = int(positions[0, 0]), int(positions[-1, -1]) + 1
    inside = waveform[..., max(start, 0) : stop]
    before = max(-start, 0)
    padded = torch.nn.functional.pad(inside, (before, stop - start - before - inside.shape[-1]))
    return padded[..., positions - start]


def _transform(frames: Tensor, window: Tensor, grid: StftGrid) -> Tensor:
    """Return the spectrum, shape (..., frequency bins, frames), of frames of shape (..., frames, window)."""
    # The Hann window sums to half its length.
    spectrum: Tensor = torch.fft.rfft(frames * window, n=grid.n_fft) * (4 / grid.win_length)
    return spectrum.transpose(-1, -2)


def mel_bands(n_bands: int, grid: StftGrid, fmin: float, fmax: float) -> Tensor:
    """Return triangular bands of sum 1, equally spaced in mel, shape (bands, frequency bins).

    The mel scale is 2595 log10(1 + f / 700), with f in Hz (D. O'Shaughnessy, "Speech Communication", 1987).
    """
    edges = mel_points(n_bands + 2, fmin, fmax)
    frequency = grid.frequencies()
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp_min(0)
    # A band narrower than a bin may be empty: it takes its nearest bin.
    nearest = (frequency - edges[1:-1, None]).abs().argmin(dim=1)
    empty = triangles.sum(dim=1) == 0
    triangles[empty, nearest[empty]] = 1.0
    return triangles / triangles.sum(dim=1, keepdim=True)


def mel_points(n_points: int, fmin: float, fmax: float) -> Tensor:
    """Return frequencies in Hz from `fmin` to `fmax`, equally spaced in mel, shape (points,)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (fmin, fmax))
    return 700 * (10 ** (torch.linspace(low, high, n_points) / 2595) - 1)
