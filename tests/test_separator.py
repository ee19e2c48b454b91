"""Separation end to end: stems add up, at any rate and shape, with f0 in all its forms."""

import numpy as np
import pytest
import torch

import vocalsep
from vocalsep.audio import resample
from vocalsep.audio.downmix import Downmix
from vocalsep.audio.recording import ArrayRecording
from vocalsep.device import resolve_device
from vocalsep.dsp.stft import StftGrid, instantaneous_frequency, power
from vocalsep.errors import AudioError, F0Error, OptionError, VocalsepError, VoicesError, WeightsError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.masks import cut, soft_masks
from vocalsep.model.synthesizer import VoiceParameters, voice_power
from vocalsep.separation.result import Separation
from vocalsep.separation.separator import Separator

FRAMES = 64
LONG = 420_800  # samples: more than two chunks
DUET = np.array([[440.0], [220.0]], dtype=np.float32) * np.ones(FRAMES, dtype=np.float32)


@pytest.fixture(scope="module")
def duet(sing) -> np.ndarray:
    """Two voices of 1 s at 16 kHz with a peak of 0.9, shape (samples,)."""
    mixture = sing(DUET).sum(axis=0)
    return 0.9 * mixture / np.abs(mixture).max()


def total(result: Separation) -> np.ndarray:
    return np.sum(list(result.stems.values()), axis=0)


def decibels(difference: np.ndarray, whole: np.ndarray) -> float:
    return float(10 * np.log10(max(np.square(difference).sum(), 1e-30) / np.square(whole).sum()))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("sample_rate", "channels"), [(4000, 1), (11025, 2), (16000, 1), (44100, 2), (96000, 1)])
def test_stems_add_up_to_the_recording(tiny_separator, duet, sample_rate, channels, residual):
    moved = resample(duet, 16000, sample_rate)[0]
    hiss = 0.01 * np.random.default_rng(0).normal(size=(channels, len(moved)))
    recording = (moved * np.linspace(1, -0.5, channels)[:, None] + hiss).astype(np.float32)
    result = tiny_separator.separate(recording, DUET, sample_rate=sample_rate, residual=residual)
    assert list(result.stems) == ["voice1", "voice2", *["residual"] * residual]
    assert all(stem.shape == recording.shape and stem.dtype == np.float32 for stem in result.stems.values())
    assert np.abs(total(result) - recording).max() <= 1e-5 * np.abs(recording).max()
    assert result.sample_rate == sample_rate


@pytest.mark.parametrize("shape", [(16000,), (1, 16000), (3, 16000)])
def test_stems_have_the_shape_of_the_recording(tiny_separator, duet, shape):
    result = tiny_separator.separate(np.broadcast_to(duet[:16000], shape), DUET)
    assert {stem.shape for stem in result.stems.values()} == {shape}


def test_arguments_are_not_changed(tiny_separator, duet):
    recording, f0s = duet.copy(), DUET.copy()
    tiny_separator.separate(recording, f0s)
    np.testing.assert_array_equal(recording, duet)
    np.testing.assert_array_equal(f0s, DUET)


def test_integers_are_scaled(tiny_separator, duet):
    integers = np.round(duet * 32767).astype(np.int16)
    assert np.abs(total(tiny_separator.separate(integers, DUET)) - integers / 32768).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 900])
@pytest.mark.parametrize("sample_rate", [8000, 44100])
@pytest.mark.parametrize("f0s", [[[300.0], [0.0]], None])
def test_shortest_recordings(tiny_separator, f0s, sample_rate, samples):
    recording = np.linspace(-0.3, 0.4, samples).astype(np.float32)
    result = tiny_separator.separate(recording, f0s, sample_rate=sample_rate)
    assert np.abs(total(result) - recording).max() < 1e-5


@pytest.mark.parametrize("f0s", [DUET, np.zeros_like(DUET), None])
@pytest.mark.parametrize("residual", [False, True])
def test_silence_stays_silent(tiny_separator, f0s, residual):
    result = tiny_separator.separate(np.zeros((2, 44100), np.float32), f0s, sample_rate=44100, residual=residual)
    assert all((stem == 0).all() for stem in result.stems.values())


@pytest.mark.parametrize("peak", [1e-45, 1e-30, 1e-9, 100.0, 1e6])
def test_recordings_of_any_level(tiny_separator, duet, peak):
    recording = (duet / 0.9 * peak).astype(np.float32)
    result = tiny_separator.separate(recording, DUET)
    assert np.abs(total(result) - recording).max() <= 1e-5 * peak + 1e-38  # smaller numbers lose digits


