"""What holds for both kinds of NMF, and the parts of each."""

import numpy as np
import pytest
import torch

from vocalsep.evaluation.baselines import nmf, source_filter_nmf
from vocalsep.evaluation.baselines.nmf import divergence, separate_nmf
from vocalsep.evaluation.baselines.source_filter_nmf import separate_source_filter_nmf
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.tracks import F0Tracks

both = pytest.mark.parametrize("separate", [separate_nmf, separate_source_filter_nmf])


@pytest.fixture(scope="module")
def duet(sing) -> tuple[np.ndarray, F0Tracks]:
    """Stems and f0 of two voices of 2 s that move apart; both rest in the middle, the upper one longer."""
    time = np.arange(126) * 0.016
    f0 = np.float32([520 * 2 ** (0.1 * np.sin(5 * time)), 196 * 2 ** (0.1 * np.cos(4 * time))])
    f0[0, 50:90] = 0
    f0[1, 60:80] = 0
    return sing(f0), F0Tracks(f0, ("soprano", "tenor"))


@both
class TestSeparation:
    def test_voices_are_separated_and_iterations_help(self, separate, duet):
        stems, tracks = duet
        mixture = stems.sum(axis=0)
        before = si_sdr(stems, np.broadcast_to(mixture, stems.shape))
        first, found = (si_sdr(stems, separate(mixture, tracks, iterations=n)) for n in (0, 5))
        assert (found > before + 10).all()
        assert found.mean() > first.mean() + 1

    @pytest.mark.parametrize("voices", [1, 3])
    def test_stems_add_up(self, separate, voices, sing):
        f0 = np.float32([[440], [330], [220]])[:voices] * np.ones(40, np.float32)
        mixture = sing(f0).sum(axis=0)
        found = separate(mixture, F0Tracks(f0, ("a", "b", "c")[:voices]), iterations=2)
        assert found.shape == (voices, len(mixture))
        assert found.dtype == np.float32
        assert np.abs(found.sum(axis=0) - mixture).max() < 1e-5

    def test_level_does_not_matter(self, separate, duet):
        stems, tracks = duet
        mixture = stems.sum(axis=0)
        quiet = 100 * separate(0.01 * mixture, tracks, iterations=3)
        assert (si_sdr(separate(mixture, tracks, iterations=3), quiet) > 30).all()

    def test_a_voice_that_never_sings_gets_next_to_nothing(self, separate, duet):
        stems, tracks = duet
        f0 = np.concatenate([tracks.frequencies[1:], np.zeros((1, 126), np.float32)])
        found = separate(stems[1], F0Tracks(f0, ("tenor", "bass")))
        sings = slice(2000, 10000)
        assert (found[1, sings] ** 2).sum() < 1e-4 * (found[0, sings] ** 2).sum()

    @pytest.mark.parametrize("frequency", [0.0, 220.0])
    def test_silence_stays_silence(self, separate, frequency):
        tracks = F0Tracks(np.full((2, 40), frequency, np.float32), ("a", "b"))
        assert (separate(np.zeros(10000, np.float32), tracks) == 0).all()

    def test_rests_are_shared_equally(self, separate):
        noise = np.random.default_rng(0).normal(size=10000).astype(np.float32)
        found = separate(noise, F0Tracks(np.zeros((2, 40), np.float32), ("a", "b")))
        np.testing.assert_allclose(found, np.broadcast_to(noise / 2, found.shape), atol=1e-5)

    def test_is_deterministic(self, separate, duet):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(separate(duet[0].sum(axis=0), duet[1], iterations=2))
        np.testing.assert_array_equal(*found)

    def test_chunks_equal_the_whole(self, separate, duet, monkeypatch):
        mixture = duet[0].sum(axis=0)
        whole = separate(mixture, duet[1], iterations=3)
        monkeypatch.setattr(nmf, "CHUNK_FRAMES", 25)
        np.testing.assert_allclose(separate(mixture, duet[1], iterations=3), whole, atol=1e-5)


