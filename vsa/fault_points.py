"""Named places where a test may kill, stall or fail the engine: between one effect and the next.

Calls to a store and requests to Azure are met from outside, by a wrapped store and by azsim. What lies
between them has no such mark, so it has a name here. In production nothing is installed, and nothing outside
of this process can install anything: no environment variable, setting or file is looked at (decision 0019).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum, unique

Interference = Callable[["FaultPoint"], None]
"""What a test does at a point: nothing, die, wait, or raise what the engine might meet there."""


@unique
class FaultPoint(StrEnum):
    """Every point; its value says what has happened, and what has not yet. Each stands in one place."""

    # A backup job, in its order
    ROOM_MADE = "what dead runs left on the disks is cleared; the run has no intent"
    INTENT_WRITTEN = "the intent is on the media; nothing was asked of Azure"
    SNAPSHOT_GUARDED = "the log knew no end of the run; the snapshot is not asked for"
    SNAPSHOT_MADE = "one disk's snapshot is made; the run has not heard of it"
    SNAPSHOTS_MADE = "all disks have their snapshots; none is read"
    COPY_STARTED = "the copy to the staging blob has begun; nobody has looked whether it ended"
    STAGED = "the staging blob is whole; nobody reads it"
    ACCESS_GUARDED = "the log knew no end of the run; access is not asked for"
    ACCESS_GRANTED = "access is granted; the log was not asked again whether the run goes on"
    SOURCE_OPENED = "the snapshot can be read; no list of it was asked for"
    BASE_GRANTED = "the base can be read; it was not compared with the snapshot"
    READS_PLANNED = "the lists are read; not one extent is"
    PACK_PROVEN = "a full pack was decoded and compared; it is not stored"
    PACK_STORED = "a pack is stored; no row may say so yet"
    PACKS_STORED = "all packs of a disk are stored; its index is not"
    INDEX_STORED = "the index is stored and read back; its sample is not stored"
    DISK_STORED = "the disk is on the media; the run has not heard of it"
    RECORD_STORED = "all that a point needs is proven and its record stored; its entry is not"
    POINT_COMMITTED = "the point exists; grants, old base and staging blobs are still there"
    JOB_DONE = "all VMs are done with; the job's report is not in the log"
    JOB_REPORTED = "the job's report is in the log; no checkpoint was thought of"

    # The log and a folder below it
    ENTRY_DECIDED = "an entry was admitted after all before it; its slot is still free"
    ENTRY_PLACED = "an entry is in its slot; who appended it has not heard of it"
    OBJECT_WRITTEN = "an object's bytes are durable; it has no name"
    OBJECT_NAMED = "an object has its name; the folder that holds it is not durable"

    # Clearing up, by jobs and sweeps alike
    RUN_FENCED = "a run that ended without a point is fenced; what it made is still there"
    LEFTOVERS_LISTED = "what is ours of a disk is listed; the dead of it are not fenced"
    DEAD_FENCED = "the dead are fenced; nothing is revoked or deleted"
    ACCESS_ENDED = "a snapshot's access is ended; the snapshot is still there"
    SNAPSHOT_DELETED = "a snapshot is deleted; others and staging blobs may be left"
    BASE_GIVEN_UP = "a base that nobody will use is to go; nothing of it is ended"
    BASE_RELEASED = "a base that nobody will use is deleted; no report says so"
    SWEEP_LOOKED = "a sweep has seen Azure; it has judged nobody"
    SWEEP_PLANNED = "a sweep knows what will go; nobody is fenced"
    SWEEP_REMOVED = "a sweep has removed what it could; it has not looked again"

    # A prune, in its order
    PRUNE_STARTED = "a prune knows what may go; nothing is doomed"
    OBJECTS_DOOMED = "doom entries are in the log; nothing that they name is deleted"
    OBJECT_DELETED = "a doomed object is deleted; others are not"
    REPACK_STARTED = "a repacking run has its intent; no frame was moved"
    FRAMES_COPIED = "frames are copied into stored packs; no table leads there"
    MOVES_STORED = "the table of moves is stored; the log does not name it"
    FRAMES_MOVED = "the log leads to the new frames; the old packs are there and not doomed"
    REPACK_SWEPT = "the old packs are gone; the log does not know the repacking run's end"
    PRUNE_DONE = "nothing is left to delete; no checkpoint was thought of"

    # A restore, in its order
    DISK_SURVEYED = "what of a disk is lost is known; there is no file"
    DISK_COPIED = "all extents are in a file without a name; nobody has judged what was lost meanwhile"
    IMAGE_DURABLE = "the image is durable; it has no name"
    IMAGE_NAMED = "the image has its name; the folder that holds it is not durable"


_interference: Interference | None = None


def reached(point: FaultPoint) -> None:
    """Nothing, unless a test has installed something in this very process."""
    if _interference is not None:
        _interference(point)


def install(interference: Interference | None) -> None:
    """For tests alone: what happens at every point of this process from now on; None: nothing again."""
    global _interference  # noqa: PLW0603 - threads of the engine, too, must find it
    _interference = interference
