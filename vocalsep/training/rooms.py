"""Rooms to put singers into: measured impulse responses, and simulated rooms.

A response starts 1 ms before the direct sound and is scaled so that the sound up to 8 ms after it has energy 1. So a
room adds reverberation to a voice and hardly changes the level of its direct sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from vocalsep import audio
from vocalsep.audio import Float32
from vocalsep.audio.downmix import to_model_rate
from vocalsep.errors import MissingExtraError
from vocalsep.model.room import RoomParameters
from vocalsep.separation.folders import audio_files
from vocalsep.timebase import MODEL_SAMPLE_RATE

_LONGEST = 4 * MODEL_SAMPLE_RATE  # samples of a response: an excerpt is no longer
_RISE = MODEL_SAMPLE_RATE // 1000  # samples that are kept before the peak of the direct sound
_DIRECT = MODEL_SAMPLE_RATE * 8 // 1000  # samples after the peak that count as direct sound
_VOICE_BAND = (100.0, 500.0)  # Hz: edges of the mean spectrum of voices
_SILENCE = 1e-4  # energy of all later sound, relative to the direct sound, that is no room (-40 dB)
_DECAY_DB = (-5.0, -25.0)  # part of the decay from which T60 is measured

_PLACE_DB, _ROOM_DB = 2.0, 2.0  # changes of the direct-to-reverberant ratio, per singer and for all

_TIMES = (0.2, 4.0)  # s: T60 of simulated rooms
_LENGTHS = (3.5, 45.0)  # m, from a living room to a church
_ABSORPTION = (0.06, 0.6)  # mean of the surfaces: from bare walls to curtains and carpets
_OCTAVES = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
_DISTANCES = (1.0, 15.0)  # m, from the microphone to the middle of the ensemble
_PLACES = 4  # of singers in a simulated room
_MARGIN = 0.5  # m, from the walls
_RAYS = 2000


class Rooms:
    """Rooms to draw from: a measured or a simulated one, in half of the cases each if there are both.

    Parameters
    ----------
    measured, simulated : sequence of ndarray, shape (places, samples)
        Impulse responses of rooms, from one or several places of singers.
    """

    def __init__(self, measured: Sequence[Float32], simulated: Sequence[Float32] = ()) -> None:
        kinds = [[(responses, room_of(responses)) for responses in kind] for kind in (measured, simulated)]
        self.kinds = [kind for kind in kinds if kind]

    def draw(self, rng: Generator, sections: Sequence[int]) -> tuple[Tensor, RoomParameters]:
        """Return the responses of all singers in a random room, shape (singers, samples), and its parameters.

        `sections` are the numbers of singers of the voices. The singers of a voice share a place. Their
        direct-to-reverberant ratios differ by a few dB, because some stand nearer or face the microphone.
        """
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        places, room = kind[int(rng.integers(len(kind)))]
        order = np.resize(rng.permutation(len(places)), len(sections))
        responses = places[np.repeat(order, sections)]
        change_db = rng.uniform(-_ROOM_DB, _ROOM_DB) + rng.uniform(-_PLACE_DB, _PLACE_DB, (len(responses), 1))
        responses[:, _RISE + _DIRECT :] *= 10 ** (change_db / 20)
        change = float((10 ** (change_db / 10)).mean())
        return torch.from_numpy(responses), RoomParameters(
            room.reverberation_time, room.ratio - 10 * math.log10(change)
        )


def measured_rooms(folder: Path) -> list[Float32]:
    """Read the impulse responses in a folder of audio files, each of shape (1, samples); of several channels the first.

    Raise AudioError if there are none.
    """
    recordings = [audio.read(path) for path in audio_files(folder).values()]
    return [aligned(to_model_rate(waveform[:1], sample_rate))[None] for waveform, sample_rate in recordings]


def simulated_rooms(number: int, rng: Generator) -> list[Float32]:
    """Simulate shoebox rooms of random size, absorption and places, each of shape (places, samples).

    Image sources give the early reflections and ray tracing the late ones. Surfaces absorb more of the high
    frequencies, as they do in most rooms. Raise MissingExtraError if pyroomacoustics is not installed.
    """
    if not number:
        return []
    try:
        import pyroomacoustics
    except ImportError as error:
        raise MissingExtraError("pyroomacoustics is not installed; pip install 'vocalsep[train]' brings it") from error
    pyroomacoustics.random.seed(int(rng.integers(2**31)))
    return [_simulated(pyroomacoustics, rng) for _ in range(number)]


def _simulated(pyroomacoustics: Any, rng: Generator) -> Float32:
    size, absorption = _shoebox(rng)
    microphone, singers = _places(size, rng)
    slope = rng.uniform(0, 0.4)  # growth of the absorption per octave
    coefficients = np.clip(absorption * (np.array(_OCTAVES) / 1000) ** slope, 0.01, 0.95)
    walls = {"coeffs": coefficients.tolist(), "center_freqs": list(_OCTAVES)}
    room = pyroomacoustics.ShoeBox(
        size,
        fs=MODEL_SAMPLE_RATE,
        materials=pyroomacoustics.Material(walls, float(rng.uniform(0.1, 0.6))),
        max_order=5,
        air_absorption=True,
    )
    room.set_ray_tracing(n_rays=_RAYS, energy_thres=1e-6, time_thres=_LONGEST / MODEL_SAMPLE_RATE)
    for place in singers:
        room.add_source(place)
    room.add_microphone(microphone)
    room.compute_rir()
    responses = [aligned(np.asarray(response, np.float32)) for response in room.rir[0]]
    longest = max(map(len, responses))
    return np.stack([np.pad(response, (0, longest - len(response))) for response in responses])


def _shoebox(rng: Generator) -> tuple[NDArray[np.floating], float]:
    """Return the size in m and the mean absorption of a random room, by Eyring's formula for its T60."""
    while True:
        time, length = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in (_TIMES, _LENGTHS))
        width, height = length * rng.uniform(0.5, 1.0), float(np.clip(length * rng.uniform(0.3, 0.6), 2.4, 18.0))
        surface = 2 * (length * width + (length + width) * height)
        absorption = 1 - math.exp(-0.161 * length * width * height / (surface * time))
        if _ABSORPTION[0] <= absorption <= _ABSORPTION[1]:
            return np.array([length, width, height]), absorption


