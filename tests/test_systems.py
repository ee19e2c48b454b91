"""The systems of the benchmark: the register, runs that are found again, who takes part, learning curves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vocalsep import audio, weights
from vocalsep.cli import main
from vocalsep.errors import MissingExtraError, OptionError, WeightsError
from vocalsep.evaluation import benchmark, data_efficiency, runs, systems
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.lineup import line_up
from vocalsep.evaluation.metrics import Scores
from vocalsep.evaluation.runs import Run, Settings, TrainingData
from vocalsep.evaluation.systems import SYSTEMS, Recipe, System
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator, EstimatorConfig, parameter_count
from vocalsep.training import sources
from vocalsep.training.data import Take

RATE = 16000
PARTS = ("soprano", "alto", "tenor", "bass")
F0 = np.float32([[520], [330], [210], [110]])


def take(seconds: float, onset: float, pitch: float = 220.0) -> Take:
    """Return a take whose samples tell their frame, silent up to an onset."""
    frames = round(seconds / 0.016)
    f0 = np.where(np.arange(frames) < round(onset / 0.016), 0, pitch).astype(np.float32)
    return Take("take", np.repeat(np.arange(frames, dtype=np.float32), 256), f0[None])


@pytest.fixture
def data() -> TrainingData:
    """Return pieces of 8 s of two parts, the second of which begins first, at 0.8 s; a singer more of the first."""
    found = TrainingData(["music/nino_dios:1,2", "folk"])
    piece = {"a": [take(8, 1.6), take(8, 2.4)], "b": [take(8, 0.8), take(8, 4.0)]}
    found.__dict__["split"] = ([piece], [{"a": [take(2, 0)], "b": [take(2, 0)]}])
    return found


class Chance:
    """A source of training of numbers instead of excerpts."""

    def __init__(self, pieces, **kwargs):
        assert pieces

    def draw(self, rng, size):
        return torch.from_numpy(rng.normal(size=size))


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Replace the register and the source by what takes no time; return a list of what is trained."""
    monkeypatch.setattr("vocalsep.training.data.SingerSource", Chance)
    trained: list[str] = []

    def build() -> Estimator:
        trained.append("one")
        return Estimator(EstimatorConfig(channels=2))

    def recipe() -> Recipe:
        return Recipe(build, lambda net, batch: net.head.weight.square().mean(), steps=3)

    comb, ours = SYSTEMS["comb"], SYSTEMS["vocalsep"].open
    table = {
        "comb": comb,
        "us": System("a network", lambda weights, device: ours(weights, device)._replace(refined=None), recipe),
        "vocalsep": System("our network", ours, recipe),
        "vocalsep-adapted": System("borrower", lambda weights, device: comb.open("", device), borrows="vocalsep"),
    }
    for name in SYSTEMS.keys() - table.keys():
        monkeypatch.delitem(SYSTEMS, name)
    for name, system in table.items():
        monkeypatch.setitem(SYSTEMS, name, system)
    return trained


class TestRegister:
    def test_systems_of_the_comparison(self):
        assert list(SYSTEMS) == [
            "comb",
            "nmf",
            "source-filter-nmf",
            "unet",
            "us",
            "vocalsep",
            "vocalsep-unfitted",
            "vocalsep-stems",
            "vocalsep-adapted",
        ]
        assert [name for name, system in SYSTEMS.items() if not system.learns] == ["comb", "nmf", "source-filter-nmf"]

    def test_the_comb_is_the_comb(self, sing):
        mixture = sing(F0[:2] * np.ones(40, np.float32)).sum(axis=0)
        tracks = F0Tracks(F0[:2] * np.ones(40, np.float32), ("a", "b"))
        ready = SYSTEMS["comb"].open("", "cpu")
        np.testing.assert_array_equal(ready.separate(mixture, tracks), separate_comb(mixture, tracks, RATE))
        assert (ready.parameters, ready.refined) == (0, None)

    def test_ours_is_the_separator(self, sing, tiny_model):
        from vocalsep.separation.separator import Separator

        mixture = sing(F0[:2] * np.ones(70, np.float32)).sum(axis=0)
        tracks = F0Tracks(F0[:2] * np.ones(70, np.float32), ("a", "b"))
        ready = SYSTEMS["vocalsep"].open(str(tiny_model), "cpu")
        separator = Separator(tiny_model, "cpu")
        np.testing.assert_array_equal(
            ready.separate(mixture, tracks), systems.stacked(separator.separate(mixture, tracks))
        )
        assert ready.parameters == parameter_count(separator.network)
        unfitted = SYSTEMS["vocalsep-unfitted"].open(str(tiny_model), "cpu")
        alone = Separator(tiny_model, "cpu", fitting=False)
        np.testing.assert_array_equal(
            unfitted.separate(mixture, tracks), systems.stacked(alone.separate(mixture, tracks))
        )
        assert np.abs(unfitted.separate(mixture, tracks) - ready.separate(mixture, tracks)).max() > 1e-4

    def test_what_borrows_comes_behind_its_lender(self):
        """Or it would be opened with the old weights of one that is trained again."""
        names = list(SYSTEMS)
        for name, system in SYSTEMS.items():
            assert system.borrows is None or names.index(system.borrows) < names.index(name)


