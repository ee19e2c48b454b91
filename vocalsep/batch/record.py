"""The record of a separated recording: `separation.json`, beside its stems.

A recording is done when its stems and its record are there. The record is put into place last, so it is never there
without the stems. Its fields:

vocalsep_separation
    Number of this schema.
input
    The recording: name, size in bytes, mtime_ns (last change), sha256, sample_rate in Hz, channels, seconds.
setup
    Everything else that decides on the samples: vocalsep (version), networks (name and sha256 of the estimator and of
    the tracker; the tracker is null if f0 tracks were given), options, and f0 (SHA-256 of the given tracks, or null).
stems
    Name -> file (path relative to the record) and bytes.
summary
    bit_depth, gain (common to all stems), clipped (number of samples), singing (share of the time, by voice),
    adaptation (one sentence, or null), f0_seconds (length of the given tracks, or null).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocalsep.errors import AudioError, printable, reason
from vocalsep.paths import real_path
from vocalsep.weights.checkpoint import file_sha256

KEY = "vocalsep_separation"
SCHEMA = 1

_MAX_BYTES = 1 << 20  # a record has about a thousand

Record = Mapping[str, Any]


def temporary(path: Path) -> Path:
    """Return the hidden name under which a file is written before it is put into place."""
    return path.with_name(f".{path.name}.part")


def read_record(path: Path) -> Record | None:
    """Return the record in a file; None if there is none or it is damaged."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        record = json.loads(path.read_bytes())
        if record[KEY] != SCHEMA:
            return None
        for stem in record["stems"].values():
            _ = Path(stem["file"]), stem["bytes"]
        _ = record["input"]["sha256"], record["input"]["size"], record["input"]["mtime_ns"], record["summary"]["gain"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return dict(record)


def stem_files(record: Record | None, path: Path) -> dict[Path, int]:
    """Return the stems that the record at `path` lists, as absolute paths, and their sizes in bytes."""
    stems = () if record is None else record["stems"].values()
    return {absolute(path.parent / stem["file"]): stem["bytes"] for stem in stems}


def listed_stems(path: Path) -> set[str]:
    """Return the real paths of the stems that a file lists if it is a record, complete or about to be."""
    if not path.name.endswith((".json", ".json.part")):
        return set()
    return {real_path(stem) for stem in stem_files(read_record(path), path)}


def existing_stems(targets: Mapping[str, Path], listed: Mapping[Path, int]) -> dict[Path, bool]:
    """Return the targets that exist, each with whether it is listed with the size that it has."""
    return {
        target: target.is_file() and target.stat().st_size == listed.get(absolute(target))
        for target in targets.values()
        if os.path.lexists(target)
    }


def absolute(path: Path) -> Path:
    """Return a path without "..", which keeps its links."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def describe_input(source: Path) -> dict[str, Any]:
    """Return what a record says about a recording before it is opened.

    Raises
    ------
    AudioError
        If it cannot be read.
    """
    try:
        status = source.stat()
        digest = file_sha256(source)
    except (OSError, ValueError) as error:
        raise AudioError(f"{printable(source)}: cannot be read ({reason(error)}); expected an audio file") from error
    return {"name": source.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}


def difference(record: Record, source: Path, setup: Mapping[str, Any]) -> str:
    """Return how the stems of a record differ from those that `setup` would give; "" if they are the same.

    A recording is the same if size and time are, or else if its content is. Patch versions of vocalsep give the same
    samples.

    Raises
    ------
    AudioError
        If the recording cannot be read.
    """
    recorded = record["input"]
    status = source.stat()
    same = status.st_size == recorded["size"] and (
        status.st_mtime_ns == recorded["mtime_ns"] or describe_input(source)["sha256"] == recorded["sha256"]
    )
    if not same:
        return "was made from another recording, or from this one before it was changed"
    now, then = _comparable(setup), _comparable(record.get("setup"))
    for name in [*now, *then]:
        if now.get(name) != then.get(name):
            return f"was made with {name} {then.get(name)}, not {now.get(name)}"
    return ""


def _comparable(setup: Any) -> dict[str, Any]:
    """Return what decides on the samples, by name."""
    try:
        networks = {name: network and network["sha256"] for name, network in setup["networks"].items()}
        version = ".".join(setup["vocalsep"].split(".")[:2])
        return {"vocalsep": version, **networks, **setup["options"], "f0": setup["f0"]}
    except (TypeError, KeyError, AttributeError):
        return {}
