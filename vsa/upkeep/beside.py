"""What lies on media beside the data: whatever no restore needs, and yet is missed when it is bad.

Record packs follow from the log: a rebuild needs them. Key documents may each be the only one that
somebody's key opens. Intents of runs that are still open say what is to be cleaned up. A checkpoint that is
believed and says something else than the log misleads whoever opens the media. All the rest are caches and
messages: a bad one is a remark. Of what only a listing shows, what that misses is not looked at. Others
work meanwhile, so all is judged at the end, by the log as it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from vsa.errors import UNREADABLE, MediaDamaged, ObjectMissing
from vsa.media import documents, layout, signs
from vsa.media.entries import Entry, PointEntry
from vsa.media.layout import MAX_DOCUMENT_SIZE
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome
from vsa.media.pinned import require_stored
from vsa.media.records import read_record
from vsa.media.view import View
from vsa.model import ObjectRef, Point
from vsa.threads import Threads
from vsa.upkeep import checkpoints
from vsa.upkeep.recorded import MAX_RECORD_PACK
from vsa.upkeep.report import Cost, Depth, Finding
from vsa.upkeep.sampling import Sample

_AT_ONCE = 1000
"""Objects whose turn is waited for together."""
_NAMED = 20
"""Points that a reason names; of more it says how many."""

T = TypeVar("T")


@dataclass(frozen=True)
class Bad:
    """An object that fails its check, and why; `run` is whose it is."""

    name: str
    reason: str
    run: str = ""


class Beside:
    """Looks while a verify proceeds, and judges at its end."""

    def __init__(self, media: Media, depth: Depth, sample: Sample, pool: Threads) -> None:
        """Made before the log is read, so that it has the slots of all checkpoints that are listed."""
        self._media = media
        self._store = media.store
        self._depth = depth
        self._sample = sample
        self._pool = pool
        self._checkpoints = checkpoints.listed(media)
        self._keys: dict[int, MediaDamaged] = {}
        self._records: list[Bad] = []
        self._intents: list[Bad] = []
        self._caches: list[Bad] = []
        self._believed: list[Bad] = []

    def look(self, view: View, slots: Sequence[int]) -> None:
        """As far as the depth says; `slots` are the points that the verify is about."""
        if self._media.sealed:
            self._keys = self._media.key_ring.unreadable(first=view.key)
        for slot, complaint in checkpoints.judge(self._media, self._checkpoints, view).complaints.items():
            found = self._believed if complaint.is_believed else self._caches
            found.append(Bad(layout.checkpoint(slot), complaint.reason))
        runs = {view.points[slot].run for slot in slots}
        if self._depth.includes(Depth.OBJECTS):
            messages = self._messages(view)
            runs |= {layout.run_of(name) or "" for name in messages if layout.is_intent(name)}
            self._caches += self._bad_ones(self._message, messages)
            needed = _rests_on(view, slots).keys()
            records = self._recorded(view, needed)
            self._records += self._bad_ones(self._record, sorted(records, key=lambda ref: ref.name))
            if self._depth.includes(Depth.BYTES):
                self._records += self._bad_ones(self._unpinned, self._packs_of_copies(view, needed))
        told = (run for run in sorted(runs) if layout.intent(run) not in view.doomed)
        self._intents += self._bad_ones(self._intent, told)

    def judged(self, view: View) -> tuple[list[Finding], list[str]]:
        """What is damaged, and remarks, by the log as it is after everything was looked at."""
        findings, remarks = list(self._lost_records(view)), [bad.reason for bad in self._caches]
        findings += [Finding(name=bad.name, reason=bad.reason, cost=Cost.OPENING) for bad in self._believed]
        for number, error in self._keys.items():
            if number >= view.key:
                findings.append(Finding(name=layout.key(number), reason=str(error), cost=Cost.KEY))
            elif not isinstance(error, ObjectMissing):
                remarks.append(f"{error}; it was retired")
        for bad in self._intents:
            if bad.run in view.committed or bad.run in view.fenced:
                remarks += [bad.reason] if bad.name not in view.doomed else []
            else:
                findings.append(Finding(name=bad.name, reason=bad.reason, cost=Cost.CLEANUP))
        return findings, remarks

    def _lost_records(self, view: View) -> Iterator[Finding]:
        resting = _rests_on(view, view.points) if self._records else {}
        for bad in self._records:
            points = resting.get(bad.run)
            if points and bad.name not in view.doomed:
                reason = f"{bad.reason}: it is of run {bad.run}, on which {_named(points)} rest"
                yield Finding(name=bad.name, reason=reason, cost=Cost.REBUILD)

    def _bad_ones(self, look: Callable[[T], Bad | None], items: Iterable[T]) -> Iterator[Bad]:
        left = iter(items)
        while some := list(islice(left, _AT_ONCE)):
            yield from (bad for bad in self._pool.map(look, some) if bad is not None)

    def _messages(self, view: View) -> list[str]:
        """Intents, outcomes of streams and signs of life, as a listing shows them: those of runs that are
        open; at depth `bytes` a sample of the others, which nobody is known to ask for."""
        found = []
        for name in self._store.names(layout.RUNS):
            sign = layout.sign_of(name)
            if sign or layout.is_intent(name) or layout.is_outcome(name):
                run = sign[0] if sign else layout.run_of(name)
                over = run in view.committed or run in view.fenced
                if not over or (self._depth.includes(Depth.BYTES) and self._sample.has(name)):
                    found.append(name)
        return sorted(set(found))

    def _message(self, name: str) -> Bad | None:
        """None also if it is gone: a prune takes it once its run is over. Intents are looked at apart."""
        try:
            if sign := layout.sign_of(name):
                signs.read(self._media, *sign)
            elif layout.is_outcome(name):
                documents.decode(self._store.read(name, limit=MAX_DOCUMENT_SIZE), StreamOutcome, name)
        except ObjectMissing:
            return None
        except UNREADABLE as error:
            return Bad(name, str(error))
        return None

    def _intent(self, run: str) -> Bad | None:
        name = layout.intent(run)
        try:
            missing = self._media.intent(run) is None
        except UNREADABLE as error:
            return Bad(name, str(error), run)
        return Bad(name, f"{name} is missing", run) if missing else None

    def _recorded(self, view: View, runs: Iterable[str]) -> set[ObjectRef]:
        """The record packs of runs that have committed, also if their point was given up."""
        refs: set[ObjectRef] = set()
        for run in runs:
            slot = view.committed.get(run)
            if slot is not None:
                refs.update(self._point(view, slot).records)
        return {ref for ref in refs if ref.name not in view.doomed}

    def _packs_of_copies(self, view: View, runs: Iterable[str]) -> Iterator[str]:
        """Those of runs that committed no point and wrote copies of indexes: no entry names their records."""
        for run in sorted(runs):
            if run not in view.committed:
                names = self._store.names(f"{layout.RUNS}{run}/packs/")
                found = (name for name in names if layout.is_pack(name) and name not in view.doomed)
                yield from (name for name in found if self._sample.has(name))

    def _unpinned(self, name: str) -> Bad | None:
        """A record that no reference proves: what it says of itself must hold."""
        try:
            read_record(self._store.read(name, limit=MAX_RECORD_PACK), name, self._media.codec)
        except ObjectMissing:
            return None
        except UNREADABLE as error:
            return Bad(name, str(error), layout.run_of(name) or "")
        return None

    def _point(self, view: View, slot: int) -> Point:
        """As the log has it; of one that was given up the view says no more."""
        if slot in view.points:
            return view.points[slot].point
        name = layout.slot(slot)
        body = documents.decode(self._store.read(name, limit=MAX_DOCUMENT_SIZE), Entry, name).body
        if not isinstance(body, PointEntry):
            raise MediaDamaged(f"{name} holds no point, though the log had one there")
        return body.point

    def _record(self, ref: ObjectRef) -> Bad | None:
        try:
            if self._depth.includes(Depth.BYTES) and self._sample.has(ref.name):
                require_stored(self._store, ref)
            elif (size := self._store.size(ref.name)) != ref.size:
                raise MediaDamaged(f"{ref.name} has {size} bytes, {ref.size} were stored")
        except MediaDamaged as error:
            return Bad(ref.name, str(error), layout.run_of(ref.name) or "")
        return None


def _rests_on(view: View, slots: Iterable[int]) -> dict[str, list[int]]:
    """Runs, and which of the points rest on each: their own, and those that wrote an index of them or the
    copy that stands in for one."""
    copies = {name: ref.name for name, ref in view.sound_indexes().items()}
    found: dict[str, list[int]] = {}
    for slot in slots:
        made = view.points[slot]
        indexes = [ref.name for backup in made.point.disks for ref in backup.indexes]
        indexes += [copies[name] for name in indexes if name in copies]
        for run in {made.run, *(layout.run_of(name) or "" for name in indexes)}:
            found.setdefault(run, []).append(slot)
    return found


def _named(points: Sequence[int]) -> str:
    more = f" and {len(points) - _NAMED} more" if len(points) > _NAMED else ""
    return f"points {', '.join(map(str, points[:_NAMED]))}{more}"
