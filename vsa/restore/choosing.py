"""What to restore, and to which files: decided, and refused, before anything is read or written.

Nothing here loads what reads packs, so that commands which only list points need not wait for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsa.errors import BadRequest
from vsa.media.entries import ClientEntry
from vsa.media.view import CommittedPoint, View
from vsa.model import DiskBackup, Point
from vsa.text import printable

if TYPE_CHECKING:
    from vsa.restore.disk import Format

_LISTED = 30


@dataclass(frozen=True, slots=True)
class Step:
    """One disk and the file it will become."""

    backup: DiskBackup
    target: Path


def find_point(view: View, slot: int) -> CommittedPoint:
    """The recovery point of that slot; BadRequest if there is none."""
    if slot in view.given_up:
        raise BadRequest(f"recovery point {slot} was forgotten, and a prune has given up its data")
    if slot not in view.points:
        raise BadRequest(f"there is no recovery point {slot}: the media has {_some(map(str, view.points))}")
    return view.points[slot]


def points_called(view: View, name: str) -> list[CommittedPoint]:
    """The points of the clients of that name, in log order.

    A name is one that the VM has or had, its resource id or its key. BadRequest, with the names there are, if
    nobody is called so.
    """
    points = list(view.points.values())
    keys = {client.vm.key for client in view.clients.values() if _is_called(client, name)}
    names = [(made.client, made.point.vm.name) for made in points]
    keys |= {key for key, called in names if name.casefold() in (key, called.casefold())}
    if not keys:
        there = {client.vm.name for client in view.clients.values()} | {called for _, called in names}
        raise BadRequest(f"no client is called {printable(name)!r}: the media has {_some(sorted(there))}")
    return [made for made in points if made.client in keys]


def latest_good_point(view: View, name: str, disks: Sequence[str] = ()) -> CommittedPoint:
    """The newest point of the client that holds the disks (none: all of its disks) without a flaw.

    BadRequest if nobody has the name, if several clients have it, or if every point has a flaw: then a
    person must choose.
    """
    points = points_called(view, name)
    clients = {made.client for made in points}
    if len(clients) > 1:
        keys = _some(sorted(clients))
        raise BadRequest(
            f"{len(clients)} clients are called {printable(name)!r}: name one by its key, {keys}"
        )
    flawed: list[str] = []
    for made in reversed(points):
        flaws = _flaws(view, made, disks)
        if not flaws:
            return made
        flawed.append(f"point {made.slot}: {', '.join(flaws)}")
    told = "; ".join(flawed[:5]) or "it has none"
    raise BadRequest(f"client {printable(name)} has no good point: {told}; name the point that you want")


def plan_restore(point: Point, wanted: Collection[str], to: str, format: Format) -> list[Step]:
    """Every file that will be made; BadRequest if one of them exists or a disk is not in the point.

    Disks are `wanted` by name, by LUN or as `os`; none means all. `to` is a file for one disk, else a folder.
    """
    backups = chosen_disks(point, wanted)
    target = Path(to)
    if len(backups) > 1 or target.is_dir() or to.endswith(os.sep):
        steps = list(_named_in_folder(backups, target, format))
    else:
        steps = [Step(backups[0], target)]
    for step in steps:
        if os.path.lexists(step.target):
            raise BadRequest(
                f"{printable(str(step.target))} exists and is not overwritten: nothing was restored"
            )
    return steps


def chosen_disks(point: Point, wanted: Collection[str]) -> list[DiskBackup]:
    """The disks in the point's order; BadRequest, with the disks there are, if one is not in it."""
    if not wanted:
        return list(point.disks)
    keys = {_chosen(point, name).disk.key for name in wanted}
    return [backup for backup in point.disks if backup.disk.key in keys]


def _chosen(point: Point, wanted: str) -> DiskBackup:
    by_name = [backup for backup in point.disks if backup.disk.name.casefold() == wanted.casefold()]
    by_place = [backup for backup in point.disks if wanted.casefold() in _places(backup)]
    chosen = by_name or by_place
    if not chosen:
        held = ", ".join(printable(f"{backup.disk.name} ({backup.disk.place})") for backup in point.disks)
        raise BadRequest(f"the point holds no disk {printable(wanted)!r}, only: {held}")
    if len(chosen) > 1:
        raise BadRequest(
            f"the point holds {len(chosen)} disks {printable(wanted)!r}: choose by number instead"
        )
    return chosen[0]


def _places(backup: DiskBackup) -> tuple[str, ...]:
    """How a disk can be named by its place: `os`; a data disk by its number, with `lun ` before it or not."""
    place = backup.disk.place
    return place, place.removeprefix("lun ")


def _flaws(view: View, made: CommittedPoint, wanted: Collection[str]) -> list[str]:
    """Why the point is not taken without asking."""
    if made.slot in view.forgotten:
        return ["it was forgotten"]
    point = made.point
    try:
        keys = {backup.disk.key for backup in chosen_disks(point, wanted)}
    except BadRequest as error:
        return [str(error)]
    flaws = ["it is incomplete"] if point.incomplete and not wanted else []
    flaws += ["it is damaged"] if any(harm.disk_key in keys for harm in view.harm_of(made.slot)) else []
    doubts = view.doubtful.get(made.slot, ())
    return flaws + (["it is doubtful"] if any(doubt.disk_key in keys for doubt in doubts) else [])


def _is_called(client: ClientEntry, name: str) -> bool:
    known = {client.vm.key, client.vm.resource_id, client.vm.name, *(seen.name for seen in client.names)}
    return name.casefold() in {item.casefold() for item in known}


def _some(names: Iterable[str]) -> str:
    """`a, b and 12 more`, as many as people read; `none` if there are none."""
    listed = [printable(name) for name in names]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return f"{', '.join(listed[-_LISTED:])}{more}" if listed else "none"


def _named_in_folder(backups: Sequence[DiskBackup], folder: Path, format: Format) -> Iterator[Step]:
    names = [_file_name(backup) for backup in backups]
    for backup, name in zip(backups, names, strict=True):
        unique = name if names.count(name) == 1 else f"{name}-{backup.disk.key}"
        yield Step(backup, folder / f"{unique}.{format.value}")


def _file_name(backup: DiskBackup) -> str:
    """A file name from the disk's: the media may say anything, so only harmless characters are kept."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", backup.disk.name)[:100].lstrip("._-") or backup.disk.key
