"""The class of all commands: help in groups, errors as one line on stderr, and exit codes.

Exit codes are 0 (all is done), 1 (some of several recordings failed, or an unexpected error), 2 (bad input or usage)
and 130 (interrupted).
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from vocalsep.errors import VocalsepError, one_line, printable

FAILED = 1
"""Exit code if some of several recordings failed, or after an unexpected error."""
BAD_INPUT = 2
"""Exit code if the input cannot be used; click uses it for wrong usage."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 plus the number of the signal, as in shells."""

_INTERRUPTS = "vocalsep.interrupts"


class Command(click.Command):
    """A command that shows its options in groups and its errors on one line.

    `option_groups` maps the title of each group to the names of its parameters. Options in no group come last.
    """

    def __init__(self, *args: Any, option_groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.option_groups = option_groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        records: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records.setdefault(str(parameter.name), []).append(record)
        for title, names in self.option_groups.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names for record in records.pop(name, [])])
        with formatter.section("Other options" if self.option_groups else "Options"):
            formatter.write_dl([record for others in records.values() for record in others])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn errors into one line on stderr and an exit code."""
        with _signals() as interrupts, warnings.catch_warnings():
            ctx.meta[_INTERRUPTS] = interrupts
            _show_own_warnings()
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
                raise
            except (Exception, KeyboardInterrupt) as error:
                # Imports and C extensions that are interrupted can raise another exception instead.
                if interrupts or isinstance(error, KeyboardInterrupt):
                    click.echo("Interrupted.", err=True)
                    ctx.exit(INTERRUPTED)
                if ctx.find_root().params.get("verbose"):
                    click.echo(traceback.format_exc(), err=True)
                click.echo(f"Error: {sentence(error, self)}", err=True)
                ctx.exit(BAD_INPUT if isinstance(error, VocalsepError) else FAILED)


class Group(click.Group):
    """A group of such commands, listed in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


def raise_interrupt(ctx: click.Context) -> None:
    """Raise KeyboardInterrupt again if there was one, since imports and C extensions can lose it."""
    if ctx.meta[_INTERRUPTS]:
        raise KeyboardInterrupt


def sentence(error: BaseException, command: click.Command) -> str:
    """Return the message of an error, with the option of a command that it is about."""
    text = printable(" ".join(str(error).split()))
    if not isinstance(error, VocalsepError):
        return f"{type(error).__name__}: {one_line(text, 300)} (unexpected; `vocalsep --verbose ...` shows details)"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    flags = [max(option.opts, key=len) for option in options if option.name == error.parameter]
    return f"{text} ({flags[0]})" if len(flags) == 1 else text


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at Ctrl-C and at SIGTERM; yield a list of the signals that were received."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    hook = sys.unraisablehook
    # Finalizers of objects that were interrupted while they were made print tracebacks, also after this function.
    sys.unraisablehook = lambda exception: None if received else hook(exception)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not received:
            sys.unraisablehook = hook


def _show_own_warnings() -> None:
    """Show warnings of vocalsep as one line on stderr, others as before."""
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if category.__module__.split(".")[0] == "vocalsep":
            click.echo(f"Warning: {printable(' '.join(str(message).split()))}", err=True)
        else:
            show_others(message, category, *place, **more)

    warnings.showwarning = show
