"""The `vocalsep` command: parse, call the API, print. Commands import what is heavy only when they run."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import click

from vocalsep import __version__
from vocalsep.cli.adapt import adapt
from vocalsep.cli.benchmark import benchmark
from vocalsep.cli.benchmark_band import benchmark_band
from vocalsep.cli.benchmark_data import benchmark_data
from vocalsep.cli.benchmark_f0 import benchmark_f0
from vocalsep.cli.benchmark_long import benchmark_long
from vocalsep.cli.completion import completion
from vocalsep.cli.evaluate import evaluate
from vocalsep.cli.exit_codes import BAD_INPUT, INTERRUPTED
from vocalsep.cli.f0 import f0
from vocalsep.cli.models import models
from vocalsep.cli.separate import separate
from vocalsep.cli.train import train
from vocalsep.cli.train_f0 import train_f0
from vocalsep.errors import VocalsepError, printable


class _Group(click.Group):
    """A group of commands, listed as they were added, that tells errors in one sentence on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, those of every day first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _told(warnings.showwarning)
                return super().invoke(ctx)
        except VocalsepError as error:
            _show_traceback(ctx)
            click.echo(f"Error: {printable(' '.join(str(error).split()))}", err=True)
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            _show_traceback(ctx)
            summary = " ".join(str(error).split())[:300]
            click.echo(
                f"Error: {type(error).__name__}: {summary} (unexpected: run `vocalsep --verbose ...` for details "
                "to report)",
                err=True,
            )
            sys.exit(1)


def _told(others: Callable[..., None]) -> Callable[..., None]:
    """Return how warnings are shown: those of vocalsep as a sentence, the others as before."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if category.__module__.split(".")[0] == "vocalsep":
            click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
        else:
            others(message, category, *place, **more)

    return show


def _show_traceback(ctx: click.Context) -> None:
    if ctx.params.get("verbose"):
        click.echo(traceback.format_exc(), err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vocalsep")
@click.option("-v", "--verbose", is_flag=True, help="Show the full traceback of an error.")
def main(verbose: bool) -> None:
    """Take recordings of choirs and vocal ensembles apart into their voices."""


for command in (
    separate,
    adapt,
    f0,
    models,
    evaluate,
    train,
    train_f0,
    benchmark,
    benchmark_f0,
    benchmark_data,
    benchmark_band,
    benchmark_long,
    completion,
):
    main.add_command(command)
