"""The short-time Fourier transform and its inverse: the only ones of the package.

Frame t is centred on the sample nearest to t * hop, and hop may be a fraction of a sample, so that frames fall on
the same instants at every sample rate (16 ms are 705.6 samples at 44.1 kHz). Spectra are scaled so that a
sinusoid of amplitude A has magnitude A at its peak, whatever the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE

WINDOW_SECONDS = 0.128
"""Length of the Hann window of the masks: 2048 samples at 16 kHz."""
_SILENCE = 1e-14  # of power in a bin, -140 dB: below it there is no phase to speak of


@dataclass(frozen=True)
class StftGrid:
    """Where an STFT has its frames and bins.

    Parameters
    ----------
    sample_rate
        Hz.
    win_length
        Length of the Hann window in samples.
    hop_length
        Samples between the centres of two frames; may be fractional.
    n_fft
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
        """Return the grid whose window and hop last so many seconds at `sample_rate` Hz.

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
        """Return the number of frames whose centres lie in a waveform of so many samples."""
        return 1 + int(samples / self.hop_length)

    def frequencies(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the frequency of each bin in Hz, shape (frequency bins,)."""
        return torch.arange(self.n_bins, device=device) * (self.sample_rate / self.n_fft)

    def centres(self, first: int, last: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the samples on which the frames first ... last - 1 are centred."""
        # On the CPU: some devices have no double precision, which an hour of audio needs.
        frames = torch.arange(first, last, dtype=torch.float64)
        return torch.round(frames * self.hop_length).long().to(device)


def _fast_length(length: int) -> int:
    """Return the smallest even number from `length` on that has no prime factor above 5."""
    candidate = length + length % 2
    while True:
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 2


def _window(grid: StftGrid, like: Tensor) -> Tensor:
    return torch.hann_window(grid.win_length, periodic=True, dtype=torch.float64).to(like.dtype).to(like.device)


def _offsets(grid: StftGrid, device: torch.device) -> Tensor:
    return torch.arange(grid.win_length, device=device) - grid.win_length // 2


def stft(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    """Return the spectrum of frames first ... last - 1 (all by default); outside the waveform lies silence.

    Parameters
    ----------
    waveform
        Shape (..., samples).

    Returns
    -------
    Tensor
        Complex, shape (..., frequency bins, frames). The phase is relative to the start of the window.
    """
    return _transform(waveform, grid, _window(grid, waveform), first, last)


def _transform(waveform: Tensor, grid: StftGrid, window: Tensor, first: int, last: int | None) -> Tensor:
    samples = waveform.shape[-1]
    centres = grid.centres(first, grid.n_frames(samples) if last is None else last, waveform.device)
    positions = centres[:, None] + _offsets(grid, waveform.device)  # (frames, window)
    inside = (positions >= 0) & (positions < samples)
    frames = waveform[..., positions.clamp(0, samples - 1)] * (inside * window)
    # The Hann window sums to half its length.
    spectrum: Tensor = torch.fft.rfft(frames, n=grid.n_fft) * (4 / grid.win_length)
    return spectrum.transpose(-1, -2)  # (..., frequency bins, frames)


def instantaneous_frequency(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    r"""Return how fast the phase in each bin turns, in Hz: the frequency of whatever is strongest there.

    F. Auger, P. Flandrin, "Improving the readability of time-frequency and time-scale representations by the
    reassignment method", IEEE Trans. Signal Processing 1995: with X of the window w and X' of its derivative in time,
    f + Im(-X' / X) / (2 pi). For a sinusoid it is exact in every bin of the main lobe.

    Parameters
    ----------
    waveform
        Shape (..., samples).
    grid
        Of the bins.
    first, last
        Frames (all by default).

    Returns
    -------
    Tensor
        Shape (..., frequency bins, frames); the bin's own frequency where there is silence.

    Examples
    --------
    The bin next to a tone of 443 Hz is that of 437.5 Hz:

    >>> tone = torch.sin(2 * math.pi * 443 * torch.arange(8000) / 16000)
    >>> round(float(instantaneous_frequency(tone, StftGrid.of_duration())[56, 15]), 2)
    443.0
    """
    angle = torch.arange(grid.win_length, device=waveform.device) * (2 * math.pi / grid.win_length)
    slope = (0.5 * torch.sin(angle) * (2 * math.pi * grid.sample_rate / grid.win_length)).to(waveform)  # 1 / s
    spectrum, turned = stft(waveform, grid, first, last), _transform(waveform, grid, slope, first, last)
    power = spectrum.real**2 + spectrum.imag**2
    shift = -(turned * spectrum.conj()).imag / power.clamp_min(_SILENCE) / (2 * math.pi)
    return grid.frequencies(waveform.device)[:, None] + shift


def power(waveform: Tensor, grid: StftGrid, first: int = 0, last: int | None = None) -> Tensor:
    """Return the power spectrogram, shape (..., frequency bins, frames), of a waveform; see `stft`."""
    spectrum = stft(waveform, grid, first, last)
    return spectrum.real**2 + spectrum.imag**2


class InverseStft:
    """Overlap-add of spectra, block by block, into a waveform of known length.

    The inverse is exact: every sample is divided by the sum of the squared windows that reach it.

    Parameters
    ----------
    grid
        The grid of the spectra.
    shape
        Shape (..., samples) of the waveform.
    device, dtype
        Of the waveform.
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
        samples = self.waveform.shape[-1]
        window = _window(self.grid, self.weight)
        frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=self.grid.n_fft)[..., : self.grid.win_length]
        frames = frames * (window * (self.grid.win_length / 4))
        centres = self.grid.centres(first, first + spectrum.shape[-1], spectrum.device)
        positions = centres[:, None] + _offsets(self.grid, spectrum.device)
        start, stop = int(positions.min()), int(positions.max()) + 1
        block = frames.new_zeros((*frames.shape[:-2], stop - start))
        index = (positions - start).flatten()
        block.index_add_(-1, index, frames.flatten(-2))
        weight = self.weight.new_zeros(stop - start).index_add_(0, index, (window**2).repeat(len(centres)))
        low, high = max(start, 0), min(stop, samples)
        self.waveform[..., low:high] += block[..., low - start : high - start]
        self.weight[low:high] += weight[low - start : high - start]

    def result(self, kept: slice = slice(None)) -> Tensor:
        """Return the waveform, shape (..., samples), or the samples of it that are kept, once all frames are added."""
        return self.waveform[..., kept] / self.weight[kept].clamp_min(1e-8)


def istft(spectrum: Tensor, grid: StftGrid, samples: int) -> Tensor:
    """Return the waveform, shape (..., samples), of a spectrum of shape (..., frequency bins, frames)."""
    inverse = InverseStft(grid, (*spectrum.shape[:-2], samples), spectrum.device, spectrum.real.dtype)
    inverse.add(spectrum)
    return inverse.result()


def mel_bands(n_bands: int, grid: StftGrid, fmin: float, fmax: float) -> Tensor:
    """Return triangular bands, each of weight 1, equally spaced in mel: shape (bands, frequency bins).

    mel = 2595 log10(1 + f / 700), O'Shaughnessy (1987).
    """
    edges = mel_points(n_bands + 2, fmin, fmax)
    frequency = grid.frequencies()
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp_min(0)
    # A band narrower than a bin would be empty: give it its nearest bin.
    nearest = (frequency - edges[1:-1, None]).abs().argmin(dim=1)
    empty = triangles.sum(dim=1) == 0
    triangles[empty, nearest[empty]] = 1.0
    return triangles / triangles.sum(dim=1, keepdim=True)


def mel_points(n_points: int, fmin: float, fmax: float) -> Tensor:
    """Return frequencies in Hz from `fmin` to `fmax`, equally spaced in mel, shape (points,)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (fmin, fmax))
    return 700 * (10 ** (torch.linspace(low, high, n_points) / 2595) - 1)
