"""Reading audio files: blocks, damage, odd names, files that are no files. See test_containers.py for PyAV's."""

import os
import shutil
import struct
import sys
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalsep import audio
from vocalsep.audio import AudioReader
from vocalsep.errors import AudioError

RATE = 16000
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="only POSIX systems have such files or names")
KINDS = {  # suffix: subtype, libsndfile's format
    "wav": ("PCM_16", "WAV"),
    "float.wav": ("FLOAT", "WAV"),
    "adpcm.wav": ("IMA_ADPCM", "WAV"),
    "rf64": ("PCM_24", "RF64"),
    "flac": ("PCM_16", "FLAC"),
    "ogg": ("VORBIS", "OGG"),
    "opus": ("OPUS", "OGG"),
    "mp3": ("MPEG_LAYER_III", "MP3"),
    "aiff": ("PCM_16", "AIFF"),
    "caf": ("ALAC_16", "CAF"),
    "w64": ("PCM_16", "W64"),
    "au": ("PCM_16", "AU"),
}


def music(channels: int = 2, samples: int = 30011) -> np.ndarray:
    """A tone for each channel in a little noise, which an encoder cannot leave out."""
    tones = 0.3 * np.sin(np.arange(samples) * np.linspace(0.05, 0.15, channels)[:, None])
    return (tones + 0.01 * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for suffix, (subtype, form) in KINDS.items():
        soundfile.write(folder / f"x.{suffix}", music().T, RATE, subtype=subtype, format=form)
    return folder


def everything(reader: AudioReader, size: int = 4096) -> np.ndarray:
    return np.concatenate(list(reader.blocks(size)), axis=1)


def assert_refused(path: Path, match: str = "expected") -> None:
    with pytest.raises(AudioError, match=match) as caught:
        audio.read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert "expected" in message


@pytest.mark.parametrize("suffix", KINDS)
def test_blocks_of_any_size_are_the_whole_file(kinds, suffix):
    expected = soundfile.read(kinds / f"x.{suffix}", dtype="float32", always_2d=True)[0].T
    with AudioReader(kinds / f"x.{suffix}") as reader:
        assert (reader.sample_rate, reader.channels) == (RATE, 2)
        assert reader.samples == pytest.approx(expected.shape[1], abs=2000 if suffix == "mp3" else 0)
        found = audio.read(kinds / f"x.{suffix}").waveform
        for size in (999, 4096, 65536, 70000):
            blocks = list(reader.blocks(size))
            assert [block.shape[1] for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks, axis=1), found)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if suffix == "mp3" else 0)  # two mp3 decoders


