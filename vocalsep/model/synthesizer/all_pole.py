r"""The all-pole vocal-tract filter in terms of its line spectral frequencies (LSFs).

An all-pole filter 1/A(z) of even order p is defined by p frequencies 0 < w_1 < ... < w_p < pi: the angles of the roots
of P(z) = A(z) + z^-(p+1) A(1/z) (odd i, without the root at z = -1) and of Q(z) = A(z) - z^-(p+1) A(1/z) (even i,
without the root at z = 1), with A = (P + Q) / 2. Any such set is a stable filter, so an estimator only has to keep them
in order. All roots of P and Q lie on the unit circle, so the response needs no polynomial:

    |A(e^jw)|^2 = 2^p [ cos^2(w/2) prod_{i odd} (cos w - cos w_i)^2 + sin^2(w/2) prod_{i even} (cos w - cos w_i)^2 ].

References
----------
F. Itakura, "Line spectrum representation of linear predictor coefficients of speech signals", J. Acoust. Soc. Am.,
1975.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TINY = 1e-12  # keeps the log of a factor finite where w is an LSF


def log_magnitude(lsf: Tensor, omega: Tensor) -> Tensor:
    """Return ln |1 / A(e^jw)|, the filter's log-magnitude response. Its mean over frequency is 0.

    Parameters
    ----------
    lsf : Tensor, shape (..., order)
        Line spectral frequencies in rad, increasing; the order is even.
    omega : Tensor, shape (..., points)
        Frequencies w in rad; leading axes broadcast with those of `lsf`.

    Returns
    -------
    Tensor, shape (..., points)
        Natural log of the magnitude.

    Examples
    --------
    LSFs equally spaced over (0, pi) make a flat response:

    >>> flat = torch.arange(1, 5, dtype=torch.float64) * math.pi / 5
    >>> bool(log_magnitude(flat, torch.tensor([0.1, 1.0, 3.0])).abs().max() < 1e-6)
    True
    """
    order = lsf.shape[-1]
    factors = torch.log((torch.cos(omega)[..., None] - torch.cos(lsf)[..., None, :]) ** 2 + _TINY)
    odd, even = factors[..., 0::2].sum(dim=-1), factors[..., 1::2].sum(dim=-1)
    half = omega / 2
    log_p = torch.log(torch.cos(half) ** 2 + _TINY) + odd
    log_q = torch.log(torch.sin(half) ** 2 + _TINY) + even
    return -0.5 * (order * math.log(2) + torch.logaddexp(log_p, log_q))


def lsf_from_logits(logits: Tensor, min_spacing: float) -> Tensor:
    """Return LSFs from unconstrained numbers: the cumulative sum of their softmax, scaled to (0, pi).

    The logits, shape (..., order + 1), are those of the spacings from 0 through the LSFs to pi. Neighbours are at least
    `min_spacing` rad apart, which bounds the sharpness of resonances.
    """
    parts = logits.shape[-1]
    spacing = min_spacing + (math.pi - parts * min_spacing) * torch.softmax(logits, dim=-1)
    return torch.cumsum(spacing, dim=-1)[..., :-1]


def lsf_from_resonances(frequency: Tensor, bandwidth: Tensor, real_pole: Tensor, sample_rate: float) -> Tensor:
    """Return the LSFs of the all-pole filter with these resonances and a double real pole r.

    A(z) = (1 - r z^-1)^2 prod_i (1 - z_i z^-1) (1 - z_i* z^-1) with z_i = e^((-pi B_i + 2 pi j F_i) / fs).

    Parameters
    ----------
    frequency, bandwidth : Tensor, shape (..., resonances)
        F_i and B_i in Hz.
    real_pole : Tensor, shape (...)
        r in [0, 1); a larger one lowers the treble.
    sample_rate : float
        fs in Hz.

    Returns
    -------
    Tensor, shape (..., 2 * resonances + 2)
        LSFs in rad, increasing, in double precision.
    """
    radius = torch.exp(-math.pi * bandwidth.double() / sample_rate)
    middle = -2 * radius * torch.cos(2 * math.pi * frequency.double() / sample_rate)
    middle = torch.cat([middle, -2 * real_pole.double()[..., None]], dim=-1)
    last = torch.cat([radius**2, real_pole.double()[..., None] ** 2], dim=-1)
    a = torch.nn.functional.pad(middle.new_ones(*middle.shape[:-1], 1), (0, 2 * middle.shape[-1] + 1))
    for index in range(middle.shape[-1]):
        a = a + middle[..., index : index + 1] * a.roll(1, -1) + last[..., index : index + 1] * a.roll(2, -1)
    # Division by 1 + z^-1 and 1 - z^-1 removes the real roots of P and Q.
    sign = torch.ones_like(a)
    sign[..., 1::2] = -1
    p = sign * torch.cumsum(sign * (a + a.flip(-1)), dim=-1)
    q = torch.cumsum(a - a.flip(-1), dim=-1)
    return torch.cat([_upper_angles(p[..., :-1]), _upper_angles(q[..., :-1])], dim=-1).sort(dim=-1).values


def _upper_angles(coefficients: Tensor) -> Tensor:
    """Return the angles in (0, pi) of the roots of 1 + c_1 z^-1 + ... + c_p z^-p, all on the unit circle in pairs."""
    order = coefficients.shape[-1] - 1
    companion = torch.diag_embed(coefficients.new_ones(*coefficients.shape[:-1], order - 1), offset=-1)
    companion[..., 0, :] = -coefficients[..., 1:] / coefficients[..., :1]
    angles: Tensor = torch.linalg.eigvals(companion).angle()
    return angles.sort(dim=-1).values[..., order // 2 :]
