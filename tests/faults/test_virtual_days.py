"""Days of a small estate on a simulated Azure whose clock is turned. (F15, F63.)

Managed disks, standard and premium VHDs; two subclients share VMs, sometimes two medias do. Every day guests
write, owners change what there is, Azure and the media misbehave, and jobs, sweeps and prunes die in the
midst of it, sometimes several at once. Every evening the same five questions are asked
(tests/faults/estate_questions.py).

A history follows from its seed, but for what threads and processes do in which order.
"""

from __future__ import annotations

import datetime as dt
import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceExistsError

from azsim.control import Control
from tests.engine.questions import require_nothing_damaged
from tests.engine.world import KIB, MANAGED, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.faults.errands import Backup, Errand, Kind, Mishap, Pruning, Site, Sweeping, Work, ends
from tests.faults.estate_questions import EstateQuestions
from tests.media.faulty_store import FaultyStore, Moment, fail_call
from tests.soak import DEPTH, more_in_ci, only_in_soak, part_of, rounds, seeded
from vsa.errors import MediaUnusable, TryAgainLater
from vsa.fault_points import FaultPoint
from vsa.media.entries import JobEntry, Result
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.model import Method, Reason
from vsa.retention import Retention
from vsa.subclient import Subclient
from vsa.transfer.sweep_report import SweepReport

EXTENT = 8 * KIB
SECTOR = 512
KEEP = Retention(keep_last=2, daily=3, weekly=2)
MOST_DISKS = 3
LARGEST = 768 * KIB

NIGHTLY, HOURLY, SWEEP, PRUNE = "nightly", "hourly", "sweep", "prune"

FAILED_ONCE = (3250466432, 3757882759, 1713735608, 1424222628)
"""Seeds of histories that found something; docs/faults.md says what."""
DAYS = 20
"""Of a history in the soak."""

# What a tired Azure answers now and then; Retry-After 0 keeps the tests quick.
BAD_DAYS: tuple[dict[str, Any], ...] = (
    {"action": "status", "plane": "arm", "status": 429, "code": "TooManyRequests", "retry_after": 0},
    {"action": "status", "plane": "arm", "status": 429, "when": "after", "retry_after": 0},
    {"action": "status", "plane": "arm", "method": "PUT", "status": 500, "when": "after", "retry_after": 0},
    {"action": "status", "plane": "blob", "status": 503, "code": "ServerBusy", "retry_after": 0},
    {"action": "status", "plane": "blob", "method": "GET", "status": 500, "retry_after": 0},
    {"action": "truncate", "plane": "blob", "method": "GET", "header": "x-ms-range", "bytes": 700},
    {"action": "cut", "plane": "blob", "method": "GET", "header": "x-ms-range", "when": "after"},
    {"action": "cut", "plane": "arm", "when": "after"},
    {"action": "expire_access", "plane": "blob", "method": "GET", "header": "x-ms-range"},
    {
        "action": "status",
        "plane": "arm",
        "path": "begingetaccess",
        "status": 409,
        "code": "OperationNotAllowed",
    },
    {"action": "status", "plane": "arm", "method": "DELETE", "status": 409, "code": "Conflict"},
)
LOCKS: tuple[dict[str, Any], ...] = (
    {"plane": "arm", "method": "DELETE", "path": "/snapshots/vsa-", "code": "ScopeLocked"},
    {"plane": "blob", "method": "DELETE", "query": "snapshot=", "code": "BlobImmutableDueToPolicy"},
)


@dataclass(frozen=True)
class FailingStore:
    """A store one call of which fails, before its effect or after."""

    number: int
    moment: Moment
    full: bool

    def __call__(self, store: Store) -> Store:
        error = (
            MediaUnusable("the file system is full") if self.full else TryAgainLater("lost", retry_after=0)
        )
        return FaultyStore(store, fail_call(self.number, self.moment, error))


