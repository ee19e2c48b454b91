"""The benchmark: separation of ensembles of single singers whose stems are known, by several systems, and speed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocalsep import audio
from vocalsep.audio import Float32
from vocalsep.errors import AudioError, OptionError
from vocalsep.evaluation.baselines.form import form_of, separate_form
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.metrics import Scores, f0_f_measure, frame_scores
from vocalsep.evaluation.spectral_metrics import spectral_scores
from vocalsep.evaluation.systems import Ready, Separate
from vocalsep.f0.monophonic import f0_from_stems
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.folders import audio_files
from vocalsep.separation.separator import Separator
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE

QUARTET = ("soprano", "alto", "tenor", "bass")
FROM_STEMS, FROM_MIXTURE, REFINED = "CREPE on stems", "mixture", "mixture, refined"
"""Where f0 comes from: given, tracked in the mixture, or tracked and refined, as the product does by itself."""
MIXTURE, IDEAL = "mixture", "ideal"
"""What needs no f0: nothing done at all, and the ideal ratio masks, the ceiling."""
FORM = "ideal-form"
"""Source-filter parameters out of the true stems, the ceiling of all estimators."""
SI_SDR = "SI-SDR"

SPEED_RATE = 44100
SPEED_SECONDS = 60.0
EXCERPT_SECONDS = 4.0
"""Of the mixture on which systems are timed side by side."""
_REPEATS, _PATIENCE = 3, 2.0  # times, while a time stays below so many seconds


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

    @property
    def label(self) -> str:
        """The voices in short: initials, "SATB", where no two are alike, else their names."""
        initials = [name[:1].upper() for name in self.names]
        return "".join(initials) if len(set(initials)) == len(initials) else "+".join(self.names)


def load_ensemble(folder: str | os.PathLike[str], singer: str, names: Sequence[str] = QUARTET) -> Ensemble:
    """Load PART_SINGER.*, or else PART.*, of some parts from a folder.

    Parameters
    ----------
    folder
        Holds recordings of single voices in time with one another.
    singer
        Of each part.
    names
        The parts, high to low.

    Raises
    ------
    AudioError
        If a part is missing.
    """
    files = audio_files(Path(folder))
    waveforms = []
    for name in names:
        path = files.get(f"{name}_{singer}") or files.get(name)
        if path is None:
            raise AudioError(f"{folder}: has no recording named {name}_{singer} or {name}; expected one for each part")
        waveforms.append(audio.to_model_rate(*audio.read(path)))
    length = min(map(len, waveforms))
    return Ensemble(tuple(names), np.stack([waveform[:length] for waveform in waveforms]))


def subsets(ensemble: Ensemble, sizes: Sequence[int]) -> list[Ensemble]:
    """Return all ensembles of so many voices that those of an ensemble make, in the order of `sizes`.

    Raises
    ------
    OptionError
        If a size is not from 2 to the number of voices.
    """
    wrong = [size for size in sizes if not 2 <= size <= len(ensemble.names)]
    if wrong or not sizes:
        raise OptionError(
            f"ensembles are to have {wrong[0] if wrong else 'no'} voices; expected 2 to {len(ensemble.names)}"
        )
    rows = range(len(ensemble.names))
    return [
        Ensemble(tuple(ensemble.names[row] for row in some), ensemble.stems[list(some)])
        for size in sizes
        for some in combinations(rows, size)
    ]


@dataclass(frozen=True)
class Tracking:
    """F0 tracks of an ensemble from its stems, which serve as the truth, and from its mixture."""

    from_stems: F0Tracks
    from_mixture: F0Tracks

    @property
    def f_measure(self) -> NDArray[np.float64]:
        """F-measure at 50 cents of the tracks from the mixture, shape (voices,)."""
        return f0_f_measure(self.from_stems.frequencies, self.from_mixture.frequencies)


def stem_tracks(ensemble: Ensemble, crepe: str = "tiny") -> F0Tracks:
    """Track the f0 of the stems with CREPE of a capacity."""
    return f0_from_stems(dict(zip(ensemble.names, ensemble.stems, strict=True)), capacity=crepe)


def tracking(ensemble: Ensemble, separator: Separator, of_stems: F0Tracks) -> Tracking:
    """Return the f0 tracks of an ensemble, in the mixture as a separator tracks them.

    Parameters
    ----------
    ensemble
        Whose mixture is tracked.
    separator
        With the tracker to judge.
    of_stems
        Tracks that hold those of its stems, by name.
    """
    return Tracking(
        of_stems.select(list(ensemble.names)), separator.track(ensemble.mixture, voices=ensemble.names, refine=0)
    )


@dataclass(frozen=True)
class Result:
    """The scores of a system on one ensemble.

    Parameters
    ----------
    voices
        Of the ensemble, high to low.
    system
        Its name.
    f0
        Where the f0 came from; "" where none is used.
    scores
        Metric -> one `Scores` for each voice.
    """

    voices: tuple[str, ...]
    system: str
    f0: str
    scores: Mapping[str, tuple[Scores, ...]]


def evaluate(
    ensemble: Ensemble,
    systems: Mapping[str, Ready],
    tracks: Tracking,
    *,
    ideal: Separator | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Yield the scores of systems on an ensemble, by the protocol of `metrics.protocol_frames`.

    Parameters
    ----------
    ensemble
        What to separate; its singers must not have been trained on.
    systems
        Ready ones by name.
    tracks
        The f0 tracks to separate with.
    ideal
        What estimates parameters in the true stems, if those and the ideal ratio masks are to be scored too.
    report
        Told what is being separated.
    """
    mixture, stems = ensemble.mixture, ensemble.stems

    def scored(system: str, f0: str, estimates: Float32) -> Result:
        return Result(ensemble.names, system, f0, score(stems, estimates, mixture))

    yield scored(MIXTURE, "", np.broadcast_to(mixture, stems.shape))
    for name, ready in systems.items():
        jobs: list[tuple[str, Separate, F0Tracks]] = [
            (FROM_STEMS, ready.separate, tracks.from_stems),
            (FROM_MIXTURE, ready.separate, tracks.from_mixture),
        ]
        if ready.refined is not None:
            jobs.append((REFINED, ready.refined, tracks.from_mixture))
        for f0, separate, given in jobs:
            report(f"{ensemble.label}: {name}, f0 {f0}")
            yield scored(name, f0, separate(mixture, given))
    if ideal is not None:
        report(f"{ensemble.label}: {FORM}")
        voices = form_of(stems, tracks.from_stems, ideal)
        for label, listening in ((FORM, True), (f"{FORM}-unheard", False)):
            yield scored(label, FROM_STEMS, separate_form(mixture, voices, listening=listening))
        yield scored(IDEAL, "", separate_ideal(mixture, stems, MODEL_SAMPLE_RATE))


