"""How much memory a process takes for its streams, and the buffers that they hand on to each other.

One bound, of the whole process. What its code and the SDKs take is counted as it is when the bound is set;
the rest is divided beforehand, a third for what is remembered of stored extents and the same part for each
stream, so that no stream ever waits for another one's memory. Buffers are used again, because fresh memory is
dear: each page of it is a fault in which the kernel fills it with zeros.
"""

from __future__ import annotations

import gc
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vsa.ranges import MIB

DEFAULT_BOUND = 768 * MIB
LARGEST_PACK = 64 * MIB
LEAST_PACK = 8 * MIB
SMALL_DISK_PACK = 12 * MIB
"""What a pack of a small disk grows to although there is memory for more: two of them are within 256 MiB
beside Prefect, the SDKs and six reads."""
_PACKS_OF_A_DISK = 2048
"""A larger disk gets larger packs, so that as many would hold it: each costs its point 200 bytes of index."""
LONGEST_READ = 4 * MIB
"""A request costs nothing beside it, and at 60 MiB/s it is one of fifteen in a second."""
_SHORT_READ = MIB
PACKS = 2
"""Packs of a stream in memory: one fills while one is being stored."""
WORKING = 16 * MIB
"""Threads' stacks, connections, rows of indexes and what allocators keep."""
_CACHES = 3
"""One part in so many is for what is remembered of stored extents."""
LEAST_CACHES = 8 * MIB
"""Bytes in which that is still of use: a loaded segment takes five."""
_UNKNOWN = 192 * MIB
"""What a process takes by itself where the machine does not say."""


@dataclass(frozen=True, slots=True)
class StreamMemory:
    """What one stream may hold: buffers of `read_length` bytes, and packs of `pack_target` bytes."""

    buffers: int
    read_length: int
    pack_target: int


def resident() -> int:
    """Bytes that this process has in memory now."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return _UNKNOWN
    return int(pages) * mmap.PAGESIZE


_settling = threading.Lock()


def settle() -> None:
    """Spare the garbage collector what is loaded by now; once in the life of a process.

    Each of its full rounds goes through all that Prefect and the SDKs consist of, 100,000 objects, and takes
    50 ms in which no thread runs Python: a fifth of a small incremental. What is garbage already stays.
    """
    # Held for ever by whoever comes first: freezing again would keep what other streams have let go by then.
    if _settling.acquire(blocking=False):
        gc.freeze()


class Buffers:
    """Large buffers, zeros when they are new and whatever they held when they are not; for many threads."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> memoryview:
        """A writable buffer of at least so many bytes, of which only what is touched becomes resident."""
        with self._lock:
            # Not one that is much larger: all of it may be resident.
            fitting = [number for number, free in enumerate(self._free) if size <= len(free) <= 2 * size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda number: len(self._free[number])))
            # What another disk has left would stay beside what this one needs.
            self._free.clear()
        return memoryview(mmap.mmap(-1, size))

    @property
    def free(self) -> int:
        """Bytes of buffers that nobody uses now."""
        return sum(map(len, self._free))

    def release(self) -> None:
        """Give what nobody uses now back to the machine: something else will take as much."""
        with self._lock:
            self._free.clear()

    def give_back(self, buffer: memoryview) -> None:
        """Nobody reads or writes it any more: the caller has seen to that."""
        with self._lock:
            self._free.append(buffer)


class Memory:
    """The memory of one process's streams."""

    def __init__(
        self, bound: int = DEFAULT_BOUND, *, streams: int = 1, resident: Callable[[], int] = resident
    ) -> None:
        """`bound`: bytes that the process may take altogether; `streams`: how many it carries at a time.

        A bound that leaves a stream less than it needs to work at all (LEAST_SHARE) is exceeded by that; what
        is remembered gives way first.
        """
        room = max(bound - resident() - WORKING, 0)
        self.caches = max(min(room // _CACHES, room - streams * LEAST_SHARE), LEAST_CACHES)
        """Bytes for what is remembered of stored extents."""
        self._share = max((room - self.caches) // streams, LEAST_SHARE)
        self.buffers = Buffers()

    def of_stream(self, disk_size: int, *, threads: int) -> StreamMemory:
        """What the stream of a disk may hold that so many threads read and compare."""
        length = LONGEST_READ
        if self._share < threads * length + PACKS * SMALL_DISK_PACK:
            length = _SHORT_READ
        room = (self._share - threads * length) // PACKS
        wanted = min(max(disk_size // _PACKS_OF_A_DISK, SMALL_DISK_PACK), LARGEST_PACK)
        return StreamMemory(threads, length, max(min(wanted, room), LEAST_PACK))


LEAST_SHARE = PACKS * LEAST_PACK + 6 * _SHORT_READ
"""Bytes that a stream needs: short reads, and small packs."""
