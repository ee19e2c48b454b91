"""Training excerpts: of recordings of choirs as they are, or of random mixtures of single singers.

A source draws batches of mixtures with the f0 of their voices, and with their stems if it knows them. The unsupervised
loss needs mixtures only; stems serve supervised training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from vocalsep.audio import Float32
from vocalsep.model.room import RoomParameters
from vocalsep.timebase import HOP
from vocalsep.training import augment
from vocalsep.training.f0_errors import with_errors
from vocalsep.training.rooms import Rooms, in_room
from vocalsep.training.sections import SIZES, section
from vocalsep.training.takes import Piece, Take, all_takes, choose, random_start, too_short, transposed_pieces

EXCERPT_FRAMES = 250
"""Frames of a training excerpt: 4 s."""
SHIFTS = (-3, -2, -1, 0, 1, 2, 3)
"""Semitones by which singers are transposed."""
_MAX_TRIES = 50  # draws before an excerpt with fewer voiced frames is accepted
_MIN_VOICED = 0.2  # fraction of frames in which a voice sings in a useful excerpt
_IN_ROOM = 0.5  # fraction of the ensembles that sing in a room, if there are rooms
_SECTIONS = {0.0: 0.5, 0.3: 0.3, 1.0: 0.2}  # share of sections among the voices of an ensemble -> its probability
_TIME_ERROR, _RATIO_ERROR = 0.3, 3.0  # largest relative error of T60, and error of the ratio in dB


class Batch(NamedTuple):
    """Excerpts of one length and number of voices."""

    mixture: Tensor
    """Shape (batch, samples) at 16 kHz."""
    f0: Tensor
    """F0 in Hz, shape (batch, voices, frames), 0 = unvoiced."""
    stems: Tensor | None = None
    """Shape (batch, voices, samples), with the room of the mixture but not its noise; None if unknown."""
    voices: Tensor | None = None
    """Descriptions of the voices for the tracker, shape (batch, voices, 5); see `vocalsep.f0.network.describe`."""
    room: RoomParameters | None = None
    """The rooms of the mixtures as they are estimated, shape (batch,); None if all are dry, or unknown."""


class Source(Protocol):
    """A source of batches."""

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts."""


