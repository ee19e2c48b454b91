"""From an audio file to the files of its stems: depth, gain, two stems, tags, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest

from vocalsep.audio import AudioReader, read, write
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.files import PendingStems, Settings, write_stems
from vocalsep.separation.separator import Separator

RATE = 22050
F0 = np.float32([[440.0], [220.0]]) * np.ones(126, dtype=np.float32)
TRACKS = F0Tracks(F0, ("high", "low"))
NAMES = ["high", "low"]


@pytest.fixture(scope="module")
def system(tiny_model) -> Separator:
    return Separator(tiny_model, "cpu")


@pytest.fixture(scope="module")
def duet(sing) -> np.ndarray:
    """Two voices, 2 s in stereo that peak at 0.8."""
    mixture = sing(F0, RATE).sum(axis=0)[: 2 * RATE]
    return (0.8 / np.abs(mixture).max() * np.stack([mixture, 0.5 * mixture])).astype(np.float32)


@pytest.fixture
def recording(tmp_path, duet) -> Path:
    write(tmp_path / "duet.wav", duet, RATE, bit_depth="24", tags={"title": "Duet", "artist": "Two of us"})
    return tmp_path / "duet.wav"


def separated(system: Separator, recording: Path, settings: Settings, f0s: F0Tracks | None = TRACKS) -> PendingStems:
    names = settings.stem_names(f0s)
    targets = {name: recording.parent / "out" / f"{name}.{settings.audio_format}" for name in names}
    return write_stems(system, recording, targets, settings, f0s)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_stems_have_no_name_until_they_are_committed(system, recording, duet):
    pending = separated(system, recording, Settings())
    assert files(recording.parent) == [".high.wav.part", ".low.wav.part", "duet.wav"]
    pending.commit()
    assert files(recording.parent) == ["duet.wav", "high.wav", "low.wav"]
    stems = {name: read(recording.parent / "out" / f"{name}.wav").waveform for name in NAMES}
    expected = system.separate(read(recording).waveform, TRACKS, sample_rate=RATE).stems
    for name in NAMES:
        np.testing.assert_allclose(stems[name], expected[name], atol=2**-23)
    np.testing.assert_allclose(stems["high"] + stems["low"], duet, atol=2**-21)


def test_discarded_stems_leave_nothing(system, recording):
    separated(system, recording, Settings()).discard()
    assert files(recording.parent) == ["duet.wav"]


def test_depth_rate_channels_and_tags_are_those_of_the_recording(system, recording):
    pending = separated(system, recording, Settings())
    pending.commit()
    with AudioReader(recording.parent / "out" / "low.wav") as reader:
        assert (reader.bit_depth, reader.sample_rate, reader.channels, reader.samples) == ("24", RATE, 2, 2 * RATE)
        assert dict(reader.tags) == {"title": "Duet", "artist": "Two of us"}
    written = pending.written
    assert (written.bit_depth, written.sample_rate, written.channels, written.seconds) == ("24", RATE, 2, 2.0)
    assert written.singing == {"high": 1.0, "low": 1.0}
    assert (written.gain, written.clipped, written.given_seconds) == (1.0, 0, pytest.approx(126 * 0.016))


@pytest.mark.parametrize(
    ("depth", "audio_format", "wanted", "expected"),
    [("float32", "wav", None, "float32"), ("float32", "flac", None, "24"), ("24", "wav", "16", "16")],
)
def test_depth_can_be_chosen_and_is_the_nearest(system, tmp_path, duet, depth, audio_format, wanted, expected):
    write(tmp_path / "duet.wav", duet, RATE, bit_depth=depth)
    pending = separated(system, tmp_path / "duet.wav", Settings(audio_format=audio_format, bit_depth=wanted))
    pending.commit()
    with AudioReader(tmp_path / "out" / f"high.{audio_format}") as reader:
        assert reader.bit_depth == expected
    assert pending.written.bit_depth == expected


class TestTwoStems:
    def test_the_other_is_all_the_rest(self, system, recording):
        separated(system, recording, Settings(bit_depth="float32", residual=True)).commit()
        stems = {name: read(recording.parent / "out" / f"{name}.wav").waveform for name in [*NAMES, "residual"]}
        separated(system, recording, Settings(bit_depth="float32", residual=True, two_stems="low")).commit()
        two = {name: read(recording.parent / "out" / f"{name}.wav").waveform for name in ("low", "no_low")}
        np.testing.assert_array_equal(two["low"], stems["low"])
        np.testing.assert_allclose(two["no_low"], stems["high"] + stems["residual"], atol=1e-6)

    def test_the_residual_may_be_the_one(self, system, recording):
        settings = Settings(bit_depth="float32", residual=True, two_stems="residual")
        separated(system, recording, settings).commit()
        assert files(recording.parent) == ["duet.wav", "no_residual.wav", "residual.wav"]

    def test_an_unknown_voice(self):
        with pytest.raises(OptionError, match="two_stems is 'alto'; expected one of high, low"):
            Settings(two_stems="alto").stem_names(TRACKS)
        assert Settings(two_stems="alto").stem_names() == ["alto", "no_alto"]


class TestClipping:
    @pytest.fixture
    def loud(self, tmp_path, duet) -> Path:
        write(tmp_path / "loud.wav", 2 * duet, RATE, bit_depth="float32")
        return tmp_path / "loud.wav"

    @pytest.mark.parametrize("audio_format", ["flac", "ogg", "mp3"])
    def test_one_gain_in_every_format(self, system, loud, audio_format):
        pending = separated(system, loud, Settings(audio_format=audio_format))
        pending.commit()
        assert pending.written.gain < 0.95
        peaks = [np.abs(read(loud.parent / "out" / f"{name}.{audio_format}").waveform).max() for name in NAMES]
        assert 0.85 < max(peaks) < 1.1

    def stems(self, loud: Path) -> np.ndarray:
        return np.stack([read(loud.parent / "out" / f"{name}.wav").waveform for name in NAMES])

    def test_one_gain_brings_all_stems_into_full_scale(self, system, loud, duet):
        plain = separated(system, loud, Settings(bit_depth="float32"))
        plain.commit()
        assert plain.written.gain == 1.0
        exact = self.stems(loud)
        assert np.abs(exact).max() > 1.1
        pending = separated(system, loud, Settings(bit_depth="16"))
        pending.commit()
        gain = pending.written.gain
        assert gain == pytest.approx((1 - 2**-15) / np.abs(exact).max(), rel=1e-5)
        assert pending.written.clipped == 0
        np.testing.assert_allclose(self.stems(loud), gain * exact, atol=2**-15)
        np.testing.assert_allclose(self.stems(loud).sum(axis=0), 2 * gain * duet, atol=2**-14)

    @pytest.mark.parametrize("depth", ["16", "float32"])
    def test_clamp_cuts_in_every_format(self, system, loud, depth):
        separated(system, loud, Settings(bit_depth="float32")).commit()
        exact = self.stems(loud)
        pending = separated(system, loud, Settings(bit_depth=depth, clip_mode="clamp"))
        pending.commit()
        assert pending.written.gain == 1.0
        assert pending.written.clipped == (np.abs(exact) > 1).sum() > 0
        np.testing.assert_allclose(self.stems(loud), exact.clip(-1, 1), atol=2**-15)

    def test_none_leaves_floats_and_counts_what_whole_numbers_cannot_hold(self, system, loud):
        separated(system, loud, Settings(bit_depth="float32", clip_mode="none")).commit()
        exact = self.stems(loud)
        assert np.abs(exact).max() > 1.1
        pending = separated(system, loud, Settings(bit_depth="24", clip_mode="none"))
        assert pending.written.clipped == (np.abs(exact) > 1).sum()
        assert pending.written.gain == 1.0
        pending.discard()


class TestFailures:
    def test_a_recording_that_breaks_off_leaves_nothing(self, system, recording):
        content = recording.read_bytes()
        recording.write_bytes(content[: len(content) // 2])
        with pytest.raises(AudioError):
            separated(system, recording, Settings())
        assert files(recording.parent) == ["duet.wav"]

    def test_a_recording_that_changes_meanwhile_leaves_nothing(self, system, recording, duet, monkeypatch):
        tracked = system.track

        def track(*arguments: object, **options: object) -> F0Tracks:
            write(recording, duet[:, :-100], RATE, bit_depth="24")
            return tracked(*arguments, **options)

        monkeypatch.setattr(system, "track", track)
        with pytest.raises(AudioError, match="change"):
            separated(system, recording, Settings())
        assert files(recording.parent) == ["duet.wav"]

    def test_a_target_that_is_a_folder(self, system, recording):
        (recording.parent / "out" / "low.wav").mkdir(parents=True)
        with pytest.raises(AudioError, match=r"low\.wav"):
            separated(system, recording, Settings())
        assert files(recording.parent) == ["duet.wav"]

    def test_an_interruption_leaves_nothing(self, system, recording):
        def stop(stage: str, fraction: float) -> None:
            if stage == "masks":
                raise KeyboardInterrupt

        targets = {name: recording.parent / f"{name}.wav" for name in NAMES}
        with pytest.raises(KeyboardInterrupt):
            write_stems(system, recording, targets, Settings(), TRACKS, progress=stop)
        assert files(recording.parent) == ["duet.wav"]


def test_the_same_bytes_every_time(system, recording):
    """Samples, header and tags, in every format."""
    for audio_format, depth in (("wav", "float32"), ("wav", "16"), ("flac", "24"), ("ogg", "16"), ("mp3", "16")):
        contents = []
        for _ in range(2):
            separated(system, recording, Settings(audio_format=audio_format, bit_depth=depth)).commit()
            contents.append([(recording.parent / "out" / f"{name}.{audio_format}").read_bytes() for name in NAMES])
        assert contents[0] == contents[1], audio_format
