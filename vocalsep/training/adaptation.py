"""Adaptation: training the estimator further, unsupervised, on the recordings that it is to separate.

Fitting (`vocalsep.model.fitting`) gives better stems than the network alone. Here the network learns from these stems
as if they were the true ones, so that fitting starts closer to its result the next time. (Training on the recording
with the unsupervised loss lowers that loss, but does not improve the stems.) Blocks spread over the recordings are held
back, and the loss on them decides whether the weights before or after adaptation are kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.audio.downmix import Downmix
from vocalsep.audio.recording import ArrayRecording
from vocalsep.dsp.chunks import chunks
from vocalsep.errors import AudioError, OptionError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.room import RoomParameters
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.analysis import Analysis
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training import augment
from vocalsep.training.data import Batch, random_gain
from vocalsep.training.learner import Learner, mean_loss
from vocalsep.training.losses import supervised_loss
from vocalsep.training.takes import Take, choose

STEPS = 40
"""Optimisation steps."""
LEARNING_RATE = 2e-4
"""Learning rate of Adam."""

_CHUNK_FRAMES, _MAX_CHUNKS = 1875, 20  # at most 10 minutes of a recording, in chunks of 30 s
_BATCH_SIZE = 2
_BLOCK_FRAMES = 188  # 3 s: excerpts and blocks that are held back
_MIN_BLOCK_FRAMES = 62  # 1 s, for short recordings
_HELD_BACK = 5  # every fifth block is held back,
_MAX_HELD_BACK = 12  # but not more than half a minute of music: that is enough to measure the loss
_MIN_VOICED = 0.2  # fraction of frames of a block in which a voice sings
_VALIDATE_EVERY = 10  # steps
_AVERAGE = 0.9  # decay of the running mean of the weights
_EQUALISER_DB, _GAIN_DB = 3.0, 3.0  # random timbre and level of the stems before they are mixed again


class Adapted(NamedTuple):
    """Result of an adaptation."""

    separator: Separator  # with the better weights of before and after
    before: float  # loss on the blocks that were held back
    after: float  # loss of the weights that are kept, never above `before`
    steps: int
    seconds: float

    @property
    def improved(self) -> bool:
        """True if the weights have changed."""
        return self.after < self.before

    def __str__(self) -> str:
        if not self.improved:
            return f"adaptation did not help in {self.seconds:.0f} s: kept the weights as they were"
        return (
            f"adapted in {self.seconds:.0f} s: better on passages that were held back (loss {self.before:.3f} -> "
            f"{self.after:.3f})"
        )


def adapt(
    separator: Separator,
    recordings: Sequence[tuple[Downmix, F0Tracks]],
    *,
    steps: int = STEPS,
    seconds: float | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> Adapted:
    """Adapt a separator to recordings.

    The same seed and number of steps give the same weights, unless the time limit ends the training earlier.

    Parameters
    ----------
    separator : Separator
        Separator to start from; it is not changed.
    recordings : sequence of (Downmix, F0Tracks)
        Recordings with the f0 of their voices on the 16-ms grid. If a recording is longer than 10 minutes, 10 minutes
        spread over it are used.
    steps : int
        Largest number of optimisation steps.
    seconds : float, optional
        Time limit in seconds for the training; None sets no limit.
    seed : int
        Random seed of the excerpts.
    progress : callable
        Called with "adaptation" and the fraction that is done.

    Raises
    ------
    AudioError
        If voices sing for less than 2 s in the recordings.
    OptionError
        If a number is out of range.
    """
    limit = math.inf if seconds is None else seconds
    for name, value, valid in ("steps", steps, steps >= 1), ("seconds", seconds, limit > 0), ("seed", seed, seed >= 0):
        if not valid:
            raise OptionError(f"{name} is {value}, which is too small", parameter=name)
    training, held_back = split([separated(separator, *recording) for recording in recordings])
    started = time.monotonic()
    network = copy.deepcopy(separator.estimator).requires_grad_(True)
    learner = Learner(network, supervised_loss, torch.optim.Adam(network.parameters(), LEARNING_RATE), _AVERAGE)
    best, before = separator.estimator, mean_loss(separator.estimator, supervised_loss, held_back)
    validation_seconds = time.monotonic() - started
    lowest, rng, ending = before, np.random.default_rng(seed), False
    while not ending:
        learner.step(training.draw(rng, _BATCH_SIZE))
        elapsed = time.monotonic() - started
        # The time limit includes the last validation.
        ending = learner.steps == steps or elapsed + validation_seconds >= limit
        if ending or learner.steps % _VALIDATE_EVERY == 0:
            loss = mean_loss(learner.mean, supervised_loss, held_back)
            if loss < lowest:
                best, lowest = copy.deepcopy(learner.mean), loss
        progress("adaptation", 1.0 if ending else max(learner.steps / steps, elapsed / limit))
    return Adapted(separator.with_estimator(best), before, lowest, learner.steps, time.monotonic() - started)


def separated(separator: Separator, downmix: Downmix, tracks: F0Tracks) -> Take:
    """Return the stems of at most 10 minutes of a recording, at the level at which parameters are estimated."""
    parts = list(chunks(tracks.n_frames, _CHUNK_FRAMES))
    if len(parts) > _MAX_CHUNKS:
        parts = [parts[i] for i in np.linspace(0, len(parts) - 1, _MAX_CHUNKS).round().astype(int)]
    waveform = np.concatenate(
        [downmix.read(part.first * HOP_LENGTH, min(part.last * HOP_LENGTH, downmix.samples)) for part in parts]
    )
    f0 = np.concatenate([tracks.frequencies[:, part.first : part.last] for part in parts], axis=1)
    excerpts = Downmix.of_array(waveform)
    recording = ArrayRecording(np.float32(excerpts.gain) * waveform[None], MODEL_SAMPLE_RATE)
    stems = np.concatenate(
        list(separator.stems(recording, Analysis(excerpts, F0Tracks(f0, tracks.names), RoomParameters.of()))), axis=-1
    )
    return Take(stems[:, 0], f0)


class RemixSource:
    """Excerpts of recordings whose stems are equalised and mixed again at random levels."""

    def __init__(self, takes: Sequence[Take], frames: int) -> None:
        self.takes = takes
        self.frames = frames

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts of one recording."""
        take = self.takes[choose(rng, [take.n_frames for take in self.takes])]
        batch = _batch(take, rng.integers(take.n_frames - self.frames + 1, size=size).tolist(), self.frames)
        assert batch.stems is not None
        gains = random_gain(rng, (*batch.stems.shape[:2], 1), _GAIN_DB)
        stems = augment.equalise(batch.stems, rng, _EQUALISER_DB) * gains
        return Batch(stems.sum(dim=1), batch.f0, stems)


