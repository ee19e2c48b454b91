"""`vocalsep train`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from melodies import melody

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.f0.tracks import F0Tracks
from vocalsep.weights import load_checkpoint

pytestmark = pytest.mark.slow

SHORT = ("--steps", 2, "--batch-size", 1, "--held-out", 0.2, "-d", "cpu")
ROOMS = ("--simulated-rooms", 0)
STILL = ("--steps", 1, "--batch-size", 1, "--held-out", 0.2, "--learning-rate", 1e-12, "-d", "cpu")
NAMES = ("soprano", "bass")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeeds(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object) -> str:
    """The one line on stderr of a command that ends with bad input."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


F0 = np.stack([melody(440, 440, 1), melody(150, 440, 2)])


@pytest.fixture(scope="module")
def stems(sing) -> np.ndarray:
    return sing(F0) / 8


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, stems) -> Path:
    """A folder with singers/, and with choir.wav and its f0.csv."""
    monkeypatch.chdir(tmp_path)
    Path("singers").mkdir()
    for name, stem in zip(NAMES, stems, strict=True):
        audio.write(Path(f"singers/{name}_1.wav"), stem, 16000)
    audio.write(Path("choir.wav"), stems.sum(axis=0)[:40000], 16000)
    F0Tracks(F0[:, :157], NAMES).to_csv("f0.csv")
    return tmp_path


class TestTrain:
    def test_init_is_where_training_starts(self, tiny_model):
        succeeds("train", "estimator", "--singers", "singers", "-o", "run", "--init", tiny_model, *ROOMS, *STILL)
        start, found = load_checkpoint(tiny_model), load_checkpoint("run/best")
        assert found.config == start.config
        for name, tensor in start.tensors.items():
            torch.testing.assert_close(found.tensors[name], tensor, atol=1e-6, rtol=0)

    def test_stems_decide_on_the_loss(self, tiny_model):
        losses = []
        for options in ([], ["--stems"]):
            command = ["train", "estimator", "--singers", "singers", "-o", f"run{len(losses)}", "--init", tiny_model]
            result = succeeds(*command, *options, *ROOMS, *STILL)
            losses.append(float(result.stdout.split("validation loss ")[1].split()[0]))
        assert abs(losses[0] - losses[1]) > 0.05

    def test_the_best_weights_separate_and_a_run_is_not_overwritten(self, tiny_model):
        command = ["train", "estimator", "--singers", "singers:1", "-o", "run", "--init", tiny_model, *ROOMS, *SHORT]
        result = succeeds(*command, "--seed", 7)
        assert result.stdout.startswith("run/best: ")
        assert "seed 7" in result.stdout
        assert sorted(path.name for path in Path("run").iterdir()) == ["best", "state.safetensors"]
        succeeds("separate", "choir.wav", "--f0", "f0.csv", "-n", "run/best", "-d", "cpu")
        assert "--resume" in refused(*command)
        assert "seed 7" in refused(*command, "--seed", 8, "--resume")
        succeeds(*command, "--seed", 7, "--resume")

    def test_rooms_change_what_is_learned_and_validated(self, tiny_model):
        noise = 0.2 * np.random.default_rng(0).normal(size=16000) * 10 ** (-3 * np.arange(16000) / 16000)
        audio.write(Path("rooms/hall.wav"), np.concatenate([[0.9], noise]), 16000)
        losses = []
        for options in ([], ["--rooms", "rooms"]):
            command = ["train", "estimator", "--singers", "singers", "-o", f"run{len(losses)}", "--init", tiny_model]
            result = succeeds(*command, "--stems", *options, *ROOMS, *STILL)
            losses.append(float(result.stdout.split("validation loss ")[1].split()[0]))
        assert abs(losses[0] - losses[1]) > 0.02

    def test_the_best_tracker_tracks(self, tiny_tracker):
        command = ["train", "tracker", "--singers", "singers", "--synthetic", 0, "--float32", "-o", "run"]
        succeeds(*command, "--init", tiny_tracker, *SHORT)
        assert load_checkpoint("run/best").config == load_checkpoint(tiny_tracker).config
        succeeds("f0", "choir.wav", "--voices", "SB", "--tracker", "run/best", "-d", "cpu", "-o", "found.csv")
        assert F0Tracks.from_csv("found.csv").names == NAMES

    @pytest.mark.parametrize(
        ("arguments", "keyword"),
        [
            (["estimator"], "nothing to train on"),
            (["estimator", "--singers", "singers", "--guides", "stems"], "--guides"),
            (["estimator", "stems", "--stems"], "--stems"),
            (["estimator", "choir", "--rooms", "rooms"], "--rooms"),
            (["estimator", "--singers", "singers", "--steps", 0], "--steps"),
            (["estimator", "--singers", "singers", "--seed", -1], "--seed"),
            (["estimator", "--singers", "singers", "--learning-rate", "nan"], "--learning-rate"),
            (["tracker", "--synthetic", 0], "nothing to train on"),
        ],
    )
    def test_wrong_options_are_refused_before_a_folder_is_made(self, arguments, keyword):
        assert keyword in refused("train", *arguments)
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("arguments", "keyword"), [(["nowhere"], "nowhere"), (["--singers", "singers:1,2"], "singer 2")]
    )
    def test_missing_recordings(self, arguments, keyword):
        assert keyword in refused("train", "estimator", *arguments, "-d", "cpu")
