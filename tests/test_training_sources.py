"""Training data out of folders of recordings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from melodies import PARTS, melody

from vocalsep import audio
from vocalsep.errors import AudioError, F0Error, OptionError, VoicesError
from vocalsep.f0.crepe import Crepe
from vocalsep.training.data import MixedSource, MixtureSource, SingerSource
from vocalsep.training.sources import EstimatorData, TrackerData, load_singers, singer_folders
from vocalsep.weights import load_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crepe() -> Crepe:
    return load_network("crepe-tiny", Crepe)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sing) -> Path:
    """singers/PART_N.wav with 6 s of two singers, choir/NAME.wav with 6 s, guides/NAME/PART.wav."""
    root = tmp_path_factory.mktemp("folders")
    for number, name in enumerate(("one", "two")):
        stems = sing(np.stack([melody(f0, 380, number) for f0 in PARTS.values()])) / 16
        for folder in (root / "choir", root / "singers", root / "guides" / name):
            folder.mkdir(parents=True, exist_ok=True)
        audio.write(root / "choir" / f"{name}.wav", stems.sum(axis=0), 16000)
        for part, stem in zip(PARTS, stems, strict=True):
            audio.write(root / "guides" / name / f"{part}.wav", stem, 16000)
            audio.write(root / "singers" / f"{part}_{number + 1}.wav", stem, 16000)
    return root


@pytest.mark.parametrize(
    ("text", "folder", "names"),
    [
        ("FOLDER:1,2", "FOLDER", ["1", "2"]),
        ("FOLDER: 1 , 2 ", "FOLDER", ["1", "2"]),
        ("a/b:3", "a/b", ["3"]),
        ("a/b", "a/b", None),
        ("a/b:", "a/b", None),
        ("C:/music/nino", "C:/music/nino", None),
        (r"C:\music\nino:1", r"C:\music\nino", ["1"]),
    ],
)
def test_folders_with_names(text, folder, names):
    assert singer_folders([text]) == [(Path(folder), names)]


class TestSingers:
    def test_they_come_by_part_from_high_to_low(self, folders, crepe):
        piece = load_singers(folders / "singers", ["2"], crepe)
        assert [(part, len(takes)) for part, takes in piece.items()] == [(part, 1) for part in PARTS]
        expected, found = melody(330.0, 380, 1), piece["alto"][0].f0[0, :380]
        both = (expected > 0) & (found > 0)
        assert both.mean() > 0.7
        assert np.median(np.abs(1200 * np.log2(found[both] / expected[both]))) < 15

    def test_missing_singers(self, folders, crepe):
        with pytest.raises(AudioError, match="singer 9"):
            load_singers(folders / "singers", ["1", "9"], crepe)

    def test_next_to_nothing_held_out(self, folders, tiny_separator):
        with pytest.raises(AudioError, match="held out"):
            EstimatorData(singers=(f"{folders / 'singers'}:1",), held_out=0.001).sources(tiny_separator)

    def test_both_networks_train_on_ensembles_and_validate_on_quartets(self, folders, crepe, tiny_separator):
        text = (f"{folders / 'singers'}:1",)
        for training, validation in (
            EstimatorData(singers=text, held_out=0.2).sources(tiny_separator),
            TrackerData(text, synthetic=0, held_out=0.2).sources(crepe),
        ):
            assert (training.frames, training.augmented) == (250, True)
            batch = validation.draw(np.random.default_rng(0), 2)
            assert (validation.frames, validation.augmented, batch.f0.shape[1]) == (76, False, 4)
            assert batch.mixture.shape == (2, 76 * 256)


class TestRooms:
    def test_training_and_validation_are_put_into_them(self, folders, tmp_path, tiny_separator):
        t = np.arange(16000) / 16000
        noise = 0.1 * np.random.default_rng(0).normal(size=16000) * 10 ** (-3 * t)
        audio.write(tmp_path / "hall.wav", np.concatenate([[0.9], noise]), 16000)
        data = EstimatorData(singers=(f"{folders / 'singers'}:1",), held_out=0.2, rooms=(tmp_path,))
        for source in data.sources(tiny_separator):
            rng = np.random.default_rng(0)
            found = [source.draw(rng, 4).room for _ in range(4)]
            times = torch.cat([room.reverberation_time for room in found if room is not None])
            assert ((times > 0.65) & (times < 1.35)).sum() > 4

    def test_there_are_none_by_default(self, folders, tiny_separator):
        data = EstimatorData(singers=(f"{folders / 'singers'}:1",), held_out=0.2)
        assert all(source.rooms is None for source in data.sources(tiny_separator))


class TestMixtures:
    def test_f0_of_guides(self, folders, tiny_separator):
        data = EstimatorData(folders / "choir", folders / "guides", "SB", held_out=0.2)
        training, validation = data.sources(tiny_separator)
        assert [take.f0.shape for take in training.takes] == [(2, 303)] * 2
        for row, f0 in zip(training.takes[0].f0, (PARTS["soprano"], PARTS["bass"]), strict=True):
            assert np.median(row[row > 0]) == pytest.approx(f0, rel=0.3)
        assert validation.draw(np.random.default_rng(0), 2).f0.shape == (2, 2, 77)

    def test_tracked_f0(self, folders, tiny_separator):
        training, _ = EstimatorData(folders / "choir", voices="SA", held_out=0.2).sources(tiny_separator)
        assert training.draw(np.random.default_rng(0), 1).f0.shape == (1, 2, 251)

    def test_mixtures_and_singers(self, folders, tiny_separator):
        data = EstimatorData(folders / "choir", singers=(f"{folders / 'singers'}:1",), held_out=0.2)
        training, validation = data.sources(tiny_separator)
        assert isinstance(training, MixedSource)
        assert isinstance(training.first, MixtureSource)
        assert isinstance(validation, SingerSource)

    @pytest.mark.parametrize(("mixtures", "guides"), [("nowhere", None), ("choir", "nowhere"), ("choir", "choir")])
    def test_folders_without_recordings(self, folders, tiny_separator, mixtures, guides):
        with pytest.raises(AudioError):
            EstimatorData(folders / mixtures, guides and folders / guides).sources(tiny_separator)

    def test_guides_of_another_length(self, tmp_path, tiny_separator):
        for path, seconds in (("choir/one.wav", 6), ("guides/one/soprano.wav", 8)):
            (tmp_path / path).parent.mkdir(parents=True)
            audio.write(tmp_path / path, np.zeros(16000 * seconds), 16000)
        with pytest.raises(F0Error, match="one"):
            EstimatorData(tmp_path / "choir", tmp_path / "guides").sources(tiny_separator)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, OptionError),
        ({"singers": ("x",), "guides": Path("x")}, OptionError),
        ({"singers": ("x",), "voices": "SATB"}, OptionError),
        ({"mixtures": Path("x"), "rooms": (Path("x"),)}, OptionError),
        ({"mixtures": Path("x"), "voices": "XYZ"}, VoicesError),
    ],
)
def test_data_that_do_not_fit_together(options, error):
    with pytest.raises(error):
        EstimatorData(**options)


def test_a_tracker_needs_singers():
    with pytest.raises(OptionError):
        TrackerData(synthetic=0)


def test_synthetic_singers_alone_train_and_validate_a_tracker(crepe):
    training, validation = TrackerData(synthetic=2, chorales=0).sources(crepe)
    assert training.draw(np.random.default_rng(0), 1).mixture.shape == (1, 250 * 256)
    assert validation.frames == 188
