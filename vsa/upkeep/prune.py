"""Prune: delete from media what no recovery point needs any more. A plan first, then what it says.

    plan = plan_prune(media, now=now, scratch=folder)      # reads the log and all indexes, writes nothing
    report = carry_out(plan, process=this_process())

The order of acting: indexes that could not be read and were recorded are put back; doom entries, each decided
on the log before its very slot; deletions, of what entries that were read back doom; then mostly empty packs
are moved, and what that leaves behind goes the same way. Killed anywhere, the next prune finishes it.
Anything else unreadable stops it before anything is deleted.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from vsa.errors import BadRequest, MediaDamaged
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import DoomEntry
from vsa.media.layout import PACK_TARGET, RUNS
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import Intent, ProcessName
from vsa.progress import SILENT, Progress
from vsa.upkeep.clock import believed_until, require_clock
from vsa.upkeep.deleting import Deleted, delete, doomed_now
from vsa.upkeep.doom import Dooming, HasEnded, Runs, judge_runs, listed_objects, named_objects
from vsa.upkeep.frame_spool import FrameSpool
from vsa.upkeep.lost_indexes import Regained, Regaining, has_gone_on, learn_needs, put_back
from vsa.upkeep.needs import Needs
from vsa.upkeep.objects import Objects, numbers_of, set_of
from vsa.upkeep.repack import Repacked, Repacking, repack
from vsa.upkeep.repack_plan import RepackPlan, plan_repack
from vsa.upkeep.superseded import Superseded, superseded

T = TypeVar("T")

GRACE = dt.timedelta(days=14)
"""How long a forgotten point can be called back, and how old a run of unknown fate must be to be over."""
RUN_GRACE = dt.timedelta(days=1)
"""Runs younger than this are never held for dead by their age, however short the grace is."""
THRESHOLD = 0.5


@dataclass(frozen=True)
class PrunePlan:
    """What a prune would do; nothing is decided for good before it is carried out.

    `points` are given up, `waiting` are forgotten but within their grace. `objects` of `size` bytes would be
    doomed; `doomed` were before and are still there; what is `superseded` needs no entry. Indexes in
    `regained` cannot be read, and would be put back as their runs recorded them. `unknown` runs may be at
    work.
    """

    media_id: str
    grace: dt.timedelta
    threshold: float
    points: tuple[int, ...]
    waiting: tuple[int, ...]
    objects: int
    size: int
    doomed: int
    dead: tuple[str, ...]
    unknown: tuple[str, ...]
    repack: RepackPlan
    superseded: Superseded
    regained: tuple[str, ...]
    _survey: Survey = field(repr=False, compare=False)

    @property
    def token(self) -> str:
        """Twelve digits that change with what cannot be taken back: the points given up, and the settings.

        Objects are not in it. Which of them are needed is decided by the log alone, and changes while backups
        run.
        """
        said = [self.media_id, self.points, self.grace.total_seconds(), self.threshold]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    @property
    def now(self) -> dt.datetime:
        """By the clock that the grace is counted with."""
        return self._survey.now

    @property
    def before(self) -> dt.datetime:
        """Points that were forgotten by then are given up."""
        return self._survey.before

    @property
    def is_empty(self) -> bool:
        deleted = self.points or self.objects or self.doomed or self.superseded.names
        return not (deleted or self.repack.packs or self.regained)

    @property
    def freed(self) -> int:
        """Bytes that the media takes less when it is done, about: what is doomed now, and by repacking."""
        return self.size + self.repack.freed


@dataclass(frozen=True)
class PruneReport:
    """What a prune did: points given up, objects doomed by how many entries, deleted and moved, and lost
    indexes put back."""

    points: tuple[int, ...]
    entries: int
    objects: int
    deleted: Deleted
    repacked: Repacked
    packs: int
    regained: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything was deleted that may be, and every frame that was read was sound."""
        return not (self.deleted.refused or self.repacked.damaged)


@dataclass
class Survey:
    """What planning read and acting goes on with."""

    media: Media
    objects: Objects
    needs: Needs
    regained: tuple[Regained, ...]
    runs: Runs
    listed: int
    candidates: int
    beside: list[str]
    before: dt.datetime
    now: dt.datetime
    pack_target: int
    progress: Progress
    view: View

    def dooming(self, points: tuple[int, ...], reason: str) -> Dooming:
        return Dooming(
            self.media.store,
            self.needs,
            self.objects,
            self.runs,
            candidates=self.candidates,
            points=points,
            before=self.before,
            reason=reason,
        )


