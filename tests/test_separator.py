"""Separation end to end: stems add up, any rate and shape, f0s in all their forms, where files go."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vocalsep
from vocalsep import audio
from vocalsep.api import separate, separate_file
from vocalsep.device import resolve_device
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import AudioError, F0Error, OptionError, VocalsepError, VoicesError, WeightsError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import soft_masks
from vocalsep.model.synthesizer import VoiceParameters, voice_power
from vocalsep.separation.asked import stem_names
from vocalsep.separation.result import Separation
from vocalsep.separation.separator import Separator

FRAMES = 64
DUET = np.array([[440.0], [220.0]], dtype=np.float32) * np.ones(FRAMES, dtype=np.float32)


@pytest.fixture(scope="module")
def system(tiny_model) -> Separator:
    return Separator(tiny_model, "cpu")


@pytest.fixture(scope="module")
def duet(sing) -> np.ndarray:
    """Two voices of 1 s at 16 kHz, in full scale, shape (samples,)."""
    mixture = sing(DUET).sum(axis=0)
    return 0.9 * mixture / np.abs(mixture).max()


def at_rate(waveform: np.ndarray, sample_rate: int, channels: int) -> np.ndarray:
    """Return the waveform at another rate, with white noise up to its Nyquist frequency, in so many channels."""
    moved = audio.resample(waveform, 16000, sample_rate)[0]
    hiss = 0.01 * np.random.default_rng(0).normal(size=(channels, len(moved)))
    return (moved * np.linspace(1, -0.5, channels)[:, None] + hiss).astype(np.float32)


def total(result: Separation) -> np.ndarray:
    return np.sum(list(result.stems.values()), axis=0)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_stems_add_up_to_the_recording(system, duet, sample_rate, channels, residual):
    recording = at_rate(duet, sample_rate, channels)
    result = system.separate(recording, DUET, sample_rate=sample_rate, residual=residual)
    assert list(result.stems) == ["voice1", "voice2", *["residual"] * residual]
    assert all(stem.shape == recording.shape and stem.dtype == np.float32 for stem in result.stems.values())
    assert np.abs(total(result) - recording).max() <= 1e-5 * np.abs(recording).max()
    assert result.sample_rate == sample_rate


@pytest.mark.parametrize("shape", [(16000,), (1, 16000), (3, 16000)])
def test_stems_have_the_shape_of_the_recording(system, duet, shape):
    result = system.separate(np.broadcast_to(duet[:16000], shape), DUET)
    assert {stem.shape for stem in result.stems.values()} == {shape}


def test_the_recording_is_left_as_it_was(system, duet):
    recording, f0s = duet.copy(), DUET.copy()
    system.separate(recording, f0s)
    np.testing.assert_array_equal(recording, duet)
    np.testing.assert_array_equal(f0s, DUET)


def test_integers_are_scaled(system, duet):
    integers = np.round(duet * 32767).astype(np.int16)
    result = system.separate(integers, DUET)
    assert np.abs(total(result) - integers / 32768).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 900])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
@pytest.mark.parametrize("f0s", [[[300.0], [0.0]], None])
def test_shortest_recordings(system, f0s, sample_rate, samples):
    recording = np.linspace(-0.3, 0.4, samples).astype(np.float32)
    result = system.separate(recording, f0s, sample_rate=sample_rate)
    assert np.abs(total(result) - recording).max() < 1e-5


@pytest.mark.parametrize("f0s", [DUET, np.zeros_like(DUET), None])
@pytest.mark.parametrize("residual", [False, True])
def test_silence_stays_silent(system, f0s, residual):
    result = system.separate(np.zeros((2, 44100), np.float32), f0s, sample_rate=44100, residual=residual)
    assert all((stem == 0).all() for stem in result.stems.values())


@pytest.mark.parametrize("peak", [1e-45, 1e-40, 1e-30, 1e-9, 100.0, 1e6])
def test_recordings_of_any_level(system, duet, peak):
    recording = (duet / 0.9 * peak).astype(np.float32)
    result = system.separate(recording, DUET)
    assert np.abs(total(result) - recording).max() <= 1e-5 * peak + 1e-38  # numbers below lose digits


def test_level_does_not_change_the_separation(system, duet):
    loud, quiet = system.separate(duet, DUET), system.separate(np.float32(2**-8) * duet, DUET)
    for name, stem in loud.stems.items():
        assert np.abs(stem - 2**8 * quiet.stems[name]).max() < 1e-4


def test_channels_that_cancel_are_still_separated(system, duet):
    result = system.separate(np.stack([duet, -duet]), DUET)
    assert np.abs(total(result)[1] + duet).max() < 1e-5


def test_a_pan_is_kept(system, duet):
    """Masks are common to all channels."""
    result = system.separate(np.stack([0.8 * duet, 0.2 * duet]), DUET)
    for stem in result.stems.values():
        np.testing.assert_allclose(stem[1], 0.25 * stem[0], atol=1e-6)


class TestResidual:
    def test_it_is_what_sounds_where_nobody_sings(self, system, duet):
        f0s = DUET.copy()
        f0s[:, 20:] = 0
        result = system.separate(duet, f0s, residual=True)
        # Held 160 ms after the last note; windows reach 64 ms more.
        middle, end = 20 * 256, 40 * 256
        assert np.abs(result.stems["residual"][: middle - 1024]).max() < 1e-6
        np.testing.assert_allclose(result.stems["residual"][end:], duet[end:], atol=1e-6)

    def test_without_it_the_voices_share(self, system, duet):
        result = system.separate(duet, np.zeros_like(DUET))
        assert list(result.stems) == ["voice1", "voice2"]
        assert np.abs(total(result) - duet).max() < 1e-5

    @pytest.mark.parametrize("name", ["residual", "Residual"])
    def test_no_voice_may_have_its_name(self, system, duet, name):
        with pytest.raises(OptionError, match="named 'residual'"):
            system.separate(duet, DUET, voices=["soprano", name], residual=True)
        assert name in system.separate(duet, DUET, voices=["soprano", name]).stems


class TestF0s:
    def test_tracks_and_arrays_are_alike(self, system, duet):
        array = system.separate(duet, DUET, voices="SA")
        tracks = system.separate(duet, F0Tracks(DUET, ("soprano", "alto")))
        for name in ("soprano", "alto"):
            np.testing.assert_array_equal(array.stems[name], tracks.stems[name])
        np.testing.assert_array_equal(array.f0.frequencies, DUET)

    @pytest.mark.parametrize("hop", [0.008, 0.01, 0.032])
    def test_other_hops_are_brought_to_the_grid(self, system, duet, hop):
        frames = round(63 * 0.016 / hop) + 1
        tracks = F0Tracks(np.float32([[440], [220]]) * np.ones(frames, np.float32), ("a", "b"), hop)
        result = system.separate(duet, tracks)
        assert result.f0.hop == 0.016
        assert result.f0.n_frames == 1 + len(duet) // 256
        expected = system.separate(duet, DUET, voices=["a", "b"])
        assert np.abs(result.stems["a"] - expected.stems["a"]).max() < 1e-5

    @pytest.mark.parametrize("frames", [FRAMES - 15, FRAMES + 15])
    def test_a_quarter_of_a_second_more_or_less_is_forgiven(self, system, duet, frames):
        result = system.separate(duet, np.float32([[440], [220]]) * np.ones(frames, np.float32))
        assert result.f0.n_frames == FRAMES
        assert result.f0.voiced.sum() == 2 * min(frames, FRAMES)

    def test_tracks_may_end_before_the_recording(self, system, duet):
        """Files leave out a rest at the end; a bare array must be as long as the recording."""
        half = np.float32([[440], [220]]) * np.ones(FRAMES // 2, np.float32)
        result = system.separate(duet, F0Tracks(half, ("high", "low")))
        assert result.f0.voiced.sum() == FRAMES
        with pytest.raises(F0Error, match=r"f0s last 0\.51 s"):
            system.separate(duet, half)
        with pytest.raises(F0Error, match=r"f0s last 0\.16 s"):
            system.separate(duet, F0Tracks(half[:, :10], ("high", "low")))

    def test_a_path_is_no_f0(self, system, duet):
        with pytest.raises(F0Error, match=r"f0s is the path 'choir.csv'; expected .* F0Tracks.from_csv gives"):
            system.separate(duet, "choir.csv")

    @pytest.mark.parametrize("frames", [FRAMES + 200, 2000])
    def test_another_length_is_refused(self, system, duet, frames):
        with pytest.raises(F0Error, match=rf"f0s last .* s \({frames} frames .*expected {FRAMES} frames of 16 ms"):
            system.separate(duet, np.full((2, frames), 300.0))

    @pytest.mark.parametrize(
        "f0s",
        [
            np.where(DUET > 300, np.nan, DUET),
            np.where(DUET > 300, np.inf, DUET),
            -DUET,
            100 * DUET,
            DUET + 1j,
            DUET > 0,
            np.full((2, FRAMES), 1e-3),
            np.full((2, FRAMES), 1e300),
            DUET[None],
            DUET[:0],
            DUET[:, :0],
            np.ones((17, FRAMES)),
            "440",
            [[440.0, 441.0], [220.0]],
            [[None]],
            {"soprano": [440.0]},
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("error")
    def test_what_is_no_f0_is_refused(self, system, duet, f0s):
        with pytest.raises(F0Error, match="expected"):
            system.separate(duet, f0s)

    @pytest.mark.parametrize(
        ("voices", "names"),
        [
            (None, ["voice1", "voice2"]),
            ("SB", ["soprano", "bass"]),
            (2, ["voice1", "voice2"]),
            ("high, low", ["high", "low"]),
            (["a", "b"], ["a", "b"]),
            ("SS", ["soprano1", "soprano2"]),
        ],
    )
    def test_voices_name_the_rows_of_an_array(self, system, duet, voices, names):
        assert list(system.separate(duet, DUET, voices=voices).stems) == names

    def test_four_rows_are_a_quartet(self, system, duet):
        assert list(system.separate(duet, DUET[[0, 0, 1, 1]]).stems) == ["soprano", "alto", "tenor", "bass"]

    def test_one_row_is_a_solo(self, system, duet):
        np.testing.assert_allclose(system.separate(duet, DUET[0]).stems["voice1"], duet, atol=1e-6)

    @pytest.mark.parametrize("voices", ["S", "SAT", 3, ["a"]])
    def test_another_number_of_voices_is_refused(self, system, duet, voices):
        with pytest.raises(F0Error, match="2 voices"):
            system.separate(duet, DUET, voices=voices)
        with pytest.raises(F0Error, match=r"2 voices \(x, y\)"):
            system.separate(duet, F0Tracks(DUET, ("x", "y")), voices=voices)

    def test_voices_choose_and_order_tracks_by_name(self, system, duet):
        tracks = F0Tracks(np.concatenate([DUET, 0.5 * DUET[1:]]), ("soprano", "alto", "bass"))
        result = system.separate(duet, tracks, voices=["bass", "soprano"])
        assert list(result.stems) == ["bass", "soprano"]
        assert result.f0.frequencies[:, 0].tolist() == [110.0, 440.0]

    def test_voices_rename_tracks_in_their_order(self, system, duet):
        result = system.separate(duet, F0Tracks(DUET, ("x", "y")), voices="AT")
        assert result.f0.names == ("alto", "tenor")
        assert result.f0.frequencies[:, 0].tolist() == [440.0, 220.0]

    def test_confidence_comes_with_tracks_that_have_it(self, system, duet):
        confidence = np.full_like(DUET, 0.7)
        assert system.separate(duet, DUET).confidence is None
        found = system.separate(duet, F0Tracks(DUET, ("a", "b"), confidence=confidence)).confidence
        np.testing.assert_allclose(found, confidence)
        assert system.separate(duet).confidence.shape == (4, FRAMES)

    def test_progress_goes_through_the_stages_in_order(self, system, duet):
        calls: list[tuple[str, float]] = []
        system.separate(duet, progress=lambda *call: calls.append(call))
        assert list(dict.fromkeys(stage for stage, _ in calls)) == ["reading", "f0", "masks"]
        for stage in ("reading", "f0", "masks"):
            fractions = [fraction for name, fraction in calls if name == stage]
            assert fractions == sorted(fractions)
            assert fractions[-1] == 1.0


class TestBadInput:
    @pytest.mark.parametrize("waveform", [[], np.zeros((2, 0)), [np.nan, 0.0], np.zeros((2, 2, 9)), "choir.wav"])
    def test_bad_audio(self, system, waveform):
        with pytest.raises(AudioError):
            system.separate(waveform, DUET)

    @pytest.mark.parametrize("sample_rate", [0, -16000, 44100.5, "fast", None, 10**9])
    def test_bad_rates(self, system, duet, sample_rate):
        with pytest.raises(AudioError, match="sample_rate"):
            system.separate(duet, DUET, sample_rate=sample_rate)

    @pytest.mark.parametrize("voices", ["", "SXB", 0, 17, ["a/b", "c"], ["a", "a"]])
    def test_bad_voices(self, system, duet, voices):
        with pytest.raises(VoicesError):
            system.separate(duet, DUET, voices=voices)

    @pytest.mark.parametrize("model", ["no-such", "missing.safetensors", "crepe-tiny"])
    def test_bad_models(self, duet, model):
        with pytest.raises(WeightsError):
            separate(duet, DUET, model=model)

    @pytest.mark.parametrize("device", ["tpu", "", "CUDA", "gpu"])
    def test_unknown_devices(self, device):
        with pytest.raises(OptionError, match="expected auto, cpu, cuda, mps"):
            resolve_device(device)

    @pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
    def test_devices_that_are_not_there(self, device, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(OptionError, match="does not have"):
            resolve_device(device)
        assert resolve_device("auto") == resolve_device("cpu") == "cpu"

    def test_auto_takes_cuda(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert resolve_device("auto") == "cuda"

    def test_all_errors_have_one_base(self):
        assert all(issubclass(error, VocalsepError) for error in (AudioError, F0Error, OptionError, WeightsError))


class TestAboveTheModel:
    """Above 8 kHz nothing was estimated; masks go on with roll-off and noise."""

    GRID = StftGrid.of_duration(44100)

    def share(self, log_gain: float, f0: float, log_noise: float = -12.0) -> torch.Tensor:
        """Return the mask of a voice beside one of gain -2 at 220 Hz, shape (bins, frames)."""
        lsf = torch.arange(1, 21) * torch.pi / 21
        parameters = VoiceParameters(
            f0=torch.tensor([[f0], [220.0]]).expand(2, 40),
            log_gain=torch.tensor([[log_gain], [-2.0]]).expand(2, 40),
            lsf=lsf.expand(2, 40, 20),
            log_noise=torch.tensor([[log_noise], [-12.0]])[..., None].expand(2, 40, 16),
        )
        masks = soft_masks(voice_power(parameters, self.GRID))
        assert masks.isfinite().all()
        assert 0 <= masks.min() <= masks.max() <= 1
        return masks[0, self.GRID.frequencies() > 8200, 10:30]

    def test_equals_share_evenly(self):
        assert float(self.share(-2.0, 220.0).mean()) == pytest.approx(0.5, abs=1e-3)

    @pytest.mark.parametrize(("log_gain", "f0", "noise"), [(-6.0, 330.0, -16.0), (-2.0, 0.0, -16.0)])
    def test_the_quieter_and_the_unvoiced_get_less(self, log_gain, f0, noise):
        assert float(self.share(log_gain, f0, noise).mean()) < 0.2

    def test_the_louder_gets_more(self):
        assert float(self.share(2.0, 330.0, -10.0).mean()) > 0.7

    def test_energy_up_there_goes_to_who_sings(self, system, sing):
        """Two voices at 44.1 kHz take turns; each gets most of what sounds above 8 kHz while it alone sings."""
        f0 = np.zeros((2, 120), np.float32)
        f0[0, :60], f0[1, 60:] = 440.0, 196.0
        recording = sing(f0, 44100, log_noise=-16.0).sum(axis=0)
        result = system.separate(recording, f0, sample_rate=44100)
        high = {
            name: power(torch.from_numpy(stem), self.GRID)[self.GRID.frequencies() > 8200].sum(dim=0)
            for name, stem in result.stems.items()
        }
        first, second = high["voice1"], high["voice2"]
        assert float(first[10:50].sum() / second[10:50].sum()) > 1.5
        assert float(second[70:110].sum() / first[70:110].sum()) > 1.5


class TestFiles:
    @pytest.fixture
    def recordings(self, tmp_path, duet) -> list[Path]:
        paths = [tmp_path / "in" / name for name in ("one.wav", "two.flac")]
        for path in paths:
            audio.write(path, duet, 16000)
        return paths

    def test_a_file_is_its_array(self, recordings, tiny_model, system):
        waveform, rate = audio.read(recordings[0])
        expected = system.separate(waveform, DUET, sample_rate=rate)
        found = separate_file(recordings[0], DUET, model=tiny_model, device="cpu")
        for name, stem in expected.stems.items():
            np.testing.assert_array_equal(found.stems[name], stem)

    def test_stem_names(self):
        tracks = F0Tracks(DUET, ("x", "y"))
        assert stem_names(None, None, False) == ["soprano", "alto", "tenor", "bass"]
        assert stem_names(None, "SA", True) == ["soprano", "alto", "residual"]
        assert stem_names(tracks, None, True) == ["x", "y", "residual"]
        assert stem_names(tracks, 2, False) == ["voice1", "voice2"]


def test_the_package_offers_all_rungs():
    assert vocalsep.separate is separate
    assert vocalsep.separate_file is separate_file
    assert vocalsep.Separator is Separator
    assert all(getattr(vocalsep, name) is not None for name in vocalsep.__all__)
    with pytest.raises(AttributeError, match="no attribute 'divide'"):
        _ = vocalsep.divide
