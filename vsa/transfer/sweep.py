"""A sweep: what dead runs, and runs that ended badly, have left in one subscription.

It looks at the disks that the media knows: those of open runs, of fenced ones, and of recovery points. What
may go is decided as the jobs themselves decide it (`vsa/transfer/leftovers.py`); a plan names all of it
before anything is done. What carries our marks and belongs to no disk that the media knows is not looked for.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from vsa.azure.connection import AzureConnection
from vsa.azure.disks import is_of_subscription
from vsa.azure.snapshots import FoundSnapshot, snapshots_of
from vsa.azure.staging import staging_url
from vsa.errors import MediaDamaged, TryAgainLater, VsaError
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import DiskKind, Intent, SourceDisk
from vsa.stop import Stop, again
from vsa.transfer.dead_runs import JobState, JudgedRun, OpenRuns, Verdict, judge, of_verdict, open_runs
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.leftovers import (
    clear_disk,
    excess_of,
    is_over,
    release,
    require_witnessed,
    staged_runs,
)
from vsa.transfer.sweep_report import Leftover, SweepPlan, SweepReport, Thing

_log = logging.getLogger(__name__)

Disks = Mapping[str, SourceDisk]
"""Disks by their keys."""


@dataclass(frozen=True)
class _Scene:
    """Under what a look judges: the log, the runs that are about to be fenced, the disks that are in use."""

    view: View
    dead: Mapping[str, Intent]
    in_use: Collection[str]

    def may_go(self, run: str, disk: SourceDisk) -> bool:
        """Whether what the run left of the disk is nobody's. On a disk that is in use, access to the base is
        what a live run may have asked for: what ended runs left there goes with that run."""
        return run in self.dead or (is_over(run, self.view) and disk.key not in self.in_use)


@dataclass(frozen=True)
class _Seen:
    """What a look found. `unseen`: keys of disks that could not be looked at, and why; `remarks`: what is
    there, looks like ours and is left alone."""

    leftovers: list[Leftover] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class Sweep:
    """What a sweep is given. Each step may be repeated, and two sweeps may meet."""

    def __init__(
        self,
        connection: AzureConnection,
        media: Media,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.connection = connection
        self.media = media
        self.now = now
        self._env = RunEnvironment(connection, media, Stop())

    def open_runs(self) -> OpenRuns:
        """The runs to be judged; what is unreadable is in the plan, too."""
        return open_runs(self.media)

    def plan(self, runs: OpenRuns, jobs: Mapping[str, JobState], named: Collection[str]) -> SweepPlan:
        """Everything that will go, and what is left alone and why. Touches nothing.

        `jobs` has the flow runs that the server knows, by id; `named` are runs that an operator calls dead.
        BadRequest if the media has no such run.
        """
        judged = judge(runs, jobs, named, self.media)
        view = self.media.view()
        disks, unknown = self._here(self._known_disks(view, judged))
        judged = tuple(run for run in judged if self._concerns(run, view, disks))
        dead = tuple(of_verdict(judged, Verdict.DEAD))
        left_alone = tuple(of_verdict(judged, Verdict.LIVE, Verdict.UNKNOWN))
        seen = self._look(disks.values(), self._scene(view, dead, left_alone))
        return SweepPlan(
            media=self.media.id,
            subscription=self.connection.subscription_id,
            planned_at=self.now(),
            dead=dead,
            left_alone=left_alone,
            leftovers=tuple(seen.leftovers),
            disks=len(disks),
            troubles=(*runs.unreadable, *unknown, *dict.fromkeys(seen.unseen.values()), *seen.remarks),
        )

    def release(self, run: JudgedRun) -> tuple[str, ...]:
        """Fence a dead run and remove what it left; in words what could not be removed."""
        return release(run.intent.run, run.intent.disks, f"swept: {run.reason}", self._env)

    def clear(self, disk: SourceDisk) -> tuple[str, ...]:
        """Remove what runs that are over have left of a disk; in words what could not be removed."""
        try:
            again(partial(clear_disk, disk, self._env), stop=Stop())
        except VsaError as error:
            _log.error("disk %s: %s", disk.name, error)
            return (f"cleanup pending for disk {disk.name}: {error}",)
        return ()

    def report(self, plan: SweepPlan, pending: Sequence[str]) -> SweepReport:
        """What the plan named and is gone, and what is still there, as Azure shows it now."""
        touched = {item.disk.key: item.disk for item in plan.leftovers}
        seen = self._look(touched.values(), self._scene(self.media.view(), plan.dead, plan.left_alone))
        left = {item.identity for item in seen.leftovers}
        remaining = tuple(
            item for item in plan.leftovers if item.identity in left or item.disk.key in seen.unseen
        )
        return SweepReport(
            plan=plan,
            ended_at=self.now(),
            removed=tuple(item for item in plan.leftovers if item not in remaining),
            remaining=remaining,
            pending=(*pending, *dict.fromkeys(seen.unseen.values())),
        )

    def _scene(self, view: View, dead: Sequence[JudgedRun], left_alone: Sequence[JudgedRun]) -> _Scene:
        return _Scene(
            view=view,
            dead={run.intent.run: run.intent for run in dead},
            in_use={disk.key for run in left_alone for disk in run.intent.disks},
        )

    def _concerns(self, run: JudgedRun, view: View, disks: Disks) -> bool:
        """Whether the run has something to do with these disks, and has not ended since it was found open."""
        intent = run.intent
        return not is_over(intent.run, view) and any(disk.key in disks for disk in intent.disks)

    def _known_disks(self, view: View, judged: Sequence[JudgedRun]) -> Disks:
        """Every disk of an open or fenced run, or of a recovery point, as it was when last heard of."""
        found: dict[str, SourceDisk] = {}
        intents = [*(run.intent for run in judged), *self._fenced(view)]
        for disk in (disk for intent in intents for disk in intent.disks):
            found.setdefault(disk.key, disk)
        for slot in sorted(view.points, reverse=True):
            made = view.points[slot]
            # A point is unpacked only for a disk that no later one has.
            if not found.keys() >= set(made.disks):
                for backup in made.point.disks:
                    found.setdefault(backup.disk.key, backup.disk)
        return found

    def _fenced(self, view: View) -> Iterator[Intent]:
        """The intents of fenced runs that are still on the media; a prune removes them."""
        for run in self.media.runs():
            if run in view.fenced:
                try:
                    intent = self.media.intent(run)
                except TryAgainLater:
                    raise
                except VsaError as error:
                    _log.warning("what run %s left cannot be found by its intent: %s", run, error)
                else:
                    yield from [intent] if intent else []

    def _here(self, disks: Disks) -> tuple[Disks, list[str]]:
        """The disks of this subscription, and of which that could not be found out."""
        here: dict[str, SourceDisk] = {}
        troubles: list[str] = []
        for key, disk in disks.items():
            try:
                if again(partial(is_of_subscription, self.connection, disk), stop=self._env.stop):
                    here[key] = disk
            except VsaError as error:
                troubles.append(f"disk {disk.name} was not looked at: {error}")
        return here, troubles

    def _look(self, disks: Iterable[SourceDisk], scene: _Scene) -> _Seen:
        seen = _Seen()
        for together in _listed_together(disks):
            try:
                found = again(partial(self._look_at, together, scene), stop=self._env.stop)
            except VsaError as error:
                names = ", ".join(disk.name for disk in together)
                seen.unseen.update(
                    dict.fromkeys((d.key for d in together), f"not looked at: {names}: {error}")
                )
            else:
                seen.leftovers.extend(found.leftovers)
                seen.remarks.extend(found.remarks)
        return seen

    def _look_at(self, disks: Sequence[SourceDisk], scene: _Scene) -> _Seen:
        """Of disks that one request lists."""
        seen = _Seen()
        for disk, item in snapshots_of(self.connection, disks[0].kind).ours_of(disks, self.media.id):
            if remark := self._remark(disk, item, scene):
                seen.remarks.append(remark)
            elif scene.may_go(item.run, disk):
                seen.leftovers.extend(_excess(disk, item, scene))
        seen.leftovers.extend(item for disk in disks for item in self._staged(disk, scene))
        return seen

    def _remark(self, disk: SourceDisk, item: FoundSnapshot, scene: _Scene) -> str:
        """Why somebody should look at a snapshot that is not removed; empty if nobody need."""
        try:
            require_witnessed(disk, item, self.media)
        except MediaDamaged as error:
            return str(error)
        if scene.may_go(item.run, disk) or is_over(item.run, scene.view) or self._knows(item.run):
            return ""
        return (
            f"disk {disk.name}: snapshot {_name(item)} carries this media's marks, but the media knows "
            f"nothing of its run {item.run}; was it rebuilt or put back? Delete it if nobody needs it"
        )

    def _knows(self, run: str) -> bool:
        """Whether the run has an intent. It writes that before it makes anything; a prune deletes it once the
        run is over. One that cannot be read is there, and said elsewhere."""
        try:
            return self.media.intent(run) is not None
        except MediaDamaged:
            return True

    def _staged(self, disk: SourceDisk, scene: _Scene) -> Iterator[Leftover]:
        for run in staged_runs(disk, self._env):
            if scene.may_go(run, disk):
                intent = scene.dead.get(run)
                since = intent.started_at if intent else None
                yield Leftover(Thing.STAGING_BLOB, staging_url(disk, run), disk, run, since)


def _excess(disk: SourceDisk, item: FoundSnapshot, scene: _Scene) -> Iterator[Leftover]:
    excess = excess_of(disk, item, scene.view)
    if excess.grant:
        yield Leftover(Thing.GRANT, _name(item), disk, item.run, item.taken_at)
    if excess.snapshot:
        yield Leftover(Thing.SNAPSHOT, _name(item), disk, item.run, item.taken_at)


def _name(item: FoundSnapshot) -> str:
    return item.name.moment or item.name.id.rsplit("/", 1)[-1]


def _listed_together(disks: Iterable[SourceDisk]) -> Iterable[list[SourceDisk]]:
    """Managed disks by resource group, whose snapshots one request lists; unmanaged ones by themselves."""
    groups: dict[tuple[str, str], list[SourceDisk]] = {}
    for disk in disks:
        place = disk.resource_group.lower() if disk.kind is DiskKind.MANAGED else disk.key
        groups.setdefault((disk.kind, place), []).append(disk)
    return groups.values()
