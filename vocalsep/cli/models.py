"""`vocalsep models`: the checkpoints of the manifest, and where they lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from vocalsep import weights
from vocalsep.cli.base import Group
from vocalsep.cli.options import complete_weights
from vocalsep.errors import WeightsError

_name = click.argument("name", shell_complete=complete_weights)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Group, short_help="List, download and verify weights.")
def models() -> None:
    """List, download and verify weights.

    Options that choose weights take a name from `vocalsep models list`, a checkpoint folder, or owner/repo[@revision]
    on the Hub. Bundled weights need no network. Others are downloaded from the Hub to the cache of huggingface_hub;
    HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN have their usual meaning.
    """


@models.command("list")
@_json
def list_models(as_json: bool) -> None:
    """List the weights that have a name."""
    entries = list(weights.manifest().values())
    if as_json:
        click.echo(json.dumps([_table(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    rows = [("NAME", "NETWORK", "SIZE", "LICENCE", "REPOSITORY", "HERE")]
    for entry in entries:
        here = "bundled" if entry.bundled else "no" if _folder(entry) is None else "yes"
        size = f"{entry.size / 1e6:.1f} MB"
        rows.append((entry.name, entry.network, size, entry.licence, entry.repository or "none", here))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@models.command(short_help="Download weights and verify them.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_weights)
def download(names: Sequence[str]) -> None:
    """Download weights and verify them.

    NAME is a name from `vocalsep models list`, or owner/repo[@revision] on the Hub.
    """
    for name in names:
        weights.load_checkpoint(name)
        click.echo(f"{name}: {weights.find(name)}")


@models.command(short_help="Check the SHA-256 of weights.")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_weights)
def verify(names: Sequence[str]) -> None:
    """Check the SHA-256 of weights on this machine; without NAME, of all in the manifest that are here.

    The exit code is 2 if a check fails.
    """
    failed = []
    for name in names or [name for name, entry in weights.manifest().items() if _folder(entry) is not None]:
        try:
            weights.find(name)
            weights.load_checkpoint(name)
            click.echo(f"{name}: ok")
        except WeightsError as error:
            failed.append(name)
            click.echo(f"{name}: {error}")
    if failed:
        raise WeightsError(f"{len(failed)} checks failed: {', '.join(failed)}")


@models.command()
@_name
def path(name: str) -> None:
    """Print the folder of weights on this machine."""
    click.echo(weights.find(name))


@models.command(short_help="Show scores, licence and origin of weights.")
@_name
@_json
def info(name: str, as_json: bool) -> None:
    """Show scores, licence and origin of weights; README.md in their folder describes them in full."""
    entries = weights.manifest()
    if name in entries:
        table = _table(entries[name])
    else:
        table = {"path": str(weights.find(name)), **weights.load_checkpoint(name).config}
    if as_json:
        click.echo(json.dumps(table, indent=2, ensure_ascii=False))
        return
    for key, value in table.items():
        if value in (None, {}):
            continue
        if isinstance(value, dict):
            click.echo("\n".join([f"{key}:", *(f"  {label}: {_text(score)}" for label, score in value.items())]))
        else:
            click.echo(f"{key}: {_text(value)}")


def _table(entry: weights.Entry) -> dict[str, Any]:
    """Return everything that the manifest says about weights, and their folder, for JSON."""
    table = asdict(entry)
    details = table.pop("details")
    return {**table, **details, "path": _folder(entry)}


def _folder(entry: weights.Entry) -> str | None:
    try:
        return str(weights.find(entry.name))
    except WeightsError:
        return None


def _text(value: Any) -> str:
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)
