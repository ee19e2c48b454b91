"""Safetensors files that are not what they say: refused in words, before anything of them is used."""

import json
import math
import os
import random
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.model.estimator import read_estimator
from vocalsep.weights import reading as checkpoint_files
from vocalsep.weights.reading import parse, read_bytes, read_json

CHECKPOINTS = Path(weights.__file__).parent.parent / "checkpoints"


def tensor(begin: Any, end: Any, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def built(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file of a header, as a table or as bytes, and data; the header may lie about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


GOOD = {"a": tensor(0, 8), "b.c": tensor(8, 12)}
FLOATS = bytes(12)

HOSTILE = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "a header of all memory": built(b"{}", length=2**64 - 1),
    "a header beyond the file": built(GOOD, FLOATS, length=10_000),
    "a huge header": built(b'{"a":' + b" " * checkpoint_files.MAX_HEADER + b"1}"),
    "a header that is no JSON": built(b"{'a': 1}"),
    "a header that is no UTF-8": built(b'{"\xff": 1}'),
    "a header that is a list": built([GOOD], FLOATS),
    "a header that is a number": built(b"12345678"),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "a zip": b"PK\x03\x04" + bytes(100),
    "tables in tables": built(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "lists in lists": built(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "brackets hidden in texts": built(b'{"a":' + b'["]",' * 5000 + b"1" + b"]" * 5000 + b"}"),
    "a number of a million digits": built(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 1_000_000 + b"]}}"),
    "NaN as an offset": built(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [NaN, 8]}}', FLOATS),
    "a name twice": built(b'{"a": %b, "a": %b}' % ((json.dumps(tensor(0, 12)).encode(),) * 2), FLOATS),
    "metadata that are a list": built({"__metadata__": [], **GOOD}, FLOATS),
    "metadata that are numbers": built({"__metadata__": {"config": 1}, **GOOD}, FLOATS),
    "no tensors": built({"__metadata__": {"config": "{}"}}),
    "too many tensors": built({f"t{i}": tensor(4 * i, 4 * i + 4) for i in range(5000)}, bytes(20_000)),
    "overlap": built({"a": tensor(0, 8), "b": tensor(4, 12)}, FLOATS),
    "the same place": built({"a": tensor(0, 12), "b": tensor(0, 12)}, FLOATS),
    "a gap": built({"a": tensor(0, 4), "b": tensor(8, 12)}, FLOATS),
    "a beginning that is not first": built({"a": tensor(4, 12)}, FLOATS),
    "bytes behind the end": built(GOOD, FLOATS + b"\0"),
    "fewer bytes than said": built(GOOD, FLOATS[:-1]),
    "an end beyond everything": built({"a": tensor(0, 2**62, shape=[2**60])}, FLOATS),
    "an end before the beginning": built({"a": tensor(8, 0, shape=[2])}, FLOATS),
    "a negative beginning": built({"a": tensor(-4, 8, shape=[3])}, FLOATS),
    "a shape of more": built({"a": tensor(0, 12, shape=[4])}, FLOATS),
    "a shape beyond 64 bits": built({"a": tensor(0, 12, shape=[2**40, 2**40])}, FLOATS),
    "a shape that wraps round to its size": built({"a": tensor(0, 12, shape=[3 + 2**62])}, FLOATS),
    "a shape of nothing": built({"a": tensor(0, 12, shape=[0, 2**63])}, FLOATS),
    "a negative shape": built({"a": tensor(0, 12, shape=[-1, -3])}, FLOATS),
    "a shape of nine axes": built({"a": tensor(0, 12, shape=[3, *[1] * 8])}, FLOATS),
    "a shape of booleans": built({"a": tensor(0, 4, shape=[True])}, FLOATS[:4]),
    "a shape of fractions": built({"a": tensor(0, 12, shape=[3.0])}, FLOATS),
    "a shape that is a text": built({"a": tensor(0, 12, shape="3")}, FLOATS),
    "offsets that are three": built({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4, 12]}}, FLOATS),
    "offsets that are texts": built({"a": {"dtype": "F32", "shape": [3], "data_offsets": ["0", "12"]}}, FLOATS),
    "a dtype of double precision": built({"a": tensor(0, 8, "F64", [1])}, FLOATS[:8]),
    "a dtype of bytes": built({"a": tensor(0, 12, "U8", [12])}, FLOATS),
    "a dtype of nobody": built({"a": tensor(0, 12, "os.system", [12])}, FLOATS),
    "a dtype that is a list": built({"a": tensor(0, 12, ["F32"], [3])}, FLOATS),
    "whole numbers as weights": built({"head.weight": tensor(0, 8, "I64", [1])}, FLOATS[:8]),
    "more keys than there are": built({"a": {**tensor(0, 12), "class": "os.system"}}, FLOATS),
    "too few keys": built({"a": {"dtype": "F32", "shape": [3]}}, FLOATS),
    "a tensor that is a list": built({"a": [0, 12]}, FLOATS),
    **{
        f"a name like {name[:20]!r}": built({name: tensor(0, 12)}, FLOATS)
        for name in (
            "../../etc/passwd",
            "/etc/passwd",
            "..\\x",
            "C:x",
            "a/b",
            "",
            ".",
            "a..b",
            "a\0b",
            "ä",
            "__class__ ",
            "a" * 300,
        )
    },
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in HOSTILE.items()])
def test_hostile_files_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    parse(built(GOOD, FLOATS), "warmed up")
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(WeightsError, match=r"x\.safetensors: cannot be read as safetensors \(.*; expected a check"):
            weights.load(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(tmp_path, dtype, value):
    tensors = {"good": torch.ones(3), "bad": torch.tensor([0, value], dtype=dtype)}
    content = safetensors.torch.save(tensors, metadata={"config": "{}"})
    with pytest.raises(WeightsError, match="bad holds values that are NaN or infinite"):
        parse(content, "x")


def test_what_the_library_writes_is_read_back():
    tensors = {
        "w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "h": torch.tensor([[0.1, -65504.0]]).half(),
        "b": torch.tensor([1e30]).bfloat16(),
        "norm.num_batches_tracked": torch.tensor(2**40),
        "scalar": torch.tensor(2.5),
    }
    contents = parse(safetensors.torch.save(tensors, metadata={"config": "{}", "note": "ü"}), "x")
    assert contents.metadata == {"config": "{}", "note": "ü"}
    assert contents.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert contents.tensors[name].dtype == tensor.dtype
        assert torch.equal(contents.tensors[name], tensor)


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_bundled_files_are_read_as_the_library_reads_them(path):
    content = path.read_bytes()
    expected = safetensors.torch.load(content)
    found = parse(content, path).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def damaged(content: bytes, header: int, rng: random.Random) -> bytes:
    """Return a file with bits flipped, and bytes cut, doubled or exchanged, mostly in its header."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(rng.choice([8, header, header, len(content)]))
        kind = rng.randrange(4)
        if kind == 0:
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[place : place + rng.randrange(1, 20)] = b""
        elif kind == 2:
            result[place:place] = result[place : place + rng.randrange(1, 20)]
        else:
            result[place] = rng.choice(b'{}[]",:0123456789-eE.\\ ')
    return bytes(result)


def test_damaged_files_are_refused_or_make_a_network(tiny_model, tmp_path):
    content = tiny_model.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path, rng, refused = tmp_path / "x.safetensors", random.Random(0), 0
    for _ in range(300):
        path.write_bytes(damaged(content, header, rng))
        try:
            read_estimator(str(path))
        except WeightsError:
            refused += 1
    assert 150 < refused < 300  # a flipped bit in the weights themselves is another weight


class TestReading:
    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "real").write_bytes(b"content")
        try:
            (tmp_path / "link").symlink_to(tmp_path / "real")
        except OSError:
            pytest.skip("links cannot be made here")
        assert read_bytes(tmp_path / "link") == b"content"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in this file system")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "x.safetensors")
        raised: list[str] = []

        def load() -> None:
            with pytest.raises(WeightsError) as caught:
                weights.load(tmp_path / "x.safetensors")
            raised.append(str(caught.value))

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        thread.join(20)
        assert raised == [f"{tmp_path / 'x.safetensors'}: is no regular file; expected a .safetensors checkpoint"]

    def test_what_is_no_file(self, tmp_path):
        (tmp_path / "folder.safetensors").mkdir()
        for path in [tmp_path / "folder.safetensors", *filter(Path.exists, [Path("/dev/zero"), Path("/dev/null")])]:
            with pytest.raises(WeightsError, match="is no regular file"):
                read_bytes(path)
        for path in (tmp_path / "none.safetensors", tmp_path / "folder.safetensors" / "none.safetensors"):
            with pytest.raises(WeightsError, match="no such file; expected a checkpoint"):
                read_bytes(path)

    @pytest.mark.parametrize("name", ["a\0b.safetensors", "x" * 5000 + ".safetensors", "\udcff\ud800.safetensors"])
    def test_paths_that_are_none(self, name):
        with pytest.raises(WeightsError, match=r"expected a \.safetensors checkpoint"):
            weights.load(name)

    def test_a_file_without_end(self, tmp_path):
        with (tmp_path / "x.safetensors").open("wb") as stream:
            stream.truncate(1 << 40)
        with pytest.raises(WeightsError, match=r"has 1099511627776 bytes; expected .* of 536870912 at most"):
            weights.load(tmp_path / "x.safetensors")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
    def test_a_file_of_somebody_else(self, tmp_path):
        (tmp_path / "x.safetensors").write_bytes(b"")
        (tmp_path / "x.safetensors").chmod(0)
        with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\)"):
            weights.load(tmp_path / "x.safetensors")


class TestJson:
    def test_what_is_right(self):
        assert read_json('{"a": [1, {"b": null}], "c": "[[[["}') == {"a": [1, {"b": None}], "c": "[[[["}
        assert read_json("[" * 16 + "]" * 16) == json.loads("[" * 16 + "]" * 16)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[" * 17 + "]" * 17, "nested more than 16 deep"),
            ('{"a": 1, "a": 2}', "gives a key twice"),
            ("9" * 21, "a number of 21 digits"),
            ("1" * (1 << 20) + "1", "has 1048577 characters"),
            ("", "Expecting value"),
        ],
    )
    def test_what_is_not(self, text, message):
        with pytest.raises(ValueError, match=message):
            read_json(text)
