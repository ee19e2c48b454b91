import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalsep import audio
from vocalsep.audio import mp3
from vocalsep.audio.completeness import promised_size
from vocalsep.audio.reader import AudioReader
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
    """A tone for each channel in a little noise: nothing that an encoder would leave out."""
    time = np.arange(samples)
    tones = 0.3 * np.sin(time * np.linspace(0.05, 0.15, channels)[:, None])
    return (tones + 0.01 * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for suffix, (subtype, form) in KINDS.items():
        soundfile.write(folder / f"x.{suffix}", music().T, RATE, subtype=subtype, format=form)
    return folder


def everything(reader: AudioReader, size: int = 4096) -> np.ndarray:
    return np.concatenate(list(reader.blocks(size)), axis=1)


class TestBlocks:
    @pytest.mark.parametrize("suffix", KINDS)
    def test_every_pass_gives_what_libsndfile_reads_whole(self, kinds, suffix):
        # soundfile seeks before it reads, after which the mp3 decoder rounds otherwise.
        near = {"rtol": 0, "atol": 2e-7 if suffix == "mp3" else 0}
        expected = soundfile.read(kinds / f"x.{suffix}", dtype="float32", always_2d=True)[0].T
        with AudioReader(kinds / f"x.{suffix}") as reader:
            assert (reader.sample_rate, reader.channels, reader.samples) == (RATE, 2, expected.shape[1])
            for size in (999, 4096, 65536, 70000):
                blocks = list(reader.blocks(size))
                assert [block.shape[1] for block in blocks[:-1]] == [size] * (len(blocks) - 1)
                assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
                np.testing.assert_allclose(np.concatenate(blocks, axis=1), expected, **near)
        found = audio.read(kinds / f"x.{suffix}").waveform
        np.testing.assert_array_equal(found, np.concatenate(blocks, axis=1))
        np.testing.assert_allclose(found, expected, **near)
        assert found.flags.c_contiguous

    def test_sizes_at_the_edge(self, tmp_path):
        soundfile.write(tmp_path / "x.wav", music(1, 10).T, RATE)
        with AudioReader(tmp_path / "x.wav") as reader:
            assert [block.shape for block in reader.blocks(10)] == [(1, 10)]
            assert [block.shape for block in reader.blocks(5)] == [(1, 5)] * 2
            assert [block.shape for block in reader.blocks(1)] == [(1, 1)] * 10
            with pytest.raises(ValueError, match="size is 0"):
                next(reader.blocks(0))

    def test_passes_may_overlap_and_stop_early(self, kinds):
        with AudioReader(kinds / "x.ogg") as reader:
            expected = everything(reader)
            one, other = reader.blocks(1000), reader.blocks(1000)
            for start in range(0, 3000, 1000):
                for blocks in (one, other):
                    np.testing.assert_array_equal(next(blocks), expected[:, start : start + 1000])
            one.close()
            np.testing.assert_array_equal(next(other), expected[:, 3000:4000])

    def test_closed_reader_is_refused(self, kinds):
        with AudioReader(kinds / "x.wav") as reader:
            pass
        with pytest.raises(ValueError, match="closed"):
            next(reader.blocks(10))

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
    def test_no_file_stays_open(self, kinds, tmp_path):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for suffix in KINDS:
            reader = AudioReader(kinds / f"x.{suffix}")
            next(reader.blocks(10))
            everything(reader)
            (tmp_path / "x").write_bytes((kinds / f"x.{suffix}").read_bytes()[:300])
            with pytest.raises(AudioError):
                everything(AudioReader(tmp_path / "x"))
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_flac_of_unknown_length(self, kinds, tmp_path):
        content = bytearray((kinds / "x.flac").read_bytes())
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        (tmp_path / "x.flac").write_bytes(content)
        with AudioReader(tmp_path / "x.flac") as reader:
            assert reader.samples is None
            np.testing.assert_array_equal(everything(reader), audio.read(kinds / "x.flac").waveform)

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        soundfile.write(tmp_path / "x.wav", np.zeros(3_000_000), RATE)
        tracemalloc.start()
        try:
            with AudioReader(tmp_path / "x.wav") as reader:
                assert sum(block.shape[1] for block in reader.blocks(4096)) == 3_000_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 3_000_000


@pytest.mark.parametrize(
    ("suffix", "subtype", "expected"),
    [
        ("wav", "PCM_U8", "16"),
        ("wav", "PCM_16", "16"),
        ("wav", "PCM_24", "24"),
        ("wav", "PCM_32", "float32"),
        ("wav", "FLOAT", "float32"),
        ("wav", "DOUBLE", "float32"),
        ("wav", "ULAW", "16"),
        ("flac", "PCM_S8", "16"),
        ("flac", "PCM_24", "24"),
        ("caf", "ALAC_24", "24"),
        ("ogg", "VORBIS", "16"),
        ("mp3", "MPEG_LAYER_III", "16"),
    ],
)
def test_bit_depth_of_stems(tmp_path, suffix, subtype, expected):
    soundfile.write(tmp_path / f"x.{suffix}", music().T, 48000, subtype=subtype)
    assert AudioReader(tmp_path / f"x.{suffix}").bit_depth == expected


@pytest.mark.parametrize("rate", [8000, 11025, 44056, 192000, 384000])
def test_rates_and_32_channels(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", music(32, 100).T, rate)
    with AudioReader(tmp_path / "x.wav") as reader:
        assert (reader.sample_rate, reader.channels, everything(reader).shape) == (rate, 32, (32, 100))


class TestCutFiles:
    @pytest.mark.parametrize("missing", [0.0002, 0.1, 0.5, 0.9])
    @pytest.mark.parametrize("suffix", KINDS)
    def test_truncated_bodies_are_refused(self, kinds, tmp_path, suffix, missing, capfd):
        content = (kinds / f"x.{suffix}").read_bytes()
        kept = len(content) - max(2, int(missing * len(content)))
        (tmp_path / f"x.{suffix}").write_bytes(content[:kept])
        with pytest.raises(AudioError, match=r"is cut short|cannot be read as audio|no samples") as caught:
            audio.read(tmp_path / f"x.{suffix}")
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("suffix", KINDS)
    def test_truncated_headers_are_refused(self, kinds, tmp_path, suffix):
        content = (kinds / f"x.{suffix}").read_bytes()
        for kept in (1, 4, 11, 12, 16, 20, 27, 36, 43, 60):
            (tmp_path / f"x.{suffix}").write_bytes(content[:kept])
            with pytest.raises(AudioError, match="expected"):
                audio.read(tmp_path / f"x.{suffix}")

    def test_the_sentence_says_how_much_is_there(self, kinds, tmp_path):
        size = (kinds / "x.wav").stat().st_size
        (tmp_path / "x.wav").write_bytes((kinds / "x.wav").read_bytes()[:1000])
        with pytest.raises(AudioError, match=rf"x\.wav: is cut short \(1000 of at least {size} bytes\); expected a"):
            AudioReader(tmp_path / "x.wav")

    @pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
    def test_wav_from_a_pipe_does_not_know_its_length(self, kinds, tmp_path, size):
        content = bytearray((kinds / "x.wav").read_bytes())
        at = content.index(b"data")
        content[at + 4 : at + 8] = struct.pack("<I", size)
        (tmp_path / "x.wav").write_bytes(content)
        np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform, audio.read(kinds / "x.wav").waveform)

    def test_what_follows_the_sound_does_not_matter(self, kinds, tmp_path):
        for suffix in ("wav", "rf64", "aiff", "flac", "mp3", "ogg"):
            (tmp_path / f"x.{suffix}").write_bytes((kinds / f"x.{suffix}").read_bytes() + b"TAG" + bytes(125))
            found = audio.read(tmp_path / f"x.{suffix}").waveform
            np.testing.assert_array_equal(found, audio.read(kinds / f"x.{suffix}").waveform)

    @pytest.mark.parametrize("suffix", ["wav", "float.wav", "rf64", "aiff", "caf", "w64", "au", "ogg", "opus"])
    def test_promised_size_is_reached_by_whole_files_only(self, kinds, suffix):
        path = kinds / f"x.{suffix}"
        promised = promised_size(path)
        assert promised is not None
        assert path.stat().st_size - 64 * 1024 < promised <= path.stat().st_size


def vbr_without_its_length(content: bytes) -> bytes:
    """Take the frame of an mp3 file away that tells how many there are."""
    frames = [at for at in range(len(content) - 3) if content[at] == 0xFF and mp3._frame_bytes(content[at : at + 4])]
    start = frames[0]
    assert content[start + mp3._tag_offset(content[start : start + 4]) :][:4] in (b"Xing", b"Info")
    return content[start + mp3._frame_bytes(content[start : start + 4]) :]


class TestMp3:
    """libsndfile alone reads less than 2 of these 6 seconds."""

    @pytest.fixture(params=["soft first", "loud first"])
    def swelling(self, request, tmp_path) -> tuple[Path, int]:
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
        return tmp_path / "whole.mp3", samples

    def test_variable_bit_rate_without_a_count_is_read_to_its_end(self, swelling, tmp_path):
        path, samples = swelling
        whole = audio.read(path).waveform
        assert whole.shape == (1, samples)
        (tmp_path / "x.mp3").write_bytes(vbr_without_its_length(path.read_bytes()))
        with AudioReader(tmp_path / "x.mp3") as reader:
            found = everything(reader)
            np.testing.assert_array_equal(everything(reader, 65536), found)
        middle = whole[:, 40000:56000]
        delay = min(range(3000), key=lambda d: np.abs(found[:, 40000 + d : 56000 + d] - middle).max())
        assert found.shape[1] - delay >= samples
        np.testing.assert_allclose(found[:, delay:][:, 3000:samples], whole[:, 3000:], atol=1e-3)

    def test_joined_files_are_read_to_their_end(self, swelling, tmp_path):
        path, samples = swelling
        (tmp_path / "x.mp3").write_bytes(path.read_bytes() * 3)
        assert audio.read(tmp_path / "x.mp3").waveform.shape[1] >= 3 * samples

    def test_frames_are_counted_through_junk_and_tags(self, swelling, tmp_path):
        content = swelling[0].read_bytes()
        (tmp_path / "plain.mp3").write_bytes(content)
        plain = mp3.count_frames(tmp_path / "plain.mp3")
        assert plain is not None
        assert plain.found == plain.promised
        junk = b"APETAGEX\xff\xfb" + bytes(200_000)
        (tmp_path / "x.mp3").write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + content + junk + content + junk)
        found = mp3.count_frames(tmp_path / "x.mp3")
        assert found is not None
        assert (found.found, found.cut) == (2 * plain.found + 1, False)

    def test_without_a_count_the_last_frame_must_be_whole(self, swelling, tmp_path):
        content = vbr_without_its_length(swelling[0].read_bytes())
        (tmp_path / "x.mp3").write_bytes(content[:-1])
        with pytest.raises(AudioError, match="is cut short"):
            audio.read(tmp_path / "x.mp3")


