"""What a log may say of disks, with only what a test is about spelled out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from tests.subclient.builders import a_source_disk, a_vm
from vsa.media.entries import Entry, EntryBody, PointEntry
from vsa.media.view import View
from vsa.model import (
    DiskBackup,
    DiskFigures,
    DiskKind,
    IndexRef,
    Method,
    Point,
    Reason,
    SnapshotRef,
    SourceDisk,
    Vm,
)

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
INDEX = IndexRef(name="runs/r/index/d.parquet", size=9, sha256="0" * 64, footer=8, footer_sha256="0" * 64)


def a_snapshot(disk: SourceDisk, **given: Any) -> SnapshotRef:
    managed = {"id": "/snapshots/s", "family": f"family of {disk.unique_id}"}
    unmanaged = {"id": disk.source, "moment": "2026-03-01T12:00:00.0000000Z"}
    return SnapshotRef(
        **{
            "disk_key": disk.key,
            "kind": disk.kind,
            "source_unique_id": disk.unique_id,
            "taken_at": NOW,
            "size": disk.size,
            **(managed if disk.kind is DiskKind.MANAGED else unmanaged),
            **given,
        }
    )


def a_backup(snapshot: SnapshotRef, **given: Any) -> DiskBackup:
    return DiskBackup(
        **{
            "disk": a_source_disk(),
            "snapshot": snapshot,
            "method": Method.CBT,
            "reason": Reason.CBT,
            "indexes": (INDEX,),
            "figures": DiskFigures(size=snapshot.size),
            "proxy": "proxy-a",
            **given,
        }
    )


def a_point(
    disk: SourceDisk,
    *,
    vm: Vm | None = None,
    subclient: str = "all",
    method: Method = Method.CBT,
    base: SnapshotRef | None = None,
) -> PointEntry:
    return PointEntry(
        point=Point(
            vm=vm or a_vm(),
            subclient=subclient,
            job="job-1",
            disks=(a_backup(base or a_snapshot(disk), disk=disk, method=method),),
            bases=(base,) if base else (),
        )
    )


def a_view(*bodies: EntryBody) -> View:
    """The view of a log that says this, slot by slot; every point is of a run of its own."""
    return View(0, "").extended(_numbered(bodies))


def _numbered(bodies: Iterable[EntryBody]) -> Iterable[tuple[Entry, str]]:
    for slot, body in enumerate(bodies):
        entry = Entry(
            seq=slot,
            prev="0" * 64,
            nonce="0" * 32,
            time=NOW + dt.timedelta(hours=slot),
            run=f"run-{slot}",
            software="tests",
            body=body,
        )
        yield entry, f"hash of {slot}"
