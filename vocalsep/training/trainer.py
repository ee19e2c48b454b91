"""The training loop of every network: Adam, with validation, early stopping, checkpoints and resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from tqdm import tqdm

from vocalsep import weights
from vocalsep.errors import OptionError, WeightsError

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")
Drawn = TypeVar("Drawn", covariant=True)


class Source(Protocol[Drawn]):
    """Anything that batches can be drawn from."""

    def draw(self, rng: Generator, size: int) -> Drawn:
        """Return `size` random excerpts."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    steps
        Optimisation steps; the learning rate reaches 0 at the last.
    batch_size
        Excerpts in a step.
    learning_rate
        Of Adam, after a warm-up.
    weight_decay
        Decoupled, on matrices only.
    average
        Decay of the running mean of the weights, which is what is validated and kept.
    seed
        Of everything left to chance.
    validate_every
        Steps between validations.
    patience
        Validations without a better loss after which training stops.
    validation_batches
        Batches, drawn once, on which the loss is validated.
    """

    steps: int = 2000
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    average: float = 0.998
    seed: int = 0
    validate_every: int = 100
    patience: int = 8
    validation_batches: int = 8

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.validate_every, self.patience, self.validation_batches) < 1:
            raise OptionError("steps, batch size, validation interval and patience must be 1 or more")
        if not 0 < self.learning_rate < math.inf or self.seed < 0:
            raise OptionError(
                f"learning rate is {self.learning_rate} and seed {self.seed}; expected more than 0, and 0 or more"
            )


_WARM_UP = 100  # steps
_MAX_GRADIENT_NORM = 1.0


@dataclass
class Progress:
    """Where a training run stands."""

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    seconds: float = 0.0


class Trainer(Generic[Network, Batch]):
    """Trains one network; `run` can be called again after a stop and goes on where it was.

    Parameters
    ----------
    config
        How to train.
    network
        What to train, on its device, with weights drawn after `torch.manual_seed`; its `config` has a `to_json`.
    loss
        What to make small: a function of the network and a batch.
    training, validation
        Where excerpts come from.
    folder
        For `state.safetensors` (to resume) and `best.safetensors` (the weights to use).
    """

    def __init__(
        self,
        config: TrainingConfig,
        network: Network,
        loss: Callable[[Network, Batch], Tensor],
        training: Source[Batch],
        validation: Source[Batch],
        folder: Path,
    ) -> None:
        self.config = config
        self.training = training
        self.folder = folder
        self.network = network
        self.loss = loss
        self.averaged = copy.deepcopy(network).requires_grad_(False)
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )
        self.rng = np.random.default_rng(config.seed)
        held = np.random.default_rng(config.seed + 1)
        self.validation_set = [validation.draw(held, config.batch_size) for _ in range(config.validation_batches)]
        self.progress = Progress()

    @property
    def _configuration(self) -> dict[str, Any]:
        table: dict[str, Any] = self.network.config.to_json()  # type: ignore[operator, union-attr]
        return table

    def run(self, *, report: Callable[[str], None] = lambda _: None, quiet: bool = False) -> Progress:
        """Train to the last step or until validation stops improving, and return where that was.

        Parameters
        ----------
        report
            Called with a line of text at each validation.
        quiet
            Whether to leave out the progress bar, as where stderr is no terminal.
        """
        bar = tqdm(total=self.config.steps, initial=self.progress.step, unit="step", disable=quiet or None)
        with bar:
            while self.progress.step < self.config.steps:
                started = time.perf_counter()
                loss = self._step(self.training.draw(self.rng, self.config.batch_size))
                self.progress.step += 1
                self.progress.seconds += time.perf_counter() - started
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}")
                if self.progress.step % self.config.validate_every == 0 or self.progress.step == self.config.steps:
                    report(self._validate())
                    if self._stalled():
                        report(f"no better loss for {self.config.patience} validations: stopped")
                        break
        return self.progress

    def _step(self, batch: Batch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate(self.progress.step)
        self.network.train()
        loss = self.loss(self.network, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        # Early on the mean follows the weights closely; a fixed decay would drag the first steps along.
        decay = min(self.config.average, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            current = self.network.state_dict()
            for name, mean in self.averaged.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(current[name], 1 - decay)
                else:
                    mean.copy_(current[name])
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / self.config.steps))

    def _validate(self) -> str:
        self.averaged.eval()
        with torch.no_grad():
            loss = float(np.mean([float(self.loss(self.averaged, batch)) for batch in self.validation_set]))
        improved = loss < self.progress.best_loss
        if improved:
            self.progress.best_loss, self.progress.best_step = loss, self.progress.step
            weights.save(self.folder / "best.safetensors", self._configuration, self.averaged.state_dict())
        self.save()
        return (
            f"step {self.progress.step}: validation loss {loss:.4f}{' (best)' if improved else ''}, "
            f"{self.progress.seconds / 60:.1f} min"
        )

    def _stalled(self) -> bool:
        return self.progress.step - self.progress.best_step >= self.config.patience * self.config.validate_every

    def save(self) -> None:
        """Write all that `resume` needs to `state.safetensors`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        chance = json.dumps(self.rng.bit_generator.state)
        settings = {"training": asdict(self.config), "progress": asdict(self.progress), "rng": chance}
        settings["network"] = self._configuration
        weights.save(self.folder / "state.safetensors", settings, tensors)

    def resume(self) -> None:
        """Go on from `state.safetensors`.

        Raises
        ------
        WeightsError
            If there is none, or it is of a run with other settings.
        """
        config, tensors = weights.load(self.folder / "state.safetensors")
        training = config.get("training")
        saved: dict[str, Any] = training if isinstance(training, dict) else {}
        differing = [name for name, value in asdict(self.config).items() if saved.get(name) != value]
        if differing:
            listed = ", ".join(f"{name} {saved.get(name)}" for name in differing)
            raise WeightsError(f"{self.folder}: holds a run with {listed}; expected the settings of this command")
        if config.get("network") != json.loads(json.dumps(self._configuration)):
            raise WeightsError(f"{self.folder}: holds a run of another network; expected the one of this command")
        self.network.load_state_dict(_under("network.", tensors))
        self.averaged.load_state_dict(_under("averaged.", tensors))
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.rng.bit_generator.state = json.loads(config["rng"])
        self.progress = Progress(**config["progress"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
