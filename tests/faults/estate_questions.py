"""The five questions of `tests/engine/questions.py`, of several VMs that may have changed since the last job.

The next job may read by any method. The sweep knows of deaths what this machine tells,
and nothing of a server.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.engine.canaries import Canaries, VhdCanaries
from tests.engine.questions import Held, require_nothing_damaged
from tests.engine.waits import await_calm
from tests.engine.world import World
from vsa.media.entries import JobEntry, Result
from vsa.media.media import Media
from vsa.media.view import CommittedPoint
from vsa.model import DiskKind
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepReport


@dataclass
class EstateQuestions:
    """The questions, of one world. `taken`: bases that others have deleted, by their ids or moments."""

    world: World
    now: Callable[[], dt.datetime] = field(default=lambda: dt.datetime.now(dt.UTC))
    canaries: list[Canaries | VhdCanaries] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def add_canaries(self, disk: str) -> None:
        """Beside a disk that has a point: snapshots like ours, but not ours."""
        points = self.world.media.view().points.values()
        made = next(made for made in points if self._has(made, disk))
        source = next(item.disk for item in made.point.disks if item.disk.name == self.world.named(disk))
        kind = Canaries if source.kind is DiskKind.MANAGED else VhdCanaries
        self.canaries.append(kind(self.world, source, made.run))

    def _has(self, made: CommittedPoint, disk: str) -> bool:
        return self.world.named(disk) in {backup.disk.name for backup in made.point.disks}

    def require_all(self, held: Held) -> None:
        """All five, after a fault in which disks held this."""
        self.learn(held)
        report = self.swept()
        assert (report.remaining, report.pending) == ((), ()), report.text()
        self.require_allowed(after_fault=True)
        require_nothing_damaged(self.world)
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
        await_calm(self.world.control)
        media = Media.open(self.world.media.location, write=True, from_log=True, clock=self.now)
        sweep = Sweep(self.world.connection, media, now=self.now)
        return sweep.carry_out(sweep.plan(sweep.open_runs(), {}, ()))

    def require_allowed(self, *, after_fault: bool = False) -> None:
        """Our bases and nothing else of ours.

        A job that dies may have deleted the base of a disk that it gave up, and not said so yet.
        """
        mine, bases = self.world.snapshots, self._bases()
        assert mine <= set(bases), f"nobody needs {mine - set(bases)}"
        lost = {base for base, attached in bases.items() if attached or not after_fault} - mine - self.taken
        assert not lost, f"these bases are gone: {lost}"
        self.world.require_no_access()

    def forget_taken(self, *, all_had_their_turn: bool) -> None:
        """Those that the log names no more.

        It goes on naming that of a disk that is gone until a subclient lets it go. Of a disk that is there
        the jobs of all subclients have made a new one.
        """
        bases = self._bases()
        self.taken &= bases.keys()
        stale = {base for base in self.taken if bases[base]}
        assert not (all_had_their_turn and stale), f"these were taken, and are still compared with: {stale}"

    def _bases(self) -> dict[str, bool]:
        """The bases that the log names, and whether their disks are still attached to a VM."""
        view, world = self.world.media.view(), self.world
        return {
            ref.moment or ref.id.lower(): world.plain(_name_of(view.points[slot], key)) in world.attached
            for key, (slot, ref) in view.bases().items()
        }

    def require_next_job(self) -> JobEntry:
        report = self.world.back_up(now=self.now)
        assert report.result is Result.COMPLETED, report
        return report

    def require_canaries(self, *beside: EstateQuestions) -> None:
        """They are as they were placed, and beside them is nothing but our snapshots and other medias'."""
        for canaries in self.canaries:
            canaries.require_untouched()
        ours = set().union(*(item.world.snapshots for item in (self, *beside)))
        strangers = set().union(*(item.world.strangers for item in (self, *beside)))
        assert self.world.all_snapshots - strangers == ours


def _name_of(made: CommittedPoint, disk_key: str) -> str:
    return next(backup.disk.name for backup in made.point.disks if backup.disk.key == disk_key)
