"""F0 tracking: CREPE for one voice, harmonic summation for a mixture, and the Viterbi decoder of both."""
