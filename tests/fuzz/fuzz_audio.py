"""Damage audio files at random and read them: each must give samples or an AudioError, soon and without a word.

    python tests/fuzz/fuzz_audio.py --seconds 60 --seed 0

Every case is made of the seed and its number alone, so that what is found can be repeated: `--first N --cases 1`
reads one case and `--keep` writes it down. The files are read by a process of its own with a limit on its memory;
where that dies or hangs, the case is told and the next process goes on with the one after. Exit code 1: something
was found.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEMORY = 4 << 30  # bytes that the reading process may have, most of them libraries
HANG = 20.0  # s after which a case hangs; a good one takes milliseconds
RUNAWAY = 1 << 26  # samples of all channels that no small file holds
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE]
KINDS = [  # name, subtype, libsndfile's format
    ("wav16", "PCM_16", "WAV"),
    ("wav32", "FLOAT", "WAV"),
    ("wav64", "DOUBLE", "WAV"),
    ("adpcm", "MS_ADPCM", "WAV"),
    ("rf64", "PCM_24", "RF64"),
    ("flac", "PCM_16", "FLAC"),
    ("flac24", "PCM_24", "FLAC"),
    ("ogg", "VORBIS", "OGG"),
    ("opus", "OPUS", "OGG"),
    ("mp3", "MPEG_LAYER_III", "MP3"),
    ("aiff", "PCM_16", "AIFF"),
    ("aifc", "FLOAT", "AIFF"),
    ("caf", "PCM_24", "CAF"),
    ("alac", "ALAC_16", "CAF"),
    ("w64", "PCM_16", "W64"),
    ("au", "ULAW", "AU"),
    ("sds", "PCM_16", "SDS"),  # this and the next ones are refused
    ("voc", "PCM_16", "VOC"),
    ("nist", "PCM_16", "NIST"),
    ("mat5", "PCM_16", "MAT5"),
    ("svx", "PCM_16", "SVX"),
]
CODECS = [  # name, codec, FFmpeg's format
    ("m4a", "aac", "mp4"),
    ("m4a-alac", "alac", "mp4"),
    ("aac", "aac", "adts"),
    ("mkv", "flac", "matroska"),
    ("webm", "libopus", "webm"),
    ("mov", "pcm_s24le", "mov"),
    ("wma", "wmav2", "asf"),
    ("wv", "wavpack", "wv"),
    ("tta", "tta", "tta"),
    ("avi", "mp3", "avi"),
    ("ts", "mp2", "mpegts"),
    ("flv", "aac", "flv"),
    ("oga", "flac", "ogg"),
]


def music(samples: int = 6000) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    tone = 0.3 * np.sin(0.05 * np.arange(samples))
    return np.asarray(tone + 0.01 * random.standard_normal((2, samples)), np.float32)


def sound_files(folder: Path) -> dict[str, bytes]:
    """Return small valid files by name of their kind."""
    import soundfile

    files = {}
    for name, subtype, form in KINDS:
        path = folder / name
        waveform = music()[: 1 if form in ("SDS", "SVX") else 2]
        try:
            with soundfile.SoundFile(path, "w", 16000, len(waveform), subtype, format=form) as sound:
                if form in ("WAV", "FLAC", "OGG", "MP3"):
                    sound.title, sound.artist = "Locus iste", "Bruckner"
                sound.write(waveform.T)
        except soundfile.LibsndfileError as error:
            print(f"{name}: not tried ({error})")
            continue
        files[name] = path.read_bytes()
    return files


def container_files(folder: Path) -> dict[str, bytes]:
    """Return small valid files that only PyAV reads, by name of their kind; none where it is missing."""
    try:
        import av
    except ImportError:
        print("m4a, mkv and others: not tried (no PyAV)")
        return {}
    files = {}
    for name, codec, form in CODECS:
        path = folder / name
        try:
            with av.open(str(path), "w", format=form) as container:
                container.metadata["title"] = "Locus iste"
                stream = container.add_stream(codec, rate=48000, layout="stereo", bit_rate=128000)
                sound = av.AudioFrame.from_ndarray(music(20000), format="fltp", layout="stereo")
                sound.sample_rate, sound.pts = 48000, 0
                pieces = av.AudioFifo()
                for part in av.AudioResampler(format=stream.format, layout="stereo", rate=48000).resample(sound):
                    pieces.write(part)
                while (piece := pieces.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
                    container.mux(stream.encode(piece))
                container.mux(stream.encode(None))
        except (av.FFmpegError, ValueError) as error:
            print(f"{name}: not tried ({error})")
            continue
        files[name] = path.read_bytes()
    return files


def damaged(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return a file with one to three faults, more often near its beginning, where the headers are."""
    out = bytearray(content)
    for _ in range(random.integers(1, 4)):
        if not out:
            break
        near = len(out) if random.random() < 0.4 else min(len(out), 256)
        at = int(random.integers(near))
        length = int(random.integers(1, 17))
        kind = random.integers(9)
        if kind == 0:  # bits
            for place in random.integers(0, near, random.integers(1, 9)):
                out[place] ^= 1 << random.integers(8)
        elif kind == 1:  # bytes
            out[at : at + length] = random.bytes(len(out[at : at + length]))
        elif kind == 2:  # cut
            del out[int(random.integers(len(out))) :]
        elif kind == 3:  # a hole
            del out[at : at + length ** int(random.integers(1, 4))]
        elif kind == 4:  # something in between
            out[at:at] = random.bytes(length)
        elif kind == 5:  # numbers at which counting goes wrong
            value = EDGES[random.integers(len(EDGES))]
            width = 4 if value > 0xFFFF else (1, 2, 4)[random.integers(3)]
            digits = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
            out[at : at + width] = digits if random.random() < 0.5 else digits[::-1]
        elif kind == 6:  # a part again
            start = int(random.integers(len(out)))
            out[at:at] = out[start : start + 64 * length]
        elif kind == 7:  # a part of another file
            start = int(random.integers(len(other)))
            out[at:at] = other[start : start + 64 * length]
        else:  # zeros
            out[at : at + 64] = bytes(len(out[at : at + 64]))
    return bytes(out)


