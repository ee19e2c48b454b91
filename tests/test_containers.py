import sys
from pathlib import Path

import numpy as np
import pytest

from vocalsep import audio
from vocalsep.audio import containers
from vocalsep.audio.reader import AudioReader
from vocalsep.errors import AudioError
from vocalsep.separation.folders import AUDIO_SUFFIXES

av = pytest.importorskip("av", reason="m4a and video need PyAV: pip install vocalsep[av]")

RATE = 48000
TAGS = {"title": "Locus iste 合唱", "artist": "Bruckner", "date": "1869"}
# name: codec, FFmpeg's format where the suffix does not tell it, with a picture, bit depth of its stems
KINDS = {
    "x.m4a": ("aac", None, False, "16"),
    "x.aac": ("aac", "adts", False, "16"),
    "x.mp4": ("aac", None, True, "16"),
    "x.mov": ("pcm_s24le", None, True, "24"),
    "x.mkv": ("flac", None, True, "16"),
    "x.webm": ("libopus", None, False, "16"),
    "lossless.m4a": ("alac", None, False, "24"),
    "x.wma": ("wmav2", "asf", False, "16"),
    "x.wv": ("wavpack", None, False, "16"),
    "x.tta": ("tta", None, False, "16"),
    "x.avi": ("mp3", None, True, "16"),
    "flac.oga": ("flac", "ogg", False, "16"),
    "x.ts": ("aac", "mpegts", False, "16"),
}
WITHOUT_TAGS = ("x.aac", "x.ts")
WHOLE = ("x.mov", "x.mkv", "lossless.m4a", "x.wv", "x.tta", "flac.oga")  # lossless: sample for sample
UNTOLD = ("x.aac", "x.ts", "x.tta")  # of which a part may be a whole


def music(samples: int = 50000) -> np.ndarray:
    """Noise without treble, whose delay is plain to see and which encoders keep."""
    noise = np.random.default_rng(0).standard_normal((2, samples + 31)) / 8
    return np.stack([np.convolve(channel, np.hanning(32) / 5, "valid") for channel in noise]).astype(np.float32)


def encode(path: Path, codec: str, form: str | None = None, picture: bool = False, tags: dict | None = None) -> None:
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(tags or {})
        if picture:
            video = container.add_stream("mpeg4", rate=25)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        kinds = {"tta": "s16", "flac": "s16", "wavpack": "s16p"}
        chosen = {"format": kinds[codec]} if codec in kinds else {}
        stream = container.add_stream(codec, rate=RATE, layout="stereo", bit_rate=128000, **chosen)
        if picture:
            for at in range(25):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts = at
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(music(), format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = RATE, 0
        pieces = av.AudioFifo()
        for part in av.AudioResampler(format=stream.format, layout="stereo", rate=RATE).resample(sound):
            pieces.write(part)
        while (part := pieces.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("containers")
    for name, (codec, form, picture, _) in KINDS.items():
        encode(folder / name, codec, form, picture, TAGS)
    return folder


@pytest.mark.parametrize("name", KINDS)
class TestEach:
    def test_sound_rate_depth_and_tags(self, kinds, name, capfd):
        expected = music()
        with AudioReader(kinds / name) as reader:
            assert (reader.sample_rate, reader.channels, reader.bit_depth) == (RATE, 2, KINDS[name][3])
            assert dict(reader.tags) == ({} if name in WITHOUT_TAGS else TAGS)
            found = np.concatenate(list(reader.blocks(10000)), axis=1)
            again = np.concatenate(list(reader.blocks(777)), axis=1)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(again, found)
        np.testing.assert_array_equal(audio.read(kinds / name).waveform, found)
        if name in WHOLE:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1 / 2**15)
        else:
            assert abs(found.shape[1] - expected.shape[1]) < 4096
            delay = int(np.argmax(np.correlate(found[0, :12000], expected[0, 5000:9000]))) - 5000
            middle = found[:, 10000 + delay : 40000 + delay] - expected[:, 10000:40000]
            assert np.square(middle).mean() < 0.02 * np.square(expected).mean()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("kept", [0.9999, 0.6, 0.1, 0.001])
    def test_truncated_files(self, kinds, tmp_path, name, kept, capfd):
        content = (kinds / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(kept * len(content))])
        try:
            found = audio.read(tmp_path / name).waveform
        except AudioError as error:
            assert "expected" in str(error)
            assert "\n" not in str(error)
        else:
            assert name in UNTOLD
            assert found.shape[1] <= 52000
        assert capfd.readouterr() == ("", "")

    def test_damaged_files_give_samples_or_one_sentence(self, kinds, tmp_path, name, capfd):
        random = np.random.default_rng(0)
        content = np.frombuffer((kinds / name).read_bytes(), np.uint8)
        for _ in range(10):
            damaged = content.copy()
            damaged[random.integers(0, len(damaged), 20)] = random.integers(0, 256, 20)
            (tmp_path / name).write_bytes(damaged.tobytes())
            try:
                assert np.isfinite(audio.read(tmp_path / name).waveform).all()
            except AudioError as error:
                assert "\n" not in str(error)
        assert capfd.readouterr() == ("", "")

    def test_the_suffix_is_found_in_folders(self, kinds, name):
        assert Path(name).suffix in (*AUDIO_SUFFIXES, *containers.SUFFIXES, ".ts")

    def test_without_pyav_the_error_names_the_extra(self, kinds, name, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(AudioError, match=r"cannot be read as audio \(install vocalsep\[av\] for m4a"):
            AudioReader(kinds / name)


def test_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with pytest.raises(AudioError, match=r"x\.mp4: cannot be read as audio \(it has no sound\); expected"):
        AudioReader(tmp_path / "x.mp4")


def test_sound_with_a_lock(kinds, tmp_path, monkeypatch):
    """iTunes' way, and that of the common encryption of mp4."""
    content = (kinds / "x.m4a").read_bytes()
    assert content.count(b"mp4a") == 1
    (tmp_path / "x.m4a").write_bytes(content.replace(b"mp4a", b"drms"))
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    opened = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened(*a, **k, container_options=key))
    encode(tmp_path / "cenc.m4a", "aac")
    monkeypatch.undo()
    for name in ("x.m4a", "cenc.m4a"):
        with pytest.raises(AudioError, match=r"cannot be read as audio \((it is protected|Invalid).*\); expected"):
            audio.read(tmp_path / name)


