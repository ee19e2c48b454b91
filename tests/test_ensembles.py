"""Ensembles with targets: their voices are described as they sing, and the loss is least where they are right."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import AudioError
from vocalsep.f0.network import Logits, Tracker, TrackerConfig, describe
from vocalsep.training import ensembles
from vocalsep.training.data import Take
from vocalsep.training.ensembles import SIZES, EnsembleBatch, EnsembleSource
from vocalsep.training.losses import TrackerLoss, tracking_loss
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN, parse_voices

PARTS = {"soprano": 520.0, "alto": 330.0, "tenor": 210.0, "bass": 110.0}
FRAMES = 40


def melody(f0: float, frames: int, seed: int) -> np.ndarray:
    """Notes of a third of a second around f0 with a rest now and then, shape (1, frames)."""
    rng = np.random.default_rng(seed)
    notes = np.repeat(rng.integers(-3, 4, -(-frames // 20)), 20)[:frames]
    rests = np.repeat(rng.random(-(-frames // 20)) < 0.15, 20)[:frames]
    return np.where(rests, 0, f0 * 2 ** (notes / 12))[None].astype(np.float32)


def take(part: str, seed: int, sing, frames: int = 130) -> Take:
    f0 = melody(PARTS[part], frames, seed)
    return Take(f"{part}_{seed}", sing(f0)[0], f0)


@pytest.fixture(scope="module")
def quartet(sing) -> dict[str, list[Take]]:
    return {part: [take(part, 1, sing)] for part in PARTS}


@pytest.fixture(scope="module")
def choir(sing) -> dict[str, list[Take]]:
    """Three singers of each part."""
    return {part: [take(part, seed, sing) for seed in (1, 2, 3)] for part in PARTS}


@pytest.fixture(scope="module")
def source(choir, quartet) -> EnsembleSource:
    return EnsembleSource([choir], [quartet], frames=FRAMES, seed=3)


def equal(one: EnsembleBatch, other: EnsembleBatch) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


class TestBatches:
    def test_a_seed_gives_the_batches(self, choir, quartet) -> None:
        def batches(source_seed: int, seed: int) -> list[EnsembleBatch]:
            rng = np.random.default_rng(seed)
            made = EnsembleSource([choir], [quartet], frames=FRAMES, seed=source_seed)
            return [made.draw(rng, 2) for _ in range(4)]

        first, again = batches(0, 5), batches(0, 5)
        assert all(equal(one, other) for one, other in zip(first, again, strict=True))
        assert not equal(first[0], batches(0, 6)[0])
        assert not equal(first[0], batches(1, 5)[0])  # transposed otherwise

    def test_batches_of_all_sizes(self, source) -> None:
        rng, sizes = np.random.default_rng(0), set()
        for _ in range(120):
            mixture, f0, voices = source.draw(rng, 1)
            sizes.add(f0.shape[1])
            assert mixture.shape == (1, FRAMES * 256)
            assert f0.shape == (1, voices.shape[1], FRAMES + 1)
            assert mixture.dtype == f0.dtype == voices.dtype == torch.float32
            assert mixture.isfinite().all()
            sung = f0[f0 > 0] if f0.any() else torch.tensor([220.0])
            assert 110 * 2 ** (-7.6 / 12) < sung.min() <= sung.max() < 520 * 2 ** (7.6 / 12)
        assert sizes == set(SIZES)

    def test_the_shares_of_sizes_are_all(self) -> None:
        assert sum(SIZES.values()) == pytest.approx(1)

    def test_recordings_are_transposed_in_steps_that_favour_no_grid(self, choir) -> None:
        made = EnsembleSource([choir], frames=FRAMES, seed=0)
        shifts = [12 * np.log2(piece["alto"][0].f0.max() / choir["alto"][0].f0.max()) for piece in made.recorded]
        assert len(shifts) == 9
        np.testing.assert_allclose(shifts, np.arange(-4, 5), atol=0.51)
        assert np.std(np.array(shifts) % 1) > 0.1

    def test_takes_that_are_too_short(self, sing, choir) -> None:
        with pytest.raises(AudioError, match=r"no recording lasts 2\.4 s"):
            EnsembleSource([choir], frames=150, augmented=False)
        with pytest.raises(AudioError, match="no recording lasts"):
            EnsembleSource([], [])
        short = {**choir, "bass": [take("bass", 1, sing, 30)]}
        assert list(EnsembleSource([short], frames=FRAMES, augmented=False).recorded[0]) == ["soprano", "alto", "tenor"]

    def test_synthetic_pieces_alone_will_do(self, quartet) -> None:
        made = EnsembleSource([], [quartet], frames=FRAMES)
        assert made.draw(np.random.default_rng(0), 2).mixture.abs().max() > 0

    def test_the_share_of_synthetic_pieces(self, quartet, choir, monkeypatch) -> None:
        """With other names of parts, so that they are told apart."""
        renamed = {f"{part}2": takes for part, takes in quartet.items()}
        monkeypatch.setattr(ensembles, "_TOGETHER", 1.0)
        for share in (0.0, 0.3, 1.0):
            made = EnsembleSource([choir], [renamed], frames=FRAMES, synthetic_share=share)
            rng = np.random.default_rng(0)
            heard = [made._ensemble(rng, 2)[0][0].part.endswith("2") for _ in range(150)]
            assert np.mean(heard) == pytest.approx(share, abs=0.1)


class TestUnaugmented:
    def test_a_quartet_is_the_sum_of_its_takes(self, quartet) -> None:
        made = EnsembleSource([quartet], frames=FRAMES, augmented=False)
        takes = [quartet[part][0] for part in PARTS]
        for seed in range(4):
            mixture, f0, voices = made.draw(np.random.default_rng(seed), 1)
            length = takes[0].n_frames - FRAMES
            starts = [
                first
                for first in range(length + 1)
                if np.allclose([t.f0[0, first : first + FRAMES] for t in takes], f0[0, :, :-1], rtol=1e-6)
            ]
            assert starts
            sums = [sum(t.waveform[first * 256 : (first + FRAMES) * 256] for t in takes) for first in starts]
            assert min(np.abs(mixture[0].numpy() - total).max() for total in sums) < 1e-6
            torch.testing.assert_close(voices[0], describe(parse_voices("SATB")))

    def test_a_choir_has_each_part_once_in_time(self, choir) -> None:
        made = EnsembleSource([choir], frames=FRAMES, augmented=False)
        rng = np.random.default_rng(0)
        for _ in range(10):
            sung, voices = made._ensemble(rng, 4)
            assert [voice.part for voice in sung] == [voice.name for voice in voices] == list(PARTS)


class TestVoices:
    def test_parts_are_described_from_high_to_low_and_alike_ones_by_register(self, source, monkeypatch) -> None:
        monkeypatch.setattr(ensembles, "_NUMBERED", 0.0)
        rng, twice = np.random.default_rng(0), 0
        for n_voices in (2, 4, 6, 8) * 6:
            sung, described = source._ensemble(rng, n_voices)
            order = [list(PARTS).index(voice.part) for voice in sung]
            assert order == sorted(order)
            assert [voice.name for voice in described] == [voice.part for voice in sung]
            for one, other in pairwise(sung):
                if one.part == other.part:
                    twice += 1
                    assert one.register >= other.register
            for voice, told in zip(sung, described, strict=True):
                part = parse_voices([voice.part])[0]
                assert abs(np.log2(told.fmin / part.fmin)) < 0.5
                assert abs(np.log2(told.fmax / part.fmax)) < 0.5
                assert told.fmin != part.fmin
        assert twice > 10

    def test_numbered_voices_are_ordered_by_register_and_may_be_anywhere(self, source, monkeypatch) -> None:
        monkeypatch.setattr(ensembles, "_NUMBERED", 1.0)
        rng = np.random.default_rng(0)
        for n_voices in (1, 3, 5, 8) * 4:
            sung, described = source._ensemble(rng, n_voices)
            registers = [voice.register for voice in sung]
            assert registers == sorted(registers, reverse=True)
            assert [voice.name for voice in described] == [f"voice{k + 1}" for k in range(n_voices)]
            assert {(voice.fmin, voice.fmax) for voice in described} == {(VOICE_FMIN, VOICE_FMAX)}
            for voice in sung:
                if (voice.f0 > 0).any():
                    assert voice.register == pytest.approx(float(np.median(voice.f0[voice.f0 > 0])))

    def test_voices_that_rest_have_neither_f0_nor_sound(self, source, monkeypatch) -> None:
        monkeypatch.setattr(ensembles, "_RESTING", 0.5)
        monkeypatch.setattr(ensembles, "_ALL_RESTING", 0.0)
        rng, rests = np.random.default_rng(0), 0
        for _ in range(30):
            sung, _ = source._ensemble(rng, 4)
            silent = [not voice.waveform.any() for voice in sung]
            rests += sum(silent)
            assert not all(silent)  # one sings
            for voice, rest in zip(sung, silent, strict=True):
                assert voice.waveform.shape == (FRAMES * 256,)
                assert not (rest and voice.f0.any())
                assert voice.register > 0  # it keeps its place
        assert 25 < rests < 75

    def test_an_ensemble_that_rests_makes_no_sound(self, source, monkeypatch) -> None:
        monkeypatch.setattr(ensembles, "_RESTING", 1.0)
        monkeypatch.setattr(ensembles, "_ALL_RESTING", 1.0)
        for seed in range(12):
            mixture, f0, _ = source.draw(np.random.default_rng(seed), 1)
            assert mixture.abs().max() < 1e-6
            assert not f0.any()


class TestSections:
    def section(self, source: EnsembleSource, tracks: list[np.ndarray], rng: np.random.Generator):
        singers = [Take("x", np.full(FRAMES * 256, 0.1, np.float32), np.float32(f0)[None]) for f0 in tracks]
        return source._section("alto", [(singer, 0) for singer in singers], rng)

    def test_f0_is_the_mean_in_cents(self, source) -> None:
        sung = self.section(source, [np.full(FRAMES, f) for f in (220.0, 222.0, 225.0)], np.random.default_rng(0))
        np.testing.assert_allclose(sung.f0[:-1], (220.0 * 222.0 * 225.0) ** (1 / 3), rtol=1e-6)
        # Each of three singers has a level of its own, within 3 dB.
        assert 0.3 * 10 ** (-3 / 20) < sung.waveform[0] < 0.3 * 10 ** (3 / 20)

    @pytest.mark.parametrize(("singers", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
    def test_half_of_the_singers_make_a_note(self, source, singers, needed) -> None:
        for sounding in range(singers + 1):
            tracks = [np.full(FRAMES, 200.0 if k < sounding else 0.0) for k in range(singers)]
            sung = self.section(source, tracks, np.random.default_rng(0))
            expected = 200.0 if sounding >= needed else 0.0
            np.testing.assert_allclose(sung.f0[:-1], expected, rtol=1e-6)

    def test_one_singer_is_left_as_recorded(self, source, choir) -> None:
        alto = choir["alto"][0]
        sung = source._section("alto", [(alto, 7)], np.random.default_rng(0))
        assert np.array_equal(sung.waveform, alto.waveform[7 * 256 : (7 + FRAMES) * 256])
        np.testing.assert_allclose(sung.f0, alto.f0[0, 7 : 8 + FRAMES], rtol=1e-6)

    def test_who_rests_in_an_excerpt_keeps_the_register_of_the_recording(self, source) -> None:
        f0 = np.concatenate([np.zeros(60), np.full(60, 300.0)]).astype(np.float32)
        singer = Take("x", np.zeros(120 * 256, np.float32), f0[None])
        assert source._section("alto", [(singer, 0)], np.random.default_rng(0)).register == pytest.approx(300)

    def test_sections_are_of_singers_of_one_part(self, choir, monkeypatch) -> None:
        monkeypatch.setattr(ensembles, "_SECTION", 1.0)
        made, seen = EnsembleSource([choir], frames=FRAMES), []

        def remember(part, takes, rng):
            seen.append((part, [take.name for take, _ in takes], {first for _, first in takes}))
            return EnsembleSource._section(made, part, takes, rng)

        monkeypatch.setattr(made, "_section", remember)
        rng = np.random.default_rng(0)
        for _ in range(10):
            seen.clear()
            made._together(rng, 4)
            names = [name for _, group, _ in seen for name in group]
            assert len(names) == len(set(names))
            assert len(set.union(*(firsts for _, _, firsts in seen))) == 1
            for part, group, _ in seen:
                assert 2 <= len(group) <= 3
                assert all(name.startswith(part) for name in group)


class TestMixing:
    def test_augmentation_keeps_the_length_and_changes_the_sound(self, source, choir) -> None:
        stems = np.stack([takes[0].waveform[: FRAMES * 256] for takes in choir.values()])
        before = stems.copy()
        plain = torch.from_numpy(stems.sum(axis=0))
        for seed in range(30):
            mixture = source._mix(stems, np.random.default_rng(seed))
            assert mixture.shape == plain.shape
            assert mixture.isfinite().all()
            assert (mixture - plain).abs().max() > 1e-3
        assert np.array_equal(stems, before)

    def test_what_is_sung_is_at_its_f0(self, choir) -> None:
        """Targets and augmented sound stay together: most power lies at harmonics of what is told."""
        made, rng = EnsembleSource([choir], frames=FRAMES), np.random.default_rng(0)
        grid, shares = StftGrid.of_duration(16000), []
        for _ in range(20):
            mixture, f0, _ = made.draw(rng, 1)
            level = power(mixture, grid)[0, :400, 5:-5]  # below 3.1 kHz
            bins = grid.frequencies()[:400, None]
            nearest = torch.full_like(level, torch.inf)
            for voice in f0[0, :, 5 : FRAMES - 4]:
                for around in (voice.roll(-2), voice, voice.roll(2)):
                    k = torch.round(bins / around.clamp_min(1)).clamp_min(1)
                    nearest = torch.minimum(nearest, torch.where(around > 0, (bins - k * around).abs(), torch.inf))
            if f0.any():
                shares.append(float(level[nearest < 30].sum() / level.sum()))
        assert np.median(shares) > 0.85


PITCHES = TrackerConfig().pitches()
N = len(PITCHES)


def bells(f0: torch.Tensor) -> torch.Tensor:
    """Logits of the target of each sung frame, shape (..., pitches)."""
    steps = 60 * torch.log2(f0[..., None].double() / PITCHES)
    return (-0.5 * steps**2).float()


class TestTrackingLoss:
    f0 = torch.tensor([[[220.0, 0.0, 331.7], [0.0, 101.3, 110.0]]])  # (batch, voices, frames)

    def right(self) -> Logits:
        """Logits that say what is so: the silence of 40 nats more or less than all pitches."""
        return Logits(bells(self.f0.clamp_min(100.0)), torch.where(self.f0 > 0, -40.0, 40.0))

    def test_knowing_nothing_costs_the_logarithm_of_the_choices(self) -> None:
        logits = Logits(torch.zeros(1, 2, 3, N), torch.zeros(1, 2, 3))
        assert float(tracking_loss(logits, self.f0, PITCHES)) == pytest.approx(np.log(N + 1), rel=1e-5)
        assert float(tracking_loss(logits, 0 * self.f0, PITCHES)) == pytest.approx(np.log(N + 1), rel=1e-5)

    def test_what_is_right_costs_the_entropy_of_the_targets(self) -> None:
        """Of a Gaussian of one step, ln sqrt(2 pi e) nats, in the four sung frames of six."""
        expected = 4 / 6 * 0.5 * np.log(2 * np.pi * np.e)
        assert float(tracking_loss(self.right(), self.f0, PITCHES)) == pytest.approx(expected, abs=0.01)

    def test_it_is_least_where_it_is_right(self) -> None:
        pitch, silent = (part.clone().requires_grad_() for part in self.right())
        tracking_loss(Logits(pitch, silent), self.f0, PITCHES).backward()
        assert pitch.grad.abs().max() < 1e-5
        assert silent.grad.abs().max() < 1e-5
        right = self.right()
        least = tracking_loss(right, self.f0, PITCHES)
        flat = Logits(0.5 * right.pitch, right.silent)
        for wrong in (
            right._replace(pitch=right.pitch.roll(1, -1)),
            right._replace(pitch=right.pitch.flip(1)),
            right._replace(silent=-right.silent),
            right._replace(silent=right.silent + 41),
            flat,
        ):
            assert tracking_loss(wrong, self.f0, PITCHES) > least + 0.05

    def test_the_centroid_of_the_target_is_the_f0(self) -> None:
        """To a tenth of a cent, also between two steps: the gradient of flat logits is that of the target."""
        f0 = torch.tensor([[[200.0, 201.0, 203.3, 440.0, 97.3]]])
        pitch = torch.zeros(1, 1, 5, N, requires_grad=True)
        tracking_loss(Logits(pitch, torch.zeros(1, 1, 5)), f0, PITCHES).backward()
        target = 1 / (N + 1) - 5 * pitch.grad
        centroid = (target * torch.arange(N)).sum(dim=-1)
        torch.testing.assert_close(centroid, 60 * torch.log2(f0 / PITCHES[0]).float(), atol=0.005, rtol=0)

    @pytest.mark.parametrize("beyond", [40.0, 62.0, 1190.0, 3000.0])
    def test_what_lies_outside_the_grid_does_not_count(self, beyond) -> None:
        generator = torch.Generator().manual_seed(0)
        pitch = torch.randn(1, 2, 3, N, generator=generator)
        silent = torch.randn(1, 2, 3, generator=generator)
        f0 = self.f0.clone()
        f0[..., 2] = beyond
        pitch.requires_grad_()
        found = tracking_loss(Logits(pitch, silent), f0, PITCHES)
        without = tracking_loss(Logits(pitch[..., :2, :], silent[..., :2]), f0[..., :2], PITCHES)
        torch.testing.assert_close(found, without)
        found.backward()
        assert pitch.grad[..., 2, :].abs().max() == 0
        assert pitch.grad[..., :2, :].abs().max() > 0

    def test_nothing_that_counts_costs_nothing(self) -> None:
        logits = Logits(torch.zeros(1, 1, 2, N), torch.zeros(1, 1, 2))
        assert tracking_loss(logits, torch.full((1, 1, 2), 5000.0), PITCHES) == 0


TINY = TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4)


class TestTrackerLoss:
    def test_it_is_that_of_the_network_on_the_mixture_whatever_its_level(self, source) -> None:
        torch.manual_seed(0)
        network, batch = Tracker(TINY).eval(), source.draw(np.random.default_rng(0), 2)
        loss = TrackerLoss(half=False)
        with torch.no_grad():
            found = float(loss(network, batch))
            assert float(loss(network, batch._replace(mixture=7 * batch.mixture))) == pytest.approx(found, abs=1e-4)
            assert float(loss(network, batch._replace(f0=batch.f0.flip(-1)))) != pytest.approx(found, abs=1e-4)

    def test_half_precision_is_near(self, source) -> None:
        torch.manual_seed(0)
        network, batch = Tracker(TINY).eval(), source.draw(np.random.default_rng(0), 2)
        with torch.no_grad():
            full, half = (float(TrackerLoss(half=half)(network, batch)) for half in (False, True))
        assert half == pytest.approx(full, rel=0.02)

    def test_every_weight_learns(self, source) -> None:
        torch.manual_seed(0)
        network = Tracker(TINY)
        TrackerLoss(half=False)(network, source.draw(np.random.default_rng(1), 2)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
