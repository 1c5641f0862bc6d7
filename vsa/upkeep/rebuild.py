"""Make media anew from packs alone: for media whose log, indexes or descriptor are lost or spoilt.

Nothing is changed at the old place. What the log alone said is gone: jobs, pins, doubts, which points were
forgotten or given up. A point that was recorded but never committed comes to life; it is as whole as the
others. One that was given up is known by its holes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from vsa.errors import UNREADABLE, BadRequest, MediaConflict, MediaDamaged, ObjectMissing, VsaError
from vsa.media import documents, layout
from vsa.media.descriptor import describe_new
from vsa.media.disk_index import DiskIndex
from vsa.media.entries import (
    ClientEntry,
    Damaged,
    DamageEntry,
    DoomEntry,
    EntryBody,
    Harm,
    PointEntry,
    RelocateEntry,
    SeenName,
)
from vsa.media.index import PackRef
from vsa.media.key_ring import Unlocked, orphaned_sealer, seal_again
from vsa.media.media import Media
from vsa.media.moves import MovesDescription, store_moves
from vsa.media.sealed_store import SealedStore
from vsa.media.store import Store
from vsa.media.wrapping import WrappingKey
from vsa.model import DiskBackup, IndexRef, Intent, ObjectRef, Point, ProcessName
from vsa.progress import SILENT, Progress
from vsa.upkeep import recorded
from vsa.upkeep.doom import MAX_NAMES
from vsa.upkeep.lost_frames import Losses, Packs, Rediscovery, lost_places, lost_ranges
from vsa.upkeep.recorded import Copy, Found


@dataclass(frozen=True)
class Rebuilt:
    """What came of it; `lost` says in words what could not be had again, `left_out` which points were not
    made because packs that they alone need are simply not there."""

    media: Media
    points: tuple[int, ...]
    packs: int
    bytes: int
    moved: int
    lost: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def rebuild(
    source: Store,
    target: Store,
    *,
    scratch: Path,
    now: datetime,
    random: Callable[[int], bytes],
    wrapping: WrappingKey | None = None,
    with_holes: bool = False,
    progress: Progress = SILENT,
) -> Rebuilt:
    """Make media at `target`, an empty place prepared for writing, of what the packs at `source` say.

    Sealed media needs one of its key documents at `source` and the `wrapping` key that opens it; what is
    made is sealed under the same data key, and `wrapping` alone opens it. KeyNeeded or WrongKey without.
    A point whose losses are all in packs that are not there was most likely given up by a prune: it comes
    back only `with_holes`, with its harm recorded, as that of points is which spoilt packs harm.
    MediaConflict if something is at `target`; otherwise errors as `recorded.find` has them.
    """
    if next(iter(target.names("")), None) is not None:
        raise MediaConflict(f"{target.location} is not empty: rebuilt media needs a place of its own")
    sealer = orphaned_sealer(source, wrapping, random=random)
    found = recorded.find(source, sealer, progress)
    media_id = bytes.fromhex(found.media_id)
    unlocked = None
    if sealer is None:
        _require_no_key(source, wrapping)
        describe_new(target, extent_size=found.extent_size, now=now, random=random, media_id=media_id)
    else:
        assert wrapping is not None
        seal_again(target, sealer, wrapping, extent_size=found.extent_size, now=now, random=random)
        unlocked, source = Unlocked(sealer, 0), SealedStore(source, sealer)
    media = Media(target, write=True, unlocked=unlocked, clock=lambda: now, random=random)
    return _Rebuilding(source, media, found, scratch, random, with_holes, progress).run(now)


def _require_no_key(source: Store, wrapping: WrappingKey | None) -> None:
    if wrapping is not None:
        raise BadRequest(f"{source.location}: a key was given, but nothing there is sealed: give none")


_Known = tuple[str, str, int]
"""Name, sha256 and size of an index: what its bytes prove. What else a record says of it is not proven."""


@dataclass
class _Rebuilding:
    """The work, step by step; what is lost on the way is gathered."""

    source: Store
    media: Media
    found: Found
    scratch: Path
    random: Callable[[int], bytes]
    with_holes: bool
    progress: Progress
    lost: list[str] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    """Those that have objects on the new media."""
    committed: set[str] = field(default_factory=set)
    by_run: dict[str, Copy] = field(default_factory=dict)
    """Of the points of each run the one that is taken for the run's own."""

    def run(self, now: datetime) -> Rebuilt:
        self.lost += self.found.spoilt
        copies = self._keep_indexes()
        points = self._points(copies)
        packs = self._copy_packs(points)
        losses = Losses(packs, self.media.extent_reader())
        again, moved = self._relocate(points, packs, losses)
        holed = self._given_up(points, packs, losses, again)
        whole = {copy.head.run: copy for copy in points if copy not in holed}
        self.by_run = {copy.head.run: copy for copy in reversed(points)} | whole
        # What a run recorded, could not commit and recorded once more, has holes, and nobody misses it.
        left_out = [] if self.with_holes else [copy for copy in holed if copy.head.run not in whole]
        points = [copy for copy in points if self.with_holes or copy not in holed]
        made = {slot: copy for copy in points if (slot := self._commit(copy, now)) is not None}
        points = list(made.values())
        self._copy_records(copies, points)
        for client in _clients([copy.head.point for copy in points]):
            self._say(client, None)
        for slot, copy in made.items():
            for disk in copy.head.point.disks:
                self._record_harm(slot, disk, losses)
        self._end_runs(now)
        return Rebuilt(
            self.media,
            tuple(made),
            len(packs),
            packs.size(),
            moved,
            lost=tuple(self.lost),
            left_out=tuple(map(_left_out, left_out)),
        )

    def _keep_indexes(self) -> list[Copy]:
        """Keep all indexes that records have; the records, each with the indexes that it proved to have, by
        the names under which they are kept, and its point with the same names.

        An index is known by its bytes. A prune may have put one back that was lost, under a name of its own,
        as the log said and no point does. And a record that somebody has planted may have other bytes by the
        name of an index: they take it from no point, for what comes later is kept under a new one.
        """
        kept: dict[_Known, str] = {}
        by_bytes: dict[tuple[str, int], str] = {}
        had: list[list[IndexRef]] = []
        for copy in self.found.copies:
            had.append([])
            for ref, data in recorded.indexes_of(self.source, copy, self.media.codec, self.scratch):
                if _known(ref) not in kept:
                    kept[_known(ref)] = self._keep_index(ref.name, data)
                    by_bytes.setdefault((ref.sha256, ref.size), kept[_known(ref)])
                had[-1].append(ref)

        def as_kept(ref: IndexRef) -> IndexRef:
            name = kept.get(_known(ref)) or by_bytes.get((ref.sha256, ref.size))
            return ref if name in (None, ref.name) else ref.model_copy(update={"name": name})

        return [_led(copy, refs, as_kept) for copy, refs in zip(self.found.copies, had, strict=True)]

    def _keep_index(self, name: str, data: memoryview) -> str:
        """The name under which it is kept: its own, unless other bytes have that."""
        run = layout.run_of(name) or ""
        self.runs.add(run)
        try:
            self.media.store.create(name, [data])
        except MediaConflict:
            name = layout.index(run, layout.disk_key_of(name), self.random(8))
            self.media.store.create(name, [data])
        return name

    def _new_run(self) -> str:
        """One whose entries say what has moved."""
        run = f"rebuild-{self.random(8).hex()}"
        self.runs.add(run)
        return run

    def _keep(self, name: str, data: memoryview) -> None:
        self.runs.add(layout.run_of(name) or "")
        try:
            self.media.store.create(name, [data])
        except MediaConflict:
            # It was copied before, from the same object.
            return

    def _points(self, copies: Sequence[Copy]) -> list[Copy]:
        """A copy of each point of each run of which all indexes are there.

        A run whose commit was refused may have recorded its point once more when it had read again what was
        being pruned, and somebody may have planted one. Nothing says which of them was committed, but not one
        that lacks an index.
        """
        faults = [(copy, self._fault(copy)) for copy in recorded.points_of(copies)]
        have = {copy.head.run for copy, fault in faults if not fault}
        for copy, fault in faults:
            if copy.head.run not in have:
                self.lost.append(f"the point of run {copy.head.run}, VM {copy.head.point.vm.name}: {fault}")
        return [copy for copy, fault in faults if not fault]

    def _fault(self, copy: Copy) -> str:
        """Why a copy of a point is of no use; nothing if all its indexes are there, and all their rows."""
        try:
            for disk in copy.head.point.disks:
                for _ in self._index(disk).tables():
                    pass
        except (*UNREADABLE, BadRequest) as error:
            return str(error)
        return ""

    def _copy_packs(self, points: Sequence[Copy]) -> Packs:
        """Copy the packs that the indexes name; also spoilt ones, of which most frames may be sound."""
        wanted = {
            ref.name: ref
            for index in self._indexes(points)
            for file in index.files
            for ref in file.description.packs
        }
        packs = Packs()
        self.progress.started("copying packs", sum(ref.size for ref in wanted.values()))
        for name, ref in sorted(wanted.items()):
            if (data := self._read(ref, packs)) is not None:
                self._keep(name, memoryview(data))
                whole = hashlib.sha256(data).hexdigest() == ref.sha256
                (packs.sound if whole else packs.spoilt)[name] = ref
            self.progress.advanced(ref.size)
        self.progress.finished()
        self.lost += [f"{name} does not have the digest that its index states" for name in packs.spoilt]
        return packs

    def _read(self, ref: PackRef, packs: Packs) -> bytes | None:
        """The pack's bytes; None if it is gone, which a move may explain, or has another size."""
        try:
            data = self.source.read(ref.name, limit=ref.size)
        except ObjectMissing:
            return None
        except MediaDamaged as error:
            packs.useless.add(ref.name)
            self.lost.append(str(error))
            return None
        if len(data) < ref.size:
            packs.useless.add(ref.name)
            self.lost.append(f"{ref.name} has {len(data)} bytes, its index states {ref.size}")
            return None
        return data

    def _relocate(self, points: Sequence[Copy], packs: Packs, losses: Losses) -> tuple[Rediscovery, int]:
        """Lead rows whose frame is lost to the same bytes elsewhere; how many. The packs that have them join
        `packs`."""
        again = Rediscovery(lost_places(self._indexes(points), losses))
        for name, data in again.search(self.source, self.found.packs.items(), self.media.codec):
            if name not in packs.sound and name not in packs.spoilt:
                packs.sound[name] = self._copy(name, data)
        run, moved = "", 0
        for sources, targets, rows in again.moves({**packs.spoilt, **packs.sound}):
            run = run or self._new_run()
            about = MovesDescription(media=self.media.id, run=run, sources=sources, packs=targets)
            table = store_moves(self.media.store, layout.moves(run, self.random(8)), about, rows)
            self._say(RelocateEntry(table=table, packs=sources, reason="rebuilt from packs"), run)
            moved += len(rows)
        return again, moved

    def _given_up(
        self, points: Sequence[Copy], packs: Packs, losses: Losses, again: Rediscovery
    ) -> list[Copy]:
        """Points of which a prune seems to have left what others need: the rest is simply not there.

        None if there are packs that no index names and nobody can read: the rest may have been in those.
        """
        if self.found.unread - packs.sound.keys() - packs.spoilt.keys() - packs.useless:
            return []
        return [
            copy
            for copy in points
            if {losses.are_by_absence(index, again) for index in self._indexes([copy])} in _ALL_BY_ABSENCE
        ]

    def _copy_records(self, copies: Iterable[Copy], points: Sequence[Copy]) -> None:
        """Keep also what records other indexes that points need: those of runs whose own point is not among
        them, and copies that a prune has made of lost ones."""
        needed = {ref for copy in points for disk in copy.head.point.disks for ref in disk.indexes}
        needed -= {ref for copy in points for ref in copy.head.indexes}
        for copy in copies:
            if not needed.isdisjoint(copy.head.indexes):
                needed -= set(copy.head.indexes)
                for name in copy.packs:
                    self._copy_record(name)

    def _copy(self, name: str, data: bytes) -> PackRef:
        """Keep a pack that no index names. Of its frames those are proven that rows are led to."""
        self._keep(name, memoryview(data))
        return PackRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _commit(self, copy: Copy, now: datetime) -> int | None:
        """The point's slot; None if it says more than an entry can."""
        point = copy.head.point
        # A run has one point in a log. Where records have several of one, the others are other runs'.
        run = copy.head.run if self.by_run[copy.head.run] is copy else self.random(8).hex()
        self.committed.add(run)
        records = tuple(self._copy_record(name) for name in copy.packs)
        disks = tuple(disk.model_copy(update={"parent": None, "digests": ()}) for disk in point.disks)
        body = PointEntry(point=point.model_copy(update={"records": records, "disks": disks}))
        try:
            self.media.begin_run(self._intent(run, now, point))
            return self._say(body, run)
        except BadRequest as error:
            self.committed.remove(run)
            self.lost.append(f"the point of run {copy.head.run}, VM {point.vm.name}: {error}")
            return None

    def _copy_record(self, name: str) -> ObjectRef:
        """The frames of a record were proven when it was found."""
        data = self.source.read(name)
        self._keep(name, memoryview(data))
        return ObjectRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _end_runs(self, now: datetime) -> None:
        """Say of all other runs that they are over, so that a prune may delete what nobody needs of them:
        those that repacked, that failed, whose points were left out, and this one."""
        over = sorted(self.runs - self.committed)
        for run in over:
            self.media.begin_run(self._intent(run, now))
        for first in range(0, len(over), MAX_NAMES):
            ended = tuple(over[first : first + MAX_NAMES])
            self._say(DoomEntry(runs=ended, reason="had ended before a rebuild, or was that"), None)

    def _intent(self, run: str, now: datetime, point: Point | None = None) -> Intent:
        """The run's own, if it is still there: it names what the run made in Azure."""
        try:
            name = layout.intent(run)
            data = self.source.read(name, limit=layout.MAX_DOCUMENT_SIZE)
            intent = documents.decode(data, Intent, f"{self.source.location}: {name}")
            if intent.run != run:
                raise MediaDamaged(f"{self.source.location}: {name} is of run {intent.run}")
            return intent
        except VsaError:
            return Intent(
                run=run,
                job=point.job if point else "rebuild",
                vm_key=point.vm.key if point else "",
                vm_name=point.vm.name if point else "",
                subclient=point.subclient if point else "",
                started_at=now,
                process=ProcessName(host="unknown", boot="", id=1, started=""),
                disks=tuple(disk.disk for disk in point.disks) if point else (),
            )

    def _record_harm(self, slot: int, disk: DiskBackup, losses: Losses) -> None:
        """Say in the log which ranges of a disk could not be had again."""
        size = parts = 0
        for offsets, ranges in lost_ranges(self._index(disk), losses):
            objects = tuple(Damaged(name=name, offsets=tuple(at)) for name, at in sorted(offsets.items()))
            harm = Harm(points=(slot,), disk_key=disk.disk.key, ranges=tuple(ranges))
            self._say(DamageEntry(objects=objects, harm=(harm,), reason="lost before a rebuild"), None)
            size += sum(end - start for start, end in ranges)
            parts += len(ranges)
        if parts:
            self.lost.append(f"point {slot}, disk {disk.disk.name}: {size} bytes in {parts} ranges")

    def _say(self, body: EntryBody, run: str | None) -> int:
        """Without the checks of a commit: a harmed point is still worth having, and its harm is recorded."""
        slot = self.media.append_planned(lambda _: body, run=run)
        assert slot is not None
        return slot

    def _indexes(self, points: Sequence[Copy]) -> Iterator[DiskIndex]:
        return (self._index(disk) for copy in points for disk in copy.head.point.disks)

    def _index(self, disk: DiskBackup) -> DiskIndex:
        return self.media.disk_index(disk.indexes, disk.disk.size)