class TestNmf:
    def test_divergence_is_that_of_the_definition(self):
        v, m = torch.rand(2, 5, 7).double() + 0.1
        assert divergence(v, m) == pytest.approx(float((v * torch.log(v / m) - v + m).sum()))
        assert divergence(v, v) == 0 < divergence(v, 1.1 * v)

    def test_templates_are_zero_off_the_harmonics(self):
        template = nmf.harmonic_templates(torch.tensor([500.0]))[:, 0]  # harmonics fall on every 64th bin
        expected = torch.zeros(nmf.GRID.n_bins, dtype=torch.bool)
        expected[64::64] = True
        assert template[expected].min() > 0
        assert (template[32::64] == 0).all()
        assert template[:150].nonzero().flatten().tolist() == [*range(62, 67), *range(126, 131)]  # the main lobe
        assert float(template[64] / template[128]) == pytest.approx(2**1.5)

    def test_a_pitch_sounds_only_where_it_is_sung(self):
        f0 = torch.tensor([0.0, 0, 0, 440, 440, 0, 0, 0, 466.1638, 0, 0])
        pitches, sounding = nmf.sung_pitches(f0)
        np.testing.assert_allclose(pitches, [440, 466.1638], rtol=1e-5)
        reach = 2  # frames before and after
        for row, (first, last) in zip(sounding, [(3, 5), (8, 9)], strict=True):
            expected = np.zeros(11)
            expected[first - reach : last + reach] = 1
            np.testing.assert_array_equal(row, expected)

    def test_pitches_are_within_half_a_step(self):
        f0 = torch.logspace(2, 3, 200)
        pitches, sounding = nmf.sung_pitches(f0)
        own = pitches[:, None].expand(sounding.shape)[sounding > 0]
        cents = 1200 * torch.log2(own / f0.expand(sounding.shape)[sounding > 0])
        step = 1200 * np.log2(10) / 199  # of f0, per frame
        assert cents.abs().max() <= 10 + 2 * step + 0.01
        assert len(nmf.sung_pitches(torch.zeros(5))[0]) == 0

    def test_the_divergence_falls_and_zeros_stay(self):
        generator = torch.Generator().manual_seed(0)
        v = torch.rand(40, 30, generator=generator)
        w, h = (
            torch.rand(shape, generator=generator).bernoulli(0.5, generator=generator) for shape in ((40, 6), (6, 30))
        )
        silent_w, silent_h = w == 0, h == 0
        values = []
        for _ in range(12):
            values.append(divergence(v, w @ h + nmf.FLOOR))
            w, h = nmf.factorize(v, w, h, 1)
        assert (np.diff(values) <= 1e-6 * values[0]).all()
        assert values[-1] < 0.8 * values[0]
        assert (w[silent_w] == 0).all()
        assert (h[silent_h] == 0).all()

    def test_a_product_is_found_again(self):
        generator = torch.Generator().manual_seed(1)
        w, h = torch.rand(20, 2, generator=generator), torch.rand(2, 30, generator=generator)
        w[:10, 0] = w[10:, 1] = 0  # what is apart has one factorisation
        found_w, found_h = nmf.factorize(w @ h, (w > 0).float(), torch.ones_like(h), 200)
        for voice in range(2):
            found, expected = (x[:, [voice]] @ y[[voice]] for x, y in ((found_w, found_h), (w, h)))
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-3)


class TestSourceFilterNmf:
    def test_bumps_add_up_to_one_and_are_smooth(self):
        bumps = source_filter_nmf.smooth_bumps()
        np.testing.assert_allclose(bumps.sum(dim=1), 1, rtol=1e-6)
        assert bumps.min() == 0
        assert bumps.diff(dim=0).abs().max() < 0.03

    def test_excitation_is_a_falling_comb_over_breath(self):
        f0 = torch.tensor([[250.0], [0.0]]).repeat(1, 20)
        excitation = source_filter_nmf.excitations(f0)
        assert (excitation[1] == 0).all()
        comb = excitation[0, 10]
        peaks, valleys = comb[32::32][:30], comb[16::32][:30]
        assert (peaks[1:] < peaks[:-1]).all()
        assert (valleys < 0.02 * peaks).all()
        assert valleys.min() > 0

    def test_the_divergence_falls_and_silence_stays(self):
        generator = torch.Generator().manual_seed(0)
        v = torch.rand(300, 50, generator=generator)  # more than a chunk of frames
        excitation = torch.rand(2, 300, 50, generator=generator)
        excitation[0, 100:150] = 0
        bumps = torch.rand(50, 8, generator=generator)
        b = source_filter_nmf.first_filters(2, 8)
        g = source_filter_nmf.first_gains(v, excitation)
        values = []
        for _ in range(12):
            model = source_filter_nmf.voice_magnitudes(excitation, bumps, b, g).sum(dim=0)
            values.append(divergence(v, model + nmf.FLOOR))
            b, g = source_filter_nmf.factorize(v, excitation, bumps, b, g, 1)
        assert (np.diff(values) < 0).all()
        assert (g[0, 100:150] == 0).all()
        assert (g[1] > 0).all()
        assert torch.isfinite(b).all()

    def test_a_filter_is_found_again(self):
        """A voice with a formant: its model follows the formant, which the excitation does not have."""
        f0 = torch.full((1, 40), 150.0)
        excitation = source_filter_nmf.excitations(f0)
        formant = torch.exp(-0.5 * ((nmf.GRID.frequencies() - 2000) / 400) ** 2) + 0.01
        bumps = source_filter_nmf.smooth_bumps()
        v = excitation[0] * formant
        b, g = source_filter_nmf.first_filters(1, bumps.shape[1]), source_filter_nmf.first_gains(v, excitation)
        b, g = source_filter_nmf.factorize(v, excitation, bumps, b, g, 100)
        found = (bumps @ b[0] @ g[0, 20]).log() - formant.log()
        loud = formant > 0.1
        assert found[loud].std() < 0.1  # nepers, where ln(formant) itself varies by 0.6
