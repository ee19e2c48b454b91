"""`vocalsep benchmark-f0`: how well the voices of ensembles are tracked, by which tracker, under what conditions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocalsep.cli.options import device_option, existing_path, model_option, refine_option, tracker_option

if TYPE_CHECKING:
    from vocalsep.evaluation.f0_benchmark import Subset, TrackVoices


@click.command("benchmark-f0", short_help="Score the tracking of f0 in mixtures.")
@click.argument("folder", type=existing_path())
@click.option("--singer", default="3", show_default=True, help="Whose voices to mix: PART_SINGER files.")
@click.option(
    "--ensembles",
    default="quartet,trios,duets",
    show_default=True,
    metavar="LIST",
    help="What to mix of them: quartet, trios, duets, or part letters such as SAB, with commas.",
)
@click.option("--robustness", is_flag=True, help="Also F under reverberation, noise, mp3, detuning and at 8 kHz.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["templates", "basic-pitch"]),
    help="Also this tracker: templates (nothing learned) or Basic Pitch (needs onnxruntime and basic-pitch).",
)
@click.option("--learned/--no-learned", default=True, show_default=True, help="The tracker that separation uses.")
@click.option(
    "--crepe", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True, help="For f0 of stems."
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Only so much of the beginning.")
@tracker_option
@refine_option
@model_option
@device_option
def benchmark_f0(
    folder: Path,
    singer: str,
    ensembles: str,
    robustness: bool,
    baselines: tuple[str, ...],
    learned: bool,
    crepe: str,
    seconds: float | None,
    tracker: str,
    refine: int | None,
    model: str,
    device: str,
) -> None:
    """Track the f0 of the voices in mixtures of the recordings in FOLDER and print how right it is.

    FOLDER holds recordings of single parts in time with one another, named soprano_3.flac and so on, or
    soprano.flac. The truth is CREPE's f0 of each recording alone. A pitch is right within 50 cents; weights must
    not have been trained on the singer.
    """
    from vocalsep.errors import OptionError
    from vocalsep.evaluation import f0_benchmark as bench
    from vocalsep.evaluation.benchmark import load_ensemble
    from vocalsep.evaluation.f0_metrics import require_mir_eval
    from vocalsep.separation.separator import Separator

    require_mir_eval()
    groups = bench.parse_ensembles(ensembles)
    separator = Separator(model, device, tracker=tracker) if learned else None
    table = bench.trackers(baselines, separator=separator, refine=refine)
    if not table:
        raise OptionError("there is no tracker to judge; expected a --baseline beside --no-learned")
    parts = bench.subsets(load_ensemble(folder, singer), groups, crepe=crepe, seconds=seconds)
    click.echo(f"{folder}, singer {singer}, {', '.join(part.voices for part in parts)}; truth: CREPE {crepe}")
    for name, track in table.items():
        click.echo(f"\n== {name}{f', weights {tracker}' if name == 'learned' else ''} ==\n")
        for line in bench.format_tables(bench.track_subsets(track, parts)):
            click.echo(line)
        if robustness:
            _print_robustness(track, parts)


def _print_robustness(track: TrackVoices, parts: list[Subset]) -> None:
    from vocalsep.evaluation import f0_benchmark as bench
    from vocalsep.evaluation.degrade import DEGRADATIONS

    click.echo("\n" + bench.format_f_header("F at 50 cents, all"))
    for condition in DEGRADATIONS:
        tracked = bench.track_subsets(track, parts, condition)
        click.echo(bench.format_f_row(condition, bench.f_table(tracked)["all"]))
