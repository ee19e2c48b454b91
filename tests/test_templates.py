import warnings

import numpy as np
import pytest

from vocalsep.audio import MODEL_SAMPLE_RATE, read, to_model_rate
from vocalsep.errors import AudioError, VoicesError
from vocalsep.evaluation.baselines.salience import PITCHES, activations, log_spectrum, tonality
from vocalsep.evaluation.baselines.templates import ordered_totals, track_templates
from vocalsep.evaluation.metrics import f0_f_measure
from vocalsep.f0 import single
from vocalsep.tracks import HOP, HOP_LENGTH
from vocalsep.voices import parse_voices

SECONDS = 3.0


def sung(frequency, *, sample_rate=MODEL_SAMPLE_RATE, roll_off=1.0, vibrato_cents=30.0, rate=5.5, gain=0.1):
    """Return a harmonic tone with vibrato and its f0 at every sample."""
    time = np.arange(int(SECONDS * sample_rate)) / sample_rate
    f0 = frequency * 2 ** (vibrato_cents / 1200 * np.sin(2 * np.pi * rate * time + frequency))
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate
    partials = range(1, 1 + min(12, int(sample_rate / 2 / frequency / 1.1)))
    return gain * sum(np.sin(h * phase) / h**roll_off for h in partials), f0


def choir(frequencies, **options):
    tones = [sung(f, rate=5 + 0.3 * i, **options) for i, f in enumerate(frequencies)]
    return sum(tone for tone, _ in tones), np.stack([f0 for _, f0 in tones])


def deviation_cents(tracks, f0, sample_rate=MODEL_SAMPLE_RATE, percentile=60):
    """Return a percentile of |error| in cents of each voice, away from the ends; inf where unvoiced."""
    frames = slice(10, tracks.n_frames - 10)
    samples = np.round(tracks.times[frames] * sample_rate).astype(int)
    with np.errstate(divide="ignore"):
        error = np.abs(1200 * np.log2(tracks.frequencies[:, frames] / f0[:, samples]))
    return np.percentile(error, percentile, axis=1)


@pytest.mark.parametrize("roll_off", [1.0, 1.6])
@pytest.mark.parametrize(
    ("voices", "frequencies"),
    [
        ("SB", (440.0, 123.0)),
        ("SA", (660.0, 440.0)),
        ("SAB", (587.3, 349.2, 116.5)),
        ("SATB", (523.3, 329.6, 196.0, 130.8)),
        ("SATB", (523.3, 392.0, 261.6, 130.8)),
    ],
)
def test_voices_with_vibrato_are_tracked_to_20_cents(voices, frequencies, roll_off):
    mixture, f0 = choir(frequencies, roll_off=roll_off)
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE, voices)
    assert tracks.names == tuple(voice.name for voice in parse_voices(voices))
    assert deviation_cents(tracks, f0).max() < 20
    assert deviation_cents(tracks, f0, percentile=95).max() < 50
    assert tracks.voiced.all(axis=1).all()


def test_steady_tones_are_found_below_the_grid_step():
    frequencies = (497.3, 331.1, 201.7, 101.9)
    mixture, _ = choir(frequencies, vibrato_cents=0.0)
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE)
    median = np.median(tracks.frequencies, axis=1)
    np.testing.assert_allclose(1200 * np.log2(median / frequencies), 0, atol=12)


def test_octave_that_is_sung_is_kept():
    mixture, f0 = choir((440.0, 220.0))
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE, "ST")
    assert deviation_cents(tracks, f0).max() < 20


@pytest.mark.parametrize("vibrato_cents", [0.0, 30.0, 60.0])
@pytest.mark.parametrize(("frequency", "row"), [(90.0, 3), (110.0, 3), (147.0, 3), (220.0, 2), (300.0, 1)])
def test_one_tone_leaves_no_ghosts_in_the_other_voices(frequency, row, vibrato_cents):
    mixture, _ = sung(frequency, vibrato_cents=vibrato_cents)
    voiced = track_templates(mixture, MODEL_SAMPLE_RATE).voiced.mean(axis=1)
    expected = np.zeros(4)
    expected[row] = 1
    np.testing.assert_allclose(voiced, expected, atol=0.05)


def test_rests_are_unvoiced():
    high, _ = sung(440.0)
    low, _ = sung(147.0)
    high[: len(high) // 2] = 0
    tracks = track_templates(high + low, MODEL_SAMPLE_RATE, "SB")
    onset = int(SECONDS / 2 / HOP)
    voiced = tracks.voiced
    assert not voiced[0, : onset - 8].any()
    assert voiced[0, onset + 8 :].all()
    assert voiced[1].all()


def test_numbered_voices_are_ordered_high_to_low():
    mixture, f0 = choir((523.3, 311.1, 138.6))
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE, 3)
    assert tracks.names == ("voice1", "voice2", "voice3")
    assert deviation_cents(tracks, f0).max() < 20


def test_voices_keep_to_their_ranges():
    mixture, _ = choir((523.3, 146.8))
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE, "high=400-600, middle=250-390, low=100-160")
    for voice, row in zip(parse_voices("high=400-600, middle=250-390, low=100-160"), tracks.frequencies, strict=True):
        sounding = row[row > 0]
        assert ((sounding > voice.fmin * 0.97) & (sounding < voice.fmax * 1.03)).all()
    assert tracks.voiced.mean(axis=1).tolist() == pytest.approx([1, 0, 1], abs=0.05)


def test_stereo_at_another_rate_gives_the_same_grid():
    sample_rate = 44100
    mixture, f0 = choir((392.0, 165.0), sample_rate=sample_rate)
    tracks = track_templates(np.stack([mixture, 0.5 * mixture]), sample_rate, "AB")
    samples = round(mixture.size * MODEL_SAMPLE_RATE / sample_rate)
    assert tracks.n_frames == 1 + samples // HOP_LENGTH
    assert deviation_cents(tracks, f0, sample_rate).max() < 20


