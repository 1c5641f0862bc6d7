"""What recovery points need, object by object and exactly, from all rows of all their indexes.

Rows are read segment by segment. The points of a disk are looked at together, as many as fit into
`GROUP_BYTES`, because neighbours share most of their layers. What was found is kept for each list of
indexes and holds until a relocation moves frames of a pack that they mention; so deciding once more, for
another slot of the log, reads next to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.index import ROW, ZEROS, IndexFile
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.media.parquet import Rows
from vsa.media.pinned import FETCHED_WHOLE
from vsa.media.view import View
from vsa.model import IndexRef, ObjectRef, Point
from vsa.progress import SILENT, Progress
from vsa.ranges import MIB
from vsa.upkeep.objects import Few, Objects, few_of, is_disjoint, union

GROUP_BYTES = 48 * MIB
"""What the indexes of the points that are looked at together may hold in memory, one point's at least."""

FRAME = np.dtype(
    [
        ("digest", np.void, 32),
        ("crc", np.uint32),
        ("pack", np.int32),
        ("offset", np.uint32),
        ("length", np.uint32),
        ("size", np.uint32),
    ]
)
"""A stored extent that some point leads to: `pack` is the object's number, `size` the raw length."""


class Sink(Protocol):
    """Takes the frames that points lead to; one may come more than once."""

    def add(self, frames: Rows) -> None: ...


class Contents(NamedTuple):
    """Which indexes, by number, make up a disk of some size."""

    disk_key: str
    size: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What contents need under the first `relocations` relocations of the log; sets of objects.

    `mentioned` are all packs and indexes that could lead elsewhere if something moved.
    """

    needed: Few
    mentioned: Few
    relocations: int


class Needs:
    """The needs of the points of one media. Not safe for many threads."""

    def __init__(self, media: Media, objects: Objects) -> None:
        self._media = media
        self._objects = objects
        self._refs: dict[int, IndexRef] = {}
        self._points: dict[int, tuple[tuple[Contents, ...], Few]] = {}
        self._found: dict[Contents, _Found] = {}

    def of_points(
        self, view: View, slots: Iterable[int], *, sink: Sink | None = None, progress: Progress = SILENT
    ) -> int:
        """Everything that these points need under a view, as a set. `sink` gets every frame of it.

        MediaDamaged if an index is not what the log says, or not there.
        """
        contents: dict[Contents, None] = {}
        needed: list[Few] = []
        for slot in slots:
            held, beside = self._point(view, slot)
            contents.update(dict.fromkeys(held))
            needed.append(beside)
        pending = [item for item in contents if sink is not None or not self._is_known(item, view)]
        self._scan(pending, view, sink, progress)
        return union([*needed, *(self._found[item].needed for item in contents)])

    def _point(self, view: View, slot: int) -> tuple[tuple[Contents, ...], Few]:
        """A point's contents, and what it keeps beside them. The log never changes what it said."""
        if slot not in self._points:
            point = view.points[slot].point
            held = tuple(
                Contents(item.disk.key, item.disk.size, tuple(map(self._index, item.indexes)))
                for item in point.disks
            )
            self._points[slot] = held, few_of(map(self._objects.number, _beside(point)))
        return self._points[slot]

    def _index(self, ref: IndexRef) -> int:
        number = self._objects.number_of(ref)
        self._refs[number] = ref
        return number

    def _is_known(self, contents: Contents, view: View) -> bool:
        found = self._found.get(contents)
        if found is None:
            return False
        for item in view.relocations[found.relocations :]:
            moved = (*item.entry.packs, *(copy.name for copy in item.entry.indexes))
            if not is_disjoint(found.mentioned, list(map(self._objects.number, moved))):
                return False
        self._found[contents] = replace(found, relocations=len(view.relocations))
        return True

    def _scan(self, pending: Sequence[Contents], view: View, sink: Sink | None, progress: Progress) -> None:
        groups = list(self._groups(pending))
        progress.started("reading indexes", sum(self._bytes(group) for group in groups))
        tables = {item.entry.table.name: item.entry.table for item in view.relocations if item.entry.table}
        try:
            for group in groups:
                _Group(self._media, self._objects, view, sink, tables=tables).scan(
                    [(item, [self._refs[number] for number in item.indexes]) for item in group], self._found
                )
                progress.advanced(self._bytes(group))
        finally:
            progress.finished()

    def _groups(self, pending: Sequence[Contents]) -> Iterator[list[Contents]]:
        by_disk: dict[str, list[Contents]] = {}
        for item in pending:
            by_disk.setdefault(item.disk_key, []).append(item)
        for items in by_disk.values():
            group: list[Contents] = []
            open_now: set[int] = set()
            held = 0
            for item in items:
                more = self._held(set(item.indexes) - open_now)
                if group and held + more > GROUP_BYTES:
                    yield group
                    group, open_now, held = [], set(), 0
                    more = self._held(set(item.indexes))
                group.append(item)
                open_now.update(item.indexes)
                held += more
            yield group

    def _held(self, indexes: Collection[int]) -> int:
        return sum(_held(self._refs[number]) for number in indexes)

    def _bytes(self, group: Sequence[Contents]) -> int:
        return sum(self._refs[number].size for number in {n for item in group for n in item.indexes})


