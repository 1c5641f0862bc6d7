"""Which extents of a disk must be read: byte ranges turned into marks, marks into reads.

A disk is handled in segments of SEGMENT extents. A segment in which nothing is marked does not
exist here and costs nothing; the marks of all others are packed but for a few that are at hand. So the plan
of a large disk is small: some 30 bytes for a segment with a few changes, 16 KiB for one whose every extent
is another throw of the dice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import zstandard

from vsa.media.layout import SEGMENT
from vsa.memory import LONGEST_READ
from vsa.ranges import ByteRange

READ = 1
CLEARED = 2

Marks = npt.NDArray[np.uint8]

_AT_HAND = 16
"""Segments whose marks are not packed. A plan is made, and read, nearly from the start to the end."""


class _SegmentMarks:
    """The marks of each segment that has any, packed but for those used last; for many threads."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}
        self._at_hand: OrderedDict[int, Marks] = OrderedDict()
        self._pack = zstandard.ZstdCompressor(level=1)
        self._unpack = zstandard.ZstdDecompressor()
        self._lock = threading.Lock()

    @property
    def segments(self) -> list[int]:
        with self._lock:
            return sorted(self._packed.keys() | self._at_hand.keys())

    def get(self, segment: int) -> Marks | None:
        with self._lock:
            return self._found(segment)

    def change(self, segment: int, length: int) -> Marks:
        """The same, to be changed before anything else is asked for; none are `length` zeros."""
        with self._lock:
            found = self._found(segment)
            marks = np.zeros(length, np.uint8) if found is None else found
            if not marks.flags.writeable:
                marks = marks.copy()
            self._packed.pop(segment, None)
            self._keep(segment, marks)
            return marks

    def _found(self, segment: int) -> Marks | None:
        marks = self._at_hand.get(segment)
        if marks is None and (packed := self._packed.get(segment)) is not None:
            marks = np.frombuffer(self._unpack.decompress(packed), np.uint8)
        if marks is not None:
            self._keep(segment, marks)
        return marks

    def _keep(self, segment: int, marks: Marks) -> None:
        self._at_hand[segment] = marks
        self._at_hand.move_to_end(segment)
        if len(self._at_hand) > _AT_HAND:
            oldest, marks = self._at_hand.popitem(last=False)
            if oldest not in self._packed:
                # A copy: what zstandard gives keeps the memory that the worst case would have taken.
                self._packed[oldest] = bytes(memoryview(self._pack.compress(marks.data)))


class ReadPlan:
    """For every extent of a disk: to be read, known to be zeros now, or standing as before (0)."""

    def __init__(self, disk_size: int, extent_size: int) -> None:
        self.disk_size = disk_size
        self.extent_size = extent_size
        self._marks = _SegmentMarks()
        self._cleared = ByteRange(0, 0)
        self._read = ByteRange(0, 0)
        """Extents, all of them marked to be read."""

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
        # Small writes come many to an extent, and to mark one takes as long as to read of it in a list.
        marked = self._read
        if first < marked.offset or last > marked.end:
            self._mark(first, last, READ)
            self._read = ByteRange(first, last)

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
            marks = self._marks.change(segment, self.segment_length(segment))
            window = marks[max(first - base, 0) : max(last - base, 0)]
            # READ wins over CLEARED: an extent of which a part was written must be read.
            if mark == READ:
                window[:] = READ
            else:
                window[window != READ] = CLEARED

    def marked(self, mark: int) -> int:
        """Number of extents that carry the mark."""
        found = (self.marks(segment) for segment in self._marks.segments)
        return sum(int(np.count_nonzero(marks == mark)) for marks in found if marks is not None)

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
