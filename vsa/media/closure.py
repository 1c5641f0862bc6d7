"""Everything that one disk of a point refers to: base and delta indexes, and the packs of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vsa.errors import BadRequest, MediaDamaged
from vsa.media.store import Store
from vsa.model import DiskBackup

if TYPE_CHECKING:
    from vsa.media.index import IndexDescription


def require_closure(store: Store, disk: DiskBackup, indexes: Sequence[IndexDescription]) -> frozenset[str]:
    """The names of all packs and indexes that the disk needs.

    `indexes` describe `disk.indexes`, whose digests were checked. BadRequest if they are of another disk or
    lack a pack that the point lists; MediaDamaged if an object is not there in its full size.
    """
    if not indexes:
        raise BadRequest(f"disk {disk.disk.name} has no index: a point must say where its contents are")
    for ref, about in zip(disk.indexes, indexes, strict=True):
        if about.disk_key != disk.disk.key:
            raise BadRequest(
                f"{ref.name} is of disk {about.disk_key}, but the point names it for {disk.disk.key}"
            )
    sizes = {pack.name: pack.size for about in indexes for pack in about.packs}
    if stray := set(disk.packs) - sizes.keys():
        raise BadRequest(f"disk {disk.disk.name} lists {min(stray)}, which none of its indexes refers to")
    sizes.update((ref.name, ref.size) for ref in disk.indexes)
    for name, size in sizes.items():
        if (found := store.size(name)) != size:
            raise MediaDamaged(f"{store.location}: {name} has {found} bytes, expected {size}")
    return frozenset(sizes)
