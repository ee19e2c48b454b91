"""Make the example recording: two phrases of a Bach chorale, sung by vocalsep's own synthesizer.

"O Haupt, sonst schön gezieret mit höchster Ehr und Zier" from the St Matthew Passion (BWV 244, no. 54; words by Paul
Gerhardt, 1656), one singer to a part. Every voice is the source-filter model that separation rests on: f0 with
portamento, a vibrato that sets in late and a little unsteadiness, formants of vowels and consonants as line spectral
frequencies, and noise.

    python examples/make_chorale.py                      # chorale.flac and chorale_f0.csv beside this script
    python examples/make_chorale.py --stems true_stems   # and the true stems, which add up to the recording
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vocalsep import F0Tracks, audio
from vocalsep.dsp.stft import StftGrid
from vocalsep.model.synthesizer import VoiceParameters, synthesize, voice_power
from vocalsep.timebase import HOP

SAMPLE_RATE = 44100
SEED = 1727  # the year of the St Matthew Passion
PEAK_DB = -3.0
MELLOW = 0.24  # real poles that make a voice softer than the -6 dB per octave of the source
WET = 0.16  # amplitude of the tail of the room against a direct sound of 1

# The score: time in s of some beats (between them the tempo is even), and syllables that all voices sing together:
# beat, consonants, vowels, consonants. Two vowels are a diphthong.
BEATS = (0, 6, 7, 7.999, 8, 12, 13, 16)
SECONDS = (0.55, 5.95, 6.9, 8.15, 8.75, 12.4, 13.4, 16.35)  # a fermata and a breath at beat 8, slower at the end
TAIL = 0.75  # s of room behind the last note
SYLLABLES = (
    *((0, "", "o", ""), (1, "h", "au", "pt"), (2, "z", "o", "nst"), (3, "S", "ö", "n"), (4, "g", "e", "")),
    *((5, "ts", "i", ""), (7, "r", "e", "t"), (8, "m", "i", "t"), (9, "h", "ö", "ç"), (10, "st", "e", "")),
    *((11, "", "e", ""), (12, "", "u", "nt"), (13, "ts", "i", "")),
)
PHRASES = ((0, 8), (8, 16))
FIRST_BEATS = tuple(first for first, _ in PHRASES)


@dataclass(frozen=True)
class Singer:
    """A part and the voice that sings it.

    Parameters
    ----------
    melody
        MIDI pitches one after the other, each of one beat unless ":" gives another number of them.
    formants
        Vowel -> frequencies of its five formants in Hz.
    level_db, pan
        Level against the others; place between -1 (left) and 1 (right).
    vibrato_cents, vibrato_hz
        Of the full vibrato.
    """

    melody: str
    formants: dict[str, tuple[int, ...]]
    level_db: float
    pan: float
    vibrato_cents: float
    vibrato_hz: float


SINGERS = {
    "soprano": Singer(
        "77 76:.5 74:.5 72 74 76 77:2 77  72 74 72 70:.5 69:.5 70 69:3",
        {
            "a": (850, 1250, 2900, 3900, 4950),
            "e": (550, 1950, 2800, 3700, 4950),
            "i": (440, 2300, 3000, 3900, 4950),
            "o": (580, 1020, 2830, 3800, 4950),
            "ö": (480, 1650, 2600, 3700, 4950),
            "u": (450, 950, 2700, 3800, 4950),
        },
        *(0.0, -0.45, 38.0, 5.9),
    ),
    "alto": Singer(
        "69 67 67:.5 65:.5 65 70 70 69:.5 67:.5 69  69 69:.5 67:.5 69 67:.5 66:.5 67 66:3",
        {
            "a": (780, 1180, 2800, 3500, 4700),
            "e": (530, 1800, 2700, 3400, 4700),
            "i": (430, 2100, 2900, 3600, 4700),
            "o": (570, 1000, 2780, 3500, 4700),
            "ö": (460, 1550, 2550, 3400, 4700),
            "u": (440, 920, 2600, 3500, 4700),
        },
        *(-1.0, 0.2, 30.0, 5.6),
    ),
    "tenor": Singer(
        "62:.5 60:.5 58 60 60 58:.5 60:.5 62 60:.5 58:.5 60  65:.5 63:.5 62 62 62 62 62:3",
        {
            "a": (670, 1100, 2600, 2950, 3500),
            "e": (500, 1680, 2550, 3150, 3600),
            "i": (410, 1950, 2550, 3200, 3700),
            "o": (550, 940, 2550, 2850, 3400),
            "ö": (430, 1450, 2400, 3000, 3500),
            "u": (430, 860, 2550, 2900, 3400),
        },
        *(-0.5, -0.2, 34.0, 5.5),
    ),
    "bass": Singer(
        "50 55 57 58:.5 57:.5 55 53:2 53  53 58 54 55 43 50:3",
        {
            "a": (610, 1040, 2300, 2600, 3200),
            "e": (460, 1600, 2300, 2750, 3250),
            "i": (390, 1800, 2350, 2800, 3300),
            "o": (500, 840, 2300, 2600, 3100),
            "ö": (400, 1350, 2200, 2700, 3200),
            "u": (390, 780, 2300, 2600, 3100),
        },
        *(0.0, 0.45, 26.0, 5.2),
    ),
}


@dataclass(frozen=True)
class Sound:
    """A sound of speech.

    Parameters
    ----------
    seconds
        Duration of a consonant; a vowel takes what is left.
    harmonics_db, noise_db
        Levels against the harmonics of a vowel.
    formants
        Five frequencies in Hz; none: those of the vowel beside it.
    width
        Factor on the bandwidths of the formants.
    """

    seconds: float
    harmonics_db: float
    noise_db: float
    formants: tuple[int, ...] = ()
    width: float = 1.0


SILENT = -90.0
VOWEL = Sound(0.0, 0.0, -36.0)
BREATH = Sound(0.30, SILENT, -31.0, (700, 1500, 2600, 3700, 5000), 3.0)
CONSONANTS = {
    "m": Sound(0.070, -9, -45, (250, 1050, 2300, 3200, 4200), 2.0),
    "n": Sound(0.075, -9, -45, (270, 1400, 2500, 3300, 4200), 2.0),
    "r": Sound(0.050, -8, -36, (420, 1250, 2200, 3300, 4200), 2.0),
    "z": Sound(0.080, -12, -28, (260, 1700, 2700, 4800, 6000), 2.0),
    "g": Sound(0.045, -20, -32, (230, 1900, 2400, 3400, 4200), 2.0),
    "h": Sound(0.070, SILENT, -27),
    "p": Sound(0.030, SILENT, -34, (900, 1500, 2600, 3800, 5000), 5.0),
    "t": Sound(0.045, SILENT, -27, (1800, 3200, 4300, 5400, 6600), 5.0),
    "s": Sound(0.110, SILENT, -27, (1900, 4700, 5600, 6500, 7200), 3.0),
    "S": Sound(0.130, SILENT, -24, (1700, 2500, 3200, 4300, 5600), 2.5),
    "ç": Sound(0.090, SILENT, -28, (1900, 2900, 3700, 4800, 6000), 2.5),
}


@dataclass(frozen=True)
class Segment:
    """A sound from one time to another in s, with the vowel it belongs to."""

    start: float
    stop: float
    sound: Sound
    vowel: str


def seconds_at(beat: float) -> float:
    """Return the time in s of a beat."""
    return float(np.interp(beat, BEATS, SECONDS))


def line_spectral_frequencies(frequencies: NDArray[np.float64], bandwidths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the LSFs in rad of the all-pole filter with these resonances in Hz, shape (2 resonances + 4,).

    A(z) = (1 - r z^-1)^4 prod_i (1 - z_i z^-1) (1 - z_i* z^-1) with z_i = e^((-pi B_i + 2 pi j F_i) / fs); its LSFs
    are the angles of the roots of A(z) +- z^-(p+1) A(1/z) without those at z = -1 and z = 1.
    """
    poles = np.exp((-np.pi * bandwidths + 2j * np.pi * frequencies) / audio.MODEL_SAMPLE_RATE)
    a = np.append(np.real(np.poly([*poles, *poles.conj(), *[MELLOW] * 4])), 0.0)
    angles = np.concatenate([np.angle(np.roots(a + sign * a[::-1])) for sign in (1, -1)])
    return np.sort(angles[(angles > 1e-4) & (angles < np.pi - 1e-4)])