class TestTrainingData:
    def test_seconds_of_mixture_are_those_of_the_stems_over_the_parts(self, data):
        assert runs.mixture_seconds(data.split[0]) == pytest.approx(4 * 8 / 2)

    def test_takes_are_cut_in_time_from_the_first_note_on(self, data):
        cut = runs.limited(data.split[0], 7.2)
        assert runs.mixture_seconds(cut) == pytest.approx(7.2, abs=0.05)
        takes = [one for some in cut[0].values() for one in some]
        assert {float(one.waveform[0]) for one in takes} == {0.8 / 0.016}
        assert {one.n_frames for one in takes} == {225}
        assert [int((one.f0 > 0).argmax()) for one in takes] == [50, 100, 0, 200]

    def test_more_than_there_is(self, data):
        assert runs.mixture_seconds(runs.limited(data.split[0])) == pytest.approx(14.4)
        for seconds in (14.5, 0.0, -1.0):
            with pytest.raises(OptionError, match=r"at most the 14\.4 s"):
                runs.limited(data.split[0], seconds)
        assert data_efficiency.amounts(data, [20, 7, 30]) == [7, pytest.approx(14.4)]
        with pytest.raises(OptionError, match="more than 0"):
            data_efficiency.amounts(data, [5, 0])

    def test_validation_hears_the_same_whatever_is_trained_on(self, data):
        rng = np.random.default_rng
        batches = [data.sources(seconds)[1].draw(rng(0), 2) for seconds in (10, 14, None)]
        assert torch.equal(batches[0].mixture, batches[1].mixture)
        assert torch.equal(batches[0].mixture, batches[2].mixture)

    def test_records_name_no_path(self, data):
        assert data.names == ("nino_dios:1,2", "folk")


SETTINGS = Settings(("piece",), steps=2)


class TestRuns:
    def train(self, data, folder, settings=SETTINGS, **kwargs):
        return runs.trained("us", SYSTEMS["us"], settings, data, folder, **kwargs)

    def test_what_is_trained_is_found_again(self, data, quick, tmp_path):
        lines: list[str] = []
        run = self.train(data, tmp_path / "us", report=lines.append)
        assert (run.audio_seconds, run.best_step, run.finished) == (16.0, 2, True)
        assert run.parameters == parameter_count(Estimator(EstimatorConfig(channels=2)))
        assert lines[0] == f"us: is trained in {tmp_path / 'us'}"
        before = runs.weights_of(tmp_path / "us").read_bytes()
        assert self.train(data, tmp_path / "us", report=lines.append) == run
        assert lines[-1] == f"us: found in {tmp_path / 'us'}"
        assert len(quick) == 1
        assert self.train(data, tmp_path / "us", retrain=True).best_step == 2
        assert len(quick) == 2
        assert runs.weights_of(tmp_path / "us").read_bytes() == before

    def test_steps_are_those_of_the_recipe_unless_given(self, data, quick, tmp_path):
        run = self.train(data, tmp_path, Settings(("piece",)))
        assert run.settings["steps"] == run.best_step == 3
        assert self.train(data, tmp_path, Settings(("piece",), steps=3)) == run
        with pytest.raises(OptionError, match="steps 3 instead of 2"):
            self.train(data, tmp_path)

    def test_a_recipe_decides_on_rate_and_f0(self, data, quick, tmp_path, monkeypatch):
        seen = {}

        class Source(Chance):
            def __init__(self, pieces, **kwargs):
                super().__init__(pieces)
                seen.update(kwargs)

        monkeypatch.setattr("vocalsep.training.data.SingerSource", Source)
        recipe = SYSTEMS["us"].recipe()._replace(f0_errors=0.25, learning_rate=1e-12)
        runs.trained("us", System("still", SYSTEMS["us"].open, lambda: recipe), SETTINGS, data, tmp_path)
        assert seen["f0_errors"] == 0.25
        torch.manual_seed(SETTINGS.seed)
        start = Estimator(EstimatorConfig(channels=2)).head.weight
        found = weights.load(runs.weights_of(tmp_path))[1]["head.weight"]
        assert torch.allclose(found, start, atol=1e-6)

    def test_what_is_found_must_be_what_is_wanted(self, data, quick, tmp_path):
        self.train(data, tmp_path)
        with pytest.raises(OptionError, match="steps 2 instead of 3, seed 0 instead of 1"):
            self.train(data, tmp_path, Settings(("piece",), steps=3, seed=1))
        with pytest.raises(OptionError, match="holds a run of us; expected one of vocalsep"):
            runs.trained("vocalsep", SYSTEMS["vocalsep"], SETTINGS, data, tmp_path)
        (tmp_path / "run.json").write_text("{}")
        with pytest.raises(WeightsError, match="no record of a run"):
            self.train(data, tmp_path)
        (tmp_path / "run.json").unlink()
        with pytest.raises(OptionError, match="weights without a record"):
            self.train(data, tmp_path)

    def test_a_run_that_was_broken_off_goes_on(self, data, quick, tmp_path):
        whole = self.train(data, tmp_path / "whole", Settings(("piece",), steps=150))
        stopped: list[str] = []

        def stop(line: str) -> None:
            stopped.append(line)
            if "step 100" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.train(data, tmp_path / "cut", Settings(("piece",), steps=150), report=stop)
        record = Run.read(tmp_path / "cut")
        assert record is not None
        assert not record.finished
        again = self.train(data, tmp_path / "cut", Settings(("piece",), steps=150), report=stopped.append)
        assert "goes on with training" in stopped[2]
        assert again.best_step == whole.best_step
        assert (tmp_path / "cut" / "best.safetensors").read_bytes() == (
            tmp_path / "whole" / "best.safetensors"
        ).read_bytes()


