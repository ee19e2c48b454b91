"""`vocalsep separate`: recordings to stems."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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

if TYPE_CHECKING:
    from vocalsep.given import ProgressCallback
    from vocalsep.separation import Separation
    from vocalsep.separator import Separator
    from vocalsep.tracks import F0Tracks

_MENTION_SECONDS = 0.5  # by which f0s may end before the recording without a word
# Share of the whole that each stage takes on two cores, for the progress bar.
_STAGES = {"f0": (0.0, 0.75), "parameters": (0.75, 0.02), "masks": (0.77, 0.23)}
_STAGES_ADAPTED = {"f0": (0.0, 0.3), "adaptation": (0.3, 0.6), "parameters": (0.9, 0.01), "masks": (0.91, 0.09)}


@click.command()
@click.argument("files", nargs=-1, required=True, type=existing_path())
@click.option(
    "-o", "--out", type=existing_path(), default=Path("separated"), show_default=True, help="Folder of the stems."
)
@voices_option
@f0_option
@guides_option
@crepe_option
@tracker_option
@refine_option
@model_option
@device_option
@click.option(
    "--filename",
    default="{track}/{stem}.{ext}",
    show_default=True,
    help="Path of a stem inside the output folder.",
)
@click.option(
    "--format",
    "audio_format",
    type=click.Choice(["wav", "flac", "ogg", "mp3"]),
    default="wav",
    show_default=True,
    help="Format of the stems.",
)
@click.option("--int24", is_flag=True, help="Write 24-bit samples (wav, flac) instead of 16.")
@click.option(
    "--float32", is_flag=True, help="Write 32-bit float samples (wav): stems add up to the recording exactly."
)
@click.option("--residual", is_flag=True, help="Put what sounds while no voice sings into a stem of its own.")
@click.option(
    "--adapt", is_flag=True, help="First learn from the recording itself, unsupervised; kept only where it helps."
)
@adapt_seconds_option("--adapt-seconds")
@click.option("--overwrite", is_flag=True, help="Replace stems that exist already.")
def separate(
    files: tuple[Path, ...],
    out: Path,
    voices: str | None,
    f0_path: Path | None,
    guides: Path | None,
    crepe: str,
    tracker: str,
    refine: int | None,
    model: str,
    device: str,
    filename: str,
    audio_format: str,
    int24: bool,
    float32: bool,
    residual: bool,
    adapt: bool,
    adapt_seconds: float | None,
    overwrite: bool,
) -> None:
    """Separate FILES into one stem for each voice.

    The stems of choir.wav are written to separated/choir/soprano.wav and so on; they add up to the recording.
    """
    from tqdm import tqdm

    from vocalsep import audio
    from vocalsep.errors import ParameterError, VocalsepError
    from vocalsep.separation import plan_outputs
    from vocalsep.separator import Separator, stem_names

    if int24 and float32:
        raise ParameterError("both --int24 and --float32 are given; expected one of them")
    bit_depth = "float32" if float32 else "24" if int24 else "16"
    audio.validate_format(audio_format, bit_depth)
    if len(files) > 1 and (f0_path or guides):
        raise ParameterError(f"--f0 and --guides belong to one recording; got {len(files)} files")
    if adapt_seconds is not None and not adapt:
        raise ParameterError("--adapt-seconds goes with --adapt")
    tracks = given_tracks(f0_path, guides, voices, crepe)
    planned = plan_outputs(
        files,
        out,
        stem_names(tracks, voices, residual),
        filename=filename,
        audio_format=audio_format,
        overwrite=overwrite,
    )
    separator = Separator(model, device, tracker=tracker)
    failed = 0
    for source in planned:
        started = time.perf_counter()
        try:
            waveform, sample_rate = audio.read(source)
            # disable=None: no bar where stderr is no terminal.
            form = "{desc}: {bar} {n:.0f}%"
            with tqdm(total=100, desc=source.name, leave=False, bar_format=form, disable=None) as bar:
                progress = _progress(bar, _STAGES_ADAPTED if adapt else _STAGES)
                mono = audio.to_model_rate(waveform, sample_rate)
                found = separator.track(mono, tracks, voices=voices, refine=refine, progress=progress)
                system = separator
                if adapt:
                    system = separator.adapted([(mono, found)], seconds=adapt_seconds, progress=progress)
                result = system.separate(waveform, found, sample_rate=sample_rate, residual=residual, progress=progress)
                written = result.save(
                    out, track=source.stem, filename=filename, audio_format=audio_format, bit_depth=bit_depth
                )
        except VocalsepError as error:
            if len(planned) == 1:
                raise
            failed += 1
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            continue
        _report(source, result, written, tracks, time.perf_counter() - started, system)
    if failed:
        raise ParameterError(f"{failed} of {len(planned)} files could not be separated")


def _report(
    source: Path, result: Separation, written: list[Path], given: F0Tracks | None, elapsed: float, separator: Separator
) -> None:
    """Print what was written, and on stderr what a user should know of it."""
    seconds = next(iter(result.stems.values())).shape[-1] / result.sample_rate
    if given is not None and seconds - given.n_frames * given.hop > _MENTION_SECONDS:
        ending = given.n_frames * given.hop
        click.echo(f"Note: the f0s end at {ending:.1f} s of {seconds:.1f} s; voices rest after that.", err=True)
    if not result.f0.voiced.any():
        click.echo("Note: no voice was found to sing; the recording was shared out by level.", err=True)
    click.echo(f"{source}: {seconds:.1f} s, separated in {elapsed:.1f} s on {separator.device}")
    if separator.adaptation is not None:
        click.echo(f"  {separator.adaptation}")
    for path, voiced in zip(written, [*result.f0.voiced.mean(axis=1), None], strict=False):
        click.echo(f"  {path}" + (f"  (sings {voiced:.0%} of the time)" if voiced is not None else ""))


def _progress(bar: Any, stages: Mapping[str, tuple[float, float]]) -> ProgressCallback:
    def update(stage: str, fraction: float) -> None:
        start, share = stages[stage]
        bar.n = 100 * (start + share * fraction)
        bar.refresh()

    return update
