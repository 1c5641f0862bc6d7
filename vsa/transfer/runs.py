"""A run: one attempt at one VM. Its intent, its snapshots, its commit, its cleanup.

Everything here may be repeated: after a lost answer, by a retry, by another process after a crash.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import AwareDatetime

from vsa.azure.connection import AzureConnection
from vsa.azure.grants import revoke
from vsa.azure.snapshots import FoundSnapshot, Owner, Snapshots, snapshot_name, snapshots_of
from vsa.azure.staging import StagingBlobs, staging_url
from vsa.errors import RunStopped, VsaError
from vsa.media.entries import DoomEntry, PointEntry
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
from vsa.stop import Stop, again
from vsa.transfer.doubts import doubt_of
from vsa.transfer.liveness import has_ended, this_process
from vsa.transfer.methods import Known, Recorded

_log = logging.getLogger(__name__)


class Run(Noun):
    """What one attempt at one VM is about."""

    id: str
    job: str
    subclient: str
    vm: Vm
    disks: tuple[SourceDisk, ...]
    excluded: tuple[Exclusion, ...] = ()
    started_at: AwareDatetime

    def owner(self, media: str, disk: SourceDisk) -> Owner:
        return Owner(media=media, run=self.id, job=self.job, disk=disk.key)


@dataclass(frozen=True)
class RunEnvironment:
    """Where a run happens."""

    connection: AzureConnection
    media: Media
    stop: Stop
    now: Callable[[], dt.datetime]

    def snapshots(self, disk: SourceDisk) -> Snapshots:
        return snapshots_of(self.connection, disk.kind)


def guard(run: str, media: Media) -> None:
    """Raise RunStopped once the log fences the run: what it would create now, nobody would remove."""
    if run in media.view().fenced:
        raise RunStopped(f"run {run} was fenced in the log; it may create nothing more and cannot commit")


def begin(run: Run, env: RunEnvironment) -> None:
    """Write the intent: the names of everything that this run is going to create in Azure."""
    process = this_process()
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
            host=process.host,
            process=process.process,
            process_started=process.started,
            snapshots=tuple(f"{disk.resource_group}/{snapshot_name(run.id, disk.key)}" for disk in managed),
            blob_snapshots=tuple(disk.source for disk in unmanaged),
            staging_blobs=tuple(staging_url(disk, run.id) for disk in premium),
            disks=run.disks,
        )
    )


def create_snapshots(run: Run, env: RunEnvironment) -> tuple[SnapshotRef, ...]:
    """Snapshot all disks of the run together, in the run's order; before any byte is read.

    One that fails fails the run: the others' snapshots go when the run is released.
    """

    def snapshot(disk: SourceDisk) -> SnapshotRef:
        guard(run.id, env.media)
        return env.snapshots(disk).create(disk, run.owner(env.media.id, disk), env.stop)

    with ThreadPoolExecutor(max_workers=len(run.disks)) as pool:
        return tuple(pool.map(snapshot, run.disks))


def stage(run: Run, disk: SourceDisk, snapshot: SnapshotRef, env: RunEnvironment) -> str | None:
    """The URL of the disk's staging blob, copied whole; None for disks that need none."""
    if disk.kind is not DiskKind.UNMANAGED_PREMIUM:
        return None
    guard(run.id, env.media)
    return StagingBlobs(env.connection).copy(disk, snapshot, run.owner(env.media.id, disk), env.stop)


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
    return media.append(PointEntry(point=point), run=run.id)


def release(run: Run, env: RunEnvironment) -> tuple[str, ...]:
    """Remove what the run leaves in Azure and return what could not be removed, in words.

    Kept is what the log names as a base. A run that has not committed is fenced first, so that a commit
    still on its way cannot name snapshots that are being deleted here.
    """
    return _release(run.id, run.disks, "the run ended without a recovery point", env)


def release_job(job: str, env: RunEnvironment) -> tuple[str, ...]:
    """Release every run of a job that has ended: what hooks do after a cancellation or a crash."""
    intents = [intent for intent in env.media.intents() if intent.job == job]
    return tuple(
        pending
        for intent in intents
        for pending in _release(intent.run, intent.disks, "the job was cancelled or crashed", env)
    )


def _release(run: str, disks: Iterable[SourceDisk], reason: str, env: RunEnvironment) -> tuple[str, ...]:
    view = env.media.view()
    if not _is_over(run, view):
        fence([run], reason, env.media)
    pending: list[str] = []
    for disk in disks:
        try:
            # A stop must not keep a run from being cleaned up.
            clear_disk(disk, env, stop=Stop())
        except VsaError as error:
            _log.error("cleanup pending for disk %s: %s", disk.name, error)
            pending.append(f"cleanup pending for disk {disk.name}: {error}")
    return tuple(pending)


def clear_disk(disk: SourceDisk, env: RunEnvironment, *, stop: Stop) -> None:
    """Clear a disk, repeating what may be repeated."""
    again(lambda: _clear_disk(disk, env), stop=stop)


def _clear_disk(disk: SourceDisk, env: RunEnvironment) -> None:
    """Remove from Azure what this media made of the disk and nobody needs: snapshots, grants, staging blobs.

    Untouched are: snapshots without our marks, the base that the log names, and what live runs own.
    """
    driver = env.snapshots(disk)
    found = list(driver.ours(disk, env.media.id))
    view = _fence_dead(found, env)
    base = view.base_of(disk.key)
    for item in found:
        if not _is_over(item.run, view):
            continue
        if disk.kind is DiskKind.UNMANAGED_PREMIUM:
            StagingBlobs(env.connection).delete(staging_url(disk, item.run))
        revoke(env.connection, item.ref)
        if base and same_snapshot(base[1], item.ref):
            continue
        driver.delete(item.ref)
        _log.info("disk %s: snapshot of run %s deleted", disk.name, item.run)


def _is_over(run: str, view: View) -> bool:
    return run in view.committed or run in view.fenced


def _fence_dead(found: Iterable[FoundSnapshot], env: RunEnvironment) -> View:
    """Fence the runs among the snapshots' makers whose process is known to have ended."""
    view = env.media.view()
    open_runs = {item.run for item in found if not _is_over(item.run, view)}
    dead = sorted(run for run in open_runs if (intent := env.media.intent(run)) and has_ended(intent))
    if dead:
        fence(dead, "the process of the run has ended", env.media)
        view = env.media.view()
    return view


def fence(runs: Sequence[str], reason: str, media: Media) -> None:
    """Say in the log that these runs may no longer commit."""
    media.append(DoomEntry(runs=tuple(runs), reason=reason))


def same_snapshot(one: SnapshotRef, other: SnapshotRef) -> bool:
    """Whether two references mean one snapshot; Azure compares ids without regard to case."""
    return one.id.lower() == other.id.lower() and one.moment == other.moment
