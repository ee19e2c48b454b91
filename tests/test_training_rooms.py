"""Rooms for training: measured and simulated impulse responses, and voices in them."""

import numpy as np
import pytest
import torch

from vocalsep import audio
from vocalsep.errors import AudioError
from vocalsep.training.rooms import Rooms, aligned, in_room, measured_rooms, room_of, simulated_rooms

MEASURED = {
    "genesis_live_room": (0.2, 0.0),
    "jack_lyons_hall": (1.8, -10.0),
    "rymer_auditorium": (0.35, 0.0),
    "spokane_hall": (2.2, -6.5),
    "st_margarets_church": (1.3, -1.0),
}
"""T60 in s, and the direct-to-reverberant ratio in dB below 1 kHz or so."""


def decaying(time: float, ratio: float, seed: int = 0) -> np.ndarray:
    """A click, and 8 ms later noise that decays, in a room with this T60 and direct-to-reverberant ratio."""
    t = np.arange(3 * 16000) / 16000
    response = np.random.default_rng(seed).normal(size=len(t)) * 10 ** (-3 * t / time)
    response[: 8 * 16] = 0
    response *= 10 ** (-ratio / 20) / np.sqrt((response**2).sum())
    response[0] = 1.0
    return aligned(response.astype(np.float32))


class TestParameters:
    @pytest.mark.parametrize("ratio", [-8.0, 0.0, 10.0])
    @pytest.mark.parametrize("time", [0.25, 0.8, 2.0])
    def test_those_of_decaying_noise(self, time, ratio):
        room = room_of(np.stack([decaying(time, ratio, seed) for seed in range(4)]))
        assert float(room.reverberation_time) == pytest.approx(time, rel=0.1)
        assert float(room.ratio) == pytest.approx(ratio, abs=1.0)

    def test_high_frequencies_count_little(self):
        """As in a large room, where the air takes them: a voice hears what is left below them."""
        dark, bright = decaying(1.5, 0.0), decaying(0.3, 0.0, seed=1)
        spectra, frequency = np.fft.rfft([dark, bright]), np.fft.rfftfreq(len(dark), 1 / 16000)
        room = room_of(np.fft.irfft(np.where(frequency < 2000, *spectra)).astype(np.float32))
        assert float(room.reverberation_time) == pytest.approx(1.5, rel=0.15)

    def test_no_room(self):
        click = np.zeros(8000, np.float32)
        click[100] = 0.3
        room = room_of(aligned(click))
        assert (float(room.reverberation_time), float(room.ratio)) == (0.0, np.inf)

    @pytest.mark.parametrize("name", MEASURED)
    def test_those_of_measured_rooms(self, data, name, tmp_path):
        (tmp_path / f"{name}.flac").symlink_to(data / "rooms" / f"{name}.flac")
        room = room_of(*measured_rooms(tmp_path))
        time, ratio = MEASURED[name]
        assert float(room.reverberation_time) == pytest.approx(time, rel=0.25)
        assert float(room.ratio) == pytest.approx(ratio, abs=1.5)


class TestMeasuredRooms:
    def test_responses_are_resampled_cut_and_scaled(self, tmp_path):
        response = np.zeros((2, 48000))
        response[:, 12000:] = 0.02 * np.random.default_rng(0).normal(size=36000) * np.exp(-np.arange(36000) / 8000)
        response[:, 12000] = -0.9
        response[1] = 0.5  # of several channels, the first counts
        audio.write(tmp_path / "stereo.wav", response, 48000)
        (found,) = measured_rooms(tmp_path)
        assert (found.dtype, len(found)) == (np.float32, 1)
        assert found.shape[1] == pytest.approx(12000, abs=200)
        assert np.abs(found[0]).argmax() == 16
        assert (found[0, : 9 * 16] ** 2).sum() == pytest.approx(1)

    def test_folders_without_responses(self, tmp_path):
        with pytest.raises(AudioError):
            measured_rooms(tmp_path)


