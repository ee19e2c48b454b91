"""Chunks with context cover a signal exactly, from arrays and from streams."""

import pytest

from vocalsep.dsp.chunks import chunks, with_context

SIZES = [(n, size, context) for n in (1, 5, 12, 13) for size in (1, 4, 20) for context in (0, 1, 3) if context <= size]


@pytest.mark.parametrize(("n", "size", "context"), SIZES)
def test_chunks_cover_the_signal_and_have_their_context(n, size, context):
    signal, found = list(range(n)), []
    for chunk in chunks(n, size, context):
        assert 0 < chunk.last - chunk.first <= size
        assert (chunk.low, chunk.high) == (max(0, chunk.first - context), min(n, chunk.last + context))
        found += signal[chunk.low : chunk.high][chunk.inner]
    assert found == signal


@pytest.mark.parametrize(("n", "size", "context"), SIZES)
def test_streams_are_cut_like_arrays(n, size, context):
    groups = list(with_context(iter(range(n)), size, context))
    for chunk, (before, own, after) in zip(chunks(n, size, context), groups, strict=True):
        assert own == list(range(chunk.first, chunk.last))
        assert before == list(range(chunk.low, chunk.first))
        assert after == list(range(chunk.last, chunk.high))


def test_an_empty_signal_has_no_chunks():
    assert list(chunks(0, 4, 1)) == list(with_context([], 4, 1)) == []


def test_streams_are_read_no_further_than_needed():
    read = []

    def parts():
        for part in range(100):
            read.append(part)
            yield part

    next(with_context(parts(), 4, 2))
    assert read == list(range(6))
