"""Adaptation: an estimator goes on learning, unsupervised, from the very recordings that it is to separate.

Fitting (`vocalsep.model.fitting`) makes stems that are better than those of the network alone. They are what the network
learns from here, as if they were true: what fitting found out about these voices, it then knows beforehand, and is
fitted from a better start. No true stem is needed. (The loss on mixtures of US falls too when it is trained on the
recording, but the stems are no better for it.) Blocks spread over the recordings are held back: the loss on them
decides between the weights before and after, so that adaptation that does not help changes nothing.
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

from vocalsep.audio import Float32
from vocalsep.errors import AudioError, OptionError
from vocalsep.model.estimator import Estimator
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.timebase import HOP, HOP_LENGTH
from vocalsep.training import augment
from vocalsep.training.data import Batch, choose
from vocalsep.training.losses import supervised_loss

STEPS = 40
"""Optimisation steps."""
LEARNING_RATE = 2e-4
"""Of Adam."""

_BATCH_SIZE = 2
_BLOCK_FRAMES = 188  # 3 s: of an excerpt, and of a block that is held back
_MIN_BLOCK_FRAMES = 62  # 1 s, in short recordings
_HELD_BACK = 5  # one block in so many
_MAX_HELD_BACK = 12  # blocks: the loss on half a minute of music is sure enough
_MIN_VOICED = 0.2  # share of frames of a block in which some voice must sing
_VALIDATE_EVERY = 10  # steps
_AVERAGE = 0.9  # decay of the running mean of the weights
_MAX_GRADIENT_NORM = 1.0
_EQUALISER_DB, _GAIN_DB = 3.0, 3.0  # by which stems are coloured, and made louder or softer, before they are mixed anew


class Example(NamedTuple):
    """A recording to adapt to, taken apart by the network at hand."""

    stems: Float32
    """Shape (voices, samples) at 16 kHz, at the level at which parameters are estimated."""
    f0: Float32
    """Hz, shape (voices, frames), 0 = unvoiced."""

    @property
    def n_frames(self) -> int:
        """Frames that lie wholly in the recording."""
        return min(int(self.f0.shape[1]), int(self.stems.shape[1]) // HOP_LENGTH)

    def part(self, first: int, last: int) -> Example:
        """Return frames first ... last - 1, with one f0 more, as an STFT has."""
        f0 = self.f0[:, first : last + 1]
        return Example(
            self.stems[:, first * HOP_LENGTH : last * HOP_LENGTH],
            np.pad(f0, ((0, 0), (0, last + 1 - first - f0.shape[1]))),
        )


class Adapted(NamedTuple):
    """The outcome of an adaptation."""

    network: Estimator
    """The better of before and after, ready for inference."""
    before: float
    """Loss of the given network on what was held back."""
    after: float
    """Loss of `network`; never more than `before`."""
    steps: int
    """Steps that were taken."""
    seconds: float
    """Seconds that it took."""

    @property
    def improved(self) -> bool:
        """Whether `network` is another than the given one."""
        return self.after < self.before

    def __str__(self) -> str:
        if not self.improved:
            return f"adaptation did not help in {self.seconds:.0f} s: kept the weights as they were"
        return f"adapted in {self.seconds:.0f} s: loss {self.before:.3f} -> {self.after:.3f}"


def adapt(
    network: Estimator,
    recordings: Sequence[Example],
    *,
    steps: int = STEPS,
    seconds: float | None = None,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> Adapted:
    """Train an estimator further on recordings and return the better of before and after.

    The same seed and number of steps give the same weights, unless a time is given and runs out: then they depend on
    how fast the machine is.

    Parameters
    ----------
    network
        Where to start from; it is left as it is.
    recordings
        What `Separator.adapted` makes of recordings. The numbers of voices may differ.
    steps
        Optimisation steps at most.
    seconds
        Time at most, no limit by default; a step or a validation that has begun is finished.
    learning_rate
        Of Adam.
    seed
        Of the choice of excerpts.
    progress
        Called with "adaptation" and the fraction done.

    Raises
    ------
    AudioError
        If the recordings hold less than 2 s of singing.
    OptionError
        If a number is out of range.
    """
    limit = math.inf if seconds is None else seconds
    if steps < 1 or seed < 0 or not limit > 0 or not 0 < learning_rate < math.inf:
        raise OptionError(
            f"steps are {steps}, seconds {seconds}, learning rate {learning_rate} and seed {seed}; expected 1 or "
            "more, more than 0, more than 0, and 0 or more"
        )
    started = time.monotonic()
    training, held_back = split(recordings)
    learner = _Learner(network, learning_rate)
    best, before = network, _mean_loss(network, held_back)
    least = before
    validation_seconds = time.monotonic() - started
    rng = np.random.default_rng(seed)
    step = 0
    while step < steps:
        learner.step(training.draw(rng, _BATCH_SIZE))
        step += 1
        elapsed = time.monotonic() - started
        # The last validation is part of the time that was granted.
        ending = step == steps or elapsed + validation_seconds >= limit
        if ending or step % _VALIDATE_EVERY == 0:
            loss = _mean_loss(learner.averaged, held_back)
            if loss < least:
                best, least = copy.deepcopy(learner.averaged), loss
        progress("adaptation", 1.0 if ending else max(step / steps, elapsed / limit))
        if ending:
            break
    return Adapted(copy.deepcopy(best).eval(), before, least, step, time.monotonic() - started)


def split(recordings: Sequence[Example]) -> tuple[_Source, list[Batch]]:
    """Return where excerpts to train on come from, and the blocks that are held back, spread over the recordings.

    Raises
    ------
    AudioError
        If there are fewer than two blocks of a second in which someone sings.
    """
    sung = sum(int(_sung(recording).sum()) for recording in recordings)
    frames = int(np.clip(sung // 4, _MIN_BLOCK_FRAMES, _BLOCK_FRAMES))
    blocks = [
        (number, first, last)
        for number, recording in enumerate(recordings)
        for first, last in _sung_blocks(recording, frames)
    ]
    if len(blocks) < 2:
        raise AudioError(f"voices sing for {sung * HOP:.1f} s in the recordings; adaptation needs 2 s or more")
    count = int(np.clip(len(blocks) // _HELD_BACK, 1, _MAX_HELD_BACK))
    held = {int((index + 0.5) * len(blocks) / count) for index in range(count)}
    held_back = [
        _batch([recordings[number].part(first, last)])
        for index, (number, first, last) in enumerate(blocks)
        if index in held
    ]
    runs: list[tuple[int, int, int]] = []
    for index, (number, first, last) in enumerate(blocks):
        if index in held:
            continue
        if runs and runs[-1][0] == number and runs[-1][2] == first:
            runs[-1] = (number, runs[-1][1], last)
        else:
            runs.append((number, first, last))
    return _Source([recordings[number].part(first, last) for number, first, last in runs], frames), held_back


class _Source:
    """Excerpts of recordings whose stems are coloured and mixed anew."""

    def __init__(self, examples: Sequence[Example], frames: int) -> None:
        self.examples = examples
        self.frames = frames

    def draw(self, rng: Generator, size: int) -> Batch:
        """Return `size` random excerpts of one recording."""
        example = self.examples[choose(rng, [example.n_frames for example in self.examples])]
        firsts = rng.integers(example.n_frames - self.frames + 1, size=size)
        batch = _batch([example.part(int(first), int(first) + self.frames) for first in firsts])
        assert batch.stems is not None
        gains = 10 ** (rng.uniform(-_GAIN_DB, _GAIN_DB, (*batch.stems.shape[:2], 1)) / 20)
        stems = augment.equalise(batch.stems, rng, _EQUALISER_DB) * torch.from_numpy(gains.astype(np.float32))
        return Batch(stems.sum(dim=1), batch.f0, stems)


def _batch(examples: Sequence[Example]) -> Batch:
    stems = torch.from_numpy(np.stack([example.stems for example in examples]))
    return Batch(stems.sum(dim=1), torch.from_numpy(np.stack([example.f0 for example in examples])), stems)


class _Learner:
    """A copy of a network that learns, and the running mean of its weights, which is what counts."""

    def __init__(self, network: Estimator, learning_rate: float) -> None:
        self.network = copy.deepcopy(network).train().requires_grad_(True)
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), learning_rate)
        self.steps = 0

    def step(self, batch: Batch) -> None:
        """Take an optimisation step; one whose gradient is not finite is left out."""
        loss = supervised_loss(self.network, batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.steps += 1
        # Early on the mean follows the weights closely, or it would hold them back.
        decay = min(_AVERAGE, self.steps / (9 + self.steps))
        with torch.no_grad():
            for mean, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(current, 1 - decay)


def _mean_loss(network: Estimator, batches: Sequence[Batch]) -> float:
    with torch.no_grad():
        return float(np.mean([float(supervised_loss(network, batch)) for batch in batches]))


def _sung_blocks(recording: Example, frames: int) -> list[tuple[int, int]]:
    """Return first and last frame of the equal parts of a recording, of `frames` or more, in which someone sings."""
    count = recording.n_frames // frames
    edges = np.linspace(0, recording.n_frames, count + 1).astype(int).tolist() if count else []
    sung = _sung(recording)
    return [(first, last) for first, last in pairwise(edges) if sung[first:last].mean() >= _MIN_VOICED]


def _sung(recording: Example) -> NDArray[np.bool_]:
    """Return in which frames some voice sings."""
    return np.asarray((recording.f0[:, : recording.n_frames] > 0).any(axis=0))