@pytest.fixture(scope="module")
def rooms() -> list[np.ndarray]:
    pytest.importorskip("pyroomacoustics")
    return simulated_rooms(6, np.random.default_rng(0))


@pytest.mark.slow
class TestSimulatedRooms:
    def test_seeds_reproduce_them(self, rooms):
        again = simulated_rooms(2, np.random.default_rng(0))
        assert all(np.array_equal(one, other) for one, other in zip(rooms, again, strict=False))
        assert not np.array_equal(rooms[0], rooms[1])

    def test_they_reach_from_small_to_large(self, rooms):
        found = [room_of(responses) for responses in rooms]
        times, ratios = (
            np.array([float(getattr(room, name)) for room in found]) for name in ("reverberation_time", "ratio")
        )
        assert 0.1 < times.min() < 0.7
        assert 1.2 < times.max() < 6
        assert np.ptp(ratios) > 8

    def test_high_frequencies_decay_faster(self, rooms):
        def time(responses: np.ndarray, low: float, high: float) -> float:
            n = 2 * responses.shape[1]
            frequency = np.fft.rfftfreq(n, 1 / 16000)
            band = np.where((frequency > low) & (frequency < high), np.fft.rfft(responses, n), 0)
            return float(room_of(np.fft.irfft(band, n)[:, : n // 2]).reverberation_time)

        assert all(time(responses, 4000, 8000) < 0.9 * time(responses, 100, 700) for responses in rooms)

    def test_singers_stand_at_different_places(self, rooms):
        for responses in rooms:
            assert (responses.shape[0], responses.dtype) == (4, np.float32)
            np.testing.assert_allclose((responses[:, : 9 * 16] ** 2).sum(axis=1), 1, rtol=1e-3)
            assert np.corrcoef(responses)[0, 1] < 0.9


class TestDraws:
    def test_the_parameters_are_those_of_the_responses(self):
        rooms = Rooms([decaying(1.0, 3.0)[None]])
        rng = np.random.default_rng(0)
        for _ in range(5):
            responses, room = rooms.draw(rng, [1, 3, 2])
            true = room_of(responses.numpy())
            assert responses.shape[0] == 6
            assert float(room.ratio) == pytest.approx(float(true.ratio), abs=0.1)
            assert float(room.reverberation_time) == pytest.approx(float(true.reverberation_time), rel=0.05)
            levels = (responses[:, 300:] ** 2).sum(dim=1).log10() * 10
            assert 0.1 < levels.max() - levels.min() < 4.1

    def test_voices_share_no_place_where_there_are_enough(self):
        places = np.stack([decaying(1.0, 0.0, seed) for seed in range(4)])
        responses, _ = Rooms([], [places]).draw(np.random.default_rng(0), [1, 1, 2, 1])
        alike = np.corrcoef(responses.numpy()[:, 300:]) > 0.99
        expected = np.eye(5, dtype=bool)
        expected[2, 3] = expected[3, 2] = True
        assert np.array_equal(alike, expected)

    def test_measured_and_simulated_rooms_are_drawn_equally_often(self):
        rooms = Rooms([decaying(0.5, 0.0)[None]], [decaying(1.5, 0.0)[None]] * 9)
        rng = np.random.default_rng(0)
        times = [float(rooms.draw(rng, [1])[1].reverberation_time) for _ in range(200)]
        assert 0.4 < np.mean(np.array(times) < 1) < 0.6


@pytest.mark.parametrize("length", [700, 5000])
def test_voices_in_a_room_are_convolved(length):
    rng = np.random.default_rng(0)
    waveforms, responses = rng.normal(size=(2, 3001)), rng.normal(size=(2, length))
    found = in_room(torch.from_numpy(waveforms), torch.from_numpy(responses))
    for row, waveform, response in zip(found, waveforms, responses, strict=True):
        np.testing.assert_allclose(row, np.convolve(waveform, response)[:3001], atol=1e-9)
