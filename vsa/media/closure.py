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
from vsa.model import DiskBackup, IndexRef, ObjectRef

OpenIndex = Callable[[Sequence[IndexRef], int, View], DiskIndex]
"""The contents of a disk of some size under a view."""


class Closure:
    """What a point with these disks needs. `view` is one under which it is about to be committed."""

    def __init__(
        self,
        store: Store,
        disks: Sequence[DiskBackup],
        view: View,
        opened: OpenIndex,
        *,
        records: Sequence[ObjectRef] = (),
    ) -> None:
        """BadRequest if an index is of another disk or lacks a pack that a disk lists; MediaDamaged if
        something is not there as it was stored. `records` are the packs that hold the point once more."""
        self._disks = disks
        self._records = frozenset(ref.name for ref in records)
        self._opened = opened
        for disk in disks:
            self._add(store, disk, opened(disk.indexes, disk.disk.size, view), view)

    def require(self, view: View) -> None:
        """ObjectsDoomed if the point may not follow this view: something it needs is doomed, or its run has
        led rows to frames of others that were found damaged."""
        require_undoomed([name for name in self._records if name in view.doomed])
        for disk in self._disks:
            # Under this very view: what has moved since may lead rows to packs that no index names.
            index = self._opened(disk.indexes, disk.disk.size, view)
            require_undoomed(_doomed(index, view))
            if damaged := sorted(set(self._newly_shared(disk, index, view))):
                raise ObjectsDoomed(f"{damaged[0]} was found damaged: read again what was found stored there")

    def _newly_shared(self, disk: DiskBackup, index: DiskIndex, view: View) -> Iterator[str]:
        """The packs with damaged frames that rows lead to which the parent does not have. What is carried on
        from the parent may be damaged: the new point is as good as that one."""
        bad = [name for name in index.may_need() if name in view.damaged]
        parent = _parent(disk, view)
        old = self._opened(parent.indexes, disk.disk.size, view) if bad and parent else None
        for table in index.tables() if bad else ():
            before = old.segment(table.first_extent // SEGMENT) if old else None
            numbers = [number for number, name in enumerate(index.packs) if name in view.damaged]
            for at in np.flatnonzero(np.isin(table.pack, numbers)).tolist():
                place = index.packs[table.pack[at]], int(table.offset[at])
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


def _doomed(index: DiskIndex, view: View) -> list[str]:
    """What a disk needs of what is doomed. A frame that has moved needs its new pack alone, so rows are read,
    but only if something that any row might need is doomed at all."""
    if not any(name in view.doomed for name in index.may_need()):
        return []
    if indexes := [file.ref.name for file in index.files if file.ref.name in view.doomed]:
        return indexes
    return [name for name in index.needs() if name in view.doomed]


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
