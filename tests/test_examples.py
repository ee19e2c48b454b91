"""The examples: the script makes the chorale, the other scripts work, and the separation of the chorale scores."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vocalsep
from vocalsep import audio
from vocalsep.dsp.units import hz_to_cents
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.metrics import si_sdr

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("soprano", "alto", "tenor", "bass")
Script = Callable[..., str]
FLOOR = 6.3
"""dB of SI-SDR, mean over voices. The bundled weights reach 7.1, the comb 5.8, the mixture -4.8."""


def run_script(name: str, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Return a function that runs an example in an empty folder and returns its output."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        run_script(name, *arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the chorale as its script makes it, and the true stems in stems/."""
    folder = tmp_path_factory.mktemp("chorale")
    run_script("make_chorale.py", "--out", folder, "--stems", folder / "stems")
    return folder


@pytest.fixture(scope="module")
def chorale() -> audio.Audio:
    return audio.read(EXAMPLES / "chorale.flac")


@pytest.fixture(scope="module")
def f0() -> vocalsep.F0Tracks:
    return vocalsep.F0Tracks.from_csv(EXAMPLES / "chorale_f0.csv")


@pytest.fixture(scope="module")
def true_stems(made: Path) -> np.ndarray:
    """Shape (voices, channels, samples)."""
    return np.stack([audio.read(made / "stems" / f"{name}.flac").waveform for name in NAMES])


def shares(mix: np.ndarray, stems: np.ndarray) -> dict[str, float]:
    """Return the share of each true stem in a mix, by least squares over channels and samples."""
    factors, *_ = np.linalg.lstsq(stems.reshape(len(stems), -1).T, mix.ravel(), rcond=None)
    return dict(zip(NAMES, factors.tolist(), strict=True))


class TestChorale:
    def test_the_script_makes_the_committed_recording(self, made: Path, chorale: audio.Audio) -> None:
        again = audio.read(made / "chorale.flac")
        assert again.sample_rate == chorale.sample_rate == 44100
        np.testing.assert_allclose(again.waveform, chorale.waveform, rtol=0, atol=1e-3)

    def test_the_script_makes_the_committed_f0(self, made: Path, f0: vocalsep.F0Tracks) -> None:
        again = vocalsep.F0Tracks.from_csv(made / "chorale_f0.csv")
        assert again.names == f0.names == NAMES
        # Values are rounded to 0.1 Hz, which may fall either way.
        np.testing.assert_allclose(again.frequencies, f0.frequencies, rtol=0, atol=0.11)

    def test_true_stems_add_up_to_the_recording(self, true_stems: np.ndarray, chorale: audio.Audio) -> None:
        np.testing.assert_allclose(true_stems.sum(axis=0), chorale.waveform, rtol=0, atol=1e-4)

    def test_recording_is_stereo_with_a_peak_of_minus_3_db(self, chorale: audio.Audio) -> None:
        assert len(chorale.waveform) == 2
        assert 20 * np.log10(np.abs(chorale.waveform).max()) == pytest.approx(-3, abs=0.05)
        assert not np.allclose(*chorale.waveform, atol=0.05)

    def test_voices_are_balanced(self, true_stems: np.ndarray) -> None:
        level = 10 * np.log10((true_stems**2).mean(axis=(1, 2)))
        assert np.ptp(level) < 3

    def test_crepe_finds_the_f0_of_every_true_stem(self, true_stems: np.ndarray, f0: vocalsep.F0Tracks) -> None:
        part = slice(0, 4 * 44100)  # three notes and a rest are enough
        found = vocalsep.f0_from_stems(list(true_stems[:, :, part]), 44100).frequencies[:, :250]
        truth = f0.frequencies[:, :250]
        voiced = (found > 0) & (truth > 0)
        cents = np.abs(hz_to_cents(found[voiced], truth[voiced]))
        assert voiced.sum() > 0.9 * (truth > 0).sum()
        assert np.median(cents) < 10
        assert (cents < 50).mean() > 0.97


