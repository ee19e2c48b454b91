"""`vocalsep completion`: completion of commands, options and values in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vocalsep.cli.base import Command


@click.command(cls=Command, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options and values when you press Tab.

    To install it for new shells:

    \b
      bash   vocalsep completion bash > ~/.local/share/bash-completion/completions/vocalsep
             (or put eval "$(vocalsep completion bash)" into ~/.bashrc)
      zsh    vocalsep completion zsh > ~/.zfunc/_vocalsep
             (and put fpath+=~/.zfunc before compinit in ~/.zshrc)
      fish   vocalsep completion fish > ~/.config/fish/completions/vocalsep.fish
    """
    script = get_completion_class(shell)
    assert script is not None  # click knows all three shells
    click.echo(script(ctx.find_root().command, {}, "vocalsep", "_VOCALSEP_COMPLETE").source())
