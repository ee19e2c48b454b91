"""The systems that the benchmarks compare.

`SYSTEMS` is the table of systems; `NETWORKS` says how their networks are trained. To add a system, add a row. Every
system separates a mixture with known f0 tracks: `separate(mixture, tracks) -> stems`. The systems of this package also
estimate the room of the mixture, as they do in a separation; no other system has a model of rooms. Their masks are not
corrected, because the network that does so has learned from stems; `rooms` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from vocalsep.audio import Float32
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.baselines.nmf import separate_nmf
from vocalsep.evaluation.baselines.source_filter_nmf import separate_source_filter_nmf
from vocalsep.evaluation.baselines.unet import ConditionedUnet, separate_unet, unet_loss
from vocalsep.evaluation.baselines.us import UsNetwork, separate_us
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator
from vocalsep.separation.separator import Separator
from vocalsep.training.learner import Loss
from vocalsep.training.losses import estimator_loss, supervised_loss
from vocalsep.weights import NetworkType, load_network

Separate: TypeAlias = Callable[[Float32, F0Tracks], Float32]
"""From a mixture (samples,) at 16 kHz and f0 tracks on the 16-ms grid to stems (voices, samples)."""


class NetworkTraining(NamedTuple):
    """How a network is trained."""

    network: NetworkType[Any]
    loss: Loss
    steps: int  # after which validation hardly improves on minutes of audio
    learning_rate: float = 1e-3  # after the warm-up
    f0_errors: float = 0.0  # fraction of the excerpts whose f0 gets the errors of a tracker


NETWORKS = {
    "unet": NetworkTraining(ConditionedUnet, unet_loss, 600),
    # Three recurrent layers diverge at the learning rate of the other networks.
    "us": NetworkTraining(UsNetwork, estimator_loss, 600, learning_rate=3e-4),
    "vocalsep": NetworkTraining(Estimator, estimator_loss, 1200),
    "vocalsep-stems": NetworkTraining(Estimator, supervised_loss, 1000, f0_errors=0.5),
}
"""The networks by name."""


class System(NamedTuple):
    """A row of the table of systems."""

    title: str  # in plain words
    learns_from: str  # "nothing", "mixtures" or "stems"
    load: Callable[[str, str], Separate]  # of weights ("" if there are none) and a device
    network: str | None = None  # its name in `NETWORKS`


def _load_ours(weights: str, device: str, *, fitting: bool = True) -> Separate:
    separator = Separator(weights, device, masks="none", fitting=fitting)

    def separate(mixture: Float32, tracks: F0Tracks) -> Float32:
        return np.stack(list(separator.separate(mixture, tracks).stems.values()))

    return separate


def _load_baseline(separate: Callable[..., Float32], network: NetworkType[Any], weights: str, device: str) -> Separate:
    return partial(separate, network=load_network(weights, network, device))


SYSTEMS = {
    "comb": System("fixed harmonic comb", "nothing", lambda *_: separate_comb),
    "nmf": System("f0-informed NMF", "nothing", lambda *_: separate_nmf),
    "source-filter-nmf": System("source-filter NMF", "nothing", lambda *_: separate_source_filter_nmf),
    "unet": System("U-Net conditioned on f0", "stems", partial(_load_baseline, separate_unet, ConditionedUnet), "unet"),
    "us": System("network of the paper", "mixtures", partial(_load_baseline, separate_us, UsNetwork), "us"),
    "vocalsep": System("vocalsep", "mixtures", _load_ours, "vocalsep"),
    "vocalsep-unfitted": System("the network alone", "mixtures", partial(_load_ours, fitting=False), "vocalsep"),
    "vocalsep-stems": System("vocalsep, supervised", "stems", _load_ours, "vocalsep-stems"),
}
"""The systems by name, in the order of the tables."""
