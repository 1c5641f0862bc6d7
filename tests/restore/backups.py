"""Real backup media with real recovery points, and the disks that restores of them must give."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.subclient.builders import a_source_disk, a_vm
from vsa.media.entries import PointEntry
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.media.wrapping import WrappingKey
from vsa.model import (
    DiskBackup,
    DiskFigures,
    IndexRef,
    Intent,
    Method,
    Point,
    ProcessName,
    Reason,
    SnapshotRef,
    SourceDisk,
    Vm,
)

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
EXTENT = 4096

Extents = Mapping[int, bytes | None]
"""New contents of extents by number; None clears one."""


@dataclass(frozen=True)
class Stored:
    """What is on the media of one disk."""

    indexes: tuple[IndexRef, ...]
    packs: tuple[str, ...] = ()


NOTHING = Stored(())


class Backups:
    """Backs up disks given as extents, by way of the media's own writer."""

    def __init__(self, folder: Path, *, extent_size: int = EXTENT, key: WrappingKey | None = None) -> None:
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        self.location = folder / "media"
        self.media = Media.create(str(self.location), extent_size=extent_size, now=NOW, wrapping=key)
        self._runs = 0

    def run(self, vm: Vm) -> str:
        self._runs += 1
        run = f"run-{self._runs}"
        self.media.begin_run(
            Intent(
                run=run,
                job="job-1",
                vm_key=vm.key,
                vm_name=vm.name,
                subclient="nightly",
                started_at=NOW,
                process=ProcessName(host="host", boot="b", id=1, started="then"),
            )
        )
        return run

    def store(self, run: str, disk: SourceDisk, extents: Extents, *, upon: Stored = NOTHING) -> Stored:
        """Write the extents as a base index, or as a delta upon what is stored already."""
        writer = self.media.disk_writer(
            run=run,
            disk_key=disk.key,
            disk_size=disk.size,
            kind=IndexKind.DELTA if upon.indexes else IndexKind.BASE,
            scratch=self._scratch,
        )
        for extent, data in sorted(extents.items()):
            if data is None:
                writer.clear(extent)
            else:
                writer.put(extent, memoryview(data), *writer.fingerprint(data))
        for segment in sorted({extent // SEGMENT for extent in extents}):
            writer.end_segment(segment)
        written = writer.finish()
        added = () if written.index is None else (written.index,)
        return Stored(upon.indexes + added, upon.packs + written.packs)

    def backup(self, disk: SourceDisk, stored: Stored, **given: Any) -> DiskBackup:
        snapshot = SnapshotRef(
            disk_key=disk.key,
            kind=disk.kind,
            id=f"/snapshots/of-{disk.name}",
            family="family",
            source_unique_id=disk.unique_id,
            taken_at=NOW,
            size=disk.size,
        )
        return DiskBackup(
            **{
                "disk": disk,
                "snapshot": snapshot,
                "method": Method.FULL,
                "reason": Reason.FULL_FIRST,
                "indexes": stored.indexes,
                "packs": stored.packs,
                "figures": DiskFigures(size=disk.size, read=disk.size, stored=1234),
                "proxy": "proxy-1",
                **given,
            }
        )

    def one_disk(self, extents: Extents, **given: Any) -> DiskBackup:
        """A backup of one disk on its own, without a recovery point."""
        disk = a_source_disk(**given)
        return self.backup(disk, self.store(self.run(a_vm()), disk, extents))

    def commit(self, run: str, vm: Vm, disks: Sequence[DiskBackup], **given: Any) -> int:
        point = Point(vm=vm, subclient="nightly", job="job-1", disks=tuple(disks), **given)
        return self.media.append(PointEntry(point=point), run=run)

    def point(self, vm: Vm, disks: Mapping[SourceDisk, Extents], **given: Any) -> int:
        """A recovery point of a VM with these disks; returns its slot."""
        run = self.run(vm)
        backups = [self.backup(disk, self.store(run, disk, extents)) for disk, extents in disks.items()]
        return self.commit(run, vm, backups, **given)


def image_of(size: int, *layers: Extents, extent_size: int = EXTENT) -> bytes:
    """The disk that these layers of extents, later over earlier, describe."""
    disk = bytearray(size)
    for layer in layers:
        for extent, data in layer.items():
            at = extent * extent_size
            end = min(at + extent_size, size)
            disk[at:end] = bytes(end - at) if data is None else data.ljust(end - at, b"\0")
    return bytes(disk)


def names_in(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())