def plan_prune(
    media: Media,
    *,
    now: dt.datetime,
    scratch: Path,
    grace: dt.timedelta = GRACE,
    threshold: float = THRESHOLD,
    has_ended: HasEnded = lambda _: False,
    trust_clock: bool = False,
    pack_target: int = PACK_TARGET,
    progress: Progress = SILENT,
) -> PrunePlan:
    """Decide what may go. Reads the log from slot 0 and every row of every index; writes only to `scratch`.

    `scratch` is an empty folder that its owner removes when the plan is done with: it takes some 60 bytes for
    each stored extent. Packs of which less than `threshold` is needed are repacked, none at 0. `has_ended`
    judges the processes of open runs. `trust_clock`: `now` is right, and later times in the log are wrong.
    Raises BadRequest, MediaDamaged, MediaUnusable, or MediaConflict if another prune has overtaken it.
    """
    if grace < dt.timedelta(0) or not 0 <= threshold <= 1:
        raise BadRequest(f"grace {grace} and threshold {threshold}: expected at least 0, and from 0 to 1")
    media = media.read_anew(believed_until=believed_until(now, trusted=trust_clock))
    view = media.view()
    require_clock(view, now, trusted=trust_clock)
    objects, before = Objects(), now - grace
    points = tuple(
        slot for slot, since in sorted(view.forgotten.items()) if since <= before and slot not in view.pinned
    )
    going = frozenset(points)
    needs, spool = Needs(media, objects), FrameSpool(scratch / "frames")
    staying = [slot for slot in view.points if slot not in going]
    regaining = Regaining(media, view, scratch / "indexes")
    learn_needs(needs, view, staying, regaining, sink=spool if threshold else None, progress=progress)
    repacking = RepackPlan()
    if threshold:
        repacking = plan_repack(
            spool, objects, view, threshold=threshold, folder=scratch / "moves", pack_target=pack_target
        )
    beside: list[str] = []
    listed = listed_objects(media, objects, beside=beside)
    candidates = listed | named_objects(view, points, objects)
    names = [objects.names[number] for number in numbers_of(candidates)]
    runs = judge_runs(media, view, names, before=now - max(grace, RUN_GRACE), has_ended=has_ended, now=now)
    survey = Survey(
        media,
        objects,
        needs,
        tuple(regaining.found.values()),
        runs,
        listed,
        candidates,
        beside,
        before,
        now,
        pack_target,
        progress,
        view,
    )
    return _plan(survey, points, repacking, grace, threshold)


def _plan(
    survey: Survey,
    points: tuple[int, ...],
    repack: RepackPlan,
    grace: dt.timedelta,
    threshold: float,
) -> PrunePlan:
    view = survey.view
    dooming = survey.dooming(points, "")
    names, going = list(dooming.names(view)), frozenset(points)
    left = [survey.objects.names[number] for number in numbers_of(survey.listed)]
    gone = doomed_now(view, left, survey.objects.named(dooming.needed(view)))
    return PrunePlan(
        media_id=survey.media.id,
        grace=grace,
        threshold=threshold,
        points=points,
        waiting=tuple(sorted(slot for slot in view.forgotten if slot not in going)),
        objects=len(names),
        size=survey.objects.size_of(set_of(map(survey.objects.number, names)), survey.media.store),
        doomed=len(gone),
        dead=tuple(sorted(survey.runs.dead)),
        unknown=tuple(sorted(survey.runs.unknown)),
        repack=repack,
        superseded=superseded(survey.media, view, survey.beside),
        regained=tuple(item.ref.name for item in survey.regained),
        _survey=survey,
    )


def carry_out(
    plan: PrunePlan, *, process: ProcessName, random: Callable[[int], bytes] = os.urandom
) -> PruneReport:
    """Do what the plan says, as far as the log still allows it: what points need by then stays.

    `process` is ours, for others to see whether it lives. Raises MediaUnusable, MediaDamaged or
    TryAgainLater, or MediaConflict if frames moved since indexes were found that are to be put back; then the
    next prune goes on.
    """
    survey = plan._survey
    before = set(survey.media.view().given_up)
    reached(FaultPoint.PRUNE_STARTED)
    if survey.regained:
        survey.view = _put_back(survey, random(8).hex(), process, random)
    swept, repacked = _sweep(survey, plan.points, "no recovery point needs it"), Repacked()
    if plan.repack.packs:
        run = random(8).hex()
        repacked = _repack(survey, plan.repack, run, process, random)
        _add_candidates(survey, run, plan.repack)
        swept += _sweep(survey, plan.points, "its frames lie elsewhere now")
        reached(FaultPoint.REPACK_SWEPT)
        survey.media.append_planned(partial(_end, run))
    swept += _Swept(0, 0, _delete_superseded(survey, plan.superseded))
    reached(FaultPoint.PRUNE_DONE)
    survey.media.checkpoint_if_due()
    given_up = set(survey.media.view().given_up) - before
    return PruneReport(
        points=tuple(slot for slot in plan.points if slot in given_up),
        entries=swept.entries,
        objects=swept.objects,
        deleted=swept.deleted,
        repacked=repacked,
        packs=len(plan.repack.packs),
        regained=plan.regained,
    )


