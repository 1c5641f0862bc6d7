"""How entries of the log are folded into a view, one by one (docs/media-format.md, "Meaning of the log")."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from vsa.media.entries import (
    ClientEntry,
    Damaged,
    DamageEntry,
    DoomEntry,
    DoubtEntry,
    Entry,
    ForgetEntry,
    JobEntry,
    PinEntry,
    PointEntry,
    RelocateEntry,
    RotateEntry,
    UnforgetEntry,
)
from vsa.media.facts import WHOLE, CommittedPoint, Damage, Doubt, Latest, Relocation, ReportedJob
from vsa.media.layered import Members, drop, layered, members, put
from vsa.media.packed import Packer
from vsa.model import Noun, Point

if TYPE_CHECKING:
    from vsa.media.view import View

V = TypeVar("V", bound="View")


class Fold:
    """Drafts of a view's tables while entries are added to them.

    Times after `believed_until` are known to be wrong: they make no later entry's effective time.
    """

    def __init__(self, view: View, believed_until: datetime | None = None) -> None:
        self.head, self.head_hash = view.head, view.head_hash
        self.latest = view.latest
        self._believed_until = believed_until
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

    def frozen(self, kind: type[V]) -> V:
        """The view that they have become."""
        return kind(
            self.head,
            self.head_hash,
            latest=self.latest,
            clients=self.clients.frozen(),
            points=self.points.frozen(),
            jobs=self.jobs.frozen(),
            committed=self.committed.frozen(),
            fenced=Members(self.fenced.frozen()),
            doomed=Members(self.doomed.frozen()),
            given_up=Members(self.given_up.frozen()),
            forgotten=self.forgotten.frozen(),
            pinned=Members(self.pinned.frozen()),
            doubtful=self.doubtful.frozen(),
            relocations=tuple(self.relocations),
            damages=tuple(self.damages),
            damaged=self.damaged.frozen(),
            healed=self.healed.frozen(),
            key=self.key,
            _history=self.history.frozen(),
            _bases=self.bases.frozen(),
        )

    @cached_property
    def _packer(self) -> Packer:
        return Packer()

    def add(self, entry: Entry, digest: str) -> None:
        slot, time = entry.seq, in_utc(entry.time)
        self.head, self.head_hash = slot + 1, digest
        self._note(Latest(slot, time))
        match entry.body:
            case ClientEntry() as client:
                self.clients[client.vm.key] = client
            case JobEntry() as job:
                self.jobs[slot] = ReportedJob(slot, time, self._pack(job))
                self._release_bases(job)
            case PointEntry(point=point):
                self._add_point(entry, point)
            case DoubtEntry() as doubt:
                self._add_doubt(slot, doubt)
            case DamageEntry() as damage:
                self._add_damage(slot, damage)
            case ForgetEntry(points=points):
                gone = [slot for slot in points if slot in self.points]
                self.forgotten.update(dict.fromkeys(gone, self._effective(time)))
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

    def _note(self, claimed: Latest) -> None:
        believed = self._believed_until is None or claimed.time <= self._believed_until
        if believed and (self.latest is None or claimed.time > self.latest.time):
            self.latest = claimed

    def _effective(self, time: datetime) -> datetime:
        """When an entry was written at the earliest, whatever its writer's clock said: not before the entries
        that it follows."""
        return time if self.latest is None else max(time, self.latest.time)

    def _add_point(self, entry: Entry, point: Point) -> None:
        """No correct writer commits twice for a run or after its fence; such an entry means nothing."""
        run, slot = entry.run or "", entry.seq
        if run in self.committed or run in self.fenced:
            return
        disks = tuple(disk.disk.key for disk in point.disks)
        packed = self._pack(point)
        self.points[slot] = CommittedPoint(slot, in_utc(entry.time), run, point.vm.key, disks, packed)
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


def in_utc(time: datetime) -> datetime:
    """The same moment, told in one way, wherever the view was read from."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        # Within hours of the first or the last year that can be told, in a zone that lies on this side of it.
        return (datetime.max if time.year > 1 else datetime.min).replace(tzinfo=UTC)


def _joined(known: frozenset[int] | None, item: Damaged) -> frozenset[int]:
    """The offsets known of an object and those of `item`; WHOLE if either means all of it."""
    if known is None:
        return frozenset(item.offsets)
    return WHOLE if WHOLE in (known, frozenset(item.offsets)) else known | set(item.offsets)
