"""Options that several commands share, and how they become voices and f0 tracks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vocalsep.f0.tracks import F0Tracks

Command = TypeVar("Command", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """A path that has a name: the empty one, of a variable that is not set, is not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; expected the path of a file or folder", param, ctx)
        return super().convert(value, param, ctx)


def existing_path(**kwargs: Any) -> click.Path:
    """Return the type of a path; whether it exists is checked by what reads it, in its own words."""
    return _NamedPath(path_type=Path, readable=False, **kwargs)


voices_option = click.option(
    "--voices",
    metavar="VOICES",
    help="Part letters (SATB, SSA, TTBB), a number (3), or names, with ranges in Hz if need be "
    '("lead=200-900,bass"). Default: SATB, or those of the f0s or guides that are given.',
)
f0_option = click.option(
    "--f0",
    "f0_path",
    type=existing_path(),
    help="F0 of the voices instead of tracking them: .csv (time and a column for each voice), a folder of "
    "two-column .csv files, or .mid.",
)
guides_option = click.option(
    "--guides",
    type=existing_path(),
    help="Folder with a recording of every voice alone (soprano.wav, ...; a rehearsal take or a played line) in "
    "time with the choir: f0 is tracked in them with CREPE.",
)
crepe_option = click.option(
    "--crepe",
    type=click.Choice(["tiny", "full"]),
    default="tiny",
    show_default=True,
    help="Capacity of CREPE for --guides; full is slower, a little more exact, and not bundled.",
)


def complete_weights(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of weights that begin as what was typed, and the mark that asks the shell for files, too."""
    from click.shell_completion import CompletionItem

    from vocalsep.weights.register import manifest

    purpose = {"model": "estimator", "tracker": "f0"}.get(parameter.name or "")
    found = [entry for entry in manifest().values() if entry.name.startswith(incomplete)]
    names = [CompletionItem(entry.name, help=entry.purpose) for entry in found if purpose in (None, entry.purpose)]
    return names or [CompletionItem(incomplete, "file")]


_TRUSTED = "vocalsep.trust_sha256"  # where the context keeps it


def _trust(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    ctx.meta[_TRUSTED] = value


def _with_trust(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    digest = ctx.meta.get(_TRUSTED)
    if digest is None:
        return value
    from vocalsep.weights.names import with_sha256

    return with_sha256(value, digest)


def model_option(command: Command) -> Command:
    """Add -n/--model, and --trust-sha256, which becomes part of the model's name."""
    trust = click.option(
        "--trust-sha256",
        metavar="HEX",
        expose_value=False,
        is_eager=True,  # read before the model
        callback=_trust,
        help="SHA-256 that the file of -n must have; for the tracker, write it as --tracker 'NAME#sha256=HEX'.",
    )
    model = click.option(
        "-n",
        "--model",
        default="default",
        show_default=True,
        metavar="NAME",
        callback=_with_trust,
        shell_complete=complete_weights,
        help="Weights: a name (see `vocalsep models list`), a .safetensors file, or on the Hub "
        "owner/repo@revision:file.safetensors.",
    )
    return model(trust(command))


tracker_option = click.option(
    "--tracker",
    default="tracker",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_weights,
    help="Weights that track f0 in mixtures: as for -n.",
)
refine_option = click.option(
    "--refine",
    type=click.IntRange(0, 10),
    metavar="N",
    help="Separate, and track the voices again in their stems with CREPE, N times. Default: 1 where f0 is tracked in "
    "the mixture, 0 where it is given.",
)
singers_option = click.option(
    "--singers",
    multiple=True,
    metavar="FOLDER[:NAMES]",
    help="Folder of single singers of one piece (soprano_1.flac, ...), to be mixed at random; after a colon, which "
    "of them to use (nino_dios:1,2). May be given several times.",
)
device_option = click.option(
    "-d",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes CUDA where there is one.",
)


def adapt_seconds_option(name: str) -> Callable[[Command], Command]:
    """Return the option that bounds the time of an adaptation."""
    return click.option(
        name,
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Time that learning may take at most; results then depend on the speed of the machine. Default: as long "
        "as it takes, about half a minute.",
    )


def given_tracks(
    f0_path: Path | None, guides: Path | None, voices: str | None, crepe: str = "tiny", device: str = "cpu"
) -> F0Tracks | None:
    """Return the f0 tracks that --f0 or --guides stand for, None without either.

    Raises
    ------
    VocalsepError
        If both are given, or they cannot be used.
    """
    from vocalsep.errors import OptionError
    from vocalsep.f0.tracks import F0Tracks
    from vocalsep.separation.folders import f0_of_guides
    from vocalsep.voices import parse_voices

    if f0_path is not None and guides is not None:
        raise OptionError("both --f0 and --guides are given; expected one of them")
    names = None if voices is None else [voice.name for voice in parse_voices(voices)]
    if f0_path is not None:
        if f0_path.suffix.lower() in (".mid", ".midi"):
            return F0Tracks.from_midi(f0_path, names)
        return F0Tracks.from_csv(f0_path, names)
    if guides is not None:
        return f0_of_guides(guides, names, crepe, device)
    return None
