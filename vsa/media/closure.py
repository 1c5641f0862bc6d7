"""Everything that a point refers to, proven before it is committed (docs/media-format.md, "Commit")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vsa.errors import BadRequest, MediaDamaged
from vsa.media.disk_index import DiskIndex
from vsa.media.index import IndexFile, PackRef
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
        self._records = point.records
        self._opened = opened
        self._names: set[str] = set()
        self._names.update(point.records)
        for disk in point.disks:
            self._add(store, disk, opened(disk.indexes, disk.disk.size, view), _inherited(disk, view))

    def doomed(self, view: View) -> frozenset[str]:
        """What of it is doomed. A frame that has moved needs its new pack alone, so rows are read, but only
        if something that any row might need is doomed at all."""
        if self._names.isdisjoint(view.doomed):
            return frozenset()
        needs = (self._opened(disk.indexes, disk.disk.size, view).needs() for disk in self._disks)
        return frozenset(self._records).union(*needs) & view.doomed

    def _add(self, store: Store, disk: DiskBackup, index: DiskIndex, inherited: frozenset[IndexRef]) -> None:
        for file in index.files:
            _require_disk(disk, file)
            # What an earlier point needs was proven for that point, and is there as long as it is not doomed.
            if file.ref not in inherited:
                require_stored(store, file.ref)
                for pack in file.description.packs:
                    _require_pack(store, pack)
        listed = {pack.name for file in index.files for pack in file.description.packs}
        if stray := set(disk.packs) - listed:
            raise BadRequest(f"disk {disk.disk.name} lists {min(stray)}, which none of its indexes refers to")
        self._names |= {file.ref.name for file in index.files} | set(index.packs) | index.moves


def _inherited(disk: DiskBackup, view: View) -> frozenset[IndexRef]:
    """The indexes of the point that the backup builds on, if that point still stands."""
    made = view.points.get(-1 if disk.parent is None else disk.parent)
    older = made.point.disks if made is not None else ()
    return frozenset(ref for backup in older if backup.disk.key == disk.disk.key for ref in backup.indexes)


def _require_disk(disk: DiskBackup, file: IndexFile) -> None:
    if file.description.disk_key != disk.disk.key:
        raise BadRequest(
            f"{file.ref.name} is of disk {file.description.disk_key}, "
            f"but the point names it for {disk.disk.key}"
        )


def _require_pack(store: Store, pack: PackRef) -> None:
    if (found := store.size(pack.name)) != pack.size:
        raise MediaDamaged(f"{store.location}: {pack.name} has {found} bytes, expected {pack.size}")
