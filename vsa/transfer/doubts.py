"""What the log says against points: doubt by a lying change list, damage of the media; who takes notice."""

from __future__ import annotations

from vsa.media.entries import DoubtEntry
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import DiskBackup, Method, Point, SourceDisk
from vsa.text import ranges_text


def mark_doubtful(disk_key: str, reason: str, *, run: str, media: Media) -> None:
    """Say in the log which points of the disk are in doubt from now on.

    This is written when it is found, not when the run commits: a run that fails later must not lose it.
    """
    points = suspects(media.view(), disk_key)
    if points:
        media.append(DoubtEntry(points=points, disk_key=disk_key, reason=reason), run=run)


def suspects(view: View, disk_key: str) -> tuple[int, ...]:
    """The disk's points since it was last read without a change list; its newest if there are none.

    Points that are doubtful already are not named again.
    """
    holding = (made for made in view.points.values() if disk_key in made.disks)
    backups = {made.slot: backup for made in holding if (backup := _backup(made.point, disk_key))}
    since = max((slot for slot, backup in backups.items() if backup.method is not Method.CBT), default=-1)
    found = [slot for slot in sorted(backups) if slot > since] or sorted(backups)[-1:]
    return tuple(slot for slot in found if not doubt_of(view, slot, disk_key))


def doubt_of(view: View, slot: int, disk_key: str) -> str:
    """Why a point's contents of a disk are in doubt; empty if they are not."""
    return next((doubt.reason for doubt in view.doubtful.get(slot, ()) if doubt.disk_key == disk_key), "")


def harm_to(view: View, disk: SourceDisk) -> str:
    """Which points of a disk have lost how much of it to damage that is not healed; empty if none has."""
    lost: dict[int, list[tuple[int, int]]] = {}
    for slot in view.points_of_disk(disk.key):
        for harm in view.harm_of(slot):
            if harm.disk_key == disk.key:
                lost.setdefault(slot, []).extend(harm.ranges)
    if not lost:
        return ""
    told = [f"point {slot} has lost {ranges_text(ranges, at_most=3)}" for slot, ranges in lost.items()]
    return f"disk {disk.name}: the media is damaged: {'; '.join(told)}; `vsa show {min(lost)}` says more"


def _backup(point: Point, disk_key: str) -> DiskBackup | None:
    return next((backup for backup in point.disks if backup.disk.key == disk_key), None)