def test_passes_may_overlap_and_stop_early(kinds):
    with AudioReader(kinds / "x.ogg") as reader:
        expected = everything(reader)
        one, other = reader.blocks(1000), reader.blocks(1000)
        for start in range(0, 3000, 1000):
            for blocks in (one, other):
                np.testing.assert_array_equal(next(blocks), expected[:, start : start + 1000])
        one.close()
        np.testing.assert_array_equal(next(other), expected[:, 3000:4000])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open(kinds, tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for suffix in KINDS:
        reader = AudioReader(kinds / f"x.{suffix}")
        next(reader.blocks(10))
        everything(reader)
        (tmp_path / "x").write_bytes((kinds / f"x.{suffix}").read_bytes()[:20])
        assert_refused(tmp_path / "x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_memory_does_not_grow_with_the_file(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(3_000_000), RATE)
    tracemalloc.start()
    try:
        assert sum(block.shape[1] for block in AudioReader(tmp_path / "x.wav").blocks(4096)) == 3_000_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("suffix", "subtype", "expected"),
    [
        ("wav", "PCM_U8", "16"),
        ("wav", "PCM_24", "24"),
        ("wav", "PCM_32", "float32"),
        ("wav", "DOUBLE", "float32"),
        ("flac", "PCM_S8", "16"),
        ("flac", "PCM_24", "24"),
        ("ogg", "VORBIS", "16"),
        ("mp3", "MPEG_LAYER_III", "16"),
    ],
)
def test_bit_depth_of_stems(tmp_path, suffix, subtype, expected):
    soundfile.write(tmp_path / f"x.{suffix}", music().T, 48000, subtype=subtype)
    assert AudioReader(tmp_path / f"x.{suffix}").bit_depth == expected


@pytest.mark.parametrize("rate", [8000, 44056, 384000])
def test_rates_and_32_channels(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", music(32, 100).T, rate)
    with AudioReader(tmp_path / "x.wav") as reader:
        assert (reader.sample_rate, reader.channels, everything(reader).shape) == (rate, 32, (32, 100))


def test_wav_of_the_standard_library(tmp_path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setparams((2, 2, 22050, 0, "NONE", ""))
        sound.writeframes(struct.pack("<6h", 0, -32768, 16384, 0, 32767, 1))
    waveform, rate = audio.read(tmp_path / "x.wav")
    assert rate == 22050
    np.testing.assert_array_equal(waveform * 32768, [[0, 16384, 32767], [-32768, 0, 1]])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_tags_of_other_programs(tmp_path, suffix):
    with soundfile.SoundFile(tmp_path / f"x.{suffix}", "w", RATE, 1) as sound:
        sound.title, sound.artist, sound.date = "Locus iste", "Bruckner", "1869"
        sound.write(music(1)[0])
    assert AudioReader(tmp_path / f"x.{suffix}").tags == {"title": "Locus iste", "artist": "Bruckner", "date": "1869"}


@pytest.mark.parametrize("missing", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["wav", "float.wav", "adpcm.wav", "rf64", "aiff", "flac", "caf", "mp3"])
def test_truncated_files_are_refused(kinds, tmp_path, suffix, missing, capfd):
    content = (kinds / f"x.{suffix}").read_bytes()
    (tmp_path / f"x.{suffix}").write_bytes(content[: -int(missing * len(content))])
    if suffix == "mp3" and missing == 0.1:
        pytest.skip("a quarter of a second may be missing from an mp3 file")
    assert_refused(tmp_path / f"x.{suffix}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", KINDS)
def test_truncated_headers_are_refused(kinds, tmp_path, suffix, capfd):
    content = (kinds / f"x.{suffix}").read_bytes()
    for kept in (1, 4, 12, 20, 27):
        (tmp_path / f"x.{suffix}").write_bytes(content[:kept])
        assert_refused(tmp_path / f"x.{suffix}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("field", [b"RIFF", b"data"])
def test_wav_from_a_pipe_does_not_know_its_length(kinds, tmp_path, size, field):
    content = bytearray((kinds / "x.wav").read_bytes())
    for name in {b"data", field}:
        at = content.index(name)
        content[at + 4 : at + 8] = struct.pack("<I", size)
    if field == b"data":
        content[4:8] = bytes(4)
    (tmp_path / "x.wav").write_bytes(content)
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform, audio.read(kinds / "x.wav").waveform)


@pytest.mark.parametrize("suffix", ["wav", "rf64", "aiff", "flac", "ogg", "mp3"])
def test_bytes_after_the_sound_do_not_matter(kinds, tmp_path, suffix):
    (tmp_path / f"x.{suffix}").write_bytes((kinds / f"x.{suffix}").read_bytes() + b"TAG" + bytes(125))
    found = audio.read(tmp_path / f"x.{suffix}").waveform
    np.testing.assert_array_equal(found, audio.read(kinds / f"x.{suffix}").waveform)


@pytest.mark.parametrize("unknown", [True, False])
def test_flac_of_unknown_and_of_wrong_length(kinds, tmp_path, unknown):
    content = bytearray((kinds / "x.flac").read_bytes())
    content[21] = content[21] & 0xF0 if unknown else content[21] | 0x0F
    content[22:26] = bytes(4) if unknown else b"\xff" * 4
    (tmp_path / "x.flac").write_bytes(content)
    if unknown:
        np.testing.assert_array_equal(audio.read(tmp_path / "x.flac").waveform, audio.read(kinds / "x.flac").waveform)
    else:
        assert_refused(tmp_path / "x.flac", "cut short")


class TestMp3:
    """Files with a variable bit rate: libsndfile reads less than 2 of 6 seconds if a file has no count."""

    @pytest.fixture(params=["soft first", "loud first"])
    def content(self, request, tmp_path) -> bytes:
        samples = 6 * RATE
        loud = np.random.default_rng(0).uniform(-0.5, 0.5, samples) * (np.arange(samples) > samples // 2)
        mix = (0.001 * np.sin(0.05 * np.arange(samples)) + loud)[:: 1 if request.param == "soft first" else -1]
        form = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
        try:
            sound = soundfile.SoundFile(tmp_path / "whole.mp3", "w", RATE, 1, "MPEG_LAYER_III", **form)
        except TypeError:
            pytest.skip("soundfile before 0.13 writes no variable bit rate")
        with sound:
            sound.write(mix)
        return (tmp_path / "whole.mp3").read_bytes()

    def test_file_without_a_count_is_read_to_its_end(self, content, tmp_path):
        whole = audio.read(tmp_path / "whole.mp3").waveform
        assert whole.shape == (1, 6 * RATE)
        (tmp_path / "x.mp3").write_bytes(content[content.index(content[:2], 200) :])  # without the first frame
        found = audio.read(tmp_path / "x.mp3").waveform
        middle = whole[:, 40000:56000]
        delay = min(range(3000), key=lambda d: np.abs(found[:, 40000 + d : 56000 + d] - middle).max())
        assert found.shape[1] - delay >= 6 * RATE
        np.testing.assert_allclose(found[:, delay:][:, 3000 : 6 * RATE], whole[:, 3000:], atol=1e-3)

    def test_joined_files_and_junk_are_read_to_their_end(self, content, tmp_path):
        junk = b"APETAGEX\xff\xfb" + bytes(200_000)
        (tmp_path / "joined.mp3").write_bytes(content * 3)
        assert audio.read(tmp_path / "joined.mp3").waveform.shape[1] >= 18 * RATE
        (tmp_path / "x.mp3").write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + content + junk + content + junk)
        assert audio.read(tmp_path / "x.mp3").waveform.shape[1] >= 12 * RATE


def wav(rate: int = RATE, channels: int = 1, body: bytes = bytes(200), size: int | None = None) -> bytes:
    size = len(body) if size is None else size
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, 1, channels, rate,
                       2 * rate * channels & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", size) + body


RANDOM = np.random.default_rng(0)
BROKEN = {
    "empty": b"",
    "1 byte": b"R",
    "only RIFF": b"RIFF",
    "zeros": bytes(5000),
    "text": b"This is no sound.\n" * 50,
    "html": b"<!DOCTYPE html><html>Not found</html>" * 20,
    "zip": b"PK\3\4" + bytes(3000),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(3000),
    "playlist": b"#EXTM3U\nhttp://127.0.0.1:9/x.mp3\nfile:///etc/passwd\n",
    "noise": RANDOM.bytes(5000),
    "noise in ogg": b"OggS" + RANDOM.bytes(5000),
    "noise in mp3": b"\xff\xfb" + RANDOM.bytes(5000),
    "noise in a tag": b"ID3" + RANDOM.bytes(5000),
    "flac without rate": b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(26) + b"\xff\xf8" + bytes(50),
    "no samples": wav(body=b""),
    "rate 0": wav(rate=0),
    "rate 1 Hz": wav(rate=1),
    "rate 2 GHz": wav(rate=2_000_000_000),
    "0 channels": wav(channels=0),
    "1000 channels": wav(channels=1000, body=bytes(20000)),
    "huge data": wav(size=0x70000000)[:40],
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "raw"])
def test_broken_files_give_one_sentence(tmp_path, name, suffix, capfd):
    (tmp_path / f"x.{suffix}").write_bytes(BROKEN[name])
    assert_refused(tmp_path / f"x.{suffix}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300, 2e6])
@pytest.mark.parametrize("at", [0, 29999])
def test_samples_that_are_not_audio(tmp_path, at, value):
    waveform = music(2, 30000).astype(np.float64)
    waveform[1, at] = value
    soundfile.write(tmp_path / "x.wav", waveform.T, RATE, subtype="DOUBLE")
    blocks = AudioReader(tmp_path / "x.wav").blocks(1000)
    for _ in range(at // 1000):
        next(blocks)
    with pytest.raises(AudioError, match=r"x\.wav"):
        next(blocks)


@pytest.mark.parametrize("suffix", ["wav", "float.wav", "flac", "ogg", "mp3", "aiff"])
def test_names_do_not_decide(kinds, tmp_path, suffix):
    for name in ("x.wav", "x.mp3", "x.txt", "x", "x.raw"):
        shutil.copy(kinds / f"x.{suffix}", tmp_path / name)
        np.testing.assert_array_equal(audio.read(tmp_path / name).waveform, audio.read(kinds / f"x.{suffix}").waveform)


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        *(" spaces  everywhere ", "合唱 Ж é", "two\nlines", "\x1b[31mred", "-rf", "'\"`$(x);", "%s%n", "concat:a|b"),
        *("x" * 245, os.fsdecode(b"no utf-8 \xff\xfe")),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_hostile_names(tmp_path, name, suffix):
    path = tmp_path / f"{name}.{suffix}"
    audio.write(path, music(1, 2000), RATE)
    assert audio.read(path).waveform.shape == (1, 2000)
    path.write_bytes(b"nothing")
    assert_refused(path)


@POSIX
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "loop", "zero byte", "long name"])
def test_paths_that_are_no_files(tmp_path, kind):
    path = tmp_path / "x.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo")
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "zero byte":
        path = tmp_path / "x\0.wav"
    elif kind == "long name":
        path = tmp_path / ("x" * 5000)
    assert_refused(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_file_that_vanishes_between_passes(kinds, tmp_path, suffix):
    reader = AudioReader(shutil.copy(kinds / f"x.{suffix}", tmp_path))
    everything(reader)
    reader.path.unlink()
    with pytest.raises(AudioError):
        everything(reader)
