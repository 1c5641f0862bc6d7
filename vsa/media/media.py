"""Backup media: packs, indexes and the log that makes recovery points of them.

    media = Media.create("/backup", now=now)          # once
    media.begin_run(intent)                           # before anything is created in Azure
    writer = media.disk_writer(run=..., ...)          # one for each disk
    slot = media.append(PointEntry(point=point), run=intent.run)

Restoring needs only `Media.open`, `view`, `disk_index` and `extent_reader`. The format is normative in
docs/media-format.md.
"""

# The modules for packs and indexes bring numpy and pyarrow with them: a second of start-up that listing
# recovery points should not cost. They are imported where a caller asks for data.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vsa.errors import BadRequest, MediaConflict, MediaUnusable, ObjectMissing
from vsa.media import admission, documents, layout
from vsa.media.closure import require_closure
from vsa.media.descriptor import describe_new, read_descriptor, require_extent_size
from vsa.media.entries import EntryBody, PointEntry
from vsa.media.folder import FolderStore
from vsa.media.location import folder_of
from vsa.media.log import Log
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import DEFAULT_EXTENT_SIZE, IndexRef, Intent, Point

if TYPE_CHECKING:
    from vsa.media.disk_index import DiskIndex
    from vsa.media.disk_writer import DiskWriter
    from vsa.media.extent_reader import ExtentReader
    from vsa.media.index import IndexDescription

Clock = Callable[[], datetime]
Random = Callable[[int], bytes]


def system_clock() -> datetime:
    return datetime.now(UTC)


class Media:
    """One backup media; safe for many threads. Any method may raise TryAgainLater or MediaUnusable."""

    def __init__(
        self, store: Store, *, write: bool, clock: Clock = system_clock, random: Random = os.urandom
    ) -> None:
        """The media in a store that is known to keep a store's promises; errors as in `open`."""
        self._store = store
        self._writable = write
        self._random = random
        self._about, data = read_descriptor(store)
        self._log = Log(store, origin=documents.sha256(data), clock=clock, random=random)
        self._descriptions: dict[IndexRef, IndexDescription] = {}

    @classmethod
    def create(
        cls,
        location: str,
        *,
        extent_size: int = DEFAULT_EXTENT_SIZE,
        now: datetime,
        clock: Clock = system_clock,
        random: Random = os.urandom,
    ) -> Self:
        """Make new media. MediaConflict if anything at all is there; media is never made over something."""
        require_extent_size(extent_size)
        store = FolderStore.make(folder_of(location), random=random)
        describe_new(store, extent_size=extent_size, now=now, random=random)
        return cls(store, write=True, clock=clock, random=random)

    @classmethod
    def open(
        cls, location: str, *, write: bool = False, clock: Clock = system_clock, random: Random = os.urandom
    ) -> Self:
        """Open existing media; for reading nothing at all is written.

        NoMedia if there is none. MediaUnusable if a newer version is needed, or if it cannot be written
        safely though `write` asks for it. MediaDamaged if media.json was altered.
        """
        store = FolderStore(folder_of(location), random=random)
        media = cls(store, write=write, clock=clock, random=random)
        if write:
            store.prepare_for_writing()
        return media

    @property
    def id(self) -> str:
        return self._about.id

    @property
    def extent_size(self) -> int:
        return self._about.extent_size

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def created(self) -> datetime:
        return self._about.created

    def view(self) -> View:
        """What the log says now. MediaDamaged if it is altered, cut or has a hole."""
        return self._log.view()

    def append(self, body: EntryBody, *, run: str | None = None) -> int:
        """Commit an entry and return its slot; for a run that has committed its point already, that slot.

        RunStopped if the run is fenced, MediaConflict if the entry contradicts the log, MediaDamaged if
        a point refers to what is not there. After any error only the log can tell whether it is committed.
        """
        self._require_writable()
        needs = frozenset[str]()
        if isinstance(body, PointEntry):
            needs = self._closure(body.point)
            self._require_intent(run)
        return self._log.append(
            body, run=run, admit=lambda view: admission.admit(view, body, run=run, needs=needs)
        )

    def begin_run(self, intent: Intent) -> None:
        """Record what the run will create, before it creates it; repeating the same intent is harmless.

        MediaConflict if another process used this run's id.
        """
        self._require_writable()
        name, data = layout.intent(intent.run), documents.encode(intent)
        try:
            self._store.create(name, [data])
        except MediaConflict:
            if self._store.read(name, limit=layout.MAX_DOCUMENT_SIZE) != data:
                raise

    def intent(self, run: str) -> Intent | None:
        """What one run recorded before it began; None if it has no intent here."""
        try:
            return self._read_intent(layout.intent(run))
        except ObjectMissing:
            return None

    def runs(self) -> Iterator[str]:
        """The ids of all runs that a listing shows; a convenience, it may miss some."""
        for name in self._store.folders(layout.RUNS):
            if layout.is_run(name):
                yield name

    def disk_writer(
        self, *, run: str, disk_key: str, disk_size: int, kind: layout.IndexKind, scratch: Path
    ) -> DiskWriter:
        """Where one attempt's extents of one disk go; `scratch` is an existing local folder."""
        from vsa.media.disk_writer import DiskTarget, DiskWriter

        self._require_writable()
        target = DiskTarget(self.id, run, disk_key, disk_size, self.extent_size, kind)
        return DiskWriter(self._store, target, scratch=scratch, random=self._random)

    def disk_index(
        self, indexes: Sequence[IndexRef], disk_size: int, *, scratch: Path | None = None
    ) -> DiskIndex:
        """Where each extent of a disk lies: a base and its deltas, in order.

        Each index is read whole and proven first; large ones are kept in `scratch` (None: the system's
        temporary folder). MediaDamaged if one is not what its reference says.
        """
        from vsa.media.disk_index import DiskIndex
        from vsa.media.index import open_index

        files = [
            open_index(self._store, ref, media_id=self.id, extent_size=self.extent_size, scratch=scratch)
            for ref in indexes
        ]
        self._descriptions.update((file.ref, file.description) for file in files)
        return DiskIndex(files, disk_size=disk_size, extent_size=self.extent_size)

    def extent_reader(self) -> ExtentReader:
        from vsa.media.extent_reader import ExtentReader

        return ExtentReader(self._store)

    def _require_writable(self) -> None:
        if not self._writable:
            raise MediaUnusable(f"{self.location}: opened for reading only; open it for writing")

    def _require_intent(self, run: str | None) -> None:
        if run is None:
            raise BadRequest("a recovery point needs the run that made it")
        if self.intent(run) is None:
            raise BadRequest(f"run {run} has no intent on this media: begin the run first")

    def _read_intent(self, name: str) -> Intent:
        data = self._store.read(name, limit=layout.MAX_DOCUMENT_SIZE)
        return documents.decode(data, Intent, f"{self.location}: {name}")

    def _closure(self, point: Point) -> frozenset[str]:
        """Every object the point refers to, each found to be there."""
        names: set[str] = set()
        for disk in point.disks:
            if not all(ref in self._descriptions for ref in disk.indexes):
                self.disk_index(disk.indexes, disk.disk.size)
            described = [self._descriptions[ref] for ref in disk.indexes]
            names |= require_closure(self._store, disk, described)
        return frozenset(names)
