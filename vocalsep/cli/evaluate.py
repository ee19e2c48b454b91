"""`vocalsep evaluate`: scores of stems against true stems."""

from __future__ import annotations

from pathlib import Path

import click

from vocalsep.cli.options import existing_path


@click.command(short_help="Score stems against true stems.")
@click.argument("references", type=existing_path())
@click.argument("estimates", type=existing_path())
@click.option(
    "--museval", "with_museval", is_flag=True, help="Also SDR, SIR and SAR (needs the extra vocalsep[eval] and ffmpeg)."
)
def evaluate(references: Path, estimates: Path, with_museval: bool) -> None:
    """Score the stems in ESTIMATES against those of the same names in REFERENCES.

    Prints SI-SDR in dB: mean and median over frames of 1 s by the protocol of the published figures (excerpts of
    4 s without the first, silent frames dropped; at 16 kHz, against the sum of the references), and plain, over
    the whole of each stem.
    """
    import numpy as np

    from vocalsep import audio
    from vocalsep.errors import AudioError
    from vocalsep.evaluation.metrics import bss_metrics, frame_scores, overall, si_sdr
    from vocalsep.separation.folders import audio_files, read_stems
    from vocalsep.timebase import MODEL_SAMPLE_RATE

    reference_files, estimate_files = audio_files(references), audio_files(estimates)
    missing = [name for name in reference_files if name not in estimate_files]
    if missing:
        raise AudioError(f"{estimates}: has no {missing[0]}; it has {', '.join(estimate_files)}")
    names = list(reference_files)
    stems = {}
    for label, files in (("references", reference_files), ("estimates", estimate_files)):
        waveforms, sample_rate = read_stems({name: files[name] for name in names})
        mono = [audio.to_model_rate(waveform, sample_rate) for waveform in waveforms.values()]
        stems[label] = mono
    lengths = {len(waveform) for group in stems.values() for waveform in group}
    if max(lengths) - min(lengths) > MODEL_SAMPLE_RATE // 10:
        seconds = ", ".join(f"{length / MODEL_SAMPLE_RATE:.2f}" for length in sorted(lengths))
        raise AudioError(f"the stems last {seconds} s; expected references and estimates of one length")
    true, found = (np.stack([waveform[: min(lengths)] for waveform in group]) for group in stems.values())
    framed = frame_scores(true, found, true.sum(axis=0), MODEL_SAMPLE_RATE)
    plain = si_sdr(true, found)
    bss = bss_metrics(true, found, MODEL_SAMPLE_RATE) if with_museval else None
    titles = ["frames mean", "frames median", "plain", *(["SDR", "SIR", "SAR"] if bss is not None else [])]
    click.echo(f"{'SI-SDR (dB)':<16}" + "".join(f"{title:>15}" for title in titles))
    for row, name in enumerate(names):
        values = [framed[row].mean, framed[row].median, float(plain[row]), *([] if bss is None else bss[:, row])]
        click.echo(f"{name:<16}" + "".join(f"{value:>15.2f}" for value in values))
    total = overall(framed)
    sung = plain[~np.isnan(plain)]  # the plain figure of a voice that rests throughout is none
    mean = float(np.mean(sung)) if sung.size else float("nan")
    click.echo(f"{'all':<16}{total.mean:>15.2f}{total.median:>15.2f}{mean:>15.2f}")
    if not total.values.size:
        click.echo(
            "No frame counts: the protocol skips the first 4 s and silent frames; see the plain figures.", err=True
        )
