"""Synthetic singing: the f0 is that of the sound, parts are in time, and a seed gives the same samples."""

from dataclasses import replace

import numpy as np
import pytest

from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.units import hz_to_midi
from vocalsep.f0 import monophonic
from vocalsep.f0.crepe import Crepe
from vocalsep.training.scores import ScoreNote, counterpoint
from vocalsep.training.singers import FORMANTS, Singer
from vocalsep.training.singing import sing, synthetic_pieces
from vocalsep.training.takes import Take
from vocalsep.voices import PARTS, Voice, parse_voices
from vocalsep.weights import load_network

pytestmark = pytest.mark.slow

MELODY = tuple(ScoreNote(*note) for note in ((60, 1, 1), (62, 2, 1), (64, 3, 2), (59, 7, 1), (60, 8, 3)))


def singer(letter: str, seed: int = 0, section: int = 1) -> Singer:
    return replace(Singer.random(np.random.default_rng(seed), PARTS[letter]), section=section)


def sung(who: Singer, tempo: float = 80, seed: int = 0) -> Take:
    return sing(MELODY, who, tempo, np.random.default_rng(seed), seconds=11.5 * 60 / tempo)


def measured_cents(take: Take) -> np.ndarray:
    """Instantaneous frequency of the strongest of three harmonics relative to f0, in cents, where f0 is steady."""
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


class TestSound:
    @pytest.mark.parametrize("letter", "SATB")
    def test_f0_is_that_of_the_sound(self, letter):
        score = counterpoint(np.random.default_rng(3), [PARTS[letter]], 24)
        cents = measured_cents(sing(score.parts[0], singer(letter, 2), 90, np.random.default_rng(4), seconds=16))
        assert len(cents) > 200
        assert abs(np.median(cents)) < 0.5
        assert np.median(np.abs(cents)) < 1.5

    def test_crepe_finds_the_f0(self):
        take = sung(singer("T"))
        voiced = take.f0[0] > 0
        found = monophonic.track(Downmix.of_array(take.waveform), load_network("crepe-tiny", Crepe)).f0[: len(voiced)]
        cents = 1200 * np.log2(found[voiced] / take.f0[0, voiced])
        assert np.median(np.abs(cents)) < 10
        assert np.mean(np.abs(cents) > 50) < 0.05

    def test_a_section_sounds_around_its_f0(self):
        assert abs(np.median(measured_cents(sung(singer("T", section=5))))) < 5

    def test_notes_have_the_pitches_of_the_score(self):
        take = sung(singer("T"), 60, 1)
        for note in MELODY:
            middle = take.f0[0, round((note.start + 0.3) / 0.016) : round((note.stop - 0.3) / 0.016)]
            assert abs(float(hz_to_midi(np.median(middle[middle > 0]))) - note.pitch) < 0.4

    def test_rests_are_unvoiced_and_silent(self):
        """Beats 5 to 7 rest, except for the breath and the consonant before the next phrase."""
        take = sung(singer("T"), 60, 1)
        assert (take.f0[0, round(5.2 / 0.016) : round(6.7 / 0.016)] == 0).all()
        level = np.sqrt(np.mean(take.waveform[16000:80000] ** 2))
        assert np.abs(take.waveform[round(5.5 * 16000) : round(6.2 * 16000)]).max() < 1e-3 * level
        assert np.abs(take.waveform[: round(0.2 * 16000)]).max() < 1e-3 * level

    def test_level_and_type(self):
        take = sung(singer("B"))
        voiced = np.repeat(take.f0[0] > 0, 256)[: len(take.waveform)]
        assert 0.049 < np.sqrt(np.mean(take.waveform[voiced] ** 2)) < 0.101
        assert np.isfinite(take.waveform).all()
        assert take.waveform.dtype == take.f0.dtype == np.float32

    def test_a_voice_without_notes_is_silent(self):
        take = sing([], singer("S"), 60, np.random.default_rng(0), seconds=2)
        assert (take.waveform.shape, take.f0.shape) == ((32000,), (1, 126))
        assert not (take.waveform.any() or take.f0.any())


class TestSinger:
    def test_a_range_decides_on_the_type_of_voice(self):
        rng = np.random.default_rng(0)
        for letter, expected in zip("SATB", FORMANTS, strict=True):
            assert Singer.random(rng, PARTS[letter]).voice_type == expected
        assert Singer.random(rng, Voice("low", 70, 280)).voice_type == "bass"

    def test_singers_differ_as_in_choirs(self):
        rng = np.random.default_rng(0)
        singers = [Singer.random(rng, PARTS["A"]) for _ in range(200)]
        cents = np.array([one.vibrato_cents for one in singers])
        assert 0.15 < np.mean(cents == 0) < 0.45
        assert cents.max() <= 80
        assert all(4.5 <= one.vibrato_hz <= 6.5 and abs(one.offset_cents) <= 25 for one in singers)
        assert {one.section for one in singers} == {1, 2, 3, 4, 5}

    def test_vibrato_has_the_rate_and_extent_of_the_singer(self):
        still = dict.fromkeys(("drift_cents", "jitter_cents", "scoop_cents"), 0.0)
        steady = replace(singer("A"), vibrato_hz=5.5, vibrato_cents=60.0, **still)
        f0 = sing([ScoreNote(69, 0, 8)], steady, 60, np.random.default_rng(0), seconds=8).f0[0, 60:400]
        cents = 1200 * np.log2(f0 / np.exp(np.log(f0).mean()))
        assert np.sqrt(2) * cents.std() == pytest.approx(60, rel=0.2)
        peak = np.abs(np.fft.rfft(cents * np.hanning(len(cents)))).argmax()
        assert peak / (len(cents) * 0.016) == pytest.approx(5.5, abs=0.5)


def test_parts_are_in_time():
    """Two voices with the same notes change pitch within 100 ms of each other."""
    takes = [sung(singer("T", seed), 60, seed) for seed in (1, 2)]
    crossing = [int((take.f0[0, 130:] > 440 * 2 ** ((63 - 69) / 12)).argmax()) for take in takes]
    assert abs(crossing[0] - crossing[1]) * 0.016 < 0.1
    assert abs((130 + crossing[0]) * 0.016 - 3) < 0.15


def test_pieces_have_takes_of_one_length_and_a_seed_repeats_them():
    def pieces():
        score = counterpoint(np.random.default_rng(7), parse_voices("SATB"), 64)
        return synthetic_pieces(np.random.default_rng(1), 3, [score], 4.0)

    first, again = pieces(), pieces()
    assert any(list(piece) == ["soprano", "alto", "tenor", "bass"] for piece in first)
    for piece, twin in zip(first, again, strict=True):
        assert list(piece) == list(twin)
        for name, (take,) in piece.items():
            assert (take.waveform.shape, take.f0.shape) == ((64000,), (1, 251))
            assert np.array_equal(take.waveform, twin[name][0].waveform)
            assert np.array_equal(take.f0, twin[name][0].f0)
