"""Reading files through PyAV: the sound of m4a, mp4, mov, webm, mp3, wma and others, sample for sample."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import soundfile

from vocalsep import audio
from vocalsep.audio import AUDIO_SUFFIXES, AudioReader
from vocalsep.errors import AudioError

TAGS = {"title": "Locus iste 合唱", "artist": "Bruckner", "date": "1869"}


class Kind(NamedTuple):
    """A kind of file, and how much of it the reader finds."""

    codec: str
    form: str
    bit_depth: str = "16"
    sample_format: str | None = None
    picture: bool = False
    lossless: bool = False
    aligned: bool = True  # without the delay of the encoder
    exact: bool = True  # without the padding at the end
    checked: bool = True  # a truncated file is refused


KINDS = {
    "x.m4a": Kind("aac", "ipod"),
    "x.mp4": Kind("aac", "mp4", picture=True),
    "x.mov": Kind("aac", "mov", picture=True),
    "x.3gp": Kind("aac", "3gp"),
    "pcm.mov": Kind("pcm_s24le", "mov", "24", lossless=True),
    "lossless.m4a": Kind("alac", "ipod", "16", "s16p", lossless=True),
    "x.mp3": Kind("libmp3lame", "mp3"),
    "x.opus": Kind("libopus", "opus", checked=False),
    "x.webm": Kind("libopus", "webm"),
    "flac.mkv": Kind("flac", "matroska", "16", "s16", picture=True, lossless=True, checked=False),
    "x.mka": Kind("aac", "matroska", aligned=False, exact=False),  # aligned from FFmpeg 8 on
    "x.aac": Kind("aac", "adts", aligned=False, exact=False, checked=False),
    "x.wma": Kind("wmav2", "asf", aligned=False, exact=False),
    "x.avi": Kind("libmp3lame", "avi", picture=True, aligned=False, exact=False),
    "x.wv": Kind("wavpack", "wv", "16", "s16p", lossless=True),
    "x.tta": Kind("tta", "tta", "16", "s16", lossless=True),
    "flac.oga": Kind("flac", "ogg", "16", "s16", lossless=True, checked=False),
    "x.mpg": Kind("mp2", "mpeg", picture=True, aligned=False, exact=False, checked=False),
}
WITHOUT_TAGS = ("x.3gp", "x.aac", "x.mpg")
RATES = {"libopus": 48000}  # other codecs: 44100 Hz


def encode(path: Path, waveform: np.ndarray, rate: int, kind: Kind, **options: str) -> None:
    with av.open(str(path), "w", format=kind.form, container_options=options) as container:
        container.metadata.update(TAGS)
        layout = "mono" if len(waveform) == 1 else "stereo"
        chosen = {"format": kind.sample_format} if kind.sample_format else {}
        stream = container.add_stream(kind.codec, rate=rate, layout=layout, bit_rate=128000, **chosen)
        if kind.picture:
            video = container.add_stream("mpeg1video" if kind.form == "mpeg" else "mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for _ in range(25 * waveform.shape[1] // rate):
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
            container.mux(video.encode(None))
        for start in range(0, waveform.shape[1], 4096):
            part = np.ascontiguousarray(waveform[:, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Files(NamedTuple):
    folder: Path
    sources: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def files(request, tmp_path_factory, data) -> Files:
    folder = tmp_path_factory.mktemp("containers")
    parts = [soundfile.read(data / f"csd/locus_iste/{part}.flac", 48000)[0] for part in ("soprano", "bass")]
    sources = {}
    for name, kind in KINDS.items():
        rate = RATES.get(kind.codec, 44100)
        sources[name] = audio.resample(np.stack(parts[: request.param]) / 2, 16000, rate)
        encode(folder / name, sources[name], rate, kind)
    return Files(folder, sources)


def delay(found: np.ndarray, source: np.ndarray) -> int:
    """Return how many samples later the same sound comes in the file."""
    size = 1 << 16
    found, source = found[:, :size].sum(axis=0), source[:, :size].sum(axis=0)
    spectrum = np.fft.rfft(found, 2 * size) * np.fft.rfft(source, 2 * size).conj()
    lag = int(np.argmax(np.fft.irfft(spectrum / np.sqrt(np.abs(spectrum) + 1e-9))))  # tones count less
    return lag if lag < size else lag - 2 * size


@pytest.mark.parametrize("name", KINDS)
class TestEach:
    def test_sound_rate_depth_and_tags(self, files, name, capfd):
        kind, source = KINDS[name], files.sources[name]
        with AudioReader(files.folder / name) as reader:
            assert (reader.sample_rate, reader.channels) == (RATES.get(kind.codec, 44100), len(source))
            assert reader.bit_depth == kind.bit_depth
            assert reader.tags == ({} if name in WITHOUT_TAGS else TAGS)
            found = np.concatenate(list(reader.blocks(10000)), axis=1)
            np.testing.assert_array_equal(np.concatenate(list(reader.blocks(777)), axis=1), found)
        if kind.exact:
            assert found.shape == source.shape
        assert abs(found.shape[1] - source.shape[1]) < 4096
        shift = delay(found, source)
        assert shift == 0 or not kind.aligned
        if kind.lossless:
            np.testing.assert_allclose(found, source, rtol=0, atol=1 / 2**15)
        else:
            middle = slice(5000, 100_000)
            difference = found[:, 5000 + shift : 100_000 + shift] - source[:, middle]
            assert np.square(difference).mean() < 0.02 * np.square(source[:, middle]).mean()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("kept", [0.8, 0.1, 0.001])
    def test_truncated_files_are_refused(self, files, tmp_path, name, kept, capfd):
        content = (files.folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(kept * len(content))])
        try:
            found = audio.read(tmp_path / name).waveform
        except AudioError as error:
            assert str(error).isprintable()
        else:
            assert not KINDS[name].checked
            assert found.shape[1] <= files.sources[name].shape[1]
        assert capfd.readouterr() == ("", "")

    def test_damaged_files_give_samples_or_one_sentence(self, files, tmp_path, name, capfd):
        random = np.random.default_rng(0)
        content = np.frombuffer((files.folder / name).read_bytes(), np.uint8)
        for _ in range(5):
            damaged = content.copy()
            damaged[random.integers(0, len(damaged), 20)] = random.integers(0, 256, 20)
            (tmp_path / name).write_bytes(damaged.tobytes())
            try:
                assert np.isfinite(audio.read(tmp_path / name).waveform).all()
            except AudioError as error:
                assert str(error).isprintable()
        assert capfd.readouterr() == ("", "")

    def test_the_suffix_is_found_in_folders(self, name):
        assert Path(name).suffix in AUDIO_SUFFIXES


@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_mp4_with_its_header_first(tmp_path, options):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 100_000)).astype(np.float32)
    encode(tmp_path / "x.mp4", waveform, 44100, KINDS["x.m4a"], **options)
    assert abs(audio.read(tmp_path / "x.mp4").waveform.shape[1] - 100_000) <= 1024
    content = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "x.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError):
        audio.read(tmp_path / "x.mp4")


def test_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(video.encode(None))
    with pytest.raises(AudioError, match="no sound"):
        AudioReader(tmp_path / "x.mp4")


def test_copy_protection(tmp_path):
    """The way of iTunes, and the common encryption of mp4."""
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 50_000)).astype(np.float32)
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    encode(tmp_path / "cenc.m4a", waveform, 44100, KINDS["x.mp4"]._replace(picture=False), **key)
    encode(tmp_path / "x.m4a", waveform, 44100, KINDS["x.m4a"])
    content = (tmp_path / "x.m4a").read_bytes()
    (tmp_path / "x.m4a").write_bytes(content.replace(b"mp4a", b"drms"))
    for name in ("x.m4a", "cenc.m4a"):
        with pytest.raises(AudioError):
            audio.read(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{other}'\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{other}</BaseURL></MPD>",
        "[playlist]\nFile1={other}\n",
    ],
)
@pytest.mark.parametrize("name", ["x.m4a", "x.m3u8", "x.mp4"])
def test_playlists_are_not_followed(tmp_path, text, name):
    encode(tmp_path / "other.m4a", np.zeros((1, 5000), np.float32), 44100, KINDS["x.m4a"])
    (tmp_path / name).write_text(text.format(other=tmp_path / "other.m4a"))
    with pytest.raises(AudioError):
        audio.read(tmp_path / name)


@pytest.mark.parametrize(
    ("codec", "form", "sample_format"),
    [
        ("pcm_u8", "mov", "u8"),
        ("pcm_s16le", "matroska", "s16"),
        ("pcm_s32le", "mov", "s32"),
        ("pcm_f64le", "mov", "dbl"),
    ],
)
def test_sample_formats_have_one_full_scale(tmp_path, codec, form, sample_format):
    waveform = np.float32([[0.5, -0.5, 0.25] * 100, [-1.0, 0.0, -0.25] * 100])
    encode(tmp_path / "x", waveform, 44100, Kind(codec, form, sample_format=sample_format))
    np.testing.assert_allclose(audio.read(tmp_path / "x").waveform, waveform, rtol=0, atol=1e-4)


def test_channels_that_change_on_the_way(tmp_path):
    """Mono frames amid stereo would crash PyAV's fifo."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (20_000, 2))
    for channels in (1, 2):
        soundfile.write(tmp_path / f"{channels}.mp3", noise[:, :channels], 16000)
    parts = [(tmp_path / f"{channels}.mp3").read_bytes() for channels in (2, 1, 2)]
    (tmp_path / "x.mp3").write_bytes(b"".join(parts))
    with pytest.raises(AudioError, match="change"):
        audio.read(tmp_path / "x.mp3")