def _led(copy: Copy, indexes: Iterable[IndexRef], as_kept: Callable[[IndexRef], IndexRef]) -> Copy:
    """The copy as one of these indexes, and what it and its point name by the names that they have now."""
    point = copy.head.point
    disks = tuple(
        disk.model_copy(update={"indexes": tuple(map(as_kept, disk.indexes))}) for disk in point.disks
    )
    changed = {
        "indexes": tuple(map(as_kept, indexes)),
        "point": point.model_copy(update={"disks": disks}),
    }
    return replace(copy, head=copy.head.model_copy(update=changed))


def _known(ref: IndexRef) -> _Known:
    return ref.name, ref.sha256, ref.size


_ALL_BY_ABSENCE = ({True}, {True, None})


def _left_out(copy: Copy) -> str:
    point = copy.head.point
    return (
        f"the point of run {copy.head.run}, VM {point.vm.name}, {_taken_at(point):%Y-%m-%d %H:%M} UTC: packs "
        "that it needs are not there, so a prune has most likely given it up"
    )


def _clients(points: Sequence[Point]) -> Iterator[ClientEntry]:
    """An entry for each VM as its newest point has it; `points` are in the order of their snapshots."""
    newest = {point.vm.key: point for point in points}
    oldest = {point.vm.key: point for point in reversed(points)}
    for key, point in newest.items():
        vm, first, last = point.vm, _taken_at(oldest[key]), _taken_at(point)
        name = SeenName(name=vm.name, resource_id=vm.resource_id, first_seen=first, last_seen=last)
        yield ClientEntry(vm=vm, names=(name,), first_seen=first, last_seen=last)


def _taken_at(point: Point) -> datetime:
    return min(disk.snapshot.taken_at for disk in point.disks)
