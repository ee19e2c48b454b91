"""The training loop: it lowers the loss, repeats and resumes exactly, and stops in time."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from melodies import piece

from vocalsep.errors import OptionError, WeightsError
from vocalsep.f0.network import Tracker, TrackerConfig
from vocalsep.model.estimator import Estimator, EstimatorConfig
from vocalsep.training.data import SingerSource
from vocalsep.training.ensembles import EnsembleSource
from vocalsep.training.learner import Learner, mean_loss
from vocalsep.training.losses import estimator_loss, tracker_loss
from vocalsep.training.trainer import Trainer, TrainingOptions, has_run, learning_rate_factor
from vocalsep.weights import load_checkpoint, load_network

pytestmark = pytest.mark.slow

FAST = {"steps": 4, "batch_size": 2, "validate_every": 2, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def duets(sing) -> SingerSource:
    return SingerSource([piece(sing, 1)], voices=(2, 2), frames=24, augmented=False)


@pytest.fixture(scope="module")
def quartets(sing) -> EnsembleSource:
    return EnsembleSource([piece(sing, 1)], frames=24, augmented=False)


@pytest.fixture(params=["estimator", "tracker"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def make(duets, quartets, kind):
    """Return a trainer of a small network in a folder. Only the tracker has buffers that training changes."""

    def trainer(folder: Path, kernel_size: int = 3, **options: float) -> Trainer:
        chosen = TrainingOptions(**{**FAST, **options})
        torch.manual_seed(chosen.seed)
        if kind == "tracker":
            network = Tracker(TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=kernel_size, features=4))
            return Trainer(chosen, network, tracker_loss, quartets, quartets, folder)
        config = EstimatorConfig(channels=16, dilations=(1, 2), kernel_size=kernel_size)
        return Trainer(chosen, Estimator(config), estimator_loss, duets, duets, folder)

    return trainer


def assert_equal_runs(one: Trainer, other: Trainer) -> None:
    """Weights, their means and the best checkpoint are equal to the last bit."""
    assert one.progress.step == other.progress.step
    assert one.progress.best_loss == other.progress.best_loss
    for state in (
        lambda run: run.learner.network.state_dict(),
        lambda run: run.learner.mean.state_dict(),
        lambda run: load_checkpoint(run.best).tensors,
    ):
        torch.testing.assert_close(dict(state(one)), dict(state(other)), rtol=0, atol=0)


def test_training_lowers_the_validation_loss_and_keeps_the_best_network(make, tmp_path, kind):
    run = make(tmp_path, steps=15, validate_every=5, learning_rate=2e-2)
    loss = run.learner.loss
    before = mean_loss(run.learner.mean, loss, run.validation_set)
    lines: list[str] = []
    progress = run.run(lines.append)
    assert (progress.step, len(lines)) == (15, 3)
    assert progress.best_loss < before - 0.05
    assert f"{progress.best_loss:.4f} (best)" in lines[progress.best_step // 5 - 1]
    best = load_network(run.best, Tracker if kind == "tracker" else Estimator)
    assert best.config == run.learner.network.config
    assert mean_loss(best, loss, run.validation_set) == pytest.approx(progress.best_loss, abs=1e-4)


def test_a_seed_gives_the_same_weights_also_in_a_resumed_run(make, tmp_path):
    whole, other = make(tmp_path / "whole"), make(tmp_path / "other", seed=1)
    whole.run()
    other.run()
    assert whole.progress.best_loss != other.progress.best_loss

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "parts").run(interrupt)
    assert has_run(tmp_path / "parts")
    resumed = make(tmp_path / "parts")
    resumed.resume()
    assert resumed.progress.step == 2
    assert resumed.run().step == 4
    assert_equal_runs(resumed, whole)


@pytest.mark.parametrize("kind", ["estimator"], indirect=True)
@pytest.mark.parametrize("changed", [{"seed": 1}, {"steps": 5}, {"kernel_size": 5}])
def test_a_run_with_other_options_is_not_resumed(make, tmp_path, changed):
    make(tmp_path).save()
    with pytest.raises(WeightsError):
        make(tmp_path, **changed).resume()


@pytest.mark.parametrize("kind", ["estimator"], indirect=True)
@pytest.mark.parametrize("content", [None, b"not a state"])
def test_missing_and_damaged_states(make, tmp_path, content):
    if content is not None:
        (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(WeightsError):
        make(tmp_path).resume()


class Line(torch.nn.Module):
    """A network with one weight."""

    kind = "estimator"

    def __init__(self) -> None:
        super().__init__()
        self.config = EstimatorConfig()
        self.weight = torch.nn.Parameter(torch.ones(1))


def test_training_stops_when_validation_stalls(duets, tmp_path):
    """The loss depends on the weight only by 0, and takes these values at validations."""
    losses = iter(np.repeat([3.0, 2.0, 2.5, 2.1, 2.0, 1.0], 8))  # of eight batches

    def loss(network: Line, batch: object) -> torch.Tensor:
        return 0 * network.weight.sum() + (1.0 if network.training else next(losses))

    options = TrainingOptions(**{**FAST, "steps": 50, "validate_every": 1, "patience": 3})
    run = Trainer(options, Line(), loss, duets, duets, tmp_path)
    lines: list[str] = []
    progress = run.run(lines.append)
    assert (progress.step, progress.best_step, progress.best_loss) == (5, 2, 2.0)
    assert "stopped" in lines[-1]


def test_a_loss_that_is_not_finite_leaves_the_weights():
    network = Line()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    Learner(network, lambda network, _: float("nan") * network.weight.sum(), optimizer, 0.9).step(None)
    assert network.weight == 1


def test_the_running_mean_follows_weights_and_buffers():
    """The decay is 1/10 in the first step, then 2/11; counters are copied."""
    steps = count(1)

    class Counting(Line):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("moved", torch.zeros(1))
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def loss(network: Counting, _: object) -> torch.Tensor:
        network.moved += 1
        network.steps.fill_(next(steps))
        return network.weight.sum()

    network = Counting()
    learner = Learner(network, loss, torch.optim.SGD(network.parameters(), lr=0.1), 0.998)
    for _ in range(2):
        learner.step(None)
    assert float(learner.mean.weight) == pytest.approx(2 / 11 * (0.1 * 1 + 0.9 * 0.9) + 9 / 11 * 0.8)
    assert float(learner.mean.moved) == pytest.approx(2 / 11 * 0.9 + 9 / 11 * 2)
    assert int(learner.mean.steps) == 2


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate_factor(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert 0.9 < max(rates) <= 1
    assert 80 <= int(np.argmax(rates)) <= 110
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("batch_size", 0), ("patience", -1), ("learning_rate", 0), ("learning_rate", np.nan), ("seed", -1)],
)
def test_options_out_of_range(name, value):
    with pytest.raises(OptionError) as caught:
        TrainingOptions(**{name: value})
    assert caught.value.parameter == name
