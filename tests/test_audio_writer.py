import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalsep import audio
from vocalsep.audio import ogg, tags, wav
from vocalsep.audio.reader import AudioReader
from vocalsep.audio.writer import AudioWriter, temporary_name
from vocalsep.errors import AudioError, OptionError

RATE = 16000
FORMS = [("wav", "16"), ("wav", "24"), ("wav", "float32"), ("flac", "16"), ("flac", "24"), ("ogg", "16"), ("mp3", "16")]
each_form = pytest.mark.parametrize(("suffix", "bit_depth"), FORMS)
TAGS = {
    "title": "Locus iste",
    "artist": "Брукнер",
    "album": "合唱 Ω é",
    "date": "1869-08-11",
    "tracknumber": "3/12",
    "genre": "Choral",
    "comment": 'two\nlines, "quotes"',
    "copyright": "© nobody",
}


def music(channels: int = 2, samples: int = 150_001) -> np.ndarray:
    time = np.arange(samples)
    tones = 0.3 * np.sin(time * np.linspace(0.05, 0.15, channels)[:, None])
    return (tones + 0.01 * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


def in_blocks(path: Path, waveform: np.ndarray, size: int, **options) -> AudioWriter:
    with AudioWriter(path, RATE, len(waveform), **options) as writer:
        for start in range(0, waveform.shape[1], size):
            writer.write(waveform[:, start : start + size])
        writer.commit()
    return writer


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestSameBytes:
    def test_a_second_later(self, tmp_path):
        waveform = music()
        for suffix, bit_depth in FORMS:
            audio.write(tmp_path / f"{bit_depth}.{suffix}", waveform, RATE, bit_depth=bit_depth, tags=TAGS)
        now = int(time.time())
        while int(time.time()) == now:  # time stamps count seconds
            time.sleep(0.05)
        for suffix, bit_depth in FORMS:
            path = tmp_path / f"{bit_depth}.{suffix}"
            before = path.read_bytes()
            in_blocks(path, waveform, 65536, bit_depth=bit_depth, tags=TAGS, samples=150_001)
            assert path.read_bytes() == before

    @each_form
    @pytest.mark.parametrize("size", [1009, 70000])
    def test_sizes_of_blocks_do_not_show(self, tmp_path, suffix, bit_depth, size):
        waveform = music()
        audio.write(tmp_path / f"x.{suffix}", waveform, RATE, bit_depth=bit_depth)
        in_blocks(tmp_path / f"y.{suffix}", waveform, size, bit_depth=bit_depth)
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"y.{suffix}").read_bytes()


