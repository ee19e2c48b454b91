"""`vocalsep f0`: the f0 tracks of a recording as CSV and as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import crepe_option, existing_path, given_tracks, guides_option, voices_option


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
@click.option(
    "--per-voice",
    is_flag=True,
    help="Write a folder of two-column files (Sonic Visualiser, mir_eval) instead of one table.",
)
@click.option("--picture/--no-picture", default=True, show_default=True, help="Draw the tracks over the spectrogram.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist already.")
def f0(
    file: Path,
    out: Path | None,
    voices: str | None,
    guides: Path | None,
    crepe: str,
    per_voice: bool,
    picture: bool,
    overwrite: bool,
) -> None:
    """Track the f0 of every voice in FILE.

    The CSV can be corrected and given back to `vocalsep separate --f0`. The picture lies beside it, as .png; it
    needs the extra vocalsep[plot].
    """
    from vocalsep import audio
    from vocalsep.errors import MissingExtraError, ParameterError
    from vocalsep.given import resolve_tracks

    target = out or Path(file.stem if per_voice else f"{file.stem}.csv")
    image = target.parent / f"{target.name if per_voice else target.stem}.png"
    if {target.resolve(), image.resolve()} & {file.resolve()} or (picture and target == image):
        raise ParameterError(f"{target} is the recording or the picture; use -o for another file, such as NAME.csv")
    for path in (target, image) if picture else (target,):
        if path.exists() and not overwrite:
            raise ParameterError(f"{path} exists; use --overwrite to replace it or -o for another file")
    waveform, sample_rate = audio.read(file)
    tracks = resolve_tracks(
        given_tracks(None, guides, voices, crepe), voices, audio.to_model_rate(waveform, sample_rate)
    )
    if per_voice:
        for path in tracks.to_csv_per_voice(target):
            click.echo(path)
    else:
        tracks.to_csv(target)
        click.echo(target)
    if picture:
        from vocalsep.picture import save_picture

        try:
            save_picture(image, waveform, sample_rate, tracks)
            click.echo(image)
        except MissingExtraError as error:
            click.echo(f"No picture: {error}", err=True)
