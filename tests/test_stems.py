"""Stems on disk: formats, bit depth, common gain, two stems, tags, and nothing half-written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vocalsep import Separation
from vocalsep.audio import AudioReader, read, write
from vocalsep.errors import AudioError, F0Error, OptionError, OutputError, VoicesError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.options import OutputOptions, SeparationOptions
from vocalsep.separation.files import StemSummary, write_stems
from vocalsep.separation.folders import audio_files, f0_from_guides, read_stems
from vocalsep.separation.separator import Separator

RATE = 22050
F0 = np.float32([[440.0], [220.0]]) * np.ones(126, dtype=np.float32)
TRACKS = F0Tracks(F0, ("high", "low"))
NAMES = ["high", "low"]


@pytest.fixture(scope="module")
def duet(sing) -> np.ndarray:
    """Two voices, 2 s in stereo with a peak of 0.8."""
    mixture = sing(F0, RATE).sum(axis=0)[: 2 * RATE]
    return (0.8 / np.abs(mixture).max() * np.stack([mixture, 0.5 * mixture])).astype(np.float32)


@pytest.fixture
def recording(tmp_path, duet) -> Path:
    write(tmp_path / "duet.wav", duet, RATE, bit_depth="24", tags={"title": "Duet", "artist": "Two of us"})
    return tmp_path / "duet.wav"


@pytest.fixture
def loud(tmp_path, duet) -> Path:
    write(tmp_path / "loud.wav", 2 * duet, RATE, bit_depth="float32")
    return tmp_path / "loud.wav"


def separated(
    system: Separator, recording: Path, output: OutputOptions, options: SeparationOptions | None = None
) -> tuple[StemSummary, np.ndarray]:
    """Write the stems beside the recording; return the summary and the stems, shape (stems, channels, samples)."""
    options = options or SeparationOptions()
    names = output.files_of(options.stem_names(TRACKS.names))
    targets = {name: recording.parent / f"{name}.{output.format}" for name in names}
    summary = write_stems(system, recording, targets, options, output, TRACKS)
    return summary, np.stack([read(path).waveform for path in targets.values()])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestWriteStems:
    def test_stems_are_those_of_the_array(self, tiny_separator, recording, duet):
        _, stems = separated(tiny_separator, recording, OutputOptions())
        expected = tiny_separator.separate(read(recording).waveform, TRACKS, sample_rate=RATE).stems
        np.testing.assert_allclose(stems, [expected[name] for name in NAMES], atol=2**-23)
        np.testing.assert_allclose(stems.sum(axis=0), duet, atol=2**-21)
        assert files(recording.parent) == ["duet.wav", "high.wav", "low.wav"]

    def test_depth_rate_channels_and_tags_are_those_of_the_recording(self, tiny_separator, recording):
        summary, _ = separated(tiny_separator, recording, OutputOptions())
        with AudioReader(recording.parent / "low.wav") as reader:
            assert (reader.bit_depth, reader.sample_rate, reader.channels, reader.samples) == ("24", RATE, 2, 2 * RATE)
            assert dict(reader.tags) == {"title": "Duet", "artist": "Two of us"}
        assert summary == StemSummary(2.0, RATE, 2, "24", 1.0, 0, {"high": 1.0, "low": 1.0}, None)

    @pytest.mark.parametrize(
        ("depth", "output", "expected"),
        [
            ("float32", OutputOptions(), "float32"),
            ("float32", OutputOptions(format="flac"), "24"),
            ("24", OutputOptions(bit_depth="16"), "16"),
        ],
    )
    def test_depth_can_be_chosen_or_is_the_nearest(self, tiny_separator, tmp_path, duet, depth, output, expected):
        write(tmp_path / "duet.wav", duet, RATE, bit_depth=depth)
        summary, _ = separated(tiny_separator, tmp_path / "duet.wav", output)
        with AudioReader(tmp_path / f"high.{output.format}") as reader:
            assert reader.bit_depth == expected == summary.bit_depth

    def test_two_stems_are_the_voice_and_the_rest(self, tiny_separator, recording):
        options, output = SeparationOptions(residual=True), OutputOptions(bit_depth="float32")
        _, (high, low, residual) = separated(tiny_separator, recording, output, options)
        _, (one, rest) = separated(tiny_separator, recording, replace(output, two_stems="low"), options)
        np.testing.assert_array_equal(one, low)
        np.testing.assert_allclose(rest, high + residual, atol=1e-6)
        assert "no_low.wav" in files(recording.parent)
        separated(tiny_separator, recording, replace(output, two_stems="residual"), options)
        assert "no_residual.wav" in files(recording.parent)

    def test_two_stems_of_an_unknown_voice(self):
        with pytest.raises(VoicesError):
            OutputOptions(two_stems="alto").files_of(NAMES)

    @pytest.mark.parametrize("audio_format", ["wav", "flac", "ogg", "mp3", "m4a"])
    def test_one_gain_brings_all_stems_into_full_scale(self, tiny_separator, loud, audio_format):
        _, exact = separated(tiny_separator, loud, OutputOptions(bit_depth="float32"))
        assert np.abs(exact).max() > 1.1
        summary, stems = separated(tiny_separator, loud, OutputOptions(format=audio_format))
        if audio_format in ("wav", "flac"):
            tolerance = 2**-15 if summary.bit_depth == "16" else 2**-22
            np.testing.assert_allclose(stems, summary.gain * exact, atol=tolerance)
            assert summary.clipped == 0
        else:
            assert 0.85 < np.abs(stems).max() < 1.1
        if summary.bit_depth != "float32":
            assert summary.gain == pytest.approx((1 - 2**-15) / np.abs(exact).max(), rel=1e-5)

    @pytest.mark.parametrize("depth", ["16", "float32"])
    def test_clamp_clips_in_every_format(self, tiny_separator, loud, depth):
        _, exact = separated(tiny_separator, loud, OutputOptions(bit_depth="float32"))
        summary, stems = separated(tiny_separator, loud, OutputOptions(bit_depth=depth, clip_mode="clamp"))
        assert (summary.gain, summary.clipped) == (1.0, (np.abs(exact) > 1).sum())
        np.testing.assert_allclose(stems, exact.clip(-1, 1), atol=2**-15)

    def test_none_leaves_floats_and_counts_clipped_integers(self, tiny_separator, loud):
        summary, exact = separated(tiny_separator, loud, OutputOptions(bit_depth="float32", clip_mode="none"))
        assert (summary.gain, summary.clipped) == (1.0, 0)
        summary, _ = separated(tiny_separator, loud, OutputOptions(bit_depth="24", clip_mode="none"))
        assert (summary.gain, summary.clipped) == (1.0, (np.abs(exact) > 1).sum())


class TestFailures:
    def test_a_damaged_recording_leaves_nothing(self, tiny_separator, recording):
        content = recording.read_bytes()
        recording.write_bytes(content[: len(content) // 2])
        with pytest.raises(AudioError):
            separated(tiny_separator, recording, OutputOptions())
        assert files(recording.parent) == ["duet.wav"]

    def test_a_target_that_is_a_folder(self, tiny_separator, recording):
        (recording.parent / "low.wav").mkdir(parents=True)
        with pytest.raises(OutputError):
            separated(tiny_separator, recording, OutputOptions())
        assert files(recording.parent) == ["duet.wav"]

    @pytest.mark.parametrize("stage", ["masks", "writing"])
    def test_an_interruption_leaves_nothing(self, tiny_separator, recording, stage):
        def stop(current: str, fraction: float) -> None:
            if current == stage:
                raise KeyboardInterrupt

        targets = {name: recording.parent / f"{name}.wav" for name in NAMES}
        with pytest.raises(KeyboardInterrupt):
            write_stems(tiny_separator, recording, targets, SeparationOptions(), OutputOptions(), TRACKS, stop)
        assert files(recording.parent) == ["duet.wav"]

    @pytest.mark.parametrize(
        "fields", [{"format": "aiff"}, {"bit_depth": "8"}, {"format": "flac", "bit_depth": "float32"}]
    )
    def test_formats_that_do_not_exist(self, fields):
        with pytest.raises(OptionError):
            OutputOptions(**fields)


class TestSave:
    """`Separation.save`."""

    @pytest.fixture
    def result(self) -> Separation:
        """Two stems in stereo, one of which exceeds full scale."""
        time = np.arange(1600) / 16000
        tones = [a * np.sin(2 * np.pi * f0 * time) for a, f0 in ((1.6, 440), (0.4, 220))]
        stems = {name: np.float32([tone, 0.5 * tone]) for name, tone in zip(("alto", "bass"), tones, strict=True)}
        return Separation(stems, F0Tracks(np.full((2, 7), 220.0), ("alto", "bass")), 16000)

    @pytest.mark.parametrize(
        ("options", "gain", "limit"),
        [
            ({}, 1 / 1.6, 1),
            ({"bit_depth": "24"}, 1 / 1.6, 1),
            ({"bit_depth": "float32"}, 1, 2),
            ({"clip_mode": "none"}, 1, 1),
            ({"bit_depth": "float32", "clip_mode": "clamp"}, 1, 1),
            ({"format": "flac"}, 1 / 1.6, 1),
        ],
    )
    def test_gain_and_clipping(self, result, tmp_path, options, gain, limit):
        before = {name: stem.copy() for name, stem in result.stems.items()}
        paths = result.save(tmp_path, **options)
        assert paths == [tmp_path / f"{name}.{options.get('format', 'wav')}" for name in ("alto", "bass")]
        for path, stem in zip(paths, before.values(), strict=True):
            np.testing.assert_allclose(read(path).waveform, (gain * stem).clip(-limit, limit), atol=2**-14)
        for name, stem in result.stems.items():
            np.testing.assert_array_equal(stem, before[name])

    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{track}/{stem}.{ext}", "Ave_ Maria_/alto.wav"),
            ("{stem}/{track}.{ext}", "alto/Ave_ Maria_.wav"),
            ("{track} ({stem}).wav", "Ave_ Maria_ (alto).wav"),
        ],
    )
    def test_templates(self, result, tmp_path, template, expected):
        paths = result.save(tmp_path, track="Ave: Maria?", filename=template)
        assert paths[0] == tmp_path / expected
        assert all(path.is_file() for path in paths)

    @pytest.mark.parametrize(
        "template",
        ["../{stem}.{ext}", "/{stem}.{ext}", "{foo}/{stem}.{ext}", "{stem!r}.{ext}", "{track}.{ext}", "{stem}.mp3", ""],
    )
    def test_bad_templates_write_nothing(self, result, tmp_path, template):
        with pytest.raises(OptionError):
            result.save(tmp_path / "out", track="take", filename=template)
        assert list(tmp_path.iterdir()) == []

    def test_a_stem_that_cannot_be_written(self, result, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError):
            result.save(tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"


class TestFolders:
    @pytest.fixture
    def guides(self, tmp_path, sing) -> Path:
        for name, f0 in (("low", 220.0), ("high", 440.0)):
            write(tmp_path / f"{name}.flac", sing(np.full((1, 63), f0))[0], 16000)
        (tmp_path / "notes.txt").write_text("no audio")
        (tmp_path / ".hidden.wav").write_text("no audio")
        return tmp_path

    def test_guides_are_ordered_from_high_to_low_or_as_named(self, guides, separator):
        tracks = f0_from_guides(guides, None, separator.crepe)
        assert tracks.names == ("high", "low")
        np.testing.assert_allclose(tracks.frequencies[:, 5:-5], [[440.0] * 53, [220.0] * 53], rtol=0.01)
        assert f0_from_guides(guides, ["low", "high"], separator.crepe).names == ("low", "high")

    def test_a_voice_without_a_guide(self, guides, separator):
        with pytest.raises(F0Error):
            f0_from_guides(guides, ["alto"], separator.crepe)

    def test_read_stems(self, guides):
        files = audio_files(guides)
        assert list(files) == ["high", "low"]
        waveforms, rate = read_stems(files)
        assert (rate, list(waveforms)) == (16000, ["high", "low"])
        write(guides / "other.wav", np.zeros(100), 8000)
        with pytest.raises(AudioError):
            read_stems(audio_files(guides))

    def test_folders_without_usable_audio(self, guides, tmp_path):
        (tmp_path / "empty").mkdir()
        write(guides / "low.wav", np.zeros(100), 16000)
        for folder in (tmp_path / "empty", tmp_path / "missing", guides / "notes.txt", guides):
            with pytest.raises(AudioError):
                audio_files(folder)
