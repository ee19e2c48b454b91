"""`vocalsep benchmark-long`: memory and time of long recordings."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import existing_path


@click.command("benchmark-long", short_help="Show memory and time of long recordings.")
@click.argument("file", type=existing_path())
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, max=24 * 60, min_open=True),
    multiple=True,
    default=(5.0, 20.0, 60.0),
    show_default=True,
    help="Lengths to try.",
)
@click.option(
    "--folder", type=existing_path(), help="Where the recording and its stems go for a while. Default: a new one."
)
def benchmark_long(file: Path, minutes: tuple[float, ...], folder: Path | None) -> None:
    """Separate FILE, repeated to several lengths at 48 kHz in stereo, and print memory and time.

    An hour of float32 stems takes 5.5 GB on the disk.
    """
    import tempfile

    from vocalsep.evaluation.long_files import format_table, measure

    for index, length in enumerate(minutes):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            heading, row = format_table([measure(file, Path(scratch), length)])
        if not index:
            click.echo(heading)
        click.echo(row)
