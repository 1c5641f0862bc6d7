"""Frames whose pack is gone: found again by their fingerprint wherever they were stored once more.

Repacking moves frames and says so in the log alone. Without a log, the tables of the packs say where the
same bytes lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vsa.errors import MediaDamaged, WrongKey
from vsa.media.coding import PackCodec
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.extent_reader import ExtentReader
from vsa.media.index import PackRef
from vsa.media.moves import MOVE
from vsa.media.pack import Frame, check_frames, read_table
from vsa.media.parquet import Rows
from vsa.media.store import Store

Place = tuple[str, int]
"""A pack and an offset in it."""
Print = tuple[int, bytes]
"""CRC32C and digest."""


@dataclass(frozen=True)
class Packs:
    """What is known of packs: the sound ones, and those that are there but not as they were stored."""

    sound: Mapping[str, PackRef]
    spoilt: Mapping[str, PackRef]

    def size(self) -> int:
        return sum(ref.size for ref in (*self.sound.values(), *self.spoilt.values()))


def lost_places(indexes: Iterable[DiskIndex], packs: Packs, reader: ExtentReader) -> dict[Place, Print]:
    """Where visible rows lead to frames that are gone or spoilt, and what should be found there."""
    return {place: expected for index in indexes for _, place, expected in _lost(index, packs, reader)}


def lost_ranges(
    index: DiskIndex, packs: Packs, reader: ExtentReader
) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """The offsets that are lost of each pack, and the byte ranges `[start, end)` of the disk that this
    concerns, joined."""
    offsets: dict[str, list[int]] = {}
    ranges: list[tuple[int, int]] = []
    for extent, (pack, offset), _ in _lost(index, packs, reader):
        offsets.setdefault(pack, []).append(offset)
        start = extent * index.extent_size
        end = start + index.length_of(extent)
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return offsets, ranges


def _lost(index: DiskIndex, packs: Packs, reader: ExtentReader) -> Iterator[tuple[int, Place, Print]]:
    """(extent, place, fingerprint) of every row whose frame is gone or spoilt, in order."""
    for table in index.tables():
        unsound = [number for number, name in enumerate(index.packs) if name not in packs.sound]
        for at in np.flatnonzero(np.isin(table.pack, unsound)).tolist():
            name = index.packs[table.pack[at]]
            if name not in packs.spoilt or not _reads(reader, index, table, at):
                expected = int(table.crc[at]), table.digest[at].tobytes()
                yield table.first_extent + at, (name, int(table.offset[at])), expected


def _reads(reader: ExtentReader, index: DiskIndex, table: SegmentTable, at: int) -> bool:
    try:
        list(reader.read(index, table, [at]))
    except MediaDamaged:
        return False
    return True


def frames_like(
    store: Store, packs: Iterable[tuple[str, int]], wanted: frozenset[Print], codec: PackCodec
) -> Iterator[tuple[str, bytes, list[Frame]]]:
    """Packs that hold wanted frames, with their bytes: of each fingerprint the first frame that is sound.

    A table may claim a frame that has decayed, so each is proven; the others of its pack need not be.
    """
    left = set(wanted)
    for name, size in packs:
        if not left:
            return
        try:
            claimed = [frame for frame in read_table(store, name, size, codec) if frame.fingerprint in left]
            data = store.read(name) if claimed else b""
        except (MediaDamaged, WrongKey):
            continue
        # A pack may hold the same bytes twice.
        found = {frame.fingerprint: frame for frame in claimed if _is_sound(data, frame, name, codec)}
        left -= found.keys()
        if found:
            yield name, data, list(found.values())


def _is_sound(data: bytes, frame: Frame, name: str, codec: PackCodec) -> bool:
    try:
        check_frames(data, [frame], codec, name)
    except MediaDamaged:
        return False
    return True


def moves_to(
    lost: Mapping[Place, Print], found: Mapping[Print, tuple[str, Frame]], packs: Mapping[str, PackRef]
) -> tuple[tuple[str, ...], tuple[PackRef, ...], Rows]:
    """The sources, the packs and the rows of a moves table for all that was found."""
    moving = {place: found[print_] for place, print_ in lost.items() if print_ in found}
    sources = tuple(sorted({pack for pack, _ in moving}))
    targets = tuple(sorted({pack for pack, _ in moving.values()}))
    rows: Rows = np.zeros(len(moving), MOVE)
    for at, ((source, offset), (target, frame)) in enumerate(moving.items()):
        rows[at] = sources.index(source), offset, targets.index(target), frame.offset, frame.length
    return sources, tuple(packs[name] for name in targets), rows
