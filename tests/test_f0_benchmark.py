"""F0 metrics on tracks with known answers, degradations that keep time, the f0 benchmark on synthetic singing."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.errors import F0Error, MissingExtraError, OptionError
from vocalsep.evaluation import degrade, f0_benchmark, f0_metrics
from vocalsep.evaluation.baselines import basic_pitch
from vocalsep.evaluation.benchmark import Ensemble
from vocalsep.evaluation.metrics import f0_f_measure
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP_LENGTH
from vocalsep.voices import parse_voices

RATE = 16000
FRAMES = 40
PARTS = ("soprano", "alto", "tenor", "bass")
HIGH, LOW = np.full(FRAMES, 400.0), np.full(FRAMES, 150.0)
TRUTH = np.stack([HIGH, LOW])


def column(name: str) -> int:
    return f0_metrics.OUTCOMES.index(name)


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
        expected = np.zeros((2, len(f0_metrics.OUTCOMES)))
        expected[:, column(outcome)] = FRAMES
        np.testing.assert_array_equal(f0_metrics.outcomes(TRUTH, estimate), expected)

    def test_false_alarm(self):
        found = f0_metrics.outcomes(np.stack([HIGH, 0 * LOW]), TRUTH)
        assert found[1, column("false alarm")] == FRAMES == found[1].sum()

    def test_unison_is_right_and_the_other_voice_goes_before_the_octave(self):
        unison = np.stack([LOW, LOW])
        assert f0_metrics.outcomes(unison, unison)[:, column("right")].sum() == 2 * FRAMES
        octaves = np.stack([2 * LOW, LOW])
        assert f0_metrics.outcomes(octaves, octaves[::-1])[:, column("other voice")].sum() == 2 * FRAMES

    def test_every_voiced_frame_counts_once_and_agrees_with_f(self):
        rng = np.random.default_rng(0)
        truth, found = rng.choice([0.0, 100.0, 200.0, 210.0, 400.0], size=(2, 3, 500))
        counts = f0_metrics.outcomes(truth, found)
        np.testing.assert_array_equal(counts.sum(axis=1), ((truth > 0) | (found > 0)).sum(axis=1))
        total = (truth > 0).sum(axis=1) + (found > 0).sum(axis=1)
        np.testing.assert_allclose(2 * counts[:, 0] / total, f0_f_measure(truth, found))

    def test_shapes_must_be_the_same(self):
        with pytest.raises(F0Error, match=r"\(2, 40\) and estimate \(1, 40\)"):
            f0_metrics.outcomes(TRUTH, TRUTH[:1])


class TestCalibration:
    def test_calibrated_confidence_has_no_error(self):
        truth, confidence = np.full((1, 100), 200.0), np.full((1, 100), np.float32(0.8))
        estimate = np.where(np.arange(100) < 80, 200.0, 300.0)[None]
        found = f0_metrics.calibration(truth, estimate, confidence)
        assert found.frames[8] == 100 == found.frames.sum()
        assert found.right[8] == pytest.approx(0.8)
        assert found.expected_error == pytest.approx(0.0, abs=1e-6)

    def test_certain_and_wrong_is_all_error(self):
        found = f0_metrics.calibration(TRUTH, TRUTH * 1.5, np.ones_like(TRUTH))
        assert (found.frames[9], found.right[9], found.expected_error) == (2 * FRAMES, 0.0, 1.0)

    def test_pitch_in_a_rest_is_wrong_and_rests_do_not_count(self):
        found = f0_metrics.calibration([[0.0, 200.0]], [[200.0, 0.0]], [[0.5, 0.0]])
        assert (found.frames.sum(), found.right[5]) == (1, 0.0)

    @pytest.mark.filterwarnings("error")
    def test_nothing_voiced(self):
        assert np.isnan(f0_metrics.calibration(TRUTH, 0 * TRUTH, 0 * TRUTH).expected_error)

    def test_shape_of_confidence(self):
        with pytest.raises(F0Error, match="confidence has shape"):
            f0_metrics.calibration(TRUTH, TRUTH, np.ones(FRAMES))


class TestMirEval:
    def melody(self, truth, estimate):
        return [
            dict(zip(f0_metrics.MELODY_METRICS, row, strict=True)) for row in f0_metrics.melody_scores(truth, estimate)
        ]

    def multipitch(self, truth, estimate):
        return dict(zip(f0_metrics.MULTIPITCH_METRICS, f0_metrics.multipitch_scores(truth, estimate), strict=True))

    def test_perfect(self):
        truth = np.where(np.arange(FRAMES) < 30, TRUTH, 0)
        for voice in self.melody(truth, truth):
            assert voice["Voicing False Alarm"] == 0
            assert all(value == 1 for name, value in voice.items() if name != "Voicing False Alarm")
        scores = self.multipitch(truth, truth)
        assert (scores["Precision"], scores["Recall"], scores["Accuracy"], scores["Total Error"]) == (1, 1, 1, 0)

    def test_swapped_voices_are_right_only_as_a_set(self):
        assert self.multipitch(TRUTH, TRUTH[::-1])["Accuracy"] == 1
        assert all(voice["Raw Pitch Accuracy"] == 0 for voice in self.melody(TRUTH, TRUTH[::-1]))

    def test_octave_is_right_in_chroma(self):
        for voice in self.melody(TRUTH, 2 * TRUTH):
            assert (voice["Raw Pitch Accuracy"], voice["Raw Chroma Accuracy"], voice["Voicing Recall"]) == (0, 1, 1)
        scores = self.multipitch(TRUTH, 2 * TRUTH)
        assert (scores["Accuracy"], scores["Chroma Accuracy"], scores["Total Error"]) == (0, 1, 1)

    @pytest.mark.filterwarnings("error")
    def test_all_unvoiced(self):
        for voice in self.melody(TRUTH, 0 * TRUTH):
            assert (voice["Raw Pitch Accuracy"], voice["Voicing Recall"]) == (0, 0)
        scores = self.multipitch(TRUTH, 0 * TRUTH)
        assert (scores["Recall"], scores["Total Error"]) == (0, 1)

    def test_voicing(self):
        """Half of the notes are found, in a quarter of the rests there is one."""
        truth = np.repeat([200.0, 0.0], FRAMES)[None]
        estimate = np.where(np.arange(2 * FRAMES) % 2, truth, 0)
        estimate[0, FRAMES::4] = 200.0
        (voice,) = self.melody(truth, estimate)
        assert (voice["Voicing Recall"], voice["Voicing False Alarm"]) == (0.5, 0.25)
        assert voice["Raw Pitch Accuracy"] == 0.5
        assert voice["Overall Accuracy"] == pytest.approx((0.5 + 0.75) / 2)

    def test_voice_that_never_sings_has_no_figures(self):
        table = f0_metrics.melody_scores(np.stack([HIGH, 0 * LOW]), TRUTH)
        assert np.isfinite(table[0]).all()
        assert np.isnan(table[1]).all()
        assert np.isnan(f0_metrics.multipitch_scores(0 * TRUTH, TRUTH)).all()

    def test_missing_mir_eval(self, monkeypatch):
        for name in ("mir_eval", "mir_eval.melody", "mir_eval.multipitch"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=r"vocalsep\[eval\]"):
            f0_metrics.melody_scores(TRUTH, TRUTH)


def bursts(seconds: float = 3.0) -> np.ndarray:
    """Band-limited noise in bursts: its correlation with itself has one narrow peak."""
    noise = np.random.default_rng(1).normal(size=round(seconds * 8000))
    swell = np.sin(2 * np.pi * 1.3 * np.arange(len(noise)) / 8000) > 0
    return audio.resample((0.1 * noise * swell).astype(np.float32), 8000, RATE)[0]


def delay(reference: np.ndarray, other: np.ndarray) -> int:
    """Samples by which the other comes later, by cross-correlation."""
    n_fft = 1 << (2 * len(reference)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(other, n_fft) * np.conj(np.fft.rfft(reference, n_fft)))
    peak = int(correlation.argmax())
    return peak - n_fft if peak > n_fft // 2 else peak


class TestDegradations:
    @pytest.mark.parametrize("condition", [name for name in degrade.DEGRADATIONS if "cents" not in name])
    def test_time_length_and_truth_are_kept(self, condition):
        clean = bursts()
        before = clean.copy()
        truth = F0Tracks(np.full((1, 1 + len(clean) // HOP_LENGTH), 200.0), ("voice1",))
        degraded = degrade.DEGRADATIONS[condition](clean, truth)
        np.testing.assert_array_equal(clean, before)
        assert degraded.truth is truth
        assert len(degraded.audio) == round(len(clean) * degraded.sample_rate / RATE)
        assert degraded.audio.dtype == np.float32
        assert delay(clean, audio.resample(degraded.audio, degraded.sample_rate, RATE)[0]) == 0
        np.testing.assert_array_equal(degraded.audio, degrade.DEGRADATIONS[condition](clean, truth).audio)

    @pytest.mark.parametrize("cents", [30, -30])
    def test_detuned_tone_has_the_detuned_truth(self, cents):
        """A tone that starts at 1 s: its pitch and its start move with the truth's."""
        time = np.arange(3 * RATE) / RATE
        tone = np.where(time >= 1, 0.3 * np.sin(2 * np.pi * 400 * time), 0).astype(np.float32)
        frames = 1 + len(tone) // HOP_LENGTH
        truth = F0Tracks(np.where(np.arange(frames) * HOP_LENGTH >= RATE, 400.0, 0)[None], ("voice1",))
        name = "30 cents up" if cents > 0 else "30 cents down"
        shifted, sample_rate, moved = degrade.DEGRADATIONS[name](tone, truth)
        ratio = 2 ** (cents / 1200)
        sung = moved.frequencies[0, moved.voiced[0]]
        np.testing.assert_allclose(1200 * np.log2(sung / 400), cents, atol=0.2)
        spectrum = np.abs(np.fft.rfft(shifted * np.hanning(len(shifted)), 1 << 19))
        assert 1200 * np.log2(spectrum.argmax() * sample_rate / (1 << 19) / 400) == pytest.approx(cents, abs=0.5)
        assert np.flatnonzero(np.abs(shifted) > 0.1)[0] == pytest.approx(RATE / ratio, abs=30)
        assert np.flatnonzero(moved.voiced[0])[0] * HOP_LENGTH == pytest.approx(RATE / ratio, abs=HOP_LENGTH)

    def test_noise_level(self):
        clean = bursts()
        noise = degrade.add_noise(clean, 20.0).astype(float) - clean
        assert 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)
        assert not np.array_equal(noise, degrade.add_noise(clean, 20.0, seed=1).astype(float) - clean)

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

    @pytest.mark.parametrize(("sample_rate", "kbits"), [(44100, 64), (16000, 64), (44100, 56), (16000, 128)])
    def test_mp3_rate(self, sample_rate, kbits, monkeypatch):
        import soundfile

        sizes = []
        read = soundfile.read

        def sized(stream, **kwargs):
            sizes.append(len(stream.getvalue()))
            return read(stream, **kwargs)

        monkeypatch.setattr(soundfile, "read", sized)
        clean = audio.resample(bursts(10.0), RATE, sample_rate)[0]
        coded = degrade.mp3(clean, kbits, sample_rate=sample_rate)
        assert sizes[0] * 8 / 10 / 1000 == pytest.approx(kbits, rel=0.03)
        assert delay(clean, coded) == 0

    def test_mp3_of_loud_audio_is_not_clipped(self):
        clean = 30 * bursts()
        assert np.corrcoef(clean, degrade.mp3(clean, 64, sample_rate=RATE))[0, 1] > 0.95

    def test_mp3_has_no_such_rate(self):
        with pytest.raises(OptionError, match="500 kbit/s; expected more than 32, at most 320"):
            degrade.mp3(bursts(), 500)
        with pytest.raises(OptionError, match="40 kbit/s at 44100 Hz has no room for its delay"):
            degrade.mp3(bursts(), 40)


