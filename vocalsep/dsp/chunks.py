"""The one way to walk a long signal chunk by chunk, each chunk with its context.

A long recording never goes through a computation at once: it is cut into chunks, and each chunk is computed together
with as many frames before and after it (its context) as the result depends on. So memory stays bounded, and a chunk
gives what the whole would give.

`chunks` walks something that can be read anywhere (a `Downmix`, an array), `with_context` a stream of parts that come
one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Chunk(NamedTuple):
    """Frames first ... last - 1 of a signal, and low ... high - 1 with their context."""

    first: int
    last: int
    low: int
    high: int

    @classmethod
    def of(cls, first: int, last: int, n: int, context: int) -> Chunk:
        """Return frames first ... last - 1 of a signal of `n` frames with up to `context` frames on both sides."""
        return cls(first, last, max(0, first - context), min(n, last + context))

    @property
    def inner(self) -> slice:
        """The chunk itself within the frames low ... high - 1."""
        return slice(self.first - self.low, self.last - self.low)


def chunks(n: int, size: int, context: int = 0) -> Iterator[Chunk]:
    """Yield a signal of `n` frames in chunks of `size` frames with up to `context` frames on both sides.

    Examples
    --------
    >>> for chunk in chunks(5, 2, 1):
    ...     print(*chunk, chunk.inner)
    0 2 0 3 slice(0, 2, None)
    2 4 1 5 slice(1, 3, None)
    4 5 3 5 slice(1, 2, None)
    """
    for first in range(0, n, size):
        yield Chunk.of(first, min(first + size, n), n, context)


def with_context(parts: Iterable[T], size: int, context: int) -> Iterator[tuple[list[T], list[T], list[T]]]:
    """Yield a stream of parts in groups of `size` parts, each with up to `context` parts before and after it.

    The last group may have fewer parts. The context is at most `size`.

    Examples
    --------
    >>> list(with_context("abcde", 2, 1))
    [([], ['a', 'b'], ['c']), (['b'], ['c', 'd'], ['e']), (['d'], ['e'], [])]
    """
    stream = iter(parts)
    before: list[T] = []
    held = list(islice(stream, size + context))
    while held:
        own, held = held[:size], held[size:]
        yield before, own, held[:context]
        before = own[size - context :]
        held += islice(stream, size)
