"""Damage audio files at random and read them: each must give samples or an AudioError, soon and without a word.

    python tests/fuzz/fuzz_audio.py --cases 5000 --seed 0

A case is made from the seed and its number alone: `--first N --cases 1 --keep FILE` repeats one and writes it down.
The files are read by other processes, a batch of cases each, with a limit on memory and time. The exit code is 1 if
something was found.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import traceback
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

BATCH = 250  # cases
HANG = 120  # s after which a batch hangs; a good case takes milliseconds
MEMORY = 4 << 30  # bytes that a reading process may have, most of them for libraries
RUNAWAY = 1 << 26  # samples of all channels that no small file holds
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE]
SNDFILE = [  # subtype, format
    *[(subtype, "WAV") for subtype in ("PCM_16", "FLOAT", "DOUBLE", "MS_ADPCM")],
    *[("PCM_16", form) for form in ("FLAC", "AIFF", "W64", "SDS", "VOC", "NIST", "MAT5", "SVX")],
    *[("PCM_24", form) for form in ("RF64", "CAF", "FLAC")],
    *[("VORBIS", "OGG"), ("OPUS", "OGG"), ("MPEG_LAYER_III", "MP3"), ("ALAC_16", "CAF"), ("ULAW", "AU")],
]
FFMPEG = [  # codec, format
    *[("aac", form) for form in ("mp4", "adts", "flv", "mpegts")],
    *[("alac", "mp4"), ("flac", "matroska"), ("flac", "ogg"), ("libopus", "webm"), ("pcm_s24le", "mov")],
    *[("wmav2", "asf"), ("wavpack", "wv"), ("tta", "tta"), ("mp3", "avi"), ("libmp3lame", "mp3"), ("ac3", "ac3")],
]


def music(samples: int) -> NDArray[np.float32]:
    tone = 0.3 * np.sin(0.05 * np.arange(samples))
    return np.asarray(tone + 0.01 * np.random.default_rng(0).standard_normal((2, samples)), np.float32)


def make_sndfile(path: Path, subtype: str, form: str) -> None:
    waveform = music(6000)[: 1 if form in ("SDS", "SVX") else 2]
    with soundfile.SoundFile(path, "w", 16000, len(waveform), subtype, format=form) as sound:
        if form in ("WAV", "FLAC", "OGG", "MP3"):
            sound.title, sound.artist = "Locus iste", "Bruckner"
        sound.write(waveform.T)


def make_ffmpeg(path: Path, codec: str, form: str) -> None:
    with av.open(str(path), "w", format=form) as container:
        container.metadata["title"] = "Locus iste"
        stream = container.add_stream(codec, rate=48000, layout="stereo", bit_rate=128000)
        frame = av.AudioFrame.from_ndarray(music(20000), format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_files(folder: Path) -> None:
    """Write a small valid file of each kind."""
    for make, kinds in ((make_sndfile, SNDFILE), (make_ffmpeg, FFMPEG)):
        for codec, form in kinds:
            path = folder / f"{codec}.{form}"
            try:
                make(path, codec, form)
            except (soundfile.LibsndfileError, av.FFmpegError, ValueError) as error:
                print(f"{path.name}: not tried ({error})")
                path.unlink(missing_ok=True)


def damaged(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return a file with one to three faults, more often near its beginning, where the headers are."""
    out = bytearray(content)
    for _ in range(random.integers(1, 4)):
        near = len(out) if random.random() < 0.4 else min(len(out), 256)
        if not near:
            break
        at, length = int(random.integers(near)), int(random.integers(1, 17))
        match random.integers(9):
            case 0:  # bits
                for place in random.integers(0, near, random.integers(1, 9)):
                    out[place] ^= 1 << random.integers(8)
            case 1:  # bytes
                out[at : at + length] = random.bytes(len(out[at : at + length]))
            case 2:  # cut
                del out[int(random.integers(len(out))) :]
            case 3:  # a hole
                del out[at : at + length ** int(random.integers(1, 4))]
            case 4:  # bytes in between
                out[at:at] = random.bytes(length)
            case 5:  # numbers at which counting goes wrong
                value = EDGES[random.integers(len(EDGES))]
                width = 4 if value > 0xFFFF else (1, 2, 4)[random.integers(3)]
                digits = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
                out[at : at + width] = digits if random.random() < 0.5 else digits[::-1]
            case 6 | 7:  # a part again, or a part of another file
                source = out if random.random() < 0.5 else other
                start = int(random.integers(len(source)))
                out[at:at] = source[start : start + 64 * length]
            case _:  # zeros
                out[at : at + 64] = bytes(len(out[at : at + 64]))
    return bytes(out)


