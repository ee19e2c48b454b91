"""The mask correction: shares that add up to one, voices in any order, chunks as the whole, any rate, training."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from melodies import melody

from vocalsep import audio
from vocalsep.audio import resample
from vocalsep.audio.downmix import Downmix
from vocalsep.audio.recording import ArrayRecording
from vocalsep.cli import main
from vocalsep.dsp.stft import StftGrid, spectrum_and_frequency, squared_magnitude
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.correction import CorrectionConfig, MaskCorrection
from vocalsep.model.masks import soft_masks
from vocalsep.model.room import RoomParameters
from vocalsep.separation.analysis import Analysis
from vocalsep.separation.separator import Separator
from vocalsep.separation.streaming import CHUNK_FRAMES
from vocalsep.training.correction import correction_loss
from vocalsep.training.data import Batch
from vocalsep.training.learner import Learner
from vocalsep.weights import load_network, save_checkpoint

FRAMES = 120
CONFIG = CorrectionConfig(8, (1, 2))
HALL = RoomParameters.of(1.5, 0.0)


class Heard(NamedTuple):
    """The input of a correction."""

    power: torch.Tensor
    recorded: torch.Tensor
    frequency: torch.Tensor
    f0: torch.Tensor


@pytest.fixture(scope="module")
def network() -> MaskCorrection:
    """A network that changes masks, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(MaskCorrection(CONFIG)).eval().requires_grad_(False)


def randomised(network: MaskCorrection) -> MaskCorrection:
    torch.nn.init.normal_(network.head.weight, std=0.3)
    return network


def f0_of(voices: int, frames: int = FRAMES) -> np.ndarray:
    """F0 of voices with notes, vibrato and rests, shape (voices, frames)."""
    tonics = np.linspace(500, 110, voices)
    return np.stack([melody(tonic, frames, seed) for seed, tonic in enumerate(tonics)]).astype(np.float32)


@pytest.fixture(scope="module")
def heard(sing):
    """What is heard of voices at a sample rate, with the true power of each, shape (1, ...)."""

    def make(voices: int, sample_rate: int = 16000) -> Heard:
        f0 = f0_of(voices)
        stems, grid = torch.from_numpy(sing(f0, sample_rate)), StftGrid.of_duration(sample_rate)
        spectrum, frequency = spectrum_and_frequency(stems.sum(dim=0), grid, 0, FRAMES)
        power = squared_magnitude(torch.stack([spectrum_and_frequency(stem, grid, 0, FRAMES)[0] for stem in stems]))
        return Heard(power[None], squared_magnitude(spectrum)[None], frequency[None], torch.from_numpy(f0)[None])

    return make


def corrected(network: MaskCorrection, heard: Heard, sample_rate: int = 16000) -> torch.Tensor:
    return network(*heard, StftGrid.of_duration(sample_rate))


def log_change(network: MaskCorrection, heard: Heard, sample_rate: int = 16000) -> torch.Tensor:
    """The correction in nats where there is power."""
    changed = corrected(network, heard, sample_rate)
    return torch.where(heard.power > 1e-12, torch.log(changed.clamp_min(1e-30) / heard.power.clamp_min(1e-30)), 0.0)


def test_a_new_network_changes_nothing(heard):
    duet = heard(2)
    assert torch.equal(corrected(MaskCorrection(), duet), duet.power)


@pytest.mark.parametrize("voices", [1, 2, 6])
def test_masks_of_any_number_of_voices_add_up_to_one(network, heard, voices):
    choir = heard(voices)
    masks = soft_masks(corrected(network, choir))
    assert masks.shape == choir.power.shape
    assert (masks.sum(dim=1) - 1).abs().max() < 1e-5
    assert log_change(network, choir).abs().max() > 0.1
    assert log_change(network, choir).abs().max() <= 6.001


