"""Systems to compare with.

All separate alike: from a mixture, shape (samples,) at 16 kHz, and the f0 tracks of its voices to stems, shape (voices,
samples). Those that have learned take their network, in eval mode, as third argument.
"""
