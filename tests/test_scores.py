"""Scores for synthetic singing: chorales out of music21, and random counterpoint."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from vocalsep.errors import MissingExtraError, OptionError
from vocalsep.training.scores import FERMATA_BEATS, Note, Score, _with_fermatas, chorales, counterpoint
from vocalsep.voices import parse_voices


def hertz(pitch: float) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def assert_sung_by_one_voice(notes: tuple[Note, ...]) -> None:
    assert all(note.duration > 0 and note.start >= 0 for note in notes)
    assert all(after.start >= note.stop - 1e-9 for note, after in pairwise(notes))


class TestScore:
    score = Score("two", ((Note(72, 0, 4), Note(74, 4, 4)), (Note(60, 1, 2), Note(59, 6, 3))), parse_voices("SB"))

    def test_a_cut_keeps_the_voices_in_time(self) -> None:
        cut = self.score.cut(2, 7)
        assert cut.parts == ((Note(72, 0, 2), Note(74, 2, 3)), (Note(60, 0, 1), Note(59, 4, 1)))
        assert self.score.beats == 9
        assert cut.beats == 5

    def test_transposition_moves_pitches_alone(self) -> None:
        moved = self.score.transposed(3)
        assert moved.transposed(-3) == self.score
        assert moved.parts[1] == (Note(63, 1, 2), Note(62, 6, 3))


def test_fermatas_hold_their_note_and_part_all_voices_at_one_time() -> None:
    """The upper voice holds at beat 2; the lower has moved on at beat 1 and ends with it."""
    upper = _with_fermatas([Note(72, 0, 2), Note(71, 2, 1)], np.array([2.0]))
    lower = _with_fermatas([Note(60, 0, 1), Note(62, 1, 1), Note(60, 2, 1)], np.array([2.0]))
    assert upper[0].stop == lower[1].stop == 2 + FERMATA_BEATS
    assert upper[1].start == lower[2].start == 2 + 2 * FERMATA_BEATS
    assert lower[0] == Note(60, 0, 1)


class TestCounterpoint:
    @pytest.mark.parametrize("n_voices", range(1, 9))
    def test_voices_stay_in_range_and_sing_one_note_at_a_time(self, n_voices: int) -> None:
        score = counterpoint(np.random.default_rng(n_voices), n_voices, 48)
        assert len(score.parts) == len(score.voices) == n_voices
        assert score.beats <= 48 + 1e-9
        for voice, notes in zip(score.voices, score.parts, strict=True):
            assert_sung_by_one_voice(notes)
            assert all(voice.fmin < hertz(note.pitch) < voice.fmax for note in notes)

    def test_voices_lie_from_high_to_low_however_they_are_described(self) -> None:
        for described in ("SATB", 4):
            score = counterpoint(np.random.default_rng(5), 4, 200, parse_voices(described))
            means = [np.mean([note.pitch for note in notes]) for notes in score.parts]
            assert means == sorted(means, reverse=True)

    def test_the_style_is_that_of_choirs(self) -> None:
        """Most motion is by step, strong beats are mostly consonant, voices rest, and they cross now and then."""
        rng = np.random.default_rng(0)
        steps, consonant, rests, crossed = [], [], 0, []
        for _ in range(12):
            score = counterpoint(rng, 4, 64, parse_voices("SATB"))
            for notes in score.parts:
                pairs = list(pairwise(notes))
                steps += [abs(after.pitch - note.pitch) for note, after in pairs]
                rests += sum(after.start - note.stop >= 4 for note, after in pairs)
            for beat in range(64):
                chord = [n.pitch for notes in score.parts for n in notes if n.start <= beat < n.stop]
                gaps = [(low - high) for k, high in enumerate(chord) for low in chord[k + 1 :]]
                consonant += [abs(gap) % 12 in (0, 3, 4, 5, 7, 8, 9) for gap in gaps]
                crossed += [gap > 0 for gap in gaps]
        assert np.mean(np.array(steps) <= 2) > 0.6
        assert np.mean(np.array(steps) > 4) > 0.03
        assert np.mean(consonant) > 0.75  # 7 of 12 by chance
        assert rests > 5
        assert 0 < np.mean(crossed) < 0.1

    def test_a_seed_gives_a_score(self) -> None:
        first, again, other = (counterpoint(np.random.default_rng(seed), 5, 40) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_voices_must_be_as_many_as_asked_for(self) -> None:
        with pytest.raises(OptionError, match="n_voices = 3"):
            counterpoint(np.random.default_rng(0), 3, 8, parse_voices("SB"))


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    pytest.importorskip("music21", reason="the chorales come with music21, a development extra")
    return chorales(limit=4)


class TestChorales:
    def test_they_are_for_four_voices_from_high_to_low(self, scores: list[Score]) -> None:
        assert len({score.name for score in scores}) == 4
        for score in scores:
            assert [voice.name for voice in score.voices] == ["soprano", "alto", "tenor", "bass"]
            means = [np.mean([note.pitch for note in notes]) for notes in score.parts]
            assert means == sorted(means, reverse=True)
            for notes in score.parts:
                assert_sung_by_one_voice(notes)
                assert notes[-1].stop == pytest.approx(score.beats, abs=4)

    def test_chords_are_mostly_consonant(self, scores: list[Score]) -> None:
        """Only if the voices are in time with one another."""
        consonant = []
        for score in scores:
            for note in score.parts[3]:
                above = [n.pitch for part in score.parts[:3] for n in part if n.start <= note.start + 1e-6 < n.stop]
                consonant += [(pitch - note.pitch) % 12 in (0, 3, 4, 7, 8, 9) for pitch in above]
        assert np.mean(consonant) > 0.8

    def test_they_are_always_the_same(self, scores: list[Score]) -> None:
        assert chorales(limit=4) == scores


def test_without_music21_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[train\]"):
        chorales(1)
