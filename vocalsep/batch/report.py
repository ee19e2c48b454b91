"""The report of a run: all that is needed to repeat it, and what came of every recording, as JSON.

The schema, in which two identical runs differ only under "times":

vocalsep_report
    Version of the schema.
command
    The command line, or null for a call from Python.
versions
    Of vocalsep, Python, torch and numpy.
machine
    platform; device, as asked for and as found; threads of each process; jobs; and the address of a Ray cluster or
    null.
recipe
    What decides on the stems: vocalsep, model, tracker and crepe (name and sha256, or null where they are not used),
    settings (all of `stem_files.Settings`, the seed among them; voices with their ranges in Hz), and the SHA-256 of f0
    that was given, or null.
out, filename, overwrite, recursive
    Output folder, template of the paths in it, and options.
interrupted
    Whether the run was broken off.
summary
    Number of recordings that are done, skipped, failed, unfinished.
recordings
    In the order of the plan: input (path as given), sha256 and size of the input or null where it was not read,
    status, error or null, and for done and skipped ones files (name of the stem -> path inside out, sha256, size),
    seconds of audio, sample_rate in Hz, channels, bit_depth, gain common to all stems, clipped samples, singing (share
    of the time, by voice), given_seconds (length of given f0s, or null).
times
    started (UTC, ISO 8601), elapsed in seconds, and for each recording elapsed in seconds, adaptation (in words, with
    its time, or null).
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalsep.errors import AudioError, OptionError, reason
from vocalsep.files import replace_file

if TYPE_CHECKING:
    from vocalsep.batch.running import Job, Outcome

NAME = "report.json"
"""Name of the report in the output folder."""
_SCHEMA = 1
_KEY = "vocalsep_report"


@dataclass(frozen=True)
class Call:
    """How a run was asked for, as far as `Job` does not tell.

    Parameters
    ----------
    command
        The command line, or None.
    filename, recursive
        See `planning.plan`.
    jobs, ray
        See `separate_files`.
    threads
        Of each process.
    device
        Where is computed, "cpu" for "auto" say.
    """

    command: tuple[str, ...] | None
    filename: str
    recursive: bool
    jobs: int
    ray: str | None
    threads: int
    device: str


def report_of(
    job: Job,
    call: Call,
    outcomes: Sequence[Outcome],
    *,
    started: str,
    elapsed: float,
    interrupted: bool,
) -> dict[str, Any]:
    """Return the report of a run; the schema is that of this module."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        _KEY: _SCHEMA,
        "command": None if call.command is None else list(call.command),
        "versions": _versions(),
        "machine": {
            "platform": platform.platform(),
            "device_asked_for": job.device,
            "device": call.device,
            "threads": call.threads,
            "jobs": call.jobs,
            "ray": call.ray,
        },
        "recipe": job.recipe.to_json(),
        "out": os.fspath(job.out),
        "filename": call.filename,
        "overwrite": job.overwrite,
        "recursive": call.recursive,
        "interrupted": interrupted,
        "summary": {status: counts[status] for status in ("done", "skipped", "failed", "unfinished")},
        "recordings": [_recording(outcome) for outcome in outcomes],
        "times": {
            "started": started,
            "elapsed": round(elapsed, 3),
            "recordings": [
                {"elapsed": round(outcome.elapsed, 3), "adaptation": _result(outcome).get("adaptation")}
                for outcome in outcomes
            ],
        },
    }


def _result(outcome: Outcome) -> Mapping[str, Any]:
    return {} if outcome.record is None else outcome.record.result


def _recording(outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    return {
        "input": os.fspath(outcome.source),
        "sha256": None if record is None else record.source.sha256,
        "size": None if record is None else record.source.size,
        "status": outcome.status,
        "error": outcome.error or None,
        "files": {
            name: {"path": mark.path, "sha256": mark.sha256, "size": mark.size}
            for name, mark in (record.files if record else {}).items()
        },
        **{name: value for name, value in _result(outcome).items() if name != "adaptation"},
    }


def _versions() -> dict[str, str]:
    import numpy as np
    import torch

    from vocalsep import __version__

    return {
        "vocalsep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def validate_report_path(path: Path) -> None:
    """Check that a report may be written.

    Raises
    ------
    OptionError
        If there is a file already that is no report.
    """
    if not os.path.lexists(path):
        return
    try:
        ours = path.is_file() and _KEY in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise OptionError(f"{path} exists and is no report of vocalsep; choose another place with --report")


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report, completely or not at all.

    Raises
    ------
    AudioError
        If it cannot be written.
    """
    # Names that are no text are escaped, so that the file is ASCII and they can be read back as they are.
    content = json.dumps(report, indent=2, allow_nan=False).encode("ascii") + b"\n"
    try:
        replace_file(path, content)
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: cannot be written ({reason(error)}); choose another place with --report") from error
