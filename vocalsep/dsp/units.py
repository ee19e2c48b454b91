"""Conversions between Hz, cents and MIDI note numbers.

All functions work element by element, in double precision. MIDI note 69 is A4, 440 Hz; fractions of a note are kept.
An octave has 1200 cents. Frequencies are positive; 0 Hz (unvoiced) becomes -inf.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

A4 = 440.0
"""Frequency in Hz of MIDI note 69."""


def hz_to_midi(frequency: ArrayLike) -> NDArray[np.float64]:
    """Return MIDI note numbers.

    Parameters
    ----------
    frequency : array_like
        Frequency in Hz.

    Returns
    -------
    ndarray
        Note number, with its fraction.

    Examples
    --------
    >>> hz_to_midi([220.0, 440.0])
    array([57., 69.])
    """
    return 69 + 12 * _octaves(frequency, A4)


def midi_to_hz(note: ArrayLike) -> NDArray[np.float64]:
    """Return the frequencies of MIDI notes.

    Parameters
    ----------
    note : array_like
        Note number; it may have a fraction.

    Returns
    -------
    ndarray
        Frequency in Hz.

    Examples
    --------
    >>> midi_to_hz([57, 69])
    array([220., 440.])
    """
    return A4 * np.exp2((np.asarray(note, dtype=np.float64) - 69) / 12)


def hz_to_cents(frequency: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the interval from a reference to a frequency.

    Parameters
    ----------
    frequency, reference : array_like
        Frequencies in Hz; their shapes broadcast.

    Returns
    -------
    ndarray
        Interval in cents, negative below the reference.

    Examples
    --------
    >>> hz_to_cents([220.0, 880.0], 440.0)
    array([-1200.,  1200.])
    """
    return 1200 * _octaves(frequency, reference)


def cents_to_hz(cents: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the frequency at an interval from a reference.

    Parameters
    ----------
    cents : array_like
        Interval in cents, negative below the reference.
    reference : array_like
        Frequency in Hz; its shape broadcasts with that of `cents`.

    Returns
    -------
    ndarray
        Frequency in Hz.

    Examples
    --------
    >>> cents_to_hz([-1200.0, 0.0, 1200.0], 440.0)
    array([220., 440., 880.])
    """
    return np.asarray(reference, dtype=np.float64) * np.exp2(np.asarray(cents, dtype=np.float64) / 1200)


def _octaves(frequency: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        octaves: NDArray[np.float64] = np.log2(np.asarray(frequency, dtype=np.float64) / np.asarray(reference))
    return octaves
