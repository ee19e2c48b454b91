import math

import numpy as np
import pytest
import torch

from vocalsep.audio.downmix import Downmix
from vocalsep.audio.recording import ArrayRecording
from vocalsep.dsp.stft import StftGrid, istft, squared_magnitude, stft
from vocalsep.model.room import RoomParameters, dried, estimate, reverberation
from vocalsep.separation import analysis, streaming
from vocalsep.separation.analysis import without_room

HALL = RoomParameters.of(1.8, 2.0)
GRID = StftGrid.of_duration()


def notes(voices: int, bins: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Power of notes of 0.1 to 0.8 s with rests between them, each on a few bins; shape (voices, bins, frames)."""
    rng = np.random.default_rng(seed)
    power = np.full((voices, bins, frames), 1e-9)
    for row in power:
        frame = 0
        while frame < frames:
            length = int(rng.integers(6, 50))
            row[rng.integers(0, bins, 40), frame : frame + length] = rng.uniform(0.1, 1.0, (40, 1))
            frame += length + int(rng.integers(0, 30))
    return torch.from_numpy(power).float()


class TestReverberation:
    def test_is_the_recursive_filter(self) -> None:
        power = notes(2, 5, 60)
        decay, level = (float(one) for one in HALL.coefficients())
        expected = torch.zeros(2, 5, 61)
        for frame in range(60):
            expected[..., frame + 1] = decay * expected[..., frame] + level * power[..., frame]
        torch.testing.assert_close(reverberation(power, HALL), expected, rtol=1e-4, atol=1e-7)

    def test_level_and_decay_have_the_units_of_the_parameters(self) -> None:
        click = torch.zeros(1, 1, 500)
        click[..., 0] = 1.0
        tail = reverberation(click, HALL)[0, 0, 1:]
        assert 10 * math.log10(1.0 / float(tail.sum())) == pytest.approx(2.0, abs=0.1)
        after = round(1.8 / 0.016)
        assert 10 * math.log10(float(tail[after] / tail[0])) == pytest.approx(-60, abs=1.0)

    def test_parts_one_after_the_other_give_the_whole(self) -> None:
        power = notes(3, 7, 90)
        first = reverberation(power[..., :33], HALL)
        second = reverberation(power[..., 33:], HALL, first[..., -1])
        torch.testing.assert_close(
            torch.cat([first[..., :-1], second], dim=-1), reverberation(power, HALL), rtol=1e-4, atol=1e-7
        )

    def test_steps_of_several_frames_keep_the_energy(self) -> None:
        power = torch.ones(1, 1, 300)
        for step in (1, 3):
            tail = reverberation(power[..., ::step], HALL, step=step)
            assert float(tail[..., -1]) == pytest.approx(10**-0.2, rel=0.05)

    def test_a_batch_has_a_room_for_each_recording(self) -> None:
        power = notes(4, 6, 40).reshape(2, 2, 6, 40)
        rooms = RoomParameters(torch.tensor([0.0, 1.8]), torch.tensor([math.inf, 2.0]))
        tails = reverberation(power, rooms)
        assert float(tails[0].abs().max()) == 0
        torch.testing.assert_close(tails[1], reverberation(power[1], HALL))

    def test_gradients_lead_to_the_room(self) -> None:
        time, ratio = torch.tensor(1.0, requires_grad=True), torch.tensor(6.0, requires_grad=True)
        sung = notes(1, 20, 300)
        target = reverberation(sung, HALL)
        optimizer = torch.optim.Adam([time, ratio], 0.05)
        for _ in range(300):
            optimizer.zero_grad()
            error = reverberation(sung, RoomParameters(time, ratio)) - target
            (error / target.mean()).square().mean().backward()
            optimizer.step()
        assert float(time.detach()) == pytest.approx(1.8, abs=0.05)
        assert float(ratio.detach()) == pytest.approx(2.0, abs=0.1)


class TestDried:
    def test_undoes_the_reverberation(self) -> None:
        sung = notes(1, 30, 200)[0] + 0.05
        heard = sung + reverberation(sung[None], RoomParameters.of(0.8, 6.0))[0, :, :-1]
        dry, _ = dried(heard, RoomParameters.of(0.8, 6.0))
        torch.testing.assert_close(dry, torch.maximum(sung, 0.1 * heard), rtol=1e-3, atol=1e-6)

    @pytest.mark.parametrize("samples", [50_000, 37 * 5 * 256 + 10, 1000])
    def test_chunks_of_a_recording_give_the_whole(self, monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
        time, rng = np.arange(samples), np.random.default_rng(0)
        waveform = (rng.normal(size=samples) * np.sin(time / 9000) ** 2).astype(np.float32)
        monkeypatch.setattr(analysis, "_CHUNK_FRAMES", 37)
        found = without_room(Downmix.of_array(waveform), HALL)
        spectrum = stft(torch.from_numpy(waveform), GRID)
        power = squared_magnitude(spectrum)
        whole = istft(spectrum * (dried(power, HALL)[0] / power).sqrt(), GRID, len(waveform))
        assert found.samples == len(waveform)
        np.testing.assert_allclose(found.read(0, len(waveform)), whole.numpy(), atol=1e-4)

    def test_without_a_room_the_recording_stays_as_it_is(self) -> None:
        downmix = Downmix.of_array(np.ones(1000, np.float32))
        assert without_room(downmix, RoomParameters.of()) is downmix


class TestEstimate:
    @pytest.mark.parametrize(("time", "ratio"), [(0.5, 3.0), (1.0, 8.0), (1.8, -3.0), (3.0, 0.0)])
    def test_finds_the_room(self, time: float, ratio: float) -> None:
        sung = notes(1, 600, 900)[0]
        heard = sung + reverberation(sung[None], RoomParameters.of(time, ratio))[0, :, :-1]
        found = estimate(1.3 * sung, heard + 0.001)
        assert float(found.reverberation_time) == pytest.approx(time, rel=0.2)
        assert float(found.ratio) == pytest.approx(ratio, abs=2.0)

    def test_finds_none_in_a_dry_recording_that_the_model_explains_badly(self) -> None:
        rng = np.random.default_rng(0)
        sung = notes(1, 600, 900)[0]
        blurred = torch.nn.functional.avg_pool1d(sung, 9, stride=1, padding=4)  # in both directions of time
        heard = blurred * torch.from_numpy(rng.exponential(size=sung.shape)).float() + 0.01
        assert estimate(sung, heard).is_dry

    def test_takes_a_known_reverberation_time(self) -> None:
        sung = notes(1, 600, 500)[0]
        heard = sung + reverberation(sung[None], HALL)[0, :, :-1]
        found = estimate(sung, heard, 1.5)
        assert float(found.reverberation_time) == 1.5
        assert -1 < float(found.ratio) < 5

    @pytest.mark.parametrize("frames", [1, 500])
    def test_finds_none_in_silence(self, frames: int) -> None:
        silence = torch.zeros(1025, frames)
        assert estimate(silence, silence).is_dry


def test_stems_of_chunks_are_those_of_the_whole(separator, sing, monkeypatch: pytest.MonkeyPatch) -> None:
    f0 = np.repeat([[440.0], [220.0]], 400, axis=1)
    f0[0, 100:180] = f0[1, 220:300] = 0
    waveform = sing(f0).sum(axis=0)
    found = separator.analyse(Downmix.of_array(waveform), f0, 2, room=2.0)
    recording = ArrayRecording(waveform[None], 16000)
    whole = np.concatenate(list(separator.stems(recording, found)), axis=-1)
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", 125)
    parts = np.concatenate(list(separator.stems(recording, found)), axis=-1)
    np.testing.assert_allclose(parts, whole, atol=2e-4 * np.abs(waveform).max())
    np.testing.assert_allclose(parts.sum(axis=0)[0], waveform, atol=1e-5)