class TestRoundTrip:
    @each_form
    @pytest.mark.parametrize("channels", [1, 2])
    def test_samples(self, tmp_path, suffix, bit_depth, channels):
        waveform = music(channels)
        in_blocks(tmp_path / "deep" / f"x.{suffix}", waveform, 40000, bit_depth=bit_depth)
        with AudioReader(tmp_path / "deep" / f"x.{suffix}") as reader:
            assert (reader.sample_rate, reader.channels, reader.samples) == (RATE, channels, 150_001)
            assert reader.bit_depth == bit_depth
            found = np.concatenate(list(reader.blocks(50000)), axis=1)
        step = {"16": 0.5 / 2**15, "24": 0.5 / 2**23, "float32": 0}[bit_depth]
        if suffix in ("wav", "flac"):
            np.testing.assert_allclose(found, waveform, rtol=0, atol=step)
        else:
            assert np.square(found - waveform).mean() < 0.01 * np.square(waveform).mean()
        assert files_in(tmp_path / "deep") == [f"x.{suffix}"]

    @each_form
    def test_tags(self, tmp_path, suffix, bit_depth):
        in_blocks(tmp_path / f"x.{suffix}", music(), 70000, bit_depth=bit_depth, tags=TAGS)
        assert dict(AudioReader(tmp_path / f"x.{suffix}").tags) == TAGS

    @each_form
    @pytest.mark.parametrize(
        "hostile",
        [
            {"title": "a" * 10_000_000},
            {"comment": "合" * 5000, "title": "é" * 5000, "artist": "x" * 1999 + "合"},
            {"title": "null\0byte", "artist": "\0"},
            {"title": "\ud800 lone", "artist": "\x1b[31m\x07"},
            {"title": "", "artist": " \n ", "nonsense": "x", "": "y"},
            {"title": 5, "artist": None, "date": 1869, "album": b"\xff"},
            dict.fromkeys(tags.KEYS, "x" * 3000),
        ],
    )
    def test_tags_are_never_an_error(self, tmp_path, suffix, bit_depth, hostile):
        waveform = music(1, 3000)
        path = tmp_path / f"x.{suffix}"
        in_blocks(path, waveform, 3000, bit_depth=bit_depth, tags=hostile)
        assert path.stat().st_size < 60_000
        audio.write(tmp_path / f"plain.{suffix}", waveform, RATE, bit_depth=bit_depth)
        np.testing.assert_array_equal(audio.read(path).waveform, audio.read(tmp_path / f"plain.{suffix}").waveform)
        found = dict(AudioReader(path).tags)
        assert all(len(text.encode()) <= 2000 and "\0" not in text for text in found.values())
        assert found.get("title", "")[:4] in str(hostile.get("title", "")).replace("\ud800", "?")

    def test_tags_go_from_one_format_to_the_others(self, tmp_path):
        chain = ["wav", "mp3", "flac", "ogg", "wav"]
        audio.write(tmp_path / "0.wav", music(1, 3000), RATE, tags=TAGS)
        for at, suffix in enumerate(chain[1:]):
            with AudioReader(tmp_path / f"{at}.{chain[at]}") as reader:
                audio.write(tmp_path / f"{at + 1}.{suffix}", music(1, 3000), RATE, tags=reader.tags)
        assert (tmp_path / "0.wav").read_bytes() == (tmp_path / "4.wav").read_bytes()

    @pytest.mark.parametrize("samples", [1, 2, 3])
    @each_form
    def test_few_samples(self, tmp_path, suffix, bit_depth, samples):
        waveform = music(1, samples)
        in_blocks(tmp_path / f"x.{suffix}", waveform, 1, bit_depth=bit_depth, tags=TAGS)
        assert audio.read(tmp_path / f"x.{suffix}").waveform.shape == (1, samples)

    def test_odd_bytes_are_padded(self, tmp_path):
        in_blocks(tmp_path / "x.wav", music(1, 333), 333, bit_depth="24", tags=TAGS)
        size = (tmp_path / "x.wav").stat().st_size
        assert size % 2 == 0
        assert struct.unpack("<I", (tmp_path / "x.wav").read_bytes()[4:8])[0] == size - 8
        assert AudioReader(tmp_path / "x.wav").tags == TAGS


class TestWhatIsBeyondFullScale:
    @pytest.mark.parametrize(("suffix", "bit_depth", "bits"), [("wav", "16", 16), ("flac", "24", 24)])
    def test_is_cut_and_counted(self, tmp_path, suffix, bit_depth, bits):
        block = np.float32([[0.5, 1.0, 1.5, -1.0, -1.5], [0, 7, -7, 0.25, 0.999999999]])
        with AudioWriter(tmp_path / f"x.{suffix}", RATE, 2, bit_depth=bit_depth) as writer:
            writer.write(block)
            writer.write(block)
            assert writer.clipped == 8
            writer.commit()
        top = 1 - 2.0 ** (1 - bits)
        expected = [[0.5, top, top, -1, -1], [0, top, -1, 0.25, top]]
        found = audio.read(tmp_path / f"x.{suffix}").waveform
        np.testing.assert_array_equal(found, np.float32(np.concatenate([expected, expected], axis=1)))

    @pytest.mark.parametrize(("suffix", "bit_depth"), [("wav", "float32"), ("ogg", "16"), ("mp3", "16")])
    def test_is_kept_by_floats(self, tmp_path, suffix, bit_depth):
        writer = in_blocks(tmp_path / f"x.{suffix}", 5 * music(1), 70000, bit_depth=bit_depth)
        assert writer.clipped == 0
        assert np.abs(audio.read(tmp_path / f"x.{suffix}").waveform).max() == pytest.approx(1.7, abs=0.1)

    def test_steps_are_the_nearest(self, tmp_path):
        steps = np.float32([[0.49, 0.51, 1.49, -0.49, -0.51, -1.51]]) / 2**15
        in_blocks(tmp_path / "x.wav", steps, 10)
        np.testing.assert_array_equal(audio.read(tmp_path / "x.wav").waveform * 2**15, [[0, 1, 1, 0, -1, -2]])


