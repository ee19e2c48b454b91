"""Metrics against closed forms, references and published figures; the protocol; baselines; the benchmark."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from vocalsep import audio
from vocalsep.dsp.stft import StftGrid
from vocalsep.errors import AudioError, F0Error, MissingExtraError, OptionError
from vocalsep.evaluation import benchmark, metrics
from vocalsep.evaluation import benchmark_tables as tables
from vocalsep.evaluation.baselines.comb import comb_power, separate_comb
from vocalsep.evaluation.baselines.form import form_of, separate_form
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.metrics import Scores, bss_metrics, frame_scores, overall, si_sdr
from vocalsep.evaluation.systems import Ready
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.separator import Separator

RNG = np.random.default_rng(0)
RATE = 16000


def orthogonal(samples: int, ratio_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference, and an estimate with an orthogonal error so many dB below it."""
    time = np.arange(samples)
    s = np.sin(2 * np.pi * time * 8 / samples)
    return s, s + np.cos(2 * np.pi * time * 8 / samples) * 10 ** (-ratio_db / 20)


class TestSiSdr:
    @pytest.mark.parametrize("ratio_db", [-30.0, 0.0, 12.5, 60.0])
    def test_closed_form(self, ratio_db):
        assert float(si_sdr(*orthogonal(1000, ratio_db))) == pytest.approx(ratio_db, abs=1e-6)

    @pytest.mark.parametrize("scale", [1e-6, 0.3, -2.0, 1e4])
    def test_scale_does_not_matter(self, scale):
        s, e = RNG.normal(size=(2, 500))
        assert float(si_sdr(s, scale * e)) == pytest.approx(float(si_sdr(s, e)), abs=1e-9)
        assert float(si_sdr(scale * s, e)) == pytest.approx(float(si_sdr(s, e)), abs=1e-9)

    def test_single_precision_is_taken_in_double(self):
        s, e = orthogonal(100_000, 60.0)
        assert float(si_sdr(np.float32(s), np.float32(e))) == pytest.approx(60.0, abs=1e-2)

    def test_rows_are_independent(self):
        s, e = RNG.normal(size=(2, 3, 4, 100))
        found = si_sdr(s, e)
        assert found.shape == (3, 4)
        assert found[2, 1] == si_sdr(s[2, 1], e[2, 1])

    @pytest.mark.parametrize(
        ("s", "e", "expected"),
        [
            ([1, 2], [2, 4], np.inf),
            ([1, 0], [0, 1], -np.inf),
            ([1, 2], [0, 0], -np.inf),
            ([0, 0], [1, 2], np.nan),
            ([0, 0], [0, 0], np.nan),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_limits(self, s, e, expected):
        np.testing.assert_equal(float(si_sdr(s, e)), expected)

    def test_shapes_must_be_the_same(self):
        with pytest.raises(AudioError, match=r"\(3,\) and estimate \(4,\)"):
            si_sdr(np.ones(3), np.ones(4))

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_parity_with_mir_eval(self):
        """mir_eval fits a filter of 512 taps where SI-SDR fits one gain: white noise is explained by neither."""
        from mir_eval.separation import bss_eval_sources

        s, n = RNG.normal(size=(2, 16000))
        e = s + 0.1 * n
        found, *_ = bss_eval_sources(s[None], e[None], compute_permutation=False)
        assert float(si_sdr(s, e)) == pytest.approx(float(found[0]), abs=0.3)


class TestProtocol:
    """At 100 Hz: excerpts of 400 samples, frames of 100."""

    def scores(self, s, e, x=None):
        return frame_scores(np.atleast_2d(s), np.atleast_2d(e), s if x is None else x, 100)[0].values

    def test_the_first_excerpt_and_the_rest_are_skipped(self):
        s = RNG.uniform(-3, 3, 1250)
        e = s + RNG.normal(size=1250)
        expected = [si_sdr(s[i : i + 100], e[i : i + 100]) for i in range(400, 1200, 100)]
        np.testing.assert_allclose(self.scores(s, e), expected)

    @pytest.mark.parametrize(("samples", "frames"), [(100, 0), (799, 0), (800, 4), (1199, 4), (1200, 8)])
    def test_number_of_frames(self, samples, frames):
        s = RNG.uniform(-1, 1, samples)
        assert len(self.scores(s, s + 0.1 * RNG.normal(size=samples))) == frames

    @pytest.mark.parametrize(("energy", "counts"), [(10.5, True), (9.5, False)])
    @pytest.mark.parametrize("level", [0.01, 1.0, 30.0])
    def test_frames_below_an_energy_of_10_at_peak_1_are_dropped(self, energy, counts, level):
        s, x = np.ones(800), np.ones(800)
        s[500:600] = np.sqrt(energy / 100)
        e = s + 0.01 * RNG.normal(size=800)
        assert len(self.scores(level * s, level * e, level * x)) == 3 + counts

    def test_each_excerpt_has_its_own_peak(self):
        s = np.ones(1200)
        x = np.ones(1200)
        x[1000] = 100.0  # makes the references of the last excerpt fall below the threshold
        assert len(self.scores(s, s + 0.1, x)) == 4

    def test_silence_does_not_count(self):
        assert self.scores(np.zeros(1200), np.ones(1200)).size == 0

    def test_a_silent_estimate_is_the_worst(self):
        s = np.ones(800)
        assert (self.scores(s, np.zeros(800)) == -np.inf).all()

    def test_voices_are_scored_apart_and_together(self):
        s = RNG.uniform(-1, 1, (2, 800))
        s[1, 400:600] = 0
        scores = frame_scores(s, s + 0.1 * RNG.normal(size=s.shape), 0.6 * s.sum(axis=0), 100)
        assert [len(row.values) for row in scores] == [4, 2]
        total = overall(scores)
        assert total.mean == pytest.approx((4 * scores[0].mean + 2 * scores[1].mean) / 6)
        assert total.median == pytest.approx(np.median(np.concatenate([row.values for row in scores])))

    @pytest.mark.parametrize("shapes", [((2, 9), (3, 9), (9,)), ((2, 9), (2, 9), (8,)), ((9,), (9,), (9,))])
    def test_shapes_must_fit(self, shapes):
        with pytest.raises(AudioError, match="expected"):
            frame_scores(*(np.ones(shape) for shape in shapes), 100)

    @pytest.mark.filterwarnings("error")
    def test_no_frames_have_no_mean(self):
        assert str(Scores(np.array([]))) == "nan / nan"
        assert str(Scores(np.array([1.0, 2.0, 6.0]))) == "3.00 / 2.00"


@pytest.fixture(scope="module")
def duet(sing) -> tuple[np.ndarray, np.ndarray]:
    """Stems and f0 of two voices of 9 s that move apart, with rests."""
    frames = 563
    time = np.arange(frames) * 0.016
    f0 = np.stack([520 * 2 ** (0.3 * np.sin(time)), 196 * 2 ** (0.25 * np.cos(0.7 * time))])
    f0[0, 350:380] = 0
    return sing(f0), f0.astype(np.float32)


class TestBaselines:
    def test_ideal_beats_comb_beats_mixture(self, duet):
        stems, f0 = duet
        mixture = stems.sum(axis=0)
        tracks = F0Tracks(f0, ("soprano", "tenor"))
        systems = [
            np.broadcast_to(mixture, stems.shape),
            separate_comb(mixture, tracks, RATE),
            separate_ideal(mixture, stems, RATE),
        ]
        mixed, comb, ideal = (overall(frame_scores(stems, found, mixture, RATE)).mean for found in systems)
        assert mixed + 5 < comb < ideal - 2

    def test_the_comb_falls_by_12_db_per_octave(self):
        grid = StftGrid.of_duration(RATE)
        level = 10 * np.log10(comb_power(torch.full((1, 20), 200.0), grid)[0, :, 10].numpy() + 1e-20)
        peaks = [level[round(k * 200 * 2048 / RATE) - 3 :][:7].max() for k in (1, 2, 4)]
        assert -np.diff(peaks) == pytest.approx(12, abs=1.5)  # and a little more, as lobes widen

    @pytest.mark.parametrize("sample_rate", [16000, 44100])
    def test_their_stems_add_up(self, sing, sample_rate):
        f0 = np.float32([[440], [220]]) * np.ones(64, np.float32)
        stems = sing(f0, sample_rate)
        mixture = stems.sum(axis=0)
        for found in (
            separate_comb(mixture, F0Tracks(f0, ("a", "b")), sample_rate),
            separate_ideal(mixture, stems, sample_rate),
        ):
            assert found.shape == stems.shape
            assert np.abs(found.sum(axis=0) - mixture).max() < 1e-5

    def test_the_comb_takes_tracks_on_any_grid(self, sing):
        f0 = np.float32([[440], [220]]) * np.ones(64, np.float32)
        f0[0, :32] = 0
        mixture = sing(f0).sum(axis=0)
        fine = F0Tracks(np.repeat(f0, 4, axis=1), ("a", "b"), 0.004)
        coarse = separate_comb(mixture, F0Tracks(f0, ("a", "b")), RATE)
        found = separate_comb(mixture, fine, RATE)
        assert np.abs(coarse - found).max() < 0.1 * np.abs(mixture).max()
        assert float(si_sdr(coarse[0], found[0])) > 25


class TestPublished:
    """The figures that show that data and protocol are the published ones (singer 3 of Nino Dios, 4-80 s)."""

    def test_mixture_and_ideal_mask(self, data):
        ensemble = benchmark.load_ensemble(data / "csd" / "nino_dios", "3")
        mixture, stems = ensemble.mixture, ensemble.stems
        mixed = overall(frame_scores(stems, np.broadcast_to(mixture, stems.shape), mixture, RATE))
        assert (mixed.mean, mixed.median) == (pytest.approx(-5.64, abs=0.1), pytest.approx(-5.52, abs=0.1))
        ideal = overall(frame_scores(stems, separate_ideal(mixture, stems, RATE), mixture, RATE))
        assert (ideal.mean, ideal.median) == (pytest.approx(11.45, abs=0.1), pytest.approx(11.70, abs=0.1))


class TestBssMetrics:
    def test_interference_counts_in_sir_and_noise_in_sar(self):
        try:
            import museval  # noqa: F401
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"museval cannot be imported: {error}")
        s = RNG.normal(size=(2, 4 * 4000))
        bled = s + 0.1 * s[::-1]
        noisy = s + 0.1 * RNG.normal(size=s.shape)
        (sdr, sir, sar), (_, noisy_sir, noisy_sar) = bss_metrics(s, bled, 4000), bss_metrics(s, noisy, 4000)
        assert sir == pytest.approx(20, abs=1)
        assert sdr == pytest.approx(20, abs=1)
        assert (sar > 30).all()
        assert noisy_sar == pytest.approx(20, abs=2)
        assert (noisy_sir > 25).all()

    @pytest.mark.skipif(find_spec("museval") is None, reason="museval is not installed")
    def test_without_ffmpeg_the_reason_is_told(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] in ("museval", "musdb", "stempeg")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setenv("PATH", "")
        with pytest.raises(MissingExtraError, match="ffmpeg"):
            bss_metrics(np.ones((1, 9)), np.ones((1, 9)), 8)

    def test_without_museval_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "museval", None)
        with pytest.raises(MissingExtraError, match=r"vocalsep\[eval\]"):
            bss_metrics(np.ones((1, 9)), np.ones((1, 9)), 8)


