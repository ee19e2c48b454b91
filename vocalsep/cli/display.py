"""Output of `vocalsep separate`: a progress bar, and a few lines for each recording."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vocalsep.audio import AudioReader
from vocalsep.batch.job import Result, check
from vocalsep.batch.plan import Job
from vocalsep.batch.run import BatchRun, Monitor
from vocalsep.cli.base import raise_interrupt, sentence
from vocalsep.errors import VocalsepError, printable

_F0_ENDS_EARLY = 0.5  # seconds by which f0 tracks may be shorter than the recording without a note
_BAR = "{percentage:3.0f}% {bar} {remaining} left {desc}"

# Start of each stage and its share of the time, on two cores without a GPU.
_STAGES = {"reading": (0.0, 0.02), "f0": (0.02, 0.25), "masks": (0.27, 0.71), "writing": (0.98, 0.02)}


class Display(Monitor):
    """Shows a run on stdout and stderr; errors name the flags of the command of `ctx`."""

    def __init__(self, run: BatchRun, ctx: click.Context) -> None:
        self._run, self._ctx = run, ctx
        self._single = len(run.jobs) + len(run.unreadable) == 1
        self._bar: Any = None
        self._amounts: dict[Path, float] = {}
        self._done = 0.0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def started(self, jobs: Sequence[Job]) -> None:
        """Show a bar: by seconds of audio, or by recordings if several are separated at a time."""
        from tqdm import tqdm

        # None shows no bar if stderr is not a terminal; without any stderr tqdm would fail.
        self._bar = tqdm(total=1, leave=False, bar_format=_BAR, disable=None if sys.stderr else True, smoothing=0)
        if not self._bar.disable:
            by_seconds = self._run.processes == 1 and self._run.batch.ray is None
            self._amounts = {job.source: _seconds(job.source) if by_seconds else 1.0 for job in jobs}
            self._bar.total = sum(self._amounts.values()) or 1.0

    def progress(self, job: Job, stage: str, fraction: float) -> None:
        """Move the bar."""
        raise_interrupt(self._ctx)
        if self._amounts:
            start, share = _STAGES.get(stage, (0.0, 0.0))
            done = self._done + self._amounts[job.source] * (start + share * fraction)
            self._bar.set_description_str(printable(job.source.name), refresh=False)
            self._bar.update(max(0.0, done - self._bar.n))

    def finished(self, result: Result) -> None:
        """Print the result of a recording."""
        raise_interrupt(self._ctx)  # not a failure of the recording
        if self._bar is not None:
            self._bar.clear()
        if result.error is not None:
            if not self._single:  # the error of a single recording ends the command
                click.echo(f"Error: {sentence(result.error, self._ctx.command)}", err=True)
        elif result.status == "skipped":
            click.echo(f"{printable(result.source)}: done before, skipped")
        else:
            self._show_done(result)
        if self._amounts:
            self._done += self._amounts.get(result.source, 0.0)
            self._bar.update(max(0.0, self._done - self._bar.n))

    def _show_done(self, result: Result) -> None:
        assert result.record is not None
        source, summary, seconds = printable(result.source), result.record["summary"], result.record["input"]["seconds"]
        for note in _notes(summary, seconds):
            click.echo(f"Note: {source}: {note}", err=True)
        where = "Ray" if self._run.batch.ray else self._run.options.networks.device
        click.echo(f"{source}: {seconds:.1f} s, separated in {result.elapsed:.1f} s on {where}")
        if summary["room"]:
            click.echo(f"  room: about {summary['room']['reverberation_time']:.1f} s of reverberation")
        for name, path in result.files.items():
            share = summary["singing"].get(name)
            click.echo(f"  {printable(path)}" + ("" if share is None else f"  (sings {share:.0%} of the time)"))


def _notes(summary: Mapping[str, Any], seconds: float) -> Iterator[str]:
    f0_seconds, gain = summary["f0_seconds"], summary["gain"]
    if f0_seconds is not None and seconds - f0_seconds > _F0_ENDS_EARLY:
        yield f"the f0 tracks end at {f0_seconds:.1f} s of {seconds:.1f} s; after that no voice sings."
    if not any(summary["singing"].values()):
        yield "no voice sings; the recording is shared equally among the stems."
    if gain != 1:
        yield f"all stems are turned down by {-20 * math.log10(gain):.1f} dB, or one would clip; --float32 avoids it."
    if summary["clipped"]:
        yield f"{summary['clipped']} samples of the stems are clipped."


def _seconds(source: Path) -> float:
    """Return the length of a recording, 1 s if it is not known."""
    try:
        with AudioReader(source) as reader:
            return (reader.samples or reader.sample_rate) / reader.sample_rate
    except VocalsepError:
        return 1.0


def show_plan(run: BatchRun, command: click.Command) -> None:
    """Print what would be done with each recording."""
    for job in run.jobs:
        source, result = printable(job.source), check(job, run.options)
        if result is None:
            click.echo(f"{source}: would be separated")
            for path in job.targets.values():
                click.echo(f"  {printable(path)}")
        elif result.error is not None:
            click.echo(f"{source}: would fail: {sentence(result.error, command)}")
        else:
            click.echo(f"{source}: done before, would be skipped")
    for folder, why in run.unreadable.items():
        click.echo(f"{printable(folder)}: would fail: {why}")
