"""Which base snapshots a job lets go, and why; which ones no job asks for any more. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from vsa.media.entries import JobEntry, ReleasedBase
from vsa.media.view import View
from vsa.model import Method, SnapshotName, SnapshotRef, SourceDisk, Vm
from vsa.subclient import Subclient
from vsa.transfer.pending import age_of

UNATTENDED = dt.timedelta(days=60)
"""Twice as long as a base serves a subclient that says nothing else: then somebody should look at it."""


@dataclass(frozen=True)
class Estate:
    """What a job saw of its subscription.

    `identified` has the target disks of each VM (by client key) whose disks could be identified; of a VM
    that is selected but missing there nothing is known, and its bases stay.
    """

    subscription_id: str
    listed: Sequence[Vm]
    selected: Sequence[Vm]
    identified: Mapping[str, Sequence[SourceDisk]]

    @cached_property
    def listed_keys(self) -> frozenset[str]:
        return frozenset(vm.key for vm in self.listed)

    @cached_property
    def selected_keys(self) -> frozenset[str]:
        return frozenset(vm.key for vm in self.selected)


def bases_to_release(
    view: View, subclient: Subclient, estate: Estate, *, now: dt.datetime
) -> Iterator[ReleasedBase]:
    """The bases made for this subclient that no later job will start from."""
    elsewhere = _disks_of_other_subclients(view, subclient.name)
    for client, base in _bases_of(view, subclient, estate.subscription_id):
        reason = _too_old(base, subclient, now)
        if not reason and base.disk_key not in elsewhere:
            reason = _not_needed(base, client, subclient, estate)
        if reason:
            yield ReleasedBase(base=base, reason=reason)


def base_disk(view: View, disk_key: str) -> SourceDisk:
    """The disk as the point that named its base saw it. KeyError if the log names no base for it."""
    base = view.base_of(disk_key)
    if base is None:
        raise KeyError(disk_key)
    return next(item.disk for item in view.points[base[0]].point.disks if item.disk.key == disk_key)


def old_bases(
    view: View, subclient: Subclient, subscription_id: str, *, now: dt.datetime
) -> Iterator[ReleasedBase]:
    """Those that a job lets go which could not look at its subscription: they must not stay for ever."""
    for _, base in _bases_of(view, subclient, subscription_id):
        if reason := _too_old(base, subclient, now):
            yield ReleasedBase(base=base, reason=reason)


def _bases_of(view: View, subclient: Subclient, subscription_id: str) -> Iterator[tuple[str, SnapshotRef]]:
    """Client key and base, of those that were made for this subclient."""
    for slot, bases in groupby(sorted(view.bases().values(), key=_slot), key=_slot):
        made = view.points[slot]
        # Unpacked once for all of its disks, and let go at once: there may be tens of thousands.
        point = made.point
        mine = point.subclient == subclient.name
        if mine and point.vm.subscription_id.lower() == subscription_id.lower():
            for _, base in bases:
                yield made.client, base


def _slot(base: tuple[int, SnapshotRef]) -> int:
    return base[0]


def _too_old(base: SnapshotRef, subclient: Subclient, now: dt.datetime) -> str:
    days = subclient.max_base_age_days
    return f"it is older than {days} days" if now - base.taken_at > dt.timedelta(days=days) else ""


def _not_needed(base: SnapshotRef, client: str, subclient: Subclient, estate: Estate) -> str:
    """Why the subclient will not compare with the base again; empty if it may."""
    identified = estate.identified.get(client)
    if Method(subclient.method) is Method.CRC:
        return "the subclient's method is CRC"
    if not estate.listed:
        # Azure lists nothing to an identity without rights, too: only age tells then.
        return ""
    if client not in estate.listed_keys:
        return "its VM is gone"
    if client not in estate.selected_keys:
        return "the subclient no longer selects its VM"
    if identified is not None and base.disk_key not in {disk.key for disk in identified}:
        return "the disk is no longer a target of the subclient"
    return ""


def unattended_bases(view: View, seen: Iterable[SnapshotName], *, now: dt.datetime) -> Iterator[str]:
    """In words, those bases among the snapshots seen for which no subclient with the disk ran a job in long.

    It was deleted or renamed, or its schedule is off: nobody would ever let them go.
    """
    since, newest = now - UNATTENDED, _newest_jobs(view)
    at_work = {name for name, job in newest.items() if job.ended_at > since}
    there = {_identity(name) for name in seen}
    users: dict[str, set[str]] = {}
    for name, job in newest.items():
        for key in _disks_of(job):
            users.setdefault(key, set()).add(name)
    for slot, base in view.bases().values():
        if _identity(base) not in there or base.taken_at >= since:
            continue
        point = view.points[slot].point
        asked = {point.subclient} | users.get(base.disk_key, set())
        if not asked & at_work:
            disk = base_disk(view, base.disk_key)
            age, title = age_of(base.taken_at, now), base.moment or base.id
            yield (
                f"base snapshot {title} of disk {disk.name} is {age} old, and no job of subclient "
                f"{' or '.join(sorted(asked))} has ended in {UNATTENDED.days} days: run one, or delete the "
                "snapshot, which no recovery point needs; the disk's next backup is then by CRC"
            )


def _identity(name: SnapshotName) -> tuple[str, str | None]:
    return name.id.lower(), name.moment


def _newest_jobs(view: View) -> dict[str, JobEntry]:
    return {reported.job.subclient: reported.job for _, reported in sorted(view.jobs.items())}


def _disks_of_other_subclients(view: View, name: str) -> frozenset[str]:
    """The disks that the newest job of any other subclient found to back up."""
    newest = _newest_jobs(view)
    newest.pop(name, None)
    return frozenset(key for job in newest.values() for key in _disks_of(job))


def _disks_of(job: JobEntry) -> Iterator[str]:
    """Keys of the disks that a job found to back up."""
    return (disk.key for vm in job.vms for disk in vm.disks)
