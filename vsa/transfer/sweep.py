"""A sweep: what dead runs, and runs that ended badly, have left in one subscription.

It looks at everything that carries this media's marks, and at what the media's intents and points name
(`vsa/transfer/looking.py`). What may go is decided as the jobs themselves decide it
(`vsa/transfer/leftovers.py`); a plan names all of it before anything is done.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from vsa.azure.connection import AzureConnection
from vsa.errors import MediaDamaged
from vsa.fault_points import FaultPoint, reached
from vsa.media import layout
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import Intent, ProcessName, SourceDisk
from vsa.stop import Stop
from vsa.transfer.bases import unattended_bases
from vsa.transfer.dead_runs import JobState, JudgedRun, OpenRuns, Verdict, judge, of_verdict, open_runs
from vsa.transfer.departures import Departures
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.looking import Disks, Look, Sight
from vsa.transfer.owned import (
    Witnesses,
    claim_of,
    excess_things,
    intent_of,
    is_over,
    staging_thing,
)
from vsa.transfer.pending import Leftover, Price
from vsa.transfer.releasing import release, release_disk, still_there
from vsa.transfer.sweep_report import SweepPlan, SweepReport

_log = logging.getLogger(__name__)

NO_SERVER = (
    "no Prefect server was asked: dead are only runs whose process is known to have ended, runs that give "
    "no sign of life any more, and those you name"
)


@dataclass(frozen=True)
class _Scene:
    """Under what a look judges: the log, what it knows of snapshots' marks, the runs that are about to be
    fenced, the disks that are in use."""

    media: Media
    view: View
    witnesses: Witnesses
    dead: Collection[str]
    in_use: Collection[str]

    def judging(self, dead: Sequence[JudgedRun], left_alone: Sequence[JudgedRun]) -> Self:
        """The same scene under these verdicts."""
        return replace(
            self,
            dead={run.intent.run for run in dead},
            in_use={disk.key for run in left_alone for disk in run.intent.disks},
        )

    def may_go(self, run: str) -> bool:
        """Whether what the run left is nobody's."""
        return run in self.dead or is_over(run, self.view)

    def is_strange(self, run: str) -> bool:
        """Whether the media knows nothing of the run. It writes an intent before it makes anything; a prune
        deletes that once the run is over. One that cannot be read is there, and said elsewhere."""
        if run in self.dead or is_over(run, self.view):
            return False
        try:
            return not layout.is_run(run) or self.media.intent(run) is None
        except MediaDamaged:
            return False


