"""What `vocalsep separate` shows: a bar with the time left, a few lines for each recording, and a table at the end."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vocalsep.batch.folders import Batch
    from vocalsep.batch.running import Listener, Outcome

_MENTION_SECONDS = 0.5  # by which f0s may end before the recording without a word
_BAR = "{percentage:3.0f}% {bar} {remaining} left {desc}"


class Display:
    """Shows how a run goes, on stdout and stderr.

    Parameters
    ----------
    batch
        The run.
    heard
        Signals that end it, as they are heard.
    """

    def __init__(self, batch: Batch, heard: Sequence[int]) -> None:
        from tqdm import tqdm

        self._heard = heard
        self._batch = batch
        self._single = len(batch.plan.tasks) + len(batch.plan.unreadable) == 1
        # disable=None: no bar where stderr is no terminal.
        disable = None if sys.stderr is not None else True
        self._bar: Any = tqdm(total=1, leave=False, bar_format=_BAR, disable=disable, smoothing=0)
        self._seconds = [] if self._bar.disable else _lengths(batch)
        self._shares = [0.0] * len(batch.plan.tasks)
        self._bar.total = sum(self._seconds) or 1

    def listener(self) -> Listener:
        """Return what the run tells how far it is."""
        from vocalsep.batch.running import Listener

        return Listener(self._progress, self._finished)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _progress(self, number: int, share: float) -> None:
        self._stop_if_interrupted()
        if self._seconds:
            self._shares[number] = share
            self._bar.set_description_str(_shown(self._batch.plan.tasks[number].source.name), refresh=False)
            self._bar.n = sum(map(_product, self._shares, self._seconds))
            self._bar.refresh()

    def _finished(self, number: int, outcome: Outcome) -> None:
        if outcome.status == "failed":
            # Whatever an interruption makes of the code that it meets is no failure of the recording.
            self._stop_if_interrupted()
        if self._seconds and outcome.status == "skipped":
            self._bar.total -= self._seconds[number]
            self._seconds[number] = 0.0
        self._bar.clear()
        self._tell(outcome)
        self._progress(number, 1.0)

    def _stop_if_interrupted(self) -> None:
        if self._heard:
            raise KeyboardInterrupt

    def _tell(self, outcome: Outcome) -> None:
        if outcome.status == "failed" and not self._single:
            _say(f"Error: {_shown(outcome.error)}", err=True)
        elif outcome.status == "skipped":
            _say(f"{_shown(outcome.source)}: is complete, skipped")
        elif outcome.status == "done":
            _tell_done(outcome, self._batch)


def _say(line: str, *, err: bool = False) -> None:
    """Print a line. Work goes on where it cannot be: `| head` has closed the pipe, or a log's disk is full."""
    try:
        click.echo(line, err=err)
    except OSError:
        # Nothing more is tried, and Python does not try either when it ends.
        stream = sys.stderr if err else sys.stdout
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _product(share: float, seconds: float) -> float:
    return share * seconds


def _lengths(batch: Batch) -> list[float]:
    """Return the seconds of audio of each recording; those of which it is not known get the mean of the others."""
    from vocalsep.audio import AudioReader
    from vocalsep.errors import VocalsepError

    lengths: list[float] = []
    for task in batch.plan.tasks:
        try:
            with AudioReader(task.source) as reader:
                lengths.append((reader.samples or 0) / reader.sample_rate)
        except VocalsepError:
            lengths.append(0.0)
    known = [length for length in lengths if length > 0]
    mean = sum(known) / len(known) if known else 1.0
    return [length or mean for length in lengths]


def _shown(text: object) -> str:
    from vocalsep.errors import printable

    return printable(text)


def _tell_done(outcome: Outcome, batch: Batch) -> None:
    """Print what was written, and on stderr what a user should know of it."""
    assert outcome.record is not None
    result, source = outcome.record.result, _shown(outcome.source)
    for note in _notes(result):
        _say(f"Note: {source}: {note}", err=True)
    for mark in outcome.record.former:
        _say(f"Note: {_shown(batch.job.out / mark.path)} is still there, from an earlier run.", err=True)
    where = batch.call.device if batch.call.ray is None else "Ray"
    _say(f"{source}: {result['seconds']:.1f} s, separated in {outcome.elapsed:.1f} s on {where}")
    if result["adaptation"] is not None:
        _say(f"  {result['adaptation']}")
    for name, mark in outcome.record.files.items():
        share = result["singing"].get(name)
        path = _shown(batch.job.out / mark.path)
        _say(f"  {path}" + ("" if share is None else f"  (sings {share:.0%} of the time)"))


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    given, seconds, gain = result["given_seconds"], result["seconds"], result["gain"]
    if given is not None and seconds - given > _MENTION_SECONDS:
        yield f"the f0s end at {given:.1f} s of {seconds:.1f} s; voices rest after that."
    if not any(result["singing"].values()):
        yield "no voice was found to sing; the recording was shared out by level."
    if gain != 1:
        depth = result["bit_depth"]
        yield f"the stems add up to {gain:.3f} times it, so that they fit into {depth} bits; --float32 keeps its level."
    if result["clipped"]:
        yield f"{result['clipped']} samples of the stems were cut at full scale."


def show_table(outcomes: Sequence[Outcome], report: Path) -> None:
    """Print how many recordings are done, skipped and failed, and why they failed."""
    counts = Counter(outcome.status for outcome in outcomes)
    width = len(str(len(outcomes)))
    for status in ("done", "skipped", "failed", "unfinished"):
        if status != "unfinished" or counts[status]:
            _say(f"{status:10} {counts[status]:{width}d}")
        if status == "failed":
            for outcome in outcomes:
                if outcome.status == "failed":
                    _say(f"  {_shown(outcome.error)}")
    _say(f"{'report':10} {_shown(report)}")


def show_plan(batch: Batch) -> None:
    """Print what would be done with each recording."""
    from vocalsep.batch.records import check_source
    from vocalsep.errors import VocalsepError

    for task, state in batch.states():
        source, kind = _shown(task.source), state.kind
        try:
            check_source(task.source)
        except VocalsepError as error:
            _say(f"{source}: would fail: {_shown(error)}")
            continue
        if kind == "complete" and not batch.job.overwrite:
            _say(f"{source}: is complete, would be skipped")
        elif kind == "foreign" and not batch.job.overwrite:
            _say(f"{source}: would fail: {_shown(state.reason)}; --overwrite replaces it")
        else:
            _say(f"{source}: would be separated" + (f" again ({_shown(state.reason)})" if state.reason else ""))
            for path in task.targets.values():
                _say(f"  {_shown(path)}")
    for path, reason in batch.plan.unreadable.items():
        _say(f"{_shown(path)}: would fail: {reason}")
