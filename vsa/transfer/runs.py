"""A run: one attempt at one VM. Its intent, its snapshots, its commit.

Everything here may be repeated: after a lost answer, by a retry, by another process after a crash.
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import AwareDatetime

from vsa.azure.marks import Owner, snapshot_name
from vsa.azure.staging import StagingBlobs, staging_url
from vsa.errors import RunStopped, SnapshotAwaited
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import PointEntry
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import (
    DiskBackup,
    DiskKind,
    Exclusion,
    Intent,
    Noun,
    Point,
    SnapshotRef,
    SourceDisk,
    Vm,
)
from vsa.transfer.doubts import doubt_of
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.liveness import this_process
from vsa.transfer.methods import Known, Recorded


class Run(Noun):
    """What one attempt at one VM is about."""

    id: str
    job: str
    subclient: str
    vm: Vm
    disks: tuple[SourceDisk, ...]
    excluded: tuple[Exclusion, ...] = ()
    started_at: AwareDatetime

    def owner(self, media: str, disk: SourceDisk, *, witness: str = "") -> Owner:
        return Owner(media=media, run=self.id, job=self.job, disk=disk.key, witness=witness)


def guard(run: str, media: Media) -> None:
    """Raise RunStopped once the log knows an end of the run: what it would create now, nobody would remove.

    A stream may outlive its job, on a proxy that was cut off; another then carried its disk in its place.
    """
    view = media.view()
    if run in view.fenced:
        raise RunStopped(f"run {run} was fenced in the log; it may create nothing more and cannot commit")
    if run in view.committed:
        raise RunStopped(f"run {run} has its recovery point already; it may create nothing more")


def begin(run: Run, env: RunEnvironment) -> None:
    """Write the intent: the names of everything that this run is going to create in Azure."""
    managed = [disk for disk in run.disks if disk.kind is DiskKind.MANAGED]
    unmanaged = [disk for disk in run.disks if disk.kind is not DiskKind.MANAGED]
    premium = [disk for disk in unmanaged if disk.kind is DiskKind.UNMANAGED_PREMIUM]
    env.media.begin_run(
        Intent(
            run=run.id,
            job=run.job,
            vm_key=run.vm.key,
            vm_name=run.vm.name,
            subclient=run.subclient,
            started_at=run.started_at,
            process=this_process(),
            snapshots=tuple(f"{disk.resource_group}/{snapshot_name(run.id, disk.key)}" for disk in managed),
            blob_snapshots=tuple(disk.source for disk in unmanaged),
            staging_blobs=tuple(staging_url(disk, run.id) for disk in premium),
            disks=run.disks,
        )
    )
    reached(FaultPoint.INTENT_WRITTEN)


def create_snapshots(run: Run, env: RunEnvironment) -> tuple[SnapshotRef, ...]:
    """Snapshot all disks of the run together, in the run's order; before any byte is read.

    One that fails fails the run: the others' snapshots go when the run is released.
    """
    witness = str(env.media.view().witness or "")

    def require_going_on() -> None:
        guard(run.id, env.media)
        reached(FaultPoint.SNAPSHOT_GUARDED)

    def snapshot(disk: SourceDisk) -> SnapshotRef:
        owner = run.owner(env.media.id, disk, witness=witness)
        try:
            made = env.snapshots(disk).create(disk, owner, env.stop, require_going_on)
        except SnapshotAwaited:
            env.awaited.add(run.id, disk)
            raise
        env.awaited.came(run.id, disk)
        reached(FaultPoint.SNAPSHOT_MADE)
        return made

    # The caller's context goes along, so that a wait of minutes is logged on the caller's task.
    with ThreadPoolExecutor(max_workers=len(run.disks)) as pool:
        contexts = [contextvars.copy_context() for _ in run.disks]
        made = tuple(pool.map(lambda context, disk: context.run(snapshot, disk), contexts, run.disks))
    reached(FaultPoint.SNAPSHOTS_MADE)
    return made


def stage(run: Run, disk: SourceDisk, snapshot: SnapshotRef, env: RunEnvironment) -> str | None:
    """The URL of the disk's staging blob, copied whole; None for disks that need none."""
    if disk.kind is not DiskKind.UNMANAGED_PREMIUM:
        return None
    require_going_on = partial(guard, run.id, env.media)
    owner = run.owner(env.media.id, disk)
    url = StagingBlobs(env.connection).copy(disk, snapshot, owner, env.stop, require_going_on)
    reached(FaultPoint.STAGED)
    return url


def known_of(view: View, disk_key: str) -> Known:
    """What the log says of a disk."""
    latest = view.latest_point_of_disk(disk_key)
    base = view.base_of(disk_key)
    return Known(
        latest=Recorded(*latest) if latest else None,
        base=base[1] if base else None,
        base_point=_recorded(view, base[0], disk_key) if base else None,
        base_doubt=doubt_of(view, base[0], disk_key) if base else "",
    )


def _recorded(view: View, slot: int, disk_key: str) -> Recorded:
    disks = view.points[slot].point.disks
    return Recorded(slot, next(backup for backup in disks if backup.disk.key == disk_key))


def commit(
    run: Run, backups: Sequence[DiskBackup], failed: Sequence[Exclusion], *, keep_bases: bool, media: Media
) -> int:
    """Make the run's recovery point exist and return its slot; the same slot when repeated."""
    point = Point(
        vm=run.vm,
        subclient=run.subclient,
        job=run.job,
        disks=tuple(backups),
        incomplete=bool(failed),
        excluded=(*run.excluded, *failed),
        bases=tuple(backup.snapshot for backup in backups) if keep_bases else (),
    )
    slot = media.append(PointEntry(point=point), run=run.id)
    reached(FaultPoint.POINT_COMMITTED)
    return slot
