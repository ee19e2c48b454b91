"""Conversions between Hz, cents and MIDI note numbers.

All functions take numbers or arrays, whose shapes broadcast, and work element by element in double precision.
Frequencies are in Hz and positive; 0 Hz (unvoiced) becomes -inf. MIDI note 69 is A4, 440 Hz; notes may have a fraction.
An octave has 1200 cents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

A4 = 440.0
"""Frequency in Hz of MIDI note 69."""


def hz_to_midi(frequency: ArrayLike) -> NDArray[np.float64]:
    """Return the MIDI note numbers of frequencies.

    Examples
    --------
    >>> hz_to_midi([220.0, 440.0])
    array([57., 69.])
    """
    return 69 + 12 * _octaves(frequency, A4)


def midi_to_hz(note: ArrayLike) -> NDArray[np.float64]:
    """Return the frequencies of MIDI notes.

    Examples
    --------
    >>> midi_to_hz([57, 69])
    array([220., 440.])
    """
    return A4 * np.exp2((np.asarray(note, dtype=np.float64) - 69) / 12)


def hz_to_cents(frequency: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the interval from a reference to a frequency, negative below the reference.

    Examples
    --------
    >>> hz_to_cents([220.0, 880.0], 440.0)
    array([-1200.,  1200.])
    """
    return 1200 * _octaves(frequency, reference)


def cents_to_hz(cents: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the frequency at an interval from a reference, negative below it.

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
