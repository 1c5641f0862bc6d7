"""Which base snapshots a job lets go, and why. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from vsa.media.entries import ReleasedBase
from vsa.media.view import View
from vsa.model import Method, SourceDisk, Vm
from vsa.subclient import Subclient


def bases_to_release(
    view: View,
    subclient: Subclient,
    *,
    listed: Iterable[Vm],
    selected: Iterable[Vm],
    identified: dict[str, tuple[SourceDisk, ...]],
    now: dt.datetime,
) -> Iterator[ReleasedBase]:
    """The bases of this subclient that no later job of it will start from.

    `identified` has the target disks of each VM (by client key) whose disks could be identified; of a VM
    that is selected but missing there nothing is known, and its bases stay.
    """
    chosen = {vm.key for vm in selected}
    present = {vm.key for vm in listed}
    for disk_key, (slot, base) in view.bases().items():
        point = view.points[slot].point
        if point.subclient != subclient.name:
            continue
        client = point.vm.key
        if Method(subclient.method) is Method.CRC:
            reason = "the subclient's method is CRC"
        elif client not in present:
            reason = "its VM is gone"
        elif client not in chosen:
            reason = "the subclient no longer selects its VM"
        elif client in identified and disk_key not in {disk.key for disk in identified[client]}:
            reason = "the disk is no longer a target of the subclient"
        elif now - base.taken_at > dt.timedelta(days=subclient.max_base_age_days):
            reason = f"it is older than {subclient.max_base_age_days} days"
        else:
            continue
        yield ReleasedBase(base=base, reason=reason)
