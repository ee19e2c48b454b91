"""Writing audio files: round trips, tags, full scale, capacities, full disks."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocalsep import audio
from vocalsep.audio import AudioReader, AudioWriter, encode, tags
from vocalsep.errors import AudioError, OptionError, OutputError

RATE = 16000
LOSSLESS = [("wav", "16"), ("wav", "24"), ("wav", "float32"), ("flac", "16"), ("flac", "24")]
FORMS = [*LOSSLESS, ("ogg", "16"), ("mp3", "16"), ("m4a", "16")]
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
    tones = 0.3 * np.sin(np.arange(samples) * np.linspace(0.05, 0.15, channels)[:, None])
    return (tones + 0.01 * np.random.default_rng(0).standard_normal((channels, samples))).astype(np.float32)


def in_blocks(path: Path, waveform: np.ndarray, size: int, **options) -> AudioWriter:
    with AudioWriter(path, RATE, len(waveform), **options) as writer:
        for start in range(0, waveform.shape[1], size):
            writer.write(waveform[:, start : start + size])
    return writer


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@each_form
@pytest.mark.parametrize("channels", [1, 2])
def test_round_trip(tmp_path, suffix, bit_depth, channels):
    waveform = music(channels)
    path = tmp_path / "deep" / f"x.{suffix}"
    in_blocks(path, waveform, 40000, bit_depth=bit_depth, tags=TAGS)
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels) == (RATE, channels)
        assert (reader.bit_depth, reader.tags) == (bit_depth, TAGS)
        found = np.concatenate(list(reader.blocks(50000)), axis=1)
    assert found.shape == waveform.shape
    step = {"16": 0.5 / 2**15, "24": 0.5 / 2**23, "float32": 0}[bit_depth]
    if (suffix, bit_depth) in LOSSLESS:
        np.testing.assert_allclose(found, waveform, rtol=0, atol=step)
    else:
        assert np.square(found - waveform).mean() < 0.01 * np.square(waveform).mean()
    assert files_in(path.parent) == [path.name]


@each_form
@pytest.mark.parametrize("size", [1009, 70000])
def test_sizes_of_blocks_do_not_matter(tmp_path, suffix, bit_depth, size):
    waveform = music()
    audio.write(tmp_path / f"x.{suffix}", waveform, RATE, bit_depth=bit_depth)
    in_blocks(tmp_path / f"y.{suffix}", waveform, size, bit_depth=bit_depth)
    found = [audio.read(tmp_path / f"{name}.{suffix}").waveform for name in "xy"]
    if suffix == "ogg":  # its encoder decides by blocks where to split
        assert np.square(found[0] - found[1]).mean() < 1e-3 * np.square(waveform).mean()
    else:
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("suffix", "channels", "sample_rate"),
    [
        ("wav", 32, 768000),
        ("flac", 8, 655350),
        ("ogg", 8, 96000),
        ("ogg", 1, 192000),
        *(("mp3", channels, rate) for channels in (1, 2) for rate in (8000, 22050, 48000)),
        *(("m4a", channels, rate) for channels in (1, 2) for rate in (8000, 44100, 96000)),
    ],
)
def test_rates_and_channels(tmp_path, suffix, channels, sample_rate):
    waveform = music(channels, 20000)
    audio.write(tmp_path / f"x.{suffix}", waveform, sample_rate)
    found, rate = audio.read(tmp_path / f"x.{suffix}")
    assert (found.shape, rate) == (waveform.shape, sample_rate)
    error = np.square(found - waveform).mean(axis=1) / np.square(waveform).mean(axis=1)
    assert (10 * np.log10(error) < -18).all()


def test_minutes_of_ogg_do_not_overflow_the_encoder(tmp_path):
    audio.write(tmp_path / "x.ogg", music(1, 8000 * 180), 8000)
    assert audio.read(tmp_path / "x.ogg").waveform.shape == (1, 8000 * 180)


@pytest.mark.parametrize("samples", [1, 2, 3, 1025])
@each_form
def test_few_samples(tmp_path, suffix, bit_depth, samples):
    in_blocks(tmp_path / f"x.{suffix}", music(1, samples), 1, bit_depth=bit_depth, tags=TAGS)
    padding = 46 if suffix == "mp3" else 0  # an mp3 file cannot be shorter
    assert samples <= audio.read(tmp_path / f"x.{suffix}").waveform.shape[1] <= samples + padding


@pytest.mark.parametrize(
    ("name", "format"), [("Ave María 合唱 (take 2).flac", None), ("UPPER.WAV", None), (".x.m4a.part", "m4a")]
)
def test_names_of_files(tmp_path, name, format):
    path = tmp_path / "Chœur d'été" / name
    in_blocks(path, music(1, 2000), 2000, format=format)
    assert files_in(path.parent) == [name]
    assert audio.read(path).waveform.shape == (1, 2000)


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
def test_tags_are_never_an_error(tmp_path, suffix, bit_depth, hostile):
    path = tmp_path / f"x.{suffix}"
    in_blocks(path, music(1, 3000), 3000, bit_depth=bit_depth, tags=hostile)
    assert path.stat().st_size < 60_000
    with AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks(1000)) == 3000
        assert all(len(text.encode()) <= 2000 and "\0" not in text for text in reader.tags.values())
        assert reader.tags.get("title", "")[:4] in str(hostile.get("title", "")).replace("\ud800", "?")


def test_tags_go_from_one_format_to_the_others(tmp_path):
    chain = ["wav", "mp3", "m4a", "flac", "ogg", "wav"]
    found = TAGS
    for suffix in chain:
        audio.write(tmp_path / f"x.{suffix}", music(1, 3000), RATE, tags=found)
        found = AudioReader(tmp_path / f"x.{suffix}").tags
    assert found == TAGS


@pytest.mark.parametrize(("suffix", "bit_depth", "bits"), [("wav", "16", 16), ("wav", "24", 24), ("flac", "24", 24)])
def test_integers_clip_and_count(tmp_path, suffix, bit_depth, bits):
    block = np.float32([[0.5, 1.0, 1.5, -1.0, -1.5], [0, 7, -7, 0.25, 0.999999999]])
    with AudioWriter(tmp_path / f"x.{suffix}", RATE, 2, bit_depth=bit_depth) as writer:
        writer.write(block)
        writer.write(block)
        assert writer.clipped == 8
    top = 1 - 2.0 ** (1 - bits)
    expected = [[0.5, top, top, -1, -1], [0, top, -1, 0.25, top]]
    found = audio.read(tmp_path / f"x.{suffix}").waveform
    np.testing.assert_array_equal(found, np.float32(np.concatenate([expected, expected], axis=1)))


@pytest.mark.parametrize(("suffix", "bit_depth"), [("wav", "float32"), ("ogg", "16"), ("mp3", "16"), ("m4a", "16")])
def test_floats_are_not_clipped(tmp_path, suffix, bit_depth):
    writer = in_blocks(tmp_path / f"x.{suffix}", 5 * music(1), 70000, bit_depth=bit_depth)
    assert writer.clipped == 0
    assert np.abs(audio.read(tmp_path / f"x.{suffix}").waveform).max() == pytest.approx(1.7, abs=0.2)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_steps_are_the_nearest(tmp_path, suffix):
    steps = np.float32([[0.49, 0.51, 1.49, -0.49, -0.51, -1.51]]) / 2**15
    in_blocks(tmp_path / f"x.{suffix}", steps, 10)
    np.testing.assert_array_equal(audio.read(tmp_path / f"x.{suffix}").waveform * 2**15, [[0, 1, 1, 0, -1, -2]])


@each_form
def test_error_in_the_context_removes_the_file(tmp_path, suffix, bit_depth, capfd):
    for samples in (0, 70000):
        with pytest.raises(KeyboardInterrupt), AudioWriter(tmp_path / f"x.{suffix}", RATE, 1, bit_depth=bit_depth) as w:
            w.write(music(1, samples))
            raise KeyboardInterrupt
        assert files_in(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@each_form
def test_closed_writer_is_refused(tmp_path, suffix, bit_depth):
    writer = AudioWriter(tmp_path / f"x.{suffix}", RATE, 1, bit_depth=bit_depth)
    writer.write(music(1, 2000))
    writer.close()
    writer.close()
    with pytest.raises(OutputError):
        writer.write(music(1, 2000))
    assert audio.read(tmp_path / f"x.{suffix}").waveform.shape == (1, 2000)


def test_write_replaces_a_file_at_its_end_only(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"old")
    with pytest.raises(AudioError):
        audio.write(tmp_path / "x.wav", [np.nan], RATE)
    assert (tmp_path / "x.wav").read_bytes() == b"old"
    audio.write(tmp_path / "x.wav", [0.5], RATE)
    assert audio.read(tmp_path / "x.wav").waveform == 0.5
    assert files_in(tmp_path) == ["x.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_rights_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        audio.write(tmp_path / "x.flac", [0.0], RATE)
        audio.write(tmp_path / "x.m4a", [0.0], RATE)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize(
    ("name", "rate", "channels", "bit_depth", "parameter"),
    [
        ("x.aac", RATE, 1, "16", "format"),
        ("x", RATE, 1, "16", "format"),
        ("x.flac", RATE, 1, "float32", "bit_depth"),
        ("x.wav", RATE, 1, "8", "bit_depth"),
        ("x.mp3", RATE, 3, "16", "format"),
        ("x.mp3", 96000, 1, "16", "format"),
        ("x.m4a", 44056, 1, "16", "format"),
        ("x.m4a", RATE, 6, "16", "format"),
        ("x.flac", RATE, 9, "16", "format"),
        ("x.flac", 768000, 1, "16", "format"),
        ("x.ogg", 384000, 1, "16", "format"),
        ("x.wav", RATE, 0, "16", "format"),
        ("x.wav", RATE, 129, "16", "format"),
        ("x.wav", 44100.5, 1, "16", "sample_rate"),
    ],
)
def test_formats_that_cannot_hold_the_audio(tmp_path, name, rate, channels, bit_depth, parameter):
    with pytest.raises((OptionError, AudioError)) as caught:
        AudioWriter(tmp_path / "sub" / name, rate, channels, bit_depth=bit_depth)
    assert caught.value.parameter == parameter
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("block", [np.zeros((1, 5)), np.zeros(5), [[0, np.nan], [0, 0]], [[0, np.inf], [0, 0]]])
def test_blocks_that_are_not_audio(tmp_path, block):
    with AudioWriter(tmp_path / "x.wav", RATE, 2) as writer:
        with pytest.raises(AudioError):
            writer.write(np.asarray(block, np.float32))
        writer.write(np.zeros((2, 0), np.float32))


@each_form
@pytest.mark.parametrize("name", ["folder", "file/x", "x" * 300, "zero\0byte"])
def test_places_that_cannot_be_written(tmp_path, suffix, bit_depth, name):
    (tmp_path / f"folder.{suffix}").mkdir()
    (tmp_path / "file").touch()
    before = files_in(tmp_path)
    for write in (
        lambda path: audio.write(path, [0.0], RATE, bit_depth=bit_depth),
        lambda path: AudioWriter(path, RATE, 1, bit_depth=bit_depth),
    ):
        with pytest.raises(OutputError) as caught:
            write(tmp_path / f"{name}.{suffix}")
        assert str(caught.value).isprintable()
    assert files_in(tmp_path) == before


@contextmanager
def file_size_limit(size: int):
    """No file of this process, not even the log of a test run, grows beyond so many bytes: a full disk."""
    resource = pytest.importorskip("resource", reason="file sizes can only be limited on POSIX systems")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@each_form
@pytest.mark.parametrize("missing", [1, 60, 2000, None])
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, suffix, bit_depth, missing, capfd):
    waveform = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 48000))
    target = tmp_path / f"x.{suffix}"
    audio.write(target, waveform, RATE, bit_depth=bit_depth)
    size = target.stat().st_size
    target.write_bytes(b"old")
    with pytest.raises(OutputError), file_size_limit(0 if missing is None else size - missing):
        audio.write(target, waveform, RATE, bit_depth=bit_depth)
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == [target.name]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("samples", "form"), [(2**30 - 2**15, "WAV"), (2**30, "RF64")])
def test_the_limit_of_wav_is_4_gb(tmp_path, samples, form):
    in_blocks(tmp_path / "x.wav", music(1, 10), 10, bit_depth="float32", samples=samples)
    assert soundfile.info(tmp_path / "x.wav").format == form


@pytest.mark.parametrize("bit_depth", ["16", "24", "float32"])
def test_wav_beyond_4_gb_is_rf64(tmp_path, monkeypatch, bit_depth):
    monkeypatch.setattr(encode, "_RIFF_LIMIT", 20_000)
    waveform = music(2, 9001)
    in_blocks(tmp_path / "x.wav", waveform, 1000, bit_depth=bit_depth, tags=TAGS, samples=9001)
    assert soundfile.info(tmp_path / "x.wav").format == "RF64"
    with AudioReader(tmp_path / "x.wav") as reader:
        assert reader.samples == 9001
        np.testing.assert_allclose(np.concatenate(list(reader.blocks(999)), axis=1), waveform, rtol=0, atol=2e-5)
    with pytest.raises(OutputError):
        in_blocks(tmp_path / "x.wav", waveform, 1000, bit_depth=bit_depth)
