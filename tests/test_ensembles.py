"""Random ensembles for the tracker: voices are described as they sing, and targets stay with the sound."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from melodies import PARTS, Sing, energy_at_harmonics, melody, piece, take

from vocalsep.errors import AudioError
from vocalsep.f0.network import describe
from vocalsep.training.data import Batch
from vocalsep.training.ensembles import SIZES, EnsembleSource
from vocalsep.training.takes import Piece, Take
from vocalsep.voices import VOICE_FMAX, VOICE_FMIN, parse_voices

pytestmark = pytest.mark.slow

FRAMES = 40


@pytest.fixture(scope="module")
def quartet(sing: Sing) -> Piece:
    return piece(sing, 1)


@pytest.fixture(scope="module")
def choir(sing: Sing) -> Piece:
    return piece(sing, 3)


@pytest.fixture(scope="module")
def source(choir: Piece, quartet: Piece) -> EnsembleSource:
    return EnsembleSource([choir], [quartet], frames=FRAMES, seed=3)


def ensembles(source: EnsembleSource, n_voices: int, number: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [source.ensemble(rng, n_voices) for _ in range(number)]


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("mixture", "f0", "voices"))


class TestBatches:
    def test_a_seed_gives_the_same_batches(self, choir, quartet):
        def batches(source_seed: int, seed: int) -> list[Batch]:
            rng = np.random.default_rng(seed)
            source = EnsembleSource([choir], [quartet], frames=FRAMES, seed=source_seed)
            return [source.draw(rng, 2) for _ in range(3)]

        first, again = batches(0, 5), batches(0, 5)
        assert all(equal(one, other) for one, other in zip(first, again, strict=True))
        assert not equal(first[0], batches(0, 6)[0])
        assert not equal(first[0], batches(1, 5)[0])  # other transpositions

    def test_batches_of_all_sizes(self, source):
        rng, sizes = np.random.default_rng(0), set()
        for _ in range(100):
            mixture, f0, _, voices, _ = source.draw(rng, 1)
            sizes.add(f0.shape[1])
            assert mixture.shape == (1, FRAMES * 256)
            assert f0.shape == (1, voices.shape[1], FRAMES + 1)
            assert mixture.dtype == f0.dtype == voices.dtype == torch.float32
            assert mixture.isfinite().all()
            sung = f0[f0 > 0] if f0.any() else torch.tensor([220.0])
            assert 110 * 2 ** (-9 / 12) < sung.min() <= sung.max() < 520 * 2 ** (9 / 12)
        assert sizes == set(SIZES)
        assert sum(SIZES.values()) == pytest.approx(1)

    def test_recordings_are_transposed_between_the_semitones_too(self, choir):
        source = EnsembleSource([choir], frames=FRAMES, seed=0)
        highest = [recorded["alto"][0].f0.max() for recorded in source.recorded]
        shifts = 12 * np.log2(highest / choir["alto"][0].f0.max())
        np.testing.assert_allclose(shifts, np.arange(-4, 5), atol=0.6)
        assert np.std(shifts % 1) > 0.1

    def test_takes_that_are_too_short(self, sing, choir):
        for pieces in ([choir], []):
            with pytest.raises(AudioError):
                EnsembleSource(pieces, frames=165, augmented=False)
        short = {**choir, "bass": [take(melody(110, 30), sing)]}
        assert list(EnsembleSource([short], frames=FRAMES, augmented=False).recorded[0]) == ["soprano", "alto", "tenor"]


class TestUnaugmented:
    def test_a_quartet_is_the_sum_of_its_takes(self, quartet):
        source = EnsembleSource([quartet], frames=FRAMES, augmented=False)
        takes = [quartet[part][0] for part in PARTS]
        for seed in range(4):
            mixture, f0, _, voices, _ = source.draw(np.random.default_rng(seed), 1)
            sums = [
                sum(t.excerpt(first, FRAMES)[0] for t in takes)
                for first in range(takes[0].n_frames - FRAMES + 1)
                if np.allclose([t.f0[0, first : first + FRAMES] for t in takes], f0[0, :, :-1], rtol=1e-6)
            ]
            assert min(np.abs(mixture[0].numpy() - total).max() for total in sums) < 1e-6
            torch.testing.assert_close(voices[0], describe(parse_voices("SATB")))

    def test_a_choir_sings_each_part_once(self, choir):
        source = EnsembleSource([choir], frames=FRAMES, augmented=False)
        for sung, voices in ensembles(source, 4, 10):
            assert [voice.part for voice in sung] == [voice.name for voice in voices] == list(PARTS)


class TestVoices:
    def test_parts_are_described_from_high_to_low_and_equal_parts_by_their_f0(self, source):
        twice = 0
        for sung, described in ensembles(source, 6, 40):
            if described[0].name == "voice1":
                continue
            order = [list(PARTS).index(voice.part) for voice in sung]
            assert order == sorted(order)
            assert [voice.name for voice in described] == [voice.part for voice in sung]
            for one, other in pairwise(sung):
                if one.part == other.part:
                    twice += 1
                    assert one.median_f0 >= other.median_f0
            for voice, description in zip(sung, described, strict=True):
                part = parse_voices([voice.part])[0]
                assert abs(np.log2(description.fmin / part.fmin)) < 0.5
                assert abs(np.log2(description.fmax / part.fmax)) < 0.5
                assert description.fmin != part.fmin
        assert twice > 10

    def test_some_ensembles_are_described_by_their_number_and_ordered_by_f0(self, source):
        drawn = ensembles(source, 5, 100)
        numbered = [(sung, described) for sung, described in drawn if described[0].name == "voice1"]
        assert 0.1 < len(numbered) / len(drawn) < 0.35
        for sung, described in numbered:
            medians = [voice.median_f0 for voice in sung]
            assert medians == sorted(medians, reverse=True)
            assert [voice.name for voice in described] == [f"voice{k + 1}" for k in range(5)]
            assert {(voice.fmin, voice.fmax) for voice in described} == {(VOICE_FMIN, VOICE_FMAX)}

    def test_resting_voices_have_neither_f0_nor_sound_and_keep_their_place(self, source):
        rests = all_rest = 0
        for sung, _ in ensembles(source, 4, 200):
            silent = [not voice.waveform.any() for voice in sung]
            rests += sum(silent)
            all_rest += all(silent)
            for voice, rest in zip(sung, silent, strict=True):
                assert voice.waveform.shape == (FRAMES * 256,)
                assert not (rest and voice.f0.any())
                assert voice.median_f0 > 0
        assert 40 < rests < 160
        assert all_rest < 10

    def test_a_voice_that_rests_in_an_excerpt_has_the_median_f0_of_the_take(self):
        f0 = np.concatenate([np.zeros(200), np.full(5, 300.0)]).astype(np.float32)
        late = {part: [Take(np.zeros(205 * 256, np.float32), f0[None])] for part in PARTS}
        source = EnsembleSource([late], frames=FRAMES, augmented=False)
        for sung, _ in ensembles(source, 4, 3):
            assert [voice.median_f0 for voice in sung] == pytest.approx([300] * 4)


def test_sections_are_singers_of_one_part_in_time(sing):
    """Every singer sounds on a constant of its own: sums of them, within 3 dB each, show who sings together."""
    f0 = np.full((1, 160), 200.0, np.float32)
    levels = {"soprano": 1.0, "bass": 100.0}
    constant = {
        part: [Take(np.full(160 * 256, level, np.float32), f0) for _ in range(3)] for part, level in levels.items()
    }
    source = EnsembleSource([constant], frames=FRAMES)
    sizes = []
    for sung, _ in ensembles(source, 2, 150):
        for voice in sung:
            if voice.waveform.any():
                assert 10 ** (-3 / 20) <= voice.waveform[0] / levels[voice.part] <= 3 * 10 ** (3 / 20) + 1e-4
                sizes.append(voice.waveform[0] / levels[voice.part])
    assert 0.1 < np.mean(np.abs(np.array(sizes) - 1) > 1e-5) < 0.4


def test_augmented_mixtures_keep_their_f0(choir):
    source, rng = EnsembleSource([choir], frames=FRAMES), np.random.default_rng(0)
    batches = [source.draw(rng, 1) for _ in range(20)]
    shares = [energy_at_harmonics(batch.mixture[0], batch.f0[0]) for batch in batches if batch.f0.any()]
    assert np.median(shares) > 0.85
