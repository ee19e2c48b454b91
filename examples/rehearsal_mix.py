"""Make a rehearsal mix: one voice of a recording louder than the others, or everything without it.

python examples/rehearsal_mix.py --voice alto                         # the chorale beside this script
python examples/rehearsal_mix.py choir.wav --voice tenor --gain 10    # the others 10 dB softer
python examples/rehearsal_mix.py choir.wav --voice bass --without -o sing_along.wav
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import vocalsep
from vocalsep import audio

CHORALE = Path(__file__).with_name("chorale.flac")


def main() -> None:
    """Separate, weight the voices and write their sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path, nargs="?", default=CHORALE)
    parser.add_argument("--voice", default="soprano", help="voice to rehearse (default: %(default)s)")
    parser.add_argument("--voices", default="SATB", help="voices of the recording (default: %(default)s)")
    parser.add_argument("--gain", type=float, default=8.0, help="dB by which the voice stands out (default: 8)")
    parser.add_argument("--without", action="store_true", help="leave the voice out, to sing it yourself")
    parser.add_argument("--f0", type=Path, help="CSV of the f0 tracks; without it they are tracked in the recording")
    parser.add_argument("-o", "--out", type=Path, default=Path("rehearsal_mix.wav"), help="default: %(default)s")
    options = parser.parse_args()
    try:
        tracks = vocalsep.F0Tracks.from_csv(options.f0) if options.f0 else None
        result = vocalsep.separate_file(options.recording, tracks, voices=options.voices)
        if options.voice not in result.stems:
            parser.error(f"no voice named {options.voice!r}; the recording has {', '.join(result.stems)}")
        # The others go down rather than the voice up, so that the mix does not clip.
        mine, others = (0.0, 1.0) if options.without else (1.0, 10 ** (-options.gain / 20))
        weights = {name: mine if name == options.voice else others for name in result.stems}
        mix = sum(weights[name] * stem for name, stem in result.stems.items())
        audio.write(options.out, mix / max(1.0, np.abs(mix).max()), result.sample_rate)
    except vocalsep.VocalsepError as error:
        parser.exit(1, f"{error}\n")
    print(f"{options.out}: {'everything but' if options.without else 'more of'} the {options.voice}")


if __name__ == "__main__":
    main()
