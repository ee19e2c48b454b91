"""Downmixes of recordings."""

import errno
from collections.abc import Iterator

import numpy as np
import pytest

from vocalsep.audio import ArrayRecording, Downmix, to_model_rate
from vocalsep.errors import OutputError


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("sample_rate", "samples"), [(16000, 1), (44100, 30000), (8000, 100_001), (48000, 500_000)])
def test_downmix_of_a_recording_in_blocks(sample_rate, samples, channels):
    waveform = noise(channels, samples)
    with Downmix.of_recording(ArrayRecording(waveform, sample_rate)) as downmix:
        whole = to_model_rate(waveform, sample_rate)
        np.testing.assert_array_equal(downmix.read(0, downmix.samples), whole)
        assert downmix.samples == len(whole)
        assert downmix.source_samples == samples
        assert downmix.peak == np.abs(whole).max()
        assert downmix.gain == pytest.approx(0.5 / downmix.peak)
        assert downmix.n_frames == 1 + len(whole) // 256


def test_gain_of_silence():
    assert Downmix.of_array(np.zeros(5, np.float32)).gain == 1
    assert Downmix.of_array(np.full(5, 1e-45, np.float32)).gain == 1


@pytest.mark.parametrize("samples", [10_000, 17_000_000])  # in memory, and in a file
def test_any_part_can_be_read(samples):
    waveform = noise(1, 10_000)[0]
    whole = np.resize(waveform, samples)
    with Downmix.of_array(whole) as downmix:
        for first, last in ((-3000, 13_000), (-20, 5), (-3000, -2000), (7, 7), (samples - 10, samples + 10)):
            inside = whole[max(first, 0) : max(last, 0)]
            before = min(max(-first, 0), last - first)
            expected = np.pad(inside, (before, last - first - before - len(inside)))
            np.testing.assert_array_equal(downmix.read(first, last), expected)
        np.testing.assert_array_equal(np.concatenate(list(downmix.blocks(samples // 10 + 1))), whole)


def test_full_disk_is_an_output_error(monkeypatch):
    class FullDisk:
        def write(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.write(b"")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda _: FullDisk())
    with pytest.raises(OutputError, match="TMPDIR"):
        Downmix.of_recording(ArrayRecording(noise(1, 100), 16000))


def test_errors_of_the_recording_are_passed_on():
    class Torn(ArrayRecording):
        def blocks(self, size: int) -> Iterator[np.ndarray]:
            yield self.waveform
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input"):
        Downmix.of_recording(Torn(noise(1, 100), 16000))


def test_progress():
    fractions: list[float] = []
    Downmix.of_recording(ArrayRecording(noise(2, 45 * 4000), 4000), fractions.append).close()
    assert fractions == sorted(fractions)
    assert len(fractions) == 5
    assert fractions[-1] == 1.0
