"""A run that backs up one disk: plan, store, heal, commit, and plan again if what it relied on is doomed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from tests.protocol.admission import admits
from tests.protocol.calls import Answer, Call, Create, Delete, Episode, LookUp, Program, Put, ReadLog
from tests.protocol.model import Frame, Index, Pack, Point, Relocate, Rules, Stored, Table, View, visible

S = TypeVar("S", Pack, Index, Table)


@dataclass(frozen=True)
class Backup:
    """One run on one disk. `changed` are the extents that it reads; without a `parent`, all of them.

    `shares` are packs that it may refer to instead of storing the same content again: old ones, and those of
    runs in the same process that have not committed yet. `absorbs` 'deltas' or 'all' of the parent's
    indexes. `heals`: it also reads extents whose frames are recorded as damaged.
    """

    run: str
    disk: tuple[str, ...]
    parent: str | None = None
    changed: frozenset[int] = frozenset()
    shares: tuple[str, ...] = ()
    absorbs: str = "nothing"
    heals: bool = False

    def first(self) -> Episode:
        return Episode(back_up, (Kept(),))


class Kept(NamedTuple):
    """What a run has stored so far; a name is used once, whatever became of it."""

    names: int = 0
    frames: tuple[tuple[str, Frame], ...] = ()
    recreated: frozenset[str] = frozenset()


class Plan(NamedTuple):
    """How a disk is to be described: inherited indexes, new rows (None: stored first), damaged frames."""

    inherited: tuple[Index, ...]
    rows: tuple[tuple[int, Frame | None], ...]
    missing: tuple[str, ...]
    damaged: tuple[tuple[Frame, str], ...]
    carried: frozenset[Frame]


class Draft(NamedTuple):
    """A point that is ready to be committed, and the rows that it carries on from its parent."""

    point: Point
    carried: frozenset[Frame]


def over(view: View, run: str) -> bool:
    """Committed, or held for dead by somebody."""
    return run in view.points or (view.rules.points_heed_fences and run in view.fenced)


def back_up(role: Backup, rules: Rules, kept: Kept) -> Program:
    view = yield ReadLog()
    if over(view, role.run):
        return None
    shared = (yield LookUp(role.shares)) if role.shares else ()
    plan = plan_backup(view, role, kept, shared)
    if plan.missing:
        kept = yield from _store_contents(role, rules, kept, view, plan.missing)
    if plan.damaged:
        return (yield from _heal(role, rules, kept, plan.damaged))
    rows = tuple((extent, frame or dict(kept.frames)[role.disk[extent]]) for extent, frame in plan.rows)
    if not rows:
        draft = Draft(Point(role.run, plan.inherited, role.disk, role.parent), plan.carried)
        return Episode(commit, (kept, draft))
    index, kept = yield from _store(role, rules, kept, Index, rows)
    point = Point(role.run, (*plan.inherited, index), role.disk, role.parent)
    return Episode(commit, (kept, Draft(point, plan.carried)))


def plan_backup(view: View, role: Backup, kept: Kept, shared: tuple[tuple[str, Frame], ...]) -> Plan:
    """Pure: what the point of `role` is to consist of, as things stand in `view`."""
    parent = view.points[role.parent][1] if role.parent in view.points else None
    old = visible(parent.indexes) if parent else {}
    inherited = _inherited(view, role, parent)
    described = visible(inherited)
    rows: list[tuple[int, Frame | None]] = []
    missing: list[str] = []
    damaged: list[tuple[Frame, str]] = []
    for extent, content in enumerate(role.disk):
        frame = None if extent in role.changed else old.get(extent)
        frame = frame if frame and _reachable(view, frame) else None
        if frame and role.heals and view.resolve(frame)[0] in view.damaged:
            damaged.append((view.resolve(frame)[0], content))
            missing += [] if _own(view, kept, content) else [content]
        elif frame:
            if extent not in described or view.resolve(described[extent])[0] != view.resolve(frame)[0]:
                rows.append((extent, view.resolve(frame)[0]))
        else:
            known = _shareable(view, content, shared) or _own(view, kept, content)
            rows.append((extent, known))
            missing += [] if known else [content]
    carried = frozenset(old.values()) | {view.resolve(frame)[0] for frame in old.values()}
    return Plan(inherited, tuple(rows), tuple(dict.fromkeys(missing)), tuple(damaged), carried)


def _inherited(view: View, role: Backup, parent: Point | None) -> tuple[Index, ...]:
    if parent is None or role.absorbs == "all":
        return ()
    indexes = parent.indexes[:1] if role.absorbs == "deltas" else parent.indexes
    doomed = view.rules.points_heed_dooms and any(index.name in view.doomed for index in indexes)
    return () if doomed else indexes


def _reachable(view: View, frame: Frame) -> bool:
    target, tables = view.resolve(frame)
    return not view.rules.points_heed_dooms or view.doomed.isdisjoint((target.pack, *tables))


def _shareable(view: View, content: str, shared: tuple[tuple[str, Frame], ...]) -> Frame | None:
    return next((frame for known, frame in shared if known == content and view.usable(frame)), None)


def _own(view: View, kept: Kept, content: str) -> Frame | None:
    frame = dict(kept.frames).get(content)
    if frame is None or frame.pack in kept.recreated or view.usable(frame):
        return frame
    return None


def _store_contents(
    role: Backup, rules: Rules, kept: Kept, view: View, contents: tuple[str, ...]
) -> Generator[Call, Any, Kept]:
    """Store one pack of these contents and remember its frames."""
    stored, kept = yield from _store(role, rules, kept, Pack, contents)
    frames = dict(kept.frames) | {
        content: Frame(stored.name, number) for number, content in enumerate(contents)
    }
    again = {stored.name} & view.doomed if not rules.names_never_return else set()
    return kept._replace(frames=tuple(sorted(frames.items())), recreated=kept.recreated | again)


def _store(
    role: Backup, rules: Rules, kept: Kept, kind: Callable[..., S], body: tuple[Any, ...]
) -> Generator[Call, Any, tuple[S, Kept]]:
    """Store one object, under a new name for as long as the outcome is unclear."""
    while True:
        name = f"{role.run}/{_LETTERS[kind]}{kept.names}"
        if kind is Pack and not rules.names_never_return:
            name = f"any/{'-'.join(body)}"
        stored, kept = kind(name, body), kept._replace(names=kept.names + 1)
        answer = yield Create(stored)
        if answer is not Answer.UNCLEAR or not rules.stored_before_referred_to:
            return stored, kept


_LETTERS: dict[Callable[..., Stored], str] = {Pack: "p", Index: "i", Table: "t"}


def _heal(role: Backup, rules: Rules, kept: Kept, damaged: tuple[tuple[Frame, str], ...]) -> Program:
    own = dict(kept.frames)
    moves = tuple((frame, own[content]) for frame, content in damaged)
    table, kept = yield from _store(role, rules, kept, Table, moves)
    return Episode(heal, (kept, table))


def heal(role: Backup, rules: Rules, kept: Kept, table: Table) -> Program:
    """Say that damaged frames have moved to what this run has read and stored; then plan anew."""
    view = yield ReadLog()
    entry = Relocate(role.run, table)
    if over(view, role.run) and rules.relocations_heed_fences:
        return None
    if entry in view.entries or not admits(view, entry):
        return Episode(back_up, (kept,))
    answer = yield Put(view.head, entry)
    return Episode(back_up, (kept,)) if answer is Answer.DONE else Episode(heal, (kept, table))


def commit(role: Backup, rules: Rules, kept: Kept, draft: Draft) -> Program:
    view = yield ReadLog()
    if over(view, role.run):
        return None
    if not admits(view, draft.point, carried=draft.carried, recreated=kept.recreated):
        return Episode(back_up, (kept,))
    answer = yield Put(view.head, draft.point)
    if answer is Answer.DONE:
        return None
    if answer is Answer.UNCLEAR and not rules.writers_never_delete:
        return Episode(delete_own, (kept.frames,))
    return Episode(commit, (kept, draft))


def delete_own(role: Backup, rules: Rules, frames: tuple[tuple[str, Frame], ...]) -> Program:
    for name in sorted({frame.pack for _, frame in frames}):
        yield Delete(name)
    return None
