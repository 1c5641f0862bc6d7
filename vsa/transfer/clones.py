"""Disks that were made from one image: which of them goes first, so that the others find its data stored.

Each stream is a process, and of what other processes store it knows what recovery points hold. Clones that
are read for the first time at the same time would each be stored whole (decision 22).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from vsa.media.view import View
from vsa.model import SourceDisk
from vsa.ranges import GIB
from vsa.transfer.backup_job import VmDisks

LARGEST = 128 * GIB
"""Disks up to this size wait for one of their image. Azure gives 60 MiB/s of one disk, so it is for 40
minutes at most, at their first backup; larger ones are stored more than once until a prune folds them."""

T = TypeVar("T")


def new_images(view: View, disks: Sequence[VmDisks]) -> dict[str, str]:
    """The images of disks, by the disk's key, of which the media may hold nothing yet and of which there are
    several VMs. Any point of a disk of the same image is taken for it."""
    known, vms = set[str](), Counter[str]()
    for item in disks:
        vms.update(set(item.images.values()))
        known.update(
            image for key, image in item.images.items() if view.latest_point_of_disk(key) is not None
        )
    return {
        disk.key: item.images[disk.key]
        for item in disks
        for disk in item.disks
        if disk.size <= LARGEST
        and (image := item.images.get(disk.key, ""))
        and vms[image] > 1
        and image not in known
    }


class Clones(Generic[T]):
    """Who goes first, a VM for each image. Of those that ask, each waits only for such as have asked before:
    nobody waits in a circle."""

    def __init__(self, images: Mapping[str, str]) -> None:
        """`images` as `new_images` finds them."""
        self._images = images
        self._first: dict[str, T] = {}

    def before(self, disks: Sequence[SourceDisk], vm: T) -> dict[str, T]:
        """The VM that each of these disks of `vm` waits for, by the disk's key; a disk that is not in it goes
        at once. Of an image that nobody has asked about, `vm` is the first from now on."""
        images = {disk.key: self._images[disk.key] for disk in disks if disk.key in self._images}
        waited_for = {key: self._first[image] for key, image in images.items() if image in self._first}
        for image in images.values():
            self._first.setdefault(image, vm)
        return waited_for
