"""The benchmarks: ensembles, the table of systems, trained networks, tables, and the commands."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vocalsep import audio
from vocalsep.cli import main
from vocalsep.errors import AudioError, MissingExtraError, OptionError, OutputError, WeightsError
from vocalsep.evaluation import data_efficiency, rooms, separation, speed, tracking, trained
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.baselines.ideal import ideal_parameters, separate_by_parameters, separate_ideal
from vocalsep.evaluation.degrade import DEGRADATIONS
from vocalsep.evaluation.ensemble import QUARTET, Ensemble, f0_of_stems, load_ensemble, subsets
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.evaluation.separation import FROM_MIXTURE, FROM_STEMS, SI_SDR, LoadedSystem, VoiceScores
from vocalsep.evaluation.systems import NETWORKS, SYSTEMS, NetworkTraining
from vocalsep.evaluation.trained import Run, TrainedNetworks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.correction import MaskCorrection
from vocalsep.model.estimator import Estimator, EstimatorConfig
from vocalsep.model.room import RoomParameters
from vocalsep.separation.analysis import Analysis
from vocalsep.training.takes import Take

pytestmark = pytest.mark.slow

RATE = 16000
F0 = np.float32([[520], [330], [210], [110]])


def tracks_of(ensemble: Ensemble) -> F0Tracks:
    """Return the f0 of voices that hold the notes of `F0`."""
    frames = 1 + ensemble.stems.shape[1] // 256
    return F0Tracks(F0[: len(ensemble.names)] * np.ones(frames, np.float32), ensemble.names)


@pytest.fixture(scope="module")
def quartet(sing) -> Ensemble:
    """Four voices that hold a note for 8.3 s."""
    return Ensemble(QUARTET, sing(F0 * np.ones(520, np.float32))[:, None] / 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quartet) -> Path:
    """Recordings of the quartet by singers 1 and 3."""
    path = tmp_path_factory.mktemp("singers") / "choir"
    for singer in (1, 3):
        for name, stem in zip(quartet.names, quartet.stems, strict=True):
            audio.write(path / f"{name}_{singer}.wav", stem, RATE, bit_depth="float32")
    return path


class TestEnsembles:
    def test_files_are_named_by_part_and_singer_or_part(self, folder, quartet, tmp_path):
        np.testing.assert_allclose(load_ensemble(folder, ["3"]).stems, quartet.stems, atol=1e-6)
        for name, length in (("lead", 20000), ("low_3", 30000)):
            audio.write(tmp_path / f"{name}.wav", 0.1 * np.ones(length), RATE)
        ensemble = load_ensemble(tmp_path, ["3"], ["lead", "low"])
        assert ensemble.stems.shape == (2, 20000)
        assert ensemble.label == "lead+low"
        with pytest.raises(AudioError, match="high_3"):
            load_ensemble(tmp_path, ["3"], ["high", "low"])

    def test_several_singers_are_a_section(self, folder, quartet, separator, tmp_path):
        np.testing.assert_allclose(load_ensemble(folder, ["1", "3"]).stems, 2 * quartet.stems, atol=1e-6)
        audio.write(tmp_path / "lead.wav", 0.1 * np.ones(RATE), RATE)
        assert np.abs(load_ensemble(tmp_path, ["1", "3"], ["lead"]).stems).max() < 0.11  # one file, counted once
        with pytest.raises(OptionError):
            load_ensemble(folder, [])

    def test_subsets_are_all_ensembles_of_a_size(self):
        whole = Ensemble(("a", "b", "c"), [np.float32(part) for part in ([[1, 0]], [[0, 2]], [[3, 0], [1, 0]])])
        assert [part.names for part in subsets(whole)] == [("a", "b", "c"), ("a", "b"), ("a", "c"), ("b", "c")]
        np.testing.assert_array_equal([part.mixture for part in subsets(whole, [2])], [[1, 2], [5, 0], [4, 2]])
        for size in (1, 4):
            with pytest.raises(OptionError, match="2 to 3"):
                subsets(whole, [size])

    def test_f0_of_stems(self, quartet, separator):
        found = f0_of_stems(quartet, separator.crepe)
        assert found.names == QUARTET
        np.testing.assert_allclose(np.median(found.frequencies, axis=1), F0[:, 0], rtol=0.01)

    def test_f0_of_a_section_is_the_mean_of_its_singers(self, sing, separator):
        f0 = np.float32([[220], [233]]) * np.ones(125, np.float32)
        found = f0_of_stems(Ensemble(("alto",), [sing(f0) / 8]), separator.crepe)
        np.testing.assert_allclose(np.median(found.frequencies), np.sqrt(220 * 233), rtol=0.005)


class TestBounds:
    """The comb, source-filter parameters of the true stems, and ideal masks."""

    def test_order_and_sums(self, quartet, tiny_separator):
        mixture, stems, tracks = quartet.mixture, quartet.stems, tracks_of(quartet)
        mixed, comb, ours, form, ideal = systems = [
            np.stack([mixture] * 4),
            separate_comb(mixture, tracks),
            np.stack(list(tiny_separator.separate(mixture, tracks).stems.values())),
            separate_by_parameters(mixture, ideal_parameters(stems, tracks, tiny_separator)),
            separate_ideal(mixture, stems),
        ]
        for better, worse in ((comb, mixed), (form, ours), (ideal, comb), (ideal, form)):
            assert si_sdr(stems, better).mean() > si_sdr(stems, worse).mean() + 0.5
        for estimates in systems[1:]:
            assert np.abs(estimates.sum(axis=0) - mixture).max() < 1e-5

    def test_the_comb_works_at_any_rate_and_hop(self, sing):
        f0 = np.float32([[440], [220]]) * np.ones(64, np.float32)
        f0[0, :32] = 0
        mixture = sing(f0, 44100).sum(axis=0)
        fine = F0Tracks(np.repeat(f0, 4, axis=1), ("a", "b"), 0.004)
        found = separate_comb(mixture, fine, 44100)
        assert np.abs(found.sum(axis=0) - mixture).max() < 1e-5
        assert (si_sdr(separate_comb(mixture, F0Tracks(f0, ("a", "b")), 44100), found) > 20).all()


class TestSystems:
    def test_table(self):
        assert [name for name, system in SYSTEMS.items() if system.network is None] == list(SYSTEMS)[:3]
        assert {system.network for system in SYSTEMS.values()} == {None, *NETWORKS}
        assert {system.learns_from for system in SYSTEMS.values()} == {"nothing", "mixtures", "stems"}

    @pytest.mark.parametrize("name", ["vocalsep", "vocalsep-unfitted"])
    def test_ours_is_the_separator(self, name, quartet, tiny_separator, tiny_model):
        mixture, tracks = quartet.mixture[: 2 * RATE], F0Tracks(F0 * np.ones(126, np.float32), QUARTET)
        found = SYSTEMS[name].load(str(tiny_model), "cpu")(mixture, tracks)
        fitted = np.stack(list(tiny_separator.separate(mixture, tracks).stems.values()))
        assert (np.abs(found - fitted).max() < 1e-6) == (name == "vocalsep")

    def test_without_training_systems_need_weights(self, tiny_model, tiny_separator, tmp_path):
        lines: list[str] = []
        networks = TrainedNetworks(tmp_path, (), tiny_separator)
        found = separation.load_systems([], networks, str(tiny_model), lines.append)
        assert list(found) == ["comb", "nmf", "source-filter-nmf", "vocalsep", "vocalsep-unfitted"]
        assert [line.split(":")[0] for line in lines] == ["unet", "us", "vocalsep-stems"]
        for name in ("us", "oracle"):
            with pytest.raises(OptionError, match=name):
                separation.load_systems([name], networks, None)


@pytest.fixture(scope="module")
def results(quartet, tiny_separator) -> list[VoiceScores]:
    """Scores of a duet by a system that bleeds by 20 dB if its f0 is exact, and does nothing otherwise."""
    duet, truth = subsets(quartet, [2])[0], tracks_of(quartet)

    def separate(mixture, tracks):
        if np.array_equal(tracks.frequencies, truth.frequencies[:2]):
            return duet.stems + 0.1 * duet.stems[::-1]
        return np.stack([mixture, mixture])

    return list(separation.evaluate([duet], {"oracle": LoadedSystem(separate)}, truth, tiny_separator))


class TestEvaluate:
    def test_each_system_is_scored_with_each_f0(self, results):
        rows = list(dict.fromkeys((result.system, result.f0) for result in results))
        assert rows == [
            ("mixture", ""), ("oracle", FROM_STEMS), ("oracle", FROM_MIXTURE),
            ("ideal-form", FROM_STEMS), ("ideal-form-no-phase", FROM_STEMS), ("ideal", ""),
        ]  # fmt: skip
        means = {(r.system, r.f0): r.scores[SI_SDR].mean() for r in results if r.voice == "soprano"}
        assert means["mixture", ""] == means["oracle", FROM_MIXTURE] < means["oracle", FROM_STEMS]
        assert means["oracle", FROM_STEMS] < means["ideal", ""]

    def test_metrics_agree_on_what_is_better(self, results):
        for metric, sign in (("SI-SDR", 1), ("spectral SNR", 1), ("spectral SI-SNR", 1), ("MCD", -1)):
            good, bad = (
                sign * np.concatenate([r.scores[metric] for r in results if (r.system, r.f0) == ("oracle", f0)]).mean()
                for f0 in (FROM_STEMS, FROM_MIXTURE)
            )
            assert good > bad


@pytest.fixture(scope="module")
def church() -> np.ndarray:
    """The response of a room: direct sound, and noise that decays by 60 dB in 1.5 s."""
    time = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(0).normal(size=time.size) * 10 ** (-3 * time / 1.5)
    response = noise / np.sqrt((noise**2).sum())
    response[:200] = 0
    response[0] = 1
    return response.astype(np.float32)


@pytest.fixture(scope="module")
def duet(sing) -> Ensemble:
    """Two voices that sing notes of half a second."""
    notes = np.float32([[520, 440, 0, 590, 470, 660, 0, 390], [220, 260, 196, 0, 290, 175, 220, 0]])
    f0 = np.tile(np.repeat(notes, 32, axis=1), 2)
    return Ensemble(("soprano", "tenor"), sing(f0)[:, None] / 8)


@pytest.fixture(scope="module")
def measured(duet, church, separator) -> list[rooms.InRoom]:
    """The duet, dry and in a room."""
    truth = f0_of_stems(duet, separator.crepe)
    return list(rooms.evaluate_in_rooms([duet], {"church": church}, truth, separator))


class TestRooms:
    def test_the_model_of_the_room_helps_in_a_room_only(self, measured):
        def mean(result: rooms.InRoom, system: str, f0: str) -> float:
            return np.concatenate([s.scores[SI_SDR] for s in result.scores if (s.system, s.f0) == (system, f0)]).mean()

        dry, wet = measured
        for f0 in (FROM_STEMS, FROM_MIXTURE):
            assert mean(dry, "room model", f0) > mean(dry, "no room model", f0) - 0.1
        assert mean(wet, "ideal", "") > mean(wet, "room model", FROM_STEMS) > mean(wet, "no room model", FROM_STEMS) + 1

    def test_rooms_are_estimated(self, measured):
        dry, wet = measured
        assert dry.true.is_dry and all(room.is_dry for room in dry.estimated.values())
        for room in (wet.true, wet.estimated[FROM_STEMS]):
            assert float(room.reverberation_time) == pytest.approx(1.5, rel=0.3)

    def test_stems_are_convolved(self, duet):
        wet = rooms.put_in_room(duet, "echo", np.float32([1, 0, 0.5]))
        assert (wet.room, wet.names) == ("echo", duet.names)
        np.testing.assert_allclose(wet.stems[:, 2:], duet.stems[:, 2:] + 0.5 * duet.stems[:, :-2], atol=1e-5)

    def test_corrected_masks_are_one_more_system(self, duet, tiny_separator):
        system = tiny_separator.without_correction()
        system.correction = MaskCorrection()  # a new one changes nothing
        [dry] = rooms.evaluate_in_rooms([duet], {}, f0_of_stems(duet, system.crepe), system)
        of_masks, of_room = (
            {(s.f0, s.voice): s.scores[SI_SDR] for s in dry.scores if s.system == name}
            for name in ("corrected masks", "room model")
        )
        assert of_masks.keys() == of_room.keys() != set()
        for key, values in of_room.items():
            np.testing.assert_allclose(of_masks[key], values, atol=1e-3)

    def test_tables(self, measured):
        lines = [line.split() for line in rooms.format_scores(measured)]
        assert lines[1] == ["system", "f0", "dry", "church"]
        assert len(lines) == 2 + 2 * 2 + 1
        lines = [line.split() for line in rooms.format_rooms(measured)]
        assert lines[2] == ["dry", "2", "none", "none", "none"]
        assert lines[3][:2] == ["church", "2"]

    def test_some_of_several_rooms(self, measured):
        wet = measured[1]
        both = wet._replace(estimated=wet.estimated | {FROM_STEMS: RoomParameters.of()})
        line = list(rooms.format_rooms([wet, both]))[-1]
        assert line.count("(1 of 2)") == 1


def made(voices: str, system: str, *values: list[float]) -> list[VoiceScores]:
    metrics = ("SI-SDR", "spectral SNR", "spectral SI-SNR", "MCD")
    return [
        VoiceScores(system, tuple(voices), "stems", voice, dict.fromkeys(metrics, np.array(row)))
        for voice, row in zip(voices, values, strict=True)
    ]


class TestTables:
    RESULTS = (
        *made("sa", "comb", [1.0, 2.0], [3.0]),
        *made("sa", "vocalsep", [1.0], [2.0]),
        *made("sb", "comb", [6.0], [8.0]),
    )

    def test_frames_of_all_ensembles_are_pooled_by_voice(self):
        lines = [line.split() for line in separation.format_tables(self.RESULTS, "sab")]
        assert lines[1] == ["system", "f0", "all", "s", "a", "b"]
        assert " ".join(lines[2]) == "comb stems 4.00 / 3.00 3.00 / 2.00 3.00 / 3.00 8.00 / 8.00"
        assert lines[3][-3:] == ["nan", "/", "nan"]

    def test_csv_holds_every_ensemble_and_all_of_a_size(self, tmp_path):
        separation.write_csv(tmp_path / "new" / "scores.csv", self.RESULTS, "sab")
        lines = (tmp_path / "new" / "scores.csv").read_text().splitlines()
        assert "2,s+b,dry,comb,stems,SI-SDR,all,7.0000,7.0000,2" in lines
        assert "2,all,dry,comb,stems,MCD,s,3.0000,2.0000,3" in lines
        assert len(lines) == 1 + 4 * (3 * 3 + 4 + 3)
        with pytest.raises(OutputError):
            separation.write_csv(tmp_path, self.RESULTS, "sab")

    def test_costs(self, tiny_model, tiny_estimator):
        run = Run("vocalsep", (), 1, 0, audio_seconds=136.84, training_seconds=90.0)
        systems = {
            "comb": LoadedSystem(separate_comb),
            "vocalsep": LoadedSystem(separate_comb, str(tiny_model), run),
            "vocalsep-unfitted": LoadedSystem(separate_comb, str(tiny_model)),
        }
        lines = [line.split() for line in separation.format_costs(systems)]
        assert lines[2][:2] == ["comb", "nothing"]
        parameters = sum(parameter.numel() for parameter in tiny_estimator.parameters())
        assert lines[3][:7] == ["vocalsep", "mixtures", f"{parameters:,}", "136.8", "s", "1.5", "min"]
        assert lines[4][3:5] == ["unknown", "unknown"]


def take(seconds: float, onset: float) -> Take:
    """Return a take whose samples are the numbers of their frames, silent up to an onset."""
    frames = round(seconds / 0.016)
    f0 = np.where(np.arange(frames) < round(onset / 0.016), 0, 220.0).astype(np.float32)
    return Take(np.repeat(np.arange(frames, dtype=np.float32), 256), f0[None])


class Chance:
    """A source of numbers instead of excerpts."""

    def draw(self, rng, size):
        return torch.from_numpy(rng.normal(size=size))


class TinyEstimator(Estimator):
    """An estimator that is trained in no time."""

    Config = staticmethod(partial(EstimatorConfig, channels=2))


@pytest.fixture
def quick(monkeypatch) -> None:
    """Train a small network on numbers, in place of the network of US."""
    training = NetworkTraining(TinyEstimator, lambda network, _: network.head.weight.square().mean(), 3)
    monkeypatch.setitem(NETWORKS, "us", training)
    monkeypatch.setitem(SYSTEMS, "us", SYSTEMS["vocalsep"]._replace(network="us"))
    monkeypatch.setattr(trained, "singer_sources", lambda training, held_out, f0_errors: (Chance(), Chance()))


@pytest.fixture
def networks(tiny_separator, tmp_path):
    """A function that returns trained networks; pieces of 8 s of two parts, the second of which begins at 0.8 s."""

    def build(**options) -> TrainedNetworks:
        found = TrainedNetworks(tmp_path / "runs", ["music/nino_dios:1,2"], tiny_separator, **options)
        piece = {"a": [take(8, 1.6), take(8, 2.4)], "b": [take(8, 0.8), take(8, 4.0)]}
        found.__dict__["pieces"] = ([piece], [{"a": [take(2, 0)], "b": [take(2, 0)]}])
        return found

    return build


class TestTrainingAudio:
    def test_takes_are_cut_in_time_from_the_first_note_on(self, networks):
        pieces = networks().pieces[0]
        assert trained.mixture_seconds(pieces) == pytest.approx(4 * 8 / 2)
        cut = trained.shortened(pieces, 7.2)
        assert trained.mixture_seconds(cut) == pytest.approx(7.2, abs=0.05)
        takes = [one for some in cut[0].values() for one in some]
        assert {float(one.waveform[0]) for one in takes} == {0.8 / 0.016}
        assert {one.n_frames for one in takes} == {225}
        assert [int((one.f0 > 0).argmax()) for one in takes] == [50, 100, 0, 200]

    def test_at_most_what_there_is(self, networks):
        assert networks().amounts([20, 7, 30]) == [7, pytest.approx(14.4)]
        for seconds in ([5.0, 0.0], []):
            with pytest.raises(OptionError):
                networks().amounts(seconds)


class TestTrainedNetworks:
    def test_a_network_is_trained_once_and_found_again(self, networks, quick):
        lines: list[str] = []
        path, run = networks(report=lines.append).get("us")
        assert (run.singers, run.steps, run.audio_seconds) == (("nino_dios:1,2",), 3, 16.0)
        assert lines[0].startswith("us: training")
        before = (path / "model.safetensors").read_bytes()
        assert networks(report=lambda line: pytest.fail(line)).get("us") == (path, run)
        assert (path / "model.safetensors").read_bytes() == before

    def test_a_run_with_other_settings_is_refused(self, networks, quick, tmp_path):
        networks(steps=2).get("us")
        for other in (networks(), networks(steps=2, seed=1)):
            with pytest.raises(OptionError, match="us"):
                other.get("us")
        (tmp_path / "runs" / "us" / "run.json").write_text("{}")
        with pytest.raises(WeightsError, match="record"):
            networks(steps=2).get("us")

    def test_without_singers_networks_are_only_found(self, networks, quick, tiny_separator, tmp_path):
        assert TrainedNetworks(tmp_path / "runs", (), tiny_separator).get("us") is None
        found = networks().get("us")
        assert TrainedNetworks(tmp_path / "runs", (), tiny_separator).get("us") == found

    def test_an_interrupted_run_is_resumed(self, networks, quick, tmp_path):
        (path, _), folder = networks(steps=150).get("us"), tmp_path / "runs" / "us"
        whole = (path / "model.safetensors").read_bytes()
        shutil.rmtree(folder)

        def stop(line: str) -> None:
            if "step 100" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            networks(steps=150, report=stop).get("us")
        assert Run.read(folder).training_seconds == 0
        networks(steps=150).get("us")
        assert (path / "model.safetensors").read_bytes() == whole


class TestDataEfficiency:
    def test_points(self, networks, quick, quartet):
        curves = data_efficiency.learning_curves
        points = list(curves(quartet, tracks_of(quartet), ["us"], networks(), [10.0, 30.0]))
        assert [(point.system, point.seconds) for point in points] == [
            ("comb", None), ("ideal", None), ("us", pytest.approx(10, abs=0.05)), ("us", pytest.approx(14.4, abs=0.05))
        ]  # fmt: skip
        assert points[1].scores["all"].mean() > points[0].scores["all"].mean()
        assert json.loads((networks().folder / "us-10s" / "run.json").read_text())["seconds"] == 10
        with pytest.raises(OptionError, match="comb"):
            list(curves(quartet, tracks_of(quartet), ["comb"], networks(), [10.0]))

    POINTS = (
        data_efficiency.Point("comb", None, {"all": np.array([5.0])}),
        data_efficiency.Point("us", 40.0, {"all": np.array([6.0, 8.0])}),
        data_efficiency.Point("us", 20.0, {"all": np.array([6.0])}),
    )

    def test_table_and_csv(self, tmp_path):
        assert list(data_efficiency.format_points(self.POINTS))[2].split() == ["us", "40", "7.00", "/", "7.00"]
        data_efficiency.write_csv(tmp_path / "data.csv", self.POINTS)
        lines = (tmp_path / "data.csv").read_text().splitlines()
        assert lines[1:3] == ["comb,,all,5.0000,5.0000,1", "us,40.00,all,7.0000,7.0000,2"]

    def test_plot(self, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        data_efficiency.plot(tmp_path / "data.png", self.POINTS)
        assert (tmp_path / "data.png").read_bytes()[:4] == b"\x89PNG"
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError):
            data_efficiency.plot(tmp_path / "other.png", self.POINTS)


def tracked(voices: str, wrong: str = "") -> tracking.TrackedEnsemble:
    """Return an ensemble some voices of which are missed throughout."""
    truth = np.tile(np.linspace(400, 100, len(voices))[:, None], 40)
    found = np.where(np.array([letter in wrong for letter in voices])[:, None], 0, truth)
    confidence = (found > 0).astype(np.float32)
    return tracking.TrackedEnsemble(
        voices, F0Tracks(truth, tuple(voices)), F0Tracks(found, tuple(voices), confidence=confidence)
    )


class TestTracking:
    def test_means(self):
        table = tracking.f_table([tracked("SATB", "B"), tracked("SAT", "A"), tracked("STB")], "SATB")
        assert list(table) == ["4 voices", "3 voices", "  SAT", "  STB", "all"]
        np.testing.assert_array_equal(table["4 voices"], [1, 1, 1, 0])
        np.testing.assert_array_equal(table["  SAT"], [1, 0, 1, np.nan])
        np.testing.assert_array_equal(table["3 voices"], [1, 0, 1, 1])
        np.testing.assert_array_equal(table["all"], [1, 0.5, 1, 0.5])

    def test_tables(self):
        lines = list(tracking.format_tables([tracked("SATB", "B"), tracked("SB")], "SATB"))
        rows = {line[:24].strip(): line[24:].split() for line in lines}
        assert rows["4 voices"] == ["1.00", "1.00", "1.00", "0.00", "0.75", "0.00"]
        assert rows["2 voices"][1:3] == ["-", "-"]
        assert rows["0.9 to 1.0"] == ["200", "1.00", "1.00"]
        assert "expected calibration error 0.000" in lines
        shares = lines.index(next(line for line in lines if line.startswith("frames (%)")))
        assert lines[shares + 4].split() == ["B", "50.0", "0.0", "0.0", "0.0", "0.0", "50.0"]

    @pytest.mark.parametrize("condition", list(DEGRADATIONS))
    def test_tracks_are_brought_to_the_grid_of_the_truth(self, condition, quartet, monkeypatch):
        duet, truth = subsets(quartet, [2])[0], tracks_of(quartet)
        expected = DEGRADATIONS[condition](duet.mixture, truth.select(duet.names))[2]

        class Oracle:
            def analyse(self, downmix, *, voices):
                assert voices == duet.names
                tracks = F0Tracks(np.pad(expected.frequencies, ((0, 0), (0, 1))), expected.names)
                return Analysis(downmix, tracks, RoomParameters.of())

        item = tracking.track_ensemble(Oracle(), duet, truth, condition)
        np.testing.assert_array_equal(item.estimate.frequencies, item.truth.frequencies)


class TestSpeed:
    def test_recordings_are_repeated(self):
        waveform = np.arange(20000, dtype=np.float32)[None]
        blocks = list(speed.repeated(waveform, 1.0))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1)[0], np.resize(waveform, 44100))

    def test_stages(self, folder, tiny_separator, monkeypatch):
        monkeypatch.setattr(speed, "STAGE_SECONDS", 2.0)
        waveform = speed.load_stereo(folder / "alto_3.wav")
        assert waveform.shape[0] == 2
        stages = speed.time_stages(tiny_separator, waveform)
        assert list(stages) == ["reading", "analysis", "parameters", "masks"]
        lines = list(speed.format_stages(stages, "cpu"))
        assert float(lines[-1].split()[1]) == pytest.approx(sum(stages.values()) / 2, abs=1e-3)

    def test_memory_of_a_file_is_that_of_its_process(self, folder, tiny_model, tiny_tracker):
        networks = speed.NetworkOptions(str(tiny_model), str(tiny_tracker), device="cpu")
        _, seconds, peak = speed.measure_file(speed.load_stereo(folder / "alto_3.wav"), 0.05, networks)
        assert seconds > 0
        assert 50e6 < peak < 20e9


class TestCommands:
    def run(self, *arguments):
        return CliRunner().invoke(main, ["bench", *map(str, arguments)])

    def test_separation(self, folder, tiny_model, tiny_tracker, tmp_path):
        result = self.run(
            "separation", folder, "--voices", 2, "--parts", "soprano,bass", "--systems", "comb,vocalsep",
            "--csv", tmp_path / "scores.csv", "-n", tiny_model, "--tracker", tiny_tracker, "-o", tmp_path,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        table = result.stdout[result.stdout.index("SI-SDR") :].splitlines()[2:]
        assert [line.split()[0] for line in table[:5]] == ["mixture", "comb", "comb", "vocalsep", "vocalsep"]
        assert (tmp_path / "scores.csv").read_text().count("\n2,soprano+bass,dry,vocalsep,") == 2 * 4 * 3

    def test_separation_in_rooms(self, folder, church, tiny_model, tiny_tracker, tmp_path):
        for name in ("church", "hall"):
            audio.write(tmp_path / "rooms" / f"{name}.wav", church / 2, RATE, bit_depth="float32")
        options = ("--voices", 2, "--parts", "soprano,bass", "-n", tiny_model, "--tracker", tiny_tracker)
        options += ("--rooms", tmp_path / "rooms", "--csv", tmp_path / "scores.csv")
        result = self.run("separation", folder, *options, "--room", "hall", "--singer", "1,3")
        assert result.exit_code == 0, result.output
        assert ["system", "f0", "dry", "hall"] in [line.split() for line in result.stdout.splitlines()]
        table = (tmp_path / "scores.csv").read_text()
        assert all(table.count(f"\n2,soprano+bass,{room},ideal,,SI-SDR,") == 3 for room in ("dry", "hall"))
        for wrong in (["--room", "cave"], ["--systems", "comb"]):
            result = self.run("separation", folder, *options, *wrong)
            assert result.exit_code == 2
            assert wrong[0] in result.stderr

    def test_tracking(self, folder, tiny_tracker):
        result = self.run("tracking", folder, "--parts", "soprano,bass", "--robustness", "--tracker", tiny_tracker)
        assert result.exit_code == 0, result.output
        rows = {line[:24].strip(): line[24:].split() for line in result.stdout.splitlines()}
        assert rows["F at 50 cents"] == ["soprano", "bass", "mean", "worst"]
        assert {"mir_eval multipitch", "mir_eval melody", *DEGRADATIONS} <= rows.keys()

    def test_data_efficiency(self, folder, quick, tmp_path):
        result = self.run(
            "data-efficiency", folder, "--train", f"{folder}:1", "--systems", "us", "--seconds", "6,20",
            "--steps", 1, "-o", tmp_path, "--csv", tmp_path / "data.csv",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["comb", "ideal", "us", "us"]
        assert (tmp_path / "us-6s" / "run.json").exists()
        assert (tmp_path / "data.csv").read_text().count("\n") == 1 + 4 * 5

    @pytest.mark.parametrize(
        ("arguments", "flag"),
        [
            (["separation", "--voices", "5"], "--voices"),
            (["separation", "--voices", "four"], "--voices"),
            (["separation", "--systems", "oracle"], "--systems"),
            (["data-efficiency"], "--train"),
        ],
    )
    def test_bad_options(self, folder, arguments, flag):
        command, *options = arguments
        result = self.run(command, folder, *options)
        assert result.exit_code == 2
        assert flag in result.stderr