class Sweep:
    """What a sweep is given. Each step may be repeated, and two sweeps may meet."""

    def __init__(
        self,
        connection: AzureConnection,
        media: Media,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        sleep: Callable[[float], None] = time.sleep,
        price: Price | None = None,
    ) -> None:
        self.connection = connection
        self.media = media
        self.now = now
        self.sleep = sleep
        self.price = price or Price()
        self._env = RunEnvironment(connection, media, Stop(), now)
        self._look = Look(self._env)

    def open_runs(self) -> OpenRuns:
        """The runs to be judged; what is unreadable is in the plan, too."""
        return open_runs(self.media)

    def plan(
        self,
        runs: OpenRuns,
        jobs: Mapping[str, JobState] | None,
        named: Collection[str],
        *,
        first: SweepPlan | None = None,
    ) -> SweepPlan:
        """Everything that will go, and what is left alone and why. Touches nothing.

        `jobs` has the flow runs that the server knows, by id; None if no server was asked. `named` are runs
        that an operator calls dead. BadRequest if neither the media nor anything in Azure knows such a run.
        `first` is the plan that was made `patience_seconds` or more ago, if it had silent runs.
        """
        sight = self._look.everywhere(runs.intents)
        reached(FaultPoint.SWEEP_LOOKED)
        # Read after Azure was: what a run made that began since cannot be among what was seen.
        silent = None if first is None else {run.intent.run: run.heard for run in first.silent if run.heard}
        runs = self._with_remembered(runs, named, sight)
        judged = judge(runs, jobs, named, self.media, now=self.now(), silent=silent)
        view = self.media.view()
        judged = tuple(run for run in judged if _concerns(run, view, sight.disks))
        dead = tuple(of_verdict(judged, Verdict.DEAD))
        left_alone = tuple(of_verdict(judged, Verdict.LIVE, Verdict.UNKNOWN))
        doubtful = tuple(of_verdict(judged, Verdict.SILENT))
        scene = self._scene(view, dead, (*left_alone, *doubtful))
        leftovers = tuple(_leftovers(sight, scene))
        if_dead = _leftovers(sight, scene.judging((*dead, *doubtful), left_alone))
        certain = {item.identity for item in leftovers}
        plan = SweepPlan(
            media=self.media.id,
            subscription=self.connection.subscription_id,
            planned_at=self.now(),
            dead=dead,
            left_alone=left_alone,
            leftovers=leftovers,
            disks=len(sight.disks),
            price=self.price,
            troubles=(
                *runs.unreadable,
                *sight.troubles,
                *dict.fromkeys(sight.unseen.values()),
                *_remarks(sight, scene),
                *unattended_bases(view, (item.name for _, item in sight.snapshots), now=self.now()),
            ),
            notes=(
                *([NO_SERVER] if jobs is None else []),
                *(f"not looked at: {text}" for text in sight.beyond),
            ),
            silent=doubtful,
            doubted=tuple(item for item in if_dead if item.identity not in certain),
        )
        reached(FaultPoint.SWEEP_PLANNED)
        return plan

    def second_look(
        self,
        plan: SweepPlan,
        jobs_of: Callable[[OpenRuns], Mapping[str, JobState] | None],
        named: Collection[str],
    ) -> SweepPlan:
        """The plan, if nobody is silent; else another one, made when a silent run that lives would have given
        a sign. `jobs_of` asks the server once more."""
        if not plan.silent:
            return plan
        _log.info("%d runs are silent: looking again in %.0f s", len(plan.silent), plan.patience_seconds)
        self.sleep(plan.patience_seconds)
        runs = self.open_runs()
        return self.plan(runs, jobs_of(runs), named, first=plan)

    def release(
        self, run: JudgedRun, in_use: Collection[str], departures: Departures | None = None
    ) -> tuple[str, ...]:
        """Fence a dead run and remove what it left; in words what could not be removed.
        `in_use`: the plan's; `departures` as `vsa.transfer.releasing.release` has them."""
        reason = f"swept: {run.reason}"
        disks = run.intent.disks
        return release(
            run.intent.run,
            disks,
            reason,
            self._env,
            with_rest=False,
            in_use=in_use,
            departures=departures,
        )

    def clear(
        self, disk: SourceDisk, in_use: Collection[str], departures: Departures | None = None
    ) -> tuple[str, ...]:
        """Remove what runs that are over have left of a disk; in words what could not be removed.
        `in_use` and `departures` as `release` has them."""
        return release_disk(disk, self._env, in_use=in_use, departures=departures)

    def carry_out(self, plan: SweepPlan) -> SweepReport:
        """All of a plan, one thing after the other, and what came of it. What Azure says to have deleted is
        looked for at the end, all together."""
        departures = Departures()
        pending = [line for run in plan.dead for line in self.release(run, plan.in_use, departures)]
        pending += [line for disk in plan.other_disks for line in self.clear(disk, plan.in_use, departures)]
        pending += still_there(departures, self._env.cleaning_up, with_rest=False)
        return self.report(plan, pending)

    def carry_out_twice(
        self,
        plan: SweepPlan,
        jobs_of: Callable[[OpenRuns], Mapping[str, JobState] | None],
        named: Collection[str],
    ) -> SweepReport:
        """What is certain at once; what the silent runs left after a second look, if there are any."""
        report = self.carry_out(plan)
        if not plan.silent:
            return report
        return self.carry_out(self.second_look(plan, jobs_of, named)).after(report)

    def report(self, plan: SweepPlan, pending: Sequence[str]) -> SweepReport:
        """What the plan named and is gone, and what is still there, as Azure shows it now."""
        reached(FaultPoint.SWEEP_REMOVED)
        touched = {item.disk.key: item.disk for item in plan.leftovers}
        sight = self._look.at(touched.values())
        scene = self._scene(self.media.view(), plan.dead, plan.left_alone)
        left = {item.identity for item in _leftovers(sight, scene)}
        remaining = tuple(item for item in plan.leftovers if item.identity in left or sight.is_unseen(item))
        return SweepReport(
            plan=plan,
            ended_at=self.now(),
            removed=tuple(item for item in plan.leftovers if item not in remaining),
            remaining=remaining,
            pending=(*pending, *dict.fromkeys(sight.unseen.values())),
        )

    def _scene(self, view: View, dead: Sequence[JudgedRun], left_alone: Sequence[JudgedRun]) -> _Scene:
        scene = _Scene(media=self.media, view=view, witnesses=Witnesses(self.media), dead=(), in_use=())
        return scene.judging(dead, left_alone)

    def _with_remembered(self, runs: OpenRuns, named: Collection[str], sight: Sight) -> OpenRuns:
        """With those of the named runs of which the media has no intent, but Azure has something."""
        known = {intent.run for intent in runs.intents}
        view = self.media.view()
        strangers = (run for run in named if run not in known and not is_over(run, view))
        remembered = [
            _remembered(run, disks, self.now())
            for run in strangers
            if layout.is_run(run) and (disks := sight.disks_of(run)) and intent_of(run, self.media) is None
        ]
        return replace(runs, intents=(*runs.intents, *remembered))


