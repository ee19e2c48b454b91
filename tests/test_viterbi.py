"""Viterbi paths are the best of all paths, and stay so in long recordings."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest

from vocalsep.f0 import viterbi

Path = tuple[int, ...]
REST = -1


def paths(states: int, frames: int, *, rests: bool) -> Iterable[Path]:
    """Every path, with -1 for a rest."""
    low = REST if rests else 0
    return (tuple(np.array(path) + low) for path in np.ndindex(*[states - low] * frames))


def total(path: Path, own: np.ndarray, step: Callable[[int, int, int], float]) -> float:
    """The score of a path: `own`, shape (frames, states), of its states, and `step(frame, from, to)`."""
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

    def test_a_step_upwards_and_one_downwards_have_their_own_weight(self) -> None:
        """The second frame is free: up to state 2 costs less than down to state 0."""
        likelihood = np.array([[-9.0, 0.0, -9.0], [0.0, -9.0, 0.0]])
        assert viterbi.decode(likelihood, np.array([-2.0, 0.0, -1.0])).tolist() == [1, 2]
        assert viterbi.decode(likelihood, np.array([-1.0, 0.0, -2.0])).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(4))
def test_a_path_with_rests_is_the_best_of_all(seed: int) -> None:
    ratio = np.random.default_rng(seed).normal(size=(3, 5, 3)) * 2
    transition, costs = np.array([-0.5, 0.0, -0.5]), {"onset_cost": 0.7, "offset_cost": 0.4, "leap_cost": 1.5}

    def step(frame: int, previous: int, state: int) -> float:
        if REST in (previous, state):
            return -costs["onset_cost"] * (previous < state) - costs["offset_cost"] * (previous > state)
        near = transition[state - previous + 1] if abs(state - previous) <= 1 else -np.inf
        return max(near, -costs["leap_cost"])

    for own, path in zip(ratio, viterbi.decode_with_rests(ratio, transition, **costs), strict=True):
        best = max(total(other, own, step) for other in paths(3, 5, rests=True))
        assert total(tuple(path), own, step) == pytest.approx(best, abs=1e-5)


COSTS = {"step_cost": 0.5, "leap_cost": 3.0, "onset_cost": 2.0, "offset_cost": 1.5}


def decode(ratio: list[list[float]], semitones: list[list[float]]) -> list[int]:
    """The path of one voice."""
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

    def test_voices_do_not_touch_one_another(self) -> None:
        rng = np.random.default_rng(0)
        ratio, position = rng.normal(size=(3, 40, 4)) * 3, rng.uniform(48, 72, (3, 40, 4))
        together = viterbi.decode_candidates(ratio, position, **COSTS)
        alone = [viterbi.decode_candidates(ratio[[v]], position[[v]], **COSTS)[0] for v in range(3)]
        np.testing.assert_array_equal(together, alone)

    def test_a_rest_must_be_worth_its_end_and_its_beginning(self) -> None:
        """A rest in the middle costs 3.5."""
        place = [[60.0]] * 5
        assert decode([[4.0], [-1.1], [-1.1], [-1.1], [4.0]], place) == [0, 0, 0, 0, 0]
        assert decode([[4.0], [-1.2], [-1.2], [-1.2], [4.0]], place) == [0, REST, REST, REST, 0]

    def test_a_recording_may_begin_and_end_with_a_note_at_no_cost(self) -> None:
        assert decode([[0.1]], [[60.0]]) == [0]
        assert decode([[0.1], [0.1]], [[60.0], [60.0]]) == [0, 0]
        assert decode([[-0.1], [1.9]], [[60.0], [60.0]]) == [0, 0]
        assert decode([[-9.0], [1.9]], [[60.0], [60.0]]) == [REST, REST]
        assert decode([[-9.0], [2.1]], [[60.0], [60.0]]) == [REST, 0]

    def test_a_step_costs_its_width_and_a_leap_no_more_than_a_leap(self) -> None:
        """For one frame an octave costs two leaps, a semitone two half points."""
        octave, semitone = [[60.0, 72.0]] * 3, [[60.0, 61.0]] * 3
        assert decode([[4, 0.0], [0, 5.9], [4, 0]], octave) == [0, 0, 0]
        assert decode([[4, 0.0], [0, 6.1], [4, 0]], octave) == [0, 1, 0]
        assert decode([[4, 0.0], [0, 0.9], [4, 0]], semitone) == [0, 0, 0]
        assert decode([[4, 0.0], [0, 1.1], [4, 0]], semitone) == [0, 1, 0]

    def test_what_counts_is_where_candidates_lie_and_not_their_number(self) -> None:
        """The note is the first candidate of some frames and the second of others."""
        place = [[60.0, 72.0], [72.0, 60.0], [60.1, 72.0], [72.0, 60.2]]
        assert decode([[3.0, 0.0], [0.5, 0.0], [3.0, 0.0], [0.0, 3.0]], place) == [0, 1, 0, 1]

    def test_nothing_to_sing_is_a_rest_and_never_a_nan(self) -> None:
        nothing = [[-np.inf, -np.inf]] * 3
        assert decode(nothing, [[0.0, 0.0]] * 3) == [REST] * 3
        assert decode([[5.0, -np.inf], *nothing, [5.0, -np.inf]], [[60.0, 0.0]] * 5) == [0, REST, REST, REST, 0]

    def test_an_hour_of_four_voices_is_decoded_as_its_minutes_are(self) -> None:
        """225 pieces of 1000 frames with a rest between them: each has the path that it has alone.

        The score of the whole runs into the millions, in which nats must not be lost.
        """
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