class TestTags:
    @pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
    def test_tags_of_others_are_read(self, tmp_path, suffix):
        with soundfile.SoundFile(tmp_path / f"x.{suffix}", "w", RATE, 1) as sound:
            sound.title, sound.artist, sound.date = "Locus iste", "Bruckner", "1869"
            sound.write(music(1)[0])
        tags = dict(AudioReader(tmp_path / f"x.{suffix}").tags)
        assert tags == {"title": "Locus iste", "artist": "Bruckner", "date": "1869"}

    def test_bytes_that_are_no_text_are_no_error(self, tmp_path):
        audio.write(tmp_path / "x.wav", music(1), RATE, tags={"title": "QQQQ", "artist": "Bruckner"})
        content = (tmp_path / "x.wav").read_bytes()
        (tmp_path / "x.wav").write_bytes(content.replace(b"QQQQ", b"\xff\xfe\xc3\0"))
        tags = AudioReader(tmp_path / "x.wav").tags
        assert tags["artist"] == "Bruckner"
        tags["title"].encode()


def wav_with(rate: int = RATE, channels: int = 1, data: int = 200, body: bytes = bytes(200), fmt: int = 16) -> bytes:
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + data & 0xFFFFFFFF, b"WAVE", b"fmt ", fmt, 1, channels, rate,
                       2 * rate * channels & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", data) + body


