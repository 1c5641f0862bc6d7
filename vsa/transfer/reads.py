"""Which extents of a disk must be read: byte ranges turned into marks, marks into reads.

A disk is handled in segments of SEGMENT extents. A segment in which nothing is marked does not
exist here and costs nothing, so the plan of a mostly empty disk of many TiB is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vsa.media.layout import SEGMENT
from vsa.memory import LONGEST_READ
from vsa.ranges import ByteRange

READ = 1
CLEARED = 2

Marks = npt.NDArray[np.uint8]


class ReadPlan:
    """For every extent of a disk: to be read, known to be zeros now, or standing as before (0)."""

    def __init__(self, disk_size: int, extent_size: int) -> None:
        self.disk_size = disk_size
        self.extent_size = extent_size
        self._marks: dict[int, Marks] = {}
        self._cleared = ByteRange(0, 0)

    @property
    def extents(self) -> int:
        """Number of extents of the disk; the last may be short."""
        return -(-self.disk_size // self.extent_size)

    @property
    def whole(self) -> ByteRange:
        """The whole disk."""
        return ByteRange(0, self.disk_size)

    @property
    def segments(self) -> int:
        return -(-self.extents // SEGMENT)

    def segment_length(self, segment: int) -> int:
        """Number of extents that a segment has on this disk."""
        return min(SEGMENT, self.extents - segment * SEGMENT)

    def marks(self, segment: int) -> Marks | None:
        """The marks of a segment; None where nothing is marked."""
        return self._marks.get(segment)

    def read(self, wanted: ByteRange) -> None:
        """Read every extent that the range touches."""
        first, last = wanted.offset // self.extent_size, -(-wanted.end // self.extent_size)
        self._mark(first, last, READ)

    def clear(self, cleared: ByteRange) -> None:
        """The range holds zeros now. Extents that it covers whole need not be read, others must be.

        Ranges come in ascending order; those that touch count as one. `finish` must follow the last.
        """
        if cleared.offset == self._cleared.end:
            self._cleared = ByteRange(self._cleared.offset, cleared.end)
            return
        self.finish()
        self._cleared = cleared

    def finish(self) -> None:
        """Mark the last cleared range, which until now might still have grown."""
        offset, end = self._cleared
        self._cleared = ByteRange(end, end)
        if offset == end:
            return
        # The disk's last extent may be short: a range up to the end of the disk covers it.
        whole_end = self.extents if end == self.disk_size else end // self.extent_size
        whole_start = -(-offset // self.extent_size)
        if whole_start > offset // self.extent_size:
            self._mark(whole_start - 1, whole_start, READ)
        if whole_end < -(-end // self.extent_size):
            self._mark(whole_end, whole_end + 1, READ)
        self._mark(whole_start, whole_end, CLEARED)

    def _mark(self, first: int, last: int, mark: int) -> None:
        for segment in range(first // SEGMENT, -(-last // SEGMENT)):
            base = segment * SEGMENT
            marks = self._marks.get(segment)
            if marks is None:
                marks = self._marks[segment] = np.zeros(self.segment_length(segment), np.uint8)
            window = marks[max(first - base, 0) : max(last - base, 0)]
            # READ wins over CLEARED: an extent of which a part was written must be read.
            if mark == READ:
                window[:] = READ
            else:
                window[window != READ] = CLEARED

    def marked(self, mark: int) -> int:
        """Number of extents that carry the mark."""
        return sum(int(np.count_nonzero(marks == mark)) for marks in self._marks.values())

    def bytes_of(self, extents: int) -> int:
        """An upper bound of the bytes in so many extents: the disk's last may be short."""
        return min(extents * self.extent_size, self.disk_size)

    def extent_range(self, extent: int) -> ByteRange:
        offset = extent * self.extent_size
        return ByteRange(offset, min(offset + self.extent_size, self.disk_size))


def reads_of(
    plan: ReadPlan, segment: int, positions: Iterable[int], *, longest: int = LONGEST_READ
) -> Iterator[ByteRange]:
    """Reads of at most `longest` bytes, or of one extent, that cover exactly these extents of a segment, in
    order."""
    most = max(1, longest // plan.extent_size)
    base = segment * SEGMENT
    start = count = 0
    for position in positions:
        if count and position == start + count and count < most:
            count += 1
            continue
        if count:
            yield _bytes(plan, base + start, count)
        start, count = position, 1
    if count:
        yield _bytes(plan, base + start, count)


def _bytes(plan: ReadPlan, extent: int, count: int) -> ByteRange:
    return ByteRange(plan.extent_range(extent).offset, plan.extent_range(extent + count - 1).end)
