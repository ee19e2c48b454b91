"""Separation end to end: f0 tracks -> parameters -> masks -> stems that add up to the recording.

A recording is gone through stretch by stretch (`Separator.stems`), so what is in memory and what is on disk are
separated alike, at any length. `vocalsep.api` and `vocalsep.separation.files` stand on it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from vocalsep.audio import Float32, validate_sample_rate, validate_waveform
from vocalsep.audio.downmix import Mixdown, levelled, mixdown_of
from vocalsep.audio.recording import ArrayRecording, Recording, pieces
from vocalsep.device import resolve_device
from vocalsep.dsp.stft import StftGrid
from vocalsep.errors import AudioError
from vocalsep.f0.polyphonic import DEFAULT_TRACKER
from vocalsep.f0.refinement import refine_tracks
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import load_estimator
from vocalsep.model.fitting import fit
from vocalsep.model.masks import residual_gate
from vocalsep.model.synthesizer import VoiceParameters
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.asked import refinements, stem_names
from vocalsep.separation.given import F0sLike, resolve_tracks
from vocalsep.separation.result import Separation
from vocalsep.separation.streaming import STRETCH_FRAMES, Blocks, Span, cut_span, estimate_span, fitted_span, stretches
from vocalsep.timebase import HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.voices import VoicesLike
from vocalsep.weights.names import as_text

if TYPE_CHECKING:
    from vocalsep.training.adaptation import Adapted

DEFAULT_MODEL = "default"
_CUT_MARGIN = Blocks.of(MODEL_SAMPLE_RATE, 1, 1).margin  # frames
_CREPE_FRAMES = 4  # beside a stretch: more than half a window of CREPE
_ADAPT_STRETCHES = 20  # (10 minutes): more of a recording is not needed to adapt to it
_VALUES_AT_ONCE = 8_000_000  # samples of stems that are cut at once: 10 s of 48 kHz stereo in eight


@dataclass(frozen=True)
class Analysis:
    """What is known of a recording before its stems are cut.

    Parameters
    ----------
    mixdown
        What the networks hear of it.
    tracks
        F0 on the 16-ms grid.
    """

    mixdown: Mixdown
    tracks: F0Tracks


class Separator:
    """A separator whose network is loaded once, for many recordings.

    Parameters
    ----------
    model
        Name in the manifest of weights, or path of a .safetensors file.
    device
        "auto", "cpu", "cuda" or "mps".
    tracker
        The same, for the weights that track f0 where none is given.
    fitting
        Whether parameters are fitted to the recording, and masks listen to its phase; see `vocalsep.model.fitting`. Without,
        the network alone decides.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing or corrupt.
    OptionError
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
        self.network = load_estimator(as_text(model), self.device)
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
        recording = ArrayRecording(validate_waveform(audio), rate)
        with Mixdown.of_recording(recording, lambda done: progress("reading", done)) as mixdown:
            tracks = self.track(mixdown, f0s, voices=voices, refine=refine, progress=progress)
            names = stem_names(tracks, None, residual)
            system = self.adapted([(mixdown, tracks)], progress=progress) if adapt else self
            blocks = system.stems(recording, Analysis(mixdown, tracks), residual=residual, progress=progress)
            stems = np.concatenate(list(blocks), axis=-1)
        shape = np.shape(audio)
        return Separation({name: stem.reshape(shape) for name, stem in zip(names, stems, strict=True)}, tracks, rate)

    def stems(
        self,
        recording: Recording,
        analysis: Analysis,
        *,
        residual: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> Iterator[Float32]:
        """Yield the stems of a recording of any length, block by block.

        Parameters
        ----------
        recording
            At its own sample rate, on all its channels.
        analysis
            Of the same recording.
        residual
            Whether the last stem is what sounds while no voice sings.
        progress
            Called with "masks" and the fraction done.

        Yields
        ------
        ndarray
            Shape (voices, channels, samples of the block), with a residual (voices + 1, ...).

        Raises
        ------
        AudioError
            If the recording cannot be read, or is another than the one that was analysed.
        """
        mixdown, tracks = analysis.mixdown, analysis.tracks
        grid = StftGrid.of_duration(recording.sample_rate)
        gate = residual_gate(torch.from_numpy(tracks.frequencies)) if residual else None
        n_frames = min(grid.n_frames(mixdown.source_samples), tracks.n_frames)
        values = recording.channels * (tracks.n_voices + residual)
        blocks = Blocks.of(recording.sample_rate, values, _VALUES_AT_ONCE)
        size, margin = (round(n * grid.hop_length) for n in blocks)
        span, done = None, 0
        for piece in pieces(recording, size, margin):
            first = piece.start // size * blocks.frames
            last = min(first + blocks.frames, n_frames)
            if last <= first:  # longer than it was
                break
            if first % STRETCH_FRAMES == 0:
                span = self._span(mixdown, tracks, first, min(first + STRETCH_FRAMES, tracks.n_frames))
            assert span is not None
            waveform, origin = torch.from_numpy(piece.waveform), first - blocks.margin
            kept = slice(margin, margin + piece.length)
            stems = cut_span(
                span, waveform, origin, grid, first, last, n_frames, kept, listening=self.fitting, gate=gate
            )
            done = piece.start + piece.length
            yield stems.numpy()
            progress("masks", last / n_frames)
        if done != mixdown.source_samples:
            raise AudioError(
                f"the recording had {mixdown.source_samples} samples at first and then another number; expected one "
                "that does not change while it is read"
            )

    def _span(self, mixdown: Mixdown, tracks: F0Tracks, first: int, last: int) -> Span:
        f0 = torch.from_numpy(tracks.frequencies)
        return fitted_span(self.network, mixdown, mixdown.gain, f0, first, last, self.device, fitting=self.fitting)

    def adapted(
        self,
        recordings: Sequence[tuple[Mixdown | Float32, F0Tracks]],
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
            Mixdowns, or mono waveforms of shape (samples,) at 16 kHz, with the f0 tracks of their voices on the 16-ms
            grid. Of a long one 10 minutes are heard, spread evenly.
        steps, seconds, seed, progress
            See `vocalsep.training.adaptation.adapt`; None means as there.
        """
        # Whoever only separates need not load what trains.
        from vocalsep.training import adaptation

        other = copy.copy(self)
        other.adaptation = adaptation.adapt(
            self.network,
            [
                adaptation.Example(stems, tracks.frequencies[:, first:last])
                for mono, tracks in recordings
                for first, last, stems in self._excerpts(mixdown_of(mono), tracks)
            ],
            steps=adaptation.STEPS if steps is None else steps,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
        other.network = other.adaptation.network
        return other

    def _excerpts(self, mixdown: Mixdown, tracks: F0Tracks) -> Iterator[tuple[int, int, Float32]]:
        """Yield first frame, last frame and stems of what is heard of a recording: all of it if it is short."""
        parts = list(stretches(tracks.n_frames))
        if len(parts) <= _ADAPT_STRETCHES:
            stems = [self._levelled_stems(mixdown, tracks, *stretch) for stretch in parts]
            yield 0, tracks.n_frames, np.concatenate(stems, axis=-1)
            return
        for index in np.linspace(0, len(parts) - 1, _ADAPT_STRETCHES).round().astype(int):
            first, last = parts[index]
            yield first, last, self._levelled_stems(mixdown, tracks, first, last)

    def _levelled_stems(self, mixdown: Mixdown, tracks: F0Tracks, first: int, last: int) -> Float32:
        """Return stems of frames first ... last - 1 at the level at which parameters are estimated.

        Shape (voices, samples at 16 kHz), the first of them on the first frame.
        """
        span = self._span(mixdown, tracks, first, last)
        origin = first - _CUT_MARGIN
        start, stop = first * HOP_LENGTH, min(last * HOP_LENGTH, mixdown.samples)
        waveform = mixdown.read(origin * HOP_LENGTH, stop + _CUT_MARGIN * HOP_LENGTH)
        levelled = torch.from_numpy(waveform[None]) * mixdown.gain
        kept = slice(start - origin * HOP_LENGTH, stop - origin * HOP_LENGTH)
        grid = StftGrid.of_duration()
        stems = cut_span(span, levelled, origin, grid, first, last, tracks.n_frames, kept, listening=self.fitting)
        return stems[:, 0].numpy()

    def track(
        self,
        mono: Mixdown | Float32,
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
            Mixdown of the recording, or its waveform, shape (samples,) at 16 kHz.
        f0s, voices, refine, progress
            See `vocalsep.separate`.
        """
        times = refinements(refine, f0s is not None)
        mixdown = mixdown_of(mono)

        def part(done: int) -> ProgressCallback:
            return lambda _, fraction: progress("f0", (done + fraction) / (1 + times))

        tracks = resolve_tracks(f0s, voices, mixdown, part(0), tracker=self.tracker, device=self.device)
        for done in range(times):
            tracks = self.refined(mixdown, tracks, part(1 + done))
        return tracks

    def refined(self, mono: Mixdown | Float32, tracks: F0Tracks, progress: ProgressCallback = no_progress) -> F0Tracks:
        """Return f0 tracks refined by CREPE on the stems that they cut out of a recording.

        Parameters
        ----------
        mono
            Mixdown of the recording, or its waveform, shape (samples,) at 16 kHz.
        tracks
            F0 on the 16-ms grid, 1 + samples // 256 frames.
        progress
            Called with "f0" and the fraction done.
        """
        mixdown = mixdown_of(mono)
        parts = []
        for first, last in stretches(tracks.n_frames):
            low, high = max(0, first - _CREPE_FRAMES), min(tracks.n_frames, last + _CREPE_FRAMES)
            own = F0Tracks(tracks.frequencies[:, low:high], tracks.names)
            found = refine_tracks(self._levelled_stems(mixdown, tracks, low, high), own, device=self.device)
            parts.append(found.frequencies[:, first - low : last - low])
            progress("f0", last / tracks.n_frames)
        return replace(tracks, frequencies=np.concatenate(parts, axis=1))

    def estimate(self, mono: Mixdown | Float32, tracks: F0Tracks) -> VoiceParameters:
        """Estimate the source parameters of every voice, relative to a recording with a peak of 0.5.

        Parameters
        ----------
        mono
            Mixdown of the recording, or its waveform, shape (samples,) at 16 kHz.
        tracks
            F0 on the 16-ms grid, 1 + samples // 256 frames.
        """
        mixdown = mixdown_of(mono)
        f0, gain = torch.from_numpy(tracks.frequencies), mixdown.gain
        return VoiceParameters.joined(
            [
                estimate_span(self.network, mixdown, gain, f0, first, last, self.device)
                for first, last in stretches(tracks.n_frames)
            ]
        )

    def fitted(self, mono: Float32, parameters: VoiceParameters) -> VoiceParameters:
        """Return parameters fitted to the recording that they were estimated for; see `fitting.fit`."""
        if not self.fitting:
            return parameters
        with torch.inference_mode():
            return fit(parameters, levelled(mono).to(self.device))
