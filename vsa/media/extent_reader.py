"""Reads extents back: neighbours in one request, every one proven before it is given out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from vsa.errors import MediaDamaged
from vsa.media.coding import PackCodec, PackSeal
from vsa.media.disk_index import SegmentTable
from vsa.media.frames import Fingerprint
from vsa.media.index import ZEROS
from vsa.media.pack import Frame, decode_frame
from vsa.media.store import Store
from vsa.ranges import KIB, MIB, ByteRange

BATCH = 8 * MIB
"""Stored bytes held at a time, and the most that one request asks for."""
GAP = 64 * KIB
"""Unwanted bytes between two frames that cost less to read than a second request."""


class _Stored(NamedTuple):
    """A frame as it lies in its pack. It is opened when it is given out, so that a batch is held once."""

    data: memoryview
    seal: PackSeal


class Contents(Protocol):
    """What a disk's tables refer to."""

    @property
    def packs(self) -> Sequence[str]:
        """The names that SegmentTable.pack counts."""
        ...

    def length_of(self, extent: int) -> int:
        """Bytes of the extent on this disk."""
        ...


class ExtentReader:
    """Decoded extents of a disk; safe for many threads."""

    def __init__(self, store: Store, codec: PackCodec) -> None:
        self._store = store
        self._codec = codec

    def read(
        self, index: Contents, table: SegmentTable, positions: Sequence[int]
    ) -> Iterator[tuple[int, bytes]]:
        """(position, the extent's bytes) for positions in `table`, in the order given.

        MediaDamaged names pack, extent and byte range if contents do not match CRC and digest;
        ObjectMissing if a pack is gone. Nothing unproven is ever yielded.
        """
        for batch in _batches(table, positions):
            frames = self._fetch(index, table, batch)
            for position in batch:
                yield position, self._extent(index, table, position, frames)

    def read_sound(
        self, index: Contents, table: SegmentTable, positions: Sequence[int]
    ) -> Iterator[tuple[int, bytes | MediaDamaged]]:
        """The same, but one extent that is lost does not keep the others: the error stands in its place."""
        for batch in _batches(table, positions):
            try:
                yield from list(self.read(index, table, batch))
            except MediaDamaged:
                for position in batch:
                    yield position, self._read_one(index, table, position)

    def _read_one(self, index: Contents, table: SegmentTable, position: int) -> bytes | MediaDamaged:
        try:
            return next(data for _, data in self.read(index, table, [position]))
        except MediaDamaged as error:
            return error

    def _fetch(self, index: Contents, table: SegmentTable, batch: Sequence[int]) -> dict[int, _Stored]:
        """The stored frame of each position that has one."""
        frames: dict[int, _Stored] = {}
        for pack, at, inside in _requests(table, batch):
            data = memoryview(self._store.read(index.packs[pack], at))
            seal = self._codec.seal_of(index.packs[pack])
            for position in inside:
                start = int(table.offset[position]) - at.offset
                frames[position] = _Stored(data[start : start + int(table.length[position])], seal)
        return frames

    def _extent(
        self, index: Contents, table: SegmentTable, position: int, frames: dict[int, _Stored]
    ) -> bytes:
        extent = table.first_extent + position
        length = index.length_of(extent)
        if position not in frames:
            return bytes(length)
        expected = Fingerprint(int(table.crc[position]), table.digest[position].tobytes())
        size = int(table.size[position])
        start, stored = int(table.offset[position]), int(table.length[position])
        where = f"{index.packs[table.pack[position]]}, extent {extent} at bytes {start} to {start + stored}"
        frame = Frame(start, stored, size, expected)
        data = decode_frame(frames[position].data, frame, self._codec, frames[position].seal, where)
        if size > length:
            raise MediaDamaged(f"{where}: {size} bytes, but the disk has only {length} there")
        return bytes(data).ljust(length, b"\0")


def _batches(table: SegmentTable, positions: Sequence[int]) -> Iterator[list[int]]:
    """The positions in order, cut where their stored bytes would exceed BATCH."""
    batch: list[int] = []
    held = 0
    for position in positions:
        length = int(table.length[position])
        if batch and held + length > BATCH:
            yield batch
            batch, held = [], 0
        batch.append(position)
        held += length
    if batch:
        yield batch


def _requests(table: SegmentTable, batch: Sequence[int]) -> Iterator[tuple[int, ByteRange, list[int]]]:
    """(pack, byte range of it, positions inside), neighbours joined; for all positions that are not zeros."""
    stored = deque(
        sorted(
            (int(table.pack[at]), int(table.offset[at]), int(table.length[at]), at)
            for at in batch
            if table.pack[at] != ZEROS
        )
    )
    while stored:
        pack, offset, length, position = stored.popleft()
        at, inside = ByteRange(offset, offset + length), [position]
        while stored and _joins(pack, at, stored[0]):
            _, offset, length, position = stored.popleft()
            at = ByteRange(at.offset, max(at.end, offset + length))
            inside.append(position)
        yield pack, at, inside


def _joins(pack: int, at: ByteRange, frame: tuple[int, int, int, int]) -> bool:
    number, offset, length, _ = frame
    return number == pack and offset <= at.end + GAP and offset + length - at.offset <= BATCH
