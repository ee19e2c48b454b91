"""The `vocalsep` command: parse, call the API, print. A command and what it needs are imported when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from vocalsep import __version__
from vocalsep.threads import limit_threads

_COMMANDS = ("separate", "f0", "models", "train", "evaluate", "bench", "completion")


class _Main(click.Group):
    """Commands that lie in modules of the same name, everyday ones first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"vocalsep.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vocalsep")
@click.option("-v", "--verbose", is_flag=True, help="Show the full traceback of an error.")
def main(verbose: bool) -> None:
    """Separate recordings of choirs and vocal ensembles into their voices."""
    limit_threads()