def score(stems: Float32, estimates: Float32, mixture: Float32) -> dict[str, tuple[Scores, ...]]:
    """Return all metrics of stems (voices, samples) at 16 kHz: metric -> one `Scores` for each voice."""
    return {
        SI_SDR: frame_scores(stems, estimates, mixture, MODEL_SAMPLE_RATE),
        **spectral_scores(stems, estimates, mixture, MODEL_SAMPLE_RATE),
    }


def excerpt_milliseconds(ensemble: Ensemble, tracks: F0Tracks, separate: Separate) -> float:
    """Return the milliseconds in which a system separates 4 s at 16 kHz with given f0: the least of a few times."""
    frames = int(EXCERPT_SECONDS * MODEL_SAMPLE_RATE) // HOP_LENGTH
    # From the middle: recordings begin and end with silence.
    first = max(0, (tracks.n_frames - frames) // 2)
    mixture = ensemble.mixture[first * HOP_LENGTH : (first + frames) * HOP_LENGTH]
    frequencies = tracks.frequencies[:, first : first + 1 + len(mixture) // HOP_LENGTH]
    given = F0Tracks(np.ascontiguousarray(frequencies), tracks.names)
    times: list[float] = []
    while len(times) < _REPEATS and (not times or times[-1] < _PATIENCE):
        started = time.perf_counter()
        separate(mixture, given)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


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
    voices = ensemble.names
    separator.separate(stereo[:, : 4 * SPEED_RATE], sample_rate=SPEED_RATE, voices=voices)  # loads and warms up
    stages: dict[str, float] = {}
    before = time.perf_counter()

    def progress(stage: str, fraction: float) -> None:
        nonlocal before
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - before
        before = now

    started = time.perf_counter()
    separator.separate(stereo, sample_rate=SPEED_RATE, voices=voices, progress=progress)
    stages["rest"] = time.perf_counter() - started - sum(stages.values())
    return Speed(SPEED_SECONDS, stages)
