"""Frames whose pack is gone: found again by their digest wherever they were stored once more.

Repacking moves frames and says so in the log alone. Without a log, the tables of the packs say where the
same bytes lie. A media may have lost many millions of frames, so they are held as arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from vsa.errors import UNREADABLE, MediaDamaged
from vsa.media.coding import PackCodec
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.extent_reader import ExtentReader
from vsa.media.index import PackRef
from vsa.media.moves import MOVE
from vsa.media.pack import Frame, check_frames, read_table
from vsa.media.parquet import Rows
from vsa.media.store import Store

Positions = npt.NDArray[np.intp]

# As strings digests are ordered and compared by all their bytes, since all have the same length. A single one
# must not be taken out of an array: that would cut zeros from its end.
DIGEST = np.dtype("S32")
LOST = np.dtype([("pack", np.int32), ("offset", np.uint32), ("digest", DIGEST)])
"""Where a row leads to in vain, and the digest of what should be there."""

TABLE_ROWS = 500_000
TABLE_SOURCES = 50_000
"""Rows of one moves table, and packs that they come from: its entry names them, in a document of bounded
size."""
PORTION = 50_000
"""Lost extents that one damage entry tells of, for the same reason."""

_NOWHERE = -1


@dataclass(frozen=True)
class Packs:
    """What is known of packs: the sound ones, and those that are there but not as they were stored; of
    `useless` ones nothing can be used. All others are gone."""

    sound: dict[str, PackRef] = field(default_factory=dict)
    spoilt: dict[str, PackRef] = field(default_factory=dict)
    useless: set[str] = field(default_factory=set)

    def size(self) -> int:
        return sum(ref.size for ref in (*self.sound.values(), *self.spoilt.values()))

    def __len__(self) -> int:
        return len(self.sound) + len(self.spoilt)


class Losses:
    """Which rows lead to frames that are gone or spoilt. `packs` may grow meanwhile."""

    def __init__(self, packs: Packs, reader: ExtentReader) -> None:
        self._packs = packs
        self._reader = reader
        self._decayed: dict[tuple[str, int, bytes], bool] = {}
        """Of each frame in a spoilt pack that was read, by pack, offset and the digest that it should have:
        points have most in common."""

    def of(self, index: DiskIndex) -> Iterator[tuple[SegmentTable, Positions]]:
        """Tables of a disk, and the positions in them that are lost, ascending."""
        for table in index.tables():
            used = [number for number in np.unique(table.pack).tolist() if number >= 0]
            spoilt = [number for number in used if index.packs[number] in self._packs.spoilt]
            gone = [number for number in used if self._is_gone(index.packs[number])]
            lost = np.isin(table.pack, gone)
            lost[self._decayed_in(index, table, np.flatnonzero(np.isin(table.pack, spoilt)))] = True
            if lost.any():
                yield table, np.flatnonzero(lost)

    def are_by_absence(self, index: DiskIndex, again: Rediscovery) -> bool | None:
        """Whether all that a disk has lost lay in packs that are not there, and no other pack claims to have
        it; None if it has lost nothing."""
        found = None
        for table, at in self.of(index):
            packs = {index.packs[number] for number in np.unique(table.pack[at]).tolist()}
            is_there = self._packs.useless | self._packs.spoilt.keys()
            if packs & is_there or again.is_claimed(_digests(table, at)):
                return False
            found = True
        return found

    def _is_gone(self, name: str) -> bool:
        return name not in self._packs.sound and name not in self._packs.spoilt

    def _decayed_in(self, index: DiskIndex, table: SegmentTable, at: Positions) -> list[int]:
        """Those of the positions, all in spoilt packs, whose frame is not what it should be."""
        places = {
            position: (
                index.packs[table.pack[position]],
                int(table.offset[position]),
                table.digest[position].tobytes(),
            )
            for position in at.tolist()
        }
        unread = [position for position, place in places.items() if place not in self._decayed]
        for position, found in self._reader.read_sound(index, table, unread):
            self._decayed[places[position]] = isinstance(found, MediaDamaged)
        return [position for position, place in places.items() if self._decayed[place]]


@dataclass(frozen=True)
class LostPlaces:
    """Every place once for each digest that indexes state of it, ascending; `pack` in `rows`, which are LOST,
    counts `names`. Sound indexes state one."""

    names: tuple[str, ...]
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


def lost_places(indexes: Iterable[DiskIndex], losses: Losses) -> LostPlaces:
    """Where visible rows lead to frames that are gone or spoilt, and what should be found there."""
    numbers: dict[str, int] = {}
    rows: Rows = np.zeros(0, LOST)
    for index in indexes:
        # Points have most of it in common: what is held does not grow with their number.
        new = [_places(index, table, at, numbers) for table, at in losses.of(index)]
        rows = _once(np.concatenate([rows, *new]))
    return LostPlaces(tuple(numbers), rows)


def _places(index: DiskIndex, table: SegmentTable, at: Positions, numbers: dict[str, int]) -> Rows:
    rows: Rows = np.zeros(len(at), LOST)
    used, which = np.unique(table.pack[at], return_inverse=True)
    ours = [numbers.setdefault(index.packs[number], len(numbers)) for number in used.tolist()]
    rows["pack"] = np.array(ours, np.int32)[which]
    rows["offset"] = table.offset[at]
    rows["digest"] = _digests(table, at)
    return rows


def _digests(table: SegmentTable, at: Positions) -> Rows:
    found: Rows = np.ascontiguousarray(table.digest[at]).view(DIGEST)[:, 0]
    return found


def _once(rows: Rows) -> Rows:
    digests = np.ascontiguousarray(rows["digest"]).view(">u8").reshape(-1, 4)
    order = np.lexsort((*digests.T[::-1], _place(rows["pack"], rows["offset"])))
    rows, digests = rows[order], digests[order]
    place = _place(rows["pack"], rows["offset"])
    is_new = np.ones(len(rows), np.bool_)
    is_new[1:] = (np.diff(place) != 0) | np.any(digests[1:] != digests[:-1], axis=1)
    return rows[is_new]


def _place(packs: npt.NDArray[np.int32], offsets: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    return packs.astype(np.int64) << 32 | offsets


def lost_ranges(
    index: DiskIndex, losses: Losses
) -> Iterator[tuple[dict[str, list[int]], list[tuple[int, int]]]]:
    """The offsets that are lost of each pack, and the byte ranges `[start, end)` of the disk that this
    concerns, joined; in portions, each of which may be told by itself."""
    lost = _extents(index, losses)
    while portion := list(islice(lost, PORTION)):
        offsets: dict[str, set[int]] = {}
        ranges: list[tuple[int, int]] = []
        for extent, pack, offset in portion:
            offsets.setdefault(pack, set()).add(offset)
            start = extent * index.extent_size
            end = start + index.length_of(extent)
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, end))
        yield {pack: sorted(of_pack) for pack, of_pack in offsets.items()}, ranges


def _extents(index: DiskIndex, losses: Losses) -> Iterator[tuple[int, str, int]]:
    """(extent, pack, offset) of every row that is lost, in order."""
    for table, at in losses.of(index):
        for position in at.tolist():
            yield (
                table.first_extent + position,
                index.packs[table.pack[position]],
                int(table.offset[position]),
            )


class Rediscovery:
    """Where the bytes of lost frames lie elsewhere, as far as packs that were searched have them."""

    def __init__(self, lost: LostPlaces) -> None:
        self._lost = lost
        self._digests = np.unique(lost.rows["digest"])
        self._found: Rows = np.zeros(len(self._digests), MOVE)
        self._found["pack"] = _NOWHERE
        self._claimed = np.zeros(len(self._digests), np.bool_)
        """By the table of a pack, whether or not the frame was sound."""
        self._names: list[str] = []

    def is_claimed(self, digests: Rows) -> bool:
        """Whether any pack claims to hold one of these, which are all of lost places."""
        return bool(self._claimed[np.searchsorted(self._digests, digests)].any())

    def search(
        self, store: Store, packs: Iterable[tuple[str, int]], codec: PackCodec
    ) -> Iterator[tuple[str, bytes]]:
        """The packs, of these names and sizes, that hold what no pack before had, with their bytes.

        A table may claim a frame that has decayed, so each is proven; the others of its pack need not be.
        """
        for name, size in packs:
            if np.all(self._found["pack"] >= 0):
                return
            try:
                claimed = self._missing(read_table(store, name, size, codec))
                data = store.read(name) if claimed else b""
            except UNREADABLE:
                continue
            sound = {at: frame for at, frame in claimed if _is_sound(data, frame, name, codec)}
            if sound:
                self._take(name, sound)
                yield name, data

    def _missing(self, frames: list[Frame]) -> list[tuple[int, Frame]]:
        """Those that are still looked for, with the number of their digest."""
        digests = np.array([frame.fingerprint.digest for frame in frames], DIGEST)
        at = np.minimum(np.searchsorted(self._digests, digests), len(self._digests) - 1)
        wanted = (self._digests[at] == digests) & (self._found["pack"][at] == _NOWHERE)
        self._claimed[at[wanted]] = True
        return [(int(at[number]), frames[number]) for number in np.flatnonzero(wanted).tolist()]

    def _take(self, name: str, frames: Mapping[int, Frame]) -> None:
        for at, frame in frames.items():
            row = self._found[at]
            row["pack"], row["offset"], row["length"] = len(self._names), frame.offset, frame.length
        self._names.append(name)

    def moves(
        self, refs: Mapping[str, PackRef]
    ) -> Iterator[tuple[tuple[str, ...], tuple[PackRef, ...], Rows]]:
        """Sources, packs and rows of moves tables for all that was found; `refs` has the packs searched.

        A place leads to one frame. Of several that indexes state of it, it is the one whose digest is lowest.
        """
        rows = self._found[np.searchsorted(self._digests, self._lost.rows["digest"])]
        rows["from_pack"], rows["from_offset"] = self._lost.rows["pack"], self._lost.rows["offset"]
        rows = rows[rows["pack"] >= 0]
        _, first = np.unique(_place(rows["from_pack"], rows["from_offset"]), return_index=True)
        rows = rows[first]
        while len(rows):
            part, rows = _table(rows)
            sources, part["from_pack"] = np.unique(part["from_pack"], return_inverse=True)
            targets, part["pack"] = np.unique(part["pack"], return_inverse=True)
            yield (
                tuple(self._lost.names[number] for number in sources.tolist()),
                tuple(refs[self._names[number]] for number in targets.tolist()),
                part,
            )


def _table(rows: Rows) -> tuple[Rows, Rows]:
    """As many rows, ascending by what they come from, as one table takes; and the others."""
    sources = np.cumsum(np.diff(rows["from_pack"][:TABLE_ROWS], prepend=rows["from_pack"][0]) != 0)
    end = int(np.searchsorted(sources, TABLE_SOURCES))
    return rows[:end].copy(), rows[end:]


def _is_sound(data: bytes, frame: Frame, name: str, codec: PackCodec) -> bool:
    try:
        check_frames(data, [frame], codec, name)
    except MediaDamaged:
        return False
    return True