def test_permuted_voices_have_permuted_corrections(network, heard):
    choir, order = heard(4), [2, 0, 3, 1]
    permuted = choir._replace(power=choir.power[:, order], f0=choir.f0[:, order])
    assert (log_change(network, permuted) - log_change(network, choir)[:, order]).abs().max() < 1e-3


def test_voices_depend_on_each_other(network, heard):
    choir = heard(3)
    fewer = choir._replace(power=choir.power[:, :2], f0=choir.f0[:, :2])
    assert (log_change(network, fewer) - log_change(network, choir)[:, :2]).abs().max() > 0.01


def test_batches_are_independent(network, heard):
    one, other = heard(2), heard(4)
    other = other._replace(power=other.power[:, 2:], f0=other.f0[:, 2:])
    both = Heard(*(torch.cat(pair) for pair in zip(one, other, strict=True)))
    expected = torch.cat([corrected(network, one), corrected(network, other)])
    torch.testing.assert_close(corrected(network, both), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100])
def test_the_correction_is_nearly_the_same_at_every_sample_rate(network, heard, sample_rate):
    found, expected = log_change(network, heard(2, sample_rate), sample_rate), log_change(network, heard(2))
    # Their bins are apart by 2 % more or less.
    found, expected = (change[..., :64, :].mean(dim=2) for change in (found, expected))
    assert (found - expected).abs().mean() < 0.2 * expected.abs().mean()


def test_nothing_above_8_khz_is_corrected(network, heard):
    change = log_change(network, heard(2, 44100), 44100)
    above = StftGrid.of_duration(44100).frequencies() >= 8000
    assert change[..., above, :].abs().max() < 1e-5 < change[..., ~above, :].abs().max()


def test_neither_the_level_of_the_recording_nor_that_of_the_voices_matters(network, heard):
    duet = heard(2)
    scaled = duet._replace(power=64 * duet.power, recorded=duet.recorded / 64)
    change = log_change(network, duet)
    assert (log_change(network, scaled) - change).abs().mean() < 0.1 * change.abs().mean()


@pytest.fixture(scope="module")
def masks(tmp_path_factory, network) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "masks"
    save_checkpoint(folder, network)
    return folder


@pytest.fixture(scope="module")
def system(tiny_model, tiny_tracker, masks) -> Separator:
    return Separator(tiny_model, "cpu", tracker=tiny_tracker, masks=masks)


@pytest.fixture(scope="module")
def long_f0() -> np.ndarray:
    """F0 over several chunks."""
    return f0_of(2, 2 * CHUNK_FRAMES + 151)


class TestSeparation:
    """The correction in a separation."""

    @pytest.mark.parametrize("room", [RoomParameters.of(), HALL])
    def test_chunks_give_the_same_stems_as_the_whole(self, system, sing, long_f0, room, monkeypatch):
        recording = np.float32(0.3) * sing(long_f0).sum(axis=0)

        def stems() -> np.ndarray:
            with Downmix.of_array(recording) as downmix:
                analysis = Analysis(downmix, F0Tracks(long_f0, ("high", "low")), room)
                return np.concatenate(list(system.stems(ArrayRecording(recording[None], 16000), analysis)), axis=-1)

        found = stems()
        for name in ("CHUNK_FRAMES", "_CORRECTED_FRAMES"):
            monkeypatch.setattr(f"vocalsep.separation.streaming.{name}", 3 * CHUNK_FRAMES)
        assert np.abs(found - stems()).max() < 1e-5
        assert np.abs(found.sum(axis=0) - recording).max() < 1e-6

    @pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
    def test_stems_change_and_still_add_up(self, system, tiny_separator, sing, sample_rate):
        f0 = f0_of(3)
        recording = resample(np.float32(0.3) * sing(f0).sum(axis=0), 16000, sample_rate)
        found, plain = (
            np.stack(list(one.separate(recording, f0, sample_rate=sample_rate, room="none").stems.values()))
            for one in (system, tiny_separator)
        )
        assert np.abs(found.sum(axis=0) - recording).max() < 1e-6
        assert np.abs(found - plain).max() > 1e-3

    def test_a_checkpoint_holds_the_network(self, network, masks, heard):
        loaded = load_network(masks, MaskCorrection)
        assert loaded.config == CONFIG
        assert torch.equal(corrected(loaded, heard(2)), corrected(network, heard(2)))


