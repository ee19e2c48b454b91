"""F0 metrics on tracks with known answers, and degradations that keep time."""

import sys

import numpy as np
import pytest

from vocalsep import audio
from vocalsep.errors import F0Error, MissingExtraError
from vocalsep.evaluation import degrade
from vocalsep.evaluation.f0_metrics import OUTCOMES, calibration, f_measure, melody_scores, multipitch_scores, outcomes
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP_LENGTH

RATE = 16000
FRAMES = 40
HIGH, LOW = np.full(FRAMES, 400.0), np.full(FRAMES, 150.0)
TRUTH = np.stack([HIGH, LOW])


def test_f_measure():
    """Voice 1: two of four estimated frames right, three in the reference. Voice 2: an octave off throughout."""
    truth = [[200.0, 200.0, 200.0, 0.0], [100.0, 100.0, 0.0, 0.0]]
    estimate = [[205.0, 195.0, 210.0, 200.0], [200.0, 200.0, 0.0, 0.0]]
    np.testing.assert_allclose(f_measure(truth, estimate), [2 * 2 / (3 + 4), 0.0])
    with pytest.raises(F0Error):
        f_measure(truth, estimate[:1])


class TestOutcomes:
    @pytest.mark.parametrize(
        ("estimate", "outcome"),
        [
            (TRUTH, "right"),
            (TRUTH * 2 ** (49 / 1200), "right"),
            (TRUTH[::-1], "other voice"),
            (TRUTH * 2, "octave"),
            (TRUTH / 4, "octave"),
            (TRUTH * 2 ** (51 / 1200), "other pitch"),
            (TRUTH * 3, "other pitch"),
            (TRUTH * 0, "missed"),
        ],
    )
    def test_each_kind(self, estimate, outcome):
        expected = np.zeros((2, len(OUTCOMES)))
        expected[:, OUTCOMES.index(outcome)] = FRAMES
        np.testing.assert_array_equal(outcomes(TRUTH, estimate), expected)

    def test_false_alarm(self):
        found = outcomes(np.stack([HIGH, 0 * LOW]), TRUTH)
        assert found[1, OUTCOMES.index("false alarm")] == FRAMES == found[1].sum()

    def test_right_before_other_voice_before_octave(self):
        unison, octaves = np.stack([LOW, LOW]), np.stack([2 * LOW, LOW])
        assert outcomes(unison, unison)[:, OUTCOMES.index("right")].sum() == 2 * FRAMES
        assert outcomes(octaves, octaves[::-1])[:, OUTCOMES.index("other voice")].sum() == 2 * FRAMES

    @pytest.mark.filterwarnings("error")
    def test_every_voiced_frame_counts_once_and_agrees_with_f(self):
        truth, found = np.random.default_rng(0).choice([0.0, 100.0, 200.0, 210.0, 400.0], size=(2, 3, 500))
        counts = outcomes(truth, found)
        np.testing.assert_array_equal(counts.sum(axis=1), ((truth > 0) | (found > 0)).sum(axis=1))
        total = (truth > 0).sum(axis=1) + (found > 0).sum(axis=1)
        np.testing.assert_allclose(2 * counts[:, 0] / total, f_measure(truth, found))


class TestCalibration:
    def test_calibrated_confidence_has_no_error(self):
        truth, confidence = np.full((1, 100), 200.0), np.full((1, 100), np.float32(0.8))
        estimate = np.where(np.arange(100) < 80, 200.0, 300.0)[None]
        found = calibration(truth, estimate, confidence)
        assert found.frames[8] == 100 == found.frames.sum()
        assert found.right[8] == pytest.approx(0.8)
        assert found.expected_error == pytest.approx(0.0, abs=1e-6)

    def test_certain_and_wrong_is_all_error(self):
        found = calibration(TRUTH, TRUTH * 1.5, np.ones_like(TRUTH))
        assert (found.frames[9], found.right[9], found.expected_error) == (2 * FRAMES, 0.0, 1.0)

    def test_pitch_in_a_rest_is_wrong_and_rests_do_not_count(self):
        found = calibration([[0.0, 200.0]], [[200.0, 0.0]], [[0.5, 0.0]])
        assert (found.frames.sum(), found.right[5]) == (1, 0.0)

    @pytest.mark.filterwarnings("error")
    def test_nothing_voiced(self):
        assert np.isnan(calibration(TRUTH, 0 * TRUTH, 0 * TRUTH).expected_error)

    def test_shape_of_confidence(self):
        with pytest.raises(F0Error):
            calibration(TRUTH, TRUTH, np.ones(FRAMES))


