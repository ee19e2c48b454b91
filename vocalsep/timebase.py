"""The sample rate and the grid of frames that every stage agrees on.

Frame t is centred on the time t * HOP, which is sample t * HOP_LENGTH at the model's rate.
"""

MODEL_SAMPLE_RATE = 16000
"""Sample rate in Hz at which f0 is tracked and source parameters are estimated."""

HOP_LENGTH = 256
"""Samples at `MODEL_SAMPLE_RATE` between two frames."""

HOP = HOP_LENGTH / MODEL_SAMPLE_RATE
"""Seconds between two frames: 16 ms."""
