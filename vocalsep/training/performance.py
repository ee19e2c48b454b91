"""The performance of a part: f0 with vibrato, glides and breaths, loudness, and the filter of every sound.

Vibrato, preparation, overshoot and fluctuation of f0 follow T. Saitou, M. Unoki, M. Akagi, "Development of an F0
control model based on F0 dynamic characteristics for singing-voice synthesis", 2005.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from vocalsep.dsp.units import midi_to_hz
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.model.synthesizer.all_pole import lsf_from_resonances
from vocalsep.model.synthesizer.excitation import harmonic_count
from vocalsep.model.synthesizer.spectrogram import harmonic_log_amplitude, noise_log_density
from vocalsep.timebase import HOP, MODEL_SAMPLE_RATE
from vocalsep.training.scores import ScoreNote
from vocalsep.training.singers import BREATH, FORMANTS, SILENT, VOWEL, Singer, Sound, Syllable

Curve = NDArray[np.float64]

_EVEN_FORMANTS = (3500, 4500)  # Hz: fourth and fifth formant of a vocal tract of 17 cm without a singer's formant
_TOP_FORMANT = 7900.0  # Hz: three more formants fill the range from the fifth up to here
_NOISE_BANDS = 24


class Segment(NamedTuple):
    """A sound, with its start and stop in seconds and the formants of its vowel."""

    start: float
    stop: float
    sound: Sound
    formants: tuple[float, ...]


class Performance:
    """One singer's rendering of a part, as curves from which the parameters of the synthesizer are made."""

    def __init__(
        self,
        notes: Sequence[ScoreNote],
        singer: Singer,
        tempo: float,
        text: Sequence[Syllable],
        frames: int,
        rng: Generator,
    ) -> None:
        self.singer, self.rng = singer, rng
        self.times = np.arange(frames) * HOP
        self.pitches = np.array([note.pitch for note in notes], dtype=np.float64)
        beats = np.array([(note.start, note.stop) for note in notes])
        self.starts, self.stops = (beats * 60 / tempo).T.copy()
        self.starts += np.clip(rng.normal(0, singer.late, len(notes)), -0.05, 0.05)
        self.first = np.append(True, beats[1:, 0] - beats[:-1, 1] > 0.05)
        self._breathe()
        joined = ~self.first[1:]
        self.stops[:-1][joined] = self.starts[1:][joined]
        self.phrase = np.cumsum(self.first) - 1
        self.syllables = [text[int(2 * note.start) % len(text)] for note in notes]

    def _breathe(self) -> None:
        """Split phrases that are too long for a breath."""
        began = self.starts[0]
        for index in range(1, len(self.starts)):
            if self.first[index] or self.starts[index] - began > self.rng.uniform(5, 12):
                if not self.first[index]:
                    length = self.stops[index - 1] - self.starts[index - 1]
                    self.stops[index - 1] -= min(0.3, 0.4 * length)
                self.first[index], began = True, self.starts[index]

    def segments(self) -> list[Segment]:
        """Return the sounds in order; consonants shorten the note before, so that vowels start on the beat."""
        result: list[Segment] = []
        formants = self._formants(self.syllables[0].vowel, self.pitches[0])
        for index, syllable in enumerate(self.syllables):
            start, stop = float(self.starts[index]), float(self.stops[index])
            if self.first[index] or not syllable.legato:
                formants = self._formants(syllable.vowel, self.pitches[index])
                room = start - (self.stops[index - 1] if index else 0.0)
                if self.first[index] and room > 0.2 and self.rng.random() < 0.7:
                    length = min(room - 0.1, self.rng.uniform(*BREATH.seconds))
                    result.append(Segment(start - length - 0.08, start - 0.08, BREATH, formants))
                if syllable.consonant:
                    longest = room if self.first[index] else 0.4 * (start - self.starts[index - 1])
                    begin = start - min(self.rng.uniform(*syllable.consonant.seconds), max(longest, 0.0))
                    if result and not self.first[index]:
                        result[-1] = result[-1]._replace(stop=begin)
                    result.append(Segment(begin, start, syllable.consonant, formants))
            result.append(Segment(start, stop, VOWEL, formants))
        return [segment for segment in result if segment.stop - segment.start > 0.005]

    def _formants(self, vowel: str, pitch: float) -> tuple[float, ...]:
        """Return five formants of a vowel, coloured by another vowel and tuned to a high note."""
        table = FORMANTS[self.singer.voice_type]
        other = table[str(self.rng.choice(list(table)))]
        lean = self.rng.uniform(0, 0.35)
        formants = np.array(table[vowel]) ** (1 - lean) * np.array(other) ** lean
        formants[3:] = self.singer.ring * formants[3:] + (1 - self.singer.ring) * np.array(_EVEN_FORMANTS)
        formants *= self.singer.tract * np.exp(self.rng.normal(0, 0.02, 5))
        # On high notes singers open the mouth: the first formant stays above f0.
        formants[0] = max(formants[0], 1.03 * midi_to_hz(pitch))
        formants[1:] = np.maximum(formants[1:], 1.15 * formants[0])
        return tuple(formants)

    def f0(self) -> Curve:
        """Return the intended f0 in Hz, also during rests, shape (frames,)."""
        singer, frames = self.singer, len(self.times)
        pitch = np.full(frames, self.pitches[0])
        glides = np.clip(singer.portamento * np.exp(self.rng.normal(0, 0.3, len(self.pitches))), 0.02, 0.15)
        for index in range(1, len(self.pitches)):
            leap = self.pitches[index] - self.pitches[index - 1]
            # A glide begins before the beat; a phrase begins on its own pitch.
            glide = glides[index]
            middle = self.starts[index] - (0.15 if self.first[index] else 0.2 * glide)
            low, high = np.searchsorted(self.times, (middle - 0.4, middle + 0.4))
            age = (self.times[low:high] - middle) / glide
            pitch[low:high] += leap * 0.5 * (1 + np.sin(np.pi * np.clip(age, -0.5, 0.5)))
            pitch[high:] += leap
            swing = np.sign(leap) * min(abs(leap), 2) / 200
            pitch[low:high] += swing * singer.overshoot_cents * np.exp(-((age - 1) ** 2) * 2)
            pitch[low:high] -= swing * singer.preparation_cents * np.exp(-((age + 1) ** 2) * 2)
        note, age = self._age()
        scoop = np.where(self.first, singer.scoop_cents / 100 * self.rng.random(len(self.first)), 0)[note]
        intonation = _smooth(self.rng.normal(0, 0.05, len(self.pitches))[note], 0.08)
        drift = singer.drift_cents * self._unsteadiness(1.0) + singer.jitter_cents * self._unsteadiness(0.05)
        cents = singer.offset_cents + drift + self._vibrato(note, age)
        return midi_to_hz(pitch - scoop * np.exp(-age / 0.06) + intonation + cents / 100)

    def _vibrato(self, note: NDArray[np.int64], age: Curve) -> Curve:
        """Return the vibrato in cents, which starts a while after the onset of each note."""
        onset = self.rng.uniform(0.05, 0.35, len(self.pitches))[note]
        depth = self.singer.vibrato_cents * _smooth(np.clip((age - onset) / 0.3, 0.15, 1), 0.15)
        depth *= np.clip(1 + 0.2 * self._unsteadiness(0.5), 0.2, 1.5)
        rate = self.singer.vibrato_hz * (1 + 0.05 * self._unsteadiness(0.8))
        return depth * np.sin(2 * np.pi * (np.cumsum(rate) * HOP + self.rng.random()))

    def _age(self) -> tuple[NDArray[np.int64], Curve]:
        """Return the index of the note of each frame, and the seconds since its start."""
        note = np.clip(np.searchsorted(self.starts, self.times, side="right") - 1, 0, None)
        return note, np.clip(self.times - self.starts[note], 0, None)

    def _unsteadiness(self, seconds: float) -> Curve:
        """Return noise of variance 1, smoothed over so many seconds, shape (frames,)."""
        noise = _smooth(self.rng.normal(size=len(self.times)), seconds)
        return noise / max(float(noise.std()), 1e-9)

    def loudness_db(self) -> tuple[Curve, Curve]:
        """Return the loudness in dB without and with the attacks and ends of phrases; the maximum is about 0."""
        note, age = self._age()
        begins, ends = self.starts[self.first], self.stops[np.append(self.first[1:], True)]
        phrase = self.phrase[note]
        length = np.maximum(ends - begins, 0.1)[phrase]
        since, until = self.times - begins[phrase], ends[phrase] - self.times
        shape = np.sin(np.pi * np.clip(since / length, 0, 1) ** self.rng.uniform(0.6, 1.6))
        peak = self.rng.uniform(0.4, 1.0, len(begins))[phrase]
        slow = _smooth(self.singer.dynamics_db * (shape * peak - 1), 0.2)
        slow += 1.5 * np.exp(-age / 0.2) + 0.7 * self._unsteadiness(0.4)
        release = self.rng.uniform(0.04, 0.25)
        edges = -24 * np.clip(1 - since / self.singer.attack, 0, 1) ** 2
        edges -= 24 * np.clip(1 - until / np.minimum(release, 0.5 * length), 0, 1) ** 2
        dips = -self.rng.uniform(0, 3) * np.exp(-((age / 0.03) ** 2))
        return slow, slow + edges + dips + self.singer.shimmer_db * self._unsteadiness(0.04)

    def parameters(self) -> VoiceParameters:
        """Return the parameters of the voice, f0 of shape (frames,)."""
        segments, line = self.segments(), self.f0()
        starts, stops = np.array([segment[:2] for segment in segments]).T
        # The segment of each frame, or the nearest one.
        index = np.clip(np.searchsorted(starts, self.times, side="right") - 1, 0, None)
        inside = (self.times >= starts[index]) & (self.times < stops[index])
        following = np.clip(index + 1, None, len(segments) - 1)
        index = np.where(~inside & (starts[following] - self.times < self.times - stops[index]), following, index)
        levels = np.array([(segment.sound.harmonics_db, segment.sound.noise_db) for segment in segments])
        levels[levels[:, 1] == SILENT, 1] = self.singer.breath_db
        slow, loud = self.loudness_db()
        effort = np.clip(1 + slow / 20, 0, 1)
        tables = [self._filters(segments, tilt) for tilt in (self.singer.tilt + 0.2, self.singer.tilt)]
        natural = _natural_levels(
            tables[1], line[np.searchsorted(self.times, 0.5 * (starts + stops)).clip(max=len(line) - 1)]
        )
        lsf = _smooth((tables[0][index].T * (1 - effort) + tables[1][index].T * effort), 0.07).T
        voiced = inside & (levels[index, 0] > SILENT)
        # Singers compensate for the different loudness of vowels only in part.
        harmonics = _smooth(np.maximum(levels[index, 0], -30), 0.05) + loud - 0.75 * _smooth(natural[0][index], 0.07)
        amplitude = _smooth(np.where(inside, 10 ** ((levels[index, 1] - natural[1][index]) / 20), 0), 0.03)
        noise = np.log(amplitude + 1e-7) + np.where(voiced, loud, slow) * (np.log(10) / 20)
        hiss = np.log(np.linspace(0.15, 1, _NOISE_BANDS))  # rises with frequency
        curves = (line * voiced, harmonics * (np.log(10) / 20), lsf, noise[:, None] + hiss)
        return VoiceParameters(*(torch.from_numpy(curve.astype(np.float32)) for curve in curves))

    def _filters(self, segments: Sequence[Segment], tilt: float) -> Curve:
        """Return the LSFs of each segment, shape (segments, order)."""
        five = np.array([segment.sound.formants or segment.formants for segment in segments])
        above = five[:, -1:] + (_TOP_FORMANT - five[:, -1:]) * np.arange(1, 4) / 4
        formants = np.minimum(np.concatenate([five, above], axis=1), _TOP_FORMANT)
        width = self.singer.width * np.array([segment.sound.width for segment in segments])
        bandwidth = (60 + 12 * (formants / 1000) ** 2) * width[:, None]
        pole = torch.full((len(segments),), min(tilt, 0.85))
        return lsf_from_resonances(
            torch.from_numpy(formants), torch.from_numpy(bandwidth), pole, MODEL_SAMPLE_RATE
        ).numpy()


