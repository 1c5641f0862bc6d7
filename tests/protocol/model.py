"""The media as the commit protocol sees it: immutable objects, an ordered log, and what the log means.

Pure values. A disk is a tuple of contents, one for each extent; a content is a short text. Log entries carry
the indexes and tables that they refer to as values, as the real ones pin them by digest: whoever may read an
entry may follow it. Whether the objects still exist is the world's business (tests/protocol/world.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True)
class Rules:
    """What docs/decisions/0010-commit-protocol.md demands; False drops a rule."""

    points_heed_fences: bool = True
    points_heed_dooms: bool = True
    relocations_heed_fences: bool = True
    relocations_heed_dooms: bool = True
    relocations_avoid_damage: bool = True
    relocated_frames_are_current: bool = True
    healed_frames_stay_shunned: bool = True
    sharing_avoids_damage: bool = True
    sharing_waits_until_durable: bool = True
    stored_before_referred_to: bool = True
    copies_are_proven: bool = True
    names_never_return: bool = True
    slots_are_never_freed: bool = True
    writers_never_delete: bool = True
    doom_before_delete: bool = True
    dooms_fence_uncommitted_runs: bool = True
    dooms_are_computed_where_they_stand: bool = True
    dooms_are_exact: bool = True
    forgotten_points_keep_their_objects: bool = True
    unforget_asks_what_was_given_up: bool = True
    tables_in_use_are_needed: bool = True
    relocations_reach_later_points: bool = True
    sources_are_doomed_in_a_later_slot: bool = True

    def without(self, *names: str) -> Rules:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if unknown := set(names) - values.keys():
            raise ValueError(f"no rule is called {sorted(unknown)[0]}")
        return Rules(**(values | dict.fromkeys(names, False)))


class Frame(NamedTuple):
    """One stored extent: the `number`-th frame of a pack."""

    pack: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.pack}#{self.number}"


class Pack(NamedTuple):
    name: str
    contents: tuple[str, ...]


class Index(NamedTuple):
    """Rows say where the contents of extents lie; a base describes the whole disk, a delta what differs."""

    name: str
    rows: tuple[tuple[int, Frame], ...]


class Table(NamedTuple):
    """Frames that have moved, each to a frame of equal content."""

    name: str
    moves: tuple[tuple[Frame, Frame], ...]


Stored = Pack | Index | Table


class Point(NamedTuple):
    """A recovery point, called by its run. `disk` and `parent` are for the checker alone."""

    run: str
    indexes: tuple[Index, ...]
    disk: tuple[str, ...]
    parent: str | None = None


class Forget(NamedTuple):
    by: str
    point: str


class Unforget(NamedTuple):
    by: str
    point: str


class Doom(NamedTuple):
    """Fences `fenced`, names `objects` for deletion, gives up the forgotten `points` for ever."""

    by: str
    fenced: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


class Relocate(NamedTuple):
    """`doomed` is empty but where a rule is dropped: sources that are doomed in the very same slot."""

    run: str
    table: Table
    doomed: tuple[str, ...] = ()


class Damage(NamedTuple):
    by: str
    frames: tuple[Frame, ...]


Entry = Point | Forget | Unforget | Doom | Relocate | Damage


def run_of(name: str) -> str:
    """The run under whose prefix an object lies."""
    return name.partition("/")[0]


def visible(indexes: Iterable[Index]) -> dict[int, Frame]:
    """What each extent is according to a base and its deltas, in order."""
    rows: dict[int, Frame] = {}
    for index in indexes:
        rows.update(index.rows)
    return rows


class View:
    """What slots 0 to `head` - 1 say, under a set of rules."""

    def __init__(self, entries: tuple[Entry, ...], rules: Rules) -> None:
        self.entries = entries
        self.head = len(entries)
        self.rules = rules
        self.points: dict[str, tuple[int, Point]] = {}
        self.forgotten: set[str] = set()
        self.given_up: set[str] = set()
        self.doomed: set[str] = set()
        self.fenced: set[str] = set()
        self.moves: list[tuple[int, Relocate]] = []
        self.damaged: set[Frame] = set()
        self.damaged_since: dict[Frame, int] = {}
        self._needs: dict[Point, frozenset[str]] = {}
        for slot, entry in enumerate(entries):
            self._apply(slot, entry)

    def _apply(self, slot: int, entry: Entry) -> None:
        match entry:
            case Point(run=run):
                self.points[run] = (slot, entry)
            case Forget(point=point):
                self.forgotten.add(point)
            case Unforget(point=point):
                self.forgotten.discard(point)
                self.given_up.discard(point)
            case Doom(fenced=fenced, objects=objects, points=points):
                self.fenced.update(fenced)
                self.doomed.update(objects)
                self.given_up.update(points)
            case Relocate():
                self.moves.append((slot, entry))
                self.doomed.update(entry.doomed)
                if not self.rules.healed_frames_stay_shunned:
                    self.damaged.difference_update(source for source, _ in entry.table.moves)
            case Damage(frames=frames):
                self.damaged.update(frames)
                for frame in frames:
                    self.damaged_since.setdefault(frame, slot)

    def resolve(self, frame: Frame, *, since: int = -1) -> tuple[Frame, tuple[str, ...]]:
        """Where a frame is now, by all relocations in slot order, and the tables that it took to say so."""
        used: list[str] = []
        for slot, entry in self.moves:
            if slot < since and not self.rules.relocations_reach_later_points:
                continue
            target = dict(entry.table.moves).get(frame)
            if target is not None:
                frame = target
                used.append(entry.table.name)
        return frame, tuple(used)

    def contents(self, point: Point) -> dict[int, Frame]:
        """The frame that each extent of a point resolves to."""
        slot = self._slot_of(point)
        return {
            extent: self.resolve(frame, since=slot)[0] for extent, frame in visible(point.indexes).items()
        }

    def needs(self, point: Point) -> frozenset[str]:
        """The indexes, the packs that visible rows resolve to, the tables that took part in resolving."""
        if point not in self._needs:
            self._needs[point] = frozenset(self._needed(point))
        return self._needs[point]

    def _needed(self, point: Point) -> set[str]:
        names = {index.name for index in point.indexes}
        slot = self._slot_of(point)
        for frame in visible(point.indexes).values():
            target, tables = self.resolve(frame, since=slot)
            names.add(target.pack)
            names.update(tables)
        return names

    def _slot_of(self, point: Point) -> int:
        """A point that is not committed yet stands behind all that the view knows."""
        slot, committed = self.points.get(point.run, (self.head, point))
        return slot if committed == point else self.head

    @cached_property
    def kept(self) -> Mapping[str, Point]:
        """The points whose objects must exist: all but those that were forgotten and then given up."""
        lost = self.forgotten & self.given_up
        return {run: point for run, (_, point) in self.points.items() if run not in lost}

    def needed_by(self, runs: Iterable[str]) -> set[str]:
        """What pruning holds to be needed by the points of `runs`."""
        names = {name for run in runs for name in self.needs(self.points[run][1])}
        if not self.rules.tables_in_use_are_needed:
            names -= {entry.table.name for _, entry in self.moves}
        return names

    def usable(self, frame: Frame) -> bool:
        """Whether a new row may refer to a frame: nothing of the way to it is doomed, no damage is known."""
        target, tables = self.resolve(frame)
        if self.rules.sharing_avoids_damage and target in self.damaged:
            return False
        return not self.rules.points_heed_dooms or self.doomed.isdisjoint((target.pack, *tables))
