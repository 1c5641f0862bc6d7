"""The five questions that are asked after every fault, whatever it was.

Do all committed points restore bit by bit? Is, after one sweep, exactly in Azure what may be there? Does a
verify find nothing wrong? Does the next job succeed without a human? Is what only looks like ours untouched?
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.canaries import Canaries
from tests.engine.world import BETWEEN_JOBS, World
from vsa.media.entries import JobEntry, Result
from vsa.media.media import Media
from vsa.media.view import CommittedPoint
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepReport
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify

Held = Mapping[str, Mapping[str, bytes]]
"""What each disk of each VM holds, by their names."""


@dataclass
class Questions:
    """The questions, of one world. `taken`: bases that others have deleted, by their ids or moments."""

    world: World
    now: Callable[[], dt.datetime] = field(default=lambda: dt.datetime.now(dt.UTC))
    canaries: Canaries | None = None
    vhd_canaries: list[tuple[str, str]] = field(default_factory=list)
    """Disk and moment of snapshots of VHDs that others made."""
    taken: set[str] = field(default_factory=set)
    _served: int = 0

    def add_canaries(self, disk: str) -> None:
        """Beside a disk that has a point: snapshots like ours, but not ours."""
        made = next(iter(self.world.media.view().points.values()))
        backup = next(item for item in made.point.disks if item.disk.name == self.world.named(disk))
        self.canaries = Canaries(self.world, backup.disk, made.run)

    def add_vhd_canary(self, disk: str) -> None:
        """A snapshot with the marks of another media."""
        self.world.control.advance_clock(BETWEEN_JOBS)
        marks = {"vsa_media": "another-media", "vsa_run": "a" * 16, "vsa_disk": "any"}
        self.vhd_canaries.append(
            (disk, str(self.world.vhd(disk).create_snapshot(metadata=marks)["snapshot"]))
        )

    def require_all(self, held: Held) -> None:
        """All five, after a fault in which disks held this."""
        self.learn(held)
        report = self.swept()
        assert (report.remaining, report.pending) == ((), ()), report.text()
        self.require_allowed(after_fault=True)
        self.require_nothing_damaged()
        self.require_next_job()
        self.require_points(self.world.points)
        self.require_allowed()
        self.require_canaries()

    def learn(self, held: Held) -> None:
        """What points must restore to that a process made before anybody heard of it; which a prune took."""
        points = self.world.points
        view = self.world.media.view()
        for slot in view.points.keys() - points.keys():
            points[slot] = dict(held[view.points[slot].point.vm.name])
        for slot in points.keys() - view.points.keys():
            assert slot in view.given_up, f"point {slot} is gone, and no prune gave it up"
            del points[slot]

    def require_points(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self.world.require_restores(slot, self.world.points[slot])

    def swept(self) -> SweepReport:
        """One sweep, which nobody helps by naming runs."""
        self._settle()
        media = Media.open(self.world.media.location, write=True, from_log=True, clock=self.now)
        sweep = Sweep(self.world.connection, media, now=self.now)
        return sweep.carry_out(sweep.plan(sweep.open_runs(), {}, ()))

    def _settle(self) -> None:
        """Wait until Azure has served what a killed process had asked of it."""
        while new := self.world.control.requests(since=self._served):
            self._served = new[-1]["number"]
            time.sleep(0.03)

    def require_allowed(self, *, after_fault: bool = False) -> None:
        """Our bases and nothing else of ours.

        A job that dies may have deleted the base of a disk that it gave up, and not said so yet.
        """
        mine, bases = self.own_snapshots, self._bases()
        assert mine <= set(bases), f"nobody needs {mine - set(bases)}"
        lost = {base for base, attached in bases.items() if attached or not after_fault} - mine - self.taken
        assert not lost, f"these bases are gone: {lost}"
        self.world.require_no_access()

    @property
    def own_snapshots(self) -> set[str]:
        return self.world.snapshots - (self.canaries.everywhere if self.canaries else set())

    def _bases(self) -> dict[str, bool]:
        """The bases that the log names, and whether their disks are still attached to a VM."""
        view, world = self.world.media.view(), self.world
        return {
            ref.moment or ref.id.lower(): world.plain(_name_of(view.points[slot], key)) in world.attached
            for key, (slot, ref) in view.bases().items()
        }

    def require_nothing_damaged(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            report = verify(
                Media.open(self.world.media.location), Depth.BYTES, scratch=Path(scratch), date=dt.date.min
            )
        assert report.is_sound, report.text()

    def require_next_job(self) -> JobEntry:
        report = self.world.back_up(now=self.now)
        assert report.result is Result.COMPLETED, report
        return report

    def require_canaries(self, *beside: Questions) -> None:
        """All are there and, in the world's group, nothing but our snapshots and those of other medias."""
        if self.canaries:
            ours = set().union(*(item.own_snapshots for item in (self, *beside)))
            self.canaries.require_alone(*(item for item in ours if item.startswith("/")))
        for disk, moment in self.vhd_canaries:
            assert self.world.vhd(disk, moment).exists(), f"somebody else's snapshot of VHD {disk} is gone"


def _name_of(made: CommittedPoint, disk_key: str) -> str:
    return next(backup.disk.name for backup in made.point.disks if backup.disk.key == disk_key)
