"""Report the range of each voice of a recording in note names, its median f0, and its share of the time.

python examples/range_report.py                      # the chorale beside this script
python examples/range_report.py duet.wav --voices SA
python examples/range_report.py --f0 examples/chorale_f0.csv    # from f0 tracks, without a recording
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import vocalsep
from vocalsep import audio
from vocalsep.dsp.units import hz_to_midi

CHORALE = Path(__file__).with_name("chorale.flac")
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def main() -> None:
    """Track every voice, or read its f0, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path, nargs="?", default=CHORALE)
    parser.add_argument("--voices", default="SATB", help="voices of the recording (default: %(default)s)")
    parser.add_argument("--f0", type=Path, help="CSV of f0 tracks to report on instead of a recording")
    options = parser.parse_args()
    try:
        if options.f0:
            tracks = vocalsep.F0Tracks.from_csv(options.f0)
        else:
            tracks = vocalsep.track_polyphonic(*audio.read(options.recording), options.voices)
    except vocalsep.VocalsepError as error:
        parser.exit(1, f"{error}\n")
    print(f"{'voice':10s} {'lowest':>7s} {'highest':>7s} {'median':>15s} {'sings':>6s}")
    for name, f0 in zip(tracks.names, tracks.frequencies, strict=True):
        if not f0.any():
            print(f"{name:10s} never sings")
            continue
        # Leave out the extremes: one frame in fifty may be a slip of the tracker or of the singer.
        low, median, high = np.percentile(f0[f0 > 0], [2, 50, 98])
        centre = f"{median:.0f} Hz ({note(median)})"
        print(f"{name:10s} {note(low):>7s} {note(high):>7s} {centre:>15s} {np.mean(f0 > 0):6.0%}")


def note(f0: float) -> str:
    """Return the name of the nearest note, A4 = 440 Hz."""
    number = round(float(hz_to_midi(f0)))
    return f"{NAMES[number % 12]}{number // 12 - 1}"


if __name__ == "__main__":
    main()
