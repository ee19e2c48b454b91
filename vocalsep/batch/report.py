"""The report of a run, as report.json and as a table.

Fields of report.json: vocalsep_report (number of this schema), command (the command line, or null for a call from
Python), started (UTC), seconds, interrupted (true until the run ends), versions, machine (platform, device, threads of
each process, jobs, ray), setup (as in separation.json), summary (number of recordings by status), and recordings: for
each its source, status, error (or null), files (by stem) and seconds. The records beside the stems hold
everything else.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocalsep.batch.job import Result
from vocalsep.errors import OutputError, printable
from vocalsep.files import write_file

NAME = "report.json"
"""Name of the report inside the output folder."""

KEY = "vocalsep_report"
SCHEMA = 2

STATUSES = ("done", "skipped", "failed")


def check_report_path(path: Path) -> None:
    """Raise OutputError if there is a file that is not a report."""
    if not os.path.lexists(path):
        return
    try:
        is_report = path.is_file() and KEY in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        is_report = False
    if not is_report:
        raise OutputError(
            f"{printable(path)}: exists and is not a report; choose another path for the report", parameter="report"
        )


def write_report(path: Path, header: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write a report; `header` holds the fields that describe the run."""
    counts = Counter[str](result.status for result in results)
    report = {
        KEY: SCHEMA,
        **header,
        "summary": {status: counts[status] for status in STATUSES},
        "recordings": [
            {
                "source": os.fspath(result.source),
                "status": result.status,
                "error": None if result.error is None else str(result.error),
                "files": {name: os.fspath(file) for name, file in result.files.items()},
                "seconds": round(result.elapsed, 3),
            }
            for result in results
        ],
    }
    write_file(path, (json.dumps(report, indent=2) + "\n").encode())


def table(results: Sequence[Result], report: Path) -> str:
    """Return the numbers of recordings by status and the errors, one per line."""
    counts = Counter[str](result.status for result in results)
    errors = [f"  {printable(result.error)}" for result in results if result.error is not None]
    return "\n".join(
        [*(f"{status:8} {counts[status]}" for status in STATUSES), *errors, f"{'report':8} {printable(report)}"]
    )