class TestSubsets:
    def test_groups(self):
        groups = f0_benchmark.parse_ensembles("quartet, TRIOS,duets,BS")
        assert {name: len(members) for name, members in groups.items()} == {
            "quartet": 1,
            "trios": 4,
            "duets": 6,
            "SB": 1,
        }
        assert groups["SB"] == ["SB"]

    @pytest.mark.parametrize("text", ["SAX", "quintets", "", " , ", "SS"])
    def test_unknown_groups(self, text):
        with pytest.raises(OptionError, match="expected"):
            f0_benchmark.parse_ensembles(text)

    def test_mixtures_and_truth_go_together(self, sing):
        f0 = np.array([500.0, 330.0, 220.0, 130.0])
        ensemble = Ensemble(PARTS, sing(np.tile(f0[:, None], 63)))
        made = f0_benchmark.subsets(ensemble, f0_benchmark.parse_ensembles("quartet,AB"), seconds=0.8)
        np.testing.assert_allclose(made[0].mixture, ensemble.mixture[:12800], atol=1e-6)
        np.testing.assert_allclose(made[1].mixture, ensemble.stems[[1, 3], :12800].sum(axis=0), atol=1e-6)
        assert made[1].truth.names == ("alto", "bass")
        np.testing.assert_allclose(np.median(made[1].truth.frequencies, axis=1), f0[[1, 3]], rtol=0.01)

    def test_trackers(self):
        assert f0_benchmark.trackers(separator=Separator(device="cpu")).keys() == {"learned"}
        named = f0_benchmark.trackers(f0_benchmark.BASELINES)
        assert tuple(named) == f0_benchmark.BASELINES
        with pytest.raises(OptionError, match="baseline is 'oracle'"):
            f0_benchmark.trackers(["oracle"])


