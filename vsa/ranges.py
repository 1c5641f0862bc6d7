"""Half-open byte ranges of a disk, and the arithmetic between ranges and extents.

Pure functions: no I/O, no Azure. Azure's own inclusive page ranges exist only in `vsa.azure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class ByteRange(NamedTuple):
    """Bytes [offset, end) of a disk."""

    offset: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.offset


def merge(ranges: Iterable[ByteRange]) -> Iterator[ByteRange]:
    """The same bytes as ordered ranges that neither touch nor overlap; empty ranges vanish."""
    current: ByteRange | None = None
    for item in sorted(item for item in ranges if item.length > 0):
        if current is None:
            current = item
        elif item.offset <= current.end:
            current = ByteRange(current.offset, max(current.end, item.end))
        else:
            yield current
            current = item
    if current is not None:
        yield current


def clip(ranges: Iterable[ByteRange], window: ByteRange) -> Iterator[ByteRange]:
    """The parts of the ranges that lie inside `window`."""
    for item in ranges:
        offset, end = max(item.offset, window.offset), min(item.end, window.end)
        if offset < end:
            yield ByteRange(offset, end)


def total(ranges: Iterable[ByteRange]) -> int:
    """Number of bytes in ranges that do not overlap."""
    return sum(item.length for item in ranges)
