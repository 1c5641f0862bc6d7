"""Contents of a disk that are read side by side, segment by segment, and what keeps them from being read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vsa.errors import MediaDamaged
from vsa.media.disk_index import DiskIndex, SegmentTable
from vsa.media.index import ZEROS, IndexFile, open_index
from vsa.media.media import Media
from vsa.media.parquet import Rows
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import IndexRef, ObjectRef
from vsa.upkeep.objects import Few, Objects, few_of

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
class Found:
    """What contents need under the first `relocations` relocations of the log; sets of objects.

    `mentioned` are all packs and indexes that could lead elsewhere if something moved.
    """

    needed: Few
    mentioned: Few
    relocations: int


@dataclass(frozen=True, slots=True)
class Untold:
    """Contents that something unreadable hides, and the points that hold them, in log order.

    `indexes` are those that cannot be read, as the view leads to them; none if it is a table of moves.
    """

    slots: tuple[int, ...]
    indexes: tuple[IndexRef, ...]
    reason: str


class _Remembering(IndexFile):
    """An index that keeps the rows of the segment it was asked for last: neighbouring points share layers."""

    is_readable = True
    _last: tuple[int, Rows | None] = (-1, None)

    def rows(self, segment: int) -> Rows | None:
        if self._last[0] != segment:
            try:
                self._last = segment, super().rows(segment)
            except MediaDamaged:
                self.is_readable = False
                raise
        return self._last[1]


class Scan:
    """Contents of one disk that are read side by side, every index opened once."""

    def __init__(
        self,
        media: Media,
        objects: Objects,
        view: View,
        sink: Sink | None,
        *,
        tables: Mapping[str, ObjectRef],
        regained: Mapping[str, Store],
    ) -> None:
        self._media = media
        self._objects = objects
        self._view = view
        self._sink = sink
        self._files: dict[str, _Remembering | MediaDamaged] = {}
        self._tables = tables
        self._regained = regained
        self._reasons: dict[Contents, str] = {}

    def run(
        self, group: Sequence[tuple[Contents, Sequence[IndexRef]]], found: dict[Contents, Found]
    ) -> dict[Contents, Untold]:
        """Add what the contents need to `found`; what could not be read of the others."""
        layers: dict[Contents, _Layers] = {}
        for item, refs in group:
            with self._noting(item):
                index = self._media.disk_index(refs, item.size, self._view, opened=self._open)
                layers[item] = _Layers(index, self._objects)
        for segment in sorted({number for layer in layers.values() for number in layer.index.segments()}):
            self._segment(segment, layers)
        for item, layer in layers.items():
            if item not in self._reasons:
                mentioned = few_of({*item.indexes, *layer.mentioned()})
                needed = few_of(layer.needed(self._tables))
                found[item] = Found(needed, mentioned, len(self._view.relocations))
        return {item: self._untold(item, refs) for item, refs in group if item in self._reasons}

    def _segment(self, segment: int, layers: Mapping[Contents, _Layers]) -> None:
        seen = np.zeros(0, np.int64)
        for item, layer in layers.items():
            frames = np.zeros(0, FRAME)
            if item not in self._reasons:
                with self._noting(item):
                    frames = layer.frames(segment)
            if self._sink is None or not len(frames):
                continue
            places = (frames["pack"].astype(np.int64) << 32) | frames["offset"]
            _, first = np.unique(places, return_index=True)
            fresh = first[~np.isin(places[first], seen, assume_unique=True)]
            self._sink.add(frames[fresh])
            seen = np.concatenate([seen, places[fresh]])

    @contextmanager
    def _noting(self, contents: Contents) -> Iterator[None]:
        """Remember why contents cannot be read, and go on with the others."""
        try:
            yield
        except MediaDamaged as error:
            self._reasons[contents] = str(error)

    def _untold(self, contents: Contents, refs: Iterable[IndexRef]) -> Untold:
        """Which of its indexes cannot be read: also those that were not yet asked for."""
        sound = self._view.sound_indexes()
        lost = tuple(ref for ref in (sound.get(ref.name, ref) for ref in refs) if not self._is_readable(ref))
        return Untold((), lost, self._reasons[contents])

    def _is_readable(self, ref: IndexRef) -> bool:
        with suppress(MediaDamaged):
            return self._open(ref).is_readable
        return False

    def _open(self, ref: IndexRef) -> _Remembering:
        if ref.name not in self._files:
            try:
                self._files[ref.name] = self._opened(ref)
            except MediaDamaged as error:
                self._files[ref.name] = error
        file = self._files[ref.name]
        if isinstance(file, MediaDamaged):
            raise file
        return file

    def _opened(self, ref: IndexRef) -> _Remembering:
        media = self._media
        return open_index(
            self._regained.get(ref.name, media.store),
            ref,
            media_id=media.id,
            extent_size=media.extent_size,
            overhead=media.codec.overhead,
            kind=_Remembering,
        )


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
