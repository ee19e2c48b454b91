import os
import struct
import subprocess
import sys
import threading
import wave
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from vocalsep import audio
from vocalsep.audio import wav
from vocalsep.errors import AudioError, OptionError

RNG = np.random.default_rng(0)


def tone(frequency: float, sample_rate: int, samples: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency / sample_rate * np.arange(samples))).astype(np.float32)


def noise(channels: int, samples: int) -> np.ndarray:
    return RNG.uniform(-0.9, 0.9, (channels, samples)).astype(np.float32)


def harmonic(channels: int, sample_rate: int, samples: int) -> np.ndarray:
    """Channels with a tone each, which lossy formats must keep apart."""
    return np.stack([tone(220 * (1 + channel), sample_rate, samples) for channel in range(channels)])


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Quantisation: half a step of rounding, and libsndfile writes x * (2^n - 1) but reads x / 2^n.
@pytest.mark.parametrize("sample_rate", [8000, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize(
    ("suffix", "bit_depth", "tolerance"),
    [
        ("wav", "16", 1.5 / 2**15),
        ("wav", "24", 1.5 / 2**23),
        ("wav", "float32", 0),
        ("flac", "16", 1.5 / 2**15),
        ("flac", "24", 1.5 / 2**23),
    ],
)
def test_lossless_round_trip(tmp_path, suffix, bit_depth, tolerance, channels, sample_rate):
    waveform = noise(channels, 3001)
    audio.write(tmp_path / f"x.{suffix}", waveform, sample_rate, bit_depth=bit_depth)
    found, rate = audio.read(tmp_path / f"x.{suffix}")
    assert rate == sample_rate
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, waveform, rtol=0, atol=tolerance)
    assert files_in(tmp_path) == [f"x.{suffix}"]


@pytest.mark.parametrize(
    ("suffix", "channels", "sample_rate"),
    [("ogg", c, r) for c in (1, 2, 8) for r in (8000, 44100, 96000)]
    + [("mp3", c, r) for c in (1, 2) for r in (8000, 16000, 44100, 48000)],
)
def test_lossy_round_trip(tmp_path, suffix, channels, sample_rate):
    waveform = harmonic(channels, sample_rate, sample_rate)
    audio.write(tmp_path / f"x.{suffix}", waveform, sample_rate)
    found, rate = audio.read(tmp_path / f"x.{suffix}")
    assert (found.shape, rate) == (waveform.shape, sample_rate)
    error = np.square(found - waveform).mean(axis=1) / np.square(waveform).mean(axis=1)
    assert (10 * np.log10(error) < -20).all()


def test_wav_holds_32_channels(tmp_path):
    waveform = noise(32, 500)
    audio.write(tmp_path / "x.wav", waveform, 48000, bit_depth="float32")
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform, waveform)


def test_minutes_of_ogg_do_not_overflow_the_encoder(tmp_path):
    audio.write(tmp_path / "x.ogg", tone(220, 8000, 8000 * 180), 8000)
    assert audio.read(tmp_path / "x.ogg").waveform.shape == (1, 8000 * 180)


@pytest.mark.parametrize(("suffix", "bit_depth"), [("wav", "16"), ("wav", "24"), ("flac", "16"), ("flac", "24")])
def test_whole_numbers_clip_and_do_not_wrap(tmp_path, suffix, bit_depth):
    audio.write(tmp_path / f"x.{suffix}", [3.0, -3.0, 1.0, -1.0], 16000, bit_depth=bit_depth)
    np.testing.assert_allclose(audio.read(tmp_path / f"x.{suffix}").waveform[0], [1, -1, 1, -1], atol=4e-5)


def test_float32_keeps_what_exceeds_full_scale(tmp_path):
    audio.write(tmp_path / "x.wav", [3.0, -3.0], 16000, bit_depth="float32")
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform, [[3, -3]])


def test_large_wav_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "RIFF_LIMIT", 1000)
    waveform = noise(1, 2000)
    audio.write(tmp_path / "x.wav", waveform, 16000, bit_depth="float32")
    assert soundfile.info(tmp_path / "x.wav").format == "RF64"
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform, waveform)


@pytest.mark.parametrize("name", ["Ave María 合唱 (take 2).flac", " two  spaces .wav", "UPPER.WAV", "no#%&;'.ogg"])
def test_names_of_files(tmp_path, name):
    path = tmp_path / "Chœur d'été" / name
    audio.write(path, harmonic(1, 16000, 2000), 16000)
    assert files_in(path.parent) == [name]
    assert audio.read(path).waveform.shape == (1, 2000)


