"""One disk of a recovery point, written out as an image file.

The media gives extents that are already checked against their CRC and digest. Threads fetch and
write them in batches; the calling thread takes the batches in the disk's order and feeds the checksum
of the whole, so that what is reported is a digest of the bytes that were written.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.extent_reader import ExtentReader
from vsa.media.media import Media
from vsa.model import DiskBackup
from vsa.progress import SILENT, Progress
from vsa.ranges import MIB
from vsa.restore import vhd
from vsa.restore.image import Image, new_image

_BATCH = 4 * MIB
_ZEROS = bytes(1 * MIB)


class Format(StrEnum):
    """What the image file is: the disk's bytes alone, or those and a VHD footer."""

    RAW = "raw"
    VHD = "vhd"


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """An image that is complete, durable and at its final name."""

    path: Path
    size: int
    """Bytes of the disk as its guest sees it; a VHD file is 512 bytes longer."""
    bytes_written: int
    """Bytes of stored extents; the rest of the disk is zeros and a hole in the file."""
    sha256: str | None
    """Of the disk as its guest sees it, zeros included; None if it was not asked for."""
    warnings: tuple[str, ...]


def restore_disk(
    media: Media,
    backup: DiskBackup,
    target: Path,
    *,
    format: Format = Format.VHD,
    threads: int = 4,
    progress: Progress = SILENT,
    checksum: bool = True,
) -> RestoredDisk:
    """Write the disk to `target`, which must not exist. It is there, whole, or not at all.

    Raises MediaDamaged at the first extent that is not what was stored, and BadRequest if the target
    will not do. Without `checksum` a mostly empty disk costs no time for its zeros.
    """
    size = backup.snapshot.size
    ending = vhd.footer(size, backup.snapshot.taken_at, _identity(backup)) if format is Format.VHD else b""
    index = media.disk_index(backup.indexes, size)
    stored = _stored_bytes(index)
    with new_image(target, size=size + len(ending), allocated=stored + len(ending)) as image:
        progress.started(target.name, stored)
        try:
            digest = _copy(
                media.extent_reader(), index, image, threads=threads, progress=progress, checksum=checksum
            )
        finally:
            progress.finished()
        image.write(size, ending)
    return RestoredDisk(target, size, stored, digest, _warnings(size, format))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Stored extents of one segment, in order, fetched and written by one thread."""

    table: SegmentTable
    positions: list[int]


Extents = list[tuple[int, bytes]]
"""Offsets on the disk and contents."""


def _copy(
    reader: ExtentReader, index: DiskIndex, image: Image, *, threads: int, progress: Progress, checksum: bool
) -> str | None:
    def fetch_and_write(batch: _Batch) -> Extents:
        extents = []
        for position, data in reader.read(index, batch.table, batch.positions):
            offset = (batch.table.first_extent + position) * index.extent_size
            image.write(offset, data)
            extents.append((offset, data))
        progress.advanced(sum(len(data) for _, data in extents))
        return extents

    whole = _Checksum()
    pool = ThreadPoolExecutor(threads, "restore")
    try:
        for extents in _in_order(pool, fetch_and_write, _batches(index), ahead=2 * threads):
            for offset, data in extents if checksum else ():
                whole.add(offset, data)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return whole.of_disk(index.disk_size) if checksum else None


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_Batch], Extents], batches: Iterable[_Batch], *, ahead: int
) -> Iterator[Extents]:
    """Results in the batches' order; no more than `ahead` of them wait in memory."""
    running: deque[Future[Extents]] = deque()
    for batch in batches:
        running.append(pool.submit(work, batch))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _batches(index: DiskIndex) -> Iterator[_Batch]:
    per_batch = max(1, _BATCH // index.extent_size)
    for number in index.segments():
        table = index.segment(number)
        if table is None:
            continue
        positions = np.flatnonzero(table.pack >= 0)
        for start in range(0, len(positions), per_batch):
            yield _Batch(table, positions[start : start + per_batch].tolist())


def _stored_bytes(index: DiskIndex) -> int:
    tables = (index.segment(number) for number in index.segments())
    extents = sum(int(np.count_nonzero(table.pack >= 0)) for table in tables if table is not None)
    return min(extents * index.extent_size, index.disk_size)


class _Checksum:
    """SHA-256 of a disk given as extents in order, with zeros between them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._end = 0

    def add(self, offset: int, data: bytes) -> None:
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


def _identity(backup: DiskBackup) -> uuid.UUID:
    """The same for every restore of the same snapshot, so that two restores are equal byte for byte."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{backup.snapshot.id}?{backup.snapshot.moment}")


def _warnings(size: int, format: Format) -> tuple[str, ...]:
    if format is Format.VHD and size % MIB:
        return (
            f"the disk's {size} bytes are no whole number of MiB: Azure will not take this VHD as a disk",
        )
    return ()
