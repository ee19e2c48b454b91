"""The record of a separated recording: `separation.json`, beside its stems.

A recording is done when its stems and its record are there. The record is put into place last, so it is never there
without the stems. Its fields:

vocalsep_separation
    Number of this schema.
input
    The recording: name, size in bytes, mtime_ns (last change), sha256, sample_rate in Hz, channels, seconds.
setup
    Everything else that decides on the samples: vocalsep (version), networks (name, sha256 and config of the estimator,
    of the tracker, null if f0 tracks were supplied, and of the mask correction, null without it), options, and f0
    (SHA-256 of these tracks, or null).
stems
    Name -> file (path relative to the record), size in bytes, mtime_ns and sha256.
summary
    bit_depth, gain (common to all stems), clipped (number of samples), singing (share of the time, by voice), room
    (reverberation_time in s and ratio in dB, or null), f0_seconds (length of supplied f0 tracks, or null).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalsep import __version__, weights
from vocalsep.errors import AudioError, printable, reason
from vocalsep.options import NetworkOptions, OutputOptions, SeparationOptions

if TYPE_CHECKING:
    from vocalsep.f0.tracks import F0Tracks

KEY = "vocalsep_separation"
SCHEMA = 1

_MAX_BYTES = 1 << 20  # a record has a few thousand

Record = Mapping[str, Any]

_OTHER = {
    "f0": "other f0 tracks",
    "estimator": "other weights",
    "tracker": "other weights of the tracker",
    "masks": "another correction of the masks",
    "vocalsep": "another version of vocalsep",
}


def read_record(path: Path) -> Record | None:
    """Return the record in a file; None if there is none or it is damaged."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        record = json.loads(path.read_bytes())
        if record[KEY] != SCHEMA:
            return None
        _ = [Path(stem["file"]) for stem in record["stems"].values()], _settings(record["setup"])
        _ = [(file["size"], file["mtime_ns"], file["sha256"]) for file in (record["input"], *record["stems"].values())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return dict(record)


def listed_stems(path: Path) -> set[str]:
    """Return the real paths of the stems that a file lists if it is a record, in place or not yet."""
    record = read_record(path) if path.name.endswith((".json", ".json.part")) else None
    return {os.path.realpath(path.parent / stem["file"]) for stem in record["stems"].values()} if record else set()


def relative(stem: Path, record: Path) -> str:
    """Return the path of a stem as the record at a path lists it."""
    return Path(os.path.relpath(stem, record.parent)).as_posix()


def describe_file(source: Path) -> dict[str, Any]:
    """Return size in bytes, mtime_ns and sha256 of a file; raise AudioError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        status = source.stat()
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise AudioError(f"{printable(source)}: cannot be read ({reason(error)}); expected an audio file") from error
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest.hexdigest()}


def is_unchanged(path: Path, recorded: Mapping[str, Any]) -> bool:
    """Return whether a file has the recorded size and time, or else the recorded content."""
    status = path.stat()
    if status.st_size != recorded["size"]:
        return False
    return bool(status.st_mtime_ns == recorded["mtime_ns"] or describe_file(path)["sha256"] == recorded["sha256"])


def make_setup(
    separation: SeparationOptions, output: OutputOptions, networks: NetworkOptions, f0s: F0Tracks | None
) -> dict[str, Any]:
    """Return the setup for a record: everything that decides on the stems besides the recording."""
    options = {**asdict(separation), **asdict(output)}
    del options["filename"]  # decides where the stems go, not on what they are
    options["voices"] = None
    if separation.voices is not None or f0s is None:
        options["voices"] = [f"{voice.name}={voice.fmin:g}-{voice.fmax:g}" for voice in separation.parts]
    digest = None
    if f0s is not None:
        named = repr((f0s.names, f0s.hop, f0s.frequencies.shape)).encode()
        digest = hashlib.sha256(named + f0s.frequencies.astype("float32").tobytes()).hexdigest()
    networks_used = {
        "estimator": networks.model,
        "tracker": networks.tracker if f0s is None else None,
        "masks": None if networks.masks == "none" else networks.masks,
    }
    return {
        "vocalsep": __version__,
        "networks": {
            kind: name
            and {
                "name": name,
                "sha256": weights.checkpoint_sha256(name),
                "config": weights.checkpoint_config(name),
            }
            for kind, name in networks_used.items()
        },
        "options": options,
        "f0": digest,
    }


def difference(record: Record, source: Path, setup: Mapping[str, Any]) -> str:
    """Return how the stems of a record differ from those that `setup` would give, "" if they do not.

    A recording is the same if its size and time are, or else its content. Patch versions of vocalsep give the same
    samples.
    """
    if not is_unchanged(source, record["input"]):
        return "was made from another recording, or from this one before it was changed"
    now, then = _settings(setup), _settings(record["setup"])
    differing = [name for name in now if now[name] != then.get(name)]
    return f"was made with {_OTHER.get(differing[0], f'other options ({differing[0]})')}" if differing else ""


def _settings(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that decides on the samples, by name."""
    networks = {kind: network and (network["sha256"], network["config"]) for kind, network in setup["networks"].items()}
    version = ".".join(setup["vocalsep"].split(".")[:2])
    return {"f0": setup["f0"], **setup["options"], **networks, "vocalsep": version}
