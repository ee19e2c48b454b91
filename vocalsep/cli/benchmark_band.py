"""`vocalsep benchmark-band`: how well masks serve above 8 kHz, on recordings at their own sample rate."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import device_option, existing_path, model_option


@click.command("benchmark-band", short_help="Score masks band by band, to above 8 kHz.")
@click.argument("folder", type=existing_path())
@click.option(
    "--takes", default=4, show_default=True, type=click.IntRange(1, 100), help="Mixtures of each group of singers."
)
@click.option(
    "--crepe", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True, help="For f0 of the singers."
)
@model_option
@device_option
def benchmark_band(folder: Path, takes: int, crepe: str, model: str, device: str) -> None:
    """Mix the solo recordings in FOLDER, separate them and print the SDR of each frequency band (dB).

    FOLDER holds recordings of solo singers at one sample rate above 16 kHz, such as 44.1 kHz; they need not be in
    time. All duets and trios of them are mixed, at one level, with several offsets, and also phrases of one long
    recording with one another. F0 is CREPE's of each recording. The weights must not have been trained on them.
    """
    from vocalsep.evaluation import full_band
    from vocalsep.separator import Separator

    separator = Separator(model, device)
    solos, sample_rate = full_band.load_solos(folder)
    if model == "default":
        click.echo("Note: the bundled weights have heard the data sets of their model card; judge others.", err=True)
    rows = [
        row
        for take in full_band.takes(solos, sample_rate, per_group=takes, crepe=crepe)
        for row in full_band.score(take, separator)
    ]
    click.echo(f"{folder}, {', '.join(solos)}, {sample_rate} Hz, weights {model}, CREPE {crepe}")
    click.echo("SI-SDR and SDR by band (kHz) in dB, means over mixtures")
    for line in full_band.format_table(rows):
        click.echo(line)
