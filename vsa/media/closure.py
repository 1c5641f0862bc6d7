"""Everything that a point refers to, proven before it is committed (docs/media-format.md, "Commit")."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from vsa.errors import BadRequest, MediaDamaged, ObjectMissing, ObjectsDoomed
from vsa.media.disk_index import DiskIndex
from vsa.media.index import IndexFile, PackRef
from vsa.media.layout import SEGMENT
from vsa.media.pinned import require_stored
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import DiskBackup, IndexRef, Point

OpenIndex = Callable[[Sequence[IndexRef], int, View], DiskIndex]
"""The contents of a disk of some size under a view."""


class Closure:
    """What a point needs. `view` is one under which it is about to be committed."""

    def __init__(self, store: Store, point: Point, view: View, opened: OpenIndex) -> None:
        """BadRequest if an index is of another disk or lacks a pack that the point lists; MediaDamaged if
        something is not there as it was stored."""
        self._disks = point.disks
        self._records = frozenset(ref.name for ref in point.records)
        self._opened = opened
        self._names: set[str] = set()
        self._names.update(self._records)
        for disk in point.disks:
            self._add(store, disk, opened(disk.indexes, disk.disk.size, view), view)

    def require(self, view: View) -> None:
        """ObjectsDoomed if the point may not follow this view: something it needs is doomed, or its run has
        led rows to frames of others that were found damaged."""
        require_undoomed(self._doomed(view))
        if damaged := sorted({name for disk in self._disks for name in self._newly_shared(disk, view)}):
            raise ObjectsDoomed(f"{damaged[0]} was found damaged: read again what was found stored there")

    def _doomed(self, view: View) -> frozenset[str]:
        """A frame that has moved needs its new pack alone, so rows are read, but only if something that any
        row might need is doomed at all."""
        if not any(name in view.doomed for name in self._names):
            return frozenset()
        needs = [self._opened(disk.indexes, disk.disk.size, view).needs() for disk in self._disks]
        return frozenset(name for names in (self._records, *needs) for name in names if name in view.doomed)

    def _newly_shared(self, disk: DiskBackup, view: View) -> Iterator[str]:
        """The packs with damaged frames that rows lead to which the parent does not have. What is carried on
        from the parent may be damaged: the new point is as good as that one."""
        new = self._opened(disk.indexes, disk.disk.size, view)
        bad = [number for number, name in enumerate(new.packs) if name in view.damaged]
        parent = _parent(disk, view)
        old = self._opened(parent.indexes, disk.disk.size, view) if bad and parent else None
        for table in new.tables() if bad else ():
            before = old.segment(table.first_extent // SEGMENT) if old else None
            for at in np.flatnonzero(np.isin(table.pack, bad)).tolist():
                place = new.packs[table.pack[at]], int(table.offset[at])
                carried = old and before and place == (old.packs[before.pack[at]], int(before.offset[at]))
                if view.is_damaged(*place) and not carried:
                    yield place[0]

    def _add(self, store: Store, disk: DiskBackup, index: DiskIndex, view: View) -> None:
        parent = _parent(disk, view)
        inherited = frozenset(parent.indexes) if parent else frozenset()
        for file in index.files:
            _require_disk(disk, file)
            # What an earlier point needs was proven for that point, and is there as long as it is not doomed.
            if file.ref not in inherited:
                require_stored(store, file.ref)
                for pack in file.description.packs:
                    _require_pack(store, pack, index, view)
        listed = {pack.name for file in index.files for pack in file.description.packs}
        if stray := set(disk.packs) - listed:
            raise BadRequest(f"disk {disk.disk.name} lists {min(stray)}, which none of its indexes refers to")
        self._names |= {file.ref.name for file in index.files} | set(index.packs) | index.moves


def require_undoomed(doomed: Collection[str]) -> None:
    """ObjectsDoomed if there are any."""
    if doomed:
        raise ObjectsDoomed(
            f"{min(doomed)} and {len(doomed) - 1} more that are needed are being deleted: "
            "read those extents again from the snapshot"
        )


def _parent(disk: DiskBackup, view: View) -> DiskBackup | None:
    """The disk in the point that its backup builds on, if that point still stands."""
    made = view.points.get(-1 if disk.parent is None else disk.parent)
    older = made.point.disks if made is not None else ()
    return next((backup for backup in older if backup.disk.key == disk.disk.key), None)


def _require_disk(disk: DiskBackup, file: IndexFile) -> None:
    if file.description.disk_key != disk.disk.key:
        raise BadRequest(
            f"{file.ref.name} is of disk {file.description.disk_key}, "
            f"but the point names it for {disk.disk.key}"
        )


def _require_pack(store: Store, pack: PackRef, index: DiskIndex, view: View) -> None:
    """A pack may be gone, if all that the disk has of it lies elsewhere now."""
    try:
        found = store.size(pack.name)
    except ObjectMissing:
        if pack.name not in index.needs():
            return
        require_undoomed({pack.name} & view.doomed)
        raise
    if found != pack.size:
        raise MediaDamaged(f"{store.location}: {pack.name} has {found} bytes, expected {pack.size}")