def test_level_does_not_change_the_separation(tiny_separator, duet):
    loud, quiet = tiny_separator.separate(duet, DUET), tiny_separator.separate(np.float32(2**-8) * duet, DUET)
    for name, stem in loud.stems.items():
        assert np.abs(stem - 2**8 * quiet.stems[name]).max() < 1e-4


def test_channels_that_cancel_are_still_separated(tiny_separator, duet):
    result = tiny_separator.separate(np.stack([duet, -duet]), DUET)
    assert np.abs(total(result)[1] + duet).max() < 1e-5


def test_all_channels_have_the_same_masks(tiny_separator, duet):
    result = tiny_separator.separate(np.stack([0.8 * duet, 0.2 * duet]), DUET)
    for stem in result.stems.values():
        np.testing.assert_allclose(stem[1], 0.25 * stem[0], atol=1e-6)


@pytest.fixture(scope="module")
def long_f0() -> np.ndarray:
    """Two voices with vibrato and rests, one of which lasts over the border of two chunks."""
    time = np.arange(1 + LONG // 256) * 0.016
    f0 = np.array([[420.0], [230.0]]) * 2 ** (0.5 * np.sin(2 * np.pi * np.array([[5.0], [0.3]]) * time) / 12)
    f0[0, 735:765] = 0
    f0[1, 120:130] = 0
    return f0.astype(np.float32)


@pytest.fixture(scope="module")
def long_duet(sing, long_f0) -> np.ndarray:
    return np.float32(0.3) * sing(long_f0).sum(axis=0)[:LONG]


class TestChunks:
    """Recordings of several chunks."""

    @pytest.mark.parametrize("fitting", [True, False])
    def test_chunks_give_the_same_stems_as_the_whole(self, tiny_model, tiny_tracker, long_duet, long_f0, fitting):
        system = Separator(tiny_model, "cpu", tracker=tiny_tracker, fitting=fitting)
        found = np.stack(list(system.separate(long_duet, long_f0, room="none").stems.values()))
        grid, waveform = StftGrid.of_duration(), torch.from_numpy(long_duet)
        with Downmix.of_array(long_duet) as downmix, torch.inference_mode():
            parameters = system.parameters(downmix, F0Tracks(long_f0, ("high", "low")))
            frequency = instantaneous_frequency(waveform, grid) if fitting else None
            powers = voice_power(parameters, grid, instantaneous_frequency=frequency)
            whole = cut(waveform, grid, 2, lambda first, last: powers[..., first:last]).numpy()
        assert decibels(found - whole, whole) < -90
        assert decibels(found.sum(axis=0) - long_duet, long_duet) < -110

    def test_at_another_rate_stems_add_up_across_chunks(self, tiny_separator, long_duet, long_f0):
        moved = resample(long_duet, 16000, 22050)
        result = tiny_separator.separate(moved, long_f0, sample_rate=22050, residual=True)
        assert decibels(total(result) - moved, moved) < -110

    @pytest.mark.parametrize("samples", [150_000, 420_801, 700_000])
    def test_a_recording_that_changes_is_refused(self, tiny_separator, long_duet, long_f0, samples):
        other = ArrayRecording(np.resize(long_duet, (1, samples)), 16000)
        with Downmix.of_array(long_duet) as downmix, pytest.raises(AudioError):
            list(tiny_separator.stems(other, tiny_separator.analyse(downmix, long_f0, 2, room="none")))


class TestResidual:
    def test_it_holds_the_passages_without_voices(self, tiny_separator, duet):
        f0s = DUET.copy()
        f0s[:, 20:] = 0
        result = tiny_separator.separate(duet, f0s, residual=True)
        # The voices keep 160 ms after the last note; windows reach 64 ms further.
        middle, end = 20 * 256, 40 * 256
        assert np.abs(result.stems["residual"][: middle - 1024]).max() < 1e-6
        np.testing.assert_allclose(result.stems["residual"][end:], duet[end:], atol=1e-6)

    def test_without_it_the_voices_share(self, tiny_separator, duet):
        result = tiny_separator.separate(duet, np.zeros_like(DUET))
        assert list(result.stems) == ["voice1", "voice2"]
        assert np.abs(total(result) - duet).max() < 1e-5

    @pytest.mark.parametrize("name", ["residual", "Residual"])
    def test_no_voice_may_have_its_name(self, tiny_separator, duet, name):
        with pytest.raises(VoicesError):
            tiny_separator.separate(duet, DUET, voices=["soprano", name], residual=True)
        assert name in tiny_separator.separate(duet, DUET, voices=["soprano", name]).stems


class TestF0s:
    def test_tracks_and_arrays_are_alike(self, tiny_separator, duet):
        array = tiny_separator.separate(duet, DUET, voices="SA")
        tracks = tiny_separator.separate(duet, F0Tracks(DUET, ("soprano", "alto")))
        for name in ("soprano", "alto"):
            np.testing.assert_array_equal(array.stems[name], tracks.stems[name])
        np.testing.assert_array_equal(array.f0.frequencies, DUET)

    @pytest.mark.parametrize("hop", [0.008, 0.01, 0.032])
    def test_other_hops_are_brought_to_the_grid(self, tiny_separator, duet, hop):
        frames = round(63 * 0.016 / hop) + 1
        tracks = F0Tracks(np.float32([[440], [220]]) * np.ones(frames, np.float32), ("a", "b"), hop)
        result = tiny_separator.separate(duet, tracks)
        assert result.f0.hop == 0.016
        assert result.f0.n_frames == 1 + len(duet) // 256
        expected = tiny_separator.separate(duet, DUET, voices=["a", "b"])
        assert np.abs(result.stems["a"] - expected.stems["a"]).max() < 1e-5

    @pytest.mark.parametrize("frames", [FRAMES - 15, FRAMES + 15])
    def test_a_quarter_of_a_second_more_or_less_is_accepted(self, tiny_separator, duet, frames):
        result = tiny_separator.separate(duet, np.float32([[440], [220]]) * np.ones(frames, np.float32))
        assert result.f0.n_frames == FRAMES
        assert result.f0.voiced.sum() == 2 * min(frames, FRAMES)

    def test_tracks_may_end_before_the_recording(self, tiny_separator, duet):
        """Files leave out a rest at the end; a bare array must be as long as the recording."""
        half = np.float32([[440], [220]]) * np.ones(FRAMES // 2, np.float32)
        result = tiny_separator.separate(duet, F0Tracks(half, ("high", "low")))
        assert result.f0.voiced.sum() == FRAMES
        for f0s in (half, F0Tracks(half[:, :10], ("high", "low"))):
            with pytest.raises(F0Error):
                tiny_separator.separate(duet, f0s)

    @pytest.mark.parametrize(
        "f0s",
        [
            *(np.where(DUET > 300, np.inf, DUET), -DUET, 100 * DUET, np.full((2, FRAMES), 1e-3)),
            *(DUET[None], DUET[:0], DUET[:, :0], np.ones((17, FRAMES)), np.full((2, FRAMES + 200), 300.0)),
            *("choir.csv", [[440.0, 441.0], [220.0]], {"soprano": [440.0]}),
            torch.from_numpy(DUET).requires_grad_(),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("error")
    def test_bad_f0s_are_refused(self, tiny_separator, duet, f0s):
        with pytest.raises(F0Error):
            tiny_separator.separate(duet, f0s)

    @pytest.mark.parametrize(
        ("voices", "names"), [(None, "voice1 voice2"), ("high, low", "high low"), ("SS", "soprano1 soprano2")]
    )
    def test_voices_name_the_rows_of_an_array(self, tiny_separator, duet, voices, names):
        assert " ".join(tiny_separator.separate(duet, DUET, voices=voices).stems) == names

    def test_four_rows_are_a_quartet_and_one_is_a_solo(self, tiny_separator, duet):
        quartet = tiny_separator.separate(duet, DUET[[0, 0, 1, 1]])
        assert list(quartet.stems) == ["soprano", "alto", "tenor", "bass"]
        np.testing.assert_allclose(tiny_separator.separate(duet, DUET[0]).stems["voice1"], duet, atol=1e-6)

    @pytest.mark.parametrize("voices", ["S", "SAT", 3, ["a"]])
    def test_another_number_of_voices_is_refused(self, tiny_separator, duet, voices):
        for f0s in (DUET, F0Tracks(DUET, ("x", "y"))):
            with pytest.raises(F0Error):
                tiny_separator.separate(duet, f0s, voices=voices)

    def test_voices_choose_and_order_tracks_by_name(self, tiny_separator, duet):
        tracks = F0Tracks(np.concatenate([DUET, 0.5 * DUET[1:]]), ("soprano", "alto", "bass"))
        result = tiny_separator.separate(duet, tracks, voices=["bass", "soprano"])
        assert list(result.stems) == ["bass", "soprano"]
        assert result.f0.frequencies[:, 0].tolist() == [110.0, 440.0]

    def test_voices_rename_tracks_in_their_order(self, tiny_separator, duet):
        result = tiny_separator.separate(duet, F0Tracks(DUET, ("x", "y")), voices="AT")
        assert result.f0.names == ("alto", "tenor")
        assert result.f0.frequencies[:, 0].tolist() == [440.0, 220.0]

    def test_confidence_comes_with_tracks_that_have_it(self, tiny_separator, duet):
        confidence = np.full_like(DUET, 0.7)
        assert tiny_separator.separate(duet, DUET).confidence is None
        found = tiny_separator.separate(duet, F0Tracks(DUET, ("a", "b"), confidence=confidence)).confidence
        np.testing.assert_allclose(found, confidence)
        assert tiny_separator.separate(duet).confidence.shape == (4, FRAMES)


@pytest.mark.parametrize("samples", [16_000, 192_000])  # the latter are whole chunks
def test_progress_goes_through_the_stages_in_order(tiny_separator, duet, samples):
    calls: list[tuple[str, float]] = []
    tiny_separator.separate(np.resize(duet, samples), progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(stage for stage, _ in calls)) == ["reading", "f0", "masks"]
    for stage in ("reading", "f0", "masks"):
        fractions = [fraction for name, fraction in calls if name == stage]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


class TestBadInput:
    @pytest.mark.parametrize("waveform", [[], np.zeros((2, 0)), [np.nan, 0.0], np.zeros((2, 2, 9)), "choir.wav"])
    def test_audio(self, tiny_separator, waveform):
        with pytest.raises(AudioError):
            tiny_separator.separate(waveform, DUET)

    @pytest.mark.parametrize("sample_rate", [0, -16000, 44100.5, "fast", None, 10**9])
    def test_rates(self, tiny_separator, duet, sample_rate):
        with pytest.raises(AudioError):
            tiny_separator.separate(duet, DUET, sample_rate=sample_rate)

    @pytest.mark.parametrize("voices", ["", "SXB", 0, 17, ["a/b", "c"], ["a", "a"]])
    def test_voices(self, tiny_separator, duet, voices):
        with pytest.raises(VoicesError):
            tiny_separator.separate(duet, DUET, voices=voices)

    @pytest.mark.parametrize("model", ["no-such", "./missing", "crepe-tiny"])
    def test_models(self, duet, model):
        with pytest.raises(WeightsError):
            vocalsep.separate(duet, DUET, model=model)

    @pytest.mark.parametrize("device", ["tpu", "", "CUDA", "gpu", "cuda", "cuda:0", "mps"])
    def test_devices(self, device, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(OptionError):
            resolve_device(device)
        assert resolve_device("auto") == resolve_device("cpu") == "cpu"

    def test_all_errors_have_one_base(self):
        assert all(issubclass(error, VocalsepError) for error in (AudioError, F0Error, OptionError, WeightsError))


class TestAboveTheModel:
    """The estimator sees up to 8 kHz; above, the masks continue with the glottal roll-off and the noise."""

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

    def test_equal_voices_share_equally(self):
        assert float(self.share(-2.0, 220.0).mean()) == pytest.approx(0.5, abs=1e-3)

    @pytest.mark.parametrize(("log_gain", "f0", "noise"), [(-6.0, 330.0, -16.0), (-2.0, 0.0, -16.0)])
    def test_quiet_and_unvoiced_voices_get_less(self, log_gain, f0, noise):
        assert float(self.share(log_gain, f0, noise).mean()) < 0.2

    def test_loud_voices_get_more(self):
        assert float(self.share(2.0, 330.0, -10.0).mean()) > 0.7

    def test_energy_goes_to_the_voice_that_sings(self, tiny_separator, sing):
        """Two voices at 44.1 kHz take turns; each gets most of the energy above 8 kHz while it sings alone."""
        f0 = np.zeros((2, 120), np.float32)
        f0[0, :60], f0[1, 60:] = 440.0, 196.0
        recording = sing(f0, 44100, log_noise=-16.0).sum(axis=0)
        result = tiny_separator.separate(recording, f0, sample_rate=44100, room="none")
        first, second = (
            power(torch.from_numpy(stem), self.GRID)[self.GRID.frequencies() > 8200].sum(dim=0)
            for stem in result.stems.values()
        )
        assert float(first[10:50].sum() / second[10:50].sum()) > 1.5
        assert float(second[70:110].sum() / first[70:110].sum()) > 1.5


def test_the_package_offers_all_public_names():
    assert vocalsep.Separator is Separator
    assert all(getattr(vocalsep, name) is not None for name in vocalsep.__all__)
    with pytest.raises(AttributeError):
        _ = vocalsep.divide
