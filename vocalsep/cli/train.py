"""`vocalsep train`: weights of the estimator, of the mask correction and of the f0 tracker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vocalsep.cli.base import Group
from vocalsep.cli.options import PATH, complete_weights, device_option, model_option, together, voices_option

if TYPE_CHECKING:
    from vocalsep.training.trainer import Trainer

_TRAINING = ("init", "steps", "batch_size", "learning_rate", "bfloat16", "held_out", "seed")
_GROUPS = {"Training": _TRAINING, "Output": ("out", "resume")}


@click.group(cls=Group, short_help="Train networks on your own recordings.")
def train() -> None:
    """Train the networks of vocalsep on your own recordings."""


singers_option = click.option(
    "--singers",
    multiple=True,
    metavar="FOLDER[:NAMES]",
    help="Folder of single singers of one piece (soprano_1.flac, ...), to be mixed at random; after a colon, the "
    "singers to use (nino_dios:1,2). Can be repeated.",
)


def mixing_options(f0_errors: float) -> Callable[[Any], Any]:
    """Return a decorator that adds the options of mixtures of single singers, with a default of --f0-errors."""
    return together(
        click.option(
            "--f0-errors",
            type=click.FloatRange(0, 1),
            default=f0_errors,
            show_default=True,
            help="Fraction of the mixtures of --singers whose f0 gets the errors of a tracker.",
        ),
        click.option(
            "--rooms",
            type=PATH,
            multiple=True,
            metavar="FOLDER",
            help="Folder of impulse responses of rooms, into which half of the mixtures of --singers are put. Can be "
            "repeated.",
        ),
        click.option(
            "--simulated-rooms",
            type=click.IntRange(0),
            default=60,
            show_default=True,
            help="Number of simulated rooms besides those of --rooms (needs vocalsep[train]); each takes a second to "
            "make.",
        ),
    )


bfloat16_option = click.option(
    "--bfloat16/--float32",
    default=True,
    show_default=True,
    help="Precision of the convolutions; bfloat16 takes half the time on processors that support it.",
)


def _run_options(out: str, init: str, batch_size: int, learning_rate: float) -> Callable[[Any], Any]:
    """Return a decorator that adds the options of a training run, with its defaults."""
    number = partial(click.option, show_default=True)
    return together(
        number("-o", "--out", type=PATH, default=Path(out), help="Folder of the run; the weights go to best/."),
        click.option(
            "--init",
            metavar="NAME",
            shell_complete=complete_weights,
            help=f"Weights to start from, such as {init}; see `vocalsep models -h`. Default: random weights.",
        ),
        number("--steps", default=2000, help="Number of training steps."),
        number("--batch-size", default=batch_size, help="Excerpts of 4 s per step."),
        number("--learning-rate", default=learning_rate, help="Largest learning rate."),
        number(
            "--held-out",
            type=click.FloatRange(0, 0.5, min_open=True),
            default=0.1,
            help="Fraction at the end of each recording that is kept for validation.",
        ),
        number("--seed", default=0, help="Random seed."),
        click.option("--resume", is_flag=True, help="Continue the run in the output folder."),
        device_option,
    )


@train.command(
    option_groups={
        "Data": ("singers", "guides", "voices", "stems", "f0_errors", "rooms", "simulated_rooms"),
        **_GROUPS,
    },
    short_help="Train the network that estimates the voices.",
)
@click.argument("folder", required=False, type=PATH)
@singers_option
@click.option(
    "--guides",
    type=PATH,
    help="Folder with, for each recording NAME.wav in FOLDER, a folder NAME of recordings of its voices alone. CREPE "
    "tracks f0 in them; without guides, f0 is tracked in the recordings.",
)
@voices_option("--guides")
@click.option("--stems", is_flag=True, help="Use the recordings of --singers as targets (supervised training).")
@mixing_options(0.0)
@_run_options("runs/estimator", "default", 4, 1e-3)
def estimator(
    folder: Path | None,
    singers: tuple[str, ...],
    guides: Path | None,
    voices: str | None,
    stems: bool,
    f0_errors: float,
    rooms: tuple[Path, ...],
    simulated_rooms: int,
    out: Path,
    init: str | None,
    steps: int,
    batch_size: int,
    learning_rate: float,
    held_out: float,
    seed: int,
    resume: bool,
    device: str,
) -> None:
    """Train the network that estimates the voices of a mixture.

    Training is unsupervised: it needs recordings of choirs in FOLDER, or recordings of single --singers that are
    mixed at random, but no stems. Both can be combined.

    \b
    vocalsep train estimator my_recordings -o my_run
    vocalsep separate choir.wav -n my_run/best
    """
    import torch

    from vocalsep.device import resolve_device
    from vocalsep.errors import OptionError
    from vocalsep.model.estimator import Estimator
    from vocalsep.separation.separator import Separator
    from vocalsep.training.losses import estimator_loss, supervised_loss
    from vocalsep.training.sources import EstimatorData
    from vocalsep.training.trainer import Trainer, TrainingOptions
    from vocalsep.weights import load_network

    if stems and not singers:
        raise OptionError("stems can be targets only if there are single singers", parameter="stems")
    data = EstimatorData(folder, guides, voices, singers, f0_errors, held_out, rooms, simulated_rooms, seed)
    options = TrainingOptions(steps, batch_size, learning_rate, seed=seed)
    found = resolve_device(device)
    _check_run(out, resume)
    initial = load_network(init, Estimator) if init else None
    click.echo("Tracking f0 and simulating rooms ..." if singers else "Tracking f0 ...", err=True)
    training, validation = data.sources(Separator(device=found))
    torch.manual_seed(seed)
    network = (initial or Estimator()).requires_grad_(True).to(found)
    loss = supervised_loss if stems else estimator_loss
    _run(Trainer(options, network, loss, training, validation, out), resume)


@train.command(
    option_groups={"Data": ("singers", "f0_errors", "rooms", "simulated_rooms", "model"), **_GROUPS},
    short_help="Train the network that corrects masks.",
)
@singers_option
@mixing_options(0.5)
@model_option
@bfloat16_option
@_run_options("runs/masks", "another run", 4, 2e-3)
def masks(
    singers: tuple[str, ...],
    f0_errors: float,
    rooms: tuple[Path, ...],
    simulated_rooms: int,
    model: str,
    bfloat16: bool,
    out: Path,
    init: str | None,
    steps: int,
    batch_size: int,
    learning_rate: float,
    held_out: float,
    seed: int,
    resume: bool,
    device: str,
) -> None:
    """Train the network that corrects the masks of an estimator.

    It learns from recordings of single --singers, which are mixed at random and serve as targets. The estimator, -n,
    is not changed.

    \b
    vocalsep train masks --singers my_choir_singers -n my_estimator/best -o my_run
    vocalsep separate choir.wav -n my_estimator/best --masks my_run/best
    """
    import torch

    from vocalsep.device import resolve_device
    from vocalsep.model.correction import MaskCorrection
    from vocalsep.separation.separator import Separator
    from vocalsep.training.correction import correction_loss
    from vocalsep.training.sources import EstimatorData
    from vocalsep.training.trainer import Trainer, TrainingOptions
    from vocalsep.weights import load_network

    data = EstimatorData(None, None, None, singers, f0_errors, held_out, rooms, simulated_rooms, seed)
    options = TrainingOptions(steps, batch_size, learning_rate, seed=seed)
    found = resolve_device(device)
    _check_run(out, resume)
    initial = load_network(init, MaskCorrection) if init else None
    separator = Separator(model, found)
    click.echo("Tracking f0 and simulating rooms ...", err=True)
    training, validation = data.sources(separator)
    torch.manual_seed(seed)
    network = (initial or MaskCorrection()).requires_grad_(True).to(found)
    loss = partial(correction_loss, estimator=separator.estimator, bfloat16=bfloat16)
    _run(Trainer(options, network, loss, training, validation, out), resume)


@train.command(
    option_groups={"Data": ("singers", "synthetic", "chorales"), **_GROUPS},
    short_help="Train the network that tracks f0.",
)
@singers_option
@click.option("--synthetic", default=80, show_default=True, help="Number of synthetic pieces of 30 s.")
@click.option(
    "--chorales",
    default=100,
    show_default=True,
    help="Number of Bach chorales for two of three synthetic pieces (needs vocalsep[train]); the others are random "
    "counterpoint.",
)
@bfloat16_option
@_run_options("runs/tracker", "tracker", 8, 2e-3)
def tracker(
    singers: tuple[str, ...],
    synthetic: int,
    chorales: int,
    bfloat16: bool,
    out: Path,
    init: str | None,
    steps: int,
    batch_size: int,
    learning_rate: float,
    held_out: float,
    seed: int,
    resume: bool,
    device: str,
) -> None:
    """Train the network that tracks the f0 of every voice in a mixture.

    It learns from random ensembles of 1 to 8 voices: of recorded --singers, whose f0 is tracked with CREPE, and of
    synthetic singers.

    \b
    vocalsep train tracker --singers my_choir_singers -o my_run
    vocalsep f0 choir.wav --tracker my_run/best
    """
    import torch

    from vocalsep.device import resolve_device
    from vocalsep.f0.crepe import Crepe
    from vocalsep.f0.network import Tracker
    from vocalsep.options import NetworkOptions
    from vocalsep.training.losses import tracker_loss
    from vocalsep.training.sources import TrackerData
    from vocalsep.training.trainer import Trainer, TrainingOptions
    from vocalsep.weights import load_network

    data = TrackerData(singers, synthetic, chorales, held_out, seed)
    options = TrainingOptions(steps, batch_size, learning_rate, seed=seed, validate_every=200, patience=steps)
    found = resolve_device(device)
    _check_run(out, resume)
    initial = load_network(init, Tracker) if init else None
    click.echo("Tracking f0 and synthesising ...", err=True)
    training, validation = data.sources(load_network(NetworkOptions.crepe, Crepe, found))
    torch.manual_seed(seed)
    network = (initial or Tracker()).requires_grad_(True).to(found)
    _run(Trainer(options, network, partial(tracker_loss, bfloat16=bfloat16), training, validation, out), resume)


def _check_run(out: Path, resume: bool) -> None:
    from vocalsep.errors import OptionError, OutputError, printable
    from vocalsep.files import check_place
    from vocalsep.training.trainer import has_run

    if resume and not has_run(out):
        raise OptionError(f"{printable(out)} holds no run to resume", parameter="resume")
    if has_run(out) and not resume:
        raise OutputError(f"{printable(out)} holds a run; resume it, or choose another folder", parameter="resume")
    check_place(out / "state.safetensors")


def _run(trainer: Trainer, resume: bool) -> None:
    from vocalsep.errors import printable

    if resume:
        trainer.resume()
    progress = trainer.run(report=lambda line: click.echo(line, err=True))
    click.echo(
        f"{printable(trainer.best)}: validation loss {progress.best_loss:.4f} at step {progress.best_step}, "
        f"{progress.seconds / 60:.1f} min of training, seed {trainer.options.seed}"
    )
