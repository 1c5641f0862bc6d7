"""The log folded into what it means (docs/media-format.md, "Meaning of the log").

Pure: entries in, view out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Self

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
from vsa.media.layered import Members, drop, layered, members, put
from vsa.media.packed import Packer, unpack
from vsa.media.witness import Witness
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
        return unpack(self._packed, Point.model_validate_json)


@dataclass(frozen=True, slots=True)
class ReportedJob:
    """A job's report in the log, kept as bytes."""

    slot: int
    time: datetime
    _packed: bytes = field(repr=False)

    @property
    def job(self) -> JobEntry:
        return unpack(self._packed, JobEntry.model_validate_json)


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
    none). The tables may be read from a checkpoint as they are asked for; what they give is the same.
    """

    head: int
    head_hash: str
    clients: Mapping[str, ClientEntry] = field(default_factory=dict)
    points: Mapping[int, CommittedPoint] = field(default_factory=dict)
    """Every point that has not been given up, forgotten ones included."""
    jobs: Mapping[int, ReportedJob] = field(default_factory=dict)
    committed: Mapping[str, int] = field(default_factory=dict)
    """Slot of the point that each run committed, also of points that were given up since."""
    fenced: Set[str] = frozenset()
    """Runs that may no longer commit."""
    doomed: Set[str] = frozenset()
    """Objects that are deleted, or may be at any moment."""
    given_up: Set[int] = frozenset()
    """Forgotten points whose data is doomed: they cannot be called back."""
    forgotten: Mapping[int, datetime] = field(default_factory=dict)
    """When each point was forgotten that could still be called back, as the log's writer had the time."""
    pinned: Set[int] = frozenset()
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
    """Of sealed media: key documents with a lower number are retired, they open it no longer."""
    _history: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _bases: Mapping[str, tuple[int, SnapshotRef]] = field(default_factory=dict, repr=False)

    @property
    def witness(self) -> Witness | None:
        """The last entry, named; None while the log is empty."""
        return Witness(slot=self.head - 1, sha256=self.head_hash) if self.head else None

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

    def newest_points(self) -> tuple[int, ...]:
        """The slots of the points that are the newest of any disk and not forgotten, newest first."""
        newest = (
            next((slot for slot in reversed(slots) if self._is_kept(slot)), None)
            for slots in self._history.values()
        )
        return tuple(sorted({slot for slot in newest if slot is not None}, reverse=True))

    def harm_of(self, slot: int) -> tuple[Harm, ...]:
        """What of a point is lost to damage that has not been healed."""
        found = [
            self._left_of(harm, damage.entry)
            for damage in self.damages
            if not all(self._is_healed(item) for item in damage.entry.objects)
            for harm in damage.entry.harm
            if slot in harm.points
        ]
        return tuple(harm for harm in found if harm.ranges)

    def _left_of(self, harm: Harm, entry: DamageEntry) -> Harm:
        """The ranges of it whose frames have not been replaced."""
        healed = self.healed.get(entry.objects[0].name, WHOLE) if len(entry.objects) == 1 else WHOLE
        if healed.isdisjoint(harm.offsets):
            return harm
        left = [pair for pair in zip(harm.ranges, harm.offsets, strict=True) if pair[1] not in healed]
        ranges, offsets = zip(*left, strict=True) if left else ((), ())
        return harm.model_copy(update={"ranges": ranges, "offsets": offsets})

    def _is_healed(self, item: Damaged) -> bool:
        healed = self.healed.get(item.name)
        if healed is None or healed == WHOLE:
            return healed is not None
        return bool(item.offsets) and healed.issuperset(item.offsets)

    def is_lost(self, name: str) -> bool:
        """Whether an object was found damaged as a whole, and no copy has taken its place."""
        return self.damaged.get(name) == WHOLE and self.healed.get(name) != WHOLE

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
        fold: _Fold | None = None
        for entry, digest in entries:
            fold = fold or _Fold(self)
            fold.add(entry, digest)
        if fold is None:
            return self
        return type(self)(
            fold.head,
            fold.head_hash,
            clients=fold.clients.frozen(),
            points=fold.points.frozen(),
            jobs=fold.jobs.frozen(),
            committed=fold.committed.frozen(),
            fenced=Members(fold.fenced.frozen()),
            doomed=Members(fold.doomed.frozen()),
            given_up=Members(fold.given_up.frozen()),
            forgotten=fold.forgotten.frozen(),
            pinned=Members(fold.pinned.frozen()),
            doubtful=fold.doubtful.frozen(),
            relocations=tuple(fold.relocations),
            damages=tuple(fold.damages),
            damaged=fold.damaged.frozen(),
            healed=fold.healed.frozen(),
            key=fold.key,
            _history=fold.history.frozen(),
            _bases=fold.bases.frozen(),
        )


