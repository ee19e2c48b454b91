"""The public functions that work on arrays and single files; `vocalsep.batch` works on many files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from numpy.typing import ArrayLike

from vocalsep.audio import read, to_model_rate
from vocalsep.audio.downmix import Downmix
from vocalsep.device import resolve_device
from vocalsep.errors import F0Error
from vocalsep.f0 import polyphonic
from vocalsep.f0.crepe import Crepe
from vocalsep.f0.grid import F0sLike
from vocalsep.f0.monophonic import VOICING_THRESHOLD, f0_from_downmixes
from vocalsep.f0.network import Tracker
from vocalsep.f0.tracks import F0Tracks
from vocalsep.options import DEFAULT_VOICES, NetworkOptions, RoomLike, SeparationOptions
from vocalsep.progress import ProgressCallback, no_progress
from vocalsep.separation.result import Separation
from vocalsep.separation.separator import Separator
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.voices import VoicesLike, parse_voices
from vocalsep.weights import load_network


def separate(
    audio: ArrayLike,
    f0s: F0sLike = None,
    *,
    sample_rate: int = MODEL_SAMPLE_RATE,
    voices: VoicesLike | None = SeparationOptions.voices,
    model: str | os.PathLike[str] = NetworkOptions.model,
    device: str = NetworkOptions.device,
    tracker: str | os.PathLike[str] = NetworkOptions.tracker,
    masks: str | os.PathLike[str] = NetworkOptions.masks,
    room: RoomLike = SeparationOptions.room,
    residual: bool = SeparationOptions.residual,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Separate a recording of an ensemble into its voices.

    K. Schulze-Forster, G. Richard, L. Kelley, C. Doire, R. Badeau, "Unsupervised Music Source Separation Using
    Differentiable Parametric Source Models", arXiv 2201.09592.

    Parameters
    ----------
    audio : array_like, shape (samples,) or (channels, samples)
        The recording, full scale +-1.
    f0s : F0Tracks or array_like, shape (voices, frames), optional
        F0 of every voice, high to low. An array holds Hz on the 16-ms grid, 0 = unvoiced. None tracks f0 in the
        recording.
    sample_rate : int
        Sample rate in Hz.
    voices : str, int or sequence, optional
        Part letters ("SATB", "SAB"), a list of names, or a number of voices; see `vocalsep.parse_voices`. None takes
        the names of `f0s`. An array of four rows is then SATB, any other voice1, voice2, ...; without `f0s` the voices
        are SATB.
    model : str or path
        Weights of the estimator: a name in the manifest, a checkpoint folder, or `owner/repo[@revision]` on the Hub.
    device : str
        "auto" (CUDA if present, else the CPU), "cpu", "cuda" or "mps".
    tracker : str or path
        Weights of the f0 tracker, likewise; they are used if `f0s` is None.
    masks : str or path
        Weights of the network that corrects the masks, likewise, or "none".
    room : float or str
        Reverberation time (T60) in s of the room that the recording sounds in, "auto" to estimate it, or "none".
    residual : bool
        Put passages in which no voice sings into a stem named "residual" instead of sharing them among the voices.
    progress : callable
        Called with the stage ("reading", "f0", "masks") and the fraction of it that is done.

    Returns
    -------
    Separation
        Stems in the shape of `audio`; they add up to it.

    Raises
    ------
    AudioError, F0Error, VoicesError, OptionError, WeightsError
        If the respective input cannot be used; all of them are `VocalsepError`.

    Examples
    --------
    Two tones, an octave and a fifth apart, with known f0:

    >>> import numpy as np
    >>> time = np.arange(16000) / 16000
    >>> tones = [0.3 * np.sin(2 * np.pi * f * time) for f in (660.0, 220.0)]
    >>> f0s = np.repeat([[660.0], [220.0]], 63, axis=1)
    >>> result = separate(tones[0] + tones[1], f0s)
    >>> list(result.stems)
    ['voice1', 'voice2']
    >>> bool(np.abs(sum(result.stems.values()) - (tones[0] + tones[1])).max() < 1e-6)
    True
    """
    separator = Separator(model, device, tracker=tracker, masks=masks)
    return separator.separate(
        audio, f0s, sample_rate=sample_rate, voices=voices, room=room, residual=residual, progress=progress
    )