class TestBenchmark:
    @pytest.fixture
    def folder(self, tmp_path, sing, duet):
        f0 = np.float32([[520], [330], [210], [110]]) * np.ones(563, np.float32)
        for name, stem in zip(("soprano", "alto", "tenor", "bass"), sing(f0) / 8, strict=True):
            audio.write(tmp_path / f"{name}_3.flac", stem, RATE)
            (tmp_path / f"{name}_3.csv").write_text("beside it")
        return tmp_path

    def test_ensembles_are_cut_to_one_length(self, folder, sing):
        audio.write(folder / "alto_3.flac", np.ones(20000) * 0.1, RATE)
        ensemble = benchmark.load_ensemble(folder, "3")
        assert ensemble.names == ("soprano", "alto", "tenor", "bass")
        assert ensemble.stems.shape == (4, 20000)
        np.testing.assert_allclose(ensemble.mixture, ensemble.stems.sum(axis=0))

    def test_missing_parts_are_named(self, folder):
        (folder / "tenor_3.flac").unlink()
        with pytest.raises(AudioError, match="no recording named tenor_3"):
            benchmark.load_ensemble(folder, "3")

    def test_files_may_be_named_by_part_alone(self, folder):
        expected = benchmark.load_ensemble(folder, "3").stems
        for path in folder.glob("*_3.flac"):
            path.rename(path.with_name(path.name.replace("_3", "")))
        np.testing.assert_array_equal(benchmark.load_ensemble(folder, "3").stems, expected)

    def test_parts_may_have_other_names(self, folder):
        (folder / "tenor_3.flac").rename(folder / "lead_3.flac")
        ensemble = benchmark.load_ensemble(folder, "3", ["lead", "bass"])
        assert ensemble.names == ("lead", "bass")
        assert ensemble.label == "LB"
        with pytest.raises(AudioError, match="no recording named low_3"):
            benchmark.load_ensemble(folder, "3", ["lead", "low"])

    def test_subsets_are_all_ensembles_of_a_size(self):
        whole = benchmark.Ensemble(("a", "b", "c"), np.float32([[1, 0], [0, 2], [4, 0]]))
        found = benchmark.subsets(whole, [3, 2])
        assert [part.names for part in found] == [("a", "b", "c"), ("a", "b"), ("a", "c"), ("b", "c")]
        np.testing.assert_array_equal([part.mixture for part in found], [[5, 2], [1, 2], [5, 0], [4, 2]])
        for sizes in ([4], [1], []):
            with pytest.raises(OptionError, match="expected 2 to 3"):
                benchmark.subsets(whole, sizes)

    def test_systems_are_scored_with_each_f0(self, sing, duet, tiny_model):
        """One that is told which f0 it gets: right where it comes from the stems, the mixture else."""
        stems, f0 = duet
        ensemble = benchmark.Ensemble(("soprano", "tenor"), stems)
        right = F0Tracks(f0, ensemble.names)
        tracks = benchmark.Tracking(right, F0Tracks(1.5 * f0, ensemble.names))

        def separate(mixture, given):
            return 0.9 * stems + 0.1 * stems[::-1] if given is right else np.stack([mixture, mixture])

        ready = Ready(separate, 7, lambda mixture, given: 0.99 * stems + 0.01 * stems[::-1])
        results = list(
            benchmark.evaluate(
                ensemble, {"oracle": ready, "comb": Ready(separate)}, tracks, ideal=Separator(tiny_model)
            )
        )
        expected = ["mixture", *["oracle"] * 3, *["comb"] * 2, "ideal-form", "ideal-form-unheard", "ideal"]
        assert [result.system for result in results] == expected
        assert [result.f0 for result in results] == [
            "", "CREPE on stems", "mixture", "mixture, refined", "CREPE on stems", "mixture",
            "CREPE on stems", "CREPE on stems", "",
        ]  # fmt: skip
        means = [overall(result.scores["SI-SDR"]).mean for result in results]
        assert means[0] == means[2] == means[5] < means[1] == means[4] < means[3]
        assert means[3] - means[1] == pytest.approx(20 * np.log10(99 / 9), abs=0.1)
        for metric, better in (("spectral SNR", 1), ("spectral SI-SNR", 1), ("MCD", -1)):
            values = [better * overall(result.scores[metric]).mean for result in results]
            assert values[2] < values[1] < values[3]
        assert (
            results[1].scores["SI-SDR"][0].values.tolist()
            == frame_scores(stems, separate(None, right), stems.sum(axis=0), RATE)[0].values.tolist()
        )

    def test_parameters_of_the_true_stems_are_a_ceiling(self, duet, tiny_model):
        """Even of a network that has learned nothing: fitting a voice alone finds its partials."""
        stems, f0 = duet
        mixture, tracks, separator = stems.sum(axis=0), F0Tracks(f0, ("soprano", "tenor")), Separator(tiny_model)
        found = np.stack(list(separator.separate(mixture, tracks).stems.values()))
        form = separate_form(mixture, form_of(stems, tracks, separator))
        np.testing.assert_allclose(form.sum(axis=0), mixture, atol=1e-5)
        ideal = separate_ideal(mixture, stems, RATE)
        scores = [si_sdr(stems, estimates).mean() for estimates in (found, form, ideal)]
        assert scores[0] + 0.5 < scores[1] < scores[2]

    def test_f_of_the_tracks(self, duet):
        _, f0 = duet
        right, wrong = f0, f0 * np.float32([[1], [1.5]])
        tracks = benchmark.Tracking(F0Tracks(right, ("a", "b")), F0Tracks(wrong, ("a", "b")))
        assert tracks.f_measure.tolist() == [1, 0]

    def test_times_are_of_a_take_of_4_s(self, duet, monkeypatch):
        stems, f0 = duet
        heard = []

        def separate(mixture, tracks):
            heard.append((mixture.shape, tracks.frequencies.shape))
            return stems

        ticks = iter([0.0, 1.0, 2.0, 2.007, 3.0, 4.0])
        monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))

        ensemble = benchmark.Ensemble(("soprano", "tenor"), stems)
        tracks = F0Tracks(f0, ensemble.names)
        assert benchmark.excerpt_milliseconds(ensemble, tracks, separate) == pytest.approx(7)
        assert heard == [((64000,), (2, 251))] * 3

    def test_the_stages_add_up_to_the_time(self, monkeypatch, sing, tiny_model):
        monkeypatch.setattr(benchmark, "SPEED_SECONDS", 2.0)
        f0 = np.float32([[520], [330], [210], [110]]) * np.ones(70, np.float32)
        timing = benchmark.speed(benchmark.Ensemble(("s", "a", "t", "b"), sing(f0)), Separator(tiny_model, "cpu"))
        assert set(timing.stages) == {"reading", "f0", "masks", "rest"}
        assert all(seconds >= 0 for seconds in timing.stages.values())
        assert timing.ratio == pytest.approx(sum(timing.stages.values()) / 2)


