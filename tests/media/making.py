"""Builders for media tests: nouns only a test's point spelled out; and whole backups of dict disks."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vsa.media.descriptor import read_descriptor
from vsa.media.disk_index import DiskIndex
from vsa.media.disk_writer import WrittenDisk, samples_of
from vsa.media.entries import PointEntry
from vsa.media.index import ZEROS
from vsa.media.key_ring import unlock
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.media.sharing import Sharing
from vsa.media.store import Store
from vsa.media.wrapping import Passphrase, ScryptCost, WrappingKey
from vsa.model import (
    DiskBackup,
    DiskFigures,
    DiskKind,
    DiskRole,
    IndexRef,
    Intent,
    Method,
    ObjectRef,
    Point,
    ProcessName,
    Reason,
    SnapshotRef,
    SourceDisk,
    Vm,
)
from vsa.secret import Secret

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
EXTENT = 4096

Contents = Mapping[int, bytes | None]
"""Bytes of extents by number; None clears."""


def a_key(words: str = "correct horse battery staple") -> Passphrase:
    """A passphrase that costs a test nothing."""
    return Passphrase(Secret(words), cost=ScryptCost(log2_n=10))


KEYS: list[Passphrase | None] = [None, a_key()]
"""For tests of what is the same on unsealed and on sealed media."""


def named_key(key: Passphrase | None) -> str:
    return "sealed" if key else "unsealed"


def new_media(folder: Path, *, extent_size: int = EXTENT, key: WrappingKey | None = None) -> Media:
    return Media.create(str(folder), extent_size=extent_size, now=NOW, wrapping=key)


def media_in(store: Store, *, key: WrappingKey | None = None) -> Media:
    """Existing media in a store of the test's own, open for writing."""
    if key is None:
        return Media(store, write=True)
    unlocked = unlock(store, *read_descriptor(store), key, random=os.urandom)
    return Media(store, write=True, unlocked=unlocked)


def an_intent(run: str, **given: Any) -> Intent:
    fields = {
        "run": run,
        "job": "job-1",
        "vm_key": "vm",
        "vm_name": "vm",
        "subclient": "all",
        "started_at": NOW,
        "process": ProcessName(host="proxy-1", boot="b", id=1, started="1"),
    }
    return Intent(**{**fields, **given})


def a_vm(name: str = "web") -> Vm:
    return Vm(
        resource_id=f"/vms/{name}",
        vm_id=f"id-{name}",
        name=name,
        resource_group="rg",
        subscription_id="sub",
        region="westeurope",
        size="D2",
        os_type="Linux",
        power_state="running",
    )


def a_disk(name: str = "os", *, size: int = 1 << 20) -> SourceDisk:
    return SourceDisk(
        name=name,
        role=DiskRole.OS,
        lun=None,
        kind=DiskKind.MANAGED,
        source=f"/disks/{name}",
        unique_id=f"unique-{name}",
        size=size,
        sku="Premium_LRS",
        region="westeurope",
        resource_group="rg",
    )


def a_snapshot(disk: SourceDisk, name: str = "snap") -> SnapshotRef:
    return SnapshotRef(
        disk_key=disk.key,
        kind=disk.kind,
        id=f"/snapshots/{name}",
        source_unique_id=disk.unique_id,
        taken_at=NOW,
        size=disk.size,
    )


def a_point(
    disk: SourceDisk,
    indexes: Sequence[IndexRef],
    *,
    packs: Sequence[str] = (),
    digests: Sequence[ObjectRef] = (),
    bases: Sequence[SnapshotRef] = (),
    vm: str = "web",
    parent: int | None = None,
) -> PointEntry:
    backup = DiskBackup(
        disk=disk,
        snapshot=a_snapshot(disk),
        method=Method.CBT,
        reason=Reason.CBT,
        parent=parent,
        indexes=tuple(indexes),
        packs=tuple(packs),
        digests=tuple(digests),
        figures=DiskFigures(size=disk.size),
        proxy="proxy-1",
    )
    return PointEntry(
        point=Point(vm=a_vm(vm), subclient="all", job="job-1", disks=(backup,), bases=tuple(bases))
    )


