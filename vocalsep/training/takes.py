"""Takes: recordings for training with the f0 of their voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.audio import Float32
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.room import RoomParameters
from vocalsep.timebase import HOP, HOP_LENGTH
from vocalsep.training.augment import shift_by_resampling


@dataclass(frozen=True)
class Take:
    """A recording at 16 kHz, or its stems, with the f0 of the voices."""

    waveform: Float32  # shape (samples,), or (voices, samples) for stems
    f0: Float32  # shape (voices, frames) in Hz, 0 = unvoiced
    room: RoomParameters | None = None  # None if it is dry

    @property
    def n_frames(self) -> int:
        """Number of frames that lie wholly in the waveform."""
        return min(int(self.f0.shape[1]), int(self.waveform.shape[-1]) // HOP_LENGTH)

    def excerpt(self, first: int, frames: int) -> tuple[Float32, Float32]:
        """Return waveform and f0 from frame `first` on; f0 has one frame more, as an STFT has."""
        samples = self.waveform[..., first * HOP_LENGTH : (first + frames) * HOP_LENGTH]
        f0 = self.f0[:, first : first + frames + 1]
        return samples, np.pad(f0, ((0, 0), (0, frames + 1 - f0.shape[1])))

    def part(self, start: float, stop: float) -> Take:
        """Return the part between two fractions of the take."""
        low, high = int(start * self.n_frames), int(stop * self.n_frames)
        waveform = self.waveform[..., low * HOP_LENGTH : high * HOP_LENGTH]
        return replace(self, waveform=waveform, f0=self.f0[:, low:high])

    def transposed(self, semitones: float) -> Take:
        """Return the take transposed, with formants and tempo, like a tape that runs faster or slower."""
        names = tuple(f"voice{index}" for index in range(len(self.f0)))
        waveform, tracks = shift_by_resampling(self.waveform, F0Tracks(self.f0, names), semitones)
        return Take(waveform, tracks.frequencies)


Piece: TypeAlias = dict[str, list[Take]]
"""Part -> takes of its singers; all takes of a piece are in time with one another."""


def transposed_pieces(pieces: Sequence[Piece], semitones: float, frames: int) -> list[Piece]:
    """Return transposed pieces without takes shorter than `frames`, and without parts or pieces that become empty."""
    found = []
    for piece in pieces:
        moved = {part: [take.transposed(semitones) for take in takes] for part, takes in piece.items()}
        long = {part: [take for take in takes if take.n_frames >= frames] for part, takes in moved.items()}
        found.append({part: takes for part, takes in long.items() if takes})
    return [piece for piece in found if piece]


def split_takes(takes: Sequence[Take], held_out: float) -> tuple[list[Take], list[Take]]:
    """Return takes without their ends, for training, and the ends, a fraction `held_out` of each, for validation."""
    if not 0 < held_out <= 0.5:
        raise OptionError(f"held_out is {held_out}; expected a number above 0 and at most 0.5", parameter="held_out")
    return [take.part(0, 1 - held_out) for take in takes], [take.part(1 - held_out, 1) for take in takes]


def split_piece(piece: Piece, held_out: float) -> tuple[Piece, Piece]:
    """Return a piece without the ends of its takes, and the ends; see `split_takes`."""
    split = {part: split_takes(takes, held_out) for part, takes in piece.items()}
    return {part: takes for part, (takes, _) in split.items()}, {part: ends for part, (_, ends) in split.items()}


def all_takes(pieces: Sequence[Piece]) -> list[Take]:
    """Return the takes of all parts of all pieces."""
    return [take for piece in pieces for takes in piece.values() for take in takes]


def too_short(frames: int) -> AudioError:
    """Return the error if no recording lasts `frames` frames."""
    return AudioError(f"no recording lasts {frames * HOP:.1f} s; training needs longer recordings")


def random_start(take: Take, frames: int, rng: Generator) -> int:
    """Return the first frame of a random excerpt of `frames` frames."""
    return int(rng.integers(take.n_frames - frames + 1))


def choose(rng: Generator, weights: Sequence[float]) -> int:
    """Return a random index, with probabilities in proportion to the weights."""
    return int(rng.choice(len(weights), p=np.array(weights, dtype=float) / sum(weights)))


def section_f0(f0: NDArray[np.floating]) -> Float32:
    """Return the f0 of a section, shape (frames,), from that of its singers, shape (singers, frames).

    It is the geometric mean of those who sing, or 0 if fewer than half of them do.
    """
    singing = (f0 > 0).sum(axis=0)
    mean = np.log(np.where(f0 > 0, f0, 1)).sum(axis=0) / np.maximum(singing, 1)
    return np.where(2 * singing >= len(f0), np.exp(mean), 0).astype(np.float32)


def median_f0(f0: NDArray[np.floating]) -> float:
    """Return the median f0 in Hz of voiced frames, 0 if there are none."""
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0