def made(voices: str, system: str, f0: str, *values: list[float]) -> benchmark.Result:
    scores = tuple(Scores(np.array(row)) for row in values)
    names = ("SI-SDR", "spectral SNR", "spectral SI-SNR", "MCD")
    return benchmark.Result(tuple(voices), system, f0, dict.fromkeys(names, scores))


class TestTables:
    RESULTS = (
        made("sa", "comb", "stems", [1.0, 2.0], [3.0]),
        made("sb", "comb", "stems", [6.0], [8.0]),
        made("sa", "vocalsep", "stems", [1.0], [2.0]),
        made("sb", "vocalsep", "stems", [9.0], [9.0]),
        made("sb", "vocalsep", "mixture", [0.0], [0.0]),
    )

    def test_frames_of_all_ensembles_are_pooled_by_voice(self):
        rows = tables.pooled(self.RESULTS, "sab")
        assert [(row.system, row.f0) for row in rows] == [
            ("comb", "stems"), ("vocalsep", "stems"), ("vocalsep", "mixture")
        ]  # fmt: skip
        assert [score.values.tolist() for score in rows[0].scores["MCD"]] == [[1, 2, 6], [3], [8]]
        lines = list(tables.format_scores(rows))
        assert lines[0].split() == ["system", "f0", "all", "s", "a", "b"]
        assert lines[1].split(maxsplit=2)[2].split("  ")[0] == "4.00 / 3.00"
        assert lines[3].count("nan / nan") == 1
        assert next(tables.format_spectral(rows)).split() == [
            "system",
            "f0",
            "spectral",
            "SNR",
            "spectral",
            "SI-SNR",
            "MCD",
        ]

    def test_where_ours_is_below_the_comb_is_told(self):
        assert list(tables.below_comb(self.RESULTS)) == [
            "below the comb: vocalsep in SA, f0 stems: 1.50 dB, comb 2.00 dB"
        ]
        quartet = [made("satb", "comb", "x", *[[2.0]] * 4), made("satb", "vocalsep", "x", *[[1.0]] * 4)]
        assert not list(tables.below_comb(quartet))

    def test_costs(self):
        rows = {"comb": tables.Cost(), "us": tables.Cost(5570000, 136.84, 90.0, 1234.5), "mine": tables.Cost(7)}
        lines = list(tables.format_costs(rows, {"us": "the paper's"}))
        assert lines[1].split() == ["comb", "0", "none", "none"]
        assert lines[2].split() == ["us", "5,570,000", "136.8", "s", "1.5", "min", "1,234", "ms", "the", "paper's"]
        assert lines[3].split() == ["mine", "7", "not", "recorded", "not", "recorded"]

    def test_csv_holds_every_ensemble_and_the_pools(self, tmp_path):
        path = tmp_path / "new" / "scores.csv"
        tables.write_csv(path, self.RESULTS, {2: tables.pooled(self.RESULTS, "sab")})
        lines = path.read_text().splitlines()
        assert "2,s+b,comb,stems,SI-SDR,all,7.0000,7.0000,2" in lines
        assert "2,all,comb,stems,MCD,s,3.0000,2.0000,3" in lines
        assert len(lines) == 1 + 4 * (5 * 3 + 3 * 4)
        with pytest.raises(OptionError, match="path of a CSV file"):
            tables.write_csv(tmp_path, self.RESULTS, {})


def test_f_measure_of_tracks():
    """Voice 1: two of four estimated frames right, three in the reference. Voice 2: an octave off throughout."""
    reference = [[200.0, 200.0, 200.0, 0.0], [100.0, 100.0, 0.0, 0.0]]
    estimate = [[205.0, 195.0, 210.0, 200.0], [200.0, 200.0, 0.0, 0.0]]
    np.testing.assert_allclose(metrics.f0_f_measure(reference, estimate), [2 * 2 / (3 + 4), 0.0])
    with pytest.raises(F0Error, match="expected the same"):
        metrics.f0_f_measure(reference, estimate[:1])


def test_thresholds_are_those_of_the_published_figures():
    assert (metrics.EXCERPT_SECONDS, metrics.FRAME_SECONDS, metrics.MIN_FRAME_ENERGY) == (4.0, 1.0, 10.0)
