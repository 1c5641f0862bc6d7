"""Slots: 64 KiB segments of page data in one file, with one mark per page in another.

A mark tells the last act on a page: 0 = never touched, 2 * epoch = cleared, 2 * epoch + 1 = written.
Marks travel with their slot when it is copied on write, so a frozen version keeps its own history.
How many maps use a slot is not stored: the maps say it, and it is counted again at every start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE = 512
SEGMENT = 64 * 1024
PAGES_PER_SEGMENT = SEGMENT // PAGE
_SMALLEST_CAPACITY = 1024
_MARKS_BYTES = PAGES_PER_SEGMENT * 4

Slots = NDArray[np.int64]
Marks = NDArray[np.uint32]


class SlotPool:
    """Segments of data by slot number, from 1; not thread-safe, the page store locks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._marks_path = folder / "marks"
        self._data = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o600)
        with self._marks_path.open("ab") as marks:
            stored = marks.tell() // _MARKS_BYTES
        self._owners = np.zeros(0, np.int32)
        self._free: list[int] = []
        self.marks: Marks = np.zeros((0, PAGES_PER_SEGMENT), np.uint32)
        self._map_marks(max(stored, _SMALLEST_CAPACITY))

    def retain(self, slots: Slots) -> None:
        """One more map uses each of these slots; no slot appears twice in one map."""
        self._owners[slots] += 1

    def release(self, slots: Slots) -> None:
        """One map fewer uses each of these slots; those that nobody uses may be taken again."""
        self._owners[slots] -= 1
        self._free.extend(slots[self._owners[slots] == 0].tolist())

    def find_free(self) -> None:
        """Call once after every stored map has been retained: whatever nobody holds is free."""
        self._free = np.flatnonzero(self._owners[1:] == 0)[::-1].tolist()
        self._free = [slot + 1 for slot in self._free]

    def take(self) -> int:
        """A free slot with unspecified content, retained once."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._owners[slot] = 1
        return slot

    def is_shared(self, slot: int) -> bool:
        return bool(self._owners[slot] > 1)

    def write(self, slot: int, start: int, data: bytes | bytearray | memoryview) -> None:
        os.pwrite(self._data, data, slot * SEGMENT + start)

    def read(self, slot: int, start: int, length: int) -> bytes:
        """Bytes from `start` of a slot on; they may run into the slots that follow it."""
        return os.pread(self._data, length, slot * SEGMENT + start)

    def read_into(self, slot: int, start: int, target: memoryview) -> None:
        os.preadv(self._data, [target], slot * SEGMENT + start)

    def close(self) -> None:
        os.close(self._data)
        self.marks = np.zeros((0, PAGES_PER_SEGMENT), np.uint32)

    def _grow(self) -> None:
        before = len(self._owners)
        self._map_marks(2 * before)
        self._free = list(range(len(self._owners) - 1, before - 1, -1))

    def _map_marks(self, capacity: int) -> None:
        os.truncate(self._marks_path, capacity * _MARKS_BYTES)
        # Shared mapping: what is stored here survives the death of the process.
        self.marks = np.memmap(self._marks_path, np.uint32, "r+", shape=(capacity, PAGES_PER_SEGMENT))
        self._owners = np.concatenate([self._owners, np.zeros(capacity - len(self._owners), np.int32)])


def as_slots(numbers: Iterable[int]) -> Slots:
    """Slot numbers as the array that the pool takes."""
    return np.fromiter(numbers, np.int64)
