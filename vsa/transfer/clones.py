"""Disks that were made from one image: whose go first, so that the others find their data stored.

Each stream is a process, and of what other processes store it knows what recovery points hold. Clones that
are read for the first time at the same time would each be stored whole (decision 22).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from vsa.media.index import Offer
from vsa.media.view import View
from vsa.model import SourceDisk
from vsa.ranges import GIB
from vsa.transfer.backup_job import VmDisks

LARGEST = 128 * GIB
"""Disks up to this size are waited for, and wait: Azure gives 60 MiB/s of one, so it takes 40 minutes. Larger
clones are stored more than once until a prune folds them."""
LONGEST = 3600.0
"""Seconds that a VM waits at most, in whose snapshots nothing is read meanwhile."""

T = TypeVar("T")


def new_images(view: View, disks: Sequence[VmDisks], offer: Offer) -> dict[str, str]:
    """The images of disks, by the disk's key, that several VMs have and of which none of these disks has a
    point yet. None where data is not offered to other clients."""
    known, vms = set[str](), Counter[str]()
    for item in disks:
        vms.update(set(item.images.values()))
        known.update(
            image for key, image in item.images.items() if view.latest_point_of_disk(key) is not None
        )
    return {
        disk.key: image
        for item in disks
        for disk in item.disks
        if offer is Offer.MEDIA
        and disk.size <= LARGEST
        and (image := item.images.get(disk.key, ""))
        and vms[image] > 1
        and image not in known
    }


class Clones(Generic[T]):
    """Whose disks go first. Who goes first waits for nobody: so nobody waits for long, nor in a circle."""

    def __init__(self, images: Mapping[str, str], has_point: Callable[[T], bool | None]) -> None:
        """`images` as `new_images` finds them. `has_point`: whether a VM has got its point; None if that is
        not decided yet."""
        self._images = images
        self._has_point = has_point
        self._first: dict[str, T] = {}

    def waits_for(self, disks: Sequence[SourceDisk], vm: T) -> T | None:
        """Whom `vm`, which has these disks, waits for; None: it goes now. To be asked again when that one has
        got its point or none: then another one goes first."""
        images = {self._images[disk.key] for disk in disks if disk.key in self._images}
        for image in sorted(images & self._first.keys()):
            first = self._first[image]
            decided = self._has_point(first)
            if decided is None:
                return first
            if not decided:
                del self._first[image]
        if all(disk.size <= LARGEST for disk in disks):
            for image in images:
                self._first.setdefault(image, vm)
        return None

    def goes_first(self, vm: T) -> bool:
        return any(first is vm for first in self._first.values())