def separate_file(
    path: str | os.PathLike[str],
    f0s: F0sLike = None,
    *,
    voices: VoicesLike | None = SeparationOptions.voices,
    model: str | os.PathLike[str] = NetworkOptions.model,
    device: str = NetworkOptions.device,
    tracker: str | os.PathLike[str] = NetworkOptions.tracker,
    masks: str | os.PathLike[str] = NetworkOptions.masks,
    room: RoomLike = SeparationOptions.room,
    residual: bool = SeparationOptions.residual,
    progress: ProgressCallback = no_progress,
) -> Separation:
    """Separate an audio file; all other parameters are those of `separate`."""
    waveform, sample_rate = read(path)
    return separate(
        waveform,
        f0s,
        sample_rate=sample_rate,
        voices=voices,
        model=model,
        device=device,
        tracker=tracker,
        masks=masks,
        room=room,
        residual=residual,
        progress=progress,
    )


def track_polyphonic(
    audio: ArrayLike,
    sample_rate: int,
    voices: VoicesLike = DEFAULT_VOICES,
    *,
    model: str | os.PathLike[str] = NetworkOptions.tracker,
    device: str = NetworkOptions.device,
    voicing_bias: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> F0Tracks:
    """Track the f0 of every voice of a mixture on the 16-ms grid.

    Parameters
    ----------
    audio : array_like, shape (samples,) or (channels, samples)
        The recording; its channels are mixed.
    sample_rate : int
        Sample rate in Hz.
    voices : str, int or sequence
        Voices to find, high to low; see `vocalsep.parse_voices`. A section of singers on one part is one voice.
    model : str or path
        Weights of the tracker: a name in the manifest, a checkpoint folder, or `owner/repo[@revision]` on the Hub.
    device : str
        "auto" (CUDA if present, else the CPU), "cpu", "cuda" or "mps".
    voicing_bias : float
        Nats added to the evidence for every pitch: above 0 finds more notes, below 0 fewer.
    progress : callable
        Called with the fraction that is done.

    Returns
    -------
    F0Tracks
        F0 in Hz, 0 = unvoiced; the confidence is the probability that f0 is right to 50 cents, 0 where unvoiced.

    Raises
    ------
    AudioError, VoicesError, WeightsError, OptionError
        If the respective input cannot be used.
    """
    downmix = Downmix.of_array(to_model_rate(audio, sample_rate))
    parts = parse_voices(voices)
    network = load_network(model, Tracker, resolve_device(device))
    return polyphonic.track(downmix, parts, network, voicing_bias=voicing_bias, progress=progress)


def f0_from_stems(
    stems: Mapping[str, ArrayLike] | Sequence[ArrayLike],
    sample_rate: int = MODEL_SAMPLE_RATE,
    *,
    crepe: str | os.PathLike[str] = NetworkOptions.crepe,
    threshold: float = VOICING_THRESHOLD,
    device: str = "cpu",
) -> F0Tracks:
    """Track every voice of an ensemble in a recording of it alone ("CREPE per voice").

    The recordings may be stems, or guides: a rehearsal take, or a line played or hummed in time with the choir.

    Parameters
    ----------
    stems : mapping of str to array_like, or sequence of array_like
        Waveforms, high to low, each of shape (samples,) or (channels, samples). In a sequence, the voices are named
        voice1, voice2, ...
    sample_rate : int
        Sample rate of all of them in Hz.
    crepe : str or path
        Weights of CREPE: a name in the manifest, or a checkpoint folder.
    threshold : float
        Periodicity in [0, 1] from which a frame counts as voiced.
    device : str
        "auto", "cpu", "cuda" or "mps".

    Returns
    -------
    F0Tracks
        On the 16-ms grid, as long as the longest recording; the confidence is CREPE's periodicity.

    Raises
    ------
    AudioError, F0Error, WeightsError, OptionError
        If the respective input cannot be used.
    """
    named = stems if isinstance(stems, Mapping) else {f"voice{i + 1}": stem for i, stem in enumerate(stems)}
    if not named:
        raise F0Error("stems is empty; expected a recording of each voice", parameter="stems")
    downmixes = {name: Downmix.of_array(to_model_rate(stem, sample_rate)) for name, stem in named.items()}
    return f0_from_downmixes(downmixes, load_network(crepe, Crepe, resolve_device(device)), threshold)
