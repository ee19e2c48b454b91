"""Metrics: scale-invariant SDR, plain and by the protocol of the published figures; BSS Eval; F of f0 tracks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.errors import AudioError, F0Error, MissingExtraError

MIN_FRAME_ENERGY = 10.0
"""Sum of squares below which the protocol drops a frame of the reference as silent."""
EXCERPT_SECONDS = 4.0
FRAME_SECONDS = 1.0
TOLERANCE_CENTS = 50.0
"""What counts as the right pitch: half a semitone."""


def si_sdr(reference: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Return the scale-invariant signal-to-distortion ratio in dB.

    J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - half-baked or well done?", ICASSP 2019:
    10 log10(||a s||^2 / ||a s - e||^2) with a = <e, s> / ||s||^2.

    Parameters
    ----------
    reference, estimate
        s and e, shape (..., samples).

    Returns
    -------
    ndarray
        Shape (...); -inf for an estimate without any of the reference (also a silent one), NaN for a silent
        reference.

    Raises
    ------
    AudioError
        If the shapes differ.

    Examples
    --------
    >>> round(float(si_sdr([1.0, 0.0, -1.0, 0.0], [1.0, 0.1, -1.0, 0.1])), 6)
    20.0
    """
    s, e = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if s.shape != e.shape:
        raise AudioError(f"reference has shape {s.shape} and estimate {e.shape}; expected the same")
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (s * e).sum(axis=-1) / (s**2).sum(axis=-1)
        target = scale[..., None] * s
        ratio = 10 * np.log10((target**2).sum(axis=-1) / ((target - e) ** 2).sum(axis=-1))
    nothing = (e == 0).all(axis=-1) & (s != 0).any(axis=-1)
    return np.where(nothing, -np.inf, ratio)


@dataclass(frozen=True)
class Scores:
    """A metric in each frame that counts, of one or more voices: SI-SDR in dB, or another."""

    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean over frames; NaN if none counts."""
        return float(np.mean(self.values)) if self.values.size else float("nan")

    @property
    def median(self) -> float:
        """Median over frames; NaN if none counts."""
        return float(np.median(self.values)) if self.values.size else float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.2f} / {self.median:.2f}"


class Frame(NamedTuple):
    """A frame of a recording by the protocol of the published figures."""

    part: slice
    """Its samples."""
    peak: float
    """Of the mixture in the frame's excerpt, more than 0: the published figures bring it to 1."""
    counts: NDArray[np.bool_]
    """Whether each voice is loud enough to be scored, shape (voices,)."""


def protocol_frames(references: ArrayLike, mixture: ArrayLike, sample_rate: int) -> Iterator[Frame]:
    """Yield the frames of 1 s in which stems are scored, as for the published figures (US, section V).

    The recording is cut into excerpts of 4 s, of which the first is skipped; in each, the mixture is normalised to
    a peak of 1 and the references with it; frames whose reference then has an energy (sum of squares) below 10 are
    dropped. What is left at the end is not counted.

    Parameters
    ----------
    references
        Shape (voices, samples).
    mixture
        Shape (samples,).
    sample_rate
        Hz.
    """
    s, x = np.asarray(references, dtype=np.float64), np.asarray(mixture, dtype=np.float64)
    excerpt, frame = int(EXCERPT_SECONDS * sample_rate), int(FRAME_SECONDS * sample_rate)
    for start in range(excerpt, s.shape[1] - excerpt + 1, excerpt):
        peak = float(np.abs(x[start : start + excerpt]).max())
        if peak > 0:
            for first in range(start, start + excerpt, frame):
                part = slice(first, first + frame)
                yield Frame(part, peak, (s[:, part] ** 2).sum(axis=1) >= MIN_FRAME_ENERGY * peak**2)


def validate_stems(references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike) -> None:
    """Check that stems and mixture are of one length, and estimates as many as references.

    Raises
    ------
    AudioError
        If they are not.
    """
    s, e, x = np.shape(references), np.shape(estimates), np.shape(mixture)
    if len(s) != 2 or s != e or x != s[1:]:
        raise AudioError(
            f"references have shape {s}, estimates {e}, mixture {x}; expected (voices, samples) twice and (samples,)"
        )