class TestStages:
    def test_nothing_has_the_name_before_commit(self, tmp_path):
        target = tmp_path / "x.flac"
        target.write_bytes(b"old")
        writer = AudioWriter(target, RATE, 1)
        writer.write(music(1))
        assert target.read_bytes() == b"old"
        writer.finish()
        writer.finish()
        assert target.read_bytes() == b"old"
        assert audio.read(writer.temporary).waveform.shape == (1, 150_001)
        writer.commit()
        writer.commit()
        writer.discard()
        assert audio.read(target).waveform.shape == (1, 150_001)
        assert files_in(tmp_path) == ["x.flac"]

    @each_form
    @pytest.mark.parametrize("stage", ["opened", "written", "finished"])
    def test_discard_at_any_time_and_twice(self, tmp_path, suffix, bit_depth, stage):
        writer = AudioWriter(tmp_path / f"x.{suffix}", RATE, 1, bit_depth=bit_depth)
        if stage != "opened":
            writer.write(music(1))
        if stage == "finished":
            writer.finish()
        writer.discard()
        writer.discard()
        assert files_in(tmp_path) == []
        with pytest.raises(AudioError, match=r"cannot be written"):
            writer.write(music(1))

    def test_leaving_the_context_without_commit_discards(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), AudioWriter(tmp_path / "x.wav", RATE, 1) as writer:
            writer.write(music(1))
            raise KeyboardInterrupt
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize(("suffix", "bit_depth"), [("wav", "24"), ("flac", "16")])
    def test_a_killed_run_is_replaced_by_the_next(self, tmp_path, suffix, bit_depth):
        program = """
import os, signal, sys
import numpy as np
from vocalsep.audio import AudioWriter
writer = AudioWriter(sys.argv[1], 16000, 1, bit_depth=sys.argv[2])
writer.write(np.zeros((1, 200000), np.float32))
os.kill(os.getpid(), signal.SIGKILL) if hasattr(signal, "SIGKILL") else os._exit(1)
"""
        path = tmp_path / f"x.{suffix}"
        subprocess.run([sys.executable, "-c", program, str(path), bit_depth], check=False)
        assert files_in(tmp_path) == [f".x.{suffix}.part"]
        in_blocks(path, music(1), 70000, bit_depth=bit_depth)
        assert files_in(tmp_path) == [path.name]
        assert audio.read(path).waveform.shape == (1, 150_001)

    def test_temporary_names(self, tmp_path):
        assert temporary_name(Path("a/alto.wav")) == Path("a/.alto.wav.part")
        for name in ("x" * 251 + ".wav", "合" * 83 + ".wav", "x" * 250 + ".flac"):
            temporary = temporary_name(tmp_path / name)
            assert temporary == temporary_name(tmp_path / name)
            assert len(os.fsencode(temporary.name)) <= 255
            in_blocks(tmp_path / name, music(1, 100), 100)
            assert files_in(tmp_path) == [name]
            (tmp_path / name).unlink()
        long = [temporary_name(tmp_path / f"{'x' * 249}{end}.wav") for end in "ab"]
        assert long[0] != long[1]

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
    def test_what_lies_under_the_temporary_name_is_not_followed(self, tmp_path):
        (tmp_path / "precious").write_bytes(b"precious")
        (tmp_path / ".x.wav.part").symlink_to(tmp_path / "precious")
        in_blocks(tmp_path / "x.wav", music(1, 100), 100)
        assert (tmp_path / "precious").read_bytes() == b"precious"
        assert not (tmp_path / "x.wav").is_symlink()

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_rights_follow_the_umask(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            in_blocks(tmp_path / "x.flac", music(1, 100), 100)
            audio.write(tmp_path / "x.wav", music(1, 100), RATE)
        finally:
            os.umask(before)
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("x.wav", "x.flac")} == {0o666 & ~mask}

    def test_writers_of_one_name_at_once(self, tmp_path):
        waveforms = [np.full((1, 60000), value, np.float32) for value in (0.25, 0.5)]
        threads = [
            threading.Thread(target=lambda w=w: [audio.write(tmp_path / "x.flac", w, RATE) for _ in range(15)])
            for w in waveforms
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = audio.read(tmp_path / "x.flac").waveform
        assert any(np.array_equal(found, waveform) for waveform in waveforms)
        assert files_in(tmp_path) == ["x.flac"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "rate", "channels", "options", "message"),
        [
            ("x.m4a", RATE, 1, {}, "format is 'm4a'; expected one of wav, flac, ogg, mp3"),
            ("x.flac", RATE, 1, {"bit_depth": "float32"}, "flac has no bit depth 'float32'"),
            ("x.mp3", RATE, 3, {}, "mp3 cannot hold 3 channels"),
            ("x.mp3", 96000, 1, {}, "mp3 cannot hold 1 channels at 96000 Hz"),
            ("x.flac", RATE, 9, {}, "flac cannot hold 9 channels"),
            ("x.flac", 768000, 1, {}, "flac cannot hold 768000 Hz; expected at most 655350 Hz: choose wav"),
            ("x.ogg", 384000, 1, {}, "ogg cannot hold 384000 Hz; expected at most 200000 Hz: choose wav"),
            ("x.wav", RATE, 0, {}, "channels is 0; expected 1 to 128"),
            ("x.wav", RATE, 129, {}, "channels is 129; expected 1 to 128"),
            ("x.wav", 0, 1, {}, "sample_rate is 0"),
        ],
    )
    def test_what_the_format_cannot_hold(self, tmp_path, name, rate, channels, options, message):
        with pytest.raises((OptionError, AudioError), match=message):
            AudioWriter(tmp_path / "sub" / name, rate, channels, **options)
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("suffix", "rate"), [("wav", 768000), ("flac", 655350), ("flac", 384000), ("ogg", 192000), ("mp3", 48000)]
    )
    def test_what_it_can_hold(self, tmp_path, suffix, rate):
        audio.write(tmp_path / f"x.{suffix}", music(1, 20000), rate)
        assert audio.read(tmp_path / f"x.{suffix}").sample_rate == rate

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (np.zeros((1, 5), np.float32), r"shape \(1, 5\); expected \(2, samples\)"),
            (np.zeros(5, np.float32), "shape"),
            (np.float32([[0, np.nan], [0, 0]]), "NaN or infinite"),
            (np.float32([[0, np.inf], [0, 0]]), "NaN or infinite"),
        ],
    )
    def test_blocks(self, tmp_path, block, message):
        with AudioWriter(tmp_path / "x.wav", RATE, 2) as writer:
            with pytest.raises(AudioError, match=message):
                writer.write(block)
            writer.write(np.zeros((2, 0), np.float32))
        assert files_in(tmp_path) == []

    def test_targets(self, tmp_path):
        (tmp_path / "folder.wav").mkdir()
        (tmp_path / "file").touch()
        for target in ("folder.wav", "file/x.wav", "x" * 300 + ".wav", "zero\0byte.wav"):
            with pytest.raises(AudioError, match=r"cannot be written \(.+\); expected") as caught:
                AudioWriter(tmp_path / target, RATE, 1)
            assert str(caught.value).isprintable()
        assert files_in(tmp_path) == ["file", "folder.wav"]

    def test_target_that_becomes_a_folder(self, tmp_path):
        with AudioWriter(tmp_path / "x.wav", RATE, 1) as writer:
            writer.write(music(1))
            (tmp_path / "x.wav").mkdir()
            with pytest.raises(AudioError, match="cannot be written"):
                writer.commit()
        assert files_in(tmp_path) == ["x.wav"]

    def test_folder_that_goes_away(self, tmp_path):
        with AudioWriter(tmp_path / "sub" / "x.flac", RATE, 1) as writer:
            writer.write(music(1))
            try:
                shutil.rmtree(tmp_path / "sub")
            except PermissionError:
                pytest.skip("Windows keeps folders with open files")
            with pytest.raises(AudioError, match="cannot be written"):
                writer.commit()
        assert files_in(tmp_path) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="rights of folders are a matter of POSIX systems")
    def test_folder_that_must_not_be_written_to(self, tmp_path):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
        if os.access(folder, os.W_OK):
            pytest.skip("root may write everywhere")
        with pytest.raises(AudioError, match=r"cannot be written \(Permission denied\)"):
            AudioWriter(folder / "x.wav", RATE, 1)

    def test_a_file_larger_than_the_disk_is_refused_at_once(self, tmp_path):
        free = shutil.disk_usage(tmp_path).free
        with pytest.raises(AudioError, match=r"x\.wav: cannot be written \(No space left on device\)"):
            AudioWriter(tmp_path / "x.wav", RATE, 2, bit_depth="float32", samples=free)
        assert files_in(tmp_path) == []


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if sys.platform != "linux" or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root on Linux can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@each_form
def test_full_disk(tmp_path, suffix, bit_depth, capfd):
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 200_000)).astype(np.float32)
    with small_disk(tmp_path / "disk", 64) as disk:
        (disk / f"x.{suffix}").write_bytes(b"old")
        with pytest.raises(AudioError, match=r"cannot be written \(.+\); expected"):
            in_blocks(disk / f"x.{suffix}", noise, 10000, bit_depth=bit_depth, tags=TAGS)
        assert files_in(disk) == [f"x.{suffix}"]
        assert (disk / f"x.{suffix}").read_bytes() == b"old"
        # Every size at which it may run full, the last bytes of the last block too.
        (disk / f"x.{suffix}").unlink()
        short = noise[:, :4000]
        audio.write(tmp_path / f"x.{suffix}", short, RATE, bit_depth=bit_depth, tags=TAGS)
        whole = (tmp_path / f"x.{suffix}").stat().st_size
        filled = 0
        for pages in range(17):
            (disk / "ballast").write_bytes(bytes(4096 * pages))
            try:
                in_blocks(disk / f"x.{suffix}", short, 1000, bit_depth=bit_depth, tags=TAGS)
            except AudioError:
                filled += 1
                assert files_in(disk) == ["ballast"]
            else:
                assert (disk / f"x.{suffix}").stat().st_size == whole
                (disk / f"x.{suffix}").unlink()
            (disk / "ballast").unlink()
        assert 0 < filled < 17
    assert capfd.readouterr() == ("", "")