def smooth(values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Return `values`, shape (..., frames), averaged under a Hann window of so many seconds."""
    half = max(1, round(seconds / HOP / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="edge")
    return np.apply_along_axis(np.convolve, -1, padded, window / window.sum(), "valid")


def unsteadiness(n_frames: int, seconds: float, generator: torch.Generator) -> NDArray[np.float64]:
    """Return noise of variance 1 that changes within so many seconds, shape (frames,)."""
    noise = smooth(normal(n_frames, generator), seconds)
    return noise / noise.std()


def normal(count: int, generator: torch.Generator) -> NDArray[np.float64]:
    """Return normally distributed numbers, shape (count,)."""
    return torch.randn(count, generator=generator, dtype=torch.float64).numpy()


def segments_of(generator: torch.Generator) -> list[Segment]:
    """Return what one singer does, from the first breath to the end; every singer is a little early or late."""
    late = 0.018 * normal(len(SYLLABLES), generator)
    onsets = [seconds_at(syllable[0]) + float(shift) for syllable, shift in zip(SYLLABLES, late, strict=True)]
    lengths = [[sum(CONSONANTS[c].seconds for c in syllable[i]) for syllable in SYLLABLES] for i in (1, 3)]
    segments = []
    for index, (beat, before, vowels, after) in enumerate(SYLLABLES):
        # Vowels sound on the beat, so that consonants take their time from the syllable before.
        start = onsets[index] - lengths[0][index]
        if beat in FIRST_BEATS:
            segments.append(Segment(start - 0.06 - BREATH.seconds, start - 0.06, BREATH, vowels[0]))
        if index + 1 < len(SYLLABLES) and SYLLABLES[index + 1][0] not in FIRST_BEATS:
            end = onsets[index + 1] - lengths[0][index + 1]
        else:
            end = phrase_end(beat)
        stop = end - lengths[1][index]
        middle = stop - 0.35 * (stop - onsets[index]) if len(vowels) > 1 else stop
        segments += consonants_from(start, before, vowels[0])
        segments.append(Segment(onsets[index], middle, VOWEL, vowels[0]))
        if len(vowels) > 1:
            segments.append(Segment(middle, stop, VOWEL, vowels[1]))
        segments += consonants_from(stop, after, vowels[-1])
    return segments


def consonants_from(start: float, letters: str, vowel: str) -> list[Segment]:
    """Return consonants one after the other from a time in s on."""
    times = start + np.cumsum([0.0, *(CONSONANTS[letter].seconds for letter in letters)])
    return [Segment(a, b, CONSONANTS[c], vowel) for a, b, c in zip(times[:-1], times[1:], letters, strict=True)]


def phrase_end(beat: float) -> float:
    """Return the time in s at which the phrase around a beat ends."""
    return seconds_at(next(last for first, last in PHRASES if first <= beat < last) - 0.001)


def sing_f0(singer: Singer, times: NDArray[np.float64], generator: torch.Generator) -> NDArray[np.float64]:
    """Return the f0 in Hz that a singer has in mind, also where nothing sounds, shape (frames,)."""
    notes = np.array(
        [
            (float(pitch), float(length or 1))
            for pitch, _, length in (note.partition(":") for note in singer.melody.split())
        ]
    )
    beats = np.cumsum([0, *notes[:-1, 1]])
    first = np.isin(beats, FIRST_BEATS)
    # A glide begins before the beat; a phrase begins on its own note.
    onsets = np.array([seconds_at(beat) for beat in beats])
    note = np.clip(np.searchsorted(onsets - np.where(first, 0.2, 0.03), times, side="right") - 1, 0, None)
    pitch = smooth(notes[note, 0], 0.11)
    age = np.clip(times - onsets[note], 0, None)
    scoop = np.exp(-age / 0.06) * np.where(first, 0.4, 0.12)[note]
    depth = singer.vibrato_cents / 100 * smooth(np.clip((age - 0.2) / 0.4, 0, 1), 0.15)
    depth *= 1 + 0.15 * unsteadiness(len(times), 0.5, generator)
    rate = singer.vibrato_hz * (1 + 0.04 * unsteadiness(len(times), 0.8, generator))
    vibrato = depth * np.sin(2 * np.pi * (np.cumsum(rate) * HOP + normal(1, generator)))
    drift = 0.10 * unsteadiness(len(times), 1.0, generator) + 0.02 * unsteadiness(len(times), 0.06, generator)
    return 440 * np.exp2((pitch - scoop + vibrato + drift - 69) / 12)


def dynamics_db(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the loudness in dB of noise and of harmonics, each of shape (frames,).

    Phrases swell and fade, every syllable does so a little, and tones set in softly.
    """
    loudness, attack = np.full(len(times), -3.0), np.zeros(len(times))
    for first, last in PHRASES:
        start, stop = seconds_at(first), seconds_at(last - 0.001)
        place = np.clip((times - start) / (stop - start), 0, 1)
        loudness += 5 * np.sin(np.pi * place**0.8)
        inside = (times > start - 0.1) & (times < stop + 0.05)
        loudness -= 30 * inside * np.clip(1 - (stop - times) / 0.35, 0, 1) ** 2
        attack -= 16 * inside * np.clip(1 - (times - start) / 0.14, 0, 1) ** 2
    onsets = np.array([seconds_at(syllable[0]) for syllable in SYLLABLES])
    age = times - onsets[np.clip(np.searchsorted(onsets, times, side="right") - 1, 0, None)]
    loudness += 1.5 * np.sin(np.pi * np.clip(age / 0.8, 0, 1))
    return loudness, loudness + attack


def tract(singer: Singer, segment: Segment, f0: float) -> NDArray[np.float64]:
    """Return the LSFs in rad of the vocal tract in a segment that is sung at an f0 in Hz."""
    five = segment.sound.formants or singer.formants[segment.vowel]
    formants = np.concatenate([five, np.linspace(five[-1], 7900, 5)[1:-1]])  # and three that fill the range above them
    if not segment.sound.formants:  # on high notes singers open the mouth: the first formant stays above f0
        formants[0] = max(formants[0], 1.05 * f0)
        formants[1] = max(formants[1], 1.3 * formants[0])
    return line_spectral_frequencies(formants, (75 + 12 * (formants / 1000) ** 2) * segment.sound.width)


def voice_parameters(singer: Singer, times: NDArray[np.float64], generator: torch.Generator) -> VoiceParameters:
    """Return the parameters of one voice, f0 of shape (1, frames)."""
    segments, f0 = segments_of(generator), sing_f0(singer, times, generator)
    away = np.stack([np.maximum(np.maximum(part.start - times, times - part.stop), 0) for part in segments])
    nearest, sounding = away.argmin(axis=0), away.min(axis=0) == 0
    lsf = np.stack([tract(singer, part, float(np.median(f0[away[i] <= HOP]))) for i, part in enumerate(segments)])
    levels = np.array([[part.sound.noise_db, part.sound.harmonics_db] for part in segments]).T[:, nearest]
    amplitude = smooth(np.where(sounding, 10 ** (levels / 20), 0), 0.05) + 1e-6
    wanted_db = 20 * np.log10(amplitude) + np.stack(dynamics_db(times)) + 0.5 * unsteadiness(len(times), 0.1, generator)
    voiced = sounding & (levels[1] > SILENT)
    return levelled(f0 * voiced, f0, smooth(lsf[nearest].T, 0.06).T, wanted_db)


def levelled(
    f0: NDArray[np.float64], line: NDArray[np.float64], lsf: NDArray[np.float64], wanted_db: NDArray[np.float64]
) -> VoiceParameters:
    """Return the parameters of one voice whose noise and harmonics have the levels `wanted_db`.

    Parameters
    ----------
    f0, line
        Hz, shape (frames,): what is sung, 0 = unvoiced, and the same without gaps.
    lsf
        Shape (frames, order).
    wanted_db
        Of noise and of harmonics, shape (2, frames).
    """
    pitch, filters = torch.from_numpy(line)[None], torch.from_numpy(lsf)[None]
    hiss = torch.linspace(0.13, 1, 24, dtype=torch.float64).log().expand(1, len(f0), -1)  # rises with frequency
    one = torch.zeros_like(pitch)
    alone = VoiceParameters(pitch, one - 40, filters, hiss), VoiceParameters(pitch, one, filters, 0 * hiss - 40)
    power = torch.cat([voice_power(part, StftGrid.of_duration()).sum(dim=-2) for part in alone]).numpy()
    # Slow, so that partials still wax and wane where vibrato takes them through formants; what sounds counts.
    weight = 10 ** (wanted_db / 20)
    natural_db = smooth(10 * np.log10(power) * weight, 0.12) / smooth(weight, 0.12)
    noise, harmonics = torch.from_numpy((wanted_db - natural_db) / (20 / np.log(10)))[:, None]
    return VoiceParameters(torch.from_numpy(f0)[None], harmonics, filters, hiss + noise[..., None])


def in_room(dry: NDArray[np.float64], pan: float, generator: torch.Generator) -> NDArray[np.float64]:
    """Return a voice in a small hall, shape (2, samples): panned, with a few echoes and a tail of 0.7 s."""
    seconds = np.arange(round(0.6 * SAMPLE_RATE)) / SAMPLE_RATE
    angle = (pan + 1) * np.pi / 4
    result = []
    for gain in (np.cos(angle), np.sin(angle)):
        tail = np.convolve(normal(len(seconds) + 11, generator), np.hanning(14)[1:-1], "valid")  # walls take the treble
        tail *= np.exp(-seconds * np.log(1000) / 0.7) * (seconds > 0.015)
        response = WET * tail / np.sqrt((tail**2).sum())
        for echo in (0.009, 0.016, 0.023, 0.031):
            response[round((echo + 0.002 * normal(1, generator)[0]) * SAMPLE_RATE)] += 0.12 * np.exp(-echo / 0.03)
        response[0] += gain
        size = 1 << (len(dry) + len(response)).bit_length()
        wet = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size), size)
        result.append(wet[: len(dry)])
    return np.stack(result)


