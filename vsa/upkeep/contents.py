"""The disks of many points, walked segment by segment: what they share is looked at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vsa.media.index import IndexFile
from vsa.media.media import Media
from vsa.media.partial import PartialDisk, PartialSegment, Unreadable
from vsa.media.view import View
from vsa.model import DiskBackup, IndexRef


@dataclass(frozen=True, slots=True)
class DiskVersion:
    """One disk as some points have it: all of them name the same indexes."""

    slots: tuple[int, ...]
    backup: DiskBackup


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """A segment of a disk that is the same in the points `slots`."""

    slots: tuple[int, ...]
    number: int
    disk: PartialDisk
    segment: PartialSegment


def disks(view: View, slots: Collection[int]) -> Iterator[tuple[str, list[DiskVersion]]]:
    """Every disk key of the points with its versions, one disk in memory at a time."""
    by_key: dict[str, list[int]] = {}
    for slot in sorted(slots):
        for key in view.points[slot].disks:
            by_key.setdefault(key, []).append(slot)
    for key, of_disk in sorted(by_key.items()):
        yield key, _versions(view, key, of_disk)


def _versions(view: View, key: str, slots: list[int]) -> list[DiskVersion]:
    found: dict[tuple[tuple[IndexRef, ...], int], DiskVersion] = {}
    for slot in slots:
        backup = next(disk for disk in view.points[slot].point.disks if disk.disk.key == key)
        same = (backup.indexes, backup.snapshot.size)
        before = found[same].slots if same in found else ()
        found[same] = DiskVersion((*before, slot), backup)
    return list(found.values())


def segments(media: Media, view: View, versions: list[DiskVersion]) -> Iterator[list[SharedSegment]]:
    """One segment after the other, each as often as the versions of the disk have it differently.

    No more than the footers of the disk's indexes and one segment are in memory.
    """
    opened: dict[str, IndexFile | Unreadable] = {}
    partial = [
        (
            version.slots,
            media.partial_disk(version.backup.indexes, version.backup.snapshot.size, view, opened=opened),
        )
        for version in versions
    ]
    for number in sorted({number for _, disk in partial for number in disk.segments()}):
        yield list(_shared(number, partial))


def _shared(number: int, partial: list[tuple[tuple[int, ...], PartialDisk]]) -> Iterator[SharedSegment]:
    same: dict[tuple[int, tuple[str, ...]], tuple[tuple[int, ...], PartialDisk]] = {}
    for slots, disk in partial:
        if layers := disk.layers_of(number):
            key = (disk.disk_size, layers)
            before = same[key][0] if key in same else ()
            same[key] = ((*before, *slots), disk)
    for slots, disk in same.values():
        yield SharedSegment(slots, number, disk, disk.segment(number))
