"""The benchmark: separation of quartets of single singers whose stems are known, and speed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocalsep import audio
from vocalsep.audio import MODEL_SAMPLE_RATE, Float32
from vocalsep.errors import AudioError
from vocalsep.evaluation.baselines.comb import separate_comb
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.metrics import Scores, f0_f_measure, frame_scores, overall
from vocalsep.f0.crepe import f0_from_stems
from vocalsep.separator import Separator
from vocalsep.stems import audio_files
from vocalsep.tracks import F0Tracks

SPEED_RATE = 44100
SPEED_SECONDS = 60.0


@dataclass(frozen=True)
class Ensemble:
    """Stems of an ensemble, and their sum.

    Parameters
    ----------
    names
        Of the voices, high to low.
    stems
        Shape (voices, samples) at 16 kHz.
    """

    names: tuple[str, ...]
    stems: Float32

    @property
    def mixture(self) -> Float32:
        """The sum of the stems, shape (samples,)."""
        total: Float32 = self.stems.sum(axis=0)
        return total


@dataclass(frozen=True)
class Row:
    """A system's scores."""

    system: str
    f0: str
    scores: tuple[Scores, ...]


def load_ensemble(folder: str | os.PathLike[str], singer: str) -> Ensemble:
    """Load PART_SINGER.*, or else PART.*, of the parts soprano, alto, tenor and bass from a folder.

    Raises
    ------
    AudioError
        If a part is missing.
    """
    names = ("soprano", "alto", "tenor", "bass")
    files = audio_files(Path(folder))
    waveforms = []
    for name in names:
        path = files.get(f"{name}_{singer}") or files.get(name)
        if path is None:
            raise AudioError(f"{folder}: has no recording named {name}_{singer} or {name}; expected one for each part")
        waveforms.append(audio.to_model_rate(*audio.read(path)))
    length = min(map(len, waveforms))
    return Ensemble(names, np.stack([waveform[:length] for waveform in waveforms]))


@dataclass(frozen=True)
class Tracking:
    """F0 tracks of an ensemble from its stems, which serve as the truth, and from its mixture."""

    from_stems: F0Tracks
    from_mixture: F0Tracks

    @property
    def f_measure(self) -> NDArray[np.float64]:
        """F-measure at 50 cents of the tracks from the mixture, shape (voices,)."""
        return f0_f_measure(self.from_stems.frequencies, self.from_mixture.frequencies)


def tracking(ensemble: Ensemble, separator: Separator, *, crepe: str = "tiny") -> Tracking:
    """Track the f0 of an ensemble with CREPE of a capacity on the stems, and in the mixture as a separator does."""
    from_stems = f0_from_stems(dict(zip(ensemble.names, ensemble.stems, strict=True)), capacity=crepe)
    return Tracking(from_stems, separator.track(ensemble.mixture, voices=ensemble.names, refine=0))


def quality(ensemble: Ensemble, separator: Separator, tracks: Tracking) -> Iterator[Row]:
    """Yield the rows of the development table, by the protocol of `metrics.frame_scores`.

    Parameters
    ----------
    ensemble
        What to separate; its singers must not have been trained on.
    separator
        With the weights to judge.
    tracks
        The f0 tracks to separate with.
    """
    mixture, stems = ensemble.mixture, ensemble.stems

    def score(estimates: Float32) -> tuple[Scores, ...]:
        return frame_scores(stems, estimates, mixture, MODEL_SAMPLE_RATE)

    def learned(tracks: F0Tracks) -> Float32:
        return np.stack(list(separator.separate(mixture, tracks).stems.values()))

    yield Row("mixture", "", score(np.broadcast_to(mixture, stems.shape)))
    for label, f0 in (("CREPE on stems", tracks.from_stems), ("mixture", tracks.from_mixture)):
        yield Row("comb", label, score(separate_comb(mixture, f0, MODEL_SAMPLE_RATE)))
        yield Row("learned", label, score(learned(f0)))
    yield Row("learned", "mixture, refined", score(learned(separator.refined(mixture, tracks.from_mixture))))
    yield Row("ideal power mask", "", score(separate_ideal(mixture, stems, MODEL_SAMPLE_RATE)))


def format_table(rows: Iterator[Row] | list[Row], names: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table of SI-SDR, mean / median in dB, over all voices and for each."""
    yield f"{'system':<18}{'f0':<22}{'all':>15}" + "".join(f"{name:>15}" for name in names)
    for row in rows:
        cells = [overall(row.scores), *row.scores]
        yield f"{row.system:<18}{row.f0:<22}" + "".join(f"{cell!s:>15}" for cell in cells)


@dataclass(frozen=True)
class Speed:
    """Seconds that the stages of a separation take, for a recording of `duration` seconds."""

    duration: float
    stages: dict[str, float]

    @property
    def ratio(self) -> float:
        """Computing time over duration: below 1 is faster than real time."""
        return sum(self.stages.values()) / self.duration


def speed(ensemble: Ensemble, separator: Separator) -> Speed:
    """Time the separation of a minute of 44.1 kHz stereo, stage by stage, reading and writing not counted."""
    mixture = audio.resample(ensemble.mixture, MODEL_SAMPLE_RATE, SPEED_RATE)[0]
    samples = int(SPEED_SECONDS * SPEED_RATE)
    stereo = np.stack([np.resize(mixture, samples), np.resize(mixture[::-1], samples)]).astype(np.float32)
    separator.separate(stereo[:, : 4 * SPEED_RATE], sample_rate=SPEED_RATE)  # loads and warms up
    stages: dict[str, float] = {}
    before = time.perf_counter()

    def progress(stage: str, fraction: float) -> None:
        nonlocal before
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - before
        before = now

    started = time.perf_counter()
    separator.separate(stereo, sample_rate=SPEED_RATE, progress=progress)
    stages["rest"] = time.perf_counter() - started - sum(stages.values())
    return Speed(SPEED_SECONDS, stages)
