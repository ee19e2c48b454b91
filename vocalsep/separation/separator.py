"""The separator: f0 tracks -> source-filter parameters -> soft masks -> stems that add up to the recording.

K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
Differentiable Parametric Source Models", arXiv 2201.09592.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike

from vocalsep.audio import Float32, validate_sample_rate, validate_waveform
from vocalsep.audio.downmix import Downmix
from vocalsep.audio.recording import ArrayRecording, Recording
from vocalsep.device import resolve_device
from vocalsep.dsp.chunks import Chunk
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import AudioError
from vocalsep.f0 import polyphonic
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.grid import F0sLike, on_grid
from vocalsep.f0.network import Tracker
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.correction import MaskCorrection
from vocalsep.model.estimator import Estimator
from vocalsep.model.fitting import fit
from vocalsep.model.masks import residual_gate
from vocalsep.model.room import RoomParameters, estimate
from vocalsep.model.synthesizer import VoiceParameters, voice_power
from vocalsep.options import NetworkOptions, RoomLike, SeparationOptions
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.analysis import Analysis, excerpt, without_room
from vocalsep.separation.result import Separation
from vocalsep.separation.streaming import StemCutter, recorded_chunks
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.voices import VoicesLike
from vocalsep.weights import load_network

_GRID = StftGrid.of_duration(MODEL_SAMPLE_RATE)
# While the room is not known, f0 is tracked without this one, or reverberation would be tracked as singing. Some of it
# still is, so that the ratio comes out too high by some dB.
_GUESS, _HIDDEN = RoomParameters.of(1.0, 3.0), 5.0
_FIT_CONTEXT = 48  # frames: more than the steps of fitting reach
_WINDOW_FRAMES = 8  # half a window of the STFT that the estimator's features are read from


class Separator:
    """A separator that loads its networks once and separates many recordings.

    Parameters
    ----------
    model : str or path
        Weights of the estimator: a name in the manifest, a checkpoint folder, or `owner/repo[@revision]` on the Hub.
    device : str
        "auto" (CUDA if present, else the CPU), "cpu", "cuda" or "mps".
    tracker, crepe : str or path
        Weights of the f0 tracker and of CREPE, likewise. CREPE is loaded when it is first used.
    masks : str or path
        Weights of the network that corrects the masks, likewise, or "none".
    fitting : bool
        Fit the parameters to the recording and let the masks use its phase; without it the network alone decides.

    Attributes
    ----------
    estimator : Estimator
        Estimates the source-filter parameters.
    tracker : Tracker
        Tracks f0 in mixtures.
    correction : MaskCorrection or None
        Corrects the power of the voices before the masks.
    crepe : Crepe
        Tracks f0 in recordings of single voices.

    Raises
    ------
    WeightsError
        If weights are unknown, missing or corrupt.
    OptionError
        If the device is not available.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = NetworkOptions.model,
        device: str = NetworkOptions.device,
        *,
        tracker: str | os.PathLike[str] = NetworkOptions.tracker,
        crepe: str | os.PathLike[str] = NetworkOptions.crepe,
        masks: str | os.PathLike[str] = NetworkOptions.masks,
        fitting: bool = True,
    ) -> None:
        self.device = resolve_device(device)
        self.fitting = fitting
        self.estimator = load_network(model, Estimator, self.device)
        self.tracker = load_network(tracker, Tracker, self.device)
        self.correction = None if masks == "none" else load_network(masks, MaskCorrection, self.device)
        self._crepe = crepe

    @cached_property
    def crepe(self) -> Crepe:
        """CREPE with its weights."""
        return load_network(self._crepe, Crepe, self.device)

    def without_correction(self) -> Separator:
        """Return a separator that does not correct masks, with otherwise the same networks."""
        other = copy.copy(self)
        other.correction = None
        return other

    def separate(
        self,
        audio: ArrayLike,
        f0s: F0sLike = None,
        *,
        sample_rate: int = MODEL_SAMPLE_RATE,
        voices: VoicesLike | None = None,
        room: RoomLike = SeparationOptions.room,
        residual: bool = SeparationOptions.residual,
        progress: ProgressCallback = no_progress,
    ) -> Separation:
        """Separate a recording; see `vocalsep.separate`."""
        recording = ArrayRecording(validate_waveform(audio), validate_sample_rate(sample_rate))
        with Downmix.of_recording(recording, lambda done: progress("reading", done)) as downmix:
            analysis = self.analyse(downmix, f0s, voices, room=room, progress=progress)
            names = SeparationOptions(residual=residual).stem_names(analysis.tracks.names)
            blocks = list(self.stems(recording, analysis, residual=residual, progress=progress))
        stems = np.concatenate(blocks, axis=-1)
        shape = np.shape(audio)
        named = {name: stem.reshape(shape) for name, stem in zip(names, stems, strict=True)}
        return Separation(named, analysis.tracks, recording.sample_rate, analysis.room)

    def analyse(
        self,
        downmix: Downmix,
        f0s: F0sLike = None,
        voices: VoicesLike | None = None,
        *,
        room: RoomLike = SeparationOptions.room,
        progress: ProgressCallback = no_progress,
    ) -> Analysis:
        """Return the room of a recording, the recording without it, and the f0 of its voices.

        The room is estimated first, from excerpts in which f0 is tracked as if the room were a common one. Then it is
        taken out of the whole recording, and f0 is tracked in what is left.

        Parameters
        ----------
        downmix : Downmix
            The recording.
        f0s, voices, room, progress
            See `vocalsep.separate`.

        Raises
        ------
        F0Error
            If the f0s cannot be used, or do not fit the voices or the recording.
        """
        supplied = None if f0s is None else self.track(downmix, f0s, voices)
        found = RoomParameters.of()
        if room != "none":
            found = self._room(downmix, supplied, voices, None if room == "auto" else float(room))
        dry = without_room(downmix, found)
        return Analysis(dry, supplied or self.track(dry, None, voices, progress), found)

    def _room(
        self, downmix: Downmix, tracks: F0Tracks | None, voices: VoicesLike | None, reverberation_time: float | None
    ) -> RoomParameters:
        """Estimate the room of a recording; without f0 tracks, f0 is tracked in excerpts of it."""
        part, supplied = excerpt(downmix, tracks)
        sung = self.track(part if supplied else without_room(part, _GUESS), supplied, voices)
        parameters = self.parameters(part, sung)
        with torch.inference_mode():
            expected = voice_power(parameters, _GRID).sum(dim=0)
            found = estimate(expected, power(self._read(part, 0, part.n_frames), _GRID), reverberation_time)
        return found if supplied is not None else replace(found, ratio=found.ratio - _HIDDEN)

    def track(
        self,
        downmix: Downmix,
        f0s: F0sLike = None,
        voices: VoicesLike | None = None,
        progress: ProgressCallback = no_progress,
    ) -> F0Tracks:
        """Return f0 tracks on the grid of a recording: those that are supplied, or tracked in it.

        Parameters
        ----------
        downmix : Downmix
            The recording.
        f0s, voices, progress
            See `vocalsep.separate`.

        Raises
        ------
        F0Error
            If the f0s cannot be used, or do not fit the voices or the recording.
        """
        if f0s is not None:
            return on_grid(f0s, voices, downmix.n_frames)
        parts = SeparationOptions(voices).parts
        return polyphonic.track(downmix, parts, self.tracker, progress=lambda done: progress("f0", done))

    def parameters(
        self, downmix: Downmix, tracks: F0Tracks, first: int = 0, last: int | None = None
    ) -> VoiceParameters:
        """Return the source-filter parameters of every voice, estimated by the network and fitted to the recording.

        Parameters
        ----------
        downmix : Downmix
            The recording; its peak is brought to the level at which the estimator was trained.
        tracks : F0Tracks
            F0 on the 16-ms grid of the recording.
        first, last : int
            Frames first ... last - 1; all by default.
        """
        last = tracks.n_frames if last is None else last
        chunk = Chunk.of(max(0, first), min(last, tracks.n_frames), tracks.n_frames, _FIT_CONTEXT)
        with torch.inference_mode():
            parameters = self._estimate(downmix, tracks, chunk.low, chunk.high)
            if self.fitting:
                parameters = fit(parameters, self._read(downmix, chunk.low, chunk.high))
            return parameters.frames(chunk.inner.start, chunk.inner.stop)

    def _estimate(self, downmix: Downmix, tracks: F0Tracks, first: int, last: int) -> VoiceParameters:
        context = self.estimator.config.reach + _WINDOW_FRAMES
        chunk = Chunk.of(first, last, tracks.n_frames, context)
        f0 = torch.from_numpy(tracks.frequencies[:, chunk.low : chunk.high]).to(self.device)
        estimated: VoiceParameters = self.estimator(self._read(downmix, chunk.low, chunk.high)[None], f0[None])
        return estimated.frames(chunk.inner.start, chunk.inner.stop).without_batch()

    def _read(self, downmix: Downmix, first: int, last: int) -> torch.Tensor:
        """Return the samples whose STFT has exactly the frames first ... last - 1."""
        waveform = downmix.read(first * HOP_LENGTH, min(last * HOP_LENGTH - 1, downmix.samples))
        return torch.from_numpy(waveform).to(self.device) * downmix.gain

    def stems(
        self,
        recording: Recording,
        analysis: Analysis,
        *,
        residual: bool = SeparationOptions.residual,
        progress: ProgressCallback = no_progress,
    ) -> Iterator[Float32]:
        """Yield the stems of a recording of any length, block by block, shape (stems, channels, samples).

        Parameters
        ----------
        recording : Recording
            The recording at its own sample rate, with all its channels.
        analysis : Analysis
            Its analysis by `analyse`.
        residual : bool
            Add the residual as the last stem.
        progress : callable
            Called with "masks" and the fraction that is done.

        Raises
        ------
        AudioError
            If the recording cannot be read, or has changed since its downmix was made.
        """
        downmix, tracks, room = analysis
        grid = StftGrid.of_duration(recording.sample_rate)
        n_frames = min(grid.n_frames(downmix.source_samples), tracks.n_frames)
        gate = residual_gate(torch.from_numpy(tracks.frequencies)) if residual else None
        cutter = StemCutter(grid, room, use_phase=self.fitting, gate=gate, correction=self.correction)
        samples = 0
        for chunk, waveform in recorded_chunks(recording, grid, n_frames):
            first, last = chunk.first - cutter.context, chunk.last + cutter.context
            parameters = self.parameters(downmix, tracks, first, last)
            with torch.inference_mode():
                stems = cutter.cut(chunk, waveform, parameters)
            samples += stems.shape[-1]
            yield stems
            progress("masks", min(1.0, samples / downmix.source_samples))
        if samples != downmix.source_samples:
            raise AudioError(
                f"the recording had {downmix.source_samples} samples when f0 was tracked, but now has another number; "
                "do not change it while it is separated"
            )
