"""Viterbi paths are the best of all paths, and stay so in long recordings."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest

from vocalsep.f0 import viterbi

Path = tuple[int, ...]
REST = -1


def paths(states: int, frames: int, *, rests: bool) -> Iterable[Path]:
    """Return every path, with -1 for a rest."""
    low = REST if rests else 0
    return (tuple(np.array(path) + low) for path in np.ndindex(*[states - low] * frames))


def total(path: Path, own: np.ndarray, step: Callable[[int, int, int], float]) -> float:
    """Return the score of a path: the sum of `own`, shape (frames, states), and of `step(frame, from, to)`."""
    stays = sum(own[frame, state] for frame, state in enumerate(path) if state != REST)
    return stays + sum(step(frame, *pair) for frame, pair in enumerate(pairwise(path), 1))


class TestSteps:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_path_is_the_best_of_all(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        likelihood, transition = rng.normal(size=(3, 6, 4)) * 2, np.array([-0.6, -0.1, -0.9])
        likelihood[rng.random(likelihood.shape) < 0.1] = -np.inf

        def step(frame: int, previous: int, state: int) -> float:
            return transition[state - previous + 1] if abs(state - previous) <= 1 else -np.inf

        for own, path in zip(likelihood, viterbi.decode(likelihood, transition), strict=True):
            best = max(total(other, own, step) for other in paths(4, 6, rests=False))
            assert total(tuple(path), own, step) == pytest.approx(best)

    def test_steps_up_and_down_have_their_own_weights(self) -> None:
        """The second frame is free: up to state 2 costs less than down to state 0."""
        likelihood = np.array([[-9.0, 0.0, -9.0], [0.0, -9.0, 0.0]])
        assert viterbi.decode(likelihood, np.array([-2.0, 0.0, -1.0])).tolist() == [1, 2]
        assert viterbi.decode(likelihood, np.array([-1.0, 0.0, -2.0])).tolist() == [1, 0]


COSTS = {"step_cost": 0.5, "leap_cost": 3.0, "onset_cost": 2.0, "offset_cost": 1.5}


def decode(ratio: list[list[float]], semitones: list[list[float]]) -> list[int]:
    """Return the path of one voice."""
    return viterbi.decode_candidates(np.array([ratio]), np.array([semitones]), **COSTS)[0].tolist()


class TestCandidates:
    @pytest.mark.parametrize("seed", range(8))
    def test_a_path_is_the_best_of_all(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ratio, position = rng.normal(size=(2, 5, 3)) * 3, rng.uniform(48, 60, (2, 5, 3))
        ratio[rng.random(ratio.shape) < 0.3] = -np.inf
        ratio[0, 2] = -np.inf  # nothing at all

        found = viterbi.decode_candidates(ratio, position, **COSTS)
        for own, place, path in zip(ratio, position, found, strict=True):

            def step(frame: int, previous: int, state: int, place: np.ndarray = place) -> float:
                if previous == state == REST:
                    return 0.0
                if REST in (previous, state):
                    return -COSTS["onset_cost"] if previous == REST else -COSTS["offset_cost"]
                semitones = abs(place[frame, state] - place[frame - 1, previous])
                return -min(COSTS["step_cost"] * semitones, COSTS["leap_cost"])

            best = max(total(other, own, step) for other in paths(3, 5, rests=True))
            assert total(tuple(path), own, step) == pytest.approx(best, abs=1e-5)

    def test_voices_are_independent(self) -> None:
        rng = np.random.default_rng(0)
        ratio, position = rng.normal(size=(3, 40, 4)) * 3, rng.uniform(48, 72, (3, 40, 4))
        together = viterbi.decode_candidates(ratio, position, **COSTS)
        alone = [viterbi.decode_candidates(ratio[[v]], position[[v]], **COSTS)[0] for v in range(3)]
        np.testing.assert_array_equal(together, alone)

    def test_a_rest_costs_an_offset_and_an_onset(self) -> None:
        """A rest in the middle costs 3.5."""
        place = [[60.0]] * 5
        assert decode([[4.0], [-1.1], [-1.1], [-1.1], [4.0]], place) == [0, 0, 0, 0, 0]
        assert decode([[4.0], [-1.2], [-1.2], [-1.2], [4.0]], place) == [0, REST, REST, REST, 0]

    def test_notes_at_the_ends_of_a_recording_are_free(self) -> None:
        assert decode([[0.1]], [[60.0]]) == [0]
        assert decode([[0.1], [0.1]], [[60.0], [60.0]]) == [0, 0]
        assert decode([[-0.1], [1.9]], [[60.0], [60.0]]) == [0, 0]
        assert decode([[-9.0], [1.9]], [[60.0], [60.0]]) == [REST, REST]
        assert decode([[-9.0], [2.1]], [[60.0], [60.0]]) == [REST, 0]

    def test_a_step_costs_its_width_up_to_that_of_a_leap(self) -> None:
        """For one frame an octave costs two leaps, a semitone two half points."""
        octave, semitone = [[60.0, 72.0]] * 3, [[60.0, 61.0]] * 3
        assert decode([[4, 0.0], [0, 5.9], [4, 0]], octave) == [0, 0, 0]
        assert decode([[4, 0.0], [0, 6.1], [4, 0]], octave) == [0, 1, 0]
        assert decode([[4, 0.0], [0, 0.9], [4, 0]], semitone) == [0, 0, 0]
        assert decode([[4, 0.0], [0, 1.1], [4, 0]], semitone) == [0, 1, 0]

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        """The note is the first candidate of some frames and the second of others."""
        place = [[60.0, 72.0], [72.0, 60.0], [60.1, 72.0], [72.0, 60.2]]
        assert decode([[3.0, 0.0], [0.5, 0.0], [3.0, 0.0], [0.0, 3.0]], place) == [0, 1, 0, 1]

    def test_frames_without_candidates_are_rests(self) -> None:
        nothing = [[-np.inf, -np.inf]] * 3
        assert decode(nothing, [[0.0, 0.0]] * 3) == [REST] * 3
        assert decode([[5.0, -np.inf], *nothing, [5.0, -np.inf]], [[60.0, 0.0]] * 5) == [0, REST, REST, REST, 0]

    @pytest.mark.slow
    def test_an_hour_is_decoded_like_its_minutes(self) -> None:
        """Each of 225 pieces with rests between them has the path that it has alone, without loss of precision."""
        rng = np.random.default_rng(0)
        ratio = (rng.normal(size=(4, 1000, 6)) * 3 + 12).astype(np.float32)
        ratio[:, 300:320] -= 14  # where resting is a close call
        ratio[:, 990:] = -200.0
        position = rng.uniform(48, 60, ratio.shape).astype(np.float32)
        ratio, position = np.tile(ratio, (1, 225, 1)), np.tile(position, (1, 225, 1))
        whole = viterbi.decode_candidates(ratio, position, **COSTS).reshape(4, 225, 1000)
        minute = viterbi.decode_candidates(ratio[:, :1000], position[:, :1000], **COSTS)
        assert (minute[:, 990:] == REST).all()
        # The first begins without an onset from a rest.
        np.testing.assert_array_equal(whole[:, 0], minute)
        np.testing.assert_array_equal(whole[:, 1:], np.repeat(whole[:, [1]], 224, axis=1))