class TestLargeWav:
    @pytest.mark.parametrize("bit_depth", ["16", "24", "float32"])
    def test_length_beyond_32_bits_makes_rf64(self, tmp_path, monkeypatch, bit_depth):
        monkeypatch.setattr(wav, "RIFF_LIMIT", 20_000)
        waveform = music(2, 9001)
        in_blocks(tmp_path / "x.wav", waveform, 1000, bit_depth=bit_depth, tags=TAGS)
        content = (tmp_path / "x.wav").read_bytes()
        assert content[:4] + content[8:16] == b"RF64WAVEds64"
        size, data, frames = struct.unpack("<QQQ", content[20:44])
        assert (size, frames) == (len(content) - 8, 9001)
        assert data == 2 * 9001 * {"16": 2, "24": 3, "float32": 4}[bit_depth]
        with AudioReader(tmp_path / "x.wav") as reader:
            assert reader.samples == 9001
            assert dict(reader.tags) in (TAGS, {})  # libsndfile reads no tags after the data of RF64
            np.testing.assert_allclose(np.concatenate(list(reader.blocks(999)), axis=1), waveform, rtol=0, atol=2e-5)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs files with holes")
    def test_five_gigabytes(self, tmp_path):
        """A file with a hole, as its header would be after an hour of 32 channels."""
        file = wav.WavFile(tmp_path / "x.wav", RATE, 1, "FLOAT", {})
        frames = 5 * 2**30 // 4
        file._stream.seek(frames * 4 - 4, os.SEEK_CUR)
        file._stream.write(struct.pack("<f", 0.5))
        file._frames = frames
        try:
            file.close()
        except OSError:
            pytest.skip("the file system holds no files of 5 GB")
        info = soundfile.info(tmp_path / "x.wav")
        assert (info.format, info.frames) == ("RF64", frames)
        assert AudioReader(tmp_path / "x.wav").samples == frames
        with soundfile.SoundFile(tmp_path / "x.wav") as sound:
            sound.seek(frames - 2)
            np.testing.assert_array_equal(sound.read(), [0, 0.5])


