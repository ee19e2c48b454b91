"""`vocalsep separate`: recordings and folders of recordings to stems."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vocalsep.cli.exit_codes import INTERRUPTED, SOME_FAILED
from vocalsep.cli.options import (
    adapt_seconds_option,
    crepe_option,
    device_option,
    existing_path,
    f0_option,
    given_tracks,
    guides_option,
    model_option,
    refine_option,
    tracker_option,
    voices_option,
)
from vocalsep.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from vocalsep.batch.folders import Batch
    from vocalsep.batch.running import Outcome

_PATIENCE = 3  # times that Ctrl-C is pressed before nothing is cleaned up any more
_SECTIONS = {
    "Output": ("out", "filename", "audio_format", "int16", "int24", "float32", "clip_mode", "two_stems", "residual"),
    "Voices and their f0": ("voices", "f0_path", "guides", "crepe", "tracker", "refine"),
    "Separation": ("model", "trust_sha256", "device", "adapt", "adapt_seconds", "seed"),
    "Folders and many files": ("recursive", "overwrite", "dry_run", "jobs", "ray", "report"),
}


@click.command(cls=SectionedCommand, sections=_SECTIONS)
@click.argument("files", nargs=-1, required=True, type=existing_path(), metavar="FILES|FOLDERS...")
@click.option(
    "-o", "--out", type=existing_path(), default=Path("separated"), show_default=True, help="Folder of the stems."
)
@click.option(
    "--filename",
    default="{track}/{stem}.{ext}",
    show_default=True,
    help="Path of a stem inside the output folder, or in the folder there that its recording comes from.",
)
@click.option(
    "--format",
    "audio_format",
    type=click.Choice(["wav", "flac", "ogg", "mp3"]),
    default="wav",
    show_default=True,
    help="Format of the stems.",
)
@click.option("--int16", is_flag=True, help="Write 16-bit samples. Default: the recording's depth.")
@click.option("--int24", is_flag=True, help="Write 24-bit samples (wav, flac).")
@click.option(
    "--float32", is_flag=True, help="Write 32-bit float samples (wav): stems add up to the recording exactly."
)
@click.option(
    "--clip-mode",
    type=click.Choice(["rescale", "clamp", "none"]),
    default="rescale",
    show_default=True,
    help="What becomes of stems beyond full scale: all get one common gain where samples are whole numbers (rescale); "
    "they are cut there (clamp); they stay, and whole numbers are cut all the same (none).",
)
@click.option("--two-stems", metavar="VOICE", help="Write two stems: VOICE (alto, ...) and all the rest (no_alto).")
@click.option("--residual", is_flag=True, help="Put what sounds while no voice sings into a stem of its own.")
@voices_option
@f0_option
@guides_option
@crepe_option
@tracker_option
@refine_option
@model_option
@device_option
@click.option(
    "--adapt", is_flag=True, help="First learn from the recording itself, unsupervised; kept only where it helps."
)
@adapt_seconds_option("--adapt-seconds")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what chance decides in --adapt."
)
@click.option("-r", "--recursive", is_flag=True, help="Look into the folders in FOLDERS, too.")
@click.option("--overwrite", is_flag=True, help="Do everything again, and replace whatever lies where stems are to go.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Recordings at a time: processes that share the cores; on CUDA, threads that share it.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Work on a Ray cluster that shares the file system: auto, host:port, or local for one on this machine. "
    "Needs vocalsep[ray].",
)
@click.option("--report", type=existing_path(), metavar="PATH", help="Of the report. Default: report.json in --out.")
def separate(**options: Any) -> None:
    """Separate recordings into one stem for each voice.

    The stems of choir.wav are written to separated/choir/soprano.wav and so on; they add up to the recording. Of
    FOLDERS all audio files are separated, and their structure is kept.

    What an earlier call has completed is skipped, so that one that was broken off, at whatever moment, is taken up by
    giving it again. Files that are not stems of the same recording, made in the same way, are never replaced without
    --overwrite. A recording that fails does not keep the others from being separated; a table at the end and
    report.json in the output folder say what became of each.

    Exit codes: 0 all is separated, 1 some of several recordings failed, 2 nothing could be done, 130 interrupted.
    """
    sys.exit(_separate(**options))


def _separate(
    *,
    files: tuple[Path, ...],
    f0_path: Path | None,
    guides: Path | None,
    voices: str | None,
    crepe: str,
    dry_run: bool,
    **options: Any,
) -> int:
    """Do what the options say, and return the exit code."""
    from vocalsep.errors import OptionError

    with _interruptible() as heard:
        try:
            if len(files) > 1 and (f0_path or guides):
                raise OptionError(f"--f0 and --guides belong to one recording; got {len(files)} files")
            here = "cpu" if options["ray"] else options["device"]  # a cluster's GPUs are not of this machine
            tracks = given_tracks(f0_path, guides, voices, crepe, here)
            batch = _prepared(files, voices, tracks, **options)
            if dry_run:
                from vocalsep.cli.batch_display import show_plan

                show_plan(batch)
                return 0
            return _run(batch, heard)
        except BaseException as error:
            # What Ctrl-C meets while it imports or computes may turn it into any other exception.
            if not heard and not isinstance(error, KeyboardInterrupt):
                raise
            click.echo("Interrupted: the same command takes it up again.", err=True)
            return INTERRUPTED


def _prepared(
    files: tuple[Path, ...],
    voices: str | None,
    f0s: Any,
    *,
    int16: bool,
    int24: bool,
    float32: bool,
    adapt_seconds: float | None,
    two_stems: str | None,
    audio_format: str,
    clip_mode: str,
    residual: bool,
    refine: int | None,
    adapt: bool,
    seed: int,
    **options: Any,
) -> Batch:
    from vocalsep.batch.folders import prepare
    from vocalsep.errors import OptionError
    from vocalsep.separation.files import Settings

    depths = [depth for depth, given in (("16", int16), ("24", int24), ("float32", float32)) if given]
    if len(depths) > 1:
        raise OptionError("two of --int16, --int24 and --float32 are given; expected one of them")
    if adapt_seconds is not None and not adapt:
        raise OptionError("--adapt-seconds goes with --adapt")
    settings = Settings(
        voices=voices,
        refine=refine,
        residual=residual,
        adapt=adapt,
        adapt_seconds=adapt_seconds,
        seed=seed,
        two_stems=two_stems,
        audio_format=audio_format,
        bit_depth=depths[0] if depths else None,
        clip_mode=clip_mode,
    )
    return prepare(files, options.pop("out"), settings, f0s, command=["vocalsep", *sys.argv[1:]], **options)


def _run(batch: Batch, heard: list[int]) -> int:
    from vocalsep.cli.batch_display import Display, show_table
    from vocalsep.errors import OptionError, printable

    display = Display(batch, heard)
    try:
        outcomes = batch.run(display.listener())
    finally:
        display.close()
    failures = [outcome for outcome in outcomes if outcome.status != "done" and outcome.status != "skipped"]
    if len(outcomes) > 1:
        show_table(outcomes, batch.report)
    if any(outcome.hopeless for outcome in outcomes) or (failures and len(outcomes) == 1):
        raise OptionError(printable(_reason(outcomes)))
    return SOME_FAILED if failures else 0


def _reason(outcomes: list[Outcome]) -> str:
    """Return why the run ended: what every recording would fail of, or else what the only one failed of."""
    errors = sorted((outcome for outcome in outcomes if outcome.error), key=lambda outcome: outcome.hopeless)
    return errors[-1].error


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Turn Ctrl-C and a polite kill into KeyboardInterrupt; the list holds the signals that have been heard."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def interrupt(number: int, _: object) -> None:
        heard.append(number)
        if len(heard) >= _PATIENCE:
            os._exit(INTERRUPTED)
        if len(heard) == 1:
            raise KeyboardInterrupt

    hook: Callable[..., Any] = sys.unraisablehook
    # Where an interruption cannot be raised, in a finalizer say, Python prints a traceback of it.
    sys.unraisablehook = lambda argument: None if heard else hook(argument)
    # While Python ends there is nothing left to interrupt, but much that would print a traceback.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    handlers = {int(number): signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        sys.unraisablehook = hook
