"""Which entry may follow which view: the rules that a writer of slot n applies to slots 0 to n-1."""

from __future__ import annotations

from tests.protocol.model import Doom, Entry, Forget, Frame, Point, Relocate, Unforget, View, run_of, visible

_NONE: frozenset[str] = frozenset()
_NO_FRAMES: frozenset[Frame] = frozenset()


def admits(
    view: View, entry: Entry, *, carried: frozenset[Frame] = _NO_FRAMES, recreated: frozenset[str] = _NONE
) -> bool:
    """Whether `entry` may be put behind `view`.

    `carried` are frames that a point goes on referring to because its parent does, `recreated` names that
    came back (what a rule forbids).
    """
    match entry:
        case Point():
            return _admits_point(view, entry, carried, recreated)
        case Relocate():
            return _admits_relocation(view, entry)
        case Doom():
            return _admits_doom(view, entry)
        case Forget(point=point):
            return point in view.points and point not in view.forgotten
        case Unforget(point=point):
            given_up = view.rules.unforget_asks_what_was_given_up and point in view.given_up
            return point in view.forgotten and not given_up
    return True


def _admits_point(view: View, point: Point, carried: frozenset[Frame], recreated: frozenset[str]) -> bool:
    if point.run in view.points or (view.rules.points_heed_fences and point.run in view.fenced):
        return False
    if view.rules.points_heed_dooms and not view.doomed.isdisjoint(view.needs(point) - recreated):
        return False
    new = set(visible(point.indexes).values()) - carried
    return not view.rules.sharing_avoids_damage or not any(view.resolve(f)[0] in view.damaged for f in new)


def _admits_relocation(view: View, entry: Relocate) -> bool:
    sources = {source for source, _ in entry.table.moves}
    targets = {target for _, target in entry.table.moves}
    if view.rules.relocations_heed_fences and entry.run in view.fenced:
        return False
    new = {entry.table.name, *(target.pack for target in targets)}
    if view.rules.relocations_heed_dooms and not view.doomed.isdisjoint(new):
        return False
    if view.rules.relocations_avoid_damage and not targets.isdisjoint(view.damaged):
        return False
    if view.rules.relocated_frames_are_current and not _moved(view).isdisjoint(sources | targets):
        return False
    return not entry.doomed or _admits_dooming_at_once(view, entry)


def _moved(view: View) -> set[Frame]:
    """Frames that a relocation has moved away: what was planned about them no longer holds."""
    return {source for _, entry in view.moves for source, _ in entry.table.moves}


def _admits_dooming_at_once(view: View, entry: Relocate) -> bool:
    after = View((*view.entries, entry), view.rules)
    return not view.rules.dooms_are_exact or after.needed_by(after.kept).isdisjoint(entry.doomed)


def _admits_doom(view: View, entry: Doom) -> bool:
    """Only what no point that stays needs, of runs whose fate is sealed."""
    if not view.points.keys().isdisjoint(entry.fenced) or not view.forgotten.issuperset(entry.points):
        return False
    sealed = view.points.keys() | view.fenced | set(entry.fenced)
    if view.rules.dooms_fence_uncommitted_runs and not sealed.issuperset(map(run_of, entry.objects)):
        return False
    stay = view.kept.keys() - set(entry.points)
    return not view.rules.dooms_are_exact or view.needed_by(stay).isdisjoint(entry.objects)