def tracked(voices: str, wrong: str = "") -> f0_benchmark.Tracked:
    """A subset of which some voices are missed throughout."""
    names = tuple(voice.name for voice in parse_voices(voices))
    truth = np.tile(np.linspace(400, 100, len(voices))[:, None], FRAMES)
    found = np.where(np.array([letter in wrong for letter in voices])[:, None], 0, truth)
    confidence = (found > 0).astype(np.float32)
    return f0_benchmark.Tracked(
        {4: "quartet", 3: "trios", 2: "duets"}[len(voices)],
        voices,
        F0Tracks(truth, names),
        F0Tracks(found, names, confidence=confidence),
    )


class TestTables:
    def test_means(self):
        table = f0_benchmark.f_table([tracked("SATB", "B"), tracked("SAT", "A"), tracked("STB")])
        assert list(table) == ["quartet", "trios", "  SAT", "  STB", "all"]
        np.testing.assert_array_equal(table["quartet"], [1, 1, 1, 0])
        np.testing.assert_array_equal(table["  SAT"], [1, 0, 1, np.nan])
        np.testing.assert_array_equal(table["trios"], [1, 0, 1, 1])
        np.testing.assert_array_equal(table["all"], [1, 0.5, 1, 0.5])
        cells = f0_benchmark.format_f_row("all", table["all"]).split()
        assert cells == ["all", "1.00", "0.50", "1.00", "0.50", "0.75", "0.50"]

    def test_outcomes_are_pooled(self):
        counts = f0_benchmark.outcome_table([tracked("SATB", "B"), tracked("SB")])
        np.testing.assert_array_equal(counts[:, column("right")], np.array([2, 1, 1, 1]) * FRAMES)
        np.testing.assert_array_equal(counts[:, column("missed")], np.array([0, 0, 0, 1]) * FRAMES)

    def test_voice_that_is_in_no_ensemble(self):
        lines = "\n".join(f0_benchmark.format_tables([tracked("SB")]))
        assert "nan" not in lines
        assert "expected calibration error 0.000" in lines

    def test_tracker_without_confidence(self):
        item = tracked("SB")
        bare = f0_benchmark.Tracked("duets", "SB", item.truth, item.truth)
        assert f0_benchmark.pooled_calibration([item, bare]) is None
        assert "gives no confidence" in "\n".join(f0_benchmark.format_tables([bare]))

    @pytest.mark.parametrize("condition", list(degrade.DEGRADATIONS))
    def test_a_tracker_that_knows_the_truth_is_right_in_the_order_of_the_voices(self, condition):
        """Tracks come in another order and with a frame more: they are brought to the truth's."""
        truth = F0Tracks(TRUTH, ("soprano", "bass"))
        part = f0_benchmark.Subset("duets", "SB", bursts(FRAMES * HOP_LENGTH / RATE - 0.01)[: 39 * HOP_LENGTH], truth)
        expected = degrade.DEGRADATIONS[condition](part.mixture, truth).truth

        def oracle(audio, sample_rate, voices):
            assert voices == "SB"
            known = expected.select(("bass", "soprano")).frequencies
            return F0Tracks(np.pad(known, ((0, 0), (0, 1))), ("bass", "soprano"))

        (item,) = f0_benchmark.track_subsets(oracle, [part], condition)
        np.testing.assert_array_equal(item.estimate.frequencies, item.truth.frequencies)

    def test_unknown_condition(self):
        with pytest.raises(OptionError, match="condition is 'underwater'"):
            f0_benchmark.track_subsets(lambda *_: None, [], "underwater")


