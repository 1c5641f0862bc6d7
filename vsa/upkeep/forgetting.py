"""Forgetting recovery points: a plan that can be read first, and the log entry that it becomes.

    plan = plan_forgetting(media, by_policy(view, policy), now=now)
    print(plan.token, plan.going)
    forget(media, plan, now=now)

What retention never lets go: the newest sound point of each disk (its newest one if none is sound), pinned
points, and points whose base the next comparison will start from. Forgetting deletes nothing; a prune does,
once the grace is over.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vsa.errors import BadRequest, MediaConflict
from vsa.media import admission, layout
from vsa.media.entries import ForgetEntry, PinEntry, UnforgetEntry
from vsa.media.fold import in_utc
from vsa.media.media import Media
from vsa.media.view import CommittedPoint, View
from vsa.progress import SILENT, Progress
from vsa.retention import MadePoint, Retention, select
from vsa.upkeep.clock import TOLERANCE, clock_complaint, snapshot_complaint
from vsa.upkeep.doom import named_objects
from vsa.upkeep.needs import Known, Needs
from vsa.upkeep.objects import Objects, set_of

SHARE = 0.5
"""Of a client's points, the part that may be forgotten at a time without saying so twice."""

_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)

Policy = Callable[[CommittedPoint], Retention | None]
"""The retention of a point; None keeps it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One point that goes or stays, and why. `taken_at` is when Azure took its first snapshot, in UTC."""

    slot: int
    client: str
    vm: str
    taken_at: dt.datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may not do unless somebody says that it is meant: forget more than `share` of a client's
    points, and rely on a clock that the log or the time of a snapshot contradicts."""

    share: float = SHARE
    override_share: bool = False
    trust_clock: bool = False


@dataclass(frozen=True)
class Decision:
    """What goes and what stays under one view. `refusals` say why it may not be done, `warnings` what else
    to know."""

    going: tuple[Judged, ...]
    staying: tuple[Judged, ...]
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Request = Callable[[View, dt.datetime], Decision]
"""What somebody wants forgotten, decided anew for each view and for the time that it is."""


@dataclass(frozen=True)
class ForgetPlan:
    """A decision, and the bytes of objects that no wanted point needs any more after it, at least: what a
    prune frees by rewriting packs is not among them.

    `untold` are the points of which it cannot be read what they need, `obstacles` says why.
    """

    media_id: str
    decision: Decision
    freed: int
    untold: tuple[int, ...]
    obstacles: str
    limits: Limits
    request: Request = field(repr=False, compare=False)

    @property
    def token(self) -> str:
        """Twelve digits that change with the points that go."""
        said = [self.media_id, [item.slot for item in self.decision.going]]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def named(slots: Sequence[int]) -> Request:
    """Forget exactly these points, whatever retention would say of them. BadRequest if one cannot be."""

    def decide(view: View, now: dt.datetime) -> Decision:
        admission.admit(
            view, ForgetEntry(points=tuple(slots), reason="asked"), run=None, require=lambda _: None
        )
        protected = _protected(view)
        wanted = set(slots)
        return Decision(
            going=tuple(_judged(made, "asked for") for made in view.live if made.slot in wanted),
            staying=tuple(_judged(made, "not named") for made in view.live if made.slot not in wanted),
            warnings=tuple(
                f"point {slot} goes although it is {protected[slot]}"
                for slot in sorted(wanted & protected.keys())
            ),
        )

    return decide


def by_policy(policy: Policy) -> Request:
    """Forget what the retention of each point's subclient does not keep. The points of one client that have
    the same retention are judged together.

    Where the time of a snapshot and the log disagree on a point's day, what either of them keeps stays. Times
    that are yet to come are wrong: points that claim one open no period, and close none.
    """

    def decide(view: View, now: dt.datetime) -> Decision:
        groups: dict[tuple[str, Retention | None], list[Judged]] = {}
        believed = now + TOLERANCE
        written = _written(view, believed)
        for made in view.live:
            groups.setdefault((made.client, policy(made)), []).append(_judged(made, ""))
        kept = _protected(view)
        for (_, retention), points in groups.items():
            for slot, reason in _kept(retention, points, written, believed).items():
                kept[slot] = f"{kept[slot]}, {reason}" if slot in kept else reason
        judged = [item for points in groups.values() for item in points]
        return Decision(
            going=_with_reasons(judged, lambda slot: "no rule keeps it" if slot not in kept else ""),
            staying=_with_reasons(judged, lambda slot: kept.get(slot, "")),
        )

    return decide


def plan_forgetting(
    media: Media,
    request: Request,
    *,
    now: dt.datetime,
    limits: Limits = Limits(),
    progress: Progress = SILENT,
) -> ForgetPlan:
    """Decide, and find out what a prune would free. Reads the log from slot 0 and all indexes; no writes.

    BadRequest if a point that is named cannot be forgotten. An index that cannot be read keeps nothing from
    being forgotten: it may be the points over it that have to go.
    """
    media = media.read_anew()
    view = media.view()
    decision = _limited(request(view, now), view, limits, now)
    objects = Objects()
    needs = Needs(media, objects)
    going = {item.slot for item in decision.going}
    # What was forgotten before goes as well, unless it is pinned.
    wanted = [slot for slot in view.points if slot not in view.forgotten or slot in view.pinned]
    stays = needs.known(view, [slot for slot in wanted if slot not in going], progress=progress)
    goes = needs.known(view, going)
    untold = Known(0, (*stays.untold, *goes.untold))
    return ForgetPlan(
        media.id,
        decision,
        freed=objects.size_of(_freed(view, objects, going, goes, stays), media.store),
        untold=untold.harmed,
        obstacles=untold.reasons,
        limits=limits,
        request=request,
    )


def forget(media: Media, plan: ForgetPlan, *, now: dt.datetime) -> int | None:
    """Write the entry; its slot, or None if nothing goes. The decision is made once more on the log before
    that very slot: MediaConflict if it has become another one, BadRequest if it was refused."""

    def entry(view: View) -> ForgetEntry | None:
        again = _limited(plan.request(view, now), view, plan.limits, now)
        if again.refusals:
            raise BadRequest(again.refusals[0])
        going = tuple(item.slot for item in again.going)
        if going != tuple(item.slot for item in plan.decision.going):
            raise MediaConflict("the points have changed since the plan was made: look at a new one")
        if not going:
            return None
        body = ForgetEntry(points=going, reason=again.going[0].reason)
        admission.admit(view, body, run=None, require=lambda _: None)
        return body

    return media.append_planned(entry)


def unforget(media: Media, slots: Sequence[int]) -> int:
    """Call points back. MediaConflict if a prune has given one up, BadRequest if one is not forgotten."""
    return media.append(UnforgetEntry(points=tuple(slots)))


def pin(media: Media, slots: Sequence[int], *, pinned: bool, reason: str = "") -> int:
    """Let retention leave points alone, or no longer. BadRequest if one does not exist."""
    return media.append(PinEntry(points=tuple(slots), pinned=pinned, reason=reason))


def _kept(
    retention: Retention | None,
    points: Sequence[Judged],
    written: Mapping[int, dt.datetime],
    believed: dt.datetime,
) -> Mapping[int, str]:
    """What retention keeps by the times of the snapshots, which Azure gave; and what it keeps if no snapshot
    is younger than the log says that its point is, which writers' clocks did.

    The first holds whatever those clocks say; the second, whatever a point claims of its snapshots. A point
    too many is no harm.
    """
    if retention is None:
        return dict.fromkeys((item.slot for item in points), "no retention is set")
    taken = [MadePoint(item.slot, item.taken_at if item.taken_at <= believed else _NEVER) for item in points]
    capped = [MadePoint(item.slot, min(item.taken_at, written[item.slot])) for item in points]
    by_log = {slot: f"{reason}, by the log's times" for slot, reason in select(retention, capped).items()}
    return {**by_log, **select(retention, taken)}


def _with_reasons(points: Iterable[Judged], reason: Callable[[int], str]) -> tuple[Judged, ...]:
    """Those that there is a reason for, in log order."""
    found = sorted((item.slot, item) for item in points if reason(item.slot))
    return tuple(Judged(slot, item.client, item.vm, item.taken_at, reason(slot)) for slot, item in found)


def _protected(view: View) -> dict[int, str]:
    """The points that no policy lets go, with the reason."""
    kept: dict[int, str] = {}
    for made in view.live:
        if made.slot in view.pinned:
            kept[made.slot] = "pinned"
    for slot, _ in view.bases().values():
        kept[slot] = "the point of a base snapshot"
    for slot, reason in _last_of_disks(view).values():
        kept[slot] = reason
    return kept


def _last_of_disks(view: View) -> dict[str, tuple[int, str]]:
    """By disk, the point that must stay for its sake. What is wrong with one disk of a point says nothing of
    the others; what a point leaves out takes nothing from the disks that it holds."""
    sound: dict[str, int] = {}
    newest: dict[str, int] = {}
    for made in view.live:
        bad = _bad_disks(view, made.slot)
        newest.update(dict.fromkeys(made.disks, made.slot))
        sound.update((key, made.slot) for key in made.disks if key not in bad)
    return {
        key: (sound[key], "the newest sound point of a disk")
        if key in sound
        else (slot, "the newest point of a disk that has no sound one")
        for key, slot in newest.items()
    }


def _bad_disks(view: View, slot: int) -> frozenset[str]:
    """The disks of a point whose contents are in doubt or partly lost."""
    doubts = (doubt.disk_key for doubt in view.doubtful.get(slot, ()))
    return frozenset((*doubts, *(harm.disk_key for harm in view.harm_of(slot))))


def _written(view: View, believed: dt.datetime) -> Mapping[int, dt.datetime]:
    """By slot, when each point was committed, as far as its own time and those of points before it tell."""
    newest, found = _NEVER, dict[int, dt.datetime]()
    for made in view.points.values():
        if made.time <= believed:
            newest = max(newest, made.time)
        found[made.slot] = newest
    return found


def _judged(made: CommittedPoint, reason: str) -> Judged:
    point = made.point
    taken_at = in_utc(min(backup.snapshot.taken_at for backup in point.disks))
    return Judged(made.slot, made.client, point.vm.name, taken_at, reason)


def _limited(decision: Decision, view: View, limits: Limits, now: dt.datetime) -> Decision:
    """The decision with all that speaks against it."""
    refusals = [] if limits.override_share else list(_shares(decision, limits.share))
    taken = ((item.slot, item.taken_at) for item in (*decision.going, *decision.staying))
    if not limits.trust_clock and (complaint := clock_complaint(view, now) or snapshot_complaint(taken, now)):
        refusals.append(complaint)
    return Decision(decision.going, decision.staying, tuple(refusals), decision.warnings)


def _shares(decision: Decision, share: float) -> Iterable[str]:
    going: dict[str, list[Judged]] = {}
    for item in decision.going:
        going.setdefault(item.client, []).append(item)
    staying = Counter(item.client for item in decision.staying)
    for client, points in going.items():
        total = len(points) + staying[client]
        if len(points) > share * total:
            yield (
                f"{len(points)} of the {total} points of {points[0].vm} would be forgotten, "
                f"more than {share:.0%}: look at the plan, and override the share if it is meant"
            )


def _freed(view: View, objects: Objects, going: Iterable[int], goes: Known, stays: Known) -> int:
    """The set of what goes for sure, also if not all can be read of what goes and what stays."""
    kept = stays.needed | named_objects(view, stays.harmed, objects)
    # An index that cannot be read may not be there at all.
    lost = set_of(objects.number_of(ref) for item in goes.untold for ref in item.indexes)
    freed = (goes.needed | named_objects(view, goes.harmed, objects)) & ~kept & ~lost
    runs = {layout.run_of(name) for name in objects.named(kept) if layout.is_index(name)}
    records = {ref.name for slot in going for ref in view.points[slot].point.records}
    copies = {ref.name for ref in view.sound_indexes().values()}
    stay = (
        objects.number(name)
        for name in objects.named(freed)
        if (name in records and layout.run_of(name) in runs)
        or (stays.untold and (name in copies or layout.is_pack(name) or layout.is_moves(name)))
    )
    return freed & ~set_of(stay)
