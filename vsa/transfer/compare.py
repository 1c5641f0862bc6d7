"""Comparing what is read with what the media holds, and storing what differs."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import islice

import numpy as np

from vsa.errors import VsaError
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.disk_writer import DiskWriter, WrittenDisk
from vsa.media.layout import SEGMENT
from vsa.memory import LONGEST_READ
from vsa.progress import Progress
from vsa.ranges import ByteRange
from vsa.transfer.healing import Healing
from vsa.transfer.pump import Pump
from vsa.transfer.reads import CLEARED, READ, ReadPlan, reads_of


class AuditMismatch(VsaError):
    """An extent that should not have changed has; the change list cannot be trusted."""


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero. The first and last byte spare most extents the full look.

    `memoryview == bytes` would compare element by element, four times slower than this.
    """
    if data[0] or data[-1]:
        return False
    return not np.frombuffer(data, np.uint64).any()


class Comparison:
    """One disk being compared and stored, segment by segment; its figures are bytes.

    `unplanned_is_zero`: extents that the plan does not mark are zeros now (full and CRC); otherwise they
    stand as the parent has them (CBT).
    """

    def __init__(
        self,
        plan: ReadPlan,
        *,
        unplanned_is_zero: bool,
        parent: DiskIndex | None,
        writer: DiskWriter,
        progress: Progress,
        healing: Healing | None = None,
        longest_read: int = LONGEST_READ,
    ) -> None:
        self._plan = plan
        self._longest_read = longest_read
        self._healing = healing or Healing(None, {})
        self._unplanned_is_zero = unplanned_is_zero
        self._parent = parent
        self._writer = writer
        self._progress = progress
        self._lock = threading.Lock()
        self.read = 0
        self.new = 0
        self.audited = 0

    def segment(self, segment: int, audited: Iterable[int], pump: Pump) -> None:
        """Handle one segment to its end: read what the plan marks, audit, clear, and flush its index rows."""
        marks = self._plan.marks(segment)
        parent = self._parent.segment(segment) if self._parent else None
        wanted = np.flatnonzero(marks == READ).tolist() if marks is not None else []
        damaged = {at for at in self._healing.positions(parent) if not self.expects_zero(segment, at)}
        damaged |= self._healing.positions(parent).intersection(wanted)
        # What is read for its damage alone should not have changed: that is an audit, too.
        audited = sorted(damaged.difference(wanted).union(audited))
        work = _Segment(self, segment, parent, frozenset(audited), damaged=frozenset(damaged))
        if wanted or audited:
            positions = sorted([*wanted, *audited])
            reads = reads_of(self._plan, segment, positions, longest=self._longest_read)
            if self._parent is None:
                # A clone is known by its first extents: those beside them would be stored before they are.
                pump.run(islice(reads, 1), work.handle)
            pump.run(reads, work.handle)
        for position in self._to_clear(segment, parent):
            self._writer.clear(segment * SEGMENT + position)
            self.count(new=self._plan.extent_range(segment * SEGMENT + position).length)
        self._writer.end_segment(segment)

    def _to_clear(self, segment: int, parent: SegmentTable | None) -> list[int]:
        """Extents that hold zeros now without having been read, and data in the parent."""
        if parent is None:
            return []
        marks = self._plan.marks(segment)
        held = parent.pack >= 0
        if self._unplanned_is_zero:
            unread = held if marks is None else held & (marks != READ)
        elif marks is None:
            return []
        else:
            unread = held & (marks == CLEARED)
        return np.flatnonzero(unread).tolist()

    def expects_zero(self, segment: int, position: int) -> bool:
        """Whether an extent that the plan does not read must hold zeros."""
        marks = self._plan.marks(segment)
        return self._unplanned_is_zero or (marks is not None and bool(marks[position] == CLEARED))

    def fingerprint(self, data: memoryview) -> tuple[int, bytes]:
        """CRC and digest as the media has them."""
        return self._writer.fingerprint(data)

    def store(self, extent: int, data: memoryview, crc: int, digest: bytes) -> None:
        self._writer.put(extent, data, crc, digest)
        self.count(new=len(data))

    def store_again(self, extent: int, data: memoryview, found: tuple[int, bytes], was: SegmentTable) -> None:
        """Store what the parent has already, but in a frame that is damaged."""
        self._writer.put(extent, data, *found)
        self._healing.stored_again(was, extent - was.first_extent, len(data))

    def clear(self, extent: int, length: int) -> None:
        self._writer.clear(extent)
        self.count(new=length)

    def count(self, *, read: int = 0, new: int = 0, audited: int = 0) -> None:
        with self._lock:
            self.read += read
            self.new += new
            self.audited += audited
        if read:
            self._progress.advanced(read)

    @property
    def extent_size(self) -> int:
        return self._plan.extent_size

    def finish(self) -> WrittenDisk:
        return self._writer.finish()

    def abandon(self) -> None:
        self._writer.abandon()


class _Segment:
    """The extents of one segment as they arrive, from several threads."""

    def __init__(
        self,
        comparison: Comparison,
        segment: int,
        parent: SegmentTable | None,
        audited: frozenset[int],
        *,
        damaged: frozenset[int],
    ) -> None:
        self._comparison = comparison
        self._damaged = damaged
        self._segment = segment
        self._parent = parent
        self._audited = audited

    def handle(self, at: ByteRange, data: memoryview) -> None:
        size = self._comparison.extent_size
        first = at.offset // size - self._segment * SEGMENT
        audited = 0
        for index, start in enumerate(range(0, len(data), size)):
            extent = data[start : start + size]
            if first + index in self._audited:
                self._audit(first + index, extent)
                audited += len(extent)
            if first + index not in self._audited or first + index in self._damaged:
                self._compare(first + index, extent)
        self._comparison.count(read=len(data), audited=audited)

    def _compare(self, position: int, data: memoryview) -> None:
        extent = self._segment * SEGMENT + position
        if is_zero(data):
            if self._parent is not None and self._parent.pack[position] >= 0:
                self._comparison.clear(extent, len(data))
            return
        crc, digest = self._comparison.fingerprint(data)
        if not self._holds(position, data, (crc, digest)):
            self._comparison.store(extent, data, crc, digest)
        elif position in self._damaged and self._parent is not None:
            self._comparison.store_again(extent, data, (crc, digest), self._parent)

    def _audit(self, position: int, data: memoryview) -> None:
        zero = is_zero(data)
        if self._comparison.expects_zero(self._segment, position) or self._is_zero_in_parent(position):
            same = zero
        else:
            same = not zero and self._holds(position, data, self._comparison.fingerprint(data))
        if not same:
            raise AuditMismatch(
                f"extent {self._segment * SEGMENT + position} was reported unchanged and is not"
            )

    def _is_zero_in_parent(self, position: int) -> bool:
        return self._parent is None or bool(self._parent.pack[position] < 0)

    def _holds(self, position: int, data: memoryview, found: tuple[int, bytes]) -> bool:
        """Whether the parent has these very bytes. A CRC alone misses one change in 2^32: both must agree."""
        parent = self._parent
        if parent is None or parent.pack[position] < 0:
            return False
        stored = int(parent.size[position])
        if stored < len(data):
            # The disk's last extent was stored short and the disk has grown: behind it there are zeros.
            if not is_zero(data[stored:]):
                return False
            found = self._comparison.fingerprint(data[:stored])
        return found == (int(parent.crc[position]), parent.digest[position].tobytes())
