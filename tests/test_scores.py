"""Scores for synthetic singing: chorales from music21, and random counterpoint."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from vocalsep.dsp.units import midi_to_hz
from vocalsep.errors import MissingExtraError
from vocalsep.training.scores import Score, ScoreNote, chorales, counterpoint, random_voices
from vocalsep.voices import parse_voices

pytestmark = pytest.mark.slow

SATB = parse_voices("SATB")


def assert_sung_by_one_voice(notes: tuple[ScoreNote, ...]) -> None:
    assert all(note.duration > 0 and note.start >= 0 for note in notes)
    assert all(after.start >= note.stop - 1e-9 for note, after in pairwise(notes))


def assert_high_to_low(score: Score) -> None:
    means = [np.mean([note.pitch for note in notes]) for notes in score.parts]
    assert means == sorted(means, reverse=True)


class TestScore:
    parts = ((ScoreNote(72, 0, 4), ScoreNote(74, 4, 4)), (ScoreNote(60, 1, 2), ScoreNote(59, 6, 3)))
    score = Score(parts, parse_voices("SB"))

    def test_a_cut_keeps_the_voices_in_time(self):
        cut = self.score.cut(2, 7)
        assert cut.parts == ((ScoreNote(72, 0, 2), ScoreNote(74, 2, 3)), (ScoreNote(60, 0, 1), ScoreNote(59, 4, 1)))
        assert (self.score.beats, cut.beats) == (9, 5)

    def test_transposition_changes_pitches_only(self):
        moved = self.score.transposed(3)
        assert moved.transposed(-3) == self.score
        assert moved.parts[1] == (ScoreNote(63, 1, 2), ScoreNote(62, 6, 3))


class TestCounterpoint:
    @pytest.mark.parametrize("n_voices", [1, 2, 4, 8])
    def test_voices_stay_in_range_and_sing_one_note_at_a_time(self, n_voices):
        rng = np.random.default_rng(n_voices)
        score = counterpoint(rng, random_voices(rng, n_voices), 48)
        assert len(score.parts) == len(score.voices) == n_voices
        assert score.beats <= 48 + 1e-9
        for voice, notes in zip(score.voices, score.parts, strict=True):
            assert_sung_by_one_voice(notes)
            assert all(voice.fmin < midi_to_hz(note.pitch) < voice.fmax for note in notes)

    def test_the_style_is_that_of_choirs(self):
        """Most motion is by step, strong beats are mostly consonant, voices rest, and they cross at times."""
        rng = np.random.default_rng(0)
        steps, consonant, rests, crossed = [], [], 0, []
        for _ in range(12):
            score = counterpoint(rng, SATB, 64)
            assert_high_to_low(score)
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

    def test_a_seed_gives_the_same_score(self):
        first, again, other = (counterpoint(np.random.default_rng(seed), SATB, 40) for seed in (1, 1, 2))
        assert first == again
        assert first != other


class TestChorales:
    @pytest.fixture(scope="class")
    @staticmethod
    def scores() -> list[Score]:
        pytest.importorskip("music21", reason="the chorales come with music21")
        return chorales(limit=4)

    def test_they_have_four_voices_from_high_to_low(self, scores):
        assert len({score.parts for score in scores}) == 4
        for score in scores:
            assert score.voices == SATB
            assert_high_to_low(score)
            for notes in score.parts:
                assert_sung_by_one_voice(notes)
                assert notes[-1].stop == pytest.approx(score.beats, abs=4)

    def test_chords_are_mostly_consonant(self, scores):
        """They are only if fermatas delay all voices by the same time."""
        consonant = []
        for score in scores:
            for note in score.parts[3]:
                above = [n.pitch for part in score.parts[:3] for n in part if n.start <= note.start + 1e-6 < n.stop]
                consonant += [(pitch - note.pitch) % 12 in (0, 3, 4, 7, 8, 9) for pitch in above]
        assert np.mean(consonant) > 0.8

    def test_they_are_always_the_same(self, scores):
        assert chorales(limit=4) == scores


def test_without_music21_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(MissingExtraError, match=r"vocalsep\[train\]"):
        chorales(1)
