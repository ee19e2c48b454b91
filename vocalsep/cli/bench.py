"""`vocalsep bench`: how good separation and tracking are, how much data they need, and how fast they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vocalsep.cli.base import Group
from vocalsep.cli.options import (
    PATH,
    crepe_option,
    device_option,
    masks_options,
    model_option,
    network_options,
    together,
    tracker_option,
)
from vocalsep.options import NetworkOptions

if TYPE_CHECKING:
    from vocalsep.audio import Float32
    from vocalsep.evaluation.ensemble import Ensemble
    from vocalsep.evaluation.separation import LoadedSystem, VoiceScores
    from vocalsep.f0.tracks import F0Tracks
    from vocalsep.separation.separator import Separator


def _list(kind: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a callback that splits a list at its commas and converts each item to `kind`."""

    def convert(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Any, ...]:
        try:
            return tuple(kind(word.strip()) for word in (value or "").split(",") if word.strip())
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a list of numbers, such as 4,2") from None

    return convert


folder_argument = click.argument("folder", type=PATH)
singer_option = click.option(
    "--singer",
    metavar="LIST",
    callback=_list(str),
    default="3",
    show_default=True,
    help="Singer of each part: files named PART_SINGER, or else PART. Several, such as 1,2, are a section.",
)
ensemble_options = together(
    folder_argument,
    singer_option,
    click.option(
        "--parts",
        metavar="LIST",
        callback=_list(str),
        default="soprano,alto,tenor,bass",
        show_default=True,
        help="Parts, high to low.",
    ),
    click.option(
        "--voices",
        "sizes",
        metavar="LIST",
        callback=_list(int),
        help="Numbers of voices of the ensembles, such as 4,2. Default: all from 2.",
    ),
)
score_options = together(
    click.option("--systems", "names", metavar="LIST", callback=_list(str), help="Systems to compare. Default: all."),
    click.option("--csv", "table", type=PATH, help="Write all scores to this CSV file."),
)
training_options = together(
    click.option(
        "--train",
        "singers",
        multiple=True,
        metavar="FOLDER[:NAMES]",
        help="Folder of single singers of one piece to train networks on; after a colon, the singers to use "
        "(nino_dios:1,2). Can be repeated.",
    ),
    click.option(
        "-o",
        "--out",
        type=PATH,
        default=Path("runs/bench"),
        show_default=True,
        help="Folder of the trained networks; networks that it holds are not trained again.",
    ),
    click.option("--seed", default=0, show_default=True, help="Random seed of the training."),
)

ENSEMBLES = {"Ensembles": ("singer", "parts", "sizes")}
TRAINING = {"Training": ("singers", "seconds", "out", "steps", "seed")}
ROOMS = {"Rooms": ("rooms", "chosen")}
NETWORKS = {"Networks": ("model", "tracker", "crepe", "masks", "device")}


@click.group(cls=Group, short_help="Measure separation, tracking and speed.")
def bench() -> None:
    """Measure separation and tracking on recordings whose stems are known, and speed on any recording."""