def _put_back(survey: Survey, run: str, process: ProcessName, random: Callable[[int], bytes]) -> View:
    """Before anything is doomed: what points over these indexes need is read from the media again."""
    media = survey.media
    media.begin_run(_intent(run, survey.now, process))
    view = put_back(media, survey.regained, run=run, planned_on=survey.view, random=random)
    media.append_planned(partial(_end, run))
    return view


def _repack(
    survey: Survey, plan: RepackPlan, run: str, process: ProcessName, random: Callable[[int], bytes]
) -> Repacked:
    survey.media.begin_run(_intent(run, survey.now, process))
    reached(FaultPoint.REPACK_STARTED)
    env = Repacking(
        survey.media,
        survey.objects,
        run,
        planned_on=survey.view,
        random=random,
        pack_target=survey.pack_target,
        progress=survey.progress,
    )
    return repack(plan, env)


def _add_candidates(survey: Survey, run: str, plan: RepackPlan) -> None:
    """Let go what the repacking has made superfluous: old packs, and what it stored itself in vain."""
    survey.candidates |= set_of(map(survey.objects.number, plan.packs))
    survey.candidates |= listed_objects(survey.media, survey.objects, below=f"{RUNS}{run}/")
    survey.runs = replace(survey.runs, dead=survey.runs.dead | {run})


def _end(run: str, view: View) -> DoomEntry | None:
    """Say that a run of a prune is over: what it moved stays moved, and nobody need ask whether it lives."""
    return None if run in view.fenced else DoomEntry(runs=(run,), reason="the prune that it was of has ended")


def _delete_superseded(survey: Survey, planned: Superseded) -> Deleted:
    """Of keys those that the plan has shown."""
    found = superseded(survey.media, survey.media.view(), survey.beside)
    keys = tuple(name for name in found.keys if name in planned.keys)
    return delete(survey.media.store, replace(found, keys=keys).names, survey.progress)


@dataclass(frozen=True)
class _Swept:
    entries: int
    objects: int
    deleted: Deleted

    def __add__(self, other: _Swept) -> _Swept:
        deleted = self.deleted + other.deleted
        return _Swept(self.entries + other.entries, self.objects + other.objects, deleted)


def _sweep(survey: Survey, points: tuple[int, ...], reason: str) -> _Swept:
    """Doom, read back, delete; what earlier entries have doomed goes with it."""
    media, dooming, entries = survey.media, survey.dooming(points, reason), 0
    before = len(media.view().doomed)
    while _decided(media, lambda: media.append_planned(dooming)) is not None:
        entries += 1
    reached(FaultPoint.OBJECTS_DOOMED)
    # What is deleted is what the log says, read from the store, not what was asked for.
    names = [survey.objects.names[number] for number in numbers_of(survey.listed | survey.candidates)]
    view, gone = _decided(media, lambda: _doomed(survey, media.view(), dooming, names))
    return _Swept(entries, len(view.doomed) - before, delete(media.store, gone, survey.progress))


def _doomed(survey: Survey, view: View, dooming: Dooming, names: Iterable[str]) -> tuple[View, list[str]]:
    return view, doomed_now(view, names, survey.objects.named(dooming.needed(view)))


def _decided(media: Media, decide: Callable[[], T]) -> T:
    """What is decided upon the log as it is. What points needed may be gone before it was read, since another
    prune has given them up: then the log has gone on, and it is decided once more."""
    while True:
        then = media.view()
        try:
            return decide()
        except MediaDamaged:
            if not has_gone_on(then, media.view()):
                raise


def _intent(run: str, now: dt.datetime, process: ProcessName) -> Intent:
    return Intent(run=run, job="prune", vm_key="", vm_name="", subclient="", started_at=now, process=process)