class TestOgg:
    def test_serial_and_checksums(self, tmp_path):
        soundfile.write(tmp_path / "x.ogg", music(1)[0], RATE)
        before = (tmp_path / "x.ogg").read_bytes()
        ogg.renumber(tmp_path / "x.ogg")
        after = (tmp_path / "x.ogg").read_bytes()
        assert len(after) == len(before)
        at = pages = 0
        while at < len(after):
            end = at + 27 + after[at + 26] + sum(after[at + 27 : at + 27 + after[at + 26]])
            for content in (before, after):
                page = content[at:end]
                assert ogg.page_checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")
            assert int.from_bytes(after[at + 14 : at + 18], "little") == ogg.SERIAL
            assert after[at : at + 14] + after[at + 26 : end] == before[at : at + 14] + before[at + 26 : end]
            at, pages = end, pages + 1
        assert pages > 3

    def test_what_is_cut_is_refused(self, tmp_path):
        soundfile.write(tmp_path / "x.ogg", music(1)[0], RATE)
        content = (tmp_path / "x.ogg").read_bytes()
        for kept in (len(content) - 1, len(content) // 2, 30):
            (tmp_path / "x.ogg").write_bytes(content[:kept])
            with pytest.raises(OSError, match="its end is missing"):
                ogg.renumber(tmp_path / "x.ogg")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_no_half_file_ever_has_a_name(tmp_path):
    program = """
import sys
import numpy as np
from vocalsep.audio import AudioWriter
waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 100_000)).astype(np.float32)
print("ready", flush=True)
while True:
    for suffix in ("wav", "flac", "ogg", "mp3"):
        with AudioWriter(f"{sys.argv[1]}/x.{suffix}", 16000, 1, tags={"title": "x"}) as writer:
            writer.write(waveform)
            writer.commit()
"""
    random = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0.02, 0.4))
        process.kill()
        process.wait()
        process.stdout.close()
        for path in tmp_path.iterdir():
            if not path.name.startswith("."):
                assert audio.read(path).waveform.shape == (1, 100_000)
    assert (tmp_path / "x.wav").exists()
