"""`vocalsep adapt`: weights that have learned from recordings of one choir, for the next one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from vocalsep.cli.options import (
    adapt_seconds_option,
    crepe_option,
    device_option,
    existing_path,
    f0_option,
    given_tracks,
    guides_option,
    model_option,
    refine_option,
    tracker_option,
    voices_option,
)


@click.command(short_help="Adapt weights to recordings of one choir.")
@click.argument("files", nargs=-1, required=True, type=existing_path())
@click.option("-o", "--out", type=existing_path(), required=True, help="Weights to write: a .safetensors file.")
@voices_option
@f0_option
@guides_option
@crepe_option
@tracker_option
@refine_option
@model_option
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Optimisation steps at most. Default: 40.")
@adapt_seconds_option("--seconds")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the choice of excerpts.")
@device_option
@click.option("--overwrite", is_flag=True, help="Replace weights that exist already.")
def adapt(
    files: tuple[Path, ...],
    out: Path,
    voices: str | None,
    f0_path: Path | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    refine: int | None,
    model: str,
    steps: int | None,
    seconds: float | None,
    seed: int,
    device: str,
    overwrite: bool,
) -> None:
    """Adapt weights to FILES, recordings of one choir, unsupervised.

    A part of the recordings is held back; the weights are those that do best on it, which may be the ones from
    before. They serve for other recordings of the choir: `vocalsep separate -n my_choir.safetensors`.
    """
    from vocalsep import weights
    from vocalsep.audio import AudioReader
    from vocalsep.audio.downmix import Mixdown
    from vocalsep.errors import OptionError, WeightsError
    from vocalsep.files import check_place
    from vocalsep.separation.separator import Separator

    if out.suffix != ".safetensors":
        raise OptionError(f"-o is {out}; expected the name of a .safetensors file")
    if out.is_dir() or (out.exists() and not overwrite):
        raise OptionError(f"{out} exists; use --overwrite to replace it or -o for another file")
    check_place(out, ".safetensors", WeightsError)
    if len(files) > 1 and (f0_path or guides):
        raise OptionError(f"--f0 and --guides belong to one recording; got {len(files)} files")
    given = given_tracks(f0_path, guides, voices, crepe, device)
    separator = Separator(model, device, tracker=tracker)
    with ExitStack() as stack:
        recordings = []
        for source in files:
            with AudioReader(source) as reader:
                mixdown = stack.enter_context(Mixdown.of_recording(reader))
            click.echo(f"{source}: {'f0 is given' if given else 'tracking f0 ...'}", err=True)
            recordings.append((mixdown, separator.track(mixdown, given, voices=voices, refine=refine)))
        adapted = separator.adapted(recordings, steps=steps, seconds=seconds, seed=seed)
    weights.save(out, adapted.network.config.to_json(), adapted.network.state_dict())
    click.echo(f"{out}: {adapted.adaptation}")
