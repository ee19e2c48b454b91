"""`vocalsep separate`: recordings and folders of recordings to stems."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from vocalsep.cli.base import FAILED, Command
from vocalsep.cli.options import (
    PATH,
    f0_option,
    f0_tracks,
    guides_option,
    masks_options,
    network_options,
    voices_option,
)
from vocalsep.options import CLIP_MODES, FORMATS, NetworkOptions, OutputOptions, SeparationOptions

_OPTION_GROUPS = {
    "Output": ("out", "filename", "format", "bit_depth", "clip_mode", "two_stems", "residual"),
    "Voices and f0": ("voices", "f0s", "guides", "crepe", "tracker"),
    "Separation": ("room", "model", "masks", "device"),
    "Many files": ("recursive", "overwrite", "dry_run", "jobs", "ray", "report"),
}

_option = partial(click.option, show_default=True)


@click.command(cls=Command, option_groups=_OPTION_GROUPS)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILES|FOLDERS...")
@_option("-o", "--out", type=PATH, default=Path("separated"), help="Output folder.")
@_option("--filename", default=OutputOptions.filename, help="Path of a stem inside the output folder.")
@_option("--format", type=click.Choice(list(FORMATS)), default=OutputOptions.format, help="Format of the stems.")
@click.option("--int16", "bit_depth", flag_value="16", help="Write 16-bit samples. Default: as the recording.")
@click.option("--int24", "bit_depth", flag_value="24", help="Write 24-bit samples (wav, flac).")
@click.option(
    "--float32", "bit_depth", flag_value="float32", help="Write 32-bit float samples (wav); the sum is then exact."
)
@_option(
    "--clip-mode",
    type=click.Choice(CLIP_MODES),
    default=OutputOptions.clip_mode,
    help="If a stem would clip: turn all stems down by the same amount (rescale), cut its peaks (clamp), or write it "
    "as it is (none).",
)
@click.option("--two-stems", metavar="VOICE", help="Write two stems: VOICE (alto) and everything else (no_alto).")
@_option(
    "--room",
    default=SeparationOptions.room,
    metavar="SECONDS",
    help="Reverberation time (T60) of the place, auto to estimate it, or none.",
)
@click.option("--residual", is_flag=True, help="Put passages in which nobody sings into a stem of their own.")
@voices_option()
@f0_option
@guides_option
@network_options
@masks_options
@click.option("-r", "--recursive", is_flag=True, help="Search folders inside FOLDERS.")
@click.option("--overwrite", is_flag=True, help="Separate finished recordings again, and replace existing files.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@_option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Recordings at a time; their processes share the cores or the GPU.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Ray cluster that shares the file system: auto, host:port, or local (this machine). Needs vocalsep[ray].",
)
@click.option("--report", type=PATH, metavar="PATH", help="File of the report. Default: report.json in --out.")
@click.pass_context
def separate(
    ctx: click.Context,
    files: tuple[Path, ...],
    out: Path,
    filename: str,
    format: str,
    bit_depth: str | None,
    clip_mode: str,
    two_stems: str | None,
    room: str,
    residual: bool,
    voices: str | None,
    f0s: Path | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    model: str,
    masks: str,
    device: str,
    recursive: bool,
    overwrite: bool,
    dry_run: bool,
    jobs: int,
    ray: str | None,
    report: Path | None,
) -> None:
    """Separate recordings of choirs into one audio file per voice.

    \b
    vocalsep separate choir.wav                    soprano, alto, tenor, bass
    vocalsep separate concerts/ -r -o stems -j 4   a folder, four at a time

    The stems of choir.wav are separated/choir/soprano.wav and so on; they add up to the recording. All audio files in a
    FOLDER are separated, and its structure is kept.

    To resume an interrupted run, give the same command again: finished recordings are skipped. Existing files are never
    overwritten without --overwrite. A recording that fails does not stop the others; report.json in the output folder
    lists the results.

    Exit codes: 0 all done, 1 some recordings failed, 2 bad input, 130 interrupted.
    """
    from vocalsep.batch.report import table
    from vocalsep.batch.run import BatchOptions, prepare
    from vocalsep.cli.display import Display, show_plan
    from vocalsep.errors import OptionError

    if len(files) > 1 and (f0s or guides):
        raise OptionError(f"f0 tracks belong to one recording; got {len(files)} files", parameter="f0s")
    here = "cpu" if ray else device  # the GPUs of a cluster are not on this machine
    planned = prepare(
        files,
        out,
        SeparationOptions(voices, room, residual),
        OutputOptions(format, bit_depth, clip_mode, two_stems, filename),
        NetworkOptions(model, tracker, crepe, masks, device),
        BatchOptions(recursive, overwrite, jobs, ray, report),
        f0_tracks(f0s, guides, voices, crepe, here),
    )
    if dry_run:
        show_plan(planned, ctx.command)
        return
    with Display(planned, ctx) as display:
        results = planned.run(display, ["vocalsep", *sys.argv[1:]])
    failed = [result.error for result in results if result.error is not None]
    if failed and len(results) == 1:
        raise failed[0]
    if len(results) > 1:
        click.echo(table(results, planned.report))
    ctx.exit(FAILED if failed else 0)
