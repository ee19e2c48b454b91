"""`vocalsep benchmark-data`: how well systems do with little audio to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.benchmark import train_option
from vocalsep.cli.options import device_option, existing_path


@click.command("benchmark-data", short_help="Compare systems trained on little audio.")
@click.argument("folder", type=existing_path())
@click.option("--singer", default="3", show_default=True, help="Whose quartet to separate: PART_SINGER files.")
@train_option
@click.option(
    "--seconds",
    type=float,
    multiple=True,
    default=(20.0, 40.0, 80.0, 160.0),
    show_default=True,
    help="Seconds of mixture to train on; several times for several.",
)
@click.option(
    "-o", "--out", type=existing_path(), default=Path("runs/data"), show_default=True, help="Folder of the networks."
)
@click.option(
    "--system", "names", multiple=True, metavar="NAME", help="Train this system.  [default: vocalsep, us, unet]"
)
@click.option("--steps", default=200, show_default=True, help="Optimisation steps of each training.")
@click.option("--seed", default=0, show_default=True, help="Of all that training leaves to chance.")
@click.option("--retrain", is_flag=True, help="Train again what is there.")
@click.option(
    "--crepe", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True, help="For f0 of stems."
)
@click.option("--plot", "picture", type=existing_path(), help="PNG to draw the curves into (needs vocalsep[plot]).")
@click.option("--csv", "table", type=existing_path(), help="File for the scores.  [default: OUT/data.csv]")
@device_option
def benchmark_data(
    folder: Path,
    singer: str,
    training: tuple[str, ...],
    seconds: tuple[float, ...],
    out: Path,
    names: tuple[str, ...],
    steps: int,
    seed: int,
    retrain: bool,
    crepe: str,
    picture: Path | None,
    table: Path | None,
    device: str,
) -> None:
    """Train systems on less and more audio and print how well they separate the quartet of one singer in FOLDER.

    FOLDER and the folders of --train hold recordings as for `vocalsep benchmark`. Of every take its share is used,
    from the first sung note on; more seconds than there are become all there are. What is trained stays in OUT and is
    found again, so that a run that was broken off goes on where it was. SI-SDR, mean / median in dB, with f0 of
    CREPE on the stems.
    """
    from vocalsep.device import resolve_device
    from vocalsep.errors import OptionError
    from vocalsep.evaluation import benchmark as bench
    from vocalsep.evaluation import data_efficiency as efficiency
    from vocalsep.evaluation.runs import Settings, TrainingData

    if not training:
        raise OptionError("there is nothing to train on; expected --train FOLDER:SINGERS")
    ensemble = bench.load_ensemble(folder, singer)
    data = TrainingData(training)
    found = resolve_device(device)
    _tell("Tracking f0 ...")
    tracks = bench.stem_tracks(ensemble, crepe)
    amounts = efficiency.amounts(data, seconds)
    if amounts[-1] < max(seconds):
        _tell(f"Note: {max(seconds):g} s are asked for; there are {amounts[-1]:g} s, which are used instead.")
    points = []
    for point in efficiency.learning_curves(
        ensemble,
        tracks,
        names or efficiency.LEARNERS,
        data,
        amounts,
        Settings(data.names, steps, seed),
        out,
        device=found,
        retrain=retrain,
        report=_tell,
    ):
        points.append(point)
        efficiency.write_csv(table or out / "data.csv", points, ensemble.names)
    click.echo(f"{folder}, singer {singer}, trained on {', '.join(data.names)}, {steps} steps, f0 by CREPE {crepe}")
    for line in efficiency.format_points(points, ensemble.names):
        click.echo(line)
    if picture is not None:
        efficiency.plot(picture, points, title=f"Quartet of a singer never heard, {steps} steps")
        click.echo(str(picture))


def _tell(line: str) -> None:
    click.echo(line, err=True)
