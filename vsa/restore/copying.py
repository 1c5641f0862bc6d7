"""A disk's contents read in order by several threads, and what of them is lost.

Every extent is proven before it is given out. One that is lost does not keep the others from being read:
it is named, with the object that should have held it, and stays zeros.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from vsa.errors import MediaDamaged
from vsa.media.damaged import damaged_positions
from vsa.media.extent_reader import ExtentReader
from vsa.media.partial import KNOWN, PartialDisk, PartialSegment
from vsa.memory import Buffers
from vsa.progress import Progress
from vsa.ranges import MIB, ByteRange
from vsa.threads import Threads

_BATCH = 4 * MIB
_ZEROS = bytes(1 * MIB)

Write = Callable[[int, memoryview], None]
"""Takes an offset on the disk and what is there: extents that follow each other, in one buffer."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes of a disk that cannot be had, the object that is to blame, and what is wrong with it."""

    range: ByteRange
    object: str
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a disk before it is copied: an upper bound of the bytes stored, and what is lost."""

    stored: int
    lost: list[Lost]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Stored extents of one segment, in order, fetched and written by one thread."""

    segment: PartialSegment
    positions: list[int]


@dataclass(frozen=True, slots=True)
class _Read:
    """What became of a batch."""

    extents: list[tuple[int, bytes]]
    lost: list[Lost]


@dataclass(frozen=True, slots=True)
class _Copied:
    """A batch that was written; its runs, each with its offset, lie in `buffer`."""

    runs: list[tuple[int, memoryview]]
    lost: list[Lost]
    buffer: memoryview


def copy_disk(
    disk: PartialDisk,
    reader: ExtentReader,
    *,
    write: Write,
    in_order: Write,
    threads: int,
    progress: Progress,
) -> list[Lost]:
    """Read all stored extents; what is lost, in the disk's order.

    `write` is called by many threads and in any order, `in_order` by this one and in the disk's order. What
    they get is valid only during the call.
    """
    buffers = Buffers()

    def copy(batch: _Batch) -> _Copied:
        done = _read(disk, reader, batch)
        buffer = buffers.take(max(_BATCH, disk.extent_size))
        runs = list(_runs(done.extents, buffer))
        for offset, run in runs:
            write(offset, run)
        progress.advanced(sum(len(run) for _, run in runs))
        return _Copied(runs, done.lost, buffer)

    lost: list[Lost] = []
    running: deque[Future[_Copied]] = deque()
    pool = Threads(threads, "restore")
    try:
        for done in _in_order(pool, copy, _batches(disk, lost), running, ahead=threads):
            for offset, run in done.runs:
                in_order(offset, run)
            buffers.give_back(done.buffer)
            lost += done.lost
    finally:
        _await_end(running)
        pool.shutdown()
    return joined(lost)


