"""What recovery points need, object by object and exactly, from all rows of all their indexes.

Rows are read segment by segment. The points of a disk are looked at together, as many as fit into
`GROUP_BYTES`, because neighbours share most of their layers. What was found is kept for each list of
indexes and holds until a relocation moves frames of a pack that they mention; so deciding once more, for
another slot of the log, reads next to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vsa.errors import MediaDamaged
from vsa.media.index import ROW
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.media.pinned import FETCHED_WHOLE
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import IndexRef, Point
from vsa.progress import SILENT, Progress
from vsa.ranges import MIB
from vsa.upkeep.objects import Few, Objects, few_of, is_disjoint, set_of, union
from vsa.upkeep.scan import Contents, Found, Scan, Sink, Untold

GROUP_BYTES = 48 * MIB
"""What the indexes of the points that are looked at together may hold in memory, one point's at least."""

TOLD = 5
"""Reasons that a message gives; there may be one for each of thousands of indexes."""


class Known(NamedTuple):
    """What points need as far as that can be read: `needed` is all of it if nothing is untold."""

    needed: int
    untold: tuple[Untold, ...]

    @property
    def harmed(self) -> tuple[int, ...]:
        """The points of which it is not known what they need."""
        return tuple(sorted({slot for item in self.untold for slot in item.slots}))

    @property
    def reasons(self) -> str:
        """Why not, in words: each of the first few reasons once."""
        found = list(dict.fromkeys(item.reason for item in self.untold))
        more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
        return f"{'; '.join(found[:TOLD])}{more}"


class Needs:
    """The needs of the points of one media. Not safe for many threads."""

    def __init__(self, media: Media, objects: Objects) -> None:
        self._media = media
        self._objects = objects
        self._regained: dict[str, Store] = {}
        self._refs: dict[int, IndexRef] = {}
        self._points: dict[int, tuple[tuple[Contents, ...], Few]] = {}
        self._found: dict[Contents, Found] = {}

    def of_points(
        self, view: View, slots: Iterable[int], *, sink: Sink | None = None, progress: Progress = SILENT
    ) -> int:
        """Everything that these points need under a view, as a set. `sink` gets every frame of it.

        MediaDamaged if an index is not what the log says, or not there.
        """
        known = self.known(view, slots, sink=sink, progress=progress)
        if known.untold:
            points = ", ".join(map(str, known.harmed))
            raise MediaDamaged(f"what points {points} need cannot be read: {known.reasons}")
        return known.needed

    def known(
        self, view: View, slots: Iterable[int], *, sink: Sink | None = None, progress: Progress = SILENT
    ) -> Known:
        """The same as far as indexes and moves can be read, and what cannot."""
        contents: dict[Contents, list[int]] = {}
        needed: list[Few] = []
        for slot in slots:
            held, beside = self._point(view, slot)
            for item in held:
                contents.setdefault(item, []).append(slot)
            needed.append(beside)
        pending = [item for item in contents if sink is not None or not self._is_known(item, view)]
        hidden = self._scan(pending, view, sink, progress)
        needed += [self._found[item].needed for item in contents if item not in hidden]
        untold = (replace(why, slots=tuple(contents[item])) for item, why in hidden.items())
        return Known(union(needed), tuple(untold))

    def named_indexes(self, view: View, slots: Iterable[int]) -> int:
        """The indexes that these points name, also those that copies stand in for, as a set."""
        contents = (item for slot in slots for item in self._point(view, slot)[0])
        return set_of({number for item in contents for number in item.indexes})

    def regain(self, names: Iterable[str], store: Store) -> None:
        """Read these indexes from another store from now on, for they cannot be read from the media."""
        self._regained.update(dict.fromkeys(names, store))

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

    def _scan(
        self, pending: Sequence[Contents], view: View, sink: Sink | None, progress: Progress
    ) -> dict[Contents, Untold]:
        """Find what contents need; what keeps it from being found, of those of which something does."""
        groups = list(self._groups(pending))
        hidden: dict[Contents, Untold] = {}
        tables = {item.entry.table.name: item.entry.table for item in view.relocations if item.entry.table}
        progress.started("reading indexes", sum(self._bytes(group) for group in groups))
        try:
            for group in groups:
                scan = Scan(self._media, self._objects, view, sink, tables=tables, regained=self._regained)
                refs = [(item, [self._refs[number] for number in item.indexes]) for item in group]
                hidden |= scan.run(refs, self._found)
                progress.advanced(self._bytes(group))
        finally:
            progress.finished()
        return hidden

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


def _beside(point: Point) -> Iterator[str]:
    """What no row leads to and goes only with its point: samples of digests, and records."""
    yield from (ref.name for item in point.disks for ref in item.digests)
    yield from (ref.name for ref in point.records)


def _held(ref: IndexRef) -> int:
    """Bytes that an open index keeps in memory, about: its footer parsed, and one segment's rows."""
    small = ref.size if ref.size <= FETCHED_WHOLE else 0
    return small + 3 * ref.footer + min(4 * ref.size, SEGMENT * ROW.itemsize)
