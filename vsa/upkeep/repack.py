"""Moves frames out of packs that are to go: copied or folded, every one proven first, then told to the log.

New packs and the table that leads to them are stored before the `relocate` entry. The old packs stay: only a
later doom entry, decided anew, may let them go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vsa.errors import MediaConflict, RunStopped
from vsa.fault_points import FaultPoint, reached
from vsa.media import layout
from vsa.media.entries import RelocateEntry
from vsa.media.frames import Fingerprint
from vsa.media.index import PackRef
from vsa.media.layout import PACK_TARGET
from vsa.media.media import Media
from vsa.media.moves import MOVE, MovesDescription, store_moves
from vsa.media.pack import PackBuilder
from vsa.media.parquet import Rows
from vsa.media.scratch import scratch_errors
from vsa.media.store import Buffer
from vsa.media.view import View
from vsa.progress import SILENT, Progress
from vsa.upkeep.objects import Objects
from vsa.upkeep.proven_frames import Wanted, proven_frames
from vsa.upkeep.repack_plan import COPY, TASK, RepackPlan

REMEMBERED = 100_000
"""Copied extents that later batches are told of; beyond it they are copied again, which costs space alone."""

Place = tuple[str, int, int]
"""Pack, offset and stored length of a frame."""


@dataclass
class Repacked:
    """What was moved so far, by the entries in `slots`. `stopped` says why the rest was not, `damaged` counts
    frames that fail their check."""

    copied: int = 0
    folded: int = 0
    damaged: int = 0
    slots: set[int] = field(default_factory=set)
    stopped: str = ""


@dataclass(frozen=True)
class Repacking:
    """Surroundings of one repacking run, whose intent is on the media already."""

    media: Media
    objects: Objects
    run: str
    planned_on: View
    random: Callable[[int], bytes]
    pack_target: int = PACK_TARGET
    progress: Progress = SILENT


def repack(plan: RepackPlan, env: Repacking) -> Repacked:
    """Carry out a plan, batch by batch; each ends with an entry of its own."""
    done = Repacked()
    known: dict[bytes, Place] = {}
    env.progress.started("moving frames", plan.copied)
    try:
        for path in plan.batches:
            _Batch(path, env, known, done).carry_out()
    except (MediaConflict, RunStopped) as error:
        # Another prune gave up what this one leads to. Nothing is lost: rows lead where they led before.
        done.stopped = str(error)
    finally:
        env.progress.finished()
    return done


class _Batch:
    """The frames that one moves table moves."""

    def __init__(self, path: Path, env: Repacking, known: dict[bytes, Place], done: Repacked) -> None:
        self._env = env
        self._known = known
        self._done = done
        self._writer = _PackWriter(env)
        with scratch_errors(path.parent):
            self._tasks: Rows = np.fromfile(path, TASK)

    def carry_out(self) -> None:
        """Prove, copy, and commit."""
        goes: dict[int, Place] = {}
        self._fold(goes)
        self._copy(goes)
        self._writer.close()
        reached(FaultPoint.FRAMES_COPIED)
        if goes:
            self._commit(goes)

    def _fold(self, goes: dict[int, Place]) -> None:
        """Lead to copies elsewhere whatever has one that is sound; the others will be copied."""
        folds = np.flatnonzero(self._tasks["to_pack"] != COPY).tolist()
        targets = {self._target(at): self._wanted(at, *self._target(at)) for at in folds}
        proven = self._proven(targets.values())
        for at in folds:
            if self._target(at) in proven:
                goes[at] = self._target(at)
        self._done.folded += len(goes)

    def _proven(self, wanted: Iterable[Wanted]) -> set[Place]:
        proven: set[Place] = set()
        for item, stored in proven_frames(self._env.media.store, self._env.media.codec, list(wanted)):
            if stored is None:
                self._done.damaged += 1
            else:
                proven.add((item.pack, item.offset, item.length))
        return proven

    def _copy(self, goes: dict[int, Place]) -> None:
        """Copy each extent once, from the first of its frames that is sound."""
        waiting: dict[bytes, list[int]] = {}
        for at in range(len(self._tasks)):
            if at not in goes:
                waiting.setdefault(self._contents(at), []).append(at)
        turn = 0
        while rows := [frames[turn] for frames in waiting.values() if len(frames) > turn]:
            self._copy_first(rows, waiting, goes)
            turn += 1
            waiting = {contents: frames for contents, frames in waiting.items() if frames[0] not in goes}

    def _copy_first(
        self, rows: Sequence[int], waiting: dict[bytes, list[int]], goes: dict[int, Place]
    ) -> None:
        unknown = [at for at in rows if self._contents(at) not in self._known]
        places = {self._contents(at): self._known.get(self._contents(at)) for at in rows}
        wanted = [self._wanted(at, *self._place(at)) for at in unknown]
        for item, stored in proven_frames(self._env.media.store, self._env.media.codec, wanted):
            if stored is None:
                self._done.damaged += 1
                continue
            places[self._contents(item.at)] = self._writer.put(stored, item)
            self._done.copied += len(stored)
            self._env.progress.advanced(len(stored))
        for contents, place in places.items():
            if place is not None:
                goes.update(dict.fromkeys(waiting[contents], place))
                self._done.folded += len(waiting[contents]) - (contents not in self._known)
                self._remember(contents, place, waiting[contents][0])

    def _remember(self, contents: bytes, place: Place, at: int) -> None:
        if self._tasks["shared"][at] and len(self._known) < REMEMBERED:
            self._known[contents] = place

    def _commit(self, goes: dict[int, Place]) -> None:
        env = self._env
        sources = sorted({self._place(at)[0] for at in goes})
        packs = [self._pack_ref(name) for name in sorted({place[0] for place in goes.values()})]
        about = MovesDescription(media=env.media.id, run=env.run, sources=tuple(sources), packs=tuple(packs))
        name = layout.moves(env.run, env.random(8))
        table = store_moves(env.media.store, name, about, self._rows(goes, about))
        reached(FaultPoint.MOVES_STORED)
        reason = "frames of packs that were mostly empty, small or held elsewhere too"
        entry = RelocateEntry(table=table, packs=tuple(sources), reason=reason)
        self._done.slots.add(env.media.relocate(entry, run=env.run, planned_on=self._planned_on()))
        reached(FaultPoint.FRAMES_MOVED)

    def _planned_on(self) -> View:
        """The newest view in which nothing has moved but by this run: its batches concern different packs."""
        view = self._env.media.view()
        moved = view.relocations[len(self._env.planned_on.relocations) :]
        return view if {item.slot for item in moved} <= self._done.slots else self._env.planned_on

    def _rows(self, goes: dict[int, Place], about: MovesDescription) -> Rows:
        old = {name: number for number, name in enumerate(about.sources)}
        new = {item.name: number for number, item in enumerate(about.packs)}
        rows = np.zeros(len(goes), MOVE)
        for row, (at, (pack, offset, length)) in zip(rows, goes.items(), strict=True):
            source, source_offset, _ = self._place(at)
            row["from_pack"], row["from_offset"] = old[source], source_offset
            row["pack"], row["offset"], row["length"] = new[pack], offset, length
        _, once = np.unique(rows[["from_pack", "from_offset"]], return_index=True)
        return rows[once]

    def _pack_ref(self, name: str) -> PackRef:
        if name in self._writer.stored:
            return self._writer.stored[name]
        number = self._env.objects.find(name)
        if number is None:
            raise LookupError(f"{name} is no pack that was looked at")
        _, size, sha256 = self._env.objects.ref(number)
        return PackRef(name=name, size=size, sha256=sha256)

    def _wanted(self, at: int, pack: str, offset: int, length: int) -> Wanted:
        row = self._tasks[at]
        fingerprint = Fingerprint(int(row["crc"]), row["digest"].tobytes())
        return Wanted(pack, offset, length, int(row["size"]), fingerprint, at)

    def _contents(self, at: int) -> bytes:
        row = self._tasks[at]
        contents: bytes = row["digest"].tobytes() + row["crc"].tobytes() + row["size"].tobytes()
        return contents

    def _place(self, at: int) -> Place:
        row = self._tasks[at]
        return self._env.objects.names[row["pack"]], int(row["offset"]), int(row["length"])

    def _target(self, at: int) -> Place:
        row = self._tasks[at]
        return self._env.objects.names[row["to_pack"]], int(row["to_offset"]), int(row["to_length"])


class _PackWriter:
    """Packs of the repacking run; each is decoded and compared before it is stored."""

    def __init__(self, env: Repacking) -> None:
        self._env = env
        self._name = ""
        self._filling: PackBuilder | None = None
        self.stored: dict[str, PackRef] = {}

    def put(self, stored: Buffer, item: Wanted) -> Place:
        """Where the frame will lie once its pack is stored."""
        builder = self._filling or self._open()
        frame = builder.add(stored, item.size, item.fingerprint)
        place = (self._name, frame.offset, frame.length)
        if builder.full:
            self.close()
        return place

    def close(self) -> None:
        """Store what is left."""
        if self._filling is None:
            return
        closed = self._filling.close()
        self._filling = None
        self._env.media.store.create(self._name, [closed.data])
        ref = PackRef(name=self._name, size=len(closed.data), sha256=closed.sha256)
        self._env.objects.number(ref.name, ref.size, ref.sha256)
        self.stored[ref.name] = ref

    def _open(self) -> PackBuilder:
        env = self._env
        pack_id = env.random(16)
        self._name = layout.pack(env.run, pack_id)
        self._filling = PackBuilder(env.media.codec, pack_id, target=env.pack_target)
        return self._filling
