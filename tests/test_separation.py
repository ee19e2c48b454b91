"""Writing a separation: names, bit depths, and what becomes of stems beyond full scale."""

from pathlib import Path

import numpy as np
import pytest

from vocalsep import Separation, audio
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks

RATE = 8000


@pytest.fixture
def result() -> Separation:
    """Two stems that add up to a recording within full scale, one of which exceeds it by itself."""
    time = np.arange(800) / RATE
    one = 1.6 * np.sin(2 * np.pi * 440 * time)
    other = 0.3 * np.sin(2 * np.pi * 220 * time) - 0.5 * one
    stems = {"alto": one.astype(np.float32), "bass": other.astype(np.float32)}
    return Separation(stems, F0Tracks(np.full((2, 7), 220.0), ("alto", "bass")), RATE)


def saved(paths: list[Path]) -> list[np.ndarray]:
    return [audio.read(path).waveform[0] for path in paths]


class TestClipModes:
    @pytest.mark.parametrize("bit_depth", ["16", "24"])
    def test_rescaled_stems_keep_their_shape_and_balance(self, result, tmp_path, bit_depth):
        found = saved(result.save(tmp_path, bit_depth=bit_depth))
        step = 2.0 ** (1 - int(bit_depth))
        gain = np.abs(found[0]).max() / np.abs(result.stems["alto"]).max()
        assert gain == pytest.approx(1 / 1.6, rel=1e-3)
        for stem, expected in zip(found, result.stems.values(), strict=True):
            np.testing.assert_allclose(stem, gain * expected, atol=step + 2**-23)
        assert np.abs(found[0]).max() <= 1 - 2.0**-15

    def test_clamped_stems_are_cut(self, result, tmp_path):
        for bit_depth in ("16", "float32"):
            found = saved(result.save(tmp_path / bit_depth, bit_depth=bit_depth, clip_mode="clamp"))
            for stem, expected in zip(found, result.stems.values(), strict=True):
                np.testing.assert_allclose(stem, expected.clip(-1, 1), atol=2.0**-15)

    def test_none_leaves_floats_as_they_are(self, result, tmp_path):
        found = saved(result.save(tmp_path, bit_depth="float32", clip_mode="none"))
        for stem, expected in zip(found, result.stems.values(), strict=True):
            np.testing.assert_array_equal(stem, expected)
        whole = saved(result.save(tmp_path / "whole", clip_mode="none"))
        np.testing.assert_allclose(whole[0], result.stems["alto"].clip(-1, 1), atol=2.0**-15)

    def test_floats_are_not_rescaled(self, result, tmp_path):
        found = saved(result.save(tmp_path, bit_depth="float32"))
        np.testing.assert_array_equal(found[0], result.stems["alto"])

    def test_stems_within_full_scale_stay(self, result, tmp_path):
        quiet = Separation({name: 0.5 * stem for name, stem in result.stems.items()}, result.f0, RATE)
        found = saved(quiet.save(tmp_path))
        np.testing.assert_allclose(sum(found), sum(quiet.stems.values()), atol=2 * 2.0**-16 + 1e-7)

    def test_unknown_modes(self, result, tmp_path):
        with pytest.raises(OptionError, match="clip_mode is 'loud'; expected one of rescale, clamp, none"):
            result.save(tmp_path, clip_mode="loud")
        assert list(tmp_path.iterdir()) == []


class TestFiles:
    def test_names(self, result, tmp_path):
        paths = result.save(tmp_path, track="Ave: Maria?", filename="{track}/{stem}.{ext}", audio_format="flac")
        assert paths == [tmp_path / "Ave_ Maria_" / f"{name}.flac" for name in ("alto", "bass")]

    def test_channels_and_the_arrays_are_kept(self, result, tmp_path):
        stereo = Separation({name: np.stack([stem, -stem]) for name, stem in result.stems.items()}, result.f0, RATE)
        before = {name: stem.copy() for name, stem in stereo.stems.items()}
        (path, _) = stereo.save(tmp_path, clip_mode="clamp")
        assert audio.read(path).waveform.shape == (2, 800)
        for name, stem in stereo.stems.items():
            np.testing.assert_array_equal(stem, before[name])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"filename": "stem.{ext}"}, "the same for every stem"),
            ({"filename": "../{stem}.{ext}"}, "leads out"),
            ({"filename": "{stem}.txt"}, "expected it to end in"),
            ({"audio_format": "aiff", "filename": "{stem}.aiff"}, "format is 'aiff'"),
            ({"bit_depth": "8"}, "has no bit depth '8'"),
        ],
    )
    def test_what_is_refused(self, result, tmp_path, options, message):
        with pytest.raises(OptionError, match=message):
            result.save(tmp_path, **options)
        assert list(tmp_path.iterdir()) == []

    def test_all_stems_or_none(self, result, tmp_path):
        (tmp_path / "bass.wav").mkdir()
        with pytest.raises(AudioError, match="cannot be written"):
            result.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["bass.wav"]


