"""The checkpoints that have a name, as listed in weights_manifest.json.

The environment variable VOCALSEP_MANIFEST can name another manifest, for example one of a choir's own checkpoints.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vocalsep.errors import WeightsError, reason, shown

SCHEMA = 3

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the manifest. `ValueError` is raised if a value is not of the form below.

    Size and SHA-256 are those of model.safetensors.
    """

    name: str
    network: str
    """Kind of network: "estimator", "masks", "tracker" or "crepe"."""
    size: int
    sha256: str
    bundled: bool
    """True if the checkpoint is part of the package, in `vocalsep/checkpoints/<name>`."""
    repository: str | None
    """Owner and name of its repository on the Hub."""
    revision: str | None
    """Commit in that repository, 40 hexadecimal digits."""
    vocalsep: str
    """Versions of vocalsep that can load it, such as ">=0.1,<0.3"."""
    licence: str
    credit: str
    """Authors of the weights and of the data they were trained on."""
    source: str
    """Commands that make the checkpoint."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Measured quality, with the conditions; empty if there is none."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """All other keys of the entry, such as the seed and the training time."""

    def __post_init__(self) -> None:
        for key in ("name", "network", "sha256", "vocalsep", "licence", "credit", "source"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ValueError(f"{key} is {shown(getattr(self, key))}; expected text")
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name is {shown(self.name)}; expected letters, digits, dots, hyphens and underscores")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {shown(self.sha256)}; expected 64 hexadecimal digits")
        if type(self.size) is not int or self.size <= 0:
            raise ValueError(f"size is {shown(self.size)}; expected a number of bytes")
        if type(self.bundled) is not bool or not isinstance(self.scores, Mapping):
            raise ValueError("expected bundled to be true or false, and scores to be a table")
        if not self.bundled and self.repository is None:
            raise ValueError("expected a repository, since the checkpoint is not bundled")
        # A branch or tag can move to other content, a commit cannot.
        if self.repository is not None and not re.fullmatch("[0-9a-f]{40}", str(self.revision)):
            raise ValueError(f"revision is {shown(self.revision)}; expected a commit of 40 hexadecimal digits")
        try:
            SpecifierSet(self.vocalsep)
        except InvalidSpecifier as error:
            raise ValueError(f"vocalsep is {shown(self.vocalsep)}; expected versions such as >=0.1,<0.3") from error

    def loads_in(self, version: str) -> bool:
        """Return whether a version of vocalsep can load the checkpoint; a development version counts as its release."""
        return SpecifierSet(self.vocalsep).contains(version.split(".dev")[0], prereleases=True)


def manifest() -> Mapping[str, Entry]:
    """Return the checkpoints of the manifest by name; a missing or damaged manifest raises `WeightsError`."""
    path = _path()
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            raise ValueError(f"expected a table with schema {SCHEMA} and a list of checkpoints")
        entries = [_entry(row) for row in table["checkpoints"]]
        if len({entry.name for entry in entries}) < len(entries):
            raise ValueError("two checkpoints have the same name")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({reason(error)}); expected the manifest of weights") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path}: is damaged ({error}); expected the manifest of weights") from error
    return {entry.name: entry for entry in entries}


def _path() -> Path:
    own = os.environ.get("VOCALSEP_MANIFEST")
    if own:
        return Path(own)
    in_wheel = _PACKAGE / "weights_manifest.json"
    # In a checkout, and so in an editable install, the manifest lies at the root of the repository.
    return in_wheel if in_wheel.is_file() else _PACKAGE.parent / "weights_manifest.json"


def _entry(row: Mapping[str, Any]) -> Entry:
    known = {field.name for field in fields(Entry)} - {"details"}
    details = {key: value for key, value in dict(row).items() if key not in known}
    try:
        return Entry(**{key: value for key, value in row.items() if key in known}, details=details)
    except (TypeError, ValueError) as error:  # TypeError: a key is missing
        raise ValueError(f"checkpoint {shown(row.get('name'))}: {error}") from error
