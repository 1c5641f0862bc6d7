"""The five questions that are asked after every fault, whatever it was.

Do all committed points restore bit by bit? Is, after one sweep, exactly in Azure what may be there? Does a
verify find nothing wrong? Does the next job succeed without a human? Is what only looks like ours untouched?
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.canaries import Canaries
from tests.engine.world import BETWEEN_JOBS, World
from vsa.media.entries import JobEntry, Result
from vsa.media.media import Media
from vsa.media.view import CommittedPoint
from vsa.transfer.sweep import Sweep
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify

Held = Mapping[str, Mapping[str, bytes]]
"""What each disk of each VM holds, by their names."""


def learn_of_new_points(world: World, held: Held) -> list[int]:
    """Points that a process made before anybody could hear of it: they must restore to what was held then."""
    points = world.media.view().points
    new = sorted(points.keys() - world.points.keys())
    for slot in new:
        world.points[slot] = dict(held[points[slot].point.vm.name])
    return new


def unlearn_given_up_points(world: World) -> None:
    """Points that a prune has taken away are not asked for any more; no other point may be gone."""
    view = world.media.view()
    for slot in [slot for slot in world.points if slot not in view.points]:
        assert slot in view.given_up, f"point {slot} is gone, and no prune gave it up"
        del world.points[slot]


@dataclass
class Questions:
    """The questions, of one world. Canaries are made from its first point of a managed disk."""

    world: World
    canaries: Canaries | None = None
    now: Callable[[], dt.datetime] = field(default=lambda: dt.datetime.now(dt.UTC))
    vhd_canaries: list[tuple[str, str]] = field(default_factory=list)
    """Disk and moment of snapshots of VHDs that others made."""
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

    def require_all(self, held: Held) -> JobEntry:
        """All five, after a fault in which disks held this. Returns the report of the next job."""
        learn_of_new_points(self.world, held)
        unlearn_given_up_points(self.world)
        self.require_allowed_after_a_sweep()
        self.require_nothing_damaged()
        report = self.world.back_up(now=self.now)
        assert report.result is Result.COMPLETED, report
        self.require_points()
        self.require_allowed()
        return report

    def require_points(self) -> None:
        for slot, held in self.world.points.items():
            self.world.require_restores(slot, held)

    def require_allowed_after_a_sweep(self) -> None:
        self.settle()
        media = Media.open(self.world.media.location, write=True, from_log=True)
        sweep = Sweep(self.world.connection, media, now=self.now)
        report = sweep.carry_out(sweep.plan(sweep.open_runs(), {}, ()))
        assert (report.remaining, report.pending) == ((), ()), report.text()
        self.require_allowed(after_fault=True)

    def require_allowed(self, *, after_fault: bool = False) -> None:
        """Our bases and nothing else of ours; the canaries, and nothing else in the world's group.

        A job that dies may have deleted the base of a disk that it gave up, and not said so yet.
        """
        world, canaries = self.world, self.canaries
        theirs = canaries.everywhere if canaries else set()
        mine, bases = world.snapshots - theirs, self._bases()
        assert mine <= set(bases), f"nobody needs {mine - set(bases)}"
        lost = {base for base, attached in bases.items() if attached or not after_fault} - mine
        assert not lost, f"these bases are gone: {lost}"
        world.require_no_access()
        if canaries:
            canaries.require_alone(*(base for base in mine if base.startswith("/")))
        for disk, moment in self.vhd_canaries:
            assert world.vhd(disk, moment).exists(), f"somebody else's snapshot of VHD {disk} is gone"

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

    def settle(self) -> None:
        """Wait until Azure has served what a killed process had asked of it."""
        while new := self.world.control.requests(since=self._served):
            self._served = new[-1]["number"]
            time.sleep(0.03)


def _name_of(made: CommittedPoint, disk_key: str) -> str:
    return next(backup.disk.name for backup in made.point.disks if backup.disk.key == disk_key)
