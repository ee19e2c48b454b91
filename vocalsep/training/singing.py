"""Synthetic singing with known f0: random singers and sections sing scores by way of this project's synthesizer.

The f0 of a take is exactly that of its waveform: both come from one curve on the 16-ms grid. Scores are in
`vocalsep.training.scores`, who sings in `singers`, how in `performance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator

from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training import augment
from vocalsep.training.data import Take
from vocalsep.training.performance import Performance
from vocalsep.training.scores import Note, Score, counterpoint
from vocalsep.training.singers import Singer, Syllable, random_text


def sing(
    notes: Sequence[Note],
    singer: Singer,
    tempo: float,
    rng: Generator,
    *,
    seconds: float | None = None,
    text: Sequence[Syllable] | None = None,
    name: str = "singing",
) -> Take:
    """Sing a part.

    Parameters
    ----------
    notes
        Of one voice, one after the other.
    singer
        Who sings.
    tempo
        Quarter notes per minute.
    rng
        Source of chance.
    seconds
        Length of the take; by default half a second more than the notes.
    text
        As `random_text` gives it; by default random.
    name
        Name of the take.

    Returns
    -------
    Take
        At 16 kHz, RMS of what is voiced 0.05 to 0.1; f0 of shape (1, frames), of a section the mean in log frequency
        of those who sing.
    """
    if seconds is None:
        seconds = notes[-1].stop * 60 / tempo + 0.5 if notes else 0.5
    samples = round(seconds * MODEL_SAMPLE_RATE)
    frames = samples // HOP_LENGTH + 1
    if not notes:
        return Take(name, np.zeros(samples, np.float32), np.zeros((1, frames), np.float32))
    text = random_text(rng, 64) if text is None else text
    members = [Performance(notes, singer.member(rng), tempo, text, frames, rng) for _ in range(singer.section)]
    stacked = [member.parameters() for member in members]
    parameters = VoiceParameters(
        *(torch.stack([getattr(part, field) for part in stacked]) for field in ("f0", "log_gain", "lsf", "log_noise"))
    )
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    waveform = synthesize(parameters, samples=samples, generator=generator).sum(dim=0).numpy()
    f0 = parameters.f0.numpy().astype(np.float64)
    voiced = (f0 > 0).sum(axis=0)
    mean = np.exp(np.log(np.where(f0 > 0, f0, 1)).sum(axis=0) / np.maximum(voiced, 1))
    f0 = np.where(2 * voiced >= len(members), mean, 0.0) * (voiced > 0)
    sung = np.repeat(f0 > 0, HOP_LENGTH)[:samples]
    level = rng.uniform(0.05, 0.1) / np.sqrt(np.mean(waveform[sung] ** 2) + 1e-12) if sung.any() else 0.0
    return Take(name, (waveform * level).astype(np.float32), f0[None].astype(np.float32))


def synthetic_pieces(
    rng: Generator, n_pieces: int, scores: Sequence[Score] = (), seconds: float = 30.0, *, room: float = 0.4
) -> list[dict[str, list[Take]]]:
    """Return pieces for `SingerSource`: part name -> [its take], in time with one another and equally long.

    Parameters
    ----------
    rng
        Source of chance.
    n_pieces
        Number of pieces.
    scores
        Scores to draw from; two of three pieces are of these, the others (all, without scores) random counterpoint
        for 2 to 6 voices.
    seconds
        Length of each piece.
    room
        Share of pieces that sound in a random room.
    """
    pieces = []
    for _ in range(n_pieces):
        tempo = rng.uniform(50, 130)
        beats = seconds * tempo / 60
        if scores and rng.random() < 2 / 3:
            score = scores[int(rng.integers(len(scores)))]
            first = np.floor(rng.uniform(0, max(score.beats - beats, 0)))
            score = score.cut(first, first + beats)
        else:
            score = counterpoint(rng, int(rng.choice([2, 3, 4, 5, 6], p=[0.15, 0.2, 0.4, 0.15, 0.1])), beats)
        pieces.append(_piece(rng, _transposed(score, rng), tempo, seconds, rng.random() < room))
    return pieces


def _piece(rng: Generator, score: Score, tempo: float, seconds: float, in_room: bool) -> dict[str, list[Take]]:
    """Let random singers sing every part of a score."""
    shared = random_text(rng, 64) if rng.random() < 0.75 else None
    takes = [
        sing(
            notes,
            Singer.random(rng, voice),
            tempo,
            rng,
            seconds=seconds,
            text=shared,
            name=f"{score.name} {voice.name}",
        )
        for voice, notes in zip(score.voices, score.parts, strict=True)
    ]
    if in_room:
        dry = torch.from_numpy(np.stack([take.waveform for take in takes]))
        wet = augment.reverberate(dry, rng).numpy()
        takes = [replace(take, waveform=waveform) for take, waveform in zip(takes, wet, strict=True)]
    return {voice.name: [take] for voice, take in zip(score.voices, takes, strict=True)}


def _transposed(score: Score, rng: Generator) -> Score:
    """Return a score moved by up to four semitones, as far as its voices' ranges let it."""
    possible = [
        semitones
        for semitones in range(-4, 5)
        if all(
            voice.fmin * 1.03 < 440 * 2 ** ((note.pitch + semitones - 69) / 12) < voice.fmax / 1.03
            for voice, notes in zip(score.voices, score.parts, strict=True)
            for note in notes
        )
    ]
    return score.transposed(float(rng.choice(possible or [0])))
