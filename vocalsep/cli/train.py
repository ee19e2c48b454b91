"""`vocalsep train`: weights from mixtures, or from random mixtures of single singers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vocalsep.cli.options import device_option, existing_path, singers_option, voices_option

if TYPE_CHECKING:
    from vocalsep.training.trainer import Trainer


@click.command(short_help="Train weights on recordings or single singers.")
@click.argument("folder", required=False, type=existing_path())
@click.option(
    "-o", "--out", type=existing_path(), default=Path("runs/train"), show_default=True, help="Folder of the run."
)
@singers_option
@click.option(
    "--guides",
    type=existing_path(),
    help="Folder with, for each mixture NAME.wav, a folder NAME of recordings of its voices, to track f0 in.",
)
@voices_option
@click.option("--stems", is_flag=True, help="Learn from the stems of --singers too, not from mixtures alone.")
@click.option(
    "--f0-errors",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of excerpts of --singers whose f0 is made as wrong as a tracker's in a mixture.",
)
@click.option(
    "--init", metavar="NAME", help="Weights to start from: a name of the manifest (default), or a .safetensors file."
)
@click.option("--steps", default=2000, show_default=True, help="Optimisation steps.")
@click.option("--batch-size", default=4, show_default=True, help="Excerpts of 4 s in a step.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="Of Adam, at its greatest.")
@click.option("--seed", default=0, show_default=True, help="Of all that is left to chance.")
@click.option("--patience", default=8, show_default=True, help="Validations without progress before training stops.")
@click.option("--validate-every", default=100, show_default=True, help="Steps between validations.")
@click.option("--held-out", default=0.1, show_default=True, help="Share at the end of each recording, to validate on.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@device_option
def train(
    folder: Path | None,
    out: Path,
    singers: tuple[str, ...],
    guides: Path | None,
    voices: str | None,
    stems: bool,
    f0_errors: float,
    init: str | None,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    patience: int,
    validate_every: int,
    held_out: float,
    resume: bool,
    device: str,
) -> None:
    """Train an estimator, unsupervised, on the recordings of choirs in FOLDER, on --singers, or on both.

    Only mixtures enter the loss; with --stems, single singers are their own targets and only FOLDER's recordings are
    learned from as mixtures. The f0 of the voices comes from --guides, or is tracked in the mixtures. Single singers
    are put together to random ensembles of 2 to 6 voices, transposed, equalised and put into rooms. The best weights
    are OUT/best.safetensors: `vocalsep separate -n OUT/best.safetensors`.
    """
    import torch

    from vocalsep.device import resolve_device
    from vocalsep.errors import OptionError
    from vocalsep.model.estimator import Estimator, read_estimator
    from vocalsep.training.losses import estimator_loss, supervised_loss
    from vocalsep.training.sources import training_sources
    from vocalsep.training.trainer import Trainer, TrainingConfig
    from vocalsep.voices import parse_voices

    if folder is None and not singers:
        raise OptionError("there is nothing to train on; expected a FOLDER of recordings, or --singers")
    if folder is None and (guides is not None or voices is not None):
        raise OptionError("--guides and --voices go with a FOLDER of recordings; single singers need neither")
    if stems and not singers:
        raise OptionError("--stems goes with --singers; recordings of choirs have no stems")
    config = TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        patience=patience,
        validate_every=validate_every,
    )
    found = resolve_device(device)
    if voices is not None:
        parse_voices(voices)
    open_run(out, resume=resume)
    click.echo("Tracking f0 ...", err=True)
    training, validation = training_sources(folder, singers, guides, voices, held_out, f0_errors=f0_errors)
    torch.manual_seed(seed)
    network = (Estimator() if init is None else read_estimator(init)).to(found)
    run(
        Trainer(config, network, supervised_loss if stems else estimator_loss, training, validation, out), resume=resume
    )


def open_run(out: Path, *, resume: bool) -> None:
    """Make the folder of a run.

    Raises
    ------
    OptionError
        If it holds a run and is not to be resumed, or cannot be made.
    """
    from vocalsep.errors import OptionError

    if (out / "state.safetensors").exists() and not resume:
        raise OptionError(f"{out} holds a run already; use --resume to go on with it or -o for another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{out}: cannot be a folder ({error.strerror}); choose another with -o") from error


def run(trainer: Trainer[Any, Any], *, resume: bool) -> None:
    """Train, telling how it goes, and say where the weights are."""
    if resume:
        trainer.resume()
    progress = trainer.run(report=lambda line: click.echo(line, err=True))
    click.echo(
        f"{trainer.folder / 'best.safetensors'}: validation loss {progress.best_loss:.4f} at step "
        f"{progress.best_step}, {progress.seconds / 60:.1f} min of training, seed {trainer.config.seed}"
    )
