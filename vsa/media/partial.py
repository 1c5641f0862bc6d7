"""The contents of a disk as far as damaged media still tells them.

Where `DiskIndex` refuses, this goes on. A part of an index that fails its proof hides which extents it
changed: those of its segment that no later index states are unknown. Moves that cannot be read leave every
frame where it lay before. Nothing is guessed: frames prove themselves against the index that states them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vsa.errors import MediaDamaged
from vsa.media import layout
from vsa.media.disk_index import SegmentTable, lay_over
from vsa.media.index import ZEROS, IndexFile, PackRef
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.moves import MovesTable, PackNumbers, Relocations, follow
from vsa.media.parquet import Rows
from vsa.ranges import ByteRange

KNOWN = -1
"""In place of the number of an unreadable object: none is in the way."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object, or a part of it, that fails its proof."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PartialSegment:
    """A segment's table, and for each extent the number in `PartialDisk.unreadable` of what is in the way.

    `hidden_by`: the index that may have changed the extent; the table says nothing of it. `led_by`: the
    moves that may lead its frame elsewhere; the table has the place before them.
    """

    table: SegmentTable
    hidden_by: npt.NDArray[np.int32]
    led_by: npt.NDArray[np.int32]

    @property
    def stored(self) -> list[int]:
        """Positions that have a frame, ascending."""
        found: list[int] = np.flatnonzero(self.table.pack != ZEROS).tolist()
        return found

    @property
    def hidden(self) -> list[int]:
        found: list[int] = np.flatnonzero(self.hidden_by != KNOWN).tolist()
        return found


class PartialDisk:
    """One disk at one point: a base and its deltas, in order, some of which may be unreadable.

    `segment` is for one thread at a time.
    """

    def __init__(
        self,
        layers: Sequence[IndexFile | Unreadable],
        relocations: Relocations,
        *,
        disk_size: int,
        extent_size: int,
    ) -> None:
        self.disk_size = disk_size
        self.extent_size = extent_size
        self.unreadable: list[Unreadable] = []
        """Grows as more of the disk is looked at; numbers stay."""
        self._packs = PackNumbers()
        self._layers = [_fitting(layer, number, disk_size) for number, layer in enumerate(layers)]
        self._ordinals = [
            self._packs.ordinals(layer.description.packs if isinstance(layer, IndexFile) else ())
            for layer in self._layers
        ]
        self._moves = list(relocations.examined(frozenset(self.packs)))

    @property
    def packs(self) -> Sequence[str]:
        """The names that SegmentTable.pack counts."""
        return self._packs.names

    def pack_ref(self, ordinal: int) -> PackRef:
        return self._packs.refs[ordinal]

    @property
    def extents(self) -> int:
        return layout.extent_count(self.disk_size, self.extent_size)

    def length_of(self, extent: int) -> int:
        """Bytes of the extent on this disk."""
        return layout.extent_length(extent, self.disk_size, self.extent_size)

    def range_of(self, extent: int) -> ByteRange:
        """The disk's bytes that the extent is."""
        offset = extent * self.extent_size
        return ByteRange(offset, offset + self.length_of(extent))

    def segments(self) -> Sequence[int]:
        """Numbers of the segments that may hold data, ascending: all, if an index says nothing at all."""
        files = [layer for layer in self._layers if isinstance(layer, IndexFile)]
        if len(files) < len(self._layers):
            return range(layout.segments(self.extents))
        return sorted({number for file in files for number in file.segments})

    def layers_of(self, segment: int) -> tuple[str, ...]:
        """The indexes that have a say in a segment, oldest first: the same ones say the same."""
        return tuple(
            layer.name if isinstance(layer, Unreadable) else layer.ref.name
            for layer in self._layers
            if isinstance(layer, Unreadable) or layer.has(segment)
        )

    def segment(self, number: int) -> PartialSegment:
        """What is known of a segment's extents."""
        first = number * SEGMENT
        count = min(SEGMENT, self.extents - first)
        table = SegmentTable.zeros(first, count)
        hidden = np.full(count, KNOWN, np.int32)
        for layer, ordinals in zip(self._layers, self._ordinals, strict=True):
            rows = _rows(layer, number)
            if isinstance(rows, Unreadable):
                hidden[:] = self._number(rows)
            elif rows is not None and isinstance(layer, IndexFile):
                lay_over(table, rows, layer, ordinals)
                hidden[rows["extent"] - np.uint32(first)] = KNOWN
        _blank(table, hidden != KNOWN)
        return PartialSegment(table, hidden, self._follow(table))

    def _follow(self, table: SegmentTable) -> npt.NDArray[np.int32]:
        led = np.full(len(table), KNOWN, np.int32)
        for name, sources, moves in self._moves:
            if isinstance(moves, MovesTable):
                follow(moves, self._packs, table.pack, table.offset, table.length)
                continue
            numbers = [found for source in sources if (found := self._packs.find(source)) is not None]
            led[np.isin(table.pack, numbers)] = self._number(Unreadable(name, str(moves)))
        return led

    def _number(self, item: Unreadable) -> int:
        if item not in self.unreadable:
            self.unreadable.append(item)
        return self.unreadable.index(item)


def _fitting(layer: IndexFile | Unreadable, number: int, disk_size: int) -> IndexFile | Unreadable:
    if isinstance(layer, Unreadable):
        return layer
    about, kind = layer.description, IndexKind.DELTA if number else IndexKind.BASE
    if about.kind is kind and about.disk_size <= disk_size:
        return layer
    return Unreadable(
        layer.ref.name,
        f"{layer.ref.name} is a {about.kind} of a disk of {about.disk_size} bytes, "
        f"expected a {kind} of one of at most {disk_size}",
    )


def _rows(layer: IndexFile | Unreadable, segment: int) -> Rows | Unreadable | None:
    if isinstance(layer, Unreadable):
        return layer
    try:
        return layer.rows(segment)
    except MediaDamaged as error:
        return Unreadable(layer.ref.name, str(error))


def _blank(table: SegmentTable, at: npt.NDArray[np.bool_]) -> None:
    """Say of these extents what is said of zeros."""
    table.pack[at] = ZEROS
    for values in (table.offset, table.length, table.crc, table.digest, table.size):
        values[at] = 0