class TestLineUp:
    def test_without_training_what_learns_needs_weights(self, quick, tiny_model, tmp_path):
        lines: list[str] = []
        found = line_up([], None, Settings(()), None, model=str(tiny_model), report=lines.append)
        assert list(found) == ["comb", "vocalsep", "vocalsep-adapted"]
        assert lines == ["us: left out, since it has no weights; --train trains it"]
        assert found["vocalsep"].cost(5.0).audio_seconds is None
        with pytest.raises(OptionError, match="us has no weights"):
            line_up(["us"], None, Settings(()), tmp_path)
        with pytest.raises(OptionError, match="no system is named 'oracle'; expected one of comb"):
            line_up(["oracle"], None, Settings(()), None)

    def test_what_borrows_is_trained_with_its_lender(self, data, quick, tmp_path):
        found = line_up(["vocalsep-adapted", "ideal"], data, SETTINGS, tmp_path)
        assert list(found) == ["vocalsep-adapted"]
        assert found["vocalsep-adapted"].cost().audio_seconds == 16.0
        assert [path.name for path in tmp_path.iterdir()] == ["vocalsep"]
        found = line_up([], None, SETTINGS, tmp_path)
        assert list(found) == ["comb", "vocalsep", "vocalsep-adapted"]
        assert len(quick) == 1


@pytest.fixture
def quartet(sing) -> benchmark.Ensemble:
    return benchmark.Ensemble(PARTS, sing(F0 * np.ones(520, np.float32)) / 8)


class TestLearningCurves:
    def test_points(self, data, quick, quartet, tmp_path):
        tracks = F0Tracks(F0 * np.ones(520, np.float32), PARTS)
        job = (quartet, tracks, ["us"], data, [10.0, 14.0], SETTINGS, tmp_path)
        points = list(data_efficiency.learning_curves(*job))
        assert [(point.system, point.seconds) for point in points] == [
            ("comb", None), ("ideal", None), ("us", pytest.approx(10, abs=0.05)), ("us", pytest.approx(14, abs=0.05))
        ]  # fmt: skip
        assert points[1].total.mean > points[0].total.mean
        assert json.loads((tmp_path / "us-10s" / "run.json").read_text())["settings"]["seconds"] == 10
        again = list(data_efficiency.learning_curves(*job))
        assert [point.total.mean for point in again] == [point.total.mean for point in points]
        assert len(quick) == 2
        with pytest.raises(OptionError, match="no system that is trained is named 'comb'; expected some of us"):
            list(data_efficiency.learning_curves(quartet, tracks, ["comb"], data, [10.0], SETTINGS, tmp_path))

    POINTS = (
        data_efficiency.Point("comb", None, (Scores(np.array([5.0])),)),
        data_efficiency.Point("us", 40.0, (Scores(np.array([6.0, 8.0])),)),
        data_efficiency.Point("us", 20.0, (Scores(np.array([6.0])),)),
    )

    def test_table_and_csv(self, tmp_path):
        lines = list(data_efficiency.format_points(self.POINTS, ["bass"]))
        assert lines[2].split() == ["us", "40", *["7.00", "/", "7.00"] * 2]
        data_efficiency.write_csv(tmp_path / "data.csv", self.POINTS, ["bass"])
        with (tmp_path / "data.csv").open() as stream:
            rows = list(csv.reader(stream))
        assert rows[1] == ["comb", "", "all", "5.0000", "5.0000", "1"]
        assert rows[4] == ["us", "40.00", "bass", "7.0000", "7.0000", "2"]
        assert data_efficiency.curves(self.POINTS) == {"us": [(20.0, 6.0), (40.0, 7.0)]}

    def test_picture(self, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        data_efficiency.plot(tmp_path / "data.png", self.POINTS)
        assert (tmp_path / "data.png").read_bytes()[:4] == b"\x89PNG"
        with pytest.raises(OptionError, match="path of a PNG file"):
            data_efficiency.plot(tmp_path, self.POINTS)
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError, match=r"vocalsep\[plot\]"):
            data_efficiency.plot(tmp_path / "other.png", self.POINTS)