class Estate:
    """VMs, and what happens to them; `choose` makes every choice."""

    def __init__(self, control: Control, folder: Path, choose: random.Random) -> None:
        self.choose = choose
        self.control = control
        self.worlds = [
            self._new_world(folder / f"media-{number}") for number in range(choose.choice([1, 1, 2]))
        ]
        self.world = self.worlds[0]
        self.vms: dict[str, str] = {}
        """Kinds, by the VMs' names."""
        self.made = 0
        for kind in (MANAGED, PREMIUM_VHD, STANDARD_VHD):
            self.add_vm(kind)
        for other in self.worlds[1:]:
            other.share(self.world)
        self.first = self.world.vms[0]
        """A VM that stays; canaries stand beside its first disk."""

    def _new_world(self, folder: Path) -> World:
        world = World(self.control, folder, extent_size=EXTENT)
        world.media = Media.open(world.media.location, write=True, clock=self.now)
        return world

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)

    @property
    def ahead(self) -> float:
        return float(self.control.clock()["ahead_seconds"])

    def delete(self) -> None:
        self.control.clear_faults()
        self.world.delete()

    # What owners and guests do

    def change(self) -> str:
        """One change, drawn; what it was."""
        change = self.choose.choices(
            [
                self.write,
                self.clear,
                self.grow,
                self.attach,
                self.detach,
                self.replace,
                self.take_base,
                self.remove_vm,
                self.add_vm,
                self.rename,
            ],
            weights=[12, 5, 2, 3, 2, 1, 1, 0.5, 0.7, 0.5],
        )[0]
        return change() or ""

    def write(self) -> str:
        disk, at, length = self._place()
        what = self.choose.choice(["noise", "noise", "zeros", "same"])
        data = random_bytes(length, self.choose.random())
        if what == "zeros":
            data = bytes(length)
        if what == "same":
            data = self.world.contents(disk)[at : at + length]
        self.world.write(disk, at, data)
        return f"{what} to {disk} at {at}, {length}"

    def clear(self) -> str:
        disk, at, length = self._place()
        self.world.clear(disk, at, length)
        return f"clear {disk} at {at}, {length}"

    def _place(self) -> tuple[str, int, int]:
        disk = self._disk()
        sectors = len(self.world.contents(disk)) // SECTOR
        at = self.choose.randrange(sectors)
        length = min(self.choose.choice([1, 3, EXTENT // SECTOR, 100]), sectors - at)
        return disk, at * SECTOR, length * SECTOR

    def _disk(self, vm: str = "") -> str:
        return self.choose.choice(self.disks_of(vm) if vm else sorted(self.world.attached))

    def disks_of(self, vm: str) -> list[str]:
        return self.world.owners[vm]

    def grow(self) -> str:
        disk = self._disk()
        size = len(self.world.contents(disk)) + SECTOR * self.choose.randrange(1, 200)
        if size > LARGEST:
            return ""
        self.world.grow(disk, size)
        return f"grow {disk} to {size}"

    def attach(self) -> str:
        vm = self.choose.choice(sorted(self.vms))
        if len(self.disks_of(vm)) >= MOST_DISKS:
            return ""
        disk = self._new_disk()
        self.world.attach(vm, disk, self._contents(disk), kind=self.vms[vm])
        return f"attach {disk} to {vm}"

    def detach(self) -> str:
        vm = self.choose.choice(sorted(self.vms))
        disk = self._disk(vm)
        if disk == self.disks_of(vm)[0]:
            return ""
        self.world.detach(vm, disk)
        return f"detach {disk}"

    def replace(self) -> str:
        """Another disk under the same name, with the same bytes."""
        vm = self.choose.choice(sorted(vm for vm, kind in self.vms.items() if kind == MANAGED))
        disk = self._disk(vm)
        if disk == self.disks_of(self.first)[0]:
            return ""
        self.control.replace_disk(self.world.label(disk))
        return f"replace {disk}"

    def remove_vm(self) -> str:
        vm = self.choose.choice(sorted(self.vms))
        if vm == self.first:
            return ""
        self.world.delete_vm(vm)
        self.world.vms.remove(vm)
        del self.vms[vm]
        return f"delete {vm}"

    def rename(self) -> str:
        vm = self.choose.choice(sorted(self.vms))
        self.made += 1
        name = f"renamed-{self.made}"
        if vm == self.first:
            return ""
        self.world.rename(vm, name)
        self.vms[name] = self.vms.pop(vm)
        return f"rename {vm} to {name}"

    def add_vm(self, kind: str = "") -> str:
        if len(self.vms) > 3:
            return ""
        kind = kind or self.choose.choice([MANAGED, STANDARD_VHD, PREMIUM_VHD])
        disks = [self._new_disk() for _ in range(self.choose.choice([1, 2]))]
        self.made += 1
        vm = self.world.add_vm(
            {disk: self._contents(disk) for disk in disks},
            kind=kind,
            vm=f"made-{self.world.number}-{self.made}",
        )
        self.vms[vm] = kind
        return f"make {vm}, {kind}"

    def _new_disk(self) -> str:
        self.made += 1
        return f"disk{self.made}"

    def _contents(self, disk: str) -> bytes:
        size = SECTOR * self.choose.randrange(64, 700)
        data = random_bytes(size // 3 // SECTOR * SECTOR, disk)
        return data + bytes(size - 2 * len(data)) + data

    def take_base(self) -> str:
        """Somebody deletes a base snapshot."""
        view = self.world.media.view()
        bases = sorted((slot, key) for key, (slot, _) in view.bases().items())
        if not bases:
            return ""
        slot, key = self.choose.choice(bases)
        backup = next(b for b in view.points[slot].point.disks if b.disk.key == key)
        ref, disk = backup.snapshot, self.world.plain(backup.disk.name)
        if (ref.moment or ref.id.lower()) not in self.world.snapshots or disk not in self.world.attached:
            return ""
        try:
            self.world.delete_snapshot(ref, disk)
        except ResourceExistsError:
            # The lock or policy that keeps it from us keeps it from others.
            return ""
        return f"taken:{ref.moment or ref.id.lower()}"


class Days:
    """An estate, day by day."""

    def __init__(self, control: Control, folder: Path, seed: int) -> None:
        self.choose = random.Random(seed)
        self.estate = Estate(control, folder, self.choose)
        self.folder = folder
        self.control = control
        self.questions = [EstateQuestions(world, now=self.estate.now) for world in self.estate.worlds]
        self.locks: list[str] = []
        self.counts: Counter[str] = Counter()
        for question in self.questions:
            question.require_next_job()
        self.questions[0].add_canaries(self.estate.disks_of(self.estate.first)[0])
        vhd = next(vm for vm, kind in self.estate.vms.items() if kind == STANDARD_VHD)
        self.questions[0].add_canaries(self.estate.disks_of(vhd)[0])

    def day(self, number: int) -> None:
        self.control.advance_clock(20 * 3600)
        self._owners()
        faults = self._faults()
        self._say(number, "faults", [rule["action"] for rule in faults])
        ids = [self.control.add_fault(**rule) for rule in faults]
        held = self.estate.world.held()
        for planned in self._plan(number):
            self._run(number, planned)
        if ids:
            self.control.clear_faults(*ids)
        for question in self.questions:
            question.learn(held)
        self._evening()

    def _say(self, number: int, *words: object) -> None:
        sys.stdout.write(f"day {number}: {' '.join(map(str, words))}\n")

    def _owners(self) -> None:
        for _ in range(self.choose.randrange(1, 8)):
            change = self.estate.change()
            sys.stdout.write(f"  {change}\n" if change else "")
            if change.startswith("taken:"):
                self.questions[0].taken.add(change.removeprefix("taken:"))

    def _faults(self) -> list[dict[str, Any]]:
        """What Azure does today, and whether locks come or go."""
        if self.locks and self.choose.random() < 0.5:
            self.control.clear_faults(*self.locks)
            self.locks.clear()
        elif not self.locks and self.choose.random() < 0.15:
            lock = self.choose.choice(LOCKS)
            self.locks.append(self.control.add_fault("status", status=409, times=None, **lock))
        drawn = self.choose.sample(BAD_DAYS, self.choose.choice([0, 0, 1, 1, 2]))
        chance, seed = self.choose.choice([0.02, 0.1]), self.choose.getrandbits(32)
        return [
            rule | {"times": self.choose.choice([3, 20]), "chance": chance, "seed": seed} for rule in drawn
        ]

    def _plan(self, number: int) -> list[list[tuple[World, str]]]:
        """The day's errands; those of one list begin together."""
        planned: list[list[tuple[World, str]]] = [
            [(self._any_world(), self.choose.choice([NIGHTLY, HOURLY]))]
            for _ in range(self.choose.choice([1, 2, 3]))
        ]
        if self.choose.random() < 0.3:
            # Azure takes one snapshot of a premium VHD in ten minutes: the hourly subclient has none.
            beside = self.choose.choice([HOURLY, SWEEP, PRUNE])
            planned.append([(self._any_world(), NIGHTLY), (self._any_world(), beside)])
        if self.choose.random() < 0.3:
            planned.append([(self._any_world(), SWEEP)])
        if number % 4 == 0:
            planned += [[(world, PRUNE)] for world in self.estate.worlds]
        return planned

    def _any_world(self) -> World:
        return self.choose.choice(self.estate.worlds)

    def _errand(self, world: World, what: str) -> Errand:
        work, mishap = self._work(world, what), self._mishap(what)
        errand = Errand(Site.of(world, ahead=self.estate.ahead), work, mishap)
        if mishap is None and self.choose.random() < 0.6:
            moment, number = self.choose.choice(list(Moment)), self.choose.randrange(150)
            full = self.choose.random() < 0.5
            errand = replace(errand, around=FailingStore(number, moment, full=full))
        return errand

    def _work(self, world: World, what: str) -> Work:
        if what == SWEEP:
            return Sweeping()
        if what == PRUNE:
            return Pruning(retention=KEEP)
        identity, scratch = world.begin_job()
        method = self.choose.choice([None, None, None, Method.CRC])
        return Backup(identity, scratch, self._subclient(what), method, full=self.choose.random() < 0.05)

    def _subclient(self, name: str) -> Subclient:
        """Nightly has all VMs; hourly has two of those whose snapshots Azure does not ration."""
        vms = sorted(self.estate.vms)
        if name == NIGHTLY:
            return Subclient(name=NIGHTLY, vms=tuple(vms))
        few = tuple(vm for vm in vms if self.estate.vms[vm] != PREMIUM_VHD)[:2]
        return Subclient(name=HOURLY, vms=few, method="cbt")

    def _mishap(self, what: str) -> Mishap | None:
        if self.choose.random() < 0.25:
            return None
        kind = self.choose.choice([*Kind, Kind.KILLED, Kind.KILLED, Kind.KILLED])
        passes = self.choose.choice([0, 0, 0, 1, 2, self.choose.randrange(8)])
        # Nobody would let a process go on that stands still.
        kind = Kind.KILLED if kind is Kind.STALLED else kind
        return Mishap(self.choose.choice(POINTS[what]), kind, passes)

    def _run(self, number: int, planned: list[tuple[World, str]]) -> None:
        errands = [self._errand(world, what) for world, what in planned]
        started = [(errand, errand.started()) for errand in errands]
        for errand, process in started:
            process.join(600)
            self._judge(number, errand, process)

    def _judge(self, number: int, errand: Errand, process: BaseProcess) -> None:
        kind = errand.mishap.kind if errand.mishap else None
        work = type(errand.work).__name__
        met = errand.mishap or (errand.around if isinstance(errand.around, FailingStore) else "undisturbed")
        self._say(number, work, met, "->", process.exitcode)
        self.counts[work] += 1
        self.counts["killed"] += process.exitcode == -9
        # A mishap at a point that was not reached has not happened.
        assert process.exitcode in ends(kind) | ends(None), f"{errand} ended with {process.exitcode}"

    # The questions

    def _evening(self) -> None:
        # Access is asked for by group: what a dead run of one media left is gone once that media is swept.
        reports = [question.swept() for question in self.questions]
        for question, report in zip(self.questions, reports, strict=True):
            self._require_swept(question, report)
            require_nothing_damaged(question.world)
        names = self.choose.choice([(NIGHTLY,), (HOURLY, NIGHTLY)])
        for question in self.questions:
            self._require_next_jobs(question, names)
        for question in self.questions:
            slots = list(question.world.points)
            newest = slots[-len(self.estate.vms) :]
            question.require_points({*newest, self.choose.choice(slots)})
        self.questions[0].require_canaries(*self.questions[1:])

    def _require_swept(self, question: EstateQuestions, report: SweepReport) -> None:
        if not self.locks:
            assert (report.remaining, report.pending) == ((), ()), report.text()
            question.require_allowed(after_fault=True)
            return
        # What a lock keeps is said, thing by thing.
        said = {item.name.lower() for item in report.remaining}
        left = question.world.snapshots - question.world.bases
        assert {item.rpartition("/")[2].lower() for item in left} <= said, (left, report.text())

    def _require_next_jobs(self, question: EstateQuestions, names: tuple[str, ...]) -> None:
        """The subclients', as they are scheduled; each VM gets its point, whatever happened before."""
        for name in names:
            subclient = self._subclient(name)
            report = question.world.back_up(**self._given(subclient), now=self.estate.now)
            self._require_good(report, subclient)
            self.counts["healthy jobs"] += 1
        question.forget_taken(all_had_their_turn=HOURLY in names and not self.locks)
        if not self.locks:
            question.require_allowed()

    def _given(self, subclient: Subclient) -> dict[str, Any]:
        return {"name": subclient.name, "vms": subclient.vms}

    def _require_good(self, report: JobEntry, subclient: Subclient) -> None:
        expected = (Result.COMPLETED, Result.COMPLETED_WITH_ERRORS) if self.locks else (Result.COMPLETED,)
        assert report.result in expected, report
        assert {outcome.name for outcome in report.vms if outcome.point is not None} == set(subclient.vms), (
            report
        )
        for disk in (disk for outcome in report.vms for disk in outcome.disks):
            self.counts[str(disk.reason)] += 1
            assert disk.reason not in NEVER_HEALTHY, (disk, "nothing hid a change, nothing was damaged")

    def end(self) -> None:
        """Once locks are lifted everything is as it should be; every point restores."""
        if self.locks:
            self.control.clear_faults(*self.locks)
            self.locks.clear()
            self._evening()
        for question in self.questions:
            question.require_allowed()
            question.require_points(question.world.points)
            self.counts["points"] += len(question.world.media.view().committed)
            assert not question.world.media.view().doubtful


NEVER_HEALTHY = {Reason.CRC_AUDIT_FAILED, Reason.FULL_PARENT_DAMAGED}

_ALL = list(FaultPoint)


def _between(first: FaultPoint, last: FaultPoint) -> list[FaultPoint]:
    return _ALL[_ALL.index(first) : _ALL.index(last) + 1]


_LOG = _between(FaultPoint.ENTRY_DECIDED, FaultPoint.OBJECT_NAMED)
_CLEARING = _between(FaultPoint.RUN_FENCED, FaultPoint.SNAPSHOT_DELETED)
POINTS: dict[str, list[FaultPoint]] = {
    NIGHTLY: _between(FaultPoint.ROOM_MADE, FaultPoint.BASE_RELEASED),
    HOURLY: _between(FaultPoint.ROOM_MADE, FaultPoint.BASE_RELEASED),
    SWEEP: [*_LOG, *_CLEARING, *_between(FaultPoint.SWEEP_LOOKED, FaultPoint.SWEEP_REMOVED)],
    PRUNE: [*_LOG, *_between(FaultPoint.PRUNE_STARTED, FaultPoint.PRUNE_DONE)],
}
"""Where something may happen to each of them."""


def live(control: Control, folder: Path, seed: int, days: int) -> Counter[str]:
    sys.stdout.write(f"history {seed}, {days} days\n")
    lived = Days(control, folder, seed)
    try:
        for number in range(1, days + 1):
            lived.day(number)
        lived.end()
    finally:
        lived.estate.delete()
    sys.stdout.write(f"history {seed}: {dict(lived.counts)}\n")
    return lived.counts


@only_in_soak
@pytest.mark.parametrize("seed", part_of(FAILED_ONCE))
def test_histories_that_once_found_something_find_nothing(
    control: Control, tmp_path: Path, seed: int
) -> None:
    live(control, tmp_path, seed, DAYS)


@more_in_ci
@pytest.mark.timeout(0 if DEPTH else 300)
def test_days_of_faults_changes_and_deaths(control: Control, tmp_path: Path) -> None:
    choose = seeded("virtual days")
    drawn = [(choose.getrandbits(32), rounds(2, 6, DAYS)) for _ in range(rounds(1, 1, 30))]
    total: Counter[str] = Counter()
    for number, (seed, days) in enumerate(part_of(drawn)):
        folder = tmp_path / str(number)
        folder.mkdir()
        total += live(control, folder, seed, days)
    sys.stdout.write(f"{dict(total)}\n")
