"""Metrics of stems against closed forms and published figures; `vocalsep evaluate`."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.errors import AudioError, MissingExtraError
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.ensemble import load_ensemble
from vocalsep.evaluation.metrics import bss_metrics, frame_scores, mean_median, si_sdr

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
        assert si_sdr(s, scale * e) == pytest.approx(si_sdr(s, e), abs=1e-9)
        assert si_sdr(scale * s, e) == pytest.approx(si_sdr(s, e), abs=1e-9)

    def test_single_precision_is_computed_in_double(self):
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

    def test_shapes_must_be_equal(self):
        with pytest.raises(AudioError):
            si_sdr(np.ones(3), np.ones(4))


class TestProtocol:
    """At 100 Hz: excerpts of 400 samples, frames of 100."""

    def scores(self, s, e, x=None):
        return frame_scores(np.atleast_2d(s), np.atleast_2d(e), s if x is None else x, 100)[0]

    @pytest.mark.parametrize("samples", [100, 799, 800, 1199, 1250])
    def test_first_excerpt_and_remainder_are_skipped(self, samples):
        s = RNG.uniform(-3, 3, samples)
        e = s + RNG.normal(size=samples)
        frames = range(400, samples // 400 * 400, 100)
        np.testing.assert_allclose(self.scores(s, e), [si_sdr(s[i : i + 100], e[i : i + 100]) for i in frames])

    @pytest.mark.parametrize(("energy", "counts"), [(10.5, True), (9.5, False)])
    @pytest.mark.parametrize("level", [0.01, 1.0, 30.0])
    def test_frames_below_an_energy_of_10_at_peak_1_are_dropped(self, energy, counts, level):
        s, x = np.ones(800), np.ones(800)
        s[500:600] = np.sqrt(energy / 100)
        e = s + 0.01 * RNG.normal(size=800)
        assert len(self.scores(level * s, level * e, level * x)) == 3 + counts

    def test_each_excerpt_has_its_own_peak(self):
        s, x = np.ones(1200), np.ones(1200)
        x[1000] = 100.0  # brings the references of the last excerpt below the threshold
        assert len(self.scores(s, s + 0.1, x)) == 4

    def test_silence(self):
        assert self.scores(np.zeros(1200), np.ones(1200)).size == 0
        assert (self.scores(np.ones(800), np.zeros(800)) == -np.inf).all()

    def test_voices_have_their_own_frames(self):
        s = RNG.uniform(-1, 1, (2, 800))
        s[1, 400:600] = 0
        scores = frame_scores(s, s + 0.1 * RNG.normal(size=s.shape), 0.6 * s.sum(axis=0), 100)
        assert [len(values) for values in scores] == [4, 2]

    @pytest.mark.parametrize("shapes", [((2, 9), (3, 9), (9,)), ((2, 9), (2, 9), (8,)), ((9,), (9,), (9,))])
    def test_shapes_must_fit(self, shapes):
        with pytest.raises(AudioError):
            frame_scores(*(np.ones(shape) for shape in shapes), 100)

    @pytest.mark.filterwarnings("error")
    def test_mean_and_median(self):
        assert mean_median(np.array([1.0, 2.0, 6.0])) == (3, 2)
        np.testing.assert_equal(mean_median(np.array([])), (np.nan, np.nan))

    def test_published_figures_of_mixture_and_ideal_mask(self, data):
        """Singer 3 of Nino Dios, 4 to 80 s."""
        ensemble = load_ensemble(data / "csd" / "nino_dios", ["3"])
        mixture, stems = ensemble.mixture, ensemble.stems
        for estimates, published in (
            (np.broadcast_to(mixture, stems.shape), (-5.64, -5.52)),
            (separate_ideal(mixture, stems), (11.45, 11.70)),
        ):
            scores = np.concatenate(frame_scores(stems, estimates, mixture))
            assert mean_median(scores) == pytest.approx(published, abs=0.1)


class TestBssMetrics:
    def test_interference_counts_in_sir_and_noise_in_sar(self):
        try:
            import museval  # noqa: F401
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"museval cannot be imported: {error}")
        s = RNG.normal(size=(2, 4 * 4000))
        sdr, sir, sar = bss_metrics(s, s + 0.1 * s[::-1], 4000)
        assert sir == pytest.approx(20, abs=1)
        assert sdr == pytest.approx(20, abs=1)
        assert (sar > 30).all()
        _, sir, sar = bss_metrics(s, s + 0.1 * RNG.normal(size=s.shape), 4000)
        assert sar == pytest.approx(20, abs=2)
        assert (sir > 25).all()

    def test_missing_museval(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "museval", None)
        with pytest.raises(MissingExtraError):
            bss_metrics(np.ones((1, 9)), np.ones((1, 9)), 8)


class TestCommand:
    @pytest.fixture
    def stems(self, tmp_path):
        """Folders of true stems of 9 s and of stems with noise 20 dB below."""
        for row, name in enumerate(("soprano", "bass")):
            s = 0.1 * RNG.normal(size=9 * RATE)
            s[: row * 6 * RATE] = 0
            audio.write(tmp_path / "true" / f"{name}.wav", s, RATE, bit_depth="float32")
            noisy = s + 0.01 * RNG.normal(size=s.shape)
            audio.write(tmp_path / "found" / f"{name}.wav", noisy[: 9 * RATE - 100], RATE, bit_depth="float32")
        return tmp_path

    def run(self, folder):
        return CliRunner().invoke(main, ["evaluate", str(folder / "true"), str(folder / "found")])

    def test_table(self, stems):
        result = self.run(stems)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()[1:]
        rows = {line[:16].strip(): [float(cell) for cell in line[16:].split()] for line in lines}
        assert list(rows) == ["bass", "soprano", "all"]
        assert rows["soprano"] == pytest.approx([20, 20, 20], abs=0.2)
        assert rows["all"] == pytest.approx([20, 20, np.mean([rows["soprano"][2], rows["bass"][2]])], abs=0.2)

    def test_lengths_and_names_must_fit(self, stems):
        audio.write(stems / "found" / "bass.wav", np.ones(RATE), RATE)
        assert self.run(stems).exit_code == 2
        (stems / "found" / "bass.wav").unlink()
        result = self.run(stems)
        assert result.exit_code == 2
        assert "bass" in result.stderr