def _remembered(run: str, disks: tuple[SourceDisk, ...], now: dt.datetime) -> Intent:
    """What Azure alone tells of a run: where it left something. When and where it ran nobody knows."""
    return Intent(
        run=run,
        job="unknown",
        vm_key="unknown",
        vm_name="unknown",
        subclient="unknown",
        started_at=now,
        process=ProcessName(host="unknown", boot="", id=1, started=""),
        disks=disks,
    )


def _concerns(run: JudgedRun, view: View, disks: Disks) -> bool:
    """Whether the run has something to do with these disks, and has not ended since it was found open."""
    intent = run.intent
    return not is_over(intent.run, view) and any(disk.key in disks for disk in intent.disks)


def _leftovers(sight: Sight, scene: _Scene) -> Iterator[Leftover]:
    for disk, item in sight.snapshots:
        if scene.may_go(item.run) and not scene.witnesses.doubt(disk, item):
            yield from excess_things(disk, item, scene.view, scene.in_use)
    for disk, blob in sight.staged:
        if scene.may_go(blob.run):
            yield staging_thing(disk, blob)


def _remarks(sight: Sight, scene: _Scene) -> Iterator[str]:
    """What is there, looks like ours and is left alone, and why somebody should look at it."""
    for disk, item in sight.snapshots:
        if doubt := scene.witnesses.doubt(disk, item):
            yield doubt
        elif claim := claim_of(disk, item, scene.view):
            yield claim
        elif scene.is_strange(item.run):
            yield _stranger(f"snapshot {item.title}", disk, item.run)
    for disk, blob in sight.staged:
        if scene.is_strange(blob.run):
            yield _stranger(f"staging blob {blob.url}", disk, blob.run)
    for disk, item in sight.nameless:
        yield (
            f"disk {disk.name}: snapshot {item.title} has a name of this program and lacks its marks, and no "
            "intent or point of this media names it; delete it if nobody needs it"
        )


def _stranger(what: str, disk: SourceDisk, run: str) -> str:
    return (
        f"disk {disk.name}: {what} carries this media's marks, but the media knows nothing of its run {run}; "
        "was it rebuilt or put back? If nobody needs it, delete it or name the run"
    )
