"""Random singers and sections for synthetic singing, and the vowels, consonants and syllables that they sing.

The formants of the vowels are those of B. Vercoe et al., The Csound Manual, appendix D, "Formant values", measured at
IRCAM for the synthesizer CHANT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vocalsep.voices import PARTS, Voice

FORMANTS = {
    "soprano": {
        "a": (800, 1150, 2900, 3900, 4950),
        "e": (350, 2000, 2800, 3600, 4950),
        "i": (270, 2140, 2950, 3900, 4950),
        "o": (450, 800, 2830, 3800, 4950),
        "u": (325, 700, 2700, 3800, 4950),
    },
    "alto": {
        "a": (800, 1150, 2800, 3500, 4950),
        "e": (400, 1600, 2700, 3300, 4950),
        "i": (350, 1700, 2700, 3700, 4950),
        "o": (450, 800, 2830, 3500, 4950),
        "u": (325, 700, 2530, 3500, 4950),
    },
    # In men the third to fifth lie close together: the singer's formant.
    "tenor": {
        "a": (650, 1080, 2650, 2900, 3250),
        "e": (400, 1700, 2600, 3200, 3580),
        "i": (290, 1870, 2800, 3250, 3540),
        "o": (400, 800, 2600, 2800, 3000),
        "u": (350, 600, 2700, 2900, 3300),
    },
    "bass": {
        "a": (600, 1040, 2250, 2450, 2750),
        "e": (400, 1620, 2400, 2800, 3100),
        "i": (250, 1750, 2600, 3050, 3340),
        "o": (400, 750, 2400, 2600, 2900),
        "u": (350, 600, 2400, 2675, 2950),
    },
}
"""Voice type -> vowel -> its five formants in Hz."""
SILENT = -90.0
"""Level in dB of missing harmonics or noise."""


class Sound(NamedTuple):
    """A sound of speech."""

    seconds: tuple[float, float] = (0.0, 0.0)  # shortest and longest duration of a consonant
    harmonics_db: float = 0.0  # level relative to the harmonics of a vowel; SILENT if unvoiced
    noise_db: float = SILENT  # level of the noise relative to the harmonics of a vowel
    formants: tuple[int, ...] = ()  # five frequencies in Hz; empty for those of the vowel that follows
    width: float = 1.0  # factor on the bandwidths of the formants


VOWEL = Sound()
BREATH = Sound((0.15, 0.40), SILENT, -32.0, (700, 1500, 2600, 3700, 5000), 3.0)
CONSONANTS = (
    Sound((0.040, 0.100), -8.0, -50.0, (250, 1050, 2300, 3200, 4200), 2.0),  # m
    Sound((0.040, 0.100), -8.0, -50.0, (270, 1400, 2500, 3300, 4200), 2.0),  # n
    Sound((0.030, 0.080), -6.0, -45.0, (380, 1150, 2600, 3400, 4200), 1.5),  # l
    Sound((0.030, 0.060), -8.0, -38.0, (420, 1250, 2200, 3300, 4200), 2.0),  # r
    Sound((0.040, 0.090), -11.0, -28.0, (260, 1700, 2700, 4800, 6000), 2.0),  # z, v
    Sound((0.020, 0.050), -18.0, -32.0, (230, 1900, 2400, 3400, 4200), 2.0),  # b, d, g
    Sound((0.040, 0.090), SILENT, -27.0),  # h
    Sound((0.020, 0.060), SILENT, -30.0, (900, 1500, 2600, 3800, 5000), 5.0),  # p
    Sound((0.020, 0.070), SILENT, -24.0, (1800, 3200, 4300, 5400, 6600), 5.0),  # t, k
    Sound((0.060, 0.120), SILENT, -22.0, (1900, 4700, 5600, 6500, 7200), 3.0),  # s
    Sound((0.060, 0.120), SILENT, -20.0, (1700, 2500, 3200, 4300, 5600), 2.5),  # sh
    Sound((0.050, 0.100), SILENT, -30.0, (1200, 2900, 4300, 5600, 7000), 5.0),  # f
)


class Syllable(NamedTuple):
    """The text of a note."""

    consonant: Sound | None
    vowel: str
    legato: bool  # the note continues the vowel before it (a melisma)


@dataclass(frozen=True)
class Singer:
    """The sound of a singer, or of a section of similar singers."""

    voice_type: str  # key of `FORMANTS`
    tract: float  # factor on the formants; above 1 for a shorter vocal tract
    width: float  # factor on the bandwidths of the formants
    ring: float  # from 0, upper formants evenly spread as in a blending choir, to 1, those of a soloist
    vibrato_hz: float
    vibrato_cents: float  # amplitude; 0 is a straight tone
    offset_cents: float  # constant deviation from the score
    drift_cents: float  # standard deviation of the slow deviations, over about a second
    portamento: float  # seconds of a glide between two notes
    preparation_cents: float  # swing of f0 before a leap, against its direction
    overshoot_cents: float  # swing of f0 beyond a leap
    scoop_cents: float  # start of a phrase below its pitch
    jitter_cents: float  # standard deviation of f0 from frame to frame
    shimmer_db: float  # standard deviation of the level from frame to frame
    breath_db: float  # level of the breath noise in a vowel relative to its harmonics
    tilt: float  # real pole of the filter: 0 for a bright, 0.6 for a mellow voice
    dynamics_db: float  # range within a phrase
    attack: float  # seconds in which a phrase sets in
    late: float  # standard deviation of the onsets in seconds
    section: int = 1  # number of singers

    @classmethod
    def random(cls, rng: Generator, voice: Voice) -> Singer:
        """Return a random singer or section for a voice."""
        return cls(
            voice_type=_voice_type(voice),
            tract=float(np.exp(rng.normal(0, 0.05))),
            width=rng.uniform(0.7, 1.5),
            ring=rng.random(),
            vibrato_hz=rng.uniform(4.5, 6.5),
            vibrato_cents=0.0 if rng.random() < 0.3 else rng.uniform(5, 80),
            offset_cents=float(np.clip(rng.normal(0, 9), -25, 25)),
            drift_cents=rng.uniform(2, 14),
            portamento=rng.uniform(0.02, 0.12),
            preparation_cents=rng.uniform(0, 20),
            overshoot_cents=rng.uniform(0, 30),
            scoop_cents=rng.uniform(0, 80),
            jitter_cents=rng.uniform(1, 6),
            shimmer_db=rng.uniform(0.2, 0.9),
            breath_db=rng.uniform(-45, -22),
            tilt=rng.uniform(0.05, 0.6),
            dynamics_db=rng.uniform(3, 14),
            attack=rng.uniform(0.02, 0.2),
            late=rng.uniform(0.003, 0.025),
            section=int(rng.choice([1, 2, 3, 4, 5], p=[0.6, 0.1, 0.12, 0.09, 0.09])),
        )

    def member(self, rng: Generator) -> Singer:
        """Return one singer of the section, slightly different from the others."""
        if self.section == 1:
            return self
        return replace(
            self,
            tract=self.tract * float(np.exp(rng.normal(0, 0.03))),
            vibrato_hz=self.vibrato_hz * float(np.exp(rng.normal(0, 0.05))),
            vibrato_cents=0.6 * self.vibrato_cents * rng.uniform(0.5, 1.2),
            offset_cents=self.offset_cents + rng.normal(0, 7),
            tilt=float(np.clip(self.tilt + rng.normal(0, 0.07), 0, 0.7)),
            late=max(self.late, 0.012),
            section=1,
        )


def _voice_type(voice: Voice) -> str:
    """Return the type of voice whose range has the nearest middle."""
    middle = {part.name: part.fmin * part.fmax for part in PARTS.values() if part.name in FORMANTS}
    return min(middle, key=lambda name: abs(np.log(middle[name] / (voice.fmin * voice.fmax))))


def random_text(rng: Generator, syllables: int) -> list[Syllable]:
    """Return the syllables of notes by the half beat on which they start; voices that sing together share them."""
    text = []
    for _ in range(syllables):
        consonant = CONSONANTS[int(rng.integers(len(CONSONANTS)))] if rng.random() < 0.7 else None
        text.append(Syllable(consonant, str(rng.choice(list("aeiou"))), rng.random() < 0.25))
    return text
