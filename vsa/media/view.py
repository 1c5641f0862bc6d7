"""The log folded into what it means (docs/media-format.md, "Meaning of the log").

Pure: entries in, view out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import zstandard

from vsa.media.entries import ClientEntry, DamageEntry, DoomEntry, Entry, JobEntry, PointEntry
from vsa.model import DiskBackup, Noun, Point, SnapshotRef


@dataclass(frozen=True, slots=True)
class CommittedPoint:
    """A recovery point in the log, kept as bytes: a long log holds tens of thousands."""

    slot: int
    time: datetime
    run: str
    _packed: bytes = field(repr=False)

    @property
    def point(self) -> Point:
        return Point.model_validate_json(zstandard.decompress(self._packed))


@dataclass(frozen=True, slots=True)
class ReportedJob:
    """A job's report in the log, kept as bytes."""

    slot: int
    time: datetime
    _packed: bytes = field(repr=False)

    @property
    def job(self) -> JobEntry:
        return JobEntry.model_validate_json(zstandard.decompress(self._packed))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Slot `slot` of the log says that a point's contents of one disk are in doubt."""

    slot: int
    disk_key: str
    reason: str


@dataclass(frozen=True)
class View:
    """What slots 0 to `head` - 1 say; later entries make another view and leave this one as it is.

    `head` is the next free slot and `head_hash` the sha256 of the entry before it (of media.json if there is
    none): together the witness of the log.
    """

    head: int
    head_hash: str
    clients: Mapping[str, ClientEntry] = field(default_factory=dict)
    points: Mapping[int, CommittedPoint] = field(default_factory=dict)
    jobs: Mapping[int, ReportedJob] = field(default_factory=dict)
    committed: Mapping[str, int] = field(default_factory=dict)
    """Slot of the point that each run committed."""
    fenced: frozenset[str] = frozenset()
    """Runs that may no longer commit."""
    doomed: frozenset[str] = frozenset()
    """Objects that are deleted, or may be at any moment."""
    doubtful: Mapping[int, tuple[Doubt, ...]] = field(default_factory=dict)
    _latest: Mapping[str, int] = field(default_factory=dict, repr=False)
    _bases: Mapping[str, tuple[int, SnapshotRef]] = field(default_factory=dict, repr=False)

    def latest_point_of_disk(self, disk_key: str) -> tuple[int, DiskBackup] | None:
        """The newest point that holds the disk, by log order, and that disk's part of it."""
        slot = self._latest.get(disk_key)
        if slot is None:
            return None
        return slot, next(disk for disk in self.points[slot].point.disks if disk.disk.key == disk_key)

    def base_of(self, disk_key: str) -> tuple[int, SnapshotRef] | None:
        """The base snapshot that the next comparison of the disk starts from, and the point that named it."""
        return self._bases.get(disk_key)

    def bases(self) -> Mapping[str, tuple[int, SnapshotRef]]:
        """Every base snapshot that is kept, by disk key."""
        return self._bases

    def extended(self, entries: Iterable[tuple[Entry, str]]) -> Self:
        """This view and the entries that follow it, in log order, each with the sha256 of its bytes."""
        fold = _Fold(self)
        for entry, digest in entries:
            fold.add(entry, digest)
        if fold.head == self.head:
            return self
        return type(self)(
            fold.head,
            fold.head_hash,
            clients=fold.clients,
            points=fold.points,
            jobs=fold.jobs,
            committed=fold.committed,
            fenced=frozenset(fold.fenced),
            doomed=frozenset(fold.doomed),
            doubtful=fold.doubtful,
            _latest=fold.latest,
            _bases=fold.bases,
        )


class _Fold:
    """Mutable copies of a view's tables while entries are added to them."""

    def __init__(self, view: View) -> None:
        self._compressor = zstandard.ZstdCompressor(level=1)
        self.head, self.head_hash = view.head, view.head_hash
        self.clients = dict(view.clients)
        self.points = dict(view.points)
        self.jobs = dict(view.jobs)
        self.committed = dict(view.committed)
        self.fenced = set(view.fenced)
        self.doomed = set(view.doomed)
        self.doubtful = dict(view.doubtful)
        self.latest = dict(view._latest)
        self.bases = dict(view._bases)

    def add(self, entry: Entry, digest: str) -> None:
        slot = entry.seq
        self.head, self.head_hash = slot + 1, digest
        match entry.body:
            case ClientEntry() as client:
                self.clients[client.vm.key] = client
            case JobEntry() as job:
                self.jobs[slot] = ReportedJob(slot, entry.time, self._pack(job))
                self._release_bases(job)
            case PointEntry(point=point):
                self._add_point(entry, point)
            case DamageEntry() as damage:
                self._add_damage(slot, damage)
            case DoomEntry(runs=runs, objects=objects):
                self.fenced.update(run for run in runs if run not in self.committed)
                self.doomed.update(objects)

    def _add_point(self, entry: Entry, point: Point) -> None:
        """No correct writer commits twice for a run or after its fence; such an entry means nothing."""
        run, slot = entry.run or "", entry.seq
        if run in self.committed or run in self.fenced:
            return
        self.points[slot] = CommittedPoint(slot, entry.time, run, self._pack(point))
        self.committed[run] = slot
        self.latest.update((disk.disk.key, slot) for disk in point.disks)
        self.bases.update((base.disk_key, (slot, base)) for base in point.bases)

    def _release_bases(self, job: JobEntry) -> None:
        for released in job.released:
            kept = self.bases.get(released.base.disk_key)
            # A newer base may have been committed between the decision and this entry: it stays.
            if kept and (kept[1].id, kept[1].moment) == (released.base.id, released.base.moment):
                del self.bases[released.base.disk_key]

    def _add_damage(self, slot: int, damage: DamageEntry) -> None:
        doubt = Doubt(slot, damage.disk_key, damage.reason)
        for point in damage.points:
            self.doubtful[point] = (*self.doubtful.get(point, ()), doubt)

    def _pack(self, noun: Noun) -> bytes:
        return self._compressor.compress(noun.model_dump_json().encode())
