"""The benchmark of long recordings, on short ones."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vocalsep.audio import read, write
from vocalsep.cli import main
from vocalsep.errors import ParameterError
from vocalsep.evaluation.long_files import Long, format_table, measure, sum_error, write_repeated


@pytest.fixture
def tone(tmp_path) -> Path:
    time = np.arange(8000) / 16000
    write(tmp_path / "tone.wav", 0.4 * np.sin(2 * np.pi * 300 * time), 16000)
    return tmp_path / "tone.wav"


def test_a_recording_is_repeated_to_the_length(tone, tmp_path):
    write_repeated(tone, tmp_path / "long.wav", 2.2 / 60)
    waveform, sample_rate = read(tmp_path / "long.wav")
    assert (sample_rate, waveform.shape) == (48000, (2, 105_600))
    np.testing.assert_array_equal(waveform[:, 24_000:48_000], waveform[:, :24_000])
    assert 0.2 < np.abs(waveform[1]).max() < 0.3 < np.abs(waveform[0]).max()


def test_the_error_of_the_sum(tmp_path):
    whole = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    write(tmp_path / "whole.wav", whole, 16000, bit_depth="float32")
    for name, gain in (("a", 0.25), ("b", 0.75), ("c", 0.74)):
        write(tmp_path / f"{name}.wav", np.float32(gain) * whole, 16000, bit_depth="float32")
    assert sum_error(tmp_path / "whole.wav", [tmp_path / "a.wav", tmp_path / "b.wav"]) < -120
    assert sum_error(tmp_path / "whole.wav", [tmp_path / "a.wav", tmp_path / "c.wav"]) == pytest.approx(-40, abs=0.01)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell the memory of a process")
class TestMeasure:
    def test_a_second(self, tone):
        output = CliRunner().invoke(main, ["benchmark-long", str(tone), "--minutes", str(1 / 60)]).output
        heading, row = output.splitlines()
        assert heading.split()[0] == "minutes"
        megabytes, decibels = float(row.split()[-4]), float(row.split()[-2])
        assert 100 < megabytes < 3000
        assert decibels < -100

    def test_what_fails_is_said(self, tone, tmp_path, monkeypatch):
        monkeypatch.setenv("VOCALSEP_MANIFEST", str(tmp_path / "missing.json"))
        with pytest.raises(ParameterError, match="ended with exit code 2"):
            measure(tone, tmp_path, 0.01)


def test_the_table():
    assert list(format_table([Long(5, 90.0, 812.4, -131.2)]))[1].split() == [
        "5", "90", "s", "0.30", "812", "MB", "-131", "dB"
    ]  # fmt: skip
