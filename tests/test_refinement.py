"""F0 refined by CREPE on stems: nearer to the truth, never another voice's, nothing else changed."""

import numpy as np
import pytest

from vocalsep.errors import F0Error
from vocalsep.f0.refinement import refine_tracks
from vocalsep.tracks import F0Tracks

FRAMES = 120
TRUE = np.array([[440.0], [196.0]], dtype=np.float32) * np.ones(FRAMES, dtype=np.float32)
TRUE[:, 50:60] = 0
NAMES = ("soprano", "tenor")


@pytest.fixture(scope="module")
def stems(sing) -> np.ndarray:
    return sing(TRUE)


def cents(tracks: F0Tracks) -> np.ndarray:
    sung = TRUE > 0
    return 1200 * np.log2(tracks.frequencies[sung] / TRUE[sung])


@pytest.mark.parametrize("off", [-40, -20, 30])
def test_f0_comes_nearer_to_the_truth(stems, off):
    confidence = np.full(TRUE.shape, 0.7, dtype=np.float32)
    first = F0Tracks(TRUE * np.float32(2 ** (off / 1200)), NAMES, confidence=confidence)
    refined = refine_tracks(stems, first)
    assert np.median(np.abs(cents(refined))) < 6
    assert (refined.voiced == first.voiced).all()
    assert (refined.confidence == confidence).all()
    np.testing.assert_allclose(cents(first), off, atol=0.01)  # the argument is left as it was


def test_what_a_stem_does_not_say_stays(stems):
    other = F0Tracks(TRUE[::-1].copy(), ("tenor", "soprano"))
    # Each stem sings something far from the track: no step leads there.
    refined = refine_tracks(stems, other)
    assert np.abs(1200 * np.log2(refined.frequencies[other.voiced] / other.frequencies[other.voiced])).max() < 125
    silent = refine_tracks(np.zeros_like(stems), other)
    np.testing.assert_array_equal(silent.frequencies, other.frequencies)


def test_unvoiced_and_short(stems):
    nothing = F0Tracks(np.zeros((2, 10)), NAMES)
    np.testing.assert_array_equal(refine_tracks(stems, nothing).frequencies, 0)
    long = F0Tracks(np.full((2, 3 * FRAMES), 300.0), NAMES)
    assert refine_tracks(stems, long).n_frames == 3 * FRAMES


def test_one_stem_for_each_voice(stems):
    with pytest.raises(F0Error, match=r"stems have shape \(1, "):
        refine_tracks(stems[:1], F0Tracks(TRUE, NAMES))
