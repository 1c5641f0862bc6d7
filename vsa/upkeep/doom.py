"""What may be deleted, decided on exactly the log that the doom entry will follow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from vsa.errors import MediaDamaged, NewerVersion, VsaError
from vsa.media import admission, layout
from vsa.media.entries import DoomEntry
from vsa.media.media import Media
from vsa.media.pack import HEADER_SIZE, PackHeader, proven_header
from vsa.media.signs import heard, is_fresh
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import Intent, ProcessName
from vsa.ranges import ByteRange
from vsa.upkeep.needs import Needs
from vsa.upkeep.objects import Objects, numbers_of, set_of

MAX_NAMES = 40_000
"""Objects that one entry names, so that it fits into a document; more take more entries."""

HasEnded = Callable[[ProcessName], bool]


@dataclass(frozen=True)
class Runs:
    """`dead` runs have no end in the log and never will. `unknown` ones may be at work: nothing of them goes.

    `told` are the intents, by name, that nobody will ask for any more.
    """

    dead: frozenset[str]
    unknown: frozenset[str]
    told: frozenset[str]


def listed_objects(
    media: Media, objects: Objects, *, below: str = layout.RUNS, beside: list[str] | None = None
) -> int:
    """Everything below `runs/` that an entry may doom, as a listing shows it; other names there are added to
    `beside`."""
    numbers: list[int] = []
    for name in media.store.names(below):
        if layout.run_of(name) is not None:
            numbers.append(objects.number(name))
        elif beside is not None:
            beside.append(name)
    return set_of(numbers)


def named_objects(view: View, slots: Iterable[int], objects: Objects) -> int:
    """What these points say that they wrote or refer to: a listing may have missed some of it."""
    found: set[int] = set()
    for slot in slots:
        for backup in view.points[slot].point.disks:
            found.update(map(objects.number_of, backup.indexes))
            found.update(map(objects.number, backup.packs))
    return set_of(found)


def judge_runs(
    media: Media,
    view: View,
    names: Iterable[str],
    *,
    before: dt.datetime,
    has_ended: HasEnded,
    now: dt.datetime,
) -> Runs:
    """Which runs are over. Of those that the log does not know to be: the ones whose process is known to have
    ended, and those begun before `before` that give no sign of life. The fence protects a run that is wrongly
    held for dead."""
    listed = frozenset(names)
    runs = {run for name in listed if (run := layout.run_of(name)) is not None}
    dead: set[str] = set()
    unknown: set[str] = set()
    told: set[str] = set()
    for run in sorted(runs):
        over = _is_over(run, view)
        # Most runs ended long ago and their intents are gone: those are not asked for once more.
        intent = None if over and layout.intent(run) not in listed else _intent(media, run)
        old = intent is not None and intent.started_at <= before
        if not over:
            ended = intent is not None and has_ended(intent.process)
            (dead if ended or (old and not _may_go_on(media, run, now)) else unknown).add(run)
        if old and run not in unknown:
            told.add(layout.intent(run))
    return Runs(frozenset(dead), frozenset(unknown), frozenset(told))


def _may_go_on(media: Media, run: str, now: dt.datetime) -> bool:
    """Whether it says so by its newest sign of life; also if that cannot be read: nothing is concluded then.

    A sweep looks twice and may find out (`vsa/transfer/dead_runs.py`), or somebody names the run to it; what
    the log knows to be over, the next prune takes.
    """
    try:
        signs = heard(media, run)
    except VsaError:
        return True
    if signs is None:
        return False
    if signs.last is None or signs.last.number < signs.highest:
        return True
    return is_fresh(signs.last, now)


def _intent(media: Media, run: str) -> Intent | None:
    """What the run said; None also if that cannot be read, and then nothing is concluded from it."""
    try:
        return media.intent(run)
    except VsaError:
        return None


class Dooming:
    """Makes the doom entries of one prune, each from the view that it will follow.

    Of `candidates` goes what no point needs that stays, forgotten or not, and whose run is over. Of
    `points` go those that are still forgotten, not pinned, and have been so since `before`.
    """

    def __init__(
        self,
        store: Store,
        needs: Needs,
        objects: Objects,
        runs: Runs,
        *,
        candidates: int,
        points: Sequence[int],
        before: dt.datetime,
        reason: str,
    ) -> None:
        self._store = store
        self._needs = needs
        self._objects = objects
        self._runs = runs
        self._records: dict[str, bool] = {}
        self._candidates = candidates
        self._points = points
        self._before = before
        self._reason = reason

    def __call__(self, view: View) -> DoomEntry | None:
        """The next entry; None once everything is said."""
        points = self.giving_up(view)
        names = tuple(islice(self.names(view), MAX_NAMES))
        if not points and not names:
            return None
        runs = {layout.run_of(name) or "" for name in names}
        fenced = sorted(run for run in runs & self._runs.dead if not _is_over(run, view))
        entry = DoomEntry(runs=tuple(fenced), objects=names, points=points, reason=self._reason)
        admission.admit(view, entry, run=None, require=lambda _: None)
        return entry

    def giving_up(self, view: View) -> tuple[int, ...]:
        return tuple(
            slot
            for slot in self._points
            if slot in view.forgotten and slot not in view.pinned and view.forgotten[slot] <= self._before
        )

    def needed(self, view: View) -> int:
        """What every point needs that stays."""
        return self._needs.of_points(view, self._staying(view))

    def names(self, view: View) -> Iterator[str]:
        """What may go and is not doomed yet."""
        needed = self.needed(view)
        # Records and rebuilds know an index by the name that points give it, whatever stands in for it now.
        indexes = needed | self._needs.named_indexes(view, self._staying(view))
        recorded = {layout.run_of(name) for name in self._objects.named(indexes) if layout.is_index(name)}
        for number in numbers_of(self._candidates & ~needed):
            name = self._objects.names[number]
            if name in view.doomed or not self._may_go(name, view):
                continue
            if layout.run_of(name) not in recorded or not self._holds_records(name):
                yield name

    def _staying(self, view: View) -> list[int]:
        giving_up = set(self.giving_up(view))
        return [slot for slot in view.points if slot not in giving_up]

    def _may_go(self, name: str, view: View) -> bool:
        run = layout.run_of(name) or ""
        if name == layout.intent(run) and name not in self._runs.told:
            return False
        return _is_over(run, view) or run in self._runs.dead

    def _holds_records(self, name: str) -> bool:
        """Whether an object is a record pack. Those of a run stay as long as a point names or needs an index
        of it, though their own point is gone: that index could be made anew from nothing else."""
        if name not in self._records:
            self._records[name] = layout.is_pack(name) and _holds_records(self._store, name)
        return self._records[name]


def _holds_records(store: Store, name: str) -> bool:
    """False also if it is gone, or good for nothing; True if only a newer version can tell: then it stays."""
    try:
        try:
            header = PackHeader.decode(store.read(name, ByteRange(0, HEADER_SIZE)), name)
        except NewerVersion:
            # What no version knows may be a bit that has flipped: that takes more requests to tell.
            header = PackHeader.decode(proven_header(store, name, store.size(name)), name)
    except MediaDamaged:
        return False
    except NewerVersion:
        return True
    return header.holds_records


def _is_over(run: str, view: View) -> bool:
    return run in view.committed or run in view.fenced