class TestScripts:
    def test_rehearsal_mix_brings_a_voice_out(self, script: Script, tmp_path: Path, true_stems: np.ndarray) -> None:
        printed = script("rehearsal_mix.py", "--voice", "alto", "--gain", 12, "--f0", EXAMPLES / "chorale_f0.csv")
        assert "more of the alto" in printed
        share = shares(audio.read(tmp_path / "rehearsal_mix.wav").waveform, true_stems)
        assert all(share["alto"] > 1.5 * share[name] for name in NAMES if name != "alto")

    def test_rehearsal_mix_leaves_a_voice_out(self, script: Script, tmp_path: Path, true_stems: np.ndarray) -> None:
        printed = script("rehearsal_mix.py", "--voice", "bass", "--without", "-o", "mix.flac")  # by tracked f0
        assert "everything but the bass" in printed
        share = shares(audio.read(tmp_path / "mix.flac").waveform, true_stems)
        assert all(share["bass"] < 0.67 * share[name] for name in NAMES if name != "bass")

    def test_rehearsal_mix_of_gain_0_is_the_recording(
        self, script: Script, tmp_path: Path, chorale: audio.Audio
    ) -> None:
        script("rehearsal_mix.py", "--gain", 0, "--f0", EXAMPLES / "chorale_f0.csv")
        mix = audio.read(tmp_path / "rehearsal_mix.wav").waveform
        np.testing.assert_allclose(mix, chorale.waveform, rtol=0, atol=1e-4)

    def test_rehearsal_mix_names_the_voices_there_are(self, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            script("rehearsal_mix.py", "--voice", "piano", "--f0", EXAMPLES / "chorale_f0.csv")
        assert "soprano, alto, tenor, bass" in capsys.readouterr().err

    def test_separate_with_f0(self, script: Script, tmp_path: Path, chorale: audio.Audio) -> None:
        printed = script("separate_with_f0.py", "-o", "stems")
        assert [line.split()[0] for line in printed.splitlines()[:5]] == [*NAMES, "recording"]
        assert float(printed.split("to within ")[1].split()[0]) < 1e-5
        stems = [audio.read(tmp_path / "stems" / f"{name}.wav").waveform for name in NAMES]
        np.testing.assert_allclose(sum(stems), chorale.waveform, rtol=0, atol=1e-5)

    def test_range_report_of_f0_tracks(self, script: Script) -> None:
        _, *lines = script("range_report.py", "--f0", EXAMPLES / "chorale_f0.csv").splitlines()
        ranges = {line.split()[0]: tuple(line.split()[1:3]) for line in lines}
        # The ranges of the score.
        assert ranges == {"soprano": ("A4", "F5"), "alto": ("F4", "A#4"), "tenor": ("A#3", "F4"), "bass": ("G2", "A#3")}
        assert all(line.endswith("82%") for line in lines)

    def test_range_report_of_a_recording(self, script: Script) -> None:
        _, *lines = script("range_report.py").splitlines()
        assert [line.split()[0] for line in lines] == list(NAMES)
        medians = [float(line.split()[3]) for line in lines]
        assert medians == sorted(medians, reverse=True)
        assert lines[3].split()[1:3] == ["G2", "A#3"]


class TestScores:
    def test_separation_beats_the_comb_and_the_mixture(
        self, chorale: audio.Audio, f0: vocalsep.F0Tracks, true_stems: np.ndarray
    ) -> None:
        references, mixture = true_stems.mean(axis=1), chorale.waveform.mean(axis=0)
        result = vocalsep.separate(chorale.waveform, f0, sample_rate=chorale.sample_rate)
        scores = si_sdr(references, np.stack([result.stems[name].mean(axis=0) for name in NAMES]))
        comb = si_sdr(references, separate_comb(mixture, f0, chorale.sample_rate))
        unseparated = si_sdr(references, np.broadcast_to(mixture, references.shape))
        assert scores.mean() > FLOOR
        assert scores.mean() > comb.mean() + 0.5
        assert (scores > unseparated + 8).all()
