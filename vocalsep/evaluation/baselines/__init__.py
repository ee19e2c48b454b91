"""Systems to compare with.

All separate a mixture, shape (samples,) at 16 kHz, with the f0 tracks of its voices into stems, shape (voices,
samples). Those that learn take their network, in evaluation mode, as third argument.
"""