class TestCommands:
    @pytest.fixture
    def folder(self, quartet, tmp_path, monkeypatch) -> Path:
        """Return a folder of singers 1 and 3; f0 is known, and the tracker is right."""
        monkeypatch.chdir(tmp_path)
        for singer in (1, 3):
            for name, stem in zip(PARTS, quartet.stems, strict=True):
                audio.write(Path("choir") / f"{name}_{singer}.wav", stem, RATE)
        frames = np.ones(1 + quartet.stems.shape[1] // 256, np.float32)
        pitches = iter(sorted(zip(PARTS, F0, strict=True)))
        monkeypatch.setattr(benchmark, "f0_from_stems", lambda stems, capacity: F0Tracks(F0 * frames, tuple(stems)))
        monkeypatch.setattr(sources, "f0_from_stems", lambda stems: F0Tracks(next(pitches)[1][None] * frames, ("v",)))

        def track(self, mono, f0s=None, *, voices=None, **kwargs):
            return f0s or F0Tracks(F0[[PARTS.index(name) for name in voices]] * frames, tuple(voices))

        monkeypatch.setattr("vocalsep.separation.separator.Separator.track", track)
        return Path("choir")

    def run(self, *arguments: str):
        return CliRunner().invoke(main, list(arguments), catch_exceptions=False)

    def test_benchmark(self, folder, quick, tiny_model):
        result = self.run(
            "benchmark", "choir", "--train", "choir:1", "--system", "comb", "--system", "us", "--steps", "1",
            "--voices", "4", "--no-speed", "--csv", "scores.csv", "-n", str(tiny_model),
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].startswith("choir, singer 3, weights ")
        assert "4 voices (SATB): SI-SDR mean / median in dB" in lines
        table = lines[lines.index("4 voices (SATB): SI-SDR mean / median in dB") + 1 :]
        assert [line.split()[0] for line in table[:7]] == ["system", "mixture", "comb", "comb", "us", "us", "f0"]
        assert Path("runs/benchmark/us/best.safetensors").exists()
        assert Path("scores.csv").read_text().count("\n4,all,us,") == 2 * 4 * 5
        again = self.run(
            "benchmark", "choir", "-o", "runs/benchmark", "--system", "ideal", "--no-speed", "--voices", "4"
        )
        assert again.exit_code == 0, again.output
        assert "\nideal " in again.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--voices", "5"], "expected 2 to 4"),
            (["--voices", "four"], "--voices is 'four'"),
            (["--retrain"], "expected --train"),
            (["--system", "oracle"], "no system is named 'oracle'"),
        ],
    )
    def test_what_is_refused(self, folder, quick, arguments, message):
        result = self.run("benchmark", "choir", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]

    def test_benchmark_data(self, folder, quick):
        arguments = ["benchmark-data", "choir", "--train", "choir:1", "--steps", "1", "--system", "us"]
        result = self.run(*arguments, "--seconds", "6", "--seconds", "20")
        assert result.exit_code == 0, result.output
        assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["comb", "ideal", "us", "us"]
        assert "Note: 20 s are asked for; there are 7.4 s" in result.stderr
        assert Path("runs/data/us-6s/run.json").exists()
        assert Path("runs/data/data.csv").read_text().count("\n") == 1 + 4 * 5
        assert "nothing to train on" in self.run("benchmark-data", "choir").stderr