@pytest.mark.parametrize("name", ["concat:a|b.m4a", "http:x.m4a", "two\nlines.m4a", "合唱 %d.m4a", "x.wav", "x" * 251])
@pytest.mark.skipif(sys.platform == "win32", reason="only POSIX systems have such names")
def test_names_are_only_names(kinds, tmp_path, name):
    (tmp_path / name).write_bytes((kinds / "x.m4a").read_bytes())
    np.testing.assert_array_equal(audio.read(tmp_path / name).waveform, audio.read(kinds / "x.m4a").waveform)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{other}'\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{other}</BaseURL></MPD>",
        "[playlist]\nFile1={other}\n",
    ],
)
def test_playlists_are_not_followed(kinds, tmp_path, text):
    for name in ("x.m4a", "x.m3u8", "x.mp4"):
        (tmp_path / name).write_text(text.format(other=kinds / "x.aac"))
        with pytest.raises(AudioError, match="cannot be read as audio"):
            audio.read(tmp_path / name)


def test_sound_that_changes_its_rate_on_the_way(tmp_path, monkeypatch):
    # Rates change where streams of broadcasts are joined.
    encode(tmp_path / "x.wv", "wavpack")
    real = containers._frames

    class Other:
        sample_rate = 22050

        def __init__(self, frame):
            self.layout, self.format, self.samples, self.to_ndarray = frame.layout, frame.format, 1, frame.to_ndarray

    def changing(container, stream):
        for at, frame in enumerate(real(container, stream)):
            yield Other(frame) if at == 2 else frame

    monkeypatch.setattr(containers, "_frames", changing)
    with pytest.raises(AudioError, match=r"changes from \(48000, 2\) to \(22050, 2\) Hz and channels"):
        audio.read(tmp_path / "x.wv")


@pytest.mark.parametrize(
    ("form", "dtype"),
    [(name + planar, kind) for name, kind in (("u8", "u1"), ("s16", "i2"), ("s32", "i4"), ("flt", "f4"), ("dbl", "f8"))
     for planar in ("", "p")],
)  # fmt: skip
def test_every_sample_format_has_its_full_scale(form, dtype):
    values = np.array([[0.5, -0.5, 0.25], [-1.0, 0.0, -0.25]])
    scaled = {"u1": values * 128 + 128, "i2": values * 2**15, "i4": values * 2**31}.get(dtype, values).astype(dtype)
    planar = form.endswith("p")
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(scaled if planar else scaled.T.reshape(1, -1)), format=form, layout="stereo"
    )
    found = containers._floats(frame)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)
