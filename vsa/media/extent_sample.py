"""The sample of a media: which sampled digests its newest points hold, in which segment of which index.

Sparse indexing (Lillibridge et al., FAST '09): neighbours that were stored together are met together again,
so one digest of 64 is enough to find the other 63.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vsa.errors import VsaError
from vsa.media.digests import DigestsDescription
from vsa.media.index import Offer
from vsa.media.parquet import Rows
from vsa.media.view import View
from vsa.model import IndexRef, ObjectRef
from vsa.threads import Threads

_log = logging.getLogger(__name__)

SAMPLE_ROWS = 4 * 1024 * 1024
"""Sampled digests in memory: those of 16 TiB of distinct extents of 64 KiB, in 64 MiB."""
SAMPLE_OBJECTS = 4096
"""Digests objects that one process reads when it opens the sample; each is one small request."""
_READERS = 8
"""Objects fetched at a time: what counts is how long a store takes to answer."""
_ROW_BYTES = 10
"""What a row takes in an object, about: digests do not compress."""

OpenDigests = Callable[[ObjectRef], tuple[DigestsDescription, Rows]]


@dataclass(frozen=True, slots=True)
class Spot:
    """One segment of one index."""

    index: IndexRef
    segment: int


class ExtentSample:
    """The sample of the newest point of each disk, newest first up to its bounds; not for many writers.

    `find` may be called by many threads while one calls `refresh`.
    """

    def __init__(
        self, opened: OpenDigests, *, rows: int = SAMPLE_ROWS, objects: int = SAMPLE_OBJECTS
    ) -> None:
        self._opened = opened
        self._most_rows = rows
        self._most_objects = objects
        self._indexes: dict[str, IndexRef | None] = {}
        """By the name of each digests object that was looked at; None if it is of no use."""
        self._named: dict[int, tuple[ObjectRef, ...]] = {}
        """The digests objects that the point of a slot names."""
        self._sample = _Sorted.of([], [], rows)

    def refresh(self, view: View) -> None:
        """Take in what was committed since the last call, and let go of what is no longer the newest."""
        wanted = list(self._affordable(view))
        names = {ref.name for ref in wanted}
        new = [ref for ref in wanted if ref.name not in self._indexes]
        if not new and names == self._indexes.keys():
            return
        with Threads(_READERS) as threads:
            read = list(threads.map(self._read, new))
        for ref, found in zip(new, read, strict=True):
            self._indexes[ref.name] = found[0].index if found else None
        kept = {name: index for name, index in self._indexes.items() if name in names}
        # Newest first: of two places that hold the same extent, the first one counts.
        self._sample = self._sample.replaced(
            (item for item in read if item), {index.name for index in kept.values() if index}, self._most_rows
        )
        self._indexes = kept

    def find(self, key: int) -> Spot | None:
        """Where the newest index that has it holds an extent whose sampled digest has this key."""
        return self._sample.find(key)

    def __len__(self) -> int:
        return len(self._sample.keys)

    @property
    def size(self) -> int:
        """Bytes of the sample in memory."""
        sample = self._sample
        return sample.keys.nbytes + sample.index.nbytes + sample.segment.nbytes

    def _affordable(self, view: View) -> Iterator[ObjectRef]:
        """The digests objects of the newest points, as long as there is room for them."""
        room = self._most_rows * _ROW_BYTES
        for number, ref in enumerate(self._newest(view)):
            room -= ref.size
            if number >= self._most_objects or room < 0:
                _log.warning(
                    "%d digests objects fill the memory for them: older extents are stored again", number
                )
                return
            yield ref

    def _newest(self, view: View) -> Iterator[ObjectRef]:
        """The digests objects of each disk's newest point, newest point first.

        An index takes over older ones, and its sample is of all its rows; so these are few for a disk,
        however many points it has, and hold what the disk held last.
        """
        slots = view.newest_points()
        # A point is unpacked once: there are many, and few are new from one stream to the next.
        self._named = {
            slot: self._named[slot] if slot in self._named else _digests_of(view, slot) for slot in slots
        }
        # Of two disks of a point one may have a newer point: naming its older objects as well harms nobody.
        return (ref for slot in slots for ref in self._named[slot])

    def _read(self, ref: ObjectRef) -> tuple[DigestsDescription, Rows] | None:
        try:
            return self._opened(ref)
        except VsaError as error:
            _log.warning("extents that %s knows of will be stored again: %s", ref.name, error)
            return None


class _Sorted:
    """Keys in ascending order, each once, with the number of their index and their segment."""

    def __init__(self, rows: Rows, indexes: list[IndexRef]) -> None:
        self.keys = np.ascontiguousarray(rows["key"]).data
        self.index = np.ascontiguousarray(rows["index"])
        self.segment = np.ascontiguousarray(rows["segment"])
        self._indexes = indexes

    @classmethod
    def of(cls, parts: Iterable[Rows], indexes: list[IndexRef], most: int) -> _Sorted:
        """Of equal keys the first; of too many those of the first indexes."""
        rows = np.concatenate([np.zeros(0, _ROW), *parts])
        _, first = np.unique(rows["key"], return_index=True)
        rows = rows[first]
        if len(rows) > most:
            rows = rows[np.sort(np.argsort(rows["index"], kind="stable")[:most])]
        return cls(rows, indexes)

    def find(self, key: int) -> Spot | None:
        at = bisect_left(self.keys, key)
        if at == len(self.keys) or self.keys[at] != key:
            return None
        return Spot(self._indexes[self.index[at]], int(self.segment[at]))

    def replaced(self, new: Iterable[tuple[DigestsDescription, Rows]], kept: set[str], most: int) -> _Sorted:
        """With new samples, and without those of indexes that are not kept."""
        parts: list[Rows] = []
        indexes: list[IndexRef] = []
        for about, sample in new:
            parts.append(_numbered(sample, len(indexes), salt(about.offer, about.client)))
            indexes.append(about.index)
        old = [number for number, index in enumerate(self._indexes) if index.name in kept]
        parts.append(self._renumbered(old, len(indexes)))
        indexes += [self._indexes[number] for number in old]
        return _Sorted.of(parts, indexes, most)

    def _renumbered(self, old: list[int], start: int) -> Rows:
        numbers = np.full(len(self._indexes) + 1, -1, np.int64)
        numbers[old] = np.arange(start, start + len(old))
        stays = numbers[self.index] >= 0
        rows: Rows = np.zeros(int(np.count_nonzero(stays)), _ROW)
        rows["key"] = np.asarray(self.keys)[stays]
        rows["index"], rows["segment"] = numbers[self.index[stays]], self.segment[stays]
        return rows


_ROW = np.dtype([("key", np.uint64), ("index", np.uint32), ("segment", np.uint16)])


def _numbered(sample: Rows, index: int, salted: int) -> Rows:
    rows: Rows = np.zeros(len(sample), _ROW)
    rows["key"] = sample["digest"] ^ np.uint64(salted)
    rows["index"], rows["segment"] = index, sample["segment"]
    return rows


def _digests_of(view: View, slot: int) -> tuple[ObjectRef, ...]:
    """Topmost layers first: they are the newest."""
    return tuple(ref for backup in view.points[slot].point.disks for ref in reversed(backup.digests))


def salt(offer: Offer, client: str) -> int:
    """What keys are mixed with, so that one client's extents are found by that client alone."""
    if offer is Offer.MEDIA:
        return 0
    return int.from_bytes(hashlib.sha256(f"{offer}:{client}".encode()).digest()[:8], "big")
