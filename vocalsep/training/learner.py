"""One optimisation step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vocalsep.training.data import Batch

Loss: TypeAlias = Callable[[Any, Batch], Tensor]
"""A function of a network and a batch."""

Network = TypeVar("Network", bound=nn.Module)

_MAX_GRADIENT_NORM = 1.0


class Learner(Generic[Network]):
    """A network in training, and the running mean of its weights, which is validated and kept.

    Parameters
    ----------
    network : nn.Module
        Network to train. It is changed.
    loss : callable
        Loss of the network on a batch.
    optimizer : Optimizer
        Optimizer of its parameters.
    average : float
        Decay of the running mean in each step. It is smaller in the first steps, so that the mean follows the weights.
    """

    def __init__(self, network: Network, loss: Loss, optimizer: torch.optim.Optimizer, average: float) -> None:
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.average = average
        self.mean = copy.deepcopy(network).eval().requires_grad_(False)
        self.steps = 0

    def step(self, batch: Batch) -> float:
        """Take one step and return the loss; if the gradient is not finite, the weights stay as they are."""
        self.network.train()
        loss = self.loss(self.network, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        decay = min(self.average, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        current = self.network.state_dict()
        for name, mean in self.mean.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], 1 - decay)
            else:
                mean.copy_(current[name])
        return float(loss.detach())


def mean_loss(network: nn.Module, loss: Loss, batches: Sequence[Batch]) -> float:
    """Return the mean loss of a network over batches."""
    with torch.no_grad():
        return float(np.mean([float(loss(network, batch)) for batch in batches]))
