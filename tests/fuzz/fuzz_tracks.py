"""Throw damaged and hostile files at the readers of f0: CSV tables, folders of CSV files, MIDI.

    python tests/fuzz/fuzz_tracks.py --seconds 60 --seed 0

Every case must end in tracks or in an F0Error of one sentence, in bounded time and memory. The same seed gives the same
cases in the same order; --case N runs one of them again. With --atheris, coverage guides the mutations (a package that
is not among the requirements of the tests).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mido
import numpy as np

from vocalsep.errors import F0Error
from vocalsep.f0.tracks import F0Tracks

MEMORY = 4 << 30  # bytes of address space
LARGEST = 1 << 20  # bytes of a file that is made still larger
SECONDS = 60  # that a case may take on a busy machine
SLOW = 3  # seconds of processor time: cases that take more are told
NAMES = ("soprano", "alto", "tenor", "bass")
READERS = ("table", "folder", "midi")
Case = dict[str, bytes]  # name of a file -> what is in it

NUMBERS = [
    *("nan", "-nan", "inf", "-inf", "1e308", "1e309", "-1e308", "1e-320", "5e-324", "0", "-0", "-1", "8000", "8000.01"),
    *(
        "1_0",
        "0x10",
        "1e5",
        "86399.99",
        "86400",
        "86400.01",
        "9" * 400,
        "0." + "0" * 400 + "1",
        "٤٤٠",
        "½",
        "1,5",
        "''",
    ),
    *(
        "1e-5",
        "1e-6",
        "1e-9",
        "0.016",
        "440",
        "",
        " ",
        '"440"',
        '"',
        '"4\n40"',
        "=1+1",
        "#",
        "\x00",
        "1;2",
        "1\t2",
        "--",
    ),
]


# Seeds


def _tracks(rng: random.Random) -> F0Tracks:
    frames = rng.choice([1, 2, 3, 20, 90])
    voices = rng.choice([1, 2, 4])
    f0 = np.array([[rng.choice([0.0, rng.uniform(60, 1100)]) for _ in range(frames)] for _ in range(voices)])
    return F0Tracks(f0, NAMES[:voices], rng.choice([0.016, 0.01, 0.0058, 1e-5, 1.0]))


def table(rng: random.Random) -> bytes:
    """Return a table that is as it should be."""
    tracks = _tracks(rng)
    rows = [[f"{t:.6f}", *(f"{value:.3f}" for value in column)]
            for t, column in zip(tracks.times, tracks.frequencies.T, strict=True)]  # fmt: skip
    if rng.random() < 0.3:  # rests left out
        rows = [row for row in rows if row[1] != "0.000"] or rows
    if rng.random() < 0.6:
        rows.insert(0, ["time", *tracks.names])
    mark, end = rng.choice([",", ";", "\t", " ", ", "]), rng.choice(["\n", "\r\n", "\r"])
    if rng.random() < 0.1:
        rows = [[f'"{cell}"' for cell in row] for row in rows]
    return (end.join(mark.join(row) for row in rows) + rng.choice(["", end])).encode()


def midi(rng: random.Random) -> bytes:
    """Return a MIDI file that is as it should be."""
    file = mido.MidiFile(type=rng.choice([0, 1, 1]), ticks_per_beat=rng.choice([96, 480, 32767]))
    for track in range(1 if file.type == 0 else rng.choice([1, 2, 4, 5])):
        messages: list[mido.Message] = [mido.MetaMessage("track_name", name=rng.choice([*NAMES, "", "a/b"]))]
        for _ in range(rng.randrange(12)):
            if rng.random() < 0.2:
                messages.append(mido.MetaMessage("set_tempo", tempo=rng.choice([1, 500_000, 2**24 - 1])))
            note, channel = rng.randrange(128), rng.choice([track % 16, rng.randrange(16)])
            messages.append(mido.Message("note_on", note=note, channel=channel, time=rng.choice([0, 1, 96, 10**6])))
            if rng.random() < 0.9:
                off = rng.choice(["note_off", "note_on"])
                messages.append(
                    mido.Message(off, note=note, channel=channel, velocity=0, time=rng.choice([0, 48, 480]))
                )
        file.tracks.append(mido.MidiTrack(messages))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


# Mutations of any bytes


def _flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, content: bytearray) -> None:
    content[rng.randrange(len(content))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 10, 13, 34, 44, rng.randrange(256)])


def _cut(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def _remove(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice([1, 2, 4, 50])]


def _splice(rng: random.Random, content: bytearray) -> None:
    start, place = rng.randrange(len(content)), rng.randrange(len(content) + 1)
    content[place:place] = content[start : start + rng.choice([1, 4, 30, 1000])] * rng.choice([1, 1, 2, 50])


def _stuff(rng: random.Random, content: bytearray) -> None:
    byte = bytes([rng.choice([0, 0x20, 0x2C, 0x3B, 0x39, 0x80, 0xFF, 0x0A, 0x22, rng.randrange(256)])])
    place = rng.randrange(len(content) + 1)
    content[place:place] = byte * rng.choice([1, 2, 3, 100, 5000, 2_000_000 if rng.random() < 0.03 else 200])


ANY = (_flip, _flip, _set, _set, _cut, _remove, _splice, _stuff)


# Mutations of tables


def _cells(rng: random.Random, content: bytearray) -> None:
    lines = content.decode("utf-8", "replace").splitlines() or [""]
    for _ in range(rng.choice([1, 1, 3, 30])):
        place = rng.randrange(len(lines))
        cells = lines[place].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(NUMBERS)
        lines[place] = ",".join(cells)
    content[:] = "\n".join(lines).encode()


def _rows(rng: random.Random, content: bytearray) -> None:
    lines = content.splitlines(keepends=True)[:10_000]
    what = rng.randrange(4)
    if what == 0:
        rng.shuffle(lines)
    elif what == 1:
        lines = lines * rng.choice([2, 10, 100])
    elif what == 2 and lines:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    else:
        lines = lines[::-1]
    content[:] = b"".join(lines)


def _columns(rng: random.Random, content: bytearray) -> None:
    mark = rng.choice([b",", b";", b"\t", b" "])
    width = rng.choice([15, 16, 17, 100, 255, 256, 257, 10_000, 1_000_000 if rng.random() < 0.1 else 2])
    cells = rng.choice([[b"1"] * width, [b"v%d" % n for n in range(width)], [b""] * width])
    line = mark.join(cells)
    content[:] = rng.choice([line, b"time" + mark + line, line + b"\n" + line, content + b"\n" + line])


def _times(rng: random.Random, content: bytearray) -> None:
    steps = rng.choice(
        [[0.016], [0.016, 80_000.0], [1e-9, 0.5], [5e-324, 0.016], [0.0], [-0.016, 0.016], [1e300], [0.3]]
    )
    now, lines = rng.choice([0.0, 0.0, 1000.0, 86_399.0, -1.0, 1e18]), []
    for _ in range(rng.choice([1, 2, 5, 200])):
        lines.append(f"{now!r},{rng.choice(NUMBERS + ['440'] * 200)}")
        now += rng.choice(steps)
    content[:] = "\n".join(lines).encode()


def _encoding(rng: random.Random, content: bytearray) -> None:
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp037", "utf-8-sig"])
    content[:] = content.decode("utf-8", "replace").encode(encoding, "replace")


TABLE = (*ANY, _cells, _cells, _cells, _rows, _rows, _columns, _times, _times, _encoding)


# Mutations of MIDI


def _variable(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def _header(rng: random.Random, content: bytearray) -> None:
    tracks = rng.choice([0, 1, 2, 1000, 32767, 65535])
    division = rng.choice([0, 1, 96, 0x7FFF, 0x8000, 0xE728, 0xFFFF])
    content[8:14] = struct.pack(">HHH", rng.choice([0, 1, 2, 3, 65535]), tracks, division)


def _events(rng: random.Random, content: bytearray) -> None:
    events = b"".join(
        _variable(rng.choice([0, 1, 96, 2**28 - 1, 2**28, 2**63, 2**3000, 2**9000]))
        + rng.choice(
            [
                *(
                    b"\x90\x3c\x40",
                    b"\x80\x3c\x40",
                    b"\x3c\x40",
                    b"\x3c\x00",
                    b"\x99\x24\x40",
                    b"\xf0\x03abc",
                    b"\xf7\x00",
                ),
                *(b"\xff\x51\x03\x00\x00\x00", b"\xff\x51\x03\xff\xff\xff", b"\xff\x2f\x00", b"\xff\x03\x02\n\x00"),
                *(
                    b"\xff\x51\x00",
                    b"\xff\x51\x7f" + bytes(127),
                    b"\xff\x03\xff\xff\xff\x7f",
                    b"\xf8",
                    b"\xc0\x05",
                    b"\xe0\x00\x40",
                ),
                *(b"\xff\x03\x82\x00" + b"x" * 256, b"\x90\x7f\x7f", b"\x90\x00\x01", b"\xff\x59\x02\x63\x63"),
            ]
        )
        for _ in range(rng.choice([1, 3, 10, 300]))
    )
    tracks = rng.choice([1, 1, 2, 17, 3000 if rng.random() < 0.1 else 16])
    chunk = b"MTrk" + struct.pack(">L", len(events) + rng.choice([0, 0, 0, 0, 1, -1])) + events
    content[:] = (
        b"MThd\0\0\0\6" + struct.pack(">HHH", rng.choice([0, 1, 2]), tracks, rng.choice([1, 96, 480])) + chunk * tracks
    )


MIDI = (*ANY, _header, _header, _events, _events, _events)


def make_case(seed: int, index: int, readers: tuple[str, ...] = READERS) -> tuple[str, Case]:
    """Return which reader is tried in a case, and the files that it reads."""
    rng = random.Random(f"{seed}:{index}")
    reader = rng.choice(readers)
    number = rng.choice([1, 2, 4, 17, 40]) if reader == "folder" else 1
    files: Case = {}
    for n in range(number):
        content = bytearray(midi(rng) if reader == "midi" else table(rng))
        for _ in range(rng.choice([0, 1, 1, 2, 5]) if number == 1 or n == 0 else rng.choice([0, 0, 0, 0, 1])):
            if 0 < len(content) < LARGEST:
                rng.choice(MIDI if reader == "midi" else TABLE)(rng, content)
        name = (NAMES[n] if n < len(NAMES) else f"voice{n}") if reader == "folder" else "song"
        files[f"{name}.{'mid' if reader == 'midi' else 'csv'}"] = bytes(content)
    return reader, files


# What must hold


def read(reader: str, folder: Path, files: Case, names: tuple[str, ...] | None = None) -> str:
    """Read the files of a case and return "tracks" or "refused"; raise AssertionError if what came of it is wrong."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder if reader == "folder" else folder / next(iter(files))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            tracks = F0Tracks.from_midi(path, names) if reader == "midi" else F0Tracks.from_csv(path, names)
        except F0Error as error:
            assert str(error).isprintable(), f"more than one line: {error!s}"
            assert len(str(error)) < 700, f"{len(str(error))} characters: {str(error)[:200]}"
            return "refused"
    f0 = tracks.frequencies
    assert f0.shape[0] == len(tracks.names) <= 16, f0.shape
    assert np.isfinite(f0).all(), "not finite"
    assert f0.min() >= 0, f0.min()
    assert f0.max() <= 8000, f0.max()
    assert 0 < tracks.hop <= 1, tracks.hop
    return "tracks"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise TimeoutError in what takes too long, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def limit_memory() -> None:
    """Let no case take more than `MEMORY`, where the system can see to that."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def attempt(seed: int, index: int, readers: tuple[str, ...]) -> tuple[str, str, str]:
    """Run a case; return its reader, "tracks", "refused" or "FAILED", and what went wrong."""
    reader, files = make_case(seed, index, readers)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with bounded():
                outcome, wrong = read(reader, Path(folder), files), ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome, wrong = "FAILED", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    took = time.process_time() - started
    if took > SLOW:
        wrong = f"{wrong} slow: {took:.1f} s, {sum(map(len, files.values()))} bytes".strip()
    return reader, outcome, wrong


def run(seconds: float, seed: int, readers: tuple[str, ...], show: Callable[[str], object] = print) -> bool:
    """Try cases for so many seconds, print what came of them, and return whether all ended well."""
    counts: Counter[tuple[str, str]] = Counter()
    slowest, started, index = (0.0, 0), time.monotonic(), 0
    while time.monotonic() - started < seconds:
        began = time.process_time()
        reader, outcome, wrong = attempt(seed, index, readers)
        slowest = max(slowest, (time.process_time() - began, index))
        counts[reader, outcome] += 1
        if wrong:
            show(f"case {index} ({reader}): {wrong[:300]}")
        index += 1
    for (reader, outcome), number in sorted(counts.items()):
        show(f"{reader:7} {outcome:8} {number:8}")
    spent = time.monotonic() - started
    show(f"{index} cases of seed {seed} in {spent:.0f} s; slowest: {slowest[0]:.2f} s of CPU (case {slowest[1]})")
    return not any(outcome == "FAILED" for _, outcome in counts)


def run_atheris(seconds: float, seed: int, readers: tuple[str, ...]) -> None:
    """Let libFuzzer look for inputs that reach code which no other did; it ends the process."""
    import atheris

    with atheris.instrument_imports(
        include=["mido", "csv", "vocalsep.f0.midi", "vocalsep.f0.csv", "vocalsep.f0.tracks"]
    ):
        for name in [name for name in sys.modules if name.startswith(("mido", "vocalsep."))]:
            del sys.modules[name]
        import mido.midifiles  # noqa: F401 (here, to be instrumented)

        import vocalsep.errors
        import vocalsep.f0.midi
        import vocalsep.f0.tracks
    global F0Error, F0Tracks
    F0Error, F0Tracks = vocalsep.errors.F0Error, vocalsep.f0.tracks.F0Tracks
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for index in range(200):
        _, files = make_case(seed, index, readers)
        (corpus / str(index)).write_bytes(next(iter(files.values()))[:4096])

    def one(content: bytes) -> None:
        for reader in readers:
            read(reader, folder, {"song.mid" if reader == "midi" else "song.csv": content})

    limits = [f"-max_total_time={seconds:.0f}", f"-seed={seed + 1}", f"-timeout={SECONDS}", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """Do what the command line says; the exit code is 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long to try")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--case", type=int, help="only this case of the seed, and what it is")
    parser.add_argument("--reader", choices=READERS, action="append", help="only this reader (may be given again)")
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the mutations")
    options = parser.parse_args()
    readers = tuple(options.reader or READERS)
    if options.atheris:
        run_atheris(options.seconds, options.seed, tuple(reader for reader in readers if reader != "folder"))
    limit_memory()
    if options.case is not None:
        for name, content in make_case(options.seed, options.case, readers)[1].items():
            print(f"{name}: {len(content)} bytes: {content[:300]!r}")
        print(*attempt(options.seed, options.case, readers))
        return 0
    return 0 if run(options.seconds, options.seed, readers) else 1


if __name__ == "__main__":
    sys.exit(main())