def make() -> tuple[dict[str, NDArray[np.float32]], F0Tracks]:
    """Return the stems, each of shape (2, samples), and the f0 tracks of the chorale."""
    times = np.arange(round((SECONDS[-1] + TAIL) / HOP) + 1) * HOP
    samples = round(times[-1] * SAMPLE_RATE)
    stems, f0s = {}, []
    for index, (name, singer) in enumerate(SINGERS.items()):
        generator = torch.Generator().manual_seed(SEED + index)
        parameters = voice_parameters(singer, times, generator)
        dry = synthesize(parameters, SAMPLE_RATE, samples=samples, generator=generator)[0].numpy()
        dry *= 10 ** (singer.level_db / 20) / np.sqrt((dry**2).mean())
        stems[name] = in_room(dry, singer.pan, generator)
        f0s.append(parameters.f0[0].numpy())
    peak = np.abs(sum(stems.values())).max()
    scaled = {name: (stem * 10 ** (PEAK_DB / 20) / peak).astype(np.float32) for name, stem in stems.items()}
    return scaled, F0Tracks(np.round(np.stack(f0s), 1), tuple(SINGERS))


def main() -> None:
    """Write the chorale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of chorale.flac and its f0")
    parser.add_argument("--stems", type=Path, help="folder for the true stems, which are not written otherwise")
    options = parser.parse_args()
    stems, tracks = make()
    audio.write(options.out / "chorale.flac", sum(stems.values()), SAMPLE_RATE)
    tracks.to_csv(options.out / "chorale_f0.csv")
    if options.stems:
        for name, stem in stems.items():
            audio.write(options.stems / f"{name}.flac", stem, SAMPLE_RATE, bit_depth="24")


if __name__ == "__main__":
    main()