class TestBasicPitch:
    def test_voices_are_taken_from_high_to_low(self):
        voices = parse_voices("SATB")
        np.testing.assert_array_equal(basic_pitch.assign(np.array([500.0, 300.0, 200.0, 100.0]), voices), range(4))
        np.testing.assert_array_equal(basic_pitch.assign(np.array([120.0]), voices), [3])
        assert basic_pitch.assign(np.array([]), voices).size == 0

    def test_missing(self, monkeypatch):
        monkeypatch.setattr(basic_pitch, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match="onnxruntime"):
            basic_pitch.track_basic_pitch(bursts(), RATE)

    @pytest.mark.skipif(
        not (find_spec("basic_pitch") and find_spec("onnxruntime")), reason="basic-pitch and onnxruntime are not there"
    )
    def test_tracks_synthetic_singing(self, sing):
        f0 = np.stack([np.full(300, 440.0), np.where(np.arange(300) < 150, 165.0, 220.0)])
        found = basic_pitch.track_basic_pitch(sing(f0).sum(axis=0), RATE, "SB")
        assert found.n_frames == 300
        right = f0_metrics.outcomes(f0, found.frequencies)[:, column("right")]
        assert (right / (found.frequencies > 0).sum(axis=1)).min() > 0.95
        assert (right / 300).min() > 0.4  # it loses hold of a tone without vibrato


