"""F0 of voices: tracks and their files (CSV, MIDI, pictures), and the networks that track f0.

`tracks` holds the values; `csv`, `midi`, `notes` and `plot` read and write their files. `crepe` and `monophonic` track
one voice, `network` and `polyphonic` every voice of a mixture; all find their paths with `viterbi`.
"""