@bench.command(short_help="Compare systems.", option_groups={**ENSEMBLES, **ROOMS, **TRAINING, **NETWORKS})
@ensemble_options
@score_options
@click.option(
    "--rooms",
    type=PATH,
    help="Folder of impulse responses: put the ensembles into these rooms, and separate with and without the model of "
    "the room.",
)
@click.option(
    "--room", "chosen", metavar="LIST", callback=_list(str), help="Use these responses in the folder. Default: all."
)
@training_options
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps of each training, which ends earlier if validation stops improving. Default: set by system.",
)
@network_options
@masks_options
@click.pass_context
def separation(
    ctx: click.Context,
    folder: Path,
    singer: tuple[str, ...],
    parts: tuple[str, ...],
    sizes: tuple[int, ...],
    names: tuple[str, ...],
    table: Path | None,
    rooms: Path | None,
    chosen: tuple[str, ...],
    singers: tuple[str, ...],
    out: Path,
    steps: int | None,
    seed: int,
    model: str,
    tracker: str,
    crepe: str,
    masks: str,
    device: str,
) -> None:
    """Compare systems on mixtures of the single singers in FOLDER.

    \b
    vocalsep bench separation nino_dios --singer 3 --train nino_dios:1,2

    FOLDER holds recordings of single parts that are in time with one another, named soprano_3.flac or soprano.flac.
    Their ensembles are mixed and separated, with f0 tracked in the stems and in the mixture; vocalsep also
    estimates the room. Prints SI-SDR and metrics on spectrograms, mean / median over frames of 1 s, by the protocol
    of the published figures.

    Networks are first trained on the singers of --train, which must not include --singer. To resume an interrupted
    training, give the same command again. With -n, or without --train, vocalsep uses the weights of -n. The bundled
    weights were trained on the data sets in their model cards, so their scores count on other recordings only.

    With --rooms, nothing is trained: vocalsep with the weights of -n separates every ensemble dry and in each room,
    with and without the model of the room, and with the masks corrected by --masks; the stems in the room are the
    targets. F0 is that of the dry stems, or tracked in the mixture. Also prints the reverberation time and the
    direct-to-reverberant ratio, true and estimated.
    """
    from vocalsep.evaluation.ensemble import f0_of_stems, load_ensemble, subsets
    from vocalsep.evaluation.rooms import load_rooms
    from vocalsep.evaluation.separation import load_systems, write_csv
    from vocalsep.evaluation.trained import TrainedNetworks
    from vocalsep.files import check_place
    from vocalsep.separation.separator import Separator

    if table is not None:
        check_place(table)
    if rooms is not None and (names or singers):
        raise click.UsageError("--rooms measures vocalsep alone, as it is; omit --systems and --train")
    quartet = load_ensemble(folder, singer, parts)
    ensembles = subsets(quartet, sizes)
    separator = Separator(model, device, tracker=tracker, crepe=crepe, masks=masks)
    weights: str | Path = model
    if rooms is not None:
        measure = partial(_measure_in_rooms, load_rooms(rooms, chosen))
    else:
        networks = TrainedNetworks(out, singers, separator, steps=steps, seed=seed, report=_report)
        if singers and ctx.get_parameter_source("model") is click.core.ParameterSource.DEFAULT:
            weights = out
        systems = load_systems(names, networks, None if weights is out else model, _report)
        measure = partial(_measure_systems, systems)
    _report("tracking the f0 of the stems")
    truth = f0_of_stems(quartet, separator.crepe)
    click.echo(f"{folder}, singer {','.join(singer)}; {weights}, {tracker}, {crepe}")
    by_size = [list(group) for _, group in groupby(ensembles, lambda ensemble: len(ensemble.names))]
    results = measure(by_size, truth, separator)
    if table is not None:
        write_csv(table, results, quartet.names)


def _measure_systems(
    systems: Mapping[str, LoadedSystem], by_size: Sequence[Sequence[Ensemble]], truth: F0Tracks, separator: Separator
) -> list[VoiceScores]:
    """Print the tables of systems, one for each size of ensembles; return the scores."""
    from vocalsep.evaluation import separation as scores

    results = []
    for ensembles in by_size:
        found = list(scores.evaluate(ensembles, systems, truth, separator, _report))
        _print(scores.format_tables(found, truth.names))
        results += found
    _print(scores.format_costs(systems))
    return results


def _measure_in_rooms(
    rooms: Mapping[str, Float32], by_size: Sequence[Sequence[Ensemble]], truth: F0Tracks, separator: Separator
) -> list[VoiceScores]:
    """Print the tables of rooms, one for each size of ensembles; return the scores."""
    from vocalsep.evaluation import rooms as scores

    results = []
    for ensembles in by_size:
        found = list(scores.evaluate_in_rooms(ensembles, rooms, truth, separator, _report))
        _print(scores.format_scores(found))
        results += found
    _print(scores.format_rooms(results))
    return [score for result in results for score in result.scores]


@bench.command(short_help="Score f0 tracks.", option_groups={**ENSEMBLES, **NETWORKS})
@ensemble_options
@click.option("--robustness", is_flag=True, help="Also track under reverberation, noise, mp3, detuning and at 8 kHz.")
@tracker_option
@crepe_option
@device_option
def tracking(
    folder: Path,
    singer: tuple[str, ...],
    parts: tuple[str, ...],
    sizes: tuple[int, ...],
    robustness: bool,
    tracker: str,
    crepe: str,
    device: str,
) -> None:
    """Score the f0 tracks of mixtures of the single singers in FOLDER.

    \b
    vocalsep bench tracking nino_dios --singer 3 --robustness

    FOLDER holds recordings as for `vocalsep bench separation`. The truth is CREPE's f0 of each recording alone; a pitch
    is right within 50 cents. The bundled weights were trained on the data sets in their model cards, so their scores
    count on other recordings only.
    """
    from vocalsep.evaluation import tracking as scores
    from vocalsep.evaluation.ensemble import f0_of_stems, load_ensemble, subsets
    from vocalsep.evaluation.f0_metrics import require_mir_eval
    from vocalsep.separation.separator import Separator

    require_mir_eval()
    quartet = load_ensemble(folder, singer, parts)
    ensembles = subsets(quartet, sizes)
    separator = Separator(device=device, tracker=tracker, crepe=crepe)
    truth = f0_of_stems(quartet, separator.crepe)
    labels = " ".join(ensemble.label for ensemble in ensembles)
    click.echo(f"{folder}, singer {','.join(singer)}, {labels}; {tracker}, {crepe}\n")
    tracked = [scores.track_ensemble(separator, ensemble, truth) for ensemble in ensembles]
    _print(scores.format_tables(tracked, quartet.names))
    if robustness:
        click.echo()
        _print(scores.format_robustness(separator, ensembles, truth, quartet.names))


