"""Properties of any separation, for random and unusual recordings, f0 and options.

`VOCALSEP_EXAMPLES=5000 pytest tests/test_properties.py --hypothesis-seed 1` searches for longer.
"""

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocalsep.separation.separator import Separator

EXAMPLES = int(os.environ.get("VOCALSEP_EXAMPLES", "0"))

CONTENTS = {
    "silence": lambda rng, shape: np.zeros(shape),
    "offset": lambda rng, shape: 0.9 + 0.1 * rng.uniform(-1, 1, shape),
    "square wave": lambda rng, shape: np.broadcast_to(np.where(np.arange(shape[-1]) % 37 < 18, 1.0, -1.0), shape),
    "click": lambda rng, shape: np.broadcast_to(np.arange(shape[-1]) == shape[-1] // 2, shape).astype(float),
    "noise": lambda rng, shape: rng.uniform(-1, 1, shape),
    "nyquist": lambda rng, shape: np.broadcast_to((-1.0) ** np.arange(shape[-1]), shape),
    "opposite channels": lambda rng, shape: np.outer((-1.0) ** np.arange(shape[0]), rng.uniform(-1, 1, shape[-1])),
    "fade out": lambda rng, shape: rng.uniform(-1, 1, shape) * 10.0 ** (-40 * np.arange(shape[-1]) / shape[-1]),
}


@settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    content=st.sampled_from(sorted(CONTENTS)),
    seed=st.integers(0, 2**16),
    sample_rate=st.sampled_from([4000, 8000, 11025, 16000, 44100, 96000]),
    channels=st.integers(1, 3),
    samples=st.integers(1, 9000),
    gain=st.sampled_from([1e-20, 1e-3, 1.0, 30.0]),
    voices=st.integers(1, 6),
    tracked=st.booleans(),
    residual=st.booleans(),
)
def test_stems_are_finite_and_add_up(
    tiny_separator: Separator, content, seed, sample_rate, channels, samples, gain, voices, tracked, residual
):
    rng = np.random.default_rng(seed)
    recording = (gain * CONTENTS[content](rng, (channels, samples))).astype(np.float32)
    f0s = None
    if not tracked:
        n_frames = 1 + round(samples * 16000 / sample_rate) // 256
        f0s = rng.uniform(60, 1000, (voices, n_frames)) * (rng.random((voices, n_frames)) < 0.8)
    result = tiny_separator.separate(
        recording, f0s, sample_rate=sample_rate, voices=voices if tracked else None, residual=residual
    )
    stems = np.stack(list(result.stems.values()))
    assert stems.shape == (voices + residual, channels, samples)
    assert np.isfinite(stems).all()
    error = np.abs(stems.sum(axis=0, dtype=np.float64) - recording).max()
    assert error <= 1e-5 * np.abs(recording).max() + 1e-36
