"""The register of checkpoints: what weights_manifest.json says of each, checked before it is believed.

The environment variable VOCALSEP_MANIFEST names another register, for a choir's own weights or for tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from vocalsep.errors import WeightsError
from vocalsep.weights.reading import MAX_FILE, read_bytes, read_json

SCHEMA = 2
PURPOSES = ("f0", "estimator")
PUBLISHED, NOT_PUBLISHED = "published", "not published yet"

_PACKAGE = Path(__file__).parent.parent
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a path
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


class HubFile(NamedTuple):
    """A file in a repository on the Hub."""

    repository: str
    """Owner and name, such as "somebody/choir"."""
    revision: str
    """Commit, branch or tag."""
    file: str
    """Path in the repository."""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which always stands for the same content."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}:{self.file}"


class WheelFile(NamedTuple):
    """A file in a package of other people, from which a checkpoint is converted."""

    package: str
    """Name of the package, both for pip and for import."""
    version: str
    """The one that the file was taken from."""
    file: str
    """Path in the wheel."""
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal digits."""


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one checkpoint.

    Parameters
    ----------
    name
        Name under which users ask for it.
    purpose
        "f0" or "estimator".
    file
        File name, in `vocalsep/checkpoints` if `bundled`, else in the user's folder.
    size
        Bytes.
    sha256
        Of the file, in hexadecimal digits.
    licence
        Licence of the weights.
    credit
        Who made them, and the data that they learned from.
    bundled
        Whether the file is part of the wheel.
    publication
        "published" if it is on the Hub, else "not published yet".
    hub
        Where on the Hub, pinned to a commit; None while it is not published.
    found_in
        The package that it can be converted from, if any.
    vocalsep
        The versions of vocalsep that can load it, as pip writes them: ">=0.1,<0.2".
    source
        Where the weights come from: the command that trains or converts them.
    scores
        How good they are, with the conditions; empty where nothing was measured here.
    card
        Path of their description, or None.
    details
        Everything else: seed, training time, parameters.
    """

    name: str
    purpose: str
    file: str
    size: int
    sha256: str
    licence: str
    credit: str
    bundled: bool
    publication: str
    hub: HubFile | None
    found_in: WheelFile | None
    vocalsep: str
    source: str
    scores: Mapping[str, Any]
    card: str | None
    details: Mapping[str, Any] = field(default_factory=dict)

    def loads_in(self, version: str) -> bool:
        """Return whether a version of vocalsep can load it; one under development counts as what it will be."""
        return SpecifierSet(self.vocalsep).contains(version.split(".dev")[0], prereleases=True)


def manifest() -> Mapping[str, Entry]:
    """Return the register of checkpoints by name.

    Raises
    ------
    WeightsError
        If it is missing or damaged; the message names the entry and what is wrong with it.
    """
    path = manifest_path()
    try:
        version = path.stat().st_mtime_ns
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); expected the register of weights") from error
    return _manifest(path, version)


def manifest_path() -> Path:
    """Return where the register lies.

    Raises
    ------
    WeightsError
        If it is missing, which means that the installation is broken.
    """
    given = os.environ.get("VOCALSEP_MANIFEST")
    if given:
        return Path(given)
    # In the wheel it lies in the package, in a checkout (editable install) at the root.
    places = (_PACKAGE / "weights_manifest.json", _PACKAGE.parent / "weights_manifest.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise WeightsError(f"{places[0]} is missing; expected the register of weights: install vocalsep again")
    return path


@lru_cache(maxsize=4)
def _manifest(path: Path, version: int) -> Mapping[str, Entry]:
    content = read_bytes(path, "the register of weights", limit=1 << 20)
    try:
        table = read_json(content)
        if (
            not isinstance(table, dict)
            or table.get("schema") != SCHEMA
            or not isinstance(table.get("checkpoints"), list)
        ):
            raise ValueError(f"expected a table with schema {SCHEMA} and a list of checkpoints")
        entries: dict[str, Entry] = {}
        for number, row in enumerate(table["checkpoints"], 1):
            entry = _entry(row, number)
            if any(entry.name == other.name or entry.file == other.file for other in entries.values()):
                raise ValueError(f"entry {number} ({entry.name}): its name or file is also that of another entry")
            entries[entry.name] = entry
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is damaged ({error}); expected the register of weights") from error
    return MappingProxyType(entries)


def is_sha256(text: object) -> bool:
    """Return whether a value is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def hub_file(repository: object, revision: object, file: object) -> HubFile:
    """Return a file on the Hub, of parts that are not trusted.

    Raises
    ------
    ValueError
        If a part is not what it should be: neither is ever used as a path or an address before.
    """
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise ValueError(f"the repository is {repository!r}; expected owner/name")
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision:
        raise ValueError(f"the revision is {revision!r}; expected a commit of 40 hexadecimal digits, a branch or a tag")
    parts = PurePosixPath(file).parts if isinstance(file, str) else ()
    if not parts or not _FILE.fullmatch(parts[-1]) or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"the file is {file!r}; expected the path of a .safetensors file in the repository")
    return HubFile(repository, revision, "/".join(parts))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_FILE


