"""Separation end to end: f0 tracks -> parameters -> masks -> stems that add up to the recording.

The rungs: `Separator.separate` and `separate` take arrays, `separate_file` a file, `separate_files` files to files.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from vocalsep import audio as audio_io
from vocalsep.audio import MODEL_SAMPLE_RATE, Float32, to_model_rate, validate_sample_rate, validate_waveform
from vocalsep.device import resolve_device
from vocalsep.errors import ParameterError
from vocalsep.estimator import load_estimator
from vocalsep.f0.polyphonic import DEFAULT_TRACKER
from vocalsep.f0.refinement import refine_tracks
from vocalsep.fitting import fit
from vocalsep.given import F0sLike, ProgressCallback, no_progress, resolve_tracks
from vocalsep.masks import residual_gate, soft_masks
from vocalsep.separation import FILENAME, Separation, plan_outputs
from vocalsep.spectrum import InverseStft, StftGrid, instantaneous_frequency, stft
from vocalsep.synthesizer import VoiceParameters, voice_power
from vocalsep.tracks import HOP_LENGTH, F0Tracks
from vocalsep.voices import VoicesLike, parse_voices

if TYPE_CHECKING:
    from vocalsep.training.adaptation import Adapted

DEFAULT_MODEL = "default"
DEFAULT_REFINE = 1
"""Refinements of f0 that is tracked in the mixture: one pays on the development split, a second adds nothing."""
RESIDUAL = "residual"
"""Name of the stem of what sounds while no voice sings."""

_MAX_REFINE = 10  # each takes as long as the separation
LEVEL = 0.5  # full scale that recordings are brought to before estimation, as in training
_CHUNK_FRAMES = 2048  # frames (33 s) whose parameters are estimated at once
_CONTEXT = 8  # frames beside those the network reaches: half a window of the STFT that it looks at
_BLOCK_FRAMES = 64  # frames (1 s) whose masks are rendered at once


class Separator:
    """A separator whose network is loaded once, for many recordings.

    Parameters
    ----------
    model
        Name in the manifest of weights, or path of a .safetensors file.
    device
        "auto", "cpu", "cuda" or "mps".
    tracker
        Name in the manifest, or path, of the weights that track f0 where none is given.
    fitting
        Whether parameters are fitted to the recording, and masks listen to its phase; see `vocalsep.fitting`. Without,
        the network alone decides.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing or corrupt.
    ParameterError
        If the device is not there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        device: str = "auto",
        *,
        tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
        fitting: bool = True,
    ) -> None:
        self.device = resolve_device(device)
        self.network = load_estimator(os.fspath(model), self.device)
        self.tracker = tracker
        self.fitting = fitting
        self.adaptation: Adapted | None = None
        """How the weights were adapted to recordings, if they were."""

    def separate(
        self,
        audio: ArrayLike,
        f0s: F0sLike = None,
        *,
        sample_rate: int = MODEL_SAMPLE_RATE,
        voices: VoicesLike | None = None,
        refine: int | None = None,
        residual: bool = False,
        adapt: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> Separation:
        """Take a recording apart; see `vocalsep.separate`."""
        rate = validate_sample_rate(sample_rate)
        waveform = validate_waveform(audio)
        mono = to_model_rate(waveform, rate)
        tracks = self.track(mono, f0s, voices=voices, refine=refine, progress=progress)
        names = stem_names(tracks, None, residual)
        system = self.adapted([(mono, tracks)], progress=progress) if adapt else self
        parameters = system.estimate(mono, tracks, progress)
        stems = self._cut(torch.from_numpy(waveform), rate, self.fitted(mono, parameters), residual, progress)
        shape = np.shape(audio)
        return Separation(
            {name: stem.reshape(shape) for name, stem in zip(names, stems.numpy(), strict=True)}, tracks, rate
        )

    def adapted(
        self,
        recordings: Sequence[tuple[Float32, F0Tracks]],
        *,
        steps: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        progress: ProgressCallback = no_progress,
    ) -> Separator:
        """Return a separator whose network is adapted to recordings; its `adaptation` says what came of it.

        Parameters
        ----------
        recordings
            Mono waveforms, shape (samples,) at 16 kHz, with the f0 tracks of their voices on the 16-ms grid.
        steps, seconds, seed, progress
            See `vocalsep.training.adaptation.adapt`; None means as there.
        """
        # Whoever only separates need not load what trains.
        from vocalsep.training import adaptation

        other = copy.copy(self)
        other.adaptation = adaptation.adapt(
            self.network,
            [adaptation.Example(self._levelled_stems(mono, tracks), tracks.frequencies) for mono, tracks in recordings],
            steps=adaptation.STEPS if steps is None else steps,
            seconds=adaptation.SECONDS if seconds is None else seconds,
            seed=seed,
            progress=progress,
        )
        other.network = other.adaptation.network
        return other

    def _levelled_stems(self, mono: Float32, tracks: F0Tracks) -> Float32:
        """Return stems, shape (voices, samples), of a recording at the level at which parameters are estimated."""
        parameters = self.fitted(mono, self.estimate(mono, tracks))
        stems: Float32 = self._cut(levelled(mono)[None], MODEL_SAMPLE_RATE, parameters)[:, 0].numpy()
        return stems

    def track(
        self,
        mono: Float32,
        f0s: F0sLike = None,
        *,
        voices: VoicesLike | None = None,
        refine: int | None = None,
        progress: ProgressCallback = no_progress,
    ) -> F0Tracks:
        """Return the f0 tracks with which a recording is separated.

        Parameters
        ----------
        mono
            Shape (samples,) at 16 kHz.
        f0s, voices, refine, progress
            See `vocalsep.separate`.
        """
        times = _refinements(refine, f0s is not None)

        def tracking(stage: str, fraction: float) -> None:
            progress(stage, fraction / (1 + times))

        tracks = resolve_tracks(f0s, voices, mono, tracking, tracker=self.tracker, device=self.device)
        for done in range(times):
            tracks = self.refined(mono, tracks)
            progress("f0", (2 + done) / (1 + times))
        return tracks

    def refined(self, mono: Float32, tracks: F0Tracks) -> F0Tracks:
        """Return f0 tracks refined by CREPE on the stems that they cut out of a recording.

        Parameters
        ----------
        mono
            Shape (samples,) at 16 kHz.
        tracks
            F0 on the 16-ms grid, 1 + samples // 256 frames.
        """
        return refine_tracks(self._levelled_stems(mono, tracks), tracks, device=self.device)

    def estimate(self, mono: Float32, tracks: F0Tracks, progress: ProgressCallback = no_progress) -> VoiceParameters:
        """Estimate the source parameters of every voice, relative to a recording with a peak of 0.5.

        Parameters
        ----------
        mono
            Shape (samples,) at 16 kHz.
        tracks
            F0 on the 16-ms grid, 1 + samples // 256 frames.
        """
        mixture = levelled(mono)
        f0 = torch.from_numpy(tracks.frequencies)
        reach = self.network.config.reach
        parts = []
        for first in range(0, tracks.n_frames, _CHUNK_FRAMES):
            last = min(first + _CHUNK_FRAMES, tracks.n_frames)
            # Context on both sides makes a chunk the same as the whole.
            low, high = max(0, first - reach - _CONTEXT), min(tracks.n_frames, last + reach + _CONTEXT)
            samples = mixture[low * HOP_LENGTH : high * HOP_LENGTH - 1]
            with torch.inference_mode():
                chunk = self.network(samples[None].to(self.device), f0[None, :, low:high].to(self.device))
            parts.append(chunk.frames(first - low, last - low))
            progress("parameters", last / tracks.n_frames)
        return VoiceParameters.joined(parts).without_batch()

    def fitted(self, mono: Float32, parameters: VoiceParameters) -> VoiceParameters:
        """Return parameters fitted to the recording that they were estimated for; see `fitting.fit`."""
        if not self.fitting:
            return parameters
        with torch.inference_mode():
            return fit(parameters, levelled(mono).to(self.device))

    def _cut(
        self,
        waveform: torch.Tensor,
        sample_rate: int,
        parameters: VoiceParameters,
        residual: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> torch.Tensor:
        """Return the stems, shape (voices, channels, samples), and behind them the residual if it is asked for."""
        grid = StftGrid.of_duration(sample_rate)
        frames = min(grid.n_frames(waveform.shape[-1]), parameters.n_frames)
        gate = residual_gate(parameters.f0) if residual else None
        n_stems = parameters.f0.shape[0] + int(residual)
        inverse = InverseStft(grid, (n_stems, *waveform.shape))
        mono = waveform.mean(dim=0)
        for first in range(0, frames, _BLOCK_FRAMES):
            last = min(first + _BLOCK_FRAMES, frames)
            with torch.inference_mode():
                heard = instantaneous_frequency(mono, grid, first, last).to(self.device) if self.fitting else None
                masks = soft_masks(voice_power(parameters, grid, first, last, heard=heard))  # (voices, bins, frames)
                if gate is not None:
                    sung = gate[first:last]
                    masks = torch.cat([masks * sung, (1 - sung).expand(1, *masks.shape[1:])])
                spectrum = stft(waveform, grid, first, last).to(self.device)  # (channels, bins, frames)
                inverse.add((masks[:, None] * spectrum).cpu(), first)
            progress("masks", last / frames)
        return inverse.result()


def separate(
    audio: ArrayLike,
    f0s: F0sLike = None,
    *,
    sample_rate: int = MODEL_SAMPLE_RATE,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    adapt: bool = False,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Take a recording of an ensemble apart into its voices.

    K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
    Differentiable Parametric Source Models", arXiv 2201.09592.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples), full scale +-1.
    f0s
        F0 of every voice: an `F0Tracks`, or an array (voices, frames) in Hz on the 16-ms grid, 0 = unvoiced, rows
        in the order of `voices`, high to low. None tracks them in the recording.
    sample_rate
        Hz.
    voices
        Part letters ("SATB", "SAB"), a list of names, or a number of voices. None means the names of `f0s`, or,
        for a bare array, SATB if it has four rows and voice1, voice2, ... else; without `f0s`, SATB.
    model
        Name of weights in the manifest, or path of a .safetensors file.
    device
        "auto", "cpu", "cuda" or "mps".
    tracker
        Name of weights in the manifest, or path of a .safetensors file, that track f0 where none is given.
    refine
        How many times CREPE tracks the voices again in their stems, near their first f0, before the final separation.
        None means once where f0 is tracked in the recording, and not at all where `f0s` are given.
    residual
        Whether to put what sounds while no voice sings into a stem of its own, "residual", instead of sharing it
        among the voices.
    adapt
        Whether the network first goes on learning, unsupervised, from the recording itself, for a minute or less; see
        `Separator.adapted`.
    progress
        Called with the stage ("f0", "adaptation", "parameters", "masks") and the fraction done.

    Returns
    -------
    Separation
        Stems in the shape of `audio`, which they add up to.

    Raises
    ------
    AudioError, F0Error, VoicesError, ParameterError, WeightsError
        If something cannot be used; all of them are `VocalsepError`.

    Examples
    --------
    Two tones, an octave and a fifth apart, with their f0 given:

    >>> time = np.arange(16000) / 16000
    >>> tones = [0.3 * np.sin(2 * np.pi * f * time) for f in (660.0, 220.0)]
    >>> f0s = np.repeat([[660.0], [220.0]], 63, axis=1)
    >>> result = separate(tones[0] + tones[1], f0s)
    >>> list(result.stems)
    ['voice1', 'voice2']
    >>> bool(np.abs(sum(result.stems.values()) - (tones[0] + tones[1])).max() < 1e-6)
    True
    """
    return Separator(model, device, tracker=tracker).separate(
        audio,
        f0s,
        sample_rate=sample_rate,
        voices=voices,
        refine=refine,
        residual=residual,
        adapt=adapt,
        progress=progress,
    )


def separate_file(
    path: str | os.PathLike[str],
    f0s: F0sLike = None,
    *,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    adapt: bool = False,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Take an audio file apart; everything but `path` is as in `separate`."""
    waveform, sample_rate = audio_io.read(path)
    return separate(
        waveform,
        f0s,
        sample_rate=sample_rate,
        voices=voices,
        model=model,
        device=device,
        tracker=tracker,
        refine=refine,
        residual=residual,
        adapt=adapt,
        progress=progress,
    )


def separate_files(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    voices: VoicesLike | None = None,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    tracker: str | os.PathLike[str] = DEFAULT_TRACKER,
    refine: int | None = None,
    residual: bool = False,
    adapt: bool = False,
    filename: str = FILENAME,
    audio_format: str = "wav",
    bit_depth: str = "16",
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> dict[Path, list[Path]]:
    """Take several files apart and write their stems; the network is loaded once.

    Parameters
    ----------
    paths
        Audio files.
    out
        Folder of the stems.
    filename, audio_format, bit_depth
        See `Separation.save`; {track} is the name of the file without its suffix.
    overwrite
        Whether stems that exist already are written again; else such a recording is an error.

    Returns
    -------
    dict
        Recording -> paths of its stems.

    Raises
    ------
    ParameterError
        If stems exist and `overwrite` is not set, or two recordings would write the same stems. Nothing is
        separated then.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise ParameterError(f"paths is {str(paths)!r}; expected a list of files, or use separate_file for one")
    sources = [Path(path) for path in paths]
    names = stem_names(None, voices, residual)
    planned = plan_outputs(sources, out, names, filename=filename, audio_format=audio_format, overwrite=overwrite)
    audio_io.validate_format(audio_format, bit_depth)
    separator = Separator(model, device, tracker=tracker)
    for source in planned:
        waveform, sample_rate = audio_io.read(source)
        result = separator.separate(
            waveform,
            sample_rate=sample_rate,
            voices=voices,
            refine=refine,
            residual=residual,
            adapt=adapt,
            progress=progress,
        )
        result.save(out, track=source.stem, filename=filename, audio_format=audio_format, bit_depth=bit_depth)
    return planned


def levelled(mono: Float32) -> torch.Tensor:
    """Return a recording, shape (samples,), brought to the peak of 0.5 at which parameters are estimated."""
    peak = float(np.abs(mono).max())
    audible = peak > np.finfo(np.float32).tiny  # what is fainter cannot be brought to any peak
    return torch.from_numpy(mono * np.float32(LEVEL / peak) if audible else mono)


def _refinements(refine: int | None, given: bool) -> int:
    if refine is None:
        # What a user gives, or has corrected, stays as it is.
        return 0 if given else DEFAULT_REFINE
    if isinstance(refine, bool) or not isinstance(refine, Integral) or not 0 <= refine <= _MAX_REFINE:
        raise ParameterError(f"refine is {refine!r}; expected a number from 0 to {_MAX_REFINE}")
    return int(refine)


def stem_names(tracks: F0Tracks | None, voices: VoicesLike | None, residual: bool) -> list[str]:
    """Return the names that the stems of a recording will have.

    Raises
    ------
    ParameterError
        If there is to be a residual and a voice has its name.
    """
    if voices is None and tracks is not None:
        names = list(tracks.names)
    else:
        names = [voice.name for voice in parse_voices("SATB" if voices is None else voices)]
    if residual and RESIDUAL in [name.casefold() for name in names]:
        raise ParameterError(f"a voice is named {RESIDUAL!r}, the name of the stem of what no voice sings")
    return [*names, RESIDUAL] if residual else names
