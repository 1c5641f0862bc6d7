"""Indexes that can no longer be read, got back from the record packs of the runs that wrote them.

    regaining = Regaining(media, view, scratch)
    regaining.look_for(refs)                                           # reads only
    regaining.look_at(refs)                                            # the same: where they lie themselves
    put_back(media, list(regaining.found.values()), run=..., ...)      # stores copies, and tells the log

A copy has the bytes of the index, proven by the digest that the log states, under a name of its own: an
object is never replaced. A `relocate` entry lets it stand in for the index wherever that is referred to. The
run that stores copies records them as well, if a record had them, so that they can be got back in their turn,
and a rebuild has them. Killed anywhere, it leaves objects that nobody refers to, or a copy that stands in.
"""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vsa.errors import MediaConflict, MediaDamaged
from vsa.media import layout
from vsa.media.entries import Damaged, MovedIndex, RelocateEntry
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.pinned import pieces, require_stored
from vsa.media.records import RecordHead, RecordWriter
from vsa.media.scratch import scratch_errors
from vsa.media.view import Relocation, View
from vsa.model import IndexRef
from vsa.progress import Progress
from vsa.upkeep import recorded
from vsa.upkeep.needs import Known, Needs
from vsa.upkeep.scan import Sink

_log = logging.getLogger(__name__)

AT_A_TIME = 5_000
"""Indexes that one entry names, some two KiB each, so that it fits into a document."""


@dataclass(frozen=True)
class Regained:
    """One index: `names` are those by which points refer to it, `head` is of the record that had it, if one
    did."""

    ref: IndexRef
    names: tuple[str, ...]
    head: RecordHead | None
    file: Path


class Regaining:
    """Looks for lost indexes in the records of their runs, and keeps what it finds in `scratch`, a new
    folder. Of the media it reads only."""

    def __init__(self, media: Media, view: View, scratch: Path) -> None:
        with scratch_errors(scratch):
            scratch.mkdir()
        self.store = FolderStore(scratch)
        self.found: dict[str, Regained] = {}
        self._media = media
        self._view = view
        self._scratch = scratch

    @property
    def is_outdated(self) -> bool:
        """Whether something was moved or doomed since: another prune may have put back what is lost, and let
        the record go that it had it from, or have given up the points over it."""
        return has_gone_on(self._view, self._media.view())

    def look_for(self, lost: Iterable[IndexRef]) -> list[str]:
        """The names of those that were found now. What cannot be read of the records is passed over."""
        before = set(self.found)
        by_run: dict[str, dict[tuple[str, int], IndexRef]] = {}
        for ref in lost:
            if ref.name not in self.found and layout.is_index(ref.name):
                for name in self._names_of(ref):
                    by_run.setdefault(layout.run_of(name) or "", {})[ref.sha256, ref.size] = ref
        for run, refs in by_run.items():
            wanted = {key: ref for key, ref in refs.items() if ref.name not in self.found}
            try:
                self._look_in(run, wanted)
            except MediaDamaged as error:
                _log.warning("a record is passed over: %s", error)
        return sorted(self.found.keys() - before)

    def look_at(self, repaired: Iterable[IndexRef]) -> None:
        """Those of them that read back right from where they lie: somebody has put a sound copy there."""
        store = self._media.store
        for ref in repaired:
            with suppress(MediaDamaged), scratch_errors(self._scratch):
                require_stored(store, ref)
                with tempfile.TemporaryFile(dir=self._scratch) as file:
                    file.writelines(store.read(ref.name, at) for at in pieces(ref.size))
                    file.flush()
                    self._keep(ref, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), None)

    def _look_in(self, run: str, wanted: dict[tuple[str, int], IndexRef]) -> None:
        media = self._media
        for copy in recorded.copies_of(media.store, self._packs_of(run), media.codec):
            if not any((ref.sha256, ref.size) in wanted for ref in copy.head.indexes):
                continue
            for had, data in recorded.indexes_of(media.store, copy, media.codec, self._scratch):
                # The digest is the log's: of what the record says of itself nothing is believed.
                if (ref := wanted.pop((had.sha256, had.size), None)) is not None:
                    self._keep(ref, data, copy.head)

    def _packs_of(self, run: str) -> list[str]:
        """Where its records may be: in packs that a listing shows, and in those that its point names."""
        listed = {
            name for name in self._media.store.names(f"{layout.RUNS}{run}/packs/") if layout.is_pack(name)
        }
        made = self._view.points.get(self._view.committed.get(run, -1))
        return sorted(listed | {ref.name for ref in (made.point.records if made else ())})

    def _names_of(self, ref: IndexRef) -> tuple[str, ...]:
        """Its own, and those of all that it stands in for: the runs of each have recorded its bytes."""
        led_here = (name for name, copy in self._view.sound_indexes().items() if copy.name == ref.name)
        return tuple(dict.fromkeys((ref.name, *led_here)))

    def _keep(self, ref: IndexRef, data: memoryview, head: RecordHead | None) -> None:
        self.store.create(ref.name, [data])
        names = self._names_of(ref)
        self.found[ref.name] = Regained(ref, names, head, self._scratch / ref.name)


