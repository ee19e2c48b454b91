"""`vocalsep adapt`: weights for one choir."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from vocalsep.cli.base import Command
from vocalsep.cli.options import (
    PATH,
    adapt_seconds_option,
    f0_option,
    f0_tracks,
    guides_option,
    network_options,
    voices_option,
)

_GROUPS = {
    "Voices": ("voices", "f0s", "guides"),
    "Training": ("steps", "seconds", "seed"),
    "Weights": ("model", "tracker", "crepe"),
    "Output": ("out", "overwrite"),
}


@click.command(cls=Command, option_groups=_GROUPS, short_help="Adapt weights to recordings of one choir.")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Checkpoint folder to write.")
@voices_option()
@f0_option
@guides_option
@network_options
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True, help="Number of training steps.")
@adapt_seconds_option("--seconds")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that exists.")
def adapt(
    files: tuple[Path, ...],
    out: Path,
    voices: str | None,
    f0s: Path | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    model: str,
    steps: int,
    seconds: float | None,
    seed: int,
    device: str,
    overwrite: bool,
) -> None:
    """Adapt the weights to one choir, so that its recordings separate better.

    FILES are recordings of the choir; no stems are needed. A part of the recordings is held back to check that the
    new weights are better; if they are not, the old ones are written.

    \b
    vocalsep adapt concert1.wav concert2.wav -o my_choir
    vocalsep separate concert3.wav -n my_choir
    """
    from vocalsep import weights
    from vocalsep.audio import AudioReader
    from vocalsep.audio.downmix import Downmix
    from vocalsep.errors import OptionError, OutputError, printable
    from vocalsep.files import check_place
    from vocalsep.separation.separator import Separator
    from vocalsep.training.adaptation import adapt as adapt_to

    if len(files) > 1 and (f0s or guides):
        raise OptionError(f"f0 tracks belong to one recording, but there are {len(files)}", parameter="f0s")
    if (out.is_file() or (out / "model.safetensors").exists()) and not overwrite:
        raise OutputError(f"{printable(out)} exists; choose another folder, or replace it", parameter="overwrite")
    check_place(out / "model.safetensors")
    tracks = f0_tracks(f0s, guides, voices, crepe, device)
    separator = Separator(model, device, tracker=tracker, crepe=crepe)
    with ExitStack() as stack:
        recordings = []
        for path in files:
            with AudioReader(path) as reader:
                downmix = stack.enter_context(Downmix.of_recording(reader))
            click.echo(f"{printable(path)}: {'tracking' if tracks is None else 'reading'} f0 ...", err=True)
            recordings.append((downmix, separator.track(downmix, tracks, voices)))
        adapted = adapt_to(separator, recordings, steps=steps, seconds=seconds, seed=seed)
    weights.save_checkpoint(out, adapted.separator.estimator)
    click.echo(f"{printable(out)}: {adapted}")
