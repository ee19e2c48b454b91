"""Options that several commands share, and f0 tracks from --f0 or --guides."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vocalsep.options import NetworkOptions

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vocalsep.f0.tracks import F0Tracks

Function = TypeVar("Function", bound=Callable[..., Any])


def together(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Return a decorator that adds several options to a command, in this order."""
    return lambda command: reduce(lambda function, option: option(function), reversed(options), command)


class _NamedPath(click.Path):
    """A path that is not empty, since "" (a variable that is not set) would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; expected a file or folder", param, ctx)
        return super().convert(value, param, ctx)


PATH = _NamedPath(path_type=Path, readable=False)
"""Type of every path; the code that opens the path checks that it exists."""


def complete_weights(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the weights in the manifest whose name begins with `incomplete`; without any, ask the shell for files."""
    from click.shell_completion import CompletionItem

    from vocalsep import weights

    entries = [entry for entry in weights.manifest().values() if entry.name.startswith(incomplete)]
    return [CompletionItem(entry.name, help=entry.network) for entry in entries] or [CompletionItem(incomplete, "file")]


def voices_option(sources: str = "--f0 or --guides") -> Callable[[Function], Function]:
    """Return the option --voices; `sources` are the options of the command that can name the voices instead."""
    return click.option(
        "--voices",
        metavar="VOICES",
        help="Part letters (SATB, SSA, TTBB), a number (3), or names, with ranges in Hz if needed "
        f'("lead=200-900,bass"). Default: SATB, or the voices of {sources}.',
    )


def _weights_option(*names: str, default: str, help: str) -> Callable[[Function], Function]:
    """Return an option that takes the name, folder or Hub repository of weights."""
    return click.option(
        *names, default=default, show_default=True, metavar="NAME", shell_complete=complete_weights, help=help
    )


f0_option = click.option(
    "--f0",
    "f0s",
    type=PATH,
    help="Use these f0 tracks (pitch curves): a .csv file (time and one column per voice), a folder of two-column .csv "
    "files, or a .mid file.",
)
guides_option = click.option(
    "--guides",
    type=PATH,
    help="Folder with a recording of each voice alone (soprano.wav, ...), in time with the choir: a rehearsal take or "
    "a played line. CREPE tracks f0 in them.",
)
model_option = _weights_option(
    "-n",
    "--model",
    default=NetworkOptions.model,
    help="Weights: a name from `vocalsep models list`, a checkpoint folder, or owner/repo[@revision] on the Hub.",
)
tracker_option = _weights_option(
    "--tracker", default=NetworkOptions.tracker, help="Weights of the f0 tracker; see `vocalsep models -h`."
)
crepe_option = _weights_option(
    "--crepe",
    default=NetworkOptions.crepe,
    help="Weights of CREPE, which tracks f0 in single voices; see `vocalsep models -h`.",
)
masks_options = together(
    _weights_option(
        "--masks",
        default=NetworkOptions.masks,
        help="Weights of the network that corrects the masks, or none; see `vocalsep models -h`.",
    ),
    click.option("--no-masks", "masks", flag_value="none", help="Do not correct the masks; the same as --masks none."),
)
device_option = click.option(
    "-d",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default=NetworkOptions.device,
    show_default=True,
    help="Device to compute on; auto uses CUDA if there is a GPU.",
)
network_options = together(model_option, tracker_option, crepe_option, device_option)


def f0_tracks(f0s: Path | None, guides: Path | None, voices: str | None, crepe: str, device: str) -> F0Tracks | None:
    """Return the f0 tracks of --f0 or --guides, or None without either; both are an error."""
    from vocalsep.errors import OptionError
    from vocalsep.voices import parse_voices

    if f0s is not None and guides is not None:
        raise OptionError("f0 tracks come either from files or from guides; got both", parameter="guides")
    names = None if voices is None else [voice.name for voice in parse_voices(voices)]
    if f0s is not None:
        from vocalsep.f0.tracks import F0Tracks

        read = F0Tracks.from_midi if f0s.suffix.lower() in (".mid", ".midi") else F0Tracks.from_csv
        return read(f0s, names)
    if guides is not None:
        from vocalsep.device import resolve_device
        from vocalsep.f0.crepe import Crepe
        from vocalsep.separation.folders import f0_from_guides
        from vocalsep.weights import load_network

        return f0_from_guides(guides, names, load_network(crepe, Crepe, resolve_device(device)))
    return None