def test_one_stereo_sample_goes_through_all(tmp_path):
    audio.write(tmp_path / "x.wav", [[0.25], [-0.5]], 44100, bit_depth="float32")
    waveform, rate = audio.read(tmp_path / "x.wav")
    np.testing.assert_array_equal(waveform, [[0.25], [-0.5]])
    assert audio.to_model_rate(waveform, rate).shape == (1,)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_written_files_have_the_usual_rights(tmp_path):
    audio.write(tmp_path / "x.wav", [0.0], 16000)
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@contextmanager
def full_disk(size):
    """A full disk as this process sees it: no file, not even the log of a test run, grows beyond so many bytes."""
    resource = pytest.importorskip("resource", reason="file sizes can only be limited on POSIX systems")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The last block is written when libsndfile closes the file, and its failure then goes unsaid.
@pytest.mark.parametrize("missing", [1, 60, 2000, None])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, suffix, missing, capfd):
    waveform = noise(1, 48000)
    audio.write(tmp_path / f"size.{suffix}", waveform, 16000)
    size = (tmp_path / f"size.{suffix}").stat().st_size
    (tmp_path / f"size.{suffix}").unlink()
    target = tmp_path / f"x.{suffix}"
    target.write_bytes(b"old")
    refused = pytest.raises(AudioError, match=rf"x\.{suffix}: cannot be written \(.+\); expected")
    with refused, full_disk(0 if missing is None else size - missing):
        audio.write(target, waveform, 16000)
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == [target.name]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch, suffix):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile.SoundFile, "write", interrupt)
    monkeypatch.setattr(wav.WavFile, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        audio.write(tmp_path / f"x.{suffix}", [0.0], 16000)
    assert files_in(tmp_path) == []


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").touch()
    for target in (tmp_path / "folder.wav", tmp_path / "file" / "x.wav", tmp_path / ("x" * 300 + ".wav")):
        with pytest.raises(AudioError, match="cannot be written"):
            audio.write(target, [0.0], 16000)
    assert files_in(tmp_path) == ["file", "folder.wav"]


@pytest.mark.parametrize(
    ("name", "channels", "sample_rate", "bit_depth", "message"),
    [
        ("x.aac", 1, 44100, "16", "format is 'aac'; expected one of wav, flac, ogg, mp3"),
        ("x", 1, 44100, "16", "format is ''; expected one of wav"),
        ("x.flac", 1, 44100, "float32", "flac has no bit depth 'float32'; expected one of 16, 24"),
        ("x.wav", 1, 44100, "8", "wav has no bit depth '8'; expected one of 16, 24, float32"),
        ("x.mp3", 3, 44100, "16", "mp3 cannot hold 3 channels at 44100 Hz; expected 1 or 2"),
        ("x.mp3", 1, 96000, "16", "mp3 cannot hold 1 channels at 96000 Hz; expected"),
        ("x.flac", 9, 44100, "16", "flac cannot hold 9 channels; expected at most 8"),
        ("x.wav", 1, 44100.5, "16", "sample_rate is 44100.5; expected a whole number of Hz"),
        ("x.wav", 1, 0, "16", "sample_rate is 0; expected"),
    ],
)
def test_formats_that_cannot_hold_it(tmp_path, name, channels, sample_rate, bit_depth, message):
    with pytest.raises((OptionError, AudioError), match=message):
        audio.write(tmp_path / "sub" / name, noise(channels, 10), sample_rate, bit_depth=bit_depth)
    assert files_in(tmp_path) == []


def wav_bytes(samples: bytes, width: int = 2, code: int = 1, rate: int = 16000) -> bytes:
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, code, 1, rate, rate * width,
                       width, 8 * width)  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(samples)) + samples


