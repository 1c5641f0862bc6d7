"""Where every extent of a disk lies: a base index and its deltas, laid over each other segment by segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from vsa.errors import BadRequest, MediaDamaged
from vsa.media import layout
from vsa.media.index import ROW, ZEROS, IndexFile, PackRef
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.moves import PackNumbers, Relocations, follow
from vsa.media.parquet import Rows


@dataclass(frozen=True)
class SegmentTable:
    """The extents of one segment that exist on the disk, dense from `first_extent`; arrays of one length.

    `pack` is an ordinal into DiskIndex.packs, or -1 for zeros: then every other array holds zero there.
    `size` is the raw length the frame decodes to; the rest of the extent, if any, is zeros (the disk has
    grown since).
    """

    first_extent: int
    pack: npt.NDArray[np.int32]
    offset: npt.NDArray[np.uint32]
    length: npt.NDArray[np.uint32]
    crc: npt.NDArray[np.uint32]
    digest: npt.NDArray[np.uint8]
    size: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.pack)

    @classmethod
    def zeros(cls, first_extent: int, extents: int) -> Self:
        return cls(
            first_extent,
            pack=np.full(extents, ZEROS, np.int32),
            offset=np.zeros(extents, np.uint32),
            length=np.zeros(extents, np.uint32),
            crc=np.zeros(extents, np.uint32),
            digest=np.zeros((extents, 32), np.uint8),
            size=np.zeros(extents, np.uint32),
        )


class DiskIndex:
    """The contents of one disk at one point: `indexes` in order, later ones over earlier ones, and every
    frame where it lies now.

    Safe for many threads; a segment without rows costs nothing.
    """

    def __init__(
        self, indexes: Sequence[IndexFile], relocations: Relocations, *, disk_size: int, extent_size: int
    ) -> None:
        """MediaDamaged unless they are one base and its deltas, of one disk that never was larger."""
        if not indexes:
            raise BadRequest("a disk with no index: a point must say where its contents are")
        self.disk_size = disk_size
        self.extent_size = extent_size
        self.files = tuple(indexes)
        self._packs = PackNumbers()
        for number, file in enumerate(indexes):
            self._check(file, indexes[0].description.disk_key, IndexKind.DELTA if number else IndexKind.BASE)
        self._ordinals = [self._packs.ordinals(file.description.packs) for file in indexes]
        self._moves = relocations.concerning(frozenset(self.packs))
        self._segments = sorted({number for file in indexes for number in file.segments})

    @property
    def packs(self) -> Sequence[str]:
        """The names that SegmentTable.pack counts."""
        return self._packs.names

    @property
    def moves(self) -> frozenset[str]:
        """The moves tables that rows may follow."""
        return frozenset(name for name, _ in self._moves)

    def pack_ref(self, ordinal: int) -> PackRef:
        return self._packs.refs[ordinal]

    @property
    def extents(self) -> int:
        return layout.extent_count(self.disk_size, self.extent_size)

    def segments(self) -> Sequence[int]:
        """Numbers of the segments that any index has rows for, ascending."""
        return self._segments

    def tables(self) -> Iterator[SegmentTable]:
        """All segments that have rows."""
        for number in self._segments:
            if (table := self.segment(number)) is not None:
                yield table

    def segment(self, number: int) -> SegmentTable | None:
        """The segment's table, or None if no index mentions it: all zeros."""
        layers = [
            (file, ordinals, rows)
            for file, ordinals in zip(self.files, self._ordinals, strict=True)
            if (rows := file.rows(number)) is not None
        ]
        if not layers:
            return None
        first = number * SEGMENT
        table = SegmentTable.zeros(first, min(SEGMENT, self.extents - first))
        for file, ordinals, rows in layers:
            lay_over(table, rows, file, ordinals)
        for _, moves in self._moves:
            follow(moves, self._packs, table.pack, table.offset, table.length)
        return table

    def length_of(self, extent: int) -> int:
        """Bytes of the extent on this disk."""
        return layout.extent_length(extent, self.disk_size, self.extent_size)

    def may_need(self) -> frozenset[str]:
        """Every object that any row might depend on: also packs to which moves may lead. Reads no rows."""
        led_to = {item.name for _, moves in self._moves for item in moves.description.packs}
        return frozenset({file.ref.name for file in self.files} | set(self.packs) | self.moves | led_to)

    def needs(self) -> frozenset[str]:
        """Every object that the contents depend on: indexes, packs of visible rows, and all moves tables that
        a reader has to ask about the packs that the indexes list.

        Reads all rows.
        """
        used: set[int] = set()
        for table in self.tables():
            used.update(np.unique(table.pack).tolist())
        packs = {self.packs[ordinal] for ordinal in used if ordinal != ZEROS}
        return frozenset(packs | self.moves | {file.ref.name for file in self.files})

    def _check(self, file: IndexFile, disk_key: str, kind: IndexKind) -> None:
        about = file.description
        if about.kind is not kind:
            raise MediaDamaged(
                f"{file.ref.name} is a {about.kind} where a {kind} is expected: a base comes first, once"
            )
        if about.disk_size > self.disk_size or about.disk_key != disk_key:
            raise MediaDamaged(
                f"{file.ref.name} is of disk {about.disk_key} with {about.disk_size} bytes, "
                f"expected disk {disk_key} with at most {self.disk_size}"
            )


def lay_over(table: SegmentTable, rows: Rows, file: IndexFile, ordinals: npt.NDArray[np.int32]) -> None:
    """Let an index's rows of a segment replace what its table says; `ordinals` number the index's packs."""
    at = rows["extent"] - np.uint32(table.first_extent)
    stored = rows["pack"] != ZEROS
    table.pack[at] = ZEROS
    table.pack[at[stored]] = ordinals[rows["pack"][stored]]
    for name in ("offset", "length", "crc"):
        getattr(table, name)[at] = np.where(stored, rows[name], np.uint32(0))
    digests = np.frombuffer(rows["digest"].tobytes(), np.uint8).reshape(-1, ROW["digest"].itemsize)
    table.digest[at] = np.where(stored[:, None], digests, np.uint8(0))
    table.size[at] = np.where(stored, file.raw_lengths(rows), np.uint32(0))