def riff_chunk(name: bytes, size: int) -> bytes:
    return wav_with()[:36] + struct.pack("<4sI", name, size) + wav_with()[36:]


CRAFTED = {
    "rate 0": wav_with(rate=0),
    "rate -1": wav_with(rate=0xFFFFFFFF),
    "rate 1 Hz": wav_with(rate=1),
    "rate 2 GHz": wav_with(rate=2_000_000_000),
    "0 channels": wav_with(channels=0),
    "1000 channels": wav_with(channels=1000, data=20000, body=bytes(20000)),
    "65535 channels": wav_with(channels=65535),
    "huge data": wav_with(data=0x70000000),
    "huge fmt": wav_with(fmt=0x7FFFFFF0),
    "huge LIST": riff_chunk(b"LIST", 0x7FFFFFF0),
    "chunk of -1": riff_chunk(b"junk", 0xFFFFFFFF),
    "aiff of no rate": b"FORM\0\0\0\x3aAIFFCOMM\0\0\0\x12\0\1\0\0\0\4\0\x10"
    + bytes(10)
    + b"SSND\0\0\0\x10"
    + bytes(16),
    "flac without rate": b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(26) + b"\xff\xf8" + bytes(50),
    "1 byte": b"R",
    "only RIFF": b"RIFF",
    "zeros": bytes(5000),
    "html": b"<!DOCTYPE html><html>Not found</html>" * 20,
    "zip": b"PK\3\4" + bytes(3000),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(3000),
    "playlist": b"#EXTM3U\nhttp://127.0.0.1:9/x.mp3\nfile:///etc/passwd\n",
}


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "raw"])
def test_crafted_headers_give_one_sentence(tmp_path, name, suffix, capfd):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(CRAFTED[name])
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match=r"x\.\w+: .*expected") as caught:
            audio.read(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["wav", "float.wav", "flac", "ogg", "mp3", "aiff"])
