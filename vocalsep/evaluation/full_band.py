"""The full-band benchmark: how well recordings are taken apart above the 8 kHz that the network hears.

Solo recordings at their own sample rate are brought to one level and added up, so that the stems are known; f0 is
CREPE's on each of them, so that only the masks are judged. Their error is measured band by band. Besides the
separator, rules are judged that could make masks above 8 kHz out of the same parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vocalsep.audio import MODEL_SAMPLE_RATE, Float32, to_model_rate
from vocalsep.errors import AudioError
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.metrics import si_sdr
from vocalsep.f0.single import f0_from_stems
from vocalsep.masks import near_notes, soft_masks
from vocalsep.separator import Separator
from vocalsep.spectrum import StftGrid, instantaneous_frequency, istft, stft
from vocalsep.stems import audio_files, read_stems
from vocalsep.synthesizer import VoiceParameters, voice_power
from vocalsep.tracks import F0Tracks

BAND_EDGES = (0.0, 4000.0, 8000.0, 12000.0, 16000.0, math.inf)
"""Hz. The network hears the first two bands; the last one reaches to half the sample rate."""
LEVEL = 0.05
"""RMS that every stem is brought to, full scale 1."""
TAKES = 4
"""Mixtures of each group of recordings, with different offsets."""
PHRASE_SECONDS = 11.0
"""Length of the phrases that a recording is cut into to sing with itself; it is one at least twice as long."""


def band_sdr(
    references: ArrayLike, estimates: ArrayLike, sample_rate: int, edges: Sequence[float] = BAND_EDGES
) -> NDArray[np.float64]:
    """Return the signal-to-distortion ratio of a group of stems in each band in dB.

    10 log10(sum ||s||^2 / sum ||s - e||^2), sums over the voices and over the band, in which energies are those of
    the discrete Fourier transform of the whole signal. A voice counts as much as its energy in the band; equal
    shares of two voices that have nothing in common give 3 dB.

    Parameters
    ----------
    references, estimates
        s and e, shape (voices, samples).
    sample_rate
        Hz.
    edges
        Of the bands in Hz, increasing; a band holds its lower edge.

    Returns
    -------
    ndarray
        Shape (bands,); inf for estimates without error, NaN where the references have no energy.

    Raises
    ------
    AudioError
        If the shapes differ.

    Examples
    --------
    >>> time = np.arange(16000) / 16000
    >>> low, high = (np.sin(2 * np.pi * f * time)[None] for f in (500.0, 5000.0))
    >>> float(band_sdr(low + high, low + 0.9 * high, 16000, (0, 4000, 8000))[1].round(1))
    20.0
    """
    s, e = np.asarray(references, dtype=np.float64), np.asarray(estimates, dtype=np.float64)
    if s.ndim != 2 or s.shape != e.shape:
        raise AudioError(f"references have shape {s.shape}, estimates {e.shape}; expected (voices, samples) twice")
    frequency = np.fft.rfftfreq(s.shape[1], 1 / sample_rate)
    signal, error = ((np.abs(np.fft.rfft(x)) ** 2).sum(axis=0) for x in (s, s - e))
    bands = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    energies = np.array([[signal[band].sum(), error[band].sum()] for band in bands])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: NDArray[np.float64] = 10 * np.log10(energies[:, 0] / energies[:, 1])
    return np.where(energies[:, 0] > 0, ratio, np.nan)


@dataclass(frozen=True)
class Take:
    """Recordings that sing together.

    Parameters
    ----------
    group
        The rows of the table to which it counts.
    stems
        Shape (voices, samples), of RMS `LEVEL` each.
    sample_rate
        Hz.
    tracks
        Their f0.
    """

    group: str
    stems: Float32
    sample_rate: int
    tracks: F0Tracks

    @property
    def mixture(self) -> Float32:
        """The sum of the stems, shape (samples,)."""
        total: Float32 = self.stems.sum(axis=0)
        return total


def combine(solos: Sequence[Float32], shift: float = 0.0) -> Float32:
    """Return recordings as stems of one length and level.

    All are as long as the shortest of them, which starts at its beginning. The others start at the fraction `shift`
    of their own length and go on at their beginning after their end. Each stem is then brought to the RMS `LEVEL`.

    Parameters
    ----------
    solos
        Shape (samples,) each.
    shift
        In [0, 1).

    Returns
    -------
    ndarray
        Shape (voices, samples), in the order of `solos`.

    Raises
    ------
    AudioError
        If one of them is silent.
    """
    shortest = min(range(len(solos)), key=lambda index: len(solos[index]))
    length = len(solos[shortest])
    stems = []
    for index, solo in enumerate(solos):
        start = 0 if index == shortest else round(shift * len(solo))
        stem = np.roll(solo, -start)[:length].astype(np.float64)
        level = float(np.sqrt(np.mean(stem**2)))
        if level == 0:
            raise AudioError(f"recording {index + 1} is silent in the {length} samples to mix; expected singing")
        stems.append(stem * (LEVEL / level))
    return np.stack(stems).astype(np.float32)


def load_solos(folder: str | os.PathLike[str]) -> tuple[dict[str, Float32], int]:
    """Load the recordings of solo singers in a folder, mono; return them by name, and their sample rate in Hz.

    Raises
    ------
    AudioError
        If there is only one, their sample rates differ, or they hold nothing above 8 kHz.
    """
    waveforms, sample_rate = read_stems(audio_files(Path(folder)))
    if len(waveforms) < 2:
        raise AudioError(f"{folder}: holds one recording; expected two or more solo singers")
    if sample_rate <= MODEL_SAMPLE_RATE:
        raise AudioError(
            f"{folder}: has recordings at {sample_rate} Hz; expected more than {MODEL_SAMPLE_RATE} Hz, as the network "
            "hears all of these"
        )
    return {name: waveform.mean(axis=0) for name, waveform in waveforms.items()}, sample_rate


def takes(
    solos: Mapping[str, Float32], sample_rate: int, *, per_group: int = TAKES, crepe: str = "tiny"
) -> Iterator[Take]:
    """Yield all duets of the recordings, all trios, and duets of phrases of each recording that is long enough.

    Parameters
    ----------
    solos
        Name -> waveform of shape (samples,).
    sample_rate
        Hz.
    per_group
        Mixtures of each group, at shifts 0, 1 / per_group, ... (see `combine`).
    crepe
        Capacity of CREPE.
    """

    def take(group: str, parts: Sequence[Float32], shift: float = 0.0) -> Take:
        stems = combine(parts, shift)
        return Take(group, stems, sample_rate, f0_from_stems(list(stems), sample_rate, capacity=crepe))

    for size in (2, 3):
        for names in combinations(solos, size):
            for number in range(per_group):
                yield take(" + ".join(names), [solos[name] for name in names], number / per_group)
    length = round(PHRASE_SECONDS * sample_rate)
    for name, solo in solos.items():
        phrases = [solo[start : start + length] for start in range(0, len(solo) - length + 1, length)]
        for pair in combinations(phrases, 2):
            yield take(f"{name}, 2 phrases", pair)


Rule = Callable[[VoiceParameters, StftGrid, Tensor], Tensor]
"""From parameters, and the instantaneous frequency of the recording on a grid in Hz, shape (frequency bins, frames), to
the power by which masks are made, shape (voices, frequency bins, frames); parameters may have more frames."""

HEARD = (5000.0, 7500.0)
"""Hz. The highest range in which a voice's power is known; above it, the anti-aliasing filter bends what is heard."""
CONSONANT_FRAMES = 7
"""Frames (112 ms) from a note within which an unvoiced voice is taken to pronounce a consonant."""
CONSONANT_GAIN = 9.0
"""dB by which such a voice is more likely the source of treble than its parameters say."""
CONSONANT_RAMP = (3000.0, 5000.0)
"""Hz between which that gain sets in."""


