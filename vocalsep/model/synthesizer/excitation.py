"""The excitation of a voice: harmonics of f0 with a glottal roll-off, and noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocalsep.dsp.stft import mel_points
from vocalsep.timebase import MODEL_SAMPLE_RATE

GLOTTAL_CORNER = 200.0
"""Frequency in Hz above which the glottal source falls by 6 dB per octave (as in US)."""


def glottal_roll_off(frequency: Tensor) -> Tensor:
    """Return ln S(f) of the glottal source, S = (1 + (f / 200 Hz)^2)^(-1/2), for frequencies in Hz."""
    return -0.5 * torch.log1p((frequency / GLOTTAL_CORNER) ** 2)


def harmonic_count(f0: Tensor, nyquist: float) -> int:
    """Return the number of harmonics of the lowest voiced f0 below `nyquist` Hz (at least 1)."""
    voiced = f0[f0 > 0]
    return max(1, math.ceil(nyquist / float(voiced.min())) - 1) if voiced.numel() else 1


def noise_points(n_points: int) -> Tensor:
    """Return the frequencies in Hz at which the noise is estimated: equally spaced in mel from 0 to 8 kHz."""
    return mel_points(n_points, 0.0, MODEL_SAMPLE_RATE / 2)


def interpolate(values: Tensor, points: Tensor, frequency: Tensor) -> Tensor:
    """Interpolate linearly between frequencies; beyond the outer points the first or last value holds.

    `values`, shape (..., points), belong to the increasing frequencies `points`. The result has the shape (..., bins),
    with a value for each `frequency`.
    """
    points, frequency = points.to(values), frequency.to(values)
    right = torch.searchsorted(points, frequency).clamp(1, len(points) - 1)
    weight = ((frequency - points[right - 1]) / (points[right] - points[right - 1])).clamp(0, 1)
    # As a matrix, the interpolation and its gradient are one product each.
    columns = torch.arange(len(frequency), device=values.device)
    matrix = values.new_zeros(len(points), len(frequency))
    matrix[right - 1, columns] = 1 - weight
    matrix[right, columns] = weight
    return values @ matrix
