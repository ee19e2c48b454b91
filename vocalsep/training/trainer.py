"""The training loop of every network: AdamW with validation, early stopping, checkpoints and resuming."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from vocalsep import weights
from vocalsep.errors import OptionError, WeightsError, reason
from vocalsep.files import write_file
from vocalsep.training.data import Source
from vocalsep.training.learner import Learner, Loss, mean_loss

_WARM_UP = 100  # steps
_AVERAGE = 0.998  # decay of the running mean of the weights, which is validated and kept
_VALIDATION_BATCHES = 8  # drawn once
_WEIGHT_DECAY = 1e-2  # of matrices
_STATE = "state.safetensors"


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Parameters
    ----------
    steps : int
        Optimisation steps; the learning rate falls to 0 over them.
    batch_size : int
        Excerpts per step.
    learning_rate : float
        Learning rate after the warm-up.
    seed : int
        Random seed.
    validate_every : int
        Steps between validations.
    patience : int
        Validations without a lower loss after which training stops.

    Raises
    ------
    OptionError
        If a number is out of range.
    """

    steps: int = 2000
    batch_size: int = 4
    learning_rate: float = 1e-3
    seed: int = 0
    validate_every: int = 100
    patience: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "patience"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more", parameter=name)
        if not 0 < self.learning_rate < math.inf:
            message = f"learning_rate is {self.learning_rate}; expected a number above 0"
            raise OptionError(message, parameter="learning_rate")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}; expected 0 or more", parameter="seed")


@dataclass
class TrainingProgress:
    """How far a training run has come."""

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains one network. The same seed gives the same weights on one machine, also if a run is resumed.

    Parameters
    ----------
    options : TrainingOptions
        Steps, batch size and so on.
    network : nn.Module
        Network on its device, with a `config`; see `vocalsep.weights.load_network`.
    loss : callable
        Loss of the network on a batch.
    training, validation : Source
        Sources of excerpts.
    folder : Path
        Folder of the run. It gets `state.safetensors`, from which the run is resumed, and the checkpoint folder `best`.
    """

    def __init__(
        self,
        options: TrainingOptions,
        network: nn.Module,
        loss: Loss,
        training: Source,
        validation: Source,
        folder: Path,
    ) -> None:
        self.options = options
        self.training = training
        self.folder = folder
        parameters = list(network.parameters())
        groups = [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": _WEIGHT_DECAY},
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
        self.learner = Learner(network, loss, optimizer, _AVERAGE)
        self.rng = np.random.default_rng(options.seed)
        rng = np.random.default_rng(options.seed + 1)
        self.validation_set = [validation.draw(rng, options.batch_size) for _ in range(_VALIDATION_BATCHES)]
        self.progress = TrainingProgress()

    @property
    def best(self) -> Path:
        """Checkpoint folder of the best weights."""
        return self.folder / "best"

    def run(self, report: Callable[[str], None] = lambda _: None) -> TrainingProgress:
        """Train until the last step, or until the loss stops falling; `report` receives a line for each validation."""
        options, progress = self.options, self.progress
        with tqdm(total=options.steps, initial=progress.step, unit="step", disable=None) as bar:
            while progress.step < options.steps and not self._stalled():
                started = time.perf_counter()
                for group in self.learner.optimizer.param_groups:
                    group["lr"] = options.learning_rate * learning_rate_factor(progress.step, options.steps)
                loss = self.learner.step(self.training.draw(self.rng, options.batch_size))
                progress.step += 1
                progress.seconds += time.perf_counter() - started
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}")
                if progress.step % options.validate_every == 0 or progress.step == options.steps:
                    report(self._validate())
        if progress.step < options.steps:
            report(f"stopped after {options.patience} validations without a lower loss")
        return progress

    def _validate(self) -> str:
        progress = self.progress
        loss = mean_loss(self.learner.mean, self.learner.loss, self.validation_set)
        improved = loss < progress.best_loss
        if improved:
            progress.best_loss, progress.best_step = loss, progress.step
            weights.save_checkpoint(self.best, self.learner.mean)
        self.save()
        best = " (best)" if improved else ""
        return f"step {progress.step}: validation loss {loss:.4f}{best}, {progress.seconds / 60:.1f} min"

    def _stalled(self) -> bool:
        return self.progress.step - self.progress.best_step >= self.options.patience * self.options.validate_every

    def _settings(self) -> dict[str, Any]:
        """Return the settings that must be equal to resume a run."""
        settings = {"network": asdict(self.learner.network.config), **asdict(self.options)}  # type: ignore[call-overload]
        equal: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
        return equal

    def save(self) -> None:
        """Write everything that `resume` needs."""
        tensors = {f"network.{name}": tensor for name, tensor in self.learner.network.state_dict().items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.learner.mean.state_dict().items()}
        for index, state in self.learner.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        state = {
            "settings": self._settings(),
            "progress": asdict(self.progress),
            "rng": self.rng.bit_generator.state,
        }
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_file(self.folder / _STATE, safetensors.torch.save(tensors, {"run": json.dumps(state)}))

    def resume(self) -> None:
        """Continue from the last validation; raise WeightsError if the folder holds no run with these settings."""
        state, tensors = _read_state(self.folder / _STATE)
        saved = state["settings"]
        differing = [name for name, value in self._settings().items() if saved.get(name) != value]
        if differing:
            listed = ", ".join(f"{name} {saved.get(name)}" for name in differing)
            raise WeightsError(f"{self.folder}: holds a run with {listed}; expected a run with the same options")
        self.learner.network.load_state_dict(_under("network.", tensors))
        self.learner.mean.load_state_dict(_under("mean.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        self.learner.optimizer.load_state_dict({**self.learner.optimizer.state_dict(), "state": moments})
        self.rng.bit_generator.state = state["rng"]
        self.progress = TrainingProgress(**state["progress"])
        self.learner.steps = self.progress.step


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor on the learning rate: a linear warm-up over 100 steps, times half a cosine down to 0."""
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def has_run(folder: Path) -> bool:
    """Return whether a folder holds a run that can be resumed."""
    return (folder / _STATE).exists()


def _read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["run"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path.parent}: holds no run to resume") from None
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: is damaged ({reason(error)}); start the run again in another folder") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
