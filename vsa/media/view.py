"""The log folded into what it means (docs/media-format.md, "Meaning of the log").

Pure: entries in, view out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import zstandard

from vsa.media.entries import (
    ClientEntry,
    Damaged,
    DamageEntry,
    DoomEntry,
    DoubtEntry,
    Entry,
    ForgetEntry,
    Harm,
    JobEntry,
    PinEntry,
    PointEntry,
    RelocateEntry,
    RotateEntry,
    UnforgetEntry,
)
from vsa.model import DiskBackup, Noun, Point, SnapshotRef


@dataclass(frozen=True, slots=True)
class CommittedPoint:
    """A recovery point in the log, kept as bytes: a long log holds tens of thousands.

    `client` is the key of its VM, `disks` are the keys of the disks it holds.
    """

    slot: int
    time: datetime
    run: str
    client: str
    disks: tuple[str, ...]
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


@dataclass(frozen=True, slots=True)
class Damage:
    """Slot `slot` of the log says that objects are damaged, and whom that harmed then."""

    slot: int
    entry: DamageEntry


@dataclass(frozen=True, slots=True)
class Relocation:
    """Slot `slot` of the log says that frames lie elsewhere now."""

    slot: int
    entry: RelocateEntry


WHOLE: frozenset[int] = frozenset()
"""In place of offsets: all of an object is damaged, not only some of its frames."""


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
    """Every point that has not been given up, forgotten ones included."""
    jobs: Mapping[int, ReportedJob] = field(default_factory=dict)
    committed: Mapping[str, int] = field(default_factory=dict)
    """Slot of the point that each run committed, also of points that were given up since."""
    fenced: frozenset[str] = frozenset()
    """Runs that may no longer commit."""
    doomed: frozenset[str] = frozenset()
    """Objects that are deleted, or may be at any moment."""
    given_up: frozenset[int] = frozenset()
    """Forgotten points whose data is doomed: they cannot be called back."""
    forgotten: Mapping[int, datetime] = field(default_factory=dict)
    """When each point was forgotten that could still be called back, as the log's writer had the time."""
    pinned: frozenset[int] = frozenset()
    doubtful: Mapping[int, tuple[Doubt, ...]] = field(default_factory=dict)
    relocations: tuple[Relocation, ...] = ()
    """In log order; each applies to what the ones before it have made of a row."""
    damages: tuple[Damage, ...] = ()
    damaged: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Objects that were found damaged: offsets of their bad frames, or WHOLE. For ever: what is healed lies
    elsewhere, and nothing may be led back to a place that has decayed once."""
    healed: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """The part of `damaged` that no row leads to any more."""
    key: int = 0
    """Number of the key object that opens the media, if it is sealed."""
    _history: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _bases: Mapping[str, tuple[int, SnapshotRef]] = field(default_factory=dict, repr=False)

    @property
    def live(self) -> list[CommittedPoint]:
        """The points that nobody has forgotten, in log order."""
        return [made for slot, made in self.points.items() if slot not in self.forgotten]

    def points_of_disk(self, disk_key: str) -> tuple[int, ...]:
        """The slots of the points that hold the disk and are not forgotten, in log order."""
        return tuple(
            slot
            for slot in self._history.get(disk_key, ())
            if slot in self.points and slot not in self.forgotten
        )

    def latest_point_of_disk(self, disk_key: str) -> tuple[int, DiskBackup] | None:
        """The newest point that holds the disk, by log order, and that disk's part of it."""
        slots = self.points_of_disk(disk_key)
        if not slots:
            return None
        disks = self.points[slots[-1]].point.disks
        return slots[-1], next(disk for disk in disks if disk.disk.key == disk_key)

    def harm_of(self, slot: int) -> tuple[Harm, ...]:
        """What of a point is lost to damage that has not been healed."""
        return tuple(
            harm
            for damage in self.damages
            if not all(self._is_healed(item) for item in damage.entry.objects)
            for harm in damage.entry.harm
            if slot in harm.points
        )

    def _is_healed(self, item: Damaged) -> bool:
        healed = self.healed.get(item.name)
        if healed is None or healed == WHOLE:
            return healed is not None
        return bool(item.offsets) and healed.issuperset(item.offsets)

    def is_damaged(self, name: str, offset: int) -> bool:
        """Whether a frame was found damaged, by itself or with the whole of its pack."""
        bad = self.damaged.get(name)
        return bad is not None and (bad == WHOLE or offset in bad)

    def base_of(self, disk_key: str) -> tuple[int, SnapshotRef] | None:
        """The base snapshot that the next comparison of the disk starts from, and the point that named it."""
        base = self._bases.get(disk_key)
        return None if base is None or not self._is_kept(base[0]) else base

    def bases(self) -> Mapping[str, tuple[int, SnapshotRef]]:
        """Every base snapshot that is kept, by disk key."""
        return {key: base for key, base in self._bases.items() if self._is_kept(base[0])}

    def _is_kept(self, slot: int) -> bool:
        return slot in self.points and slot not in self.forgotten

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
            given_up=frozenset(fold.given_up),
            forgotten=fold.forgotten,
            pinned=frozenset(fold.pinned),
            doubtful=fold.doubtful,
            relocations=tuple(fold.relocations),
            damages=tuple(fold.damages),
            damaged=fold.damaged,
            healed=fold.healed,
            key=fold.key,
            _history=fold.history,
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
        self.given_up = set(view.given_up)
        self.forgotten = dict(view.forgotten)
        self.pinned = set(view.pinned)
        self.doubtful = dict(view.doubtful)
        self.relocations = list(view.relocations)
        self.damages = list(view.damages)
        self.damaged = dict(view.damaged)
        self.healed = dict(view.healed)
        self.key = view.key
        self.history = dict(view._history)
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
            case DoubtEntry() as doubt:
                self._add_doubt(slot, doubt)
            case DamageEntry() as damage:
                self._add_damage(slot, damage)
            case ForgetEntry(points=points):
                self.forgotten.update((gone, entry.time) for gone in points if gone in self.points)
            case UnforgetEntry(points=points):
                for wanted in points:
                    self.forgotten.pop(wanted, None)
            case PinEntry(points=points, pinned=pinned):
                (self.pinned.update if pinned else self.pinned.difference_update)(points)
            case DoomEntry() as doom:
                self._add_doom(doom)
            case RelocateEntry() as relocate:
                self._add_relocation(slot, entry.run, relocate)
            case RotateEntry(key=key):
                self.key = max(self.key, key)

    def _add_point(self, entry: Entry, point: Point) -> None:
        """No correct writer commits twice for a run or after its fence; such an entry means nothing."""
        run, slot = entry.run or "", entry.seq
        if run in self.committed or run in self.fenced:
            return
        disks = tuple(disk.disk.key for disk in point.disks)
        self.points[slot] = CommittedPoint(slot, entry.time, run, point.vm.key, disks, self._pack(point))
        self.committed[run] = slot
        for key in disks:
            self.history[key] = (*self.history.get(key, ()), slot)
        self.bases.update((base.disk_key, (slot, base)) for base in point.bases)

    def _add_doom(self, doom: DoomEntry) -> None:
        self.fenced.update(run for run in doom.runs if run not in self.committed)
        self.doomed.update(doom.objects)
        for slot in doom.points:
            if slot in self.forgotten:
                del self.forgotten[slot], self.points[slot]
                self.given_up.add(slot)
                self.pinned.discard(slot)
                self.doubtful.pop(slot, None)

    def _add_relocation(self, slot: int, run: str | None, relocate: RelocateEntry) -> None:
        """Like a point, a relocation of a fenced run means nothing."""
        if run in self.fenced:
            return
        self.relocations.append(Relocation(slot, relocate))
        for item in relocate.healed:
            self.healed[item.name] = _joined(self.healed.get(item.name), item)

    def _add_damage(self, slot: int, damage: DamageEntry) -> None:
        self.damages.append(Damage(slot, damage))
        for item in damage.objects:
            self.damaged[item.name] = _joined(self.damaged.get(item.name), item)

    def _release_bases(self, job: JobEntry) -> None:
        for released in job.released:
            kept = self.bases.get(released.base.disk_key)
            # A newer base may have been committed between the decision and this entry: it stays.
            if kept and (kept[1].id, kept[1].moment) == (released.base.id, released.base.moment):
                del self.bases[released.base.disk_key]

    def _add_doubt(self, slot: int, said: DoubtEntry) -> None:
        doubt = Doubt(slot, said.disk_key, said.reason)
        for point in said.points:
            self.doubtful[point] = (*self.doubtful.get(point, ()), doubt)

    def _pack(self, noun: Noun) -> bytes:
        return self._compressor.compress(noun.model_dump_json().encode())


def _joined(known: frozenset[int] | None, item: Damaged) -> frozenset[int]:
    """The offsets known of an object and those of `item`; WHOLE if either means all of it."""
    if known is None:
        return frozenset(item.offsets)
    return WHOLE if WHOLE in (known, frozenset(item.offsets)) else known | set(item.offsets)