def write_disk(
    media: Media,
    contents: Contents,
    *,
    run: str,
    disk: SourceDisk,
    scratch: Path,
    kind: IndexKind = IndexKind.BASE,
    parent: DiskIndex | None = None,
    sharing: Sharing | None = None,
    client: str = "vm",
) -> WrittenDisk:
    """One attempt that gives every extent in `contents`, segment by segment."""
    writer = media.disk_writer(
        run=run,
        disk_key=disk.key,
        disk_size=disk.size,
        kind=kind,
        scratch=scratch,
        parent=parent,
        sharing=sharing.of(client) if sharing else None,
    )
    for extent, data in sorted(contents.items()):
        if data is None:
            writer.clear(extent)
        else:
            writer.put(extent, memoryview(data), *writer.fingerprint(data))
    for segment in sorted({extent // SEGMENT for extent in contents}):
        writer.end_segment(segment)
    return writer.finish()


def back_up(
    media: Media,
    contents: Contents,
    *,
    run: str,
    scratch: Path,
    disk: SourceDisk | None = None,
    base: Sequence[IndexRef] = (),
    parent: int | None = None,
    started_at: dt.datetime = NOW,
    sharing: Sharing | None = None,
    absorbs: bool = False,
) -> int:
    """A whole run, from its intent to its committed point; a delta if a base is given.

    `parent` is the slot of the point whose indexes the base is. The new index absorbs layers of the base,
    as a job's does, only if it is told so: else tests have the layers that they speak of.
    """
    disk = disk or a_disk()
    media.begin_run(an_intent(run, started_at=started_at))
    kind = IndexKind.DELTA if base else IndexKind.BASE
    older = media.disk_index(base, disk.size) if base and absorbs else None
    written = write_disk(
        media, contents, run=run, disk=disk, scratch=scratch, kind=kind, parent=older, sharing=sharing
    )
    if older is None:
        written = replace(written, indexes=(*base, *([written.index] if written.index else ())))
    before = media.view().points.get(-1 if parent is None else parent)
    digests = samples_of(written, before.point.disks[0].digests if before else ())
    entry = a_point(disk, written.indexes, packs=written.packs, digests=digests, parent=parent)
    return media.append(entry, run=run)


def read_disk(media: Media, indexes: Sequence[IndexRef], size: int) -> dict[int, bytes]:
    """The extents of a disk that hold data, through the media's own reader."""
    index = media.disk_index(indexes, size)
    found: dict[int, bytes] = {}
    for number in index.segments():
        table = index.segment(number)
        assert table is not None
        stored = np.flatnonzero(table.pack != ZEROS).tolist()
        for position, data in media.extent_reader().read(index, table, stored):
            found[table.first_extent + position] = data
    return found


def read_point(media: Media, slot: int) -> dict[int, bytes]:
    """The first disk of a committed point."""
    backup = media.view().points[slot].point.disks[0]
    return read_disk(media, backup.indexes, backup.disk.size)


def noise(seed: object, length: int = EXTENT) -> bytes:
    """Bytes that no compressor shrinks, the same for the same seed."""
    return hashlib.shake_128(repr(seed).encode()).digest(length)


def text(seed: object, length: int = EXTENT) -> bytes:
    """Bytes that compress well, the same for the same seed."""
    return (f"{seed} lorem ipsum ".encode() * length)[:length]


def objects(folder: Path) -> set[str]:
    """Names of all objects of a folder store, by looking at the folder."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(name) for name in found if not str(name).startswith(".tmp")}


def temporaries(folder: Path) -> list[str]:
    """Unfinished files that were left behind."""
    return [path.name for path in (folder / ".tmp").glob("*")]


def flip_bit(path: Path, bit: int) -> None:
    """Change one bit of a stored object behind the store's back."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
