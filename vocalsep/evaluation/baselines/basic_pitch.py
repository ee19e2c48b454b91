"""Basic Pitch, a published network for notes of any instrument, made to follow voices.

R. Bittner, J. Bosch, D. Rubinstein, G. Meseguer-Brocal, S. Ewert, "A lightweight instrument-agnostic model for
polyphonic note transcription and multipitch estimation", ICASSP 2022; weights of the package basic-pitch 0.4, run with
onnxruntime. The network knows no voices: at most as many pitches as there are voices are taken from its
posteriorgrams in each frame and given to the voices from high to low, a heuristic of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vocalsep.audio import Float32, resample, to_model_rate
from vocalsep.errors import MissingExtraError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP, HOP_LENGTH, MODEL_SAMPLE_RATE
from vocalsep.voices import Voice, VoicesLike, parse_voices

_SAMPLE_RATE = 22050  # Hz, of the network
_HOP_LENGTH = 256  # samples at that rate
_WINDOW = 43844  # samples the network takes at once
_OVERLAP = 30  # frames shared by windows, half of them dropped at either end as in the authors' code
_OUTPUTS = ("StatefulPartitionedCall:1", "StatefulPartitionedCall:0")  # notes, contours
_INPUT = "serving_default_input_2:0"
_BASE = 27.5  # Hz, the middle one of the first three contour bins
_BINS_PER_OCTAVE, _BINS_PER_SEMITONE = 36, 3
_THRESHOLD = 0.25  # of the note posteriorgram: best F of 0.1 to 0.4 on singers 1 and 2; 0.3 is the authors' for notes


def track_basic_pitch(audio: ArrayLike, sample_rate: int, voices: VoicesLike = "SATB") -> F0Tracks:
    """Track the f0 of every voice of a mixture on the 16-ms grid with Basic Pitch.

    Parameters
    ----------
    audio
        Shape (samples,) or (channels, samples); channels are mixed.
    sample_rate
        Hz.
    voices
        The voices to find, high to low, as `vocalsep.voices.parse_voices` understands them.

    Returns
    -------
    F0Tracks
        Hz, 0 = unvoiced; confidence is the posterior of the note, 0 where unvoiced.

    Raises
    ------
    MissingExtraError
        If onnxruntime or basic_pitch is not installed.
    AudioError
        If the audio is empty, not finite or of a wrong shape.
    VoicesError
        If `voices` cannot be understood.
    """
    parts = parse_voices(voices)
    waveform = to_model_rate(audio, sample_rate)
    notes, contours = posteriorgrams(waveform)
    found = np.zeros((2, len(parts), len(notes)), dtype=np.float32)
    for frame, (note, contour) in enumerate(zip(notes, contours, strict=True)):
        pitches, posteriors = _pitches(note, contour, parts)
        rows = assign(pitches, parts)
        found[:, rows, frame] = pitches, posteriors
    return F0Tracks(found[0], tuple(part.name for part in parts), confidence=found[1])


def posteriorgrams(waveform: Float32) -> tuple[Float32, Float32]:
    """Return the network's posteriors of notes, (frames, 88), and pitch contours, (frames, 264), each 16 ms.

    Raises
    ------
    MissingExtraError
        If onnxruntime or basic_pitch is not installed.
    """
    # The package itself is not imported: that would load TensorFlow where it is installed.
    package = find_spec("basic_pitch")
    folder = next(iter(package.submodule_search_locations or []), None) if package else None
    if folder is None or find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "Basic Pitch is not installed; pip install onnxruntime and pip install --no-deps basic-pitch bring it"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(folder) / "saved_models" / "icassp_2022" / "nmp.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    audio = resample(waveform, MODEL_SAMPLE_RATE, _SAMPLE_RATE)[0]
    windows = [session.run(list(_OUTPUTS), {_INPUT: window[None, :, None]}) for window in _windows(audio)]
    keep = slice(_OVERLAP // 2, -(_OVERLAP // 2))
    notes, contours = (np.concatenate([window[kind][0, keep] for window in windows]) for kind in (0, 1))
    kept = len(notes) // len(windows)
    # A step of the windows is no whole number of frames, so the time of each frame is worked out.
    times = (np.arange(len(windows))[:, None] * _step() + np.arange(kept) * _HOP_LENGTH).ravel() / _SAMPLE_RATE
    wanted = np.arange(1 + len(waveform) // HOP_LENGTH) * HOP
    order = np.argsort(times, kind="stable")
    nearest = order[
        np.clip(np.searchsorted(times[order], wanted - 0.5 * _HOP_LENGTH / _SAMPLE_RATE), 0, len(order) - 1)
    ]
    return notes[nearest], contours[nearest]


def _step() -> int:
    return _WINDOW - _OVERLAP * _HOP_LENGTH


def _windows(audio: Float32) -> Iterator[Float32]:
    """Yield windows whose kept frames start at multiples of the step."""
    padded = np.pad(audio, (_OVERLAP // 2 * _HOP_LENGTH, _WINDOW))
    for start in range(0, len(audio), _step()):
        yield padded[start : start + _WINDOW]


def _pitches(
    note: Float32, contour: Float32, voices: tuple[Voice, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most as many pitches as there are voices, in Hz from high to low, and their posteriors.

    A pitch is a peak of the contours in the range of some voice whose note is likely enough; the likeliest notes win.
    """
    inner = contour[1:-1]
    peaks = 1 + np.flatnonzero((inner > contour[:-2]) & (inner >= contour[2:]))
    left, middle, right = contour[peaks - 1], contour[peaks], contour[peaks + 1]
    fine = peaks + (right - left) / (left + middle + right)  # centroid of three bins
    frequency = _BASE * 2 ** ((fine - 1) / _BINS_PER_OCTAVE)
    posterior = note[np.minimum(peaks // _BINS_PER_SEMITONE, len(note) - 1)].astype(np.float64)
    sung = np.any([(frequency >= voice.fmin) & (frequency <= voice.fmax) for voice in voices], axis=0)
    likely = np.flatnonzero(sung & (posterior >= _THRESHOLD))
    best = np.sort(likely[np.argsort(-posterior[likely], kind="stable")][: len(voices)])[::-1]
    return frequency[best], posterior[best]


def assign(pitches: NDArray[np.float64], voices: tuple[Voice, ...]) -> NDArray[np.int64]:
    """Return which voice takes each pitch: from high to low, nearest to the middles of the voices' ranges in all.

    Parameters
    ----------
    pitches
        Hz, high to low, no more than there are voices.
    voices
        High to low.

    Examples
    --------
    >>> assign(np.array([440.0, 110.0]), parse_voices("SATB"))
    array([0, 3])
    """
    centres = np.array([np.log2(voice.fmin * voice.fmax) / 2 for voice in voices])
    distance = (np.log2(pitches)[:, None] - centres) ** 2
    own = np.arange(len(pitches))
    choices = (np.array(rows, dtype=np.int64) for rows in combinations(range(len(voices)), len(pitches)))
    return min(choices, key=lambda rows: float(distance[own, rows].sum()))