def test_names_do_not_decide(kinds, tmp_path, suffix):
    for name in ("x.wav", "x.mp3", "x.txt", "x" if sys.platform == "win32" else "x.raw"):
        shutil.copy(kinds / f"x.{suffix}", tmp_path / name)
        np.testing.assert_array_equal(audio.read(tmp_path / name).waveform, audio.read(kinds / f"x.{suffix}").waveform)


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        " spaces  everywhere ",
        "合唱 Ж é",
        "unicode e\u0301",
        "two\nlines",
        "\x1b[31mred",
        "-rf",
        "'\"`$(x);",
        "x" * 251,
        os.fsdecode(b"no utf-8 \xff\xfe"),
        "%s%n",
        "file:x",
        "concat:a|b",
    ],
)
def test_hostile_names(tmp_path, name):
    path = tmp_path / f"{name}.wav"
    audio.write(path, music(1, 100), RATE)
    assert audio.read(path).waveform.shape == (1, 100)
    path.write_bytes(b"nothing")
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    message = str(caught.value)
    message.encode()
    assert message.isprintable()


def test_a_zero_byte_in_a_path():
    with pytest.raises(AudioError, match="expected"):
        audio.read("x\0.wav")


@pytest.mark.parametrize("form", ["VOC", "SDS", "NIST", "MAT5", "SVX", "XI", "IRCAM", "PAF", "RAW"])
def test_formats_of_samplers_and_measurements_are_refused(tmp_path, form, capfd):
    """libsndfile takes the rest of them for a whole where they are cut, and prints about SDS."""
    subtype = "DPCM_16" if form == "XI" else "PCM_16"
    soundfile.write(tmp_path / "x.wav", music(1)[0], RATE, subtype=subtype, format=form)
    with pytest.raises(AudioError, match=r"x\.wav: cannot be read as audio \(.*not (known|read)\); expected wav"):
        audio.read(tmp_path / "x.wav")
    assert capfd.readouterr() == ("", "")


