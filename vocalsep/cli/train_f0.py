"""`vocalsep train-f0`: weights of the tracker, from single singers, recorded and synthetic."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import device_option, existing_path, singers_option
from vocalsep.cli.train import open_run, run


@click.command("train-f0", short_help="Train the network that tracks f0.")
@click.option(
    "-o", "--out", type=existing_path(), default=Path("runs/tracker"), show_default=True, help="Folder of the run."
)
@singers_option
@click.option("--synthetic", default=80, show_default=True, help="Pieces of 30 s sung by the synthesizer.")
@click.option(
    "--chorales",
    default=100,
    show_default=True,
    help="Bach chorales that two of three of these pieces are cuts of (needs the extra vocalsep[train]); the others, "
    "or all with 0, are random counterpoint.",
)
@click.option("--steps", default=2000, show_default=True, help="Optimisation steps.")
@click.option("--batch-size", default=8, show_default=True, help="Excerpts of 4 s in a step.")
@click.option("--learning-rate", default=2e-3, show_default=True, help="Of Adam, at its greatest.")
@click.option(
    "--average", default=0.998, show_default=True, help="Decay a step of the mean of the weights, which is kept."
)
@click.option("--seed", default=0, show_default=True, help="Of all that is left to chance.")
@click.option("--validate-every", default=200, show_default=True, help="Steps between validations.")
@click.option("--held-out", default=0.1, show_default=True, help="Share at the end of each recording, to validate on.")
@click.option(
    "--bfloat16/--float32",
    "half",
    default=True,
    show_default=True,
    help="Precision of the convolutions; bfloat16 takes half the time on processors and GPUs that have it.",
)
@click.option(
    "--init", metavar="NAME", help="Weights to start from: a name of the manifest (tracker), or a .safetensors file."
)
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@device_option
def train_f0(
    out: Path,
    singers: tuple[str, ...],
    synthetic: int,
    chorales: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    average: float,
    seed: int,
    validate_every: int,
    held_out: float,
    half: bool,
    init: str | None,
    resume: bool,
    device: str,
) -> None:
    """Train the network that tracks the f0 of every voice in a mixture.

    It learns from random ensembles of 1 to 8 voices: of the --singers, whose own f0 is tracked by CREPE, and of
    synthetic ones, who sing chorales and random counterpoint. The best weights are OUT/best.safetensors:
    `vocalsep f0 --tracker OUT/best.safetensors`.
    """
    import torch

    from vocalsep.device import resolve_device
    from vocalsep.errors import OptionError
    from vocalsep.f0.network import Tracker, read_tracker
    from vocalsep.training.losses import TrackerLoss
    from vocalsep.training.sources import ensemble_sources, singer_folders
    from vocalsep.training.trainer import Trainer, TrainingConfig

    if not singers and synthetic < 1:
        raise OptionError("there is nothing to train on; expected --singers, or --synthetic of 1 or more")
    config = TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        validate_every=validate_every,
        patience=steps,
        average=average,
    )
    found = resolve_device(device)
    open_run(out, resume=resume)
    click.echo("Tracking f0 and singing ...", err=True)
    training, validation = ensemble_sources(singer_folders(singers), synthetic, chorales, held_out, seed)
    torch.manual_seed(seed)
    network = (Tracker() if init is None else read_tracker(init)).to(found)
    run(Trainer(config, network, TrackerLoss(half=half), training, validation, out), resume=resume)