@bench.command(
    "data-efficiency",
    short_help="Train on less and more audio.",
    option_groups={**ENSEMBLES, **TRAINING, **NETWORKS},
)
@folder_argument
@singer_option
@training_options
@click.option(
    "--seconds",
    metavar="LIST",
    callback=_list(float),
    default="20,40,80,160",
    show_default=True,
    help="Seconds of mixture to train on; at most as much as there is.",
)
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True, help="Steps of each training.")
@score_options
@click.option("--plot", "picture", type=PATH, help="Draw the curves into this PNG file (needs vocalsep[plot]).")
@crepe_option
@device_option
def data_efficiency(
    folder: Path,
    singer: tuple[str, ...],
    singers: tuple[str, ...],
    seconds: tuple[float, ...],
    names: tuple[str, ...],
    out: Path,
    steps: int,
    seed: int,
    picture: Path | None,
    table: Path | None,
    crepe: str,
    device: str,
) -> None:
    """Train systems on different amounts of audio and compare them on the quartet of one singer in FOLDER.

    \b
    vocalsep bench data-efficiency nino_dios --singer 3 --train nino_dios:1,2 --plot data.png

    FOLDER and the folders of --train hold recordings as for `vocalsep bench separation`. Training uses the same
    fraction of every recording, from the first sung note on. To resume an interrupted run, give the same command again.
    Prints SI-SDR, mean / median in dB, with f0 tracked in the stems.
    """
    from vocalsep.errors import OptionError
    from vocalsep.evaluation import data_efficiency as scores
    from vocalsep.evaluation.ensemble import f0_of_stems, load_ensemble
    from vocalsep.evaluation.trained import TrainedNetworks
    from vocalsep.separation.separator import Separator

    if not singers:
        raise OptionError("there is nothing to train on; expected a folder of single singers", parameter="singers")
    ensemble = load_ensemble(folder, singer)
    separator = Separator(device=device, crepe=crepe)
    networks = TrainedNetworks(out, singers, separator, steps=steps, seed=seed, report=_report)
    truth = f0_of_stems(ensemble, separator.crepe)
    points = []
    for point in scores.learning_curves(ensemble, truth, names or scores.LEARNERS, networks, seconds):
        points.append(point)
        if table is not None:
            scores.write_csv(table, points)
    click.echo(f"{folder}, singer {','.join(singer)}, {steps} steps, {crepe}")
    _print(scores.format_points(points))
    if picture is not None:
        scores.plot(picture, points)


@bench.command(short_help="Time a separation.", option_groups=NETWORKS)
@click.argument("file", type=PATH)
@click.option(
    "--minutes", metavar="LIST", callback=_list(float), help="Also separate files of these lengths, such as 5,60."
)
@model_option
@tracker_option
@masks_options
@device_option
def speed(file: Path, minutes: tuple[float, ...], model: str, tracker: str, masks: str, device: str) -> None:
    """Print how long the stages of a separation take, and with --minutes time and peak memory for whole files.

    \b
    vocalsep bench speed choir.wav --minutes 5,60

    FILE is repeated until it lasts a minute, or as long as --minutes says, as 44.1 kHz stereo. Each file is separated
    in a process of its own. An hour needs 3 GB in the folder for temporary files (TMPDIR).
    """
    from vocalsep.evaluation import speed as timing
    from vocalsep.separation.separator import Separator

    waveform = timing.load_stereo(file)
    networks = NetworkOptions(model, tracker, masks=masks, device=device)
    if minutes:
        _print(timing.format_file_costs(timing.measure_file(waveform, length, networks) for length in minutes))
    separator = Separator(model, device, tracker=tracker, masks=masks)
    _print(timing.format_stages(timing.time_stages(separator, waveform), separator.device))


def _report(line: str) -> None:
    click.echo(line, err=True)


def _print(lines: Any) -> None:
    for line in lines:
        click.echo(line)
