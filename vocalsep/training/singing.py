"""Synthetic singing with known f0: random singers and sections sing scores through the synthesizer of the model.

Waveform and f0 of a take come from one curve on the 16-ms grid, so the f0 is exact. See `scores` for the music,
`singers` for the voices, `performance` for the way they sing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator

from vocalsep.dsp.units import midi_to_hz
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.training.performance import Performance
from vocalsep.training.scores import Score, ScoreNote, counterpoint, random_voices
from vocalsep.training.singers import Singer, Syllable, random_text
from vocalsep.training.takes import Piece, Take, section_f0

_SIZES = {2: 0.15, 3: 0.2, 4: 0.4, 5: 0.15, 6: 0.1}  # number of voices in counterpoint -> its probability


def sing(
    notes: Sequence[ScoreNote],
    singer: Singer,
    tempo: float,
    rng: Generator,
    *,
    seconds: float,
    text: Sequence[Syllable] | None = None,
) -> Take:
    """Return a take of a part with an RMS of 0.05 to 0.1 in its voiced frames.

    The tempo is in beats per minute. If `text` is None, the text is random.
    """
    samples = round(seconds * MODEL_SAMPLE_RATE)
    frames = samples // HOP_LENGTH + 1
    if not notes:
        return Take(np.zeros(samples, np.float32), np.zeros((1, frames), np.float32))
    text = random_text(rng, 64) if text is None else text
    members = [Performance(notes, singer.member(rng), tempo, text, frames, rng) for _ in range(singer.section)]
    sung = [member.parameters() for member in members]
    parameters = VoiceParameters(
        *(torch.stack([getattr(one, name) for one in sung]) for name in ("f0", "log_gain", "lsf", "log_noise"))
    )
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    waveform = synthesize(parameters, samples=samples, generator=generator).sum(dim=0).numpy()
    f0 = section_f0(parameters.f0.numpy().astype(np.float64))
    voiced = np.repeat(f0 > 0, HOP_LENGTH)[:samples]
    level = rng.uniform(0.05, 0.1) / np.sqrt(np.mean(waveform[voiced] ** 2) + 1e-12) if voiced.any() else 0.0
    return Take((waveform * level).astype(np.float32), f0[None])


def synthetic_pieces(rng: Generator, n_pieces: int, scores: Sequence[Score] = (), seconds: float = 30.0) -> list[Piece]:
    """Return dry synthetic pieces of equal length.

    Two of three pieces are excerpts of the scores; the others, or all if there are no scores, are random counterpoint
    for 2 to 6 voices.
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
            n_voices = int(rng.choice(list(_SIZES), p=list(_SIZES.values())))
            score = counterpoint(rng, random_voices(rng, n_voices), beats)
        score = _transposed(score, rng)
        rng.random()  # not used, but so a seed gives the same pieces as in version 0.1
        text = random_text(rng, 64) if rng.random() < 0.75 else None
        pieces.append(
            {
                voice.name: [sing(notes, Singer.random(rng, voice), tempo, rng, seconds=seconds, text=text)]
                for voice, notes in zip(score.voices, score.parts, strict=True)
            }
        )
    return pieces


def _transposed(score: Score, rng: Generator) -> Score:
    """Return a score moved by up to four semitones within the ranges of its voices."""
    possible = [
        semitones
        for semitones in range(-4, 5)
        if all(
            voice.fmin * 1.03 < midi_to_hz(note.pitch + semitones) < voice.fmax / 1.03
            for voice, notes in zip(score.voices, score.parts, strict=True)
            for note in notes
        )
    ]
    return score.transposed(float(rng.choice(possible or [0])))