def split(takes: Sequence[Take]) -> tuple[RemixSource, list[Batch]]:
    """Return a source of excerpts to train on, and the blocks that are held back, spread over the takes.

    Raise AudioError if there are fewer than two blocks of 1 s in which a voice sings.
    """
    sung = sum(int(_sung(take).sum()) for take in takes)
    frames = int(np.clip(sung // 4, _MIN_BLOCK_FRAMES, _BLOCK_FRAMES))
    blocks = [(take, first, last) for take in takes for first, last in _sung_blocks(take, frames)]
    if len(blocks) < 2:
        raise AudioError(f"voices sing for {sung * HOP:.1f} s in the recordings; adaptation needs 2 s or more")
    count = int(np.clip(len(blocks) // _HELD_BACK, 1, _MAX_HELD_BACK))
    held = {int((index + 0.5) * len(blocks) / count) for index in range(count)}
    held_back = [_batch(take, [first], last - first) for take, first, last in (blocks[index] for index in sorted(held))]
    runs: list[tuple[Take, int, int]] = []  # adjacent blocks joined
    for take, first, last in (block for index, block in enumerate(blocks) if index not in held):
        if runs and runs[-1][0] is take and runs[-1][2] == first:
            runs[-1] = (take, runs[-1][1], last)
        else:
            runs.append((take, first, last))
    return RemixSource([Take(*take.excerpt(first, last - first)) for take, first, last in runs], frames), held_back


def _batch(take: Take, firsts: Sequence[int], frames: int) -> Batch:
    excerpts = [take.excerpt(first, frames) for first in firsts]
    stems, f0 = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*excerpts, strict=True))
    return Batch(stems.sum(dim=1), f0, stems)


def _sung_blocks(take: Take, frames: int) -> list[tuple[int, int]]:
    """Return the equal blocks of a recording, `frames` or longer, in which a voice sings, as (first, last)."""
    count = take.n_frames // frames
    edges = np.linspace(0, take.n_frames, count + 1).astype(int).tolist() if count else []
    sung = _sung(take)
    return [(first, last) for first, last in pairwise(edges) if sung[first:last].mean() >= _MIN_VOICED]


def _sung(take: Take) -> NDArray[np.bool_]:
    """Return where a voice sings, shape (frames,)."""
    return np.asarray((take.f0[:, : take.n_frames] > 0).any(axis=0))
