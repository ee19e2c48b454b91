"""The systems that the benchmark compares: how each is trained, if it is, and how it separates.

`SYSTEMS` is the register; a further system is one more entry in it. What a system needs is imported when it is opened
or trained, and each can be run by itself: `SYSTEMS["nmf"].open("", "cpu").separate(mixture, tracks)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vocalsep.audio import Float32
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.result import Separation
from vocalsep.timebase import MODEL_SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vocalsep.separation.separator import Separator

Separate = Callable[[Float32, F0Tracks], Float32]
"""From a mixture (samples,) at 16 kHz and the f0 of its voices on the 16-ms grid to stems (voices, samples)."""


class Ready(NamedTuple):
    """A system that can separate."""

    separate: Separate
    parameters: int = 0
    """Trainable ones of its network; 0 if it has learned nothing."""
    refined: Separate | None = None
    """The same with the f0, which is of the mixture, refined first; None if the system does not do that."""


class Recipe(NamedTuple):
    """How a network is trained: `training.trainer.Trainer` makes the loss small."""

    build: Callable[[], nn.Module]
    """Returns the network, untrained; its `config` has a `to_json`."""
    loss: Callable[[Any, Any], Tensor]
    """A function of the network and a `training.data.Batch`."""
    steps: int = 1000
    """After which validation improves little, on minutes of audio."""
    learning_rate: float = 1e-3
    """Of Adam, at its greatest."""
    f0_errors: float = 0.0
    """Share of excerpts whose f0 is made as wrong as a tracker's; see `training.f0_errors`."""


@dataclass(frozen=True)
class System:
    """One system.

    Parameters
    ----------
    title
        In a few words, for tables.
    open
        From a file of weights ("" for what has none) and a device to the system ready to separate.
    recipe
        Returns how its network is trained; None if it trains none of its own.
    borrows
        The system whose weights it uses, if it has none of its own.
    """

    title: str
    open: Callable[[str, str], Ready]
    recipe: Callable[[], Recipe] | None = None
    borrows: str | None = None

    @property
    def learns(self) -> bool:
        """Whether it needs weights."""
        return self.recipe is not None or self.borrows is not None


OURS = "vocalsep"
"""The system whose weights may be given instead of trained, and which is held against the comb."""
COMB = "comb"


def _comb(weights: str, device: str) -> Ready:
    from vocalsep.evaluation.baselines.comb import separate_comb

    return Ready(lambda mixture, tracks: separate_comb(mixture, tracks, MODEL_SAMPLE_RATE))


def _nmf(weights: str, device: str) -> Ready:
    from vocalsep.evaluation.baselines.nmf import separate_nmf

    return Ready(lambda mixture, tracks: separate_nmf(mixture, tracks, MODEL_SAMPLE_RATE))


def _source_filter_nmf(weights: str, device: str) -> Ready:
    from vocalsep.evaluation.baselines.source_filter_nmf import separate_source_filter_nmf

    return Ready(lambda mixture, tracks: separate_source_filter_nmf(mixture, tracks, MODEL_SAMPLE_RATE))


def _unet(weights: str, device: str) -> Ready:
    from vocalsep.evaluation.baselines.unet import load_unet, separate_unet
    from vocalsep.model.estimator import parameter_count

    network = load_unet(weights, device)
    return Ready(lambda mixture, tracks: separate_unet(mixture, tracks, network), parameter_count(network))


def _unet_recipe() -> Recipe:
    import torch

    from vocalsep.evaluation.baselines.unet import ConditionedUnet, unet_loss

    # Twice as fast on processors with instructions for it; on others bfloat16 would be slower.
    half = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return Recipe(ConditionedUnet, partial(unet_loss, half=half), steps=600)


def _us(weights: str, device: str) -> Ready:
    from vocalsep.evaluation.baselines.us import load_us, separate_us
    from vocalsep.model.estimator import parameter_count

    network = load_us(weights, device)
    return Ready(lambda mixture, tracks: separate_us(mixture, tracks, network), parameter_count(network))


def _us_recipe() -> Recipe:
    from vocalsep.evaluation.baselines.us import UsNetwork
    from vocalsep.training.losses import estimator_loss

    # Three layers of gated recurrent units diverge at the rate of the other networks.
    return Recipe(UsNetwork, estimator_loss, steps=600, learning_rate=3e-4)


def _ours(weights: str, device: str) -> Ready:
    return _ready(_separator(weights, device), adapting=False)


def _unfitted(weights: str, device: str) -> Ready:
    return _ready(_separator(weights, device, fitting=False), adapting=False)._replace(refined=None)


def _adapted(weights: str, device: str) -> Ready:
    return _ready(_separator(weights, device), adapting=True)


def _ours_recipe() -> Recipe:
    from vocalsep.model.estimator import Estimator
    from vocalsep.training.losses import estimator_loss

    return Recipe(Estimator, estimator_loss, steps=1200)


def _supervised_recipe() -> Recipe:
    from vocalsep.model.estimator import Estimator
    from vocalsep.training.losses import supervised_loss

    return Recipe(Estimator, supervised_loss, f0_errors=0.5)


def _separator(weights: str, device: str, *, fitting: bool = True) -> Separator:
    from vocalsep.separation.separator import Separator

    return Separator(weights, device, fitting=fitting)


def _ready(separator: Separator, *, adapting: bool) -> Ready:
    from vocalsep.model.estimator import parameter_count

    def separate(mixture: Float32, tracks: F0Tracks) -> Float32:
        chosen = separator.adapted([(mixture, tracks)]) if adapting else separator
        return stacked(chosen.separate(mixture, tracks))

    def refined(mixture: Float32, tracks: F0Tracks) -> Float32:
        return separate(mixture, separator.refined(mixture, tracks))

    return Ready(separate, parameter_count(separator.network), refined)


def stacked(separation: Separation) -> Float32:
    """Return the stems as one array (voices, samples)."""
    stems: Float32 = np.stack(list(separation.stems.values()))
    return stems


SYSTEMS: dict[str, System] = {
    COMB: System("fixed harmonic comb", _comb),
    "nmf": System("f0-informed NMF", _nmf),
    "source-filter-nmf": System("source-filter NMF", _source_filter_nmf),
    "unet": System("U-Net conditioned on f0, with stems", _unet, _unet_recipe),
    "us": System("US encoder and decoder, no stems", _us, _us_recipe),
    OURS: System("ours, no stems", _ours, _ours_recipe),
    "vocalsep-unfitted": System("ours, no stems, the network alone", _unfitted, borrows=OURS),
    "vocalsep-stems": System("ours, with stems", _ours, _supervised_recipe),
    "vocalsep-adapted": System("ours, no stems, adapted to the recording", _adapted, borrows=OURS),
}
"""By the names of the command line, in the order of the tables; what borrows weights stands behind its lender."""