class MixtureSource:
    """Excerpts of recordings of choirs; takes shorter than an excerpt are left out, AudioError if no take is left."""

    def __init__(self, takes: Sequence[Take], frames: int = EXCERPT_FRAMES) -> None:
        self.takes = [take for take in takes if take.n_frames >= frames]
        self.frames = frames
        if not self.takes:
            raise too_short(frames)

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts of recordings with one number of voices."""
        voices = len(self.takes[choose(rng, [take.n_frames for take in self.takes])].f0)
        alike = [take for take in self.takes if len(take.f0) == voices]
        lengths = [take.n_frames for take in alike]
        chosen = [alike[choose(rng, lengths)] for _ in range(size)]
        waveforms, f0s = zip(*(self._excerpt(take, rng) for take in chosen), strict=True)
        mixture = torch.from_numpy(np.stack(waveforms)) * random_gain(rng, (size, 1))
        rooms = _together([take.room for take in chosen])
        return Batch(_gain_to_level(mixture) * mixture, torch.from_numpy(np.stack(f0s)), room=rooms)

    def _excerpt(self, take: Take, rng: Generator) -> tuple[Float32, Float32]:
        for _ in range(_MAX_TRIES):
            samples, f0 = take.excerpt(random_start(take, self.frames, rng), self.frames)
            if _is_sung(f0):
                break
        return samples, f0


class SingerSource:
    """Random ensembles of single singers.

    Half of the ensembles sing together (the same bars of one piece, as recorded), which gives the chords and shared
    harmonics of real music. The other half is put together at random.

    Parameters
    ----------
    pieces : sequence of Piece
        Recordings of single singers. Takes shorter than an excerpt are left out; AudioError if no take is left.
    voices : tuple of int
        Smallest and largest number of voices.
    frames : int
        Length of an excerpt.
    augmented : bool
        Transpose, equalise, move formants, vary levels, turn voices into sections and add noise.
    f0_errors : float
        Fraction of the excerpts whose f0 gets the errors of a tracker; see `vocalsep.training.f0_errors`.
    rooms : Rooms, optional
        Rooms for half of the ensembles; the others are dry.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        voices: tuple[int, int] = (2, 6),
        frames: int = EXCERPT_FRAMES,
        *,
        augmented: bool = True,
        f0_errors: float = 0.0,
        rooms: Rooms | None = None,
    ) -> None:
        self.frames = frames
        self.augmented = augmented
        self.f0_errors = f0_errors
        self.rooms = rooms
        self.sizes = np.arange(voices[0], voices[1] + 1)
        weights = np.where(self.sizes == 4, 2.0, 1.0)  # most choirs sing in four parts
        self.size_probabilities = weights / weights.sum()
        shifts = SHIFTS if augmented else (0,)
        self.banks = [transposed_pieces(pieces, semitones, frames) for semitones in shifts]
        if not all(self.banks):
            raise too_short(frames)

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random ensembles with one number of voices."""
        n_voices = int(rng.choice(self.sizes, p=self.size_probabilities))
        wet, f0s, rooms = zip(*(self._ensemble(rng, n_voices) for _ in range(size)), strict=True)
        stems = torch.stack(wet)  # (batch, voices, samples)
        f0 = torch.from_numpy(np.stack([self._tracked(f0, rng) for f0 in f0s]))
        mixture = stems.sum(dim=1)
        if self.augmented and rng.random() < 0.3:
            mixture = augment.add_noise(mixture, rng)
        gain = _gain_to_level(mixture)
        return Batch(gain * mixture, f0, gain[:, None] * stems, room=_together(rooms))

    def _tracked(self, f0: Float32, rng: Generator) -> Float32:
        return with_errors(f0, rng) if self.f0_errors and rng.random() < self.f0_errors else f0

    def _ensemble(self, rng: Generator, n_voices: int) -> tuple[Tensor, Float32, RoomParameters | None]:
        """Return the stems of an ensemble, shape (voices, samples), their f0, and the room as it is estimated."""
        sections, f0 = self._sections(rng, n_voices)
        sizes = [len(singers) for singers in sections]
        voice = torch.from_numpy(np.repeat(np.arange(n_voices), sizes))
        singers = torch.from_numpy(np.concatenate(sections))
        if self.augmented:
            singers = _augmented(singers, rng) * random_gain(rng, (n_voices, 1))[voice]
        room = None
        if self.rooms is not None and rng.random() < _IN_ROOM:
            responses, true = self.rooms.draw(rng, sizes)
            singers, room = in_room(singers, responses), _estimated(true, rng)
        return singers.new_zeros(n_voices, singers.shape[1]).index_add_(0, voice, singers), f0, room

    def _sections(self, rng: Generator, n_voices: int) -> tuple[list[Float32], Float32]:
        """Return the singers of each voice, each of shape (singers, samples), and the f0 of all voices."""
        share = rng.choice(list(_SECTIONS), p=list(_SECTIONS.values())) if self.augmented else 0.0
        for _ in range(_MAX_TRIES):
            pick = self._in_time if rng.random() < 0.5 else self._apart
            sizes = np.where(rng.random(n_voices) < share, rng.integers(SIZES[0], SIZES[1] + 1, n_voices), 1)
            voices = [
                section(takes, first, self.frames, int(size), rng)
                for (takes, first), size in zip(pick(rng, n_voices), sizes, strict=True)
            ]
            f0 = np.concatenate([f0 for _, f0 in voices])
            if _is_sung(f0):
                break
        return [singers for singers, _ in voices], f0

    def _in_time(self, rng: Generator, n_voices: int) -> list[tuple[list[Take], int]]:
        """Return singers of each voice, from one piece, and the frame at which all excerpts start."""
        bank = self.banks[int(rng.integers(len(self.banks)))]
        piece = bank[choose(rng, [HOP * sum(take.n_frames for take in all_takes([piece])) for piece in bank])]
        names = list(piece)
        # Each part once, then other singers of each, if there are more voices than parts.
        rounds = -(-n_voices // len(names))
        order = np.concatenate([rng.permutation(len(names)) for _ in range(rounds)])[:n_voices].tolist()
        shuffled = [_shuffled(piece[name], rng) for name in names]
        picks = []
        for index, part in enumerate(order):
            takes, number = shuffled[part], order[:index].count(part)
            picks.append(takes[number :: order.count(part)] or [takes[number % len(takes)]])
        first = random_start(min((takes[0] for takes in picks), key=lambda take: take.n_frames), self.frames, rng)
        return [(takes, first) for takes in picks]

    def _apart(self, rng: Generator, n_voices: int) -> list[tuple[list[Take], int]]:
        """Return singers of any parts for each voice, each with its own start."""
        picks = []
        for _ in range(n_voices):
            parts = [takes for piece in self.banks[int(rng.integers(len(self.banks)))] for takes in piece.values()]
            takes = _shuffled(parts[choose(rng, [sum(take.n_frames for take in takes) for takes in parts])], rng)
            picks.append((takes, random_start(takes[0], self.frames, rng)))
        return picks


class MixedSource:
    """Batches from one of two sources; `share` is the probability of the first."""

    def __init__(self, first: Source, second: Source, share: float) -> None:
        self.first, self.second, self.share = first, second, share

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` excerpts of one of the sources."""
        return (self.first if rng.random() < self.share else self.second).draw(rng, size)