def _range(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(SpecifierSet(value))
    except InvalidSpecifier:
        return False


# What each value of an entry must be, and how that is said.
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v)), "letters, digits, - and _"),
    "purpose": (lambda v: v in PURPOSES, " or ".join(PURPOSES)),
    "file": (lambda v: isinstance(v, str) and bool(_FILE.fullmatch(v)), "the name of a .safetensors file"),
    "size": (_size, f"a number of bytes up to {MAX_FILE}"),
    "sha256": (is_sha256, "64 hexadecimal digits"),
    "licence": (_text, "the name of a licence"),
    "credit": (_text, "who made the weights, and the data that they learned from"),
    "bundled": (lambda v: isinstance(v, bool), "true or false"),
    "publication": (lambda v: v in (PUBLISHED, NOT_PUBLISHED), f"{PUBLISHED!r} or {NOT_PUBLISHED!r}"),
    "hub": (lambda v: v is None or isinstance(v, dict), "a table of repository, revision and file, or null"),
    "found_in": (
        lambda v: v is None or isinstance(v, dict),
        "a table of package, version, file, size, sha256, or null",
    ),
    "vocalsep": (_range, "a range of versions, such as >=0.1,<0.2"),
    "source": (_text, "where the weights come from"),
    "scores": (lambda v: isinstance(v, dict), "a table"),
    "card": (lambda v: v is None or _text(v), "the path of a description, or null"),
}


def _entry(row: object, number: int) -> Entry:
    """Return an entry of the register.

    Raises
    ------
    ValueError
        If it is not a whole one.
    """
    if not isinstance(row, dict):
        raise ValueError(f"entry {number} is {type(row).__name__}; expected a table")
    what = f"entry {number} ({row.get('name')!s:.64})"
    for key, (right, expected) in _RULES.items():
        if key not in row:
            raise ValueError(f"{what}: has no {key}; expected {expected}")
        if not right(row[key]):
            raise ValueError(f"{what}: {key} is {row[key]!r:.80}; expected {expected}")
    try:
        hub = None if row["hub"] is None else hub_file(**_exactly(row["hub"], HubFile._fields))
        found_in = None if row["found_in"] is None else _wheel_file(row["found_in"])
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if (hub is not None) != (row["publication"] == PUBLISHED):
        raise ValueError(f"{what}: publication is {row['publication']!r} but hub is {row['hub']!r}")
    if hub is not None and not hub.pinned:
        raise ValueError(f"{what}: revision is {hub.revision!r}; expected a commit of 40 hexadecimal digits")
    own = {**{key: row[key] for key in _RULES}, "hub": hub, "found_in": found_in}
    return Entry(**own, details={key: value for key, value in row.items() if key not in _RULES})


def _exactly(table: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    if set(table) != set(keys):
        raise ValueError(f"it has {', '.join(sorted(table))}; expected {', '.join(keys)}")
    return table


def _wheel_file(table: dict[str, Any]) -> WheelFile:
    found = WheelFile(**_exactly(table, WheelFile._fields))
    texts = (found.package, found.version, found.file)
    parts = "/".join(texts).split("/") if all(isinstance(text, str) for text in texts) else [""]
    if not (all(map(_PART.fullmatch, parts)) and _size(found.size) and is_sha256(found.sha256)):
        raise ValueError(f"found_in is {table!r:.200}; expected package, version, file, size and sha256")
    return found