def _await_end(running: Collection[Future[_Copied]]) -> None:
    """Until no thread writes any more, however often somebody presses Ctrl-C: what they write to is closed
    next, and its number may be another file's then.

    The threads themselves cannot be waited for: Python takes one for ended if the wait is interrupted.
    """
    interrupted: KeyboardInterrupt | None = None
    for future in running:
        future.cancel()
    while True:
        try:
            wait(running)
            break
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _runs(extents: Iterable[tuple[int, bytes]], buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Neighbours together, each run with the offset of its first: in one piece they are written past the page
    cache, and hashed without waiting for Python's lock at each extent."""
    offset = end = 0
    begin = used = 0
    for at, data in extents:
        if begin < used and at != end:
            yield offset, buffer[begin:used]
            begin = used
        if begin == used:
            offset = at
        buffer[used : used + len(data)] = data
        used += len(data)
        end = at + len(data)
    if begin < used:
        yield offset, buffer[begin:used]


def survey(disk: PartialDisk, reader: ExtentReader, damaged: Mapping[str, Collection[int]]) -> Survey:
    """What there is to copy, and what of it is lost for sure: what unreadable indexes hide, and of the frames
    that are said to be damaged (offsets by pack) those that do not prove themselves when they are read."""
    lost: list[Lost] = []
    extents = 0
    for number in disk.segments():
        segment = disk.segment(number)
        lost += _hidden(disk, segment)
        extents += len(segment.stored)
        if doubted := damaged_positions(segment.table, disk.packs, damaged):
            lost += _read(disk, reader, _Batch(segment, doubted)).lost
    return Survey(min(extents * disk.extent_size, disk.disk_size), joined(lost))


def joined(lost: Iterable[Lost]) -> list[Lost]:
    """The same bytes in the disk's order; neighbours that one object is to blame for are one range."""
    found: list[Lost] = []
    for item in sorted(lost, key=lambda item: item.range):
        last = found[-1] if found else item
        if last.object == item.object and last.range.end == item.range.offset:
            found[-1] = replace(last, range=ByteRange(last.range.offset, item.range.end))
        else:
            found.append(item)
    return found


def _read(disk: PartialDisk, reader: ExtentReader, batch: _Batch) -> _Read:
    done = _Read([], [])
    table = batch.segment.table
    for position, data in reader.read_sound(disk, table, batch.positions):
        at = disk.range_of(table.first_extent + position)
        if isinstance(data, MediaDamaged):
            done.lost.append(_lost(disk, batch.segment, position, data))
        else:
            done.extents.append((at.offset, data))
    return done


def _lost(disk: PartialDisk, segment: PartialSegment, position: int, error: MediaDamaged) -> Lost:
    """The frame's bytes are lost; behind a frame of a disk that has grown since, zeros are known."""
    table = segment.table
    start = disk.range_of(table.first_extent + position).offset
    led_by = int(segment.led_by[position])
    name = disk.packs[table.pack[position]] if led_by == KNOWN else disk.unreadable[led_by].name
    return Lost(ByteRange(start, start + int(table.size[position])), name, str(error))


def _hidden(disk: PartialDisk, segment: PartialSegment) -> Iterator[Lost]:
    for position in segment.hidden:
        item = disk.unreadable[int(segment.hidden_by[position])]
        yield Lost(disk.range_of(segment.table.first_extent + position), item.name, item.reason)


def _batches(disk: PartialDisk, lost: list[Lost]) -> Iterator[_Batch]:
    """The stored extents; what no index tells is added to `lost`."""
    per_batch = max(1, _BATCH // disk.extent_size)
    for number in disk.segments():
        segment = disk.segment(number)
        lost += joined(_hidden(disk, segment))
        positions: Sequence[int] = segment.stored
        for start in range(0, len(positions), per_batch):
            yield _Batch(segment, list(positions[start : start + per_batch]))


def _in_order(
    pool: Threads,
    work: Callable[[_Batch], _Copied],
    batches: Iterable[_Batch],
    running: deque[Future[_Copied]],
    *,
    ahead: int,
) -> Iterator[_Copied]:
    """Results in the batches' order; no more than `ahead` of them wait in memory. `running` has, at any
    moment, all whose results were not given out."""
    for batch in batches:
        running.append(pool.submit(work, batch))
        if len(running) > ahead:
            yield running[0].result()
            running.popleft()
    while running:
        yield running[0].result()
        running.popleft()


class DiskChecksum:
    """SHA-256 of a disk given as runs of extents in order, with zeros between them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._end = 0

    def add(self, offset: int, data: memoryview) -> None:
        self._zeros_until(offset)
        self._hash.update(data)
        self._end = offset + len(data)

    def of_disk(self, size: int) -> str:
        self._zeros_until(size)
        return self._hash.hexdigest()

    def _zeros_until(self, offset: int) -> None:
        zeros = memoryview(_ZEROS)
        while self._end < offset:
            count = min(len(zeros), offset - self._end)
            self._hash.update(zeros[:count])
            self._end += count