@pytest.mark.parametrize(
    "config",
    [{"channels": 0}, {"dilations": ()}, {"dilations": (1, 0)}, {"channels": 2.0}, {"dilations": 17 * (1,)}],
)
def test_configurations_are_validated(config):
    with pytest.raises(ValueError, match="expected"):
        CorrectionConfig(**config)


@pytest.fixture(scope="module")
def batch(sing) -> Batch:
    """Two excerpts of duets with breathy, uneven voices, which a small estimator cannot describe well."""
    f0 = np.stack([f0_of(2), f0_of(2)[::-1]])
    stems = torch.stack([torch.from_numpy(sing(one, log_noise=-9.0)[:, : 256 * (FRAMES - 1)]) for one in f0])
    stems = stems * torch.tensor([[[1.0], [0.3]], [[0.4], [1.0]]])
    room = RoomParameters(torch.tensor([0.0, 1.0]), torch.tensor([torch.inf, 6.0]))
    return Batch(stems.sum(dim=1), torch.from_numpy(f0.copy()), stems, room=room)


def test_training_lowers_the_distortion(batch, tiny_estimator):
    torch.manual_seed(0)
    network = MaskCorrection(CONFIG)

    def loss(network: MaskCorrection, batch: Batch) -> torch.Tensor:
        return correction_loss(network, batch, tiny_estimator)

    learner = Learner(network, loss, torch.optim.AdamW(network.parameters(), 1e-2), 0.9)
    first = float(loss(network, batch).detach())
    for _ in range(12):
        learner.step(batch)
    assert float(loss(network, batch).detach()) < first - 0.1


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


class TestCommandLine:
    """`vocalsep separate --masks` and `vocalsep train masks`."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch, sing) -> None:
        """A folder with singers/, and with choir.wav and its f0.csv."""
        monkeypatch.chdir(tmp_path)
        f0 = f0_of(2, 420)
        stems = sing(f0)[:, : 419 * 256] / 8
        Path("singers").mkdir()
        for name, stem in zip(("soprano", "bass"), stems, strict=True):
            audio.write(Path(f"singers/{name}_1.wav"), stem, 16000)
        audio.write(Path("choir.wav"), stems.sum(axis=0), 16000)
        F0Tracks(f0, ("soprano", "bass")).to_csv("f0.csv")

    def test_the_record_names_the_correction(self, tiny_model, masks):
        def separate(*options: object) -> dict[str, object] | None:
            run("separate", "choir.wav", "--f0", "f0.csv", "-n", tiny_model, "-d", "cpu", "--overwrite", *options)
            return json.loads(Path("separated/choir/separation.json").read_text())["setup"]["networks"]["masks"]

        corrected = separate("--masks", masks)
        assert corrected is not None
        assert corrected["config"]["channels"] == CONFIG.channels
        with_masks = Path("separated/choir/bass.wav").read_bytes()
        assert separate("--masks", masks, "--no-masks") is None
        assert Path("separated/choir/bass.wav").read_bytes() != with_masks

    @pytest.mark.slow
    def test_trained_weights_separate(self, tiny_model):
        data = ("--singers", "singers", "--simulated-rooms", 0, "-n", tiny_model, "--held-out", 0.2)
        command = ("train", "masks", *data, "-o", "run", "--steps", 2, "--batch-size", 1, "-d", "cpu")
        assert "run/best: validation loss" in run(*command)
        run(*command, "--resume")
        run("separate", "choir.wav", "--f0", "f0.csv", "-n", tiny_model, "--masks", "run/best", "-d", "cpu")
