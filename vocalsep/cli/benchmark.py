"""`vocalsep benchmark`: the development table and the speed."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import device_option, existing_path, model_option, tracker_option


@click.command()
@click.argument("folder", type=existing_path())
@click.option("--singer", default="3", show_default=True, help="Whose quartet to separate: PART_SINGER files.")
@click.option(
    "--crepe", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True, help="For f0 of stems."
)
@click.option("--speed/--no-speed", default=True, show_default=True, help="Also time a minute of 44.1 kHz stereo.")
@tracker_option
@model_option
@device_option
def benchmark(folder: Path, singer: str, crepe: str, speed: bool, tracker: str, model: str, device: str) -> None:
    """Separate the quartet of one singer of each part in FOLDER and print SI-SDR (mean / median, dB).

    FOLDER holds recordings of single parts in time with one another, named soprano_3.flac and so on, or
    soprano.flac. The weights must not have been trained on the singer. Protocol: excerpts of 4 s without the first,
    1-s frames.
    """
    from vocalsep.evaluation import benchmark as bench
    from vocalsep.separator import Separator

    separator = Separator(model, device, tracker=tracker)
    ensemble = bench.load_ensemble(folder, singer)
    if model == "default" or tracker == "tracker":
        click.echo("Note: the bundled weights have heard the data sets of their model card; judge others.", err=True)
    tracks = bench.tracking(ensemble, separator, crepe=crepe)
    click.echo(f"{folder}, singer {singer}, weights {model}, tracker {tracker}, CREPE {crepe}")
    click.echo("SI-SDR mean / median in dB")
    for line in bench.format_table(bench.quality(ensemble, separator, tracks), ensemble.names):
        click.echo(line)
    measure = tracks.f_measure
    each = ", ".join(f"{name} {value:.2f}" for name, value in zip(ensemble.names, measure, strict=True))
    click.echo(f"f0 from the mixture: F at 50 cents {measure.mean():.2f} ({each})")
    if speed:
        timing = bench.speed(ensemble, separator)
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timing.stages.items())
        click.echo(
            f"speed: {timing.duration:.0f} s of 44.1 kHz stereo take {timing.ratio:.2f} of real time on "
            f"{separator.device} ({stages})"
        )
