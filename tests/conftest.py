import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vocalsep import weights
from vocalsep.model.estimator import Estimator, EstimatorConfig
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits

Sing = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def data() -> Path:
    """Recordings that are not in the repository: $VOCALSEP_DATA, or ../shared/data beside it."""
    folder = Path(os.environ.get("VOCALSEP_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set VOCALSEP_DATA to the folder that holds csd/, mixtures/ and crepe/")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small estimator that has learned nothing: what holds for it holds for any weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Estimator(EstimatorConfig(channels=16))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, network.config.to_json(), network.state_dict())
    return path


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
    """Compute with one thread, here and in processes that are started: with another number the last bits differ."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