class _Fold:
    """Drafts of a view's tables while entries are added to them."""

    def __init__(self, view: View) -> None:
        self.head, self.head_hash = view.head, view.head_hash
        self.clients = layered(view.clients).draft()
        self.points = layered(view.points).draft()
        self.jobs = layered(view.jobs).draft()
        self.committed = layered(view.committed).draft()
        self.fenced = members(view.fenced).of.draft()
        self.doomed = members(view.doomed).of.draft()
        self.given_up = members(view.given_up).of.draft()
        self.forgotten = layered(view.forgotten).draft()
        self.pinned = members(view.pinned).of.draft()
        self.doubtful = layered(view.doubtful).draft()
        self.relocations = list(view.relocations)
        self.damages = list(view.damages)
        self.damaged = layered(view.damaged).draft()
        self.healed = layered(view.healed).draft()
        self.key = view.key
        self.history = layered(view._history).draft()
        self.bases = layered(view._bases).draft()

    @cached_property
    def _packer(self) -> Packer:
        return Packer()

    def add(self, entry: Entry, digest: str) -> None:
        slot = entry.seq
        self.head, self.head_hash = slot + 1, digest
        match entry.body:
            case ClientEntry() as client:
                self.clients[client.vm.key] = client
            case JobEntry() as job:
                self.jobs[slot] = ReportedJob(slot, _utc(entry.time), self._pack(job))
                self._release_bases(job)
            case PointEntry(point=point):
                self._add_point(entry, point)
            case DoubtEntry() as doubt:
                self._add_doubt(slot, doubt)
            case DamageEntry() as damage:
                self._add_damage(slot, damage)
            case ForgetEntry(points=points):
                gone = [slot for slot in points if slot in self.points]
                self.forgotten.update(dict.fromkeys(gone, _utc(entry.time)))
            case UnforgetEntry(points=points):
                for wanted in points:
                    self.forgotten.pop(wanted, None)
            case PinEntry(points=points, pinned=pinned):
                put(self.pinned, points) if pinned else drop(self.pinned, points)
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
        packed = self._pack(point)
        self.points[slot] = CommittedPoint(slot, _utc(entry.time), run, point.vm.key, disks, packed)
        self.committed[run] = slot
        for key in disks:
            self.history[key] = (*self.history.get(key, ()), slot)
        self.bases.update({base.disk_key: (slot, base) for base in point.bases})

    def _add_doom(self, doom: DoomEntry) -> None:
        put(self.fenced, (run for run in doom.runs if run not in self.committed))
        put(self.doomed, doom.objects)
        for slot in doom.points:
            if slot in self.forgotten:
                del self.forgotten[slot], self.points[slot]
                put(self.given_up, [slot])
                drop(self.pinned, [slot])
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
        return self._packer.pack(noun.model_dump_json())


def _utc(time: datetime) -> datetime:
    """The same moment, told in one way, wherever the view was read from."""
    return time.astimezone(UTC)


def _joined(known: frozenset[int] | None, item: Damaged) -> frozenset[int]:
    """The offsets known of an object and those of `item`; WHOLE if either means all of it."""
    if known is None:
        return frozenset(item.offsets)
    return WHOLE if WHOLE in (known, frozenset(item.offsets)) else known | set(item.offsets)