def case(folder: Path, seed: int, number: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of a case."""
    random = np.random.default_rng([seed, number])
    paths = sorted(folder.iterdir())
    one, other = (paths[place] for place in random.integers(len(paths), size=2))
    return one.name, damaged(one.read_bytes(), other.read_bytes(), random)


def read(path: Path) -> str:
    """Read a file twice; return "read", "refused", or a description of a fault."""
    from vocalsep.audio import AudioReader
    from vocalsep.errors import AudioError

    try:
        reader = AudioReader(path)
        counts = []
        for size in (4096, 1000):
            count = 0
            for block in reader.blocks(size):
                if block.shape[0] != reader.channels or block.dtype != np.float32 or not np.isfinite(block).all():
                    return f"block of shape {block.shape} and type {block.dtype}"
                count += block.shape[1]
                if count * reader.channels > RUNAWAY:
                    return f"more than {count} samples from {path.stat().st_size} bytes"
            counts.append(count)
        return "read" if counts[0] == counts[1] else f"{counts[0]} samples, then {counts[1]}"
    except AudioError as error:
        return "refused" if str(error).isprintable() and "expected" in str(error) else f"message {str(error)!r}"
    except Exception:
        return traceback.format_exc().replace("\n", " | ")


def work(folder: Path, seed: int, first: int, last: int) -> None:
    """Read cases and print the outcome of each."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        print("no limit on memory here", file=sys.stderr)
    path = folder / "case"
    for number in range(first, last):
        kind, content = case(folder / "valid", seed, number)
        path.write_bytes(content)
        print(f"@{number} {kind}", flush=True)
        print(f"={read(path)}", flush=True)


def search(folder: Path, seed: int, first: int, last: int) -> tuple[collections.Counter[str], list[str]]:
    """Run cases in batches; return the number of each outcome, and the faults."""
    counts: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    while first < last:
        end = min(first + BATCH, last)
        numbers = ["--seed", str(seed), "--first", str(first), "--cases", str(end - first)]
        with (folder / "out").open("w+") as out, (folder / "errors").open("w+") as errors:
            try:
                command = [sys.executable, __file__, "--work", str(folder), *numbers]
                status = subprocess.run(command, stdout=out, stderr=errors, timeout=HANG, check=False).returncode
            except subprocess.TimeoutExpired:
                status = -1
        # Damaged ALAC makes libsndfile print lines of its own.
        lines = [line for line in (folder / "out").read_text(errors="replace").splitlines() if line[:1] in ("@", "=")]
        for name, outcome in zip(lines[::2], lines[1::2], strict=False):
            good = outcome in ("=read", "=refused")
            counts[f"{name.split()[1]} {outcome[1:] if good else 'faults'}"] += 1
            if not good:
                faults.append(f"{name}: {outcome}")
        if status:
            faults.append(f"{lines[-1] if lines else first}: hangs, or ends the process with {status}")
        printed = (folder / "errors").read_text(errors="replace")
        if printed:
            faults.append(f"cases {first} to {end - 1} print {printed[:1000]!r}")
        first += (len(lines) + 1) // 2 if status else end - first
        if status and not lines:
            break
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="file to write the first case to")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    first, last = arguments.first, arguments.first + arguments.cases
    if arguments.work:
        work(arguments.work, arguments.seed, first, last)
        return 0
    with tempfile.TemporaryDirectory() as name:
        valid = Path(name) / "valid"
        valid.mkdir()
        make_files(valid)
        if arguments.keep:
            arguments.keep.write_bytes(case(valid, arguments.seed, first)[1])
        counts, faults = search(Path(name), arguments.seed, first, last)
    for kind in sorted({key.split()[0] for key in counts}):
        print(f"{kind:20}" + "".join(f"{counts[f'{kind} {end}']:8} {end}" for end in ("read", "refused", "faults")))
    print("\n".join([f"{counts.total()} cases, {len(faults)} faults", *faults]))
    return bool(faults)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