def case(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of a case."""
    random = np.random.default_rng([seed, number])
    names = list(files)
    name, other = (names[place] for place in random.integers(len(names), size=2))
    return name, damaged(files[name], files[other], random)


def read(path: Path) -> str:
    """Read a file twice as the program does; return what came of it, in a word, or after ! what should not be."""
    from vocalsep.audio import AudioReader
    from vocalsep.errors import AudioError

    try:
        with AudioReader(path) as reader:
            counts = []
            for size in (4096, 1000):
                count = 0
                for block in reader.blocks(size):
                    if block.shape[0] != reader.channels or block.dtype != np.float32 or not np.isfinite(block).all():
                        return f"!block of shape {block.shape} and type {block.dtype}"
                    count += block.shape[1]
                    if count * reader.channels > RUNAWAY:
                        return f"!more than {count} samples from {path.stat().st_size} bytes"
                counts.append(count)
            if counts[0] != counts[1]:
                return f"!{counts[0]} samples, then {counts[1]}"
    except AudioError as error:
        return "refused" if str(error).isprintable() and "expected" in str(error) else f"!message {str(error)!r}"
    except Exception:
        return "!" + traceback.format_exc().replace("\n", " | ")
    return "read"


def work(folder: Path, seed: int, first: int) -> None:
    """Read cases until the input ends; print what came of each."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        print("no limit on the memory here", file=sys.stderr)
    files = {path.name: path.read_bytes() for path in sorted((folder / "valid").iterdir())}
    path = folder / "case"
    for number in range(first, sys.maxsize):
        name, content = case(files, seed, number)
        path.write_bytes(content)
        print(f"@{number} {name}", flush=True)
        print(f"={read(path)}", flush=True)


class Worker:
    """The reading process, its last words and the time of the last of them."""

    def __init__(self, folder: Path, seed: int, first: int) -> None:
        command = [sys.executable, __file__, "--work", str(folder), "--seed", str(seed), "--first", str(first)]
        self.errors = (folder / "errors").open("wb+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.begun = time.monotonic()
        self.hung = False
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            if time.monotonic() - self.begun > HANG:
                self.hung = True
                self.process.kill()
                return

    def close(self) -> str:
        self._over.set()
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")
        self.errors.close()
        return said


def search(folder: Path, arguments: argparse.Namespace) -> tuple[collections.Counter[str], list[str]]:
    """Run cases for as long as asked; return how many came to what, and what should not have come."""
    counts: collections.Counter[str] = collections.Counter()
    findings: list[str] = []
    end = time.monotonic() + arguments.seconds
    number, last = arguments.first, arguments.first + arguments.cases
    while number < last and time.monotonic() < end and len(findings) < 20:
        worker = Worker(folder, arguments.seed, number)
        assert worker.process.stdout is not None
        name = "none"
        for line in worker.process.stdout:
            worker.begun = time.monotonic()
            if line.startswith("@"):
                name = line.split()[1]
                continue
            if not line.startswith("="):
                printed = f"case {number} ({name}): prints to standard output"
                findings += [printed] if printed not in findings else []
                continue
            outcome = line[1:].rstrip("\n")
            counts[f"{name} {outcome if outcome in ('read', 'refused') else 'found'}"] += 1
            if outcome.startswith("!"):
                findings.append(f"case {number} ({name}): {outcome[1:]}")
            number += 1
            if number >= last or time.monotonic() > end or len(findings) >= 20:
                break
        dead = worker.process.poll() is not None or worker.hung
        said = worker.close()
        if dead:
            how = "hangs" if worker.hung else f"ends the process with {worker.process.returncode}"
            findings.append(f"case {number} ({name}): {how}")
            number += 1
        if said:
            findings.append(f"up to case {number}: says {said[:2000]!r}")
    return counts, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--cases", type=int, default=1 << 40, help="how many cases to try at most")
    parser.add_argument("--seed", type=int, default=0, help="of all chance")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="file to write the first case to")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.seed, arguments.first)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valid").mkdir()
        (folder / "made").mkdir()
        files = {**sound_files(folder / "made"), **container_files(folder / "made")}
        for kind, content in files.items():
            (folder / "valid" / kind).write_bytes(content)
        if arguments.keep:
            kind, content = case(dict(sorted(files.items())), arguments.seed, arguments.first)
            arguments.keep.write_bytes(content)
            print(f"{arguments.keep}: case {arguments.first}, once {kind}")
        counts, findings = search(folder, arguments)
    for kind in sorted({key.split()[0] for key in counts}):
        print(f"{kind:10}" + "".join(f"{counts[f'{kind} {end}']:8} {end}" for end in ("read", "refused", "found")))
    print(f"{sum(counts.values())} cases, {len(findings)} findings")
    for finding in findings:
        print(finding)
    return bool(findings)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