def _natural_levels(lsf: Curve, f0: Curve) -> Curve:
    """Return the levels in dB of harmonics and noise of gain 1 after the filters, shape (2, filters)."""
    one = torch.ones(1, len(f0))
    parameters = VoiceParameters(
        torch.from_numpy(f0.astype(np.float32))[None],
        0 * one,
        torch.from_numpy(lsf.astype(np.float32))[None],
        0 * one[..., None].expand(-1, -1, 2),
    )
    nyquist = MODEL_SAMPLE_RATE / 2
    number = torch.arange(1, harmonic_count(parameters.f0, nyquist) + 1)
    harmonics = torch.exp(2 * harmonic_log_amplitude(parameters, len(number)))
    harmonics = harmonics * (parameters.f0[..., None] * number < nyquist)
    density = noise_log_density(parameters, torch.linspace(0, nyquist, 128))
    power = torch.cat([0.5 * harmonics.sum(-1), torch.exp(2 * density).mean(-1) * nyquist])
    return 10 * np.log10(power.numpy().astype(np.float64))


def _smooth(values: Curve, seconds: float) -> Curve:
    """Return values, shape (..., frames), smoothed by a Hann window of so many seconds."""
    half = max(1, round(seconds / HOP / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="edge")
    rows = [np.convolve(row, window / window.sum(), "valid") for row in np.atleast_2d(padded)]
    return np.stack(rows).reshape(values.shape)