def has_gone_on(then: View, now: View) -> bool:
    """Whether something was moved, doomed or given up between two views of one log: what points need by the
    first may be gone."""
    tables = ("relocations", "doomed", "given_up")
    return any(len(getattr(now, table)) > len(getattr(then, table)) for table in tables)


def learn_needs(
    needs: Needs,
    view: View,
    slots: Sequence[int],
    regaining: Regaining,
    *,
    sink: Sink | None,
    progress: Progress,
) -> None:
    """Let `needs` read all that these points need, from regained indexes where others cannot be read; `sink`
    gets every frame of it. What of it the log calls lost, and reads right all the same, is regained as well.

    MediaDamaged, naming the points and what can be done, if something of it cannot be had in any way;
    MediaConflict if that may be because the log has gone on.
    """
    known = needs.known(view, slots, sink=sink, progress=progress)
    while known.untold:
        lost = (ref for item in known.untold for ref in item.indexes)
        if not (names := regaining.look_for(lost)):
            if regaining.is_outdated:
                raise MediaConflict("another prune was at work since this plan was begun: plan it again")
            raise MediaDamaged(_way_out(view, known))
        needs.regain(names, regaining.store)
        known = needs.known(view, known.harmed, sink=sink, progress=progress)
    # What the log calls lost is never relied on again by its name, but what reads right can be stored anew.
    repaired = {ref.name: ref for ref in _called_lost(view, slots) if ref.name not in regaining.found}
    regaining.look_for(repaired.values())
    regaining.look_at(ref for name, ref in repaired.items() if name not in regaining.found)


def _called_lost(view: View, slots: Iterable[int]) -> Iterator[IndexRef]:
    """The indexes of these points that the log calls lost, as the view leads to them."""
    if not any(layout.is_index(name) and view.is_lost(name) for name in view.damaged):
        return
    sound = view.sound_indexes()
    for slot in slots:
        for disk in view.points[slot].point.disks:
            led = (sound.get(ref.name, ref) for ref in disk.indexes)
            yield from (ref for ref in led if view.is_lost(ref.name))


def _way_out(view: View, known: Known) -> str:
    """What to say of points whose needs cannot be read."""
    wanted = [slot for slot in known.harmed if slot not in view.forgotten]
    pinned = [slot for slot in known.harmed if slot in view.pinned]
    steps = [
        *([f"`vsa pin --unpin {_listed(pinned)}`"] if pinned else []),
        *([f"`vsa forget {_listed(wanted)}`"] if wanted else []),
        "`vsa prune` once their grace is over, or with --grace-days 0",
    ]
    needs_moves = any(not item.indexes for item in known.untold)
    rebuilding = (
        "or make media anew at another place by `vsa rebuild`, which needs no moves, " if needs_moves else ""
    )
    return (
        f"nothing was deleted: what points {', '.join(map(str, known.harmed))} need cannot be read, and no "
        f"record has it: {known.reasons}. Put a sound copy of these objects in their place, {rebuilding}"
        f"or give the points up: {', then '.join(steps)}. The next backup of their disks reads in full"
    )


def _listed(slots: Iterable[int]) -> str:
    return " ".join(map(str, slots))


def put_back(
    media: Media,
    regained: Sequence[Regained],
    *,
    run: str,
    planned_on: View,
    random: Callable[[int], bytes],
) -> View:
    """Store copies under names of `run`, whose intent is there, and let them stand in; `planned_on` with the
    relocations that say so.

    MediaConflict if something else has moved since that view: plan anew. RunStopped if the run was fenced.
    """
    for first in range(0, len(regained), AT_A_TIME):
        some = regained[first : first + AT_A_TIME]
        copies = {item.ref.name: _store(media, item, run, random) for item in some}
        for head, refs in _by_record(some, copies):
            RecordWriter(media.store, media.codec, random=random).store_copies(run, head, refs)
        entry = RelocateEntry(
            indexes=tuple(
                MovedIndex(name=name, ref=copies[item.ref.name]) for item in some for name in item.names
            ),
            healed=tuple(Damaged(name=name) for item in some for name in item.names),
            reason=f"{len(some)} lost indexes were got back, from records or where somebody had put them",
        )
        slot = media.relocate(entry, run=run, planned_on=planned_on)
        moved = (*planned_on.relocations, Relocation(slot, entry))
        planned_on = replace(planned_on, relocations=moved)
    return planned_on


def _store(media: Media, item: Regained, run: str, random: Callable[[int], bytes]) -> IndexRef:
    """Store a copy and read it back."""
    name = layout.index(run, layout.disk_key_of(item.ref.name), random(8))
    ref = item.ref.model_copy(update={"name": name})
    with scratch_errors(item.file.parent), item.file.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    media.store.create(name, [data])
    require_stored(media.store, ref)
    return ref


def _by_record(
    some: Iterable[Regained], copies: Mapping[str, IndexRef]
) -> Iterator[tuple[RecordHead, tuple[IndexRef, ...]]]:
    """The copies that are of one run, and what its record says of itself."""
    by_run: dict[str, tuple[RecordHead, list[IndexRef]]] = {}
    for item in some:
        if item.head is not None:
            by_run.setdefault(item.head.run, (item.head, []))[1].append(copies[item.ref.name])
    for head, refs in by_run.values():
        yield head, tuple(refs)
