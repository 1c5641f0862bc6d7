"""How things in Azure are known to be ours: by name, by marks, and by the disk that they were made of.

A name alone proves nothing, nor do marks, which anybody may copy to anything; a managed snapshot is ours if
both agree with each other and with its source. Marks may also have been removed, by a policy or by somebody:
such a snapshot is only found here, and whether it is ours is for the media to say, whose intents and points
name what they made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import BadRequest
from vsa.model import DiskKind, DiskRole, SnapshotName, SourceDisk, name_key

MEDIA, RUN, JOB, DISK, WITNESS = "vsa-media", "vsa-run", "vsa-job", "vsa-disk", "vsa-witness"
_HEAD = "vsa-"
ASKED = "vsa-asked"
"""Of blob snapshots alone: Azure's time just before it was asked for the snapshot."""


@dataclass(frozen=True)
class Owner:
    """Whose a snapshot is: written into its tags or metadata in the request that creates it.

    `witness` is the media's log as the run saw it when it began, empty if that was empty.
    """

    media: str
    run: str
    job: str
    disk: str
    witness: str = ""

    def tags(self) -> dict[str, str]:
        tags = {MEDIA: self.media, RUN: self.run, JOB: self.job, DISK: self.disk}
        return tags | ({WITNESS: self.witness} if self.witness else {})

    def metadata(self) -> dict[str, str]:
        """The same for blob metadata, whose names must be C# identifiers."""
        return {in_metadata(name): value for name, value in self.tags().items()}


def in_metadata(mark: str) -> str:
    """A mark's name in the metadata of a blob."""
    return mark.replace("-", "_")


@dataclass(frozen=True)
class FoundSnapshot:
    """A snapshot by our name or with our marks: `run` is the run that made it.

    `size`: bytes of the disk that it shows. `witness`: how far the media's log was when it was made, in the
    words of its marks, which anybody may have edited. `granted`: somebody may have access to it. `inherited`:
    it was not made when its marks say, so it may be a user's own: of a VHD over which a snapshot of ours was
    copied, marks and all. `marked`: its marks say all of it; if not, they are missing and only the name
    speaks for it, which is not enough. `source_unique_id`: which disk of that name it is of, if known.
    """

    name: SnapshotName
    run: str
    taken_at: dt.datetime
    size: int = 0
    witness: str = ""
    granted: bool = False
    inherited: bool = False
    marked: bool = True
    source_unique_id: str = ""

    @property
    def title(self) -> str:
        """What people call it: its name, of a VHD its moment."""
        return self.name.moment or self.name.id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Ours:
    """What a list of managed snapshots holds of a media.

    `strange` says, in words, what carries our name and marks and is of another disk than they say, or is not
    where we would have made it.
    """

    found: list[tuple[SourceDisk, FoundSnapshot]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def by_disk(listing: Iterable[Any]) -> dict[str, list[Any]]:
    """Those of the listed snapshots that have a name of ours, by the key of the disk that they are of."""
    found: dict[str, list[Any]] = {}
    for snapshot in listing:
        if snapshot.name.lower().startswith(_HEAD):
            found.setdefault(_disk_key(snapshot), []).append(snapshot)
    return found


def _disk_key(snapshot: Any) -> str:
    """By its source; where Azure names none, its marks say it. Empty if nothing does."""
    source = snapshot.creation_data.source_resource_id
    return name_key(source) if source else (snapshot.tags or {}).get(DISK, "")


def snapshot_name(run: str, disk_key: str) -> str:
    """The name of a managed disk's snapshot: a function of run and disk, at most 80 characters."""
    return f"{_HEAD}{run}-{disk_key}"


def run_in(name: str, disk_key: str) -> str:
    """The run in a name that we give for the disk, to a snapshot or to a staging blob without its suffix;
    empty if it is no such name."""
    head, tail = _HEAD, f"-{disk_key}"
    lower = name.lower()
    is_ours = lower.startswith(head) and lower.endswith(tail)
    return lower[len(head) : -len(tail)] if is_ours else ""


def are_missing(marks: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Whether marks have been removed and none contradicts what is expected."""
    said = [marks.get(name) or "" for name in expected]
    return "" in said and all(
        found in ("", value) for found, value in zip(said, expected.values(), strict=True)
    )


def ours_among(listing: Iterable[Any], disks: Mapping[str, SourceDisk], media: str) -> Ours:
    """What is ours among listed snapshots: of these disks (by key), and of disks that nobody knows any more,
    which are then as their snapshots remember them."""
    ours = Ours()
    for snapshot in listing:
        disk = _disk_of(snapshot, disks)
        found = _found(snapshot, disk, media) if disk else None
        if disk and found:
            ours.found.append((disk, found))
        elif _claims(snapshot, media):
            source = snapshot.creation_data.source_resource_id
            ours.strange.append(
                f"snapshot {snapshot.id} has a name and marks of this media, but is not of the disk that "
                f"they mean, or not beside it (it is of {source}): somebody gave it both, so it stays"
            )
    return ours


def _disk_of(snapshot: Any, disks: Mapping[str, SourceDisk]) -> SourceDisk | None:
    source = snapshot.creation_data.source_resource_id
    known = disks.get(_disk_key(snapshot))
    return known or (_remembered(snapshot, source) if source else None)


def _remembered(snapshot: Any, source: str) -> SourceDisk | None:
    """The disk as far as its snapshot tells; None if it is the snapshot of no disk."""
    try:
        parts = ResourceId.parse(source)
    except BadRequest:
        return None
    if "/disks/" not in source.lower():
        return None
    return SourceDisk(
        name=parts.name,
        role=DiskRole.DATA,
        lun=None,
        kind=DiskKind.MANAGED,
        source=source,
        unique_id=snapshot.creation_data.source_unique_id or "",
        size=snapshot.disk_size_bytes or 0,
        sku="",
        region=snapshot.location,
        resource_group=parts.group,
    )


def _found(snapshot: Any, disk: SourceDisk, media: str) -> FoundSnapshot | None:
    """The snapshot if it may be ours: in its disk's resource group, by our name, its marks right or gone."""
    run, tags = run_in(snapshot.name, disk.key), snapshot.tags or {}
    expected = {MEDIA: media, RUN: run, DISK: disk.key}
    marked = all(tags.get(name) == value for name, value in expected.items())
    if not run or not _is_beside(snapshot, disk) or not (marked or are_missing(tags, expected)):
        return None
    return FoundSnapshot(
        name=SnapshotName(kind=disk.kind, id=snapshot.id),
        run=run,
        taken_at=snapshot.time_created,
        size=snapshot.disk_size_bytes or 0,
        witness=tags.get(WITNESS, ""),
        granted=text(snapshot.disk_state) not in ("", "Unattached"),
        marked=marked,
        source_unique_id=snapshot.creation_data.source_unique_id or "",
    )


def _is_beside(snapshot: Any, disk: SourceDisk) -> bool:
    """Whether it is where we make snapshots of the disk."""
    mine, its = ResourceId.parse(snapshot.id), ResourceId.parse(disk.source)
    place = (its.subscription.lower(), disk.resource_group.lower())
    return (mine.subscription.lower(), mine.group.lower()) == place


def _claims(snapshot: Any, media: str) -> bool:
    tags = snapshot.tags or {}
    named = snapshot_name(tags.get(RUN, ""), tags.get(DISK, ""))
    return tags.get(MEDIA) == media and snapshot.name.lower() == named
