"""What must hold in every state that can be reached."""

from __future__ import annotations

from collections.abc import Mapping

from tests.protocol.admission import admits
from tests.protocol.model import Doom, Entry, Frame, Pack, Point, Relocate, Rules, Stored, Unforget, View


def loss(view: View, stored: Mapping[str, Stored], rotten: frozenset[Frame]) -> str | None:
    """What a point that must be whole lacks; None if all are."""
    for run, point in view.kept.items():
        if gone := sorted(view.needs(point) - stored.keys()):
            return f"point {run} needs {gone[0]}, which is gone"
        contents = view.contents(point)
        for extent, content in enumerate(point.disk):
            frame = contents.get(extent)
            if frame in rotten and _excused(view, point, extent, frame):
                continue
            if (found := _content(stored, frame, rotten)) != content:
                return f"point {run} has {found} at extent {extent} by way of {frame}, not {content}"
    return None


def _content(stored: Mapping[str, Stored], frame: Frame | None, rotten: frozenset[Frame]) -> str | None:
    if frame is None or frame in rotten:
        return None
    pack = stored[frame.pack]
    return pack.contents[frame.number] if isinstance(pack, Pack) else None


def _excused(view: View, point: Point, extent: int, frame: Frame) -> bool:
    """Nobody knew of the damage when the extent came to refer to it, or it carries on its parent's."""
    slot = view.damaged_since.get(frame)
    if slot is None:
        return True
    before = View(view.entries[:slot], view.rules)
    if point.run in before.points:
        return before.contents(point).get(extent) == frame
    if point.parent not in view.points:
        return False
    parent = view.points[point.parent][1]
    same = view.contents(parent).get(extent) == frame and parent.disk[extent] == point.disk[extent]
    return same and _excused(view, parent, extent, frame)


def disorder(view: View) -> str | None:
    """An entry that must not stand where it stands, whether or not anything is lost by it."""
    before = View((), Rules())
    for slot, entry in enumerate(view.entries):
        if reason := _misplaced(before, entry):
            return f"slot {slot}: {reason}"
        before = View(view.entries[: slot + 1], Rules())
    return None


def _misplaced(before: View, entry: Entry) -> str | None:
    match entry:
        case Point(run=run) if run in before.points:
            return f"run {run} commits twice"
        case Point(run=run) | Relocate(run=run) if run in before.fenced:
            return f"run {run} commits though it is fenced"
        case Unforget(point=point) if point in before.given_up:
            return f"point {point} is called back though it was given up"
        case Doom() | Relocate() if not admits(before, entry):
            return f"{type(entry).__name__} by {entry[0]} names what it must not"
    return None
