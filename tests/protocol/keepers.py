"""Who tends the media beside the writers: pruning, repacking, folding, calling back, fencing, and decay."""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.admission import admits
from tests.protocol.calls import (
    Answer,
    Create,
    Decay,
    Delete,
    Episode,
    Fetch,
    FreeSlots,
    ListNames,
    Program,
    Put,
    ReadLog,
)
from tests.protocol.model import (
    Damage,
    Doom,
    Entry,
    Forget,
    Frame,
    Pack,
    Relocate,
    Rules,
    Table,
    Unforget,
    View,
    run_of,
)


@dataclass(frozen=True)
class Prune:
    """Forgets points, dooms what nothing needs any more, deletes it. Every grace has passed already.

    `fences`: it also dooms what uncommitted runs have stored. `rechecks`: where objects are deleted without a
    doom entry, it reads the log once more before each of them.
    """

    by: str
    forgets: tuple[str, ...] = ()
    fences: bool = True
    rechecks: bool = False

    def first(self) -> Episode:
        return Episode(forget, (self.forgets,))


@dataclass(frozen=True)
class Repack:
    """Copies the live frames of a pack to a pack of its own; then prunes, if it is to."""

    by: str
    pack: str
    prunes: bool = False
    fences: bool = True

    def first(self) -> Episode:
        return Episode(copy_frames)


@dataclass(frozen=True)
class Fold:
    """Makes duplicates refer to one frame of equal content; then prunes, if it is to."""

    by: str
    moves: tuple[tuple[Frame, Frame], ...]
    prunes: bool = False
    fences: bool = True

    def first(self) -> Episode:
        return Episode(fold)


Pruner = Prune | Repack | Fold


@dataclass(frozen=True)
class CallBack:
    """Unforgets a point, if it is forgotten."""

    by: str
    point: str

    def first(self) -> Episode:
        return Episode(say, (Unforget(self.by, self.point),))


@dataclass(frozen=True)
class Fence:
    """Holds a run for dead, as the sweep of leftovers does before it deletes snapshots."""

    by: str
    run: str

    def first(self) -> Episode:
        return Episode(say, (Doom(self.by, (self.run,)),))


@dataclass(frozen=True)
class Spoil:
    """A frame decays; somebody sees it and records it in the log."""

    by: str
    frame: Frame

    def first(self) -> Episode:
        return Episode(spoil)


def spoil(role: Spoil, rules: Rules) -> Program:
    yield Decay(role.frame)
    return Episode(say, (Damage(role.by, (role.frame,)),))


def say(role: object, rules: Rules, entry: Entry) -> Program:
    """Put one entry, if it may still be put and does not stand already."""
    view = yield ReadLog()
    if entry in view.entries or not admits(view, entry):
        return None
    answer = yield Put(view.head, entry)
    return None if answer is Answer.DONE else Episode(say, (entry,))


def forget(role: Prune, rules: Rules, points: tuple[str, ...]) -> Program:
    if not points:
        return Episode(doom if rules.doom_before_delete else delete_unasked)
    view = yield ReadLog()
    entry = Forget(role.by, points[0])
    if entry in view.entries or not admits(view, entry):
        return Episode(forget, (points[1:],))
    answer = yield Put(view.head, entry)
    return Episode(forget, (points[1:] if answer is Answer.DONE else points,))


def plan_doom(view: View, names: frozenset[str], role: Pruner) -> Doom | None:
    """Pure: everything that the points of `view` do not need, giving up those that are forgotten."""
    given_up = tuple(sorted(view.forgotten - view.given_up))
    needed = view.needed_by(view.kept.keys() - view.forgotten)
    objects = names - needed - view.doomed
    live = {run_of(name) for name in objects} - view.points.keys() - view.fenced
    if not view.rules.dooms_fence_uncommitted_runs:
        live = set()
    elif not role.fences:
        objects = frozenset(name for name in objects if run_of(name) not in live)
        live = set()
    if not objects and not given_up:
        return None
    kept = () if not view.rules.forgotten_points_keep_their_objects else given_up
    return Doom(role.by, tuple(sorted(live)), tuple(sorted(objects)), kept)