def _places(size: NDArray[np.floating], rng: Generator) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the places in m of the microphone, shape (3,), and of singers who stand together, shape (places, 3)."""
    low, high = np.full(3, _MARGIN), size - _MARGIN
    while True:
        microphone = rng.uniform(low, np.minimum(high, [np.inf, np.inf, 3.0]))
        distance = math.exp(rng.uniform(*np.log(_DISTANCES)))
        angle = rng.uniform(0, 2 * math.pi)
        middle = microphone[:2] + distance * np.array([math.cos(angle), math.sin(angle)])
        if (middle > low[:2]).all() and (middle < high[:2]).all():
            around = min(2.0, distance / 2)  # m
            floor = np.clip(middle + rng.uniform(-around, around, (_PLACES, 2)), low[:2], high[:2])
            return microphone, np.column_stack([floor, rng.uniform(1.2, 1.8, _PLACES)])


def aligned(response: Float32) -> Float32:
    """Return a response of shape (samples,) from 1 ms before its peak on, at most 4 s, scaled as the module says."""
    peak = int(np.abs(response).argmax())
    padded = np.pad(response, (_RISE, _DIRECT))
    cut = padded[peak : peak + _LONGEST]
    return cut / math.sqrt(float((cut[: _RISE + _DIRECT] ** 2).sum()) + 1e-20)


def room_of(responses: Float32) -> RoomParameters:
    """Return T60 and the direct-to-reverberant ratio of a room from its impulse responses, shape (..., samples).

    The ratio is the energy up to 8 ms after the direct sound over that of all later sound. T60 comes from the later
    sound: it is three times as long as the energy that is still to come takes to fall from -5 to -25 dB (Schroeder).
    Several responses are taken together, by their mean energy. They are responses of this module, see `aligned`.

    Energies are those of a voice: high frequencies, which die away fast and are weak in voices, count little.

    References
    ----------
    M. R. Schroeder, "New method of measuring reverberation time", J. Acoust. Soc. Am. 37, 1965.
    """
    energy = (_voiced(responses) ** 2).reshape(-1, responses.shape[-1]).mean(axis=0)
    direct, late = energy[: _RISE + _DIRECT].sum(), energy[_RISE + _DIRECT :]
    remaining = late[::-1].cumsum()[::-1]
    if remaining[0] <= _SILENCE * direct:
        return RoomParameters.of()
    first, last = (int((remaining > 10 ** (level / 10) * remaining[0]).sum()) for level in _DECAY_DB)
    return RoomParameters.of(3 * (last - first) / MODEL_SAMPLE_RATE, 10 * math.log10(direct / remaining[0]))


def _voiced(responses: Float32) -> NDArray[np.float64]:
    """Return responses filtered to the mean spectrum of voices: 6 dB per octave down from both of its edges."""
    n = 2 * responses.shape[-1]
    low, high = (1j * np.fft.rfftfreq(n, 1 / MODEL_SAMPLE_RATE) / edge for edge in _VOICE_BAND)
    filtered: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(responses, n) * low / (1 + low) / (1 + high), n)
    return filtered[..., : responses.shape[-1]]


def in_room(waveforms: Tensor, responses: Tensor) -> Tensor:
    """Return waveforms in a room, each convolved with its response; both have shape (..., samples)."""
    samples = waveforms.shape[-1]
    responses = responses[..., :samples]
    n_fft = samples + responses.shape[-1]
    n_fft += -n_fft % 1000  # a length with small factors, which transforms fast
    spectrum = torch.fft.rfft(waveforms, n=n_fft) * torch.fft.rfft(responses, n=n_fft)
    wet: Tensor = torch.fft.irfft(spectrum, n=n_fft)
    return wet[..., :samples]