class _Remembering(IndexFile):
    """An index that keeps the rows of the segment it was asked for last: neighbouring points share layers."""

    _last: tuple[int, Rows | None] = (-1, None)

    def rows(self, segment: int) -> Rows | None:
        if self._last[0] != segment:
            self._last = segment, super().rows(segment)
        return self._last[1]


class _Group:
    """Contents of one disk that are read side by side, every index opened once."""

    def __init__(
        self,
        media: Media,
        objects: Objects,
        view: View,
        sink: Sink | None,
        *,
        tables: Mapping[str, ObjectRef],
    ) -> None:
        self._media = media
        self._objects = objects
        self._view = view
        self._sink = sink
        self._files: dict[str, IndexFile] = {}
        self._tables = tables

    def scan(
        self, group: Sequence[tuple[Contents, Sequence[IndexRef]]], found: dict[Contents, _Found]
    ) -> None:
        layers = [
            _Layers(self._media.disk_index(refs, item.size, self._view, opened=self._open), self._objects)
            for item, refs in group
        ]
        for segment in sorted({number for layer in layers for number in layer.index.segments()}):
            self._segment(segment, layers)
        for (item, _), layer in zip(group, layers, strict=True):
            mentioned = few_of({*item.indexes, *layer.mentioned()})
            found[item] = _Found(few_of(layer.needed(self._tables)), mentioned, len(self._view.relocations))

    def _segment(self, segment: int, layers: Sequence[_Layers]) -> None:
        seen = np.zeros(0, np.int64)
        for layer in layers:
            frames = layer.frames(segment)
            if self._sink is None or not len(frames):
                continue
            places = (frames["pack"].astype(np.int64) << 32) | frames["offset"]
            _, first = np.unique(places, return_index=True)
            fresh = first[~np.isin(places[first], seen, assume_unique=True)]
            self._sink.add(frames[fresh])
            seen = np.concatenate([seen, places[fresh]])

    def _open(self, ref: IndexRef) -> IndexFile:
        if ref.name not in self._files:
            self._files[ref.name] = self._media.open_index(ref, kind=_Remembering)
        return self._files[ref.name]


class _Layers:
    """The contents of a disk at one point, and the packs that its rows have led to."""

    def __init__(self, index: DiskIndex, objects: Objects) -> None:
        self.index = index
        self._objects = objects
        self._used: set[int] = set()
        self._numbers = np.zeros(0, np.int32)

    def frames(self, segment: int) -> Rows:
        table = self.index.segment(segment)
        if table is None:
            return np.zeros(0, FRAME)
        frames = _frames(table, self._known_numbers())
        self._used.update(np.unique(frames["pack"]).tolist())
        return frames

    def needed(self, tables: Mapping[str, ObjectRef]) -> set[int]:
        """`tables` are those of all relocations, by their names."""
        refs = [*(file.ref for file in self.index.files), *(tables[name] for name in self.index.moves)]
        return {*self._used, *map(self._objects.number_of, refs)}

    def mentioned(self) -> set[int]:
        files = (self._objects.number_of(file.ref) for file in self.index.files)
        return {*files, *self._known_numbers().tolist()}

    def _known_numbers(self) -> npt.NDArray[np.int32]:
        """The number of each pack of the index; moves that were followed may have added some."""
        refs = [self.index.pack_ref(at) for at in range(len(self._numbers), len(self.index.packs))]
        if refs:
            more = [self._objects.number(ref.name, ref.size, ref.sha256) for ref in refs]
            self._numbers = np.append(self._numbers, np.array(more, np.int32))
        return self._numbers


def _frames(table: SegmentTable, numbers: npt.NDArray[np.int32]) -> Rows:
    stored = np.flatnonzero(table.pack != ZEROS)
    frames = np.zeros(len(stored), FRAME)
    frames["pack"] = numbers[table.pack[stored]]
    for name in ("offset", "length", "crc", "size"):
        frames[name] = getattr(table, name)[stored]
    frames["digest"] = np.ascontiguousarray(table.digest[stored]).view("V32").reshape(-1)
    return frames


def _beside(point: Point) -> Iterator[str]:
    """What no row leads to and goes only with its point: samples of digests, and records."""
    yield from (ref.name for item in point.disks for ref in item.digests)
    yield from (ref.name for ref in point.records)


def _held(ref: IndexRef) -> int:
    """Bytes that an open index keeps in memory, about: its footer parsed, and one segment's rows."""
    small = ref.size if ref.size <= FETCHED_WHOLE else 0
    return small + 3 * ref.footer + min(4 * ref.size, SEGMENT * ROW.itemsize)