@pytest.fixture
def whole() -> Separation:
    """Two stems in stereo, well within full scale."""
    time = np.arange(1600) / 16000
    tones = [0.4 * np.sin(2 * np.pi * f0 * time) for f0 in (440, 220)]
    stems = {name: np.float32([tone, 0.5 * tone]) for name, tone in zip(("soprano", "alto"), tones, strict=True)}
    return Separation(stems, F0Tracks(np.full((2, 7), 220.0), ("soprano", "alto")), 16000)


class TestTemplatesAndFormats:
    @pytest.mark.parametrize(
        ("audio_format", "bit_depth", "tolerance"),
        [("wav", "16", 2e-5), ("wav", "24", 1e-7), ("wav", "float32", 0), ("flac", "16", 2e-5), ("ogg", "16", 0.1)],
    )
    def test_formats(self, whole, tmp_path, audio_format, bit_depth, tolerance):
        paths = whole.save(tmp_path, audio_format=audio_format, bit_depth=bit_depth)
        assert paths == [tmp_path / f"{name}.{audio_format}" for name in ("soprano", "alto")]
        for path, stem in zip(paths, whole.stems.values(), strict=True):
            waveform, rate = audio.read(path)
            assert rate == 16000
            np.testing.assert_allclose(waveform, np.clip(stem, -1, 1 - 2**-15), rtol=0, atol=tolerance)

    def test_float_files_add_up_to_the_recording(self, whole, tmp_path):
        paths = whole.save(tmp_path, bit_depth="float32")
        assert np.abs(sum(audio.read(path).waveform for path in paths) - sum(whole.stems.values())).max() < 1e-5

    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{track}/{stem}.{ext}", "Ave Maria/soprano.wav"),
            ("{stem}/{track}.{ext}", "soprano/Ave Maria.wav"),
            ("{track} ({stem}).wav", "Ave Maria (soprano).wav"),
            ("a/b/{stem}{{1}}.{ext}", "a/b/soprano{1}.wav"),
        ],
    )
    def test_templates(self, whole, tmp_path, template, expected):
        paths = whole.save(tmp_path, track="Ave Maria", filename=template)
        assert paths[0] == tmp_path / expected
        assert all(path.is_file() for path in paths)

    @pytest.mark.parametrize(
        "template",
        [
            "../{stem}.{ext}",
            "{stem}/../../{stem}.{ext}",
            "/{stem}.{ext}",
            "/etc/{track}/{stem}.{ext}",
            "{foo}/{stem}.{ext}",
            "{}/{stem}.{ext}",
            "{0}/{stem}.{ext}",
            "{track.__class__}/{stem}.{ext}",
            "{track.__class__.__mro__}{stem}.{ext}",
            "{track[0]}/{stem}.{ext}",
            "{track!r}/{stem}.{ext}",
            "{stem:>999999999}.{ext}",
            "{stem",
            "{stem}}.{ext}",
            "{stem}\0.{ext}",
            "{track}.{ext}",
            "same.wav",
            "{stem}",
            "{stem}.mp3",
            "",
        ],
    )
    def test_hostile_templates_write_nothing(self, whole, tmp_path, template):
        folder = tmp_path / "out"
        with pytest.raises(OptionError, match="filename is"):
            whole.save(folder, track="take", filename=template)
        assert list(tmp_path.iterdir()) == []

    def test_braces_in_a_track_stay_braces(self, whole, tmp_path):
        paths = whole.save(tmp_path, track="{stem.__class__}", filename="{track}/{stem}.{ext}")
        assert paths[0] == tmp_path / "{stem.__class__}" / "soprano.wav"

    @pytest.mark.parametrize(("audio_format", "bit_depth"), [("aiff", "16"), ("flac", "float32"), ("wav", "8")])
    def test_unknown_formats_write_nothing(self, whole, tmp_path, audio_format, bit_depth):
        with pytest.raises(OptionError):
            whole.save(tmp_path / "out", audio_format=audio_format, bit_depth=bit_depth)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_a_file(self, whole, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(AudioError, match="cannot be written"):
            whole.save(tmp_path / "out")
