"""`vocalsep completion`: what makes a shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_VOCALSEP_COMPLETE"  # click's name for it: that of the program in capitals


_HELP = """Print the script that makes SHELL complete commands, options and their values with the tab key.

To install it for new shells:

\b
  bash   vocalsep completion bash > ~/.local/share/bash-completion/completions/vocalsep
         (or have eval "$(vocalsep completion bash)" in ~/.bashrc)
  zsh    vocalsep completion zsh > ~/.zfunc/_vocalsep
         (and have fpath+=~/.zfunc before compinit in ~/.zshrc)
  fish   vocalsep completion fish > ~/.config/fish/completions/vocalsep.fish
"""


@click.command(help=_HELP, short_help="Print what makes a shell complete vocalsep.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script for a shell."""
    found = get_completion_class(shell)
    assert found is not None  # click has all three
    click.echo(found(ctx.find_root().command, {}, "vocalsep", _VARIABLE).source())