def _is_sung(f0: Float32) -> bool:
    return bool((f0 > 0).any(axis=0).mean() >= _MIN_VOICED)


def _shuffled(takes: Sequence[Take], rng: Generator) -> list[Take]:
    return [takes[index] for index in rng.permutation(len(takes))]


def _augmented(singers: Tensor, rng: Generator) -> Tensor:
    """Return singers, shape (singers, samples), with other timbres."""
    singers = augment.equalise(singers, rng, strength_db=4.0)
    if rng.random() < 0.3:
        ratio = float(np.exp2(rng.uniform(-0.25, 0.25)))
        index = int(rng.integers(len(singers)))
        singers[index] = augment.shift_formants(singers[index], ratio)
    return singers


def _estimated(room: RoomParameters, rng: Generator) -> RoomParameters:
    """Return a room with the errors of an estimate, as a network meets it in recordings."""
    time, ratio = rng.uniform(-_TIME_ERROR, _TIME_ERROR), rng.uniform(-_RATIO_ERROR, _RATIO_ERROR)
    return RoomParameters(room.reverberation_time * (1 + time), room.ratio + ratio)


def _together(rooms: Sequence[RoomParameters | None]) -> RoomParameters | None:
    """Return the rooms of a batch, or None if all excerpts are dry."""
    if all(room is None for room in rooms):
        return None
    all_rooms = [RoomParameters.of() if room is None else room for room in rooms]
    return RoomParameters(
        torch.stack([room.reverberation_time for room in all_rooms]), torch.stack([room.ratio for room in all_rooms])
    )


def random_gain(rng: Generator, shape: tuple[int, ...], limit_db: float = 6.0) -> Tensor:
    """Return random gains within +- `limit_db` dB."""
    return torch.from_numpy((10 ** (rng.uniform(-limit_db, limit_db, shape) / 20)).astype(np.float32))


def _gain_to_level(mixture: Tensor) -> Tensor:
    """Return the gain, shape (batch, 1), that brings mixtures that peak above full scale down to it."""
    return 1.0 / mixture.abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
