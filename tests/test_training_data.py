"""Takes, f0 errors, and the sources that draw training excerpts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from melodies import energy_at_harmonics, melody, piece, take

from vocalsep.errors import AudioError, OptionError
from vocalsep.model.room import RoomParameters
from vocalsep.training.data import MixedSource, MixtureSource, SingerSource
from vocalsep.training.f0_errors import with_errors
from vocalsep.training.rooms import Rooms, aligned
from vocalsep.training.sections import section
from vocalsep.training.takes import Take, section_f0, split_piece

FRAMES = 60


@pytest.fixture(scope="module")
def singers(sing):
    return piece(sing, 2)


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    """One room with a T60 of 1 s and a direct-to-reverberant ratio of -3 dB."""
    t = np.arange(16000) / 16000
    response = np.random.default_rng(0).normal(size=16000) * 10 ** (-3 * t)
    response[: 8 * 16] = 0
    response *= 10 ** (3 / 20) / np.sqrt((response**2).sum())
    response[0] = 1.0
    return Rooms([aligned(response.astype(np.float32))[None]])


@pytest.fixture(scope="module")
def source(singers) -> SingerSource:
    return SingerSource([singers], frames=FRAMES)


class TestTakes:
    def test_excerpts_and_parts(self):
        whole = Take(np.arange(40 * 256 + 9, dtype=np.float32), np.arange(1, 42, dtype=np.float32)[None])
        assert whole.n_frames == 40
        samples, f0 = whole.excerpt(3, 5)
        assert (samples[0], len(samples)) == (3 * 256, 5 * 256)
        assert f0.tolist() == [[4, 5, 6, 7, 8, 9]]
        end = whole.part(0.75, 1)
        assert (end.waveform[0], end.f0[0, 0], end.n_frames) == (30 * 256, 31, 10)
        assert end.excerpt(5, 5)[1].tolist() == [[36, 37, 38, 39, 40, 0]]

    @pytest.mark.parametrize("held_out", [0.123, 0.5])
    def test_held_out_parts_never_overlap_training_parts(self, held_out):
        parts = {"soprano": [Take(np.arange(777 * 256, dtype=np.float32), np.ones((1, 777), np.float32))]}
        training, held = (group["soprano"][0] for group in split_piece(parts, held_out))
        assert training.waveform[-1] < held.waveform[0]
        assert len(training.waveform) + len(held.waveform) == 777 * 256
        assert held.n_frames == pytest.approx(777 * held_out, abs=1)

    @pytest.mark.parametrize("held_out", [0.0, 0.6, float("nan")])
    def test_held_out_fractions_out_of_range(self, held_out, singers):
        with pytest.raises(OptionError) as caught:
            split_piece(singers, held_out)
        assert caught.value.parameter == "held_out"

    @pytest.mark.parametrize(("singers", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
    def test_a_section_sings_a_note_if_half_of_its_singers_do(self, singers, needed):
        for n in range(singers + 1):
            f0 = np.where(np.arange(singers) < n, 200.0 + 10.0 * np.arange(singers), 0.0)[:, None]
            expected = np.exp(np.log(f0[:n]).mean()) if n >= needed else 0.0
            np.testing.assert_allclose(section_f0(f0), expected, rtol=1e-6)


class TestSingerSource:
    def test_seeds_reproduce_batches(self, source):
        one, other, third = ([source.draw(rng, 2) for _ in range(3)] for rng in map(np.random.default_rng, (5, 5, 6)))
        for first, second in zip(one, other, strict=True):
            assert torch.equal(first.mixture, second.mixture)
            assert torch.equal(first.f0, second.f0)
        assert not torch.equal(one[0].mixture, third[0].mixture)

    def test_batches(self, source):
        rng, numbers = np.random.default_rng(0), set()
        for _ in range(20):
            mixture, f0, stems, _, room = source.draw(rng, 3)
            numbers.add(f0.shape[1])
            assert mixture.shape == (3, FRAMES * 256)
            assert f0.shape[::2] == (3, FRAMES + 1)
            assert mixture.dtype == f0.dtype == torch.float32
            assert mixture.isfinite().all()
            assert 0 < mixture.abs().max() <= 1.0001
            # Stems have the room and the level of the mixture; the rest is noise, 30 dB below it or less.
            assert (mixture - stems.sum(dim=1)).std() < 0.05 * mixture.std()
            assert room is None
            voiced = f0[f0 > 0]
            assert 110 * 2 ** (-7.3 / 12) < voiced.min() < voiced.max() < 520 * 2 ** (7.3 / 12)
            assert ((f0 > 0).any(dim=1).float().mean(dim=-1) > 0.15).all()
        assert numbers == {2, 3, 4, 5, 6}

    def test_voices_are_sections_in_augmented_ensembles_only(self, singers, monkeypatch):
        sizes: dict[bool, list[int]] = {True: [], False: []}
        for augmented, found in sizes.items():

            def counted(*arguments, found=found):
                found.append(arguments[3])
                return section(*arguments)

            monkeypatch.setattr("vocalsep.training.data.section", counted)
            source = SingerSource([singers], frames=FRAMES, augmented=augmented)
            rng = np.random.default_rng(0)
            for _ in range(15):
                source.draw(rng, 4)
        assert set(sizes[False]) == {1}
        assert set(sizes[True]) == {1, 2, 3, 4, 5, 6}
        assert np.mean(np.array(sizes[True]) > 1) == pytest.approx(0.3, abs=0.1)

    def test_voices_of_one_part_are_other_singers(self, singers):
        """As long as there are enough: two of each part make up to eight voices."""
        source = SingerSource([singers], voices=(6, 6), frames=159, augmented=False)
        rng = np.random.default_rng(0)
        together = 0
        for _ in range(20):
            takes = [takes[0] for takes, _ in source._in_time(rng, 6)]
            together += len({id(take) for take in takes})
        assert together == 20 * 6

    def test_half_of_the_ensembles_sing_in_a_room(self, singers, rooms):
        source = SingerSource([singers], voices=(3, 3), frames=159, augmented=False, rooms=rooms)
        rng = np.random.default_rng(0)
        batches = [source.draw(rng, 4) for _ in range(20)]
        found = [RoomParameters.of() if batch.room is None else batch.room for batch in batches]
        times = torch.stack([room.reverberation_time.expand(4) for room in found]).flatten()
        ratios = torch.stack([room.ratio.expand(4) for room in found]).flatten()
        wet = times > 0
        assert 0.35 < wet.float().mean() < 0.65
        assert (ratios[~wet] == torch.inf).all()
        # Errors of an estimate, and up to 4 dB for the places of room and singers.
        assert 0.65 < times[wet].min() < 0.9 < 1.1 < times[wet].max() < 1.35
        assert -3 - 7.5 < ratios[wet].min() < -4 < -2 < ratios[wet].max() < -3 + 7.5
        for batch in batches:
            torch.testing.assert_close(batch.stems.sum(dim=1), batch.mixture)

    def test_stems_have_the_reverberation_of_the_mixture(self, singers, rooms):
        """Frames at the end of notes, where a voice rests, are silent without a room only."""
        source = SingerSource([singers], voices=(4, 4), frames=159, augmented=False, rooms=rooms)
        rng = np.random.default_rng(0)
        levels: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(12):
            batch = source.draw(rng, 1)
            energy = batch.stems[0].reshape(4, 159, 256).square().mean(dim=-1)
            sung = torch.nn.functional.max_pool1d((batch.f0[0, :, :159] > 0).float(), 7, 1, 3) > 0
            after = ~sung & (sung.cumsum(dim=1) > 0)
            if after.any():
                levels[batch.room is not None].append(float(energy[after].mean() / energy[sung].mean()))
        assert np.mean(levels[True]) > 10 * np.mean(levels[False])

    def test_mixtures_have_the_f0_of_the_batch(self, singers):
        source = SingerSource([singers], voices=(2, 2), frames=FRAMES, augmented=False)
        rng = np.random.default_rng(0)
        for _ in range(5):
            batch = source.draw(rng, 1)
            assert energy_at_harmonics(batch.mixture[0], batch.f0[0]) > 0.9

    def test_unaugmented_ensembles_are_sums_of_takes(self, singers):
        source = SingerSource([singers], voices=(4, 4), frames=159, augmented=False)
        mixture, f0, stems, *_ = source.draw(np.random.default_rng(0), 1)
        torch.testing.assert_close(stems.sum(dim=1), mixture)
        takes = [take for group in singers.values() for take in group]
        total = sum(next(t for t in takes if np.array_equal(t.f0[0], row)).waveform for row in f0[0].numpy())
        ratio = mixture[0].numpy() / np.where(np.abs(total) > 1e-3, total, np.nan)
        np.testing.assert_allclose(ratio[~np.isnan(ratio)], np.nanmedian(ratio), rtol=1e-3)

    def test_f0_errors_come_in_the_stated_share(self, sing):
        f0 = np.full((1, 200), 200.0, np.float32)
        bass = Take(sing(f0)[0], f0)
        source = SingerSource([{"bass": [bass]}], (2, 2), 60, augmented=False, f0_errors=0.5)
        rng = np.random.default_rng(0)
        assert 0.3 < np.mean([bool((source.draw(rng, 1).f0 != 200).any()) for _ in range(60)]) < 0.7


class TestMixtures:
    def test_batches_have_one_number_of_voices(self, sing):
        duet = take(np.stack([melody(400, 100, 1), melody(200, 100, 2)]), sing)
        trio = take(np.stack([melody(400, 100, 3), melody(250, 100, 4), melody(120, 100, 5)]), sing)
        source = MixtureSource([duet, trio], frames=FRAMES)
        rng, numbers = np.random.default_rng(0), set()
        for _ in range(12):
            batch = source.draw(rng, 2)
            assert batch.stems is None
            numbers.add(batch.f0.shape[1])
            assert (batch.mixture.shape, batch.f0.shape[2]) == ((2, FRAMES * 256), FRAMES + 1)
        assert numbers == {2, 3}

    def test_batches_have_the_rooms_of_the_recordings(self, sing):
        dry = take(melody(300, 100), sing)
        wet = replace(dry, room=RoomParameters.of(1.5, 3.0))
        batch = MixtureSource([dry, wet], frames=20).draw(np.random.default_rng(0), 20)
        assert set(batch.room.reverberation_time.tolist()) == {0.0, 1.5}
        assert MixtureSource([dry], frames=20).draw(np.random.default_rng(0), 2).room is None

    def test_mixed_sources_keep_their_share(self, sing):
        soprano = take(melody(300, 100), sing)
        solo = MixtureSource([soprano], frames=20)
        duet = SingerSource([{"soprano": [soprano]}], (2, 2), 20, augmented=False)
        rng, source = np.random.default_rng(0), MixedSource(solo, duet, 0.25)
        sizes = [source.draw(rng, 1).f0.shape[1] for _ in range(200)]
        assert sizes.count(1) / 200 == pytest.approx(0.25, abs=0.1)

    def test_recordings_that_are_too_short(self, singers):
        for make, data in ((SingerSource, [singers]), (MixtureSource, [group[0] for group in singers.values()])):
            with pytest.raises(AudioError, match=r"2\.7 s"):
                make(data, frames=170)


class TestErrorsOfF0:
    F0 = np.repeat([[440.0], [300.0], [150.0]], 250, axis=1).astype(np.float32)

    def test_seeds_reproduce_them_and_the_input_stays(self):
        before = self.F0.copy()
        one, other = (with_errors(self.F0, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(one, other)
        assert np.array_equal(before, self.F0)
        assert not np.array_equal(one, self.F0)
        assert (one.dtype, one.shape) == (np.float32, self.F0.shape)

    def test_most_frames_are_a_few_cents_off(self):
        found = np.concatenate([with_errors(self.F0, np.random.default_rng(seed)) for seed in range(20)])
        truth = np.tile(self.F0, (20, 1))
        both = found > 0
        cents = 1200 * np.log2(found[both] / truth[both])
        near = np.abs(cents) < 50
        assert near.mean() > 0.95
        assert 4 < cents[near].std() < 10

    def test_gaps_and_ghosts(self):
        """Three of ten voices have a gap of 5 to 29 frames; three of ten a ghost, which a resting voice shows."""
        sung = [with_errors(self.F0[:1], np.random.default_rng(seed))[0] for seed in range(200)]
        gaps = np.array([int((row == 0).sum()) for row in sung])
        assert 0.2 < np.mean(gaps > 0) < 0.45
        assert gaps.max() < 40
        resting = [with_errors(0 * self.F0[:1], np.random.default_rng(seed))[0] for seed in range(200)]
        ghosts = [row for row in resting if row.any()]
        assert 0.05 < len(ghosts) / 200 < 0.35  # most ghosts are notes of other voices, and here nobody sings
        assert all(100 <= row[row > 0].min() <= row.max() <= 500 for row in ghosts)

    def test_borders_move_by_up_to_a_tenth_of_a_second(self):
        f0 = self.F0[:1].copy()
        f0[:, 100:150] = 0
        moves = []
        for seed in range(100):
            found = with_errors(f0, np.random.default_rng(seed))[0, 80:170] > 0
            borders = np.flatnonzero(np.diff(found.astype(int)))
            if len(borders) == 2:  # neither a gap nor a ghost
                moves += [borders[0] - 19, borders[1] - 69]
        assert np.mean(np.abs(moves) <= 6) > 0.9
        assert len({move for move in moves if abs(move) <= 6}) > 8