def level_top(power: Tensor, grid: StftGrid) -> Tensor:
    """Return power in which each voice has, above 7.5 kHz, the mean power that it has from 5 to 7.5 kHz.

    Parameters
    ----------
    power
        Shape (..., voices, frequency bins, frames).
    """
    frequency = grid.frequencies(power.device)
    heard = (frequency >= HEARD[0]) & (frequency < HEARD[1])
    return torch.where((frequency >= HEARD[1])[:, None], power[..., heard, :].mean(dim=-2, keepdim=True), power)


def favour_consonants(power: Tensor, f0: Tensor, grid: StftGrid) -> Tensor:
    """Return power that is raised by 9 dB above 5 kHz for a voice that is unvoiced next to a note of its own.

    Most treble of singing is in unvoiced consonants, and those last about 100 ms between or beside voiced sounds; a
    voice that rests for longer is not favoured.

    Parameters
    ----------
    power
        Shape (voices, frequency bins, frames).
    f0
        Hz, shape (voices, frames), 0 = unvoiced.
    """
    voiced = (f0 > 0).to(power.dtype)
    beside = near_notes(f0, CONSONANT_FRAMES) - voiced
    beside = torch.nn.functional.avg_pool1d(beside[None], 3, 1, 1, count_include_pad=False)[0]
    low, high = CONSONANT_RAMP
    ramp = ((grid.frequencies(power.device) - low) / (high - low)).clamp(0, 1)
    return power * torch.exp(beside[:, None] * ramp[:, None] * (CONSONANT_GAIN * math.log(10) / 10))


