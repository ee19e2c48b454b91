"""Commands with many options, whose help lists them in sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections.

    Parameters
    ----------
    sections
        Title -> names of parameters, in order; what is named in none comes last, under "Other options".
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all options, section by section."""
        lines = {
            str(parameter.name): line
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (line := parameter.get_help_record(ctx)) is not None
        }
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([lines.pop(name) for name in names if name in lines])
        with formatter.section("Other options"):
            formatter.write_dl(list(lines.values()))