@POSIX
class TestWhatIsNoFile:
    """A FIFO hangs whoever opens it, and /dev/zero never ends."""

    @pytest.mark.parametrize("link", [False, True])
    def test_fifo(self, tmp_path, link):
        os.mkfifo(tmp_path / "x.wav")
        if link:
            (tmp_path / "x.wav").rename(tmp_path / "fifo")
            (tmp_path / "x.wav").symlink_to(tmp_path / "fifo")
        program = "import sys; from vocalsep import audio; audio.read(sys.argv[1])"
        found = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "x.wav")], stderr=subprocess.PIPE, timeout=60, check=False
        )
        assert found.stderr.strip().endswith(b"x.wav: is a folder or a device; expected an audio file")

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/"])
    def test_devices(self, path):
        with pytest.raises(AudioError, match="is a folder or a device; expected an audio file"):
            AudioReader(path)

    def test_links(self, kinds, tmp_path):
        (tmp_path / "x.wav").symlink_to(kinds / "x.wav")
        assert audio.read(tmp_path / "x.wav").waveform.shape == (2, 30011)
        (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
        (tmp_path / "none.wav").symlink_to(tmp_path / "gone")
        for name in ("loop.wav", "none.wav"):
            with pytest.raises(AudioError, match="expected"):
                AudioReader(tmp_path / name)

    def test_unreadable_file(self, kinds, tmp_path):
        shutil.copy(kinds / "x.wav", tmp_path)
        (tmp_path / "x.wav").chmod(0)
        if os.access(tmp_path / "x.wav", os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(AudioError, match=r"cannot be read as audio \(Permission denied\)"):
            AudioReader(tmp_path / "x.wav")


@POSIX
class TestFilesThatChange:
    @pytest.fixture(params=["wav", "flac", "ogg", "mp3"])
    def reader(self, request, kinds, tmp_path) -> AudioReader:
        shutil.copy(kinds / f"x.{request.param}", tmp_path)
        return AudioReader(tmp_path / f"x.{request.param}")

    def test_vanishes(self, reader):
        reader.path.unlink()
        with pytest.raises(AudioError, match="no such file"):
            next(reader.blocks(100))

    def test_shrinks_between_passes(self, reader):
        everything(reader)
        os.truncate(reader.path, 3000)
        with pytest.raises(AudioError, match="has changed"):
            next(reader.blocks(100))

    def test_shrinks_during_a_pass(self, reader):
        blocks = reader.blocks(100)
        next(blocks)
        os.truncate(reader.path, 3000)
        with pytest.raises(AudioError, match=r"has changed|cannot be read|cut short"):
            list(blocks)

    def test_grows_or_is_replaced(self, reader):
        with reader.path.open("ab") as stream:
            stream.write(b"more")
        with pytest.raises(AudioError, match="has changed"):
            next(reader.blocks(100))


@pytest.mark.parametrize("at", [0, 29999])
@pytest.mark.parametrize(
    ("value", "subtype", "message"),
    [
        (np.nan, "FLOAT", "NaN or infinite"),
        (-np.inf, "DOUBLE", "NaN or infinite"),
        (1e300, "DOUBLE", "NaN or infinite"),
        (2e6, "FLOAT", r"peaks at 2e\+06 times full scale"),
    ],
)
def test_values_that_are_no_audio(tmp_path, at, value, subtype, message):
    waveform = music(2, 30000).astype(np.float64)
    waveform[1, at] = value
    soundfile.write(tmp_path / "x.wav", waveform.T, RATE, subtype=subtype)
    with pytest.raises(AudioError, match=rf"x\.wav: .*{message}.*; expected"):
        audio.read(tmp_path / "x.wav")
    blocks = AudioReader(tmp_path / "x.wav").blocks(1000)
    assert sum(1 for _ in zip(range(at // 1000), blocks, strict=False)) == at // 1000  # the good blocks come first
    with pytest.raises(AudioError, match=message):
        next(blocks)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX systems fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_reads_does_not_hang(tmp_path):
    soundfile.write(tmp_path / "x.mp3", music(1)[0], RATE)
    program = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from vocalsep import audio
audio.read(sys.argv[1])
stop = threading.Event()
def work():
    while not stop.is_set():
        audio.read(sys.argv[1])
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
for _ in range(20):
    child = os.fork()
    if not child:
        audio.read(sys.argv[1])
        os.write(2, b".")
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.mp3")], capture_output=True, timeout=60, check=True
    )
    assert found.stderr == b"." * 20
