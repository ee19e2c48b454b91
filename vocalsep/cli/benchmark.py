"""`vocalsep benchmark`: the systems side by side, in one table for each number of voices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocalsep.cli.options import device_option, existing_path, model_option, tracker_option

if TYPE_CHECKING:
    from vocalsep.evaluation.benchmark import Ensemble, Result
    from vocalsep.separation.separator import Separator

train_option = click.option(
    "--train",
    "training",
    multiple=True,
    metavar="FOLDER[:NAMES]",
    help="Folder of single singers of one piece (soprano_1.flac, ...) to train on; after a colon, which of them to use "
    "(nino_dios:1,2). May be given several times.",
)


@click.command(short_help="Compare systems on ensembles of single singers.")
@click.argument("folder", type=existing_path())
@click.option("--singer", default="3", show_default=True, help="Whose quartet to separate: PART_SINGER files.")
@click.option(
    "--parts", default="soprano,alto,tenor,bass", show_default=True, help="The voices in FOLDER, from high to low."
)
@train_option
@click.option(
    "-o",
    "--out",
    type=existing_path(),
    help="Folder of the trained networks, which are found again in it.  [default: runs/benchmark, with --train]",
)
@click.option("--steps", type=int, help="Optimisation steps of each training.  [default: the system's own]")
@click.option("--seed", default=0, show_default=True, help="Of all that training leaves to chance.")
@click.option("--retrain", is_flag=True, help="Train again what is there.")
@click.option(
    "--system", "names", multiple=True, metavar="NAME", help="Only this system; several times for several.  [all]"
)
@click.option(
    "--voices", "sizes", metavar="N,N", help="Numbers of voices of the ensembles, such as 4,2.  [default: all]"
)
@click.option(
    "--crepe", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True, help="For f0 of stems."
)
@click.option(
    "--speed/--no-speed", default=True, show_default=True, help="Also time a 4-s take, and a minute of 44.1 kHz stereo."
)
@click.option("--csv", "table", type=existing_path(), help="File for all scores, of each ensemble and voice.")
@tracker_option
@model_option
@device_option
@click.pass_context
def benchmark(
    ctx: click.Context,
    folder: Path,
    singer: str,
    parts: str,
    training: tuple[str, ...],
    out: Path | None,
    steps: int | None,
    seed: int,
    retrain: bool,
    names: tuple[str, ...],
    sizes: str | None,
    crepe: str,
    speed: bool,
    table: Path | None,
    tracker: str,
    model: str,
    device: str,
) -> None:
    """Separate ensembles of the single singers in FOLDER by several systems and print how well they do it.

    FOLDER holds recordings of single parts in time with one another, named soprano_3.flac and so on, or
    soprano.flac. With --train, networks are trained first, on singers that must be others; without it, the systems
    that learn nothing are compared with the weights of --model, which must not have heard the singer. --model stands
    for the weights that would be trained without stems. SI-SDR, mean / median in dB: excerpts of 4 s without the
    first, 1-s frames, of all quartets, trios and duets of the parts.
    """
    from vocalsep.device import resolve_device
    from vocalsep.errors import OptionError
    from vocalsep.evaluation import benchmark as bench
    from vocalsep.evaluation import benchmark_tables as tables
    from vocalsep.evaluation.lineup import line_up
    from vocalsep.evaluation.runs import Settings, TrainingData
    from vocalsep.separation.separator import Separator

    if retrain and not training:
        raise OptionError("--retrain needs something to train on; expected --train")
    ensemble = bench.load_ensemble(folder, singer, [part.strip() for part in parts.split(",") if part.strip()])
    members = bench.subsets(ensemble, _sizes(sizes, len(ensemble.names)))
    given = ctx.get_parameter_source("model") is not click.core.ParameterSource.DEFAULT
    data = TrainingData(training) if training else None
    entrants = line_up(
        names,
        data,
        Settings(data.names if data else (), steps, seed),
        out or (Path("runs/benchmark") if training else None),
        model=model if given or not (training or out) else None,
        device=resolve_device(device),
        retrain=retrain,
        report=_tell,
    )
    default = any(entrant.weights == "default" for entrant in entrants.values())
    if default or tracker == "tracker":
        _tell("Note: the bundled weights have heard the data sets of their model card; judge others.")
    separator = Separator(model, device, tracker=tracker)
    ready = {name: entrant.ready for name, entrant in entrants.items()}
    _tell(f"{ensemble.label}: f0 of the stems")
    of_stems = bench.stem_tracks(ensemble, crepe)
    click.echo(f"{folder}, singer {singer}, weights {model}, tracker {tracker}, CREPE {crepe}")
    click.echo("f0: from the stems by CREPE; from the mixture by the tracker; or refined after that, as users get it")
    results: list[Result] = []
    pools: dict[int, list[Result]] = {}
    for size in dict.fromkeys(len(member.names) for member in members):
        group = [member for member in members if len(member.names) == size]
        measures = []
        found: list[Result] = []
        for member in group:
            tracks = bench.tracking(member, separator, of_stems)
            measures.append(float(tracks.f_measure.mean()))
            found += bench.evaluate(
                member, ready, tracks, ideal=separator if not names or bench.IDEAL in names else None, report=_tell
            )
        pools[size] = tables.pooled(found, ensemble.names)
        results += found
        _print_scores(group, pools[size], found, measures)
    costs = {}
    for name, entrant in entrants.items():
        milliseconds = bench.excerpt_milliseconds(ensemble, of_stems, entrant.ready.separate) if speed else None
        costs[name] = entrant.cost(milliseconds)
    click.echo("\nWhat they need: parameters, seconds of mixture to train on, minutes of training, time for 4 s")
    for line in tables.format_costs(costs, {name: entrant.title for name, entrant in entrants.items()}):
        click.echo(line)
    if table is not None:
        tables.write_csv(table, results, pools)
        click.echo(str(table))
    if speed:
        _print_speed(ensemble, separator)


def _print_scores(group: list[Ensemble], rows: list[Result], results: list[Result], measures: list[float]) -> None:
    from vocalsep.evaluation import benchmark_tables as tables

    labels = " ".join(member.label for member in group)
    click.echo(f"\n{len(group[0].names)} voices ({labels}): SI-SDR mean / median in dB")
    for line in tables.format_scores(rows):
        click.echo(line)
    click.echo(f"f0 from the mixture: F at 50 cents {sum(measures) / len(measures):.2f}")
    for line in tables.below_comb(results):
        click.echo(line)
    click.echo("\nOn spectrograms, mean / median: SNR and SI-SNR in dB, mel-cepstral distance (less is better)")
    for line in tables.format_spectral(rows):
        click.echo(line)


def _print_speed(ensemble: Ensemble, separator: Separator) -> None:
    from vocalsep.evaluation import benchmark as bench

    timing = bench.speed(ensemble, separator)
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timing.stages.items())
    click.echo(
        f"speed: {timing.duration:.0f} s of 44.1 kHz stereo take {timing.ratio:.2f} of real time on "
        f"{separator.device} ({stages})"
    )


def _sizes(text: str | None, voices: int) -> list[int]:
    """Return the numbers of voices that "4,2" names, greatest first; by default all from 2 on."""
    from vocalsep.errors import OptionError

    if text is None:
        return list(range(voices, 1, -1))
    try:
        return sorted({int(word) for word in text.split(",")}, reverse=True)
    except ValueError as error:
        raise OptionError(f"--voices is {text!r}; expected numbers of voices, such as 4,3,2") from error


def _tell(line: str) -> None:
    click.echo(line, err=True)
