"""`vocalsep evaluate`: scores of stems against true stems."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.base import Command
from vocalsep.cli.options import PATH


@click.command(cls=Command, short_help="Score stems against true stems.")
@click.argument("references", type=PATH)
@click.argument("estimates", type=PATH)
@click.option(
    "--museval", "with_museval", is_flag=True, help="Also print SDR, SIR and SAR (needs vocalsep[eval] and ffmpeg)."
)
def evaluate(references: Path, estimates: Path, with_museval: bool) -> None:
    """Score the stems in ESTIMATES against the true stems of the same names in REFERENCES.

    \b
    vocalsep evaluate true_stems/ separated/choir/

    Prints SI-SDR in dB at 16 kHz: mean and median over frames of 1 s by the protocol of the published figures (without
    the first 4 s and silent frames), and that of each whole stem.
    """
    import numpy as np

    from vocalsep.evaluation.ensemble import load_stems
    from vocalsep.evaluation.metrics import bss_metrics, frame_scores, mean_median, si_sdr
    from vocalsep.timebase import MODEL_SAMPLE_RATE

    names, true, found = load_stems(references, estimates)
    framed, whole = frame_scores(true, found, true.sum(axis=0)), si_sdr(true, found)
    bss = bss_metrics(true, found, MODEL_SAMPLE_RATE) if with_museval else np.zeros((0, len(names)))
    titles = ["frames mean", "frames median", "whole", *(["SDR", "SIR", "SAR"] if with_museval else [])]
    click.echo(f"{'SI-SDR (dB)':<16}" + "".join(f"{title:>15}" for title in titles))
    total = np.concatenate(framed)
    sung = whole[~np.isnan(whole)]  # a voice that rests throughout has no score
    rows = [[*mean_median(framed[row]), whole[row], *bss[:, row]] for row in range(len(names))]
    rows.append([*mean_median(total), np.mean(sung) if sung.size else np.nan])
    for name, values in zip([*names, "all"], rows, strict=True):
        click.echo(f"{name:<16}" + "".join(f"{value:>15.2f}" for value in values))
    if not total.size:
        click.echo("No frame counts: the recording has no sound after the first 4 s. See the whole stems.", err=True)
