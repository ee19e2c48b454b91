"""Synthetic singing: its f0 is that of its sound, its parts are in time, and a seed gives the same bytes."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from vocalsep.f0 import monophonic as single
from vocalsep.training.data import SingerSource, Take
from vocalsep.training.scores import Note, counterpoint
from vocalsep.training.singers import FORMANTS, Singer
from vocalsep.training.singing import sing, synthetic_pieces
from vocalsep.voices import PARTS, Voice, parse_voices

MELODY = (Note(60, 1, 1), Note(62, 2, 1), Note(64, 3, 2), Note(59, 7, 1), Note(60, 8, 3))


def singer(letter: str, seed: int = 0, section: int = 1) -> Singer:
    return replace(Singer.random(np.random.default_rng(seed), PARTS[letter]), section=section)


def measured_cents(take: Take) -> np.ndarray:
    """Instantaneous frequency of the strongest of three harmonics against f0, in cents, where f0 hardly moves."""
    window, offset = np.hanning(1024), np.arange(-512, 512)
    result = []
    for frame in range(6, take.f0.shape[1] - 6):
        around = take.f0[0, frame - 3 : frame + 4]
        f0 = float(around[3])
        if (around <= 0).any() or np.abs(np.log2(around / f0)).max() > 0.05:
            continue
        carriers = window * np.exp(-2j * np.pi * f0 * np.arange(1, 4)[:, None] * offset / 16000)
        early, late = (carriers @ take.waveform[frame * 256 + d - 512 : frame * 256 + d + 512] for d in (-40, 40))
        k = int(np.abs(early).argmax())
        seconds = 80 / 16000
        turned = np.angle(late[k] * np.conj(early[k]) * np.exp(-2j * np.pi * (k + 1) * f0 * seconds))
        result.append(1200 * np.log2(1 + turned / (2 * np.pi * seconds * (k + 1) * f0)))
    return np.array(result)


class TestTruth:
    @pytest.mark.parametrize("letter", "SATB")
    def test_f0_is_that_of_the_sound(self, letter: str) -> None:
        score = counterpoint(np.random.default_rng(3), 1, 24, [PARTS[letter]])
        take = sing(score.parts[0], singer(letter, 2), 90, np.random.default_rng(4))
        cents = measured_cents(take)
        assert len(cents) > 200
        assert abs(np.median(cents)) < 0.5
        assert np.median(np.abs(cents)) < 1.5

    def test_crepe_hears_the_f0(self) -> None:
        take = sing(MELODY, singer("T"), 80, np.random.default_rng(0))
        voiced = take.f0[0] > 0
        cents = 1200 * np.log2(single.track(take.waveform, 16000).f0[: len(voiced)][voiced] / take.f0[0, voiced])
        assert np.median(np.abs(cents)) < 5
        assert np.mean(np.abs(cents) > 50) < 0.05

    def test_a_section_sounds_around_its_f0(self) -> None:
        take = sing(MELODY, singer("T", section=5), 80, np.random.default_rng(0))
        assert abs(np.median(measured_cents(take))) < 5

    def test_notes_have_the_pitches_of_the_score(self) -> None:
        take = sing(MELODY, singer("T"), 60, np.random.default_rng(1))
        for note in MELODY:
            middle = take.f0[0, round((note.start + 0.3) / 0.016) : round((note.stop - 0.3) / 0.016)]
            assert np.abs(12 * np.log2(np.median(middle[middle > 0]) / 440) + 69 - note.pitch) < 0.4

    def test_rests_are_unvoiced_and_silent(self) -> None:
        """The rest of beats 5 to 7, up to the breath and the consonant before the next phrase."""
        take = sing(MELODY, singer("T"), 60, np.random.default_rng(1))
        assert (take.f0[0, round(5.2 / 0.016) : round(6.7 / 0.016)] == 0).all()
        sung = np.sqrt(np.mean(take.waveform[16000:80000] ** 2))
        assert np.abs(take.waveform[round(5.5 * 16000) : round(6.2 * 16000)]).max() < 1e-3 * sung
        assert np.abs(take.waveform[: round(0.2 * 16000)]).max() < 1e-3 * sung

    def test_level_and_type(self) -> None:
        take = sing(MELODY, singer("B"), 80, np.random.default_rng(0))
        sung = np.repeat(take.f0[0] > 0, 256)[: len(take.waveform)]
        assert 0.049 < np.sqrt(np.mean(take.waveform[sung] ** 2)) < 0.101
        assert np.isfinite(take.waveform).all()
        assert take.waveform.dtype == take.f0.dtype == np.float32


class TestSinger:
    def test_a_range_tells_the_type_of_voice(self) -> None:
        rng = np.random.default_rng(0)
        for letter, expected in zip("SATB", FORMANTS, strict=True):
            assert Singer.random(rng, PARTS[letter]).voice_type == expected
        assert Singer.random(rng, Voice("low", 70, 280)).voice_type == "bass"

    def test_singers_differ_within_what_choirs_do(self) -> None:
        rng = np.random.default_rng(0)
        singers = [Singer.random(rng, PARTS["A"]) for _ in range(200)]
        cents = np.array([one.vibrato_cents for one in singers])
        assert 0.15 < np.mean(cents == 0) < 0.45
        assert cents.max() <= 80
        assert all(4.5 <= one.vibrato_hz <= 6.5 and abs(one.offset_cents) <= 25 for one in singers)
        assert {one.section for one in singers} == {1, 2, 3, 4, 5}

    def test_vibrato_has_the_rate_and_extent_of_the_singer(self) -> None:
        steady = replace(
            singer("A"), vibrato_hz=5.5, vibrato_cents=60.0, drift_cents=0.0, jitter_cents=0.0, scoop_cents=0.0
        )
        f0 = sing([Note(69, 0, 8)], steady, 60, np.random.default_rng(0), seconds=8).f0[0, 60:400]
        cents = 1200 * np.log2(f0 / np.exp(np.log(f0).mean()))
        assert np.sqrt(2) * cents.std() == pytest.approx(60, rel=0.2)
        peak = np.abs(np.fft.rfft(cents * np.hanning(len(cents)))).argmax()
        assert peak / (len(cents) * 0.016) == pytest.approx(5.5, abs=0.5)


def make_pieces() -> list[dict[str, list[Take]]]:
    score = counterpoint(np.random.default_rng(7), 4, 64, parse_voices("SATB"))
    return synthetic_pieces(np.random.default_rng(1), 4, [score], 8.0)


@pytest.fixture(scope="module")
def pieces() -> list[dict[str, list[Take]]]:
    return make_pieces()


class TestPieces:
    def test_takes_of_a_piece_are_equally_long(self, pieces: list[dict[str, list[Take]]]) -> None:
        assert any(list(piece) == ["soprano", "alto", "tenor", "bass"] for piece in pieces)
        for piece in pieces:
            for (take,) in piece.values():
                assert take.waveform.shape == (128000,)
                assert take.f0.shape == (1, 501)

    def test_parts_are_in_time(self) -> None:
        """Two voices with the same notes, sung each on its own, change pitch within 100 ms of each other."""
        takes = [sing(MELODY, singer("T", seed), 60, np.random.default_rng(seed), seconds=12) for seed in (1, 2)]
        crossing = [int((take.f0[0, 130:] > 440 * 2 ** ((63 - 69) / 12)).argmax()) for take in takes]
        assert abs(crossing[0] - crossing[1]) * 0.016 < 0.1
        assert abs((130 + crossing[0]) * 0.016 - 3) < 0.15

    def test_a_seed_gives_the_same_bytes(self, pieces: list[dict[str, list[Take]]]) -> None:
        for piece, twin in zip(pieces, make_pieces(), strict=True):
            assert list(piece) == list(twin)
            for name in piece:
                assert piece[name][0].waveform.tobytes() == twin[name][0].waveform.tobytes()
                assert piece[name][0].f0.tobytes() == twin[name][0].f0.tobytes()

    def test_training_can_draw_from_them(self, pieces: list[dict[str, list[Take]]]) -> None:
        batch = SingerSource(pieces, frames=125, augmented=False).draw(np.random.default_rng(0), 3)
        assert batch.mixture.shape == (3, 125 * 256)
        assert torch.isfinite(batch.mixture).all()
        assert (batch.f0 > 0).any()

    def test_a_voice_without_notes_is_silent(self) -> None:
        take = sing([], singer("S"), 60, np.random.default_rng(0), seconds=2)
        assert not take.waveform.any()
        assert not take.f0.any()


def test_it_is_fast_enough_to_feed_training() -> None:
    """On one core a single voice is made about 150 times as fast as it sounds; a busy machine must not fail this."""
    score = counterpoint(np.random.default_rng(0), 1, 40, [PARTS["T"]])
    began = time.process_time()
    take = sing(score.parts[0], singer("T"), 80, np.random.default_rng(0))
    assert len(take.waveform) / 16000 / (time.process_time() - began) > 20
