"""Recordings in blocks, and the mixdown that the networks hear."""

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vocalsep import mixdown as module
from vocalsep.audio import to_model_rate
from vocalsep.audio.downmix import Mixdown
from vocalsep.audio.recording import ArrayRecording, pieces
from vocalsep.errors import AudioError


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 4, 5, 6, 10, 11, 12, 23])
@pytest.mark.parametrize("margin", [1, 5])
def test_pieces_are_the_recording_and_what_lies_beside(samples, margin):
    waveform = noise(2, samples)
    padded = np.pad(waveform, ((0, 0), (margin, margin)))
    start = 0
    for piece in pieces(ArrayRecording(waveform, 16000), 5, margin):
        assert piece.start == start
        np.testing.assert_array_equal(piece.waveform, padded[:, start : start + piece.length + 2 * margin])
        start += piece.length
    assert start == samples


class TestMixdown:
    @pytest.mark.parametrize("channels", [1, 2, 5])
    @pytest.mark.parametrize(
        ("sample_rate", "samples"), [(16000, 1), (44100, 30000), (8000, 100_001), (48000, 500_000)]
    )
    def test_it_is_what_the_whole_gives(self, sample_rate, samples, channels):
        waveform = noise(channels, samples)
        with Mixdown.of_recording(ArrayRecording(waveform, sample_rate)) as mixdown:
            whole = to_model_rate(waveform, sample_rate)
            np.testing.assert_array_equal(mixdown.read(0, mixdown.samples), whole)
            assert mixdown.samples == len(whole)
            assert mixdown.source_samples == samples
            assert mixdown.peak == np.abs(whole).max()
            assert mixdown.n_frames == 1 + len(whole) // 256

    def test_cancelling_channels_give_the_loudest(self):
        tone = noise(1, 40_000)[0]
        waveform = np.stack([0.5 * tone, -tone, 0.5 * tone])
        with Mixdown.of_recording(ArrayRecording(waveform, 16000)) as mixdown:
            np.testing.assert_array_equal(mixdown.read(0, 40_000), -tone)

    @pytest.mark.parametrize("in_memory", [1 << 30, 1000])
    def test_any_stretch_can_be_read_on_disk_and_in_memory(self, monkeypatch, in_memory):
        monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
        waveform = noise(1, 10_000)[0]
        padded = np.pad(waveform, 3000)
        with Mixdown.of_recording(ArrayRecording(waveform[None], 16000)) as mixdown:
            for first, last in ((-3000, 13_000), (-20, 5), (9990, 10_010), (-3000, -2000), (12_000, 13_000), (7, 7)):
                np.testing.assert_array_equal(mixdown.read(first, last), padded[first + 3000 : last + 3000])
            np.testing.assert_array_equal(np.concatenate(list(mixdown.blocks(999))), waveform)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is a full disk")
    def test_a_full_disk_is_said(self, monkeypatch):
        monkeypatch.setattr(module, "_IN_MEMORY", 100)
        monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda: Path("/dev/full").open("w+b"))  # noqa: SIM115
        for samples in (30, 100_000):
            with pytest.raises(AudioError, match=r"no room for temporary files \(No space left.*TMPDIR") as caught:
                Mixdown.of_recording(ArrayRecording(noise(1, samples), 16000))
            assert caught.value.__cause__ is None

    def test_no_temporary_folder_is_said(self, monkeypatch):
        def nowhere() -> None:
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

        monkeypatch.setattr(module, "_IN_MEMORY", 100)
        monkeypatch.setattr(module.tempfile, "TemporaryFile", nowhere)
        with pytest.raises(AudioError, match="no room for temporary files"):
            Mixdown.of_recording(ArrayRecording(noise(1, 100), 16000))

    def test_trouble_with_the_recording_is_not_taken_for_it(self):
        class Torn(ArrayRecording):
            def blocks(self, size: int) -> Iterator[np.ndarray]:
                yield self.waveform
                raise OSError(errno.EIO, "Input/output error")

        with pytest.raises(OSError, match="Input/output error"):
            Mixdown.of_recording(Torn(noise(1, 100), 16000))

    def test_what_the_recording_raises_is_passed_on(self):
        class Broken(ArrayRecording):
            def blocks(self, size: int) -> Iterator[np.ndarray]:
                yield self.waveform
                raise AudioError("is cut short")

        with pytest.raises(AudioError, match="is cut short"):
            Mixdown.of_recording(Broken(noise(1, 100), 16000))

    def test_progress(self):
        seen: list[float] = []
        Mixdown.of_recording(ArrayRecording(noise(2, 45 * 4000), 4000), seen.append).close()
        assert seen == sorted(seen)
        assert len(seen) == 5
        assert seen[-1] == 1.0