def as_separated(parameters: VoiceParameters, grid: StftGrid, heard: Tensor) -> Tensor:
    """Return the power by which the separator makes masks: a `Rule`."""
    return voice_power(parameters, grid, 0, heard.shape[-1], heard=heard)


def _unheard(parameters: VoiceParameters, grid: StftGrid, heard: Tensor) -> Tensor:
    return voice_power(parameters, grid, 0, heard.shape[-1])


def _level(parameters: VoiceParameters, grid: StftGrid, heard: Tensor) -> Tensor:
    return level_top(as_separated(parameters, grid, heard), grid)


def _consonants(parameters: VoiceParameters, grid: StftGrid, heard: Tensor) -> Tensor:
    return favour_consonants(as_separated(parameters, grid, heard), parameters.f0[:, : heard.shape[-1]], grid)


def _both(parameters: VoiceParameters, grid: StftGrid, heard: Tensor) -> Tensor:
    return favour_consonants(_level(parameters, grid, heard), parameters.f0[:, : heard.shape[-1]], grid)


RULES: dict[str, Rule] = {
    "frequency unheard": _unheard,
    "level top": _level,
    "consonants": _consonants,
    "level top, consonants": _both,
}
"""By what other power masks could be made."""


def separate_by(rule: Rule, mixture: Float32, parameters: VoiceParameters, sample_rate: int) -> Float32:
    """Return stems of shape (voices, samples) cut by a rule out of a mixture of shape (samples,)."""
    grid = StftGrid.of_duration(sample_rate)
    waveform = torch.from_numpy(mixture)
    frames = min(grid.n_frames(len(mixture)), parameters.n_frames)
    with torch.inference_mode():
        heard = instantaneous_frequency(waveform, grid, 0, frames).to(parameters.f0.device)
        masks = soft_masks(rule(parameters, grid, heard).cpu())
        return istft(masks * stft(waveform, grid, 0, frames), grid, len(mixture)).numpy()


@dataclass(frozen=True)
class Row:
    """A system's scores of a take in dB: SI-SDR of the whole band, mean over voices, and SDR by band."""

    group: str
    system: str
    si_sdr: float
    bands: NDArray[np.float64]


def score(take: Take, separator: Separator) -> Iterator[Row]:
    """Yield the rows of a take.

    They are those of equal shares, of the separator, of it with parameters that are not fitted to the recording, of
    each of `RULES` with parameters that are, and of the ideal power mask.
    """
    mixture, rate = take.mixture, take.sample_rate

    def row(system: str, estimates: Float32) -> Row:
        ratio = float(np.mean(si_sdr(take.stems, estimates)))
        return Row(take.group, system, ratio, band_sdr(take.stems, estimates, rate))

    yield row("equal shares", np.broadcast_to(mixture / len(take.stems), take.stems.shape))
    separated = separator.separate(mixture, take.tracks, sample_rate=rate).stems
    yield row("separator", np.stack(list(separated.values())))
    mono = to_model_rate(mixture, rate)
    parameters = separator.estimate(mono, take.tracks)
    yield row("not fitted", separate_by(as_separated, mixture, parameters, rate))
    parameters = separator.fitted(mono, parameters)
    for name, rule in RULES.items():
        yield row(name, separate_by(rule, mixture, parameters, rate))
    yield row("ideal power mask", separate_ideal(mixture, take.stems, rate))


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table: means over the takes of each group, and behind the groups over all of them."""
    bands = [f"{low / 1000:g}-{high / 1000:g}" for low, high in pairwise(BAND_EDGES)]
    bands[-1] = f"{BAND_EDGES[-2] / 1000:g}-"
    systems = list(dict.fromkeys(row.system for row in rows))
    for group in [*dict.fromkeys(row.group for row in rows), None]:
        chosen = [row for row in rows if group in (None, row.group)]
        title = f"{group or 'all groups'} ({len(chosen) // len(systems)})"
        yield f"{title:<44}{'SI-SDR':>9}" + "".join(f"{band:>9}" for band in bands)
        for system in systems:
            figures = [[row.si_sdr, *row.bands] for row in chosen if row.system == system]
            yield f"  {system:<42}" + "".join(f"{value:9.2f}" for value in np.mean(figures, axis=0))
