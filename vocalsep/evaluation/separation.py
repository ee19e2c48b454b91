"""The benchmark of separation: systems side by side on ensembles of single singers whose stems are known.

Each system separates the mixture with f0 tracked in the stems and with f0 tracked in the mixture. For comparison, the
mixture itself and the upper bounds of `baselines.ideal` are scored too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vocalsep.audio import Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import OptionError
from vocalsep.evaluation.baselines.ideal import ideal_parameters, separate_by_parameters, separate_ideal
from vocalsep.evaluation.ensemble import DRY, Ensemble
from vocalsep.evaluation.metrics import Values, frame_scores, mean_median
from vocalsep.evaluation.spectral_metrics import METRICS, spectral_scores
from vocalsep.evaluation.systems import NETWORKS, SYSTEMS, Separate
from vocalsep.evaluation.trained import Run, TrainedNetworks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.files import write_file
from vocalsep.model.estimator import parameter_count
from vocalsep.separation.separator import Separator
from vocalsep.weights import load_network

FROM_STEMS, FROM_MIXTURE = "CREPE on stems", "mixture"
"""Sources of the f0 tracks."""
SI_SDR = "SI-SDR"
_NAME, _F0, _CELL = 20, 18, 17  # characters


class VoiceScores(NamedTuple):
    """The scores of one voice of an ensemble, separated by a system."""

    system: str
    ensemble: tuple[str, ...]  # names of its voices, high to low
    f0: str  # source of the f0 tracks; "" if none are used
    voice: str
    scores: dict[str, Values]  # for each metric, the scores of the frames that count
    room: str = DRY  # in which the ensemble sings


class LoadedSystem(NamedTuple):
    """A system with its weights, and the run that trained them if it is known."""

    separate: Separate
    weights: str = ""
    run: Run | None = None


def load_systems(
    names: Sequence[str],
    networks: TrainedNetworks,
    model: str | None,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, LoadedSystem]:
    """Load systems by name, or all that have weights, and train their networks if need be.

    `model` names weights to use for the network "vocalsep" instead of trained ones. `report` receives a line for each
    system that is left out. Raise OptionError if a name is unknown, or a named system has no weights.
    """
    device = networks.separator.device
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise OptionError(f"no system is named {unknown[0]!r}; expected one of {', '.join(SYSTEMS)}", parameter="names")
    loaded = {}
    for name in names or SYSTEMS:
        system = SYSTEMS[name]
        if system.network is None:
            loaded[name] = LoadedSystem(system.load("", device))
        elif system.network == "vocalsep" and model is not None:
            loaded[name] = LoadedSystem(system.load(model, device), model)
        elif (found := networks.get(system.network)) is not None:
            path, run = found
            loaded[name] = LoadedSystem(system.load(str(path), device), str(path), run)
        elif names:
            raise OptionError(f"the system {name} has no weights; train them first", parameter="names")
        else:
            report(f"{name}: left out, because it has no weights")
    return loaded


def evaluate(
    ensembles: Iterable[Ensemble],
    systems: Mapping[str, LoadedSystem],
    truth: F0Tracks,
    separator: Separator,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[VoiceScores]:
    """Yield the scores of each voice of each ensemble, for each system and source of f0.

    The truth is the f0 of the stems of all voices. The separator tracks f0 in the mixtures, after it has taken out the
    room that it estimates, and all systems get these tracks; for the upper bounds, it estimates and fits parameters
    in the stems. `report` receives a line before each separation.
    """
    for ensemble in ensembles:
        mixture, stems = ensemble.mixture, ensemble.stems
        of_stems = truth.select(ensemble.names)
        of_mixture = separator.analyse(Downmix.of_array(mixture), voices=ensemble.names).tracks
        yield from score(ensemble, "mixture", "", np.broadcast_to(mixture, stems.shape))
        for name, system in systems.items():
            for source, tracks in ((FROM_STEMS, of_stems), (FROM_MIXTURE, of_mixture)):
                report(f"{ensemble.label}: {name}, f0 {source}")
                yield from score(ensemble, name, source, system.separate(mixture, tracks))
        report(f"{ensemble.label}: upper bounds")
        parameters = ideal_parameters(stems, of_stems, separator)
        for name, use_phase in (("ideal-form", True), ("ideal-form-no-phase", False)):
            estimates = separate_by_parameters(mixture, parameters, use_phase=use_phase)
            yield from score(ensemble, name, FROM_STEMS, estimates)
        yield from score(ensemble, "ideal", "", separate_ideal(mixture, stems))


def score(ensemble: Ensemble, system: str, f0: str, estimates: Float32) -> Iterator[VoiceScores]:
    """Yield the scores of each voice for stems of shape (voices, samples) that a system has separated."""
    references, mixture = ensemble.stems, ensemble.mixture
    scores = {
        SI_SDR: frame_scores(references, estimates, mixture),
        **spectral_scores(references, estimates, mixture),
    }
    for row, voice in enumerate(ensemble.names):
        of_voice = {metric: values[row] for metric, values in scores.items()}
        yield VoiceScores(system, ensemble.names, f0, voice, of_voice, ensemble.room)


def format_tables(results: Sequence[VoiceScores], voices: Sequence[str]) -> Iterator[str]:
    """Yield the lines of two tables of mean / median: SI-SDR over all voices and for each, and the spectral metrics.

    The results are those of ensembles of one size, whose frames are pooled.
    """
    yield title(results)
    columns = {"all": voices, **{voice: [voice] for voice in voices}}
    yield from format_table(results, {name: partial(_pooled, metric=SI_SDR, voices=of) for name, of in columns.items()})
    yield "\nOn spectrograms: SNR and SI-SNR in dB, mel-cepstral distance (less is better)"
    yield from format_table(results, {metric: partial(_pooled, metric=metric, voices=voices) for metric in METRICS})


def title(results: Sequence[VoiceScores]) -> str:
    """Return the title of a table of SI-SDR over ensembles of one size."""
    ensembles = dict.fromkeys(result.ensemble for result in results)
    count = "1 ensemble" if len(ensembles) == 1 else f"{len(ensembles)} ensembles"
    return f"\n{len(results[0].ensemble)} voices, {count}: SI-SDR mean / median in dB"


def format_table(
    results: Iterable[VoiceScores], columns: Mapping[str, Callable[[Sequence[VoiceScores]], Values]]
) -> Iterator[str]:
    """Yield a table with a row per system and source of f0; a column says which scores of its results it averages."""
    widths = [max(_CELL, 2 + len(heading)) for heading in columns]
    yield f"{'system':<{_NAME}}{'f0':<{_F0}}" + "".join(map(str.rjust, columns, widths))
    for (system, f0), rows in _grouped(results, "system", "f0"):
        cells = ["{:.2f} / {:.2f}".format(*mean_median(values(rows))) for values in columns.values()]
        yield f"{system:<{_NAME}}{f0:<{_F0}}" + "".join(map(str.rjust, cells, widths))


def _grouped(results: Iterable[VoiceScores], *fields: str) -> list[tuple[Any, list[VoiceScores]]]:
    """Return results grouped by the values of some fields, in order of appearance."""
    groups: dict[Any, list[VoiceScores]] = {}
    for result in results:
        groups.setdefault(attrgetter(*fields)(result), []).append(result)
    return list(groups.items())


def _pooled(results: Iterable[VoiceScores], metric: str, voices: Sequence[str]) -> Values:
    """Return the scores of all frames of some voices."""
    return np.concatenate([np.zeros(0), *(r.scores[metric] for r in results if r.voice in voices)])


def format_costs(systems: Mapping[str, LoadedSystem]) -> Iterator[str]:
    """Yield the lines of a table of the training data, the parameters and the training time of each system."""
    yield "\nTraining: seconds of mixture, and time"
    headings = ("learns from", "parameters", "training audio", "training")
    yield f"{'system':<{_NAME}}" + "".join(f"{heading:>{_CELL}}" for heading in headings) + "  description"
    for name, loaded in systems.items():
        system = SYSTEMS[name]
        parameters, audio, training = "", "", ""
        if system.network is not None:
            network = load_network(loaded.weights, NETWORKS[system.network].network)
            parameters, audio, training = f"{parameter_count(network):,}", "unknown", "unknown"
        if loaded.run is not None:
            audio, training = f"{loaded.run.audio_seconds:.1f} s", f"{loaded.run.training_seconds / 60:.1f} min"
        cells = (system.learns_from, parameters, audio, training)
        yield f"{name:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells) + f"  {system.title}"


def write_csv(path: Path, results: Sequence[VoiceScores], voices: Sequence[str]) -> None:
    """Write mean, median and number of frames of all scores to a CSV file.

    There is a row for each ensemble, and for all ensembles of a size ("all"), by room, system, source of f0, metric and
    voice, and for all voices ("all").
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["voices", "ensemble", "room", "system", "f0", "metric", "voice", "mean", "median", "frames"])
    ordered = sorted(results, key=lambda result: -len(result.ensemble))
    groups = [("+".join(ensemble), list(group)) for ensemble, group in groupby(ordered, lambda r: r.ensemble)]
    groups += [("all", list(group)) for _, group in groupby(ordered, lambda r: len(r.ensemble))]
    for label, group in groups:
        for key, rows in _grouped(group, "room", "system", "f0"):
            sung = [voice for voice in voices if any(row.voice == voice for row in rows)]
            for metric in rows[0].scores:
                for voice, pool in {"all": sung, **{voice: [voice] for voice in sung}}.items():
                    values = _pooled(rows, metric, pool)
                    averages = [f"{value:.4f}" for value in mean_median(values)]
                    writer.writerow([len(rows[0].ensemble), label, *key, metric, voice, *averages, values.size])
    write_file(path, stream.getvalue().encode())