def test_level_of_the_recording_does_not_matter():
    mixture, _ = choir((440.0, 165.0))
    loud = track_templates(mixture, MODEL_SAMPLE_RATE, "SB")
    soft = track_templates(mixture * 2.0**-10, MODEL_SAMPLE_RATE, "SB")
    np.testing.assert_allclose(soft.frequencies, loud.frequencies, rtol=1e-3)


def test_voicing_bias_trades_recall_for_precision():
    mixture, _ = choir((440.0, 330.0, 165.0), gain=0.02)
    noisy = mixture + np.random.default_rng(1).normal(size=mixture.size) * 0.02
    voiced = [track_templates(noisy, 16000, voicing_bias=bias).voiced.mean() for bias in (-4.0, 0.0, 4.0)]
    assert voiced[0] <= voiced[1] <= voiced[2]
    assert voiced[0] < voiced[2]


@pytest.mark.parametrize(
    "audio",
    [
        np.ones(1),
        np.zeros(MODEL_SAMPLE_RATE),
        np.full(MODEL_SAMPLE_RATE, 0.3),
        np.random.default_rng(0).normal(size=100) * 0.1,
        np.random.default_rng(0).normal(size=3 * MODEL_SAMPLE_RATE) * 0.1,
        np.cumsum(np.random.default_rng(0).normal(size=3 * MODEL_SAMPLE_RATE)) * 1e-3,
        np.eye(1, MODEL_SAMPLE_RATE, 8000)[0],
    ],
    ids=["one sample", "silence", "dc", "100 samples", "white noise", "brown noise", "click"],
)
def test_what_has_no_pitch_is_unvoiced(audio):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracks = track_templates(audio, MODEL_SAMPLE_RATE)
    assert tracks.frequencies.shape == (4, 1 + len(audio) // HOP_LENGTH)
    assert not tracks.voiced.any()
    assert tracks.confidence.max() == 0


def test_confidence_is_zero_exactly_where_unvoiced():
    mixture, _ = choir((440.0, 165.0))
    mixture[:MODEL_SAMPLE_RATE] = 0
    tracks = track_templates(mixture, MODEL_SAMPLE_RATE, "SATB")
    np.testing.assert_array_equal(tracks.confidence > 0, tracks.voiced)
    assert tracks.confidence.max() <= 1


def test_bad_input_is_refused():
    with pytest.raises(AudioError, match="NaN"):
        track_templates([0.0, np.nan], MODEL_SAMPLE_RATE)
    with pytest.raises(VoicesError, match="SATB"):
        track_templates([0.0], MODEL_SAMPLE_RATE, "XYZ")


def test_log_spectrum_in_blocks_places_frames_on_the_grid():
    # A tone starts in frame 700, past the first block; the spectrum must jump there and nowhere else.
    waveform = np.sin(2 * np.pi * 440 / MODEL_SAMPLE_RATE * np.arange(1000 * HOP_LENGTH))
    waveform[: 700 * HOP_LENGTH] = 0
    level = log_spectrum(waveform.astype(np.float32)).max(axis=1)
    assert level[:690].max() < 1e-6
    assert level[710:-10].min() > 0.5 * level.max()
    assert level[700] == pytest.approx(0.5 * level[720], rel=0.1)


def test_activations_peak_at_the_pitch_not_at_its_octaves():
    waveform, _ = sung(220.0, vibrato_cents=0.0)
    active = activations(log_spectrum(waveform.astype(np.float32)))[50]
    at = {ratio: active[abs(np.log2(PITCHES / 220 / ratio)) < 30 / 1200].sum() for ratio in (0.5, 1, 2, 3)}
    assert at[1] > 10 * max(at[0.5], at[2], at[3])


def test_tonality_tells_noise_from_tones():
    noise = np.random.default_rng(3).normal(size=32000).astype(np.float32)
    tone, _ = choir((440.0, 165.0))
    assert tonality(log_spectrum(noise)).max() < 2 < tonality(log_spectrum(tone.astype(np.float32))).min()


def test_ordered_totals_equal_exhaustive_search():
    rng = np.random.default_rng(4)
    voices, pitches, gap = 3, 12, 4
    scores = rng.normal(size=(voices, 1, pitches)).astype(np.float32)

    def best(fixed_voice, fixed_pitch):
        found = -np.inf
        for choice in np.ndindex(*[pitches + 1] * voices):
            pitch = np.array(choice) - 1
            sounding = pitch[pitch >= 0]
            if pitch[fixed_voice] == fixed_pitch and (np.diff(sounding) <= -gap).all():
                found = max(found, sum(scores[v, 0, p] for v, p in enumerate(pitch) if p >= 0))
        return found

    expected = [[[best(v, p) - best(v, -1) for p in range(pitches)]] for v in range(voices)]
    np.testing.assert_allclose(ordered_totals(scores), expected, atol=1e-5)


def test_real_quartet(data):
    cut = slice(20 * MODEL_SAMPLE_RATE, 40 * MODEL_SAMPLE_RATE)
    stems = {}
    for part in ("soprano", "alto", "tenor", "bass"):
        waveform, sample_rate = read(data / "csd" / "nino_dios" / f"{part}_1.flac")
        stems[part] = to_model_rate(waveform, sample_rate)[cut]
    reference = single.f0_from_stems(stems)
    tracks = track_templates(sum(stems.values()), MODEL_SAMPLE_RATE)
    scores = f0_f_measure(reference.frequencies, tracks.frequencies)
    assert scores.mean() > 0.82, scores
    assert scores.min() > 0.72, scores