def doom(role: Pruner, rules: Rules) -> Program:
    view = yield ReadLog()
    names = yield ListNames()
    entry = plan_doom(view, names, role)
    if entry is None:
        return Episode(delete, (tuple(sorted(view.doomed & names)),))
    answer = yield Put(view.head, entry)
    if answer is Answer.DONE:
        return Episode(delete if rules.slots_are_never_freed else free_slots, (entry.objects,))
    return Episode(doom) if rules.dooms_are_computed_where_they_stand else Episode(doom_stale, (entry,))


def doom_stale(role: Pruner, rules: Rules, entry: Doom) -> Program:
    """What a rule forbids: the doom as it was computed on an older view, put behind a newer one."""
    view = yield ReadLog()
    if entry in view.entries:
        return Episode(delete, (entry.objects,))
    answer = yield Put(view.head, entry)
    return Episode(
        delete if answer is Answer.DONE else doom_stale,
        (entry.objects,) if answer is Answer.DONE else (entry,),
    )


def free_slots(role: Pruner, rules: Rules, names: tuple[str, ...]) -> Program:
    yield FreeSlots()
    return Episode(delete, (names,))


def delete(role: Pruner, rules: Rules, names: tuple[str, ...]) -> Program:
    if not names:
        return None
    yield Delete(names[0])
    return Episode(delete, (names[1:],))


def delete_unasked(role: Prune, rules: Rules) -> Program:
    """What a rule forbids: mark and delete, with nothing said in the log."""
    view = yield ReadLog()
    names = yield ListNames()
    entry = plan_doom(view, names, role)
    objects = entry.objects if entry else ()
    return Episode(delete_rechecked if role.rechecks else delete, (objects,))


def delete_rechecked(role: Prune, rules: Rules, names: tuple[str, ...]) -> Program:
    if not names:
        return None
    view = yield ReadLog()
    if names[0] not in view.needed_by(view.kept.keys() - view.forgotten):
        yield Delete(names[0])
    return Episode(delete_rechecked, (names[1:],))


def copy_frames(role: Repack, rules: Rules) -> Program:
    view = yield ReadLog()
    resolved = {frame for point in view.kept.values() for frame in view.contents(point).values()}
    live = tuple(sorted(frame for frame in resolved if frame.pack == role.pack))
    found = yield Fetch(live)
    good = [(frame, content) for frame, content in zip(live, found, strict=True) if content is not None]
    if not good or role.by in view.fenced:
        return None
    copy = Pack(f"{role.by}/p", tuple(content for _, content in good))
    if (yield Create(copy)) is Answer.UNCLEAR:
        return None
    moves = tuple((frame, Frame(copy.name, number)) for number, (frame, _) in enumerate(good))
    return (yield from _announce(role, rules, moves))


def fold(role: Fold, rules: Rules) -> Program:
    view = yield ReadLog()
    targets = tuple(target for _, target in role.moves)
    found = yield Fetch(targets)
    if None in found or not view.doomed.isdisjoint(target.pack for target in targets):
        return None
    return (yield from _announce(role, rules, role.moves))


def _announce(role: Repack | Fold, rules: Rules, moves: tuple[tuple[Frame, Frame], ...]) -> Program:
    table = Table(f"{role.by}/t", moves)
    if (yield Create(table)) is Answer.UNCLEAR:
        return None
    sources = tuple(sorted({source.pack for source, _ in moves}))
    at_once = () if rules.sources_are_doomed_in_a_later_slot else sources
    return Episode(relocate, (Relocate(role.by, table, at_once),))


def relocate(role: Repack | Fold, rules: Rules, entry: Relocate) -> Program:
    view = yield ReadLog()
    if entry in view.entries:
        return _afterwards(role, entry)
    if not admits(view, entry):
        return None
    answer = yield Put(view.head, entry)
    return _afterwards(role, entry) if answer is Answer.DONE else Episode(relocate, (entry,))


def _afterwards(role: Repack | Fold, entry: Relocate) -> Episode | None:
    if entry.doomed:
        return Episode(delete, (entry.doomed,))
    return Episode(doom) if role.prunes else None
