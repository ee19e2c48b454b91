"""Fixtures that many tests share."""

# ruff: noqa: E402

from vocalsep.threads import limit_threads

limit_threads()  # before torch is imported, as the command line does: the tests then pass quickly on a busy machine

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vocalsep.f0.network import Tracker, TrackerConfig
from vocalsep.model.estimator import Estimator, EstimatorConfig
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.separation.separator import Separator
from vocalsep.weights import save_checkpoint

Sing = Callable[..., np.ndarray]

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="session")
def data() -> Path:
    """Recordings that are not in the repository: $VOCALSEP_DATA, or ../shared/data beside it."""
    folder = Path(os.environ.get("VOCALSEP_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set VOCALSEP_DATA to the folder that holds csd/, mixtures/ and crepe/")
    return folder


@pytest.fixture(scope="session")
def tiny_estimator() -> Estimator:
    """A small estimator with random weights: stems add up with any weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Estimator(EstimatorConfig(channels=16)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_estimator: Estimator) -> Path:
    """A checkpoint folder of the small estimator."""
    folder = tmp_path_factory.mktemp("weights") / "estimator"
    save_checkpoint(folder, tiny_estimator)
    return folder


@pytest.fixture(scope="session")
def tiny_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a small tracker with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tracker(TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4))
    folder = tmp_path_factory.mktemp("weights") / "tracker"
    save_checkpoint(folder, network)
    return folder


@pytest.fixture(scope="session")
def tiny_separator(tiny_model: Path, tiny_tracker: Path) -> Separator:
    """A separator of the two small networks."""
    return Separator(tiny_model, "cpu", tracker=tiny_tracker)


@pytest.fixture(scope="session")
def separator() -> Separator:
    """A separator with the bundled weights."""
    return Separator(device="cpu")


@pytest.fixture(scope="session")
def sing() -> Sing:
    """Synthetic singing: f0 in Hz, shape (voices, frames) -> waveforms, each voice with a filter of its own."""

    def render(f0: np.ndarray, sample_rate: int = 16000, *, log_noise: float = -14.0) -> np.ndarray:
        frequencies = torch.as_tensor(np.asarray(f0), dtype=torch.float32)
        phase = torch.arange(21.0) + 2.0 * torch.arange(len(frequencies))[:, None]
        lsf = lsf_from_logits(0.5 * torch.sin(phase), 0.05)  # (voices, order)
        parameters = VoiceParameters(
            f0=frequencies,
            log_gain=torch.full(frequencies.shape, -2.0),
            lsf=lsf[:, None].expand(*frequencies.shape, 20),
            log_noise=torch.full((*frequencies.shape, 16), log_noise),
        )
        return synthesize(parameters, sample_rate, generator=torch.Generator().manual_seed(0)).numpy()

    return render


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute with one thread, here and in processes that are started: other numbers change the last bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
