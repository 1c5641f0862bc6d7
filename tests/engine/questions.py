"""The five questions that are asked after every fault of a job.

1. Do all committed points restore bit by bit?
2. Is in Azure, after one sweep, exactly what may be there: the bases that the log names, no access, no
   staging blob? That is asked of everything there, whatever its marks say.
3. Does a verify find nothing damaged? Nothing is.
4. Does the next job succeed, by comparison with the base of the last one, without a human?
5. Is what only looks like ours as it was?
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from tests.engine.canaries import place_canaries
from tests.engine.world import World
from vsa.media.entries import Result
from vsa.media.media import Media
from vsa.model import Reason
from vsa.transfer.dead_runs import JobState
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepReport
from vsa.upkeep.verify import Depth, verify

Held = dict[str, dict[str, bytes]]
"""What every disk of every VM holds."""

OVER = JobState("Failed", is_over=True)


class First(Enum):
    """What comes first after a fault. The other one comes afterwards, and must find nothing left to do."""

    SWEEP = "the sweep"
    JOB = "the next job"


class Questions:
    """Asked of a world of one VM that has been backed up twice; places its canaries."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._canaries = place_canaries(world)
        self._told = set(self._swept("nothing").attention)
        """What a sweep always says of canaries."""

    def ask(self, held: Held, *, first: First, is_dead: bool) -> None:
        """All five, of what the world's last job has left; `held` is what the disks held when it ran.

        Where its process is dead the next job alone must leave what may be there, too; where it lives, only a
        server, which knows that the job is over, can tell that what it left is nobody's.
        """
        world = self._world
        failed = f"job-{world.jobs}"
        made = world.media.view().points.keys() - world.points.keys()
        for slot in made:
            (world.points[slot],) = held.values()
        if first is First.JOB:
            self._require_next_job()
            if is_dead:
                self._require_allowed_set()
        self._require_swept(failed)
        if first is First.SWEEP:
            # Of the other points a verify reads every byte here; they are restored at the end.
            self._require_sound(made)
            self._require_next_job()
        self._require_sound(world.points)

    def _require_next_job(self) -> None:
        report = self._world.back_up()
        assert report.result is Result.COMPLETED, report
        assert report.alarms == (), report.alarms
        reasons = set(self._world.reasons(report).values())
        assert reasons == {Reason.CBT}, reasons

    def _require_swept(self, failed: str) -> None:
        report = self._swept(failed)
        assert (report.remaining, report.pending) == ((), ()), report.text()
        assert set(report.attention) <= self._told, report.text()

    def _swept(self, failed: str) -> SweepReport:
        sweep = Sweep(self._world.connection, self._world.media)
        return sweep.carry_out(sweep.plan(sweep.open_runs(), {failed: OVER}, ()))

    def _require_sound(self, points: Iterable[int]) -> None:
        """These points restore, nothing at all is damaged, and what is in Azure may be there."""
        for slot in points:
            self._world.require_restores(slot, self._world.points[slot])
        self._require_allowed_set()
        require_nothing_damaged(self._world)

    def _require_allowed_set(self) -> None:
        world = self._world
        world.require_no_leftovers()
        assert world.all_snapshots - world.strangers == world.bases
        self._canaries.require_untouched()


def require_nothing_damaged(world: World) -> None:
    """Every byte of the media is what was stored, and no point is in doubt."""
    media = Media.open(world.media.location, access=world.access)
    with tempfile.TemporaryDirectory(dir=world.folder) as scratch:
        date = dt.datetime.now(dt.UTC).date()
        report = verify(media, Depth.BYTES, scratch=Path(scratch), date=date)
    assert report.is_sound, report.text()
    assert media.view().doubtful == {}