def frame_scores(
    references: ArrayLike, estimates: ArrayLike, mixture: ArrayLike, sample_rate: int
) -> tuple[Scores, ...]:
    """Score stems as the published figures are: SI-SDR in the frames of `protocol_frames`.

    Parameters
    ----------
    references, estimates
        Shape (voices, samples).
    mixture
        Shape (samples,).
    sample_rate
        Hz.

    Returns
    -------
    tuple of Scores
        One for each voice.

    Raises
    ------
    AudioError
        If the shapes do not fit.
    """
    validate_stems(references, estimates, mixture)
    s, e = np.asarray(references, dtype=np.float64), np.asarray(estimates, dtype=np.float64)
    values: list[list[float]] = [[] for _ in s]
    for part, _, counts in protocol_frames(s, mixture, sample_rate):
        for voice in np.flatnonzero(counts):
            values[voice].append(float(si_sdr(s[voice, part], e[voice, part])))
    return tuple(Scores(np.array(row)) for row in values)


def overall(scores: tuple[Scores, ...]) -> Scores:
    """Return the frames of several voices as one."""
    return Scores(np.concatenate([score.values for score in scores]))


def agree(
    true: NDArray[np.float64], found: NDArray[np.float64], tolerance_cents: float = TOLERANCE_CENTS
) -> NDArray[np.bool_]:
    """Return where f0 tracks, in Hz with 0 = unvoiced, are both voiced and no more than the tolerance apart."""
    both = (true > 0) & (found > 0)
    cents = 1200 * np.log2(np.divide(found, true, out=np.ones(both.shape), where=both))
    near: NDArray[np.bool_] = both & (np.abs(cents) <= tolerance_cents)
    return near


def f0_f_measure(
    reference: ArrayLike, estimate: ArrayLike, *, tolerance_cents: float = TOLERANCE_CENTS
) -> NDArray[np.float64]:
    """Return the F-measure of f0 tracks, voice by voice.

    A frame is right where both are voiced and within the tolerance; precision is over the frames voiced in the
    estimate, recall over those voiced in the reference.

    Parameters
    ----------
    reference, estimate
        Hz, shape (voices, frames), 0 = unvoiced.
    tolerance_cents
        Cents.

    Returns
    -------
    ndarray
        Shape (voices,), in [0, 1]; NaN for a voice that is unvoiced in both.

    Raises
    ------
    F0Error
        If the shapes differ.

    Examples
    --------
    >>> f0_f_measure([[200.0, 200.0, 0.0]], [[201.0, 300.0, 0.0]])
    array([0.5])
    """
    true, found = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if true.shape != found.shape:
        raise F0Error(f"reference has shape {true.shape} and estimate {found.shape}; expected the same")
    right = agree(true, found, tolerance_cents).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        measure: NDArray[np.float64] = 2 * right / ((true > 0).sum(axis=-1) + (found > 0).sum(axis=-1))
    return measure


def bss_metrics(references: ArrayLike, estimates: ArrayLike, sample_rate: int) -> NDArray[np.float64]:
    """Return SDR, SIR and SAR of BSS Eval v4 in dB, medians over windows of 1 s (museval).

    F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 signal separation evaluation campaign", LVA/ICA 2018.

    Parameters
    ----------
    references, estimates
        Shape (voices, samples).
    sample_rate
        Hz.

    Returns
    -------
    ndarray
        Shape (3, voices): SDR, SIR, SAR.

    Raises
    ------
    MissingExtraError
        If museval, or the ffmpeg that it needs, is not installed.
    """
    try:
        import museval
    except ImportError as error:
        raise MissingExtraError("museval is not installed; pip install 'vocalsep[eval]' brings it") from error
    except RuntimeError as error:  # museval loads stempeg, which wants ffmpeg
        raise MissingExtraError(f"museval cannot be used ({error}); expected ffmpeg on this machine") from error
    s, e = (np.asarray(stems, dtype=np.float64)[..., None] for stems in (references, estimates))
    sdr, _, sir, sar = museval.evaluate(s, e, win=sample_rate, hop=sample_rate)
    medians: NDArray[np.float64] = np.nanmedian(np.stack([sdr, sir, sar]), axis=-1)
    return medians