class TestMirEval:
    """Melody: pitch, chroma, recall, false alarm, overall. Multipitch: precision, recall, accuracy, error, chroma."""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("estimate", "melody", "multipitch"),
        [
            (TRUTH, [1, 1, 1, 0, 1], [1, 1, 1, 0, 1]),
            (TRUTH[::-1], [0, 0, 1, 0, 0], [1, 1, 1, 0, 1]),  # right only as a set
            (2 * TRUTH, [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]),
            (0 * TRUTH, [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]),
        ],
    )
    def test_figures(self, estimate, melody, multipitch):
        np.testing.assert_array_equal(melody_scores(TRUTH, estimate), [melody, melody])
        np.testing.assert_array_equal(multipitch_scores(TRUTH, estimate), multipitch)

    def test_voicing(self):
        """Half of the notes are found, in a quarter of the rests there is one."""
        truth = np.repeat([200.0, 0.0], FRAMES)[None]
        estimate = np.where(np.arange(2 * FRAMES) % 2, truth, 0)
        estimate[0, FRAMES::4] = 200.0
        np.testing.assert_allclose(melody_scores(truth, estimate), [[0.5, 0.5, 0.5, 0.25, (0.5 + 0.75) / 2]])
        np.testing.assert_array_equal(melody_scores(truth, truth), [[1, 1, 1, 0, 1]])

    def test_voice_that_never_sings_has_no_figures(self):
        table = melody_scores(np.stack([HIGH, 0 * LOW]), TRUTH)
        assert np.isfinite(table[0]).all()
        assert np.isnan(table[1]).all()
        assert np.isnan(multipitch_scores(0 * TRUTH, TRUTH)).all()

    def test_missing_mir_eval(self, monkeypatch):
        for name in ("mir_eval", "mir_eval.melody", "mir_eval.multipitch"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError):
            melody_scores(TRUTH, TRUTH)


def bursts(seconds: float = 3.0) -> np.ndarray:
    """Band-limited noise in bursts: its autocorrelation has one narrow peak."""
    noise = np.random.default_rng(1).normal(size=round(seconds * 8000))
    swell = np.sin(2 * np.pi * 1.3 * np.arange(len(noise)) / 8000) > 0
    return audio.resample((0.1 * noise * swell).astype(np.float32), 8000, RATE)[0]


def delay(reference: np.ndarray, other: np.ndarray) -> int:
    """Return the samples by which the other comes later, modulo n_fft, by cross-correlation."""
    n_fft = 1 << (2 * len(reference)).bit_length()
    return int(np.fft.irfft(np.fft.rfft(other, n_fft) * np.conj(np.fft.rfft(reference, n_fft))).argmax())


class TestDegradations:
    @pytest.mark.parametrize("condition", [name for name in degrade.DEGRADATIONS if "cents" not in name])
    def test_time_length_and_truth_are_kept(self, condition):
        clean = bursts()
        before = clean.copy()
        truth = F0Tracks(np.full((1, 1 + len(clean) // HOP_LENGTH), 200.0), ("voice1",))
        degraded, sample_rate, moved = degrade.DEGRADATIONS[condition](clean, truth)
        np.testing.assert_array_equal(clean, before)
        assert moved is truth
        assert len(degraded) == round(len(clean) * sample_rate / RATE)
        assert degraded.dtype == np.float32
        assert delay(clean, audio.resample(degraded, sample_rate, RATE)[0]) == 0
        np.testing.assert_array_equal(degraded, degrade.DEGRADATIONS[condition](clean, truth)[0])

    @pytest.mark.parametrize("cents", [30, -30])
    def test_detuned_tone_has_the_detuned_truth(self, cents):
        """A tone that starts at 1 s: its pitch and its start move with those of the truth."""
        time = np.arange(3 * RATE) / RATE
        tone = np.where(time >= 1, 0.3 * np.sin(2 * np.pi * 400 * time), 0).astype(np.float32)
        frames = 1 + len(tone) // HOP_LENGTH
        truth = F0Tracks(np.where(np.arange(frames) * HOP_LENGTH >= RATE, 400.0, 0)[None], ("voice1",))
        name = "30 cents up" if cents > 0 else "30 cents down"
        shifted, sample_rate, moved = degrade.DEGRADATIONS[name](tone, truth)
        ratio = 2 ** (cents / 1200)
        np.testing.assert_allclose(1200 * np.log2(moved.frequencies[moved.voiced] / 400), cents, atol=0.2)
        spectrum = np.abs(np.fft.rfft(shifted * np.hanning(len(shifted)), 1 << 19))
        assert 1200 * np.log2(spectrum.argmax() * sample_rate / (1 << 19) / 400) == pytest.approx(cents, abs=0.5)
        assert np.flatnonzero(np.abs(shifted) > 0.1)[0] == pytest.approx(RATE / ratio, abs=30)
        assert np.flatnonzero(moved.voiced[0])[0] * HOP_LENGTH == pytest.approx(RATE / ratio, abs=HOP_LENGTH)

    def test_noise_level(self):
        clean = bursts()
        noise = degrade.add_noise(clean, 20.0).astype(float) - clean
        assert 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)

    @pytest.mark.parametrize(("rt60", "ratio_db"), [(0.5, -2.4), (2.0, 0.0)])
    def test_room_response(self, rt60, ratio_db):
        """Decay by the backward integral of M. Schroeder, 1965, between -5 and -35 dB."""
        click = np.zeros(round(2 * rt60 * RATE), dtype=np.float32)
        click[0] = 1
        response = degrade.reverberate(click, rt60, ratio_db).astype(float)
        assert response[0] == pytest.approx(1, abs=1e-6)
        assert -10 * np.log10((response[1:] ** 2).sum()) == pytest.approx(ratio_db, abs=0.01)
        decay = 10 * np.log10(np.cumsum(response[:0:-1] ** 2)[::-1] / (response[1:] ** 2).sum() + 1e-12)
        time = (np.argmax(decay < -35) - np.argmax(decay < -5)) / RATE
        assert 2 * time == pytest.approx(rt60, rel=0.1)

    def test_mp3_of_loud_audio_is_not_clipped(self):
        clean = audio.resample(30 * bursts(), RATE, 44100)[0]
        assert np.corrcoef(clean, degrade.mp3(clean))[0, 1] > 0.95
