"""Metrics of separated stems in the time domain.

Conventions
-----------
Stems are arrays of shape (voices, samples), full scale +-1; `references` are the true stems, `estimates` the separated
ones, in the same order. A mixture has shape (samples,). Scores are in dB, more is better. A voice that is silent in the
reference has no score (NaN).

Metrics
-------
* `si_sdr`: scale-invariant signal-to-distortion ratio [1]_ of whole signals.
* `frame_scores`: SI-SDR of 1-s frames, as in the published figures [2]_; `protocol_frames` says which frames count.
* `bss_metrics`: SDR, SIR and SAR of BSS Eval v4 [3]_, by museval.

References
----------
.. [1] J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - half-baked or well done?", ICASSP 2019.
.. [2] K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
   Differentiable Parametric Source Models", IEEE/ACM TASLP 2023, section V.
.. [3] F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 signal separation evaluation campaign", LVA/ICA 2018.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, MissingExtraError
from vocalsep.timebase import MODEL_SAMPLE_RATE

EXCERPT_SECONDS = 4.0
"""Length of the excerpts in which the protocol normalises the mixture."""
FRAME_SECONDS = 1.0
"""Length of the frames that the protocol scores."""
MIN_FRAME_ENERGY = 10.0
"""Sum of squares of a reference frame below which the protocol takes it as silent."""

Values = NDArray[np.float64]
"""Scores of the frames that count, shape (frames,)."""


def mean_median(values: Values) -> tuple[float, float]:
    """Return mean and median of the scores of frames; NaN if there are none."""
    return (float(np.mean(values)), float(np.median(values))) if values.size else (float("nan"), float("nan"))


def si_sdr(reference: ArrayLike, estimate: ArrayLike) -> Values:
    """Return the scale-invariant signal-to-distortion ratio.

    10 log10(||a s||^2 / ||a s - e||^2) with a = <e, s> / ||s||^2.

    Parameters
    ----------
    reference, estimate : array_like, shape (..., samples)
        True signal s and estimate e.

    Returns
    -------
    ndarray, shape (...)
        Ratio in dB; -inf for an estimate that has nothing of the reference, NaN for a silent reference.

    Raises
    ------
    AudioError
        If the shapes differ.

    Examples
    --------
    >>> round(float(si_sdr([1.0, 0.0, -1.0, 0.0], [1.0, 0.1, -1.0, 0.1])), 6)
    20.0
    """
    s, e = same_shape(reference, estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (s * e).sum(axis=-1) / (s**2).sum(axis=-1)
        target = scale[..., None] * s
        ratio = 10 * np.log10((target**2).sum(axis=-1) / ((target - e) ** 2).sum(axis=-1))
    nothing = (e == 0).all(axis=-1) & (s != 0).any(axis=-1)
    return np.where(nothing, -np.inf, ratio)


def same_shape(reference: ArrayLike, estimate: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return reference and estimate in double precision; raise AudioError if their shapes differ."""
    s, e = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if s.shape != e.shape:
        raise AudioError(f"reference and estimate must have one shape, but have {s.shape} and {e.shape}")
    return s, e


def protocol_frames(
    references: ArrayLike, mixture: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> Iterator[tuple[slice, float, NDArray[np.bool_]]]:
    """Yield the frames that the published figures are means over.

    The recording is cut into excerpts of 4 s, of which the first is skipped, and each excerpt into frames of 1 s. An
    excerpt is normalised so that its mixture peaks at 1; a frame of a voice counts if the reference then has an energy
    (sum of squares) of 10 or more. Samples after the last whole excerpt do not count.

    Yields
    ------
    samples : slice
        Samples of the frame.
    peak : float
        Peak of the mixture in the excerpt, above 0.
    counts : ndarray of bool, shape (voices,)
        True for each voice whose frame counts.
    """
    s, x = np.asarray(references, dtype=np.float64), np.asarray(mixture, dtype=np.float64)
    excerpt, frame = int(EXCERPT_SECONDS * sample_rate), int(FRAME_SECONDS * sample_rate)
    for start in range(excerpt, s.shape[1] - excerpt + 1, excerpt):
        peak = float(np.abs(x[start : start + excerpt]).max())
        if peak > 0:
            for first in range(start, start + excerpt, frame):
                samples = slice(first, first + frame)
                yield samples, peak, (s[:, samples] ** 2).sum(axis=1) >= MIN_FRAME_ENERGY * peak**2


def validate_stems(references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike) -> None:
    """Raise AudioError if the shapes of stems and mixture do not fit."""
    s, e, x = np.shape(references), np.shape(estimates), np.shape(mixture)
    if len(s) != 2 or s != e or x != s[1:]:
        shapes = f"{s}, {e} and {x}"
        raise AudioError(f"stems must have shape (voices, samples) and their mixture (samples,), but got {shapes}")


def frame_scores(
    references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike, sample_rate: int = MODEL_SAMPLE_RATE
) -> list[Values]:
    """Return for each voice the SI-SDR in dB of the frames of `protocol_frames` that count, shape (frames,).

    Raise AudioError if the shapes do not fit.
    """
    validate_stems(references, estimates, mixture)
    s, e = same_shape(references, estimates)
    frames = list(protocol_frames(s, mixture, sample_rate))
    return [
        np.array([si_sdr(s[voice, part], e[voice, part]) for part, _, counts in frames if counts[voice]], np.float64)
        for voice in range(len(s))
    ]


def bss_metrics(references: ArrayLike, estimates: ArrayLike, sample_rate: int) -> NDArray[np.float64]:
    """Return SDR, SIR and SAR of each voice in dB, medians over windows of 1 s, shape (3, voices).

    Raise MissingExtraError if museval, or the ffmpeg that it needs, is not installed.
    """
    try:
        import museval
    except ImportError as error:
        raise MissingExtraError("museval is not installed; install it with pip install 'vocalsep[eval]'") from error
    except RuntimeError as error:  # museval imports stempeg, which raises this without ffmpeg
        raise MissingExtraError(f"museval cannot run ({error}); install ffmpeg") from error
    s, e = (np.asarray(stems, dtype=np.float64)[..., None] for stems in (references, estimates))
    sdr, _, sir, sar = museval.evaluate(s, e, win=sample_rate, hop=sample_rate)
    medians: NDArray[np.float64] = np.nanmedian(np.stack([sdr, sir, sar]), axis=-1)
    return medians
