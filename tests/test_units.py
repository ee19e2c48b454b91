"""Conversions between Hz, cents and MIDI notes."""

import numpy as np
import pytest

from vocalsep.dsp.units import cents_to_hz, hz_to_cents, hz_to_midi, midi_to_hz


def test_conversions_are_inverse():
    notes = np.linspace(0, 127, 200).reshape(20, 10)
    np.testing.assert_allclose(hz_to_midi(midi_to_hz(notes)), notes, atol=1e-12)
    cents = np.linspace(-4000, 4000, 50)
    np.testing.assert_allclose(hz_to_cents(cents_to_hz(cents, 261.6), 261.6), cents, atol=1e-9)


def test_a_semitone_is_100_cents():
    assert hz_to_cents(midi_to_hz(61), midi_to_hz(60)) == pytest.approx(100)
    assert midi_to_hz(60) == pytest.approx(261.6255653)


def test_references_broadcast_and_single_precision_is_converted():
    cents = hz_to_cents(np.float32([[220.0], [440.0]]), np.float32([220.0, 440.0]))
    assert cents.dtype == np.float64
    assert cents.tolist() == [[0, -1200], [1200, 0]]


def test_unvoiced_frames_become_minus_infinity():
    assert hz_to_midi([0.0, 440.0]).tolist() == [-np.inf, 69]
