"""Separate a waveform with known f0 tracks, and check that the stems add up to the recording.

python examples/separate_with_f0.py                        # the chorale beside this script, by its true f0
python examples/separate_with_f0.py choir.wav choir_f0.csv -o stems
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import vocalsep
from vocalsep import audio

HERE = Path(__file__).parent


def main() -> None:
    """Separate, print the level of each stem and the error of their sum, and write the stems if a folder is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path, nargs="?", default=HERE / "chorale.flac")
    parser.add_argument("f0", type=Path, nargs="?", default=HERE / "chorale_f0.csv", help="CSV: time,soprano,alto,...")
    parser.add_argument("-o", "--out", type=Path, help="folder for the stems; without it they are not written")
    options = parser.parse_args()
    try:
        waveform, sample_rate = audio.read(options.recording)  # (channels, samples)
        tracks = vocalsep.F0Tracks.from_csv(options.f0)
        # An array of shape (voices, frames) in Hz on the 16-ms grid, such as tracks.frequencies, works as well.
        result = vocalsep.separate(waveform, tracks, sample_rate=sample_rate)
        if options.out:
            result.save(options.out, bit_depth="24")
    except vocalsep.VocalsepError as error:
        parser.exit(1, f"{error}\n")
    for name, stem in result.stems.items():
        print(f"{name:10s} {decibels(stem):6.1f} dB")
    print(f"{'recording':10s} {decibels(waveform):6.1f} dB")
    difference = np.abs(sum(result.stems.values()) - waveform).max()
    print(f"the stems add up to the recording to within {difference:.1e} of full scale")


def decibels(waveform: np.ndarray) -> float:
    """Return the level of a waveform in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(waveform)) + 1e-12))


if __name__ == "__main__":
    main()
