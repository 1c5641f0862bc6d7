"""Which base snapshots a job lets go, and why. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vsa.media.entries import ReleasedBase
from vsa.media.view import View
from vsa.model import Method, SnapshotRef, SourceDisk, Vm
from vsa.subclient import Subclient


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


def bases_to_release(
    view: View, subclient: Subclient, estate: Estate, *, now: dt.datetime
) -> Iterator[ReleasedBase]:
    """The bases made for this subclient that no later job will start from."""
    elsewhere = _disks_of_other_subclients(view, subclient.name)
    for disk_key, (slot, base) in view.bases().items():
        point = view.points[slot].point
        mine = point.subclient == subclient.name
        if not mine or point.vm.subscription_id.lower() != estate.subscription_id.lower():
            continue
        if now - base.taken_at > dt.timedelta(days=subclient.max_base_age_days):
            reason = f"it is older than {subclient.max_base_age_days} days"
        elif disk_key in elsewhere:
            continue
        else:
            reason = _not_needed(base, point.vm.key, subclient, estate)
        if reason:
            yield ReleasedBase(base=base, reason=reason)


def base_disk(view: View, disk_key: str) -> SourceDisk:
    """The disk as the point that named its base saw it."""
    slot, _ = view.bases()[disk_key]
    return next(item.disk for item in view.points[slot].point.disks if item.disk.key == disk_key)


def _not_needed(base: SnapshotRef, client: str, subclient: Subclient, estate: Estate) -> str:
    """Why the subclient will not compare with the base again; empty if it may."""
    identified = estate.identified.get(client)
    if Method(subclient.method) is Method.CRC:
        return "the subclient's method is CRC"
    if not estate.listed:
        # Azure lists nothing to an identity without rights, too: only age tells then.
        return ""
    if client not in {vm.key for vm in estate.listed}:
        return "its VM is gone"
    if client not in {vm.key for vm in estate.selected}:
        return "the subclient no longer selects its VM"
    if identified is not None and base.disk_key not in {disk.key for disk in identified}:
        return "the disk is no longer a target of the subclient"
    return ""


def _disks_of_other_subclients(view: View, name: str) -> frozenset[str]:
    """The disks that the newest job of any other subclient found to back up."""
    newest = {reported.job.subclient: reported.job for _, reported in sorted(view.jobs.items())}
    newest.pop(name, None)
    return frozenset(disk.key for job in newest.values() for vm in job.vms for disk in vm.disks)
