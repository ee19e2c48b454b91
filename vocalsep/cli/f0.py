"""`vocalsep f0`: the f0 tracks of a recording as CSV, as a picture, and as notes."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.base import Command
from vocalsep.cli.options import (
    PATH,
    crepe_option,
    device_option,
    f0_tracks,
    guides_option,
    tracker_option,
    voices_option,
)


@click.command(cls=Command)
@click.argument("file", type=PATH)
@click.option(
    "-o",
    "--out",
    type=PATH,
    help="CSV to write: time and one column per voice. Default: NAME.csv in the current folder.",
)
@voices_option("--guides")
@guides_option
@crepe_option
@tracker_option
@device_option
@click.option(
    "--per-voice",
    is_flag=True,
    help="Write a folder of two-column files (Sonic Visualiser, mir_eval) instead of one table.",
)
@click.option("--picture/--no-picture", default=True, show_default=True, help="Draw the tracks over the spectrogram.")
@click.option("--midi", type=PATH, metavar="FILE", help="Also write the notes of every voice as MIDI.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def f0(
    file: Path,
    out: Path | None,
    voices: str | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    device: str,
    per_voice: bool,
    picture: bool,
    midi: Path | None,
    overwrite: bool,
) -> None:
    """Track the f0 (the pitch curve) of every voice in FILE.

    You can correct the CSV and pass it to `vocalsep separate --f0`. The picture is written beside the CSV as .png; it
    needs the extra vocalsep[plot]. The notes of --midi are rounded to semitones of the choir's own tuning.
    """
    from vocalsep.audio import AudioReader
    from vocalsep.audio.downmix import Downmix
    from vocalsep.errors import MissingExtraError, OptionError, printable
    from vocalsep.f0.plot import save_plot
    from vocalsep.separation.separator import Separator

    table = out or Path(file.stem if per_voice else f"{file.stem}.csv")
    image = table.parent / f"{table.name if per_voice else table.stem}.png"
    if midi is not None and midi.suffix.lower() not in (".mid", ".midi"):
        raise OptionError(f"{midi} has another suffix; expected a name such as {file.stem}.mid", parameter="midi")
    _check_outputs(file, [table, *([image] if picture else []), *([midi] if midi else [])], overwrite)
    guided = f0_tracks(None, guides, voices, crepe, device)
    separator = Separator(device=device, tracker=tracker)
    with AudioReader(file) as reader, Downmix.of_recording(reader) as downmix:
        tracks = separator.analyse(downmix, guided, voices).tracks
        written = [table]
        if per_voice:
            written = tracks.to_csv_per_voice(table)
        else:
            tracks.to_csv(table)
        if midi is not None:
            tracks.to_midi(midi)
            written.append(midi)
        click.echo("\n".join(map(printable, written)))
        if picture:
            try:
                save_plot(image, downmix, tracks)
                click.echo(printable(image))
            except MissingExtraError as error:
                click.echo(f"No picture: {error}", err=True)


def _check_outputs(file: Path, outputs: list[Path], overwrite: bool) -> None:
    from vocalsep.errors import OutputError

    taken = {file.resolve()}
    for path in outputs:
        if path.resolve() in taken:
            raise OutputError(f"{path} is the recording or another output; expected a different file for each")
        taken.add(path.resolve())
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; choose another file, or replace it", parameter="overwrite")