def flac_that_lies(folder: Path) -> bytes:
    """A FLAC file whose header promises 2^36 - 1 samples."""
    soundfile.write(folder / "true.flac", np.zeros(5000), 16000)
    content = bytearray((folder / "true.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    return bytes(content)


BROKEN = {
    "empty.wav": b"",
    "text.wav": b"This is no sound.\n" * 50,
    "text.mp3": b"This is no sound.\n" * 50,
    "truncated header.wav": wav_bytes(bytes(100))[:30],
    "truncated header.flac": b"fLaC\0\0\0\x22" + bytes(10),
    "bad tag.mp3": b"ID3" + RNG.bytes(5000),
    "noise.mp3": b"\xff\xfb" + RNG.bytes(5000),
    "noise.ogg": b"OggS" + RNG.bytes(5000),
    "no samples.wav": wav_bytes(b""),
    "nan.wav": wav_bytes(struct.pack("<3f", 0, float("nan"), 0), 4, 3),
    "infinite.wav": wav_bytes(struct.pack("<3f", 0, float("inf"), 0), 4, 3),
    "beyond float32.wav": wav_bytes(struct.pack("<2d", 0, 1e300), 8, 3),
    "slow.wav": wav_bytes(bytes(100), rate=1000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_give_one_sentence_and_a_quiet_terminal(tmp_path, name, capfd):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(AudioError) as caught:
        audio.read(tmp_path / name)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert message.startswith(f"{tmp_path / name}: ")
    assert "expected" in message
    assert "\n" not in message
    assert "Error opening" not in message
    assert capfd.readouterr() == ("", "")


def test_header_that_lies_of_its_length(tmp_path):
    (tmp_path / "x.flac").write_bytes(flac_that_lies(tmp_path))
    with pytest.raises(AudioError, match=r"x\.flac: is cut short \(5000 of at least 68719476735 samples\)"):
        audio.read(tmp_path / "x.flac")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(AudioError, match=r"none\.wav: no such file; expected an audio file"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(AudioError, match=r"is a folder or a device; expected an audio file"):
        audio.read(tmp_path)
    with pytest.raises(AudioError, match="expected wav, flac"):
        audio.read(tmp_path / ("x" * 5000))


def test_terminal_speaks_again_after_threads_read_broken_files(tmp_path, capfd):
    (tmp_path / "x.mp3").write_bytes(BROKEN["bad tag.mp3"])

    def read_many():
        for _ in range(20):
            with pytest.raises(AudioError):
                audio.read(tmp_path / "x.mp3")

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.skipif(sys.platform == "win32", reason="closing the terminal is a matter of POSIX systems")
def test_reads_without_a_terminal(tmp_path):
    audio.write(tmp_path / "x.wav", [0.5], 16000, bit_depth="float32")
    program = "import sys, os; os.close(2); from vocalsep import audio; print(audio.read(sys.argv[1]).waveform[0, 0])"
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.wav")], stdout=subprocess.PIPE, check=True)
    assert found.stdout.strip() == b"0.5"


def test_reads_what_the_standard_library_writes(tmp_path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setparams((2, 2, 22050, 0, "NONE", ""))
        sound.writeframes(struct.pack("<6h", 0, -32768, 16384, 0, 32767, 1))
    waveform, rate = audio.read(tmp_path / "x.wav")
    assert rate == 22050
    np.testing.assert_array_equal(waveform * 32768, [[0, 16384, 32767], [-32768, 0, 1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 16384, -32768], dtype=np.int16), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], dtype=np.int32), [0, 0.5, -1]),
        (np.array([0, 64, -128], dtype=np.int8), [0, 0.5, -1]),
        (np.array([0, 0.25, -2.5], dtype=np.float64), [0, 0.25, -2.5]),
        (np.array([0, 0.25, -2.5], dtype=np.float16), [0, 0.25, -2.5]),
        ([0.0, 0.25], [0, 0.25]),
    ],
)
def test_validate_waveform_scales(values, expected):
    waveform = audio.validate_waveform(values)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, [expected])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\); expected \(samples,\)"),
        (np.float32(1), r"shape \(\)"),
        (np.zeros(3, dtype=complex), "dtype complex128; expected floating point"),
        (np.zeros(3, dtype=bool), "dtype bool"),
        (np.zeros(3, dtype=np.uint8), "dtype uint8"),
        ([0, 1, -1], "dtype int64"),
        (["a"], "dtype <U1"),
        ([[0.0], [0.0, 1.0]], "no array"),
        (np.zeros(0), r"empty \(shape \(0,\)\); expected at least one sample"),
        (np.zeros((2, 0)), "empty"),
        ([0.0, np.nan, np.inf], "2 samples that are NaN, infinite or beyond float32"),
        ([0.0, 1e300], "1 samples that are NaN, infinite or beyond float32"),
        (np.zeros((1000, 2)), "transpose it"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_validate_waveform_refuses(values, message):
    with pytest.raises(AudioError, match=message) as caught:
        audio.validate_waveform(values)
    assert isinstance(caught.value, ValueError)


def test_validate_waveform_leaves_the_argument_alone():
    given = np.zeros(3, dtype=np.float32)
    audio.validate_waveform(given)[:] = 1
    assert (given == 0).all()


@pytest.mark.parametrize("rate", [0, -44100, 3999, 44100.5, 768001, True, None, "fast", float("nan"), float("inf")])
def test_sample_rates_refused(rate):
    with pytest.raises(AudioError, match=r"sample_rate is .*; expected a whole number of Hz from 4000 to 768000"):
        audio.validate_sample_rate(rate)
    with pytest.raises(AudioError, match="sample_rate"):
        audio.resample([0.0], 16000, rate)


@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 44100), (48000, 16000), (22050, 48000), (8000, 16000)])
def test_resample_keeps_frequency_and_level(rates):
    source, target = rates
    resampled = audio.resample(tone(997, source, 2 * source), source, target)
    expected = tone(997, target, 2 * target)
    inner = slice(target // 10, -target // 10)  # the filter sees zeros past the ends
    np.testing.assert_allclose(resampled[0, inner], expected[inner], atol=2e-4)


def test_resample_removes_what_the_target_cannot_hold():
    resampled = audio.resample(tone(9000, 48000, 48000), 48000, 16000)
    assert np.abs(resampled[0, 1000:-1000]).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 2, 999, 44101])
