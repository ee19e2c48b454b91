"""`vocalsep f0`: the f0 tracks of a recording as CSV, as a picture and as notes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocalsep.cli.options import (
    crepe_option,
    device_option,
    existing_path,
    given_tracks,
    guides_option,
    model_option,
    refine_option,
    tracker_option,
    voices_option,
)

if TYPE_CHECKING:
    from vocalsep.f0.tracks import F0Tracks


@click.command()
@click.argument("file", type=existing_path())
@click.option(
    "-o",
    "--out",
    type=existing_path(),
    help="CSV to write: time and a column for each voice. Default: NAME.csv in this folder.",
)
@voices_option
@guides_option
@crepe_option
@tracker_option
@refine_option
@model_option
@device_option
@click.option(
    "--per-voice",
    is_flag=True,
    help="Write a folder of two-column files (Sonic Visualiser, mir_eval) instead of one table.",
)
@click.option("--picture/--no-picture", default=True, show_default=True, help="Draw the tracks over the spectrogram.")
@click.option("--midi", type=existing_path(), metavar="FILE", help="Write the notes of every voice as MIDI, too.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist already.")
def f0(
    file: Path,
    out: Path | None,
    voices: str | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    refine: int | None,
    model: str,
    device: str,
    per_voice: bool,
    picture: bool,
    midi: Path | None,
    overwrite: bool,
) -> None:
    """Track the f0 of every voice in FILE.

    The CSV can be corrected and given back to `vocalsep separate --f0`. The picture lies beside it, as .png; it
    needs the extra vocalsep[plot]. The notes of --midi are rounded to semitones of the choir's own tuning.
    """
    from vocalsep.audio import AudioReader
    from vocalsep.audio.downmix import Mixdown
    from vocalsep.errors import MissingExtraError
    from vocalsep.f0.plot import save_picture
    from vocalsep.separation.separator import Separator
    from vocalsep.timebase import MODEL_SAMPLE_RATE

    target = out or Path(file.stem if per_voice else f"{file.stem}.csv")
    image = target.parent / f"{target.name if per_voice else target.stem}.png" if picture else None
    _check_targets(file, [path for path in (target, image) if path is not None], midi, overwrite)
    given = given_tracks(None, guides, voices, crepe, device)
    separator = Separator(model, device, tracker=tracker)
    with AudioReader(file) as reader, Mixdown.of_recording(reader) as mixdown:
        tracks = separator.track(mixdown, given, voices=voices, refine=refine)
        _write(tracks, target, per_voice, midi)
        if image is not None:
            try:
                save_picture(image, mixdown, MODEL_SAMPLE_RATE, tracks)
                click.echo(image)
            except MissingExtraError as error:
                click.echo(f"No picture: {error}", err=True)


def _write(tracks: F0Tracks, target: Path, per_voice: bool, midi: Path | None) -> None:
    if per_voice:
        for path in tracks.to_csv_per_voice(target):
            click.echo(path)
    else:
        tracks.to_csv(target)
        click.echo(target)
    if midi is not None:
        tracks.to_midi(midi)
        click.echo(midi)


def _check_targets(file: Path, targets: list[Path], midi: Path | None, overwrite: bool) -> None:
    from vocalsep.errors import OptionError

    if midi is not None and midi.suffix.lower() not in (".mid", ".midi"):
        raise OptionError(f"--midi: {midi} is no name of a MIDI file; expected one such as {file.stem}.mid")
    taken = {file.resolve()}
    for path in [*targets, midi] if midi is not None else targets:
        if path.resolve() in taken:
            raise OptionError(f"{path} is the recording or another output; expected a file of its own for each")
        taken.add(path.resolve())
        if path.exists() and not overwrite:
            raise OptionError(f"{path} exists; use --overwrite to replace it or name another file")