@pytest.fixture(scope="module")
def folder(sing, tmp_path_factory):
    path = tmp_path_factory.mktemp("singers")
    glide = 1 + 0.02 * np.sin(np.arange(126) / 10)
    f0 = np.array([523.0, 349.0, 233.0, 110.0])[:, None] * glide
    f0[:, :10] = 0
    for name, stem in zip(PARTS, sing(f0), strict=True):
        audio.write(path / f"{name}_1.wav", 0.2 * stem / np.abs(stem).max(), RATE)
    return path


class TestCommand:
    def run(self, *args):
        return CliRunner().invoke(main, ["benchmark-f0", *map(str, args)], catch_exceptions=False)

    def test_tables(self, folder):
        result = self.run(
            folder, "--singer", 1, "--no-learned", "--baseline", "templates", "--ensembles", "SB", "--robustness"
        )
        assert result.exit_code == 0, result.output
        lines = result.output.splitlines()
        rows = {line[:24].strip(): line[24:].split() for line in lines}
        assert rows["F at 50 cents"] == [*PARTS, "mean", "worst"]
        assert rows["SB"][1:3] == ["-", "-"]
        assert float(rows["clean"][-1]) > 0.8
        for condition in degrade.DEGRADATIONS:
            assert len(rows[condition]) == 6
        assert {"mir_eval multipitch", "mir_eval melody", "what is wrong (%)", "0.9 to 1.0"} <= rows.keys()
        assert rows["soprano"][0] not in ("-", "0.0")

    def test_nothing_to_judge(self, folder):
        result = self.run(folder, "--singer", 1, "--no-learned")
        assert result.exit_code == 2
        assert "there is no tracker to judge" in result.output

    def test_missing_part(self, tmp_path):
        result = self.run(tmp_path, "--no-learned", "--baseline", "templates")
        assert result.exit_code == 2