@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 44100), (11025, 96000)])
def test_resample_length(samples, rates):
    resampled = audio.resample(np.zeros((3, samples)), *rates)
    assert resampled.shape == (3, max(1, round(samples * rates[1] / rates[0])))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 48000), (44056, 16000), (96000, 16000), (16000, 16000)])
@pytest.mark.parametrize("sizes", [[1], [441, 7, 10000], [100000]])
def test_resampling_block_by_block_gives_the_same(rates, channels, sizes):
    waveform = noise(channels, 6000 if sizes == [1] else 70001)
    resampler = audio.Resampler(*rates, channels)
    parts, start = [], 0
    while start < waveform.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(resampler.push(waveform[:, start : start + size]))
        start += size
    parts.append(resampler.finish())
    found = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(found, audio.resample(waveform, *rates))
    if rates[0] != rates[1]:
        reference = soxr.resample(waveform.T.copy(), *rates, quality="HQ").T
        length = min(found.shape[1], reference.shape[1])
        np.testing.assert_array_equal(found[:, :length], reference[:, :length])
        assert abs(found.shape[1] - reference.shape[1]) <= 1


def test_resampler_takes_what_it_was_made_for():
    with pytest.raises(ValueError, match=r"block has shape \(2, 5\); expected \(1, samples\)"):
        audio.Resampler(44100, 16000).push(np.zeros((2, 5), np.float32))
    with pytest.raises(AudioError, match="sample_rate is 0"):
        audio.Resampler(44100, 0)


def test_to_model_rate_mixes_and_resamples():
    stereo = np.stack([tone(440, 44100, 44100), tone(660, 44100, 44100)])
    mono = audio.to_model_rate(stereo, 44100)
    assert (mono.shape, mono.dtype) == ((16000,), np.float32)
    expected = (tone(440, 16000, 16000) + tone(660, 16000, 16000)) / 2
    np.testing.assert_allclose(mono[1000:-1000], expected[1000:-1000], atol=2e-4)


@pytest.mark.filterwarnings("error")
def test_channels_that_cancel_do_not_silence_the_mono_copy():
    tone = harmonic(1, 16000, 4000)[0]
    np.testing.assert_array_equal(audio.to_model_rate(np.stack([tone, -tone]), 16000), tone)
    np.testing.assert_allclose(audio.to_model_rate(np.stack([tone, 0 * tone]), 16000), tone / 2, atol=1e-7)


def test_louder_than_audio_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"audio peaks at 2e\+07 times full scale; expected about 1"):
        audio.validate_waveform([0.0, -2e7])
    soundfile.write(tmp_path / "loud.wav", np.float32([0, 1e30]), 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"loud.wav: audio peaks at 1e\+30 times full scale"):
        audio.read(tmp_path / "loud.wav")


def test_a_path_is_no_array():
    with pytest.raises(AudioError, match=r"audio is the path 'choir.wav'; expected an array, or use separate_file"):
        audio.validate_waveform("choir.wav")
