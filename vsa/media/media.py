"""Backup media: packs, indexes and the log that makes recovery points of them.

    media = Media.create("/backup", now=now)          # once
    media.begin_run(intent)                           # before anything is created in Azure
    writer = media.disk_writer(run=..., ...)          # one for each disk
    slot = media.append(PointEntry(point=point), run=intent.run)

Restoring needs only `Media.open`, `view`, `disk_index` and `extent_reader`. The format is normative in
docs/media-format.md.
"""

# The modules for packs and indexes bring numpy and pyarrow with them: a second of start-up that listing
# recovery points should not cost. They are imported where a caller asks for data, and those that seal
# where the media is sealed.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vsa.errors import BadRequest, MediaConflict, MediaUnusable, WrongKey
from vsa.fault_points import FaultPoint, reached
from vsa.media import admission, documents, intents, layout, opening, recall
from vsa.media.access import NO_SECRETS, StoreAccess
from vsa.media.descriptor import read_descriptor
from vsa.media.entries import EntryBody, PointEntry, RelocateEntry, RotateEntry
from vsa.media.log import Log
from vsa.media.store import Store
from vsa.media.view import View
from vsa.media.witness import Witness
from vsa.model import DEFAULT_EXTENT_SIZE, DiskBackup, IndexRef, Intent

if TYPE_CHECKING:
    from vsa.media.coding import PackCodec
    from vsa.media.disk_index import DiskIndex
    from vsa.media.disk_writer import DiskWriter
    from vsa.media.extent_reader import ExtentReader
    from vsa.media.index import IndexFile, Offer
    from vsa.media.key_ring import KeyRing, Unlocked
    from vsa.media.partial import PartialDisk, Unreadable
    from vsa.media.proofs import Proofs
    from vsa.media.sharing import SharedExtents, Sharing
    from vsa.media.whereabouts import Whereabouts
    from vsa.media.wrapping import WrappingKey
    from vsa.memory import Buffers

Clock = Callable[[], datetime]
Random = Callable[[int], bytes]


def system_clock() -> datetime:
    return datetime.now(UTC)


class Media:
    """One backup media; safe for many threads. Any method may raise TryAgainLater or MediaUnusable."""

    def __init__(
        self,
        store: Store,
        *,
        write: bool,
        from_log: bool = False,
        believed_until: datetime | None = None,
        unlocked: Unlocked | None = None,
        clock: Clock = system_clock,
        random: Random = os.urandom,
    ) -> None:
        """The media in a store that is known to keep a store's promises; errors as in `open`.

        `unlocked` is what `key_ring.unlock` gives for sealed media; `believed_until` as in `read_anew`.
        """
        self._below = store
        self._unlocked = unlocked
        self._store = unlocked.store(store) if unlocked else store
        self._writable = write
        self._clock = clock
        self._random = random
        self._about, data = read_descriptor(store)
        if self._about.sealed != (unlocked is not None):
            raise BadRequest(f"{self.location}: sealed media is opened with its key, other media without one")
        self._origin = documents.sha256(data)
        self._recalling = recall.Recalling(self._store, self._about.id)
        self._log = Log(
            self._store,
            origin=self._origin,
            clock=clock,
            random=random,
            recall=None if from_log else self._recalling,
            believed_until=believed_until,
        )
        self._key_is_current = unlocked is None

    @classmethod
    def create(
        cls,
        location: str,
        *,
        extent_size: int = DEFAULT_EXTENT_SIZE,
        now: datetime,
        access: StoreAccess = NO_SECRETS,
        wrapping: WrappingKey | None = None,
        clock: Clock = system_clock,
        random: Random = os.urandom,
    ) -> Self:
        """Make new media at a location (vsa/media/location.py), sealed if its data key is to be wrapped.

        MediaConflict if anything at all is there: media is never made over something. NoMedia if the
        container or bucket does not exist.
        """
        store, unlocked = opening.make(
            location, access, wrapping, extent_size=extent_size, now=now, random=random
        )
        return cls(store, write=True, unlocked=unlocked, clock=clock, random=random)

    @classmethod
    def open(
        cls,
        location: str,
        *,
        write: bool = False,
        access: StoreAccess = NO_SECRETS,
        wrapping: WrappingKey | None = None,
        expected_id: str = "",
        from_log: bool = False,
        clock: Clock = system_clock,
        random: Random = os.urandom,
    ) -> Self:
        """Open existing media, sealed media with a key that opens it; for reading nothing at all is written.

        KeyNeeded if the media is sealed and there is none, WrongKey if it is another. BadRequest if the media
        is not sealed and there is one: somebody may have put other media in the place of what was sealed.
        `from_log`: believe no checkpoint, read the log from its first slot. Whoever deletes or judges does.
        MediaConflict if it is not the media of `expected_id`: another one is mounted there.

        NoMedia if there is none. MediaUnusable if a newer version is needed, or if it cannot be written
        safely though `write` asks for it. MediaDamaged if media.json was altered.
        """
        store, unlocked = opening.unlock(location, access, wrapping, random=random)
        media = cls(store, write=write, from_log=from_log, unlocked=unlocked, clock=clock, random=random)
        if expected_id not in ("", media.id):
            raise MediaConflict(
                f"{media.location} holds media {media.id}, expected {expected_id}: "
                "check what is mounted there"
            )
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
    def store(self) -> Store:
        """Where the objects are, as plaintext: for those who look after the media as a whole."""
        return self._store

    @property
    def sealed(self) -> bool:
        return self._about.sealed

    @cached_property
    def codec(self) -> PackCodec:
        """How extents become frames of packs here."""
        from vsa.media.coding import PackCodec

        return PackCodec(self.id, self.extent_size, self._unlocked.sealer if self._unlocked else None)

    @cached_property
    def whereabouts(self) -> Whereabouts:
        """Where the extents of disks lie here: what `disk_index` and its kin ask."""
        from vsa.media.whereabouts import Whereabouts

        return Whereabouts(self._store, self._about, overhead=self.codec.overhead)

    @property
    def _proofs(self) -> Proofs:
        from vsa.media.proofs import Proofs

        return Proofs(self._store, self.whereabouts, self.codec, view=self.view, random=self._random)

    @property
    def key_ring(self) -> KeyRing:
        """The key documents of sealed media; BadRequest if it is not sealed."""
        from vsa.media.key_ring import KeyRing
        from vsa.media.keys import MediaName

        if not self.sealed:
            raise BadRequest(f"{self.location}: this media is not sealed, so it has no keys")
        return KeyRing(self._below, MediaName(self.id, self._origin))

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def created(self) -> datetime:
        return self._about.created

    def view(self) -> View:
        """What the log says now. MediaDamaged if it is altered, cut or has a hole.

        WrongKey if the key that opened the media was retired before: a job that has begun is not stopped.
        """
        view = self._log.view()
        if self._unlocked and not self._key_is_current and self._unlocked.number < view.key:
            raise WrongKey(
                f"{self.location}: the key given opens keys/{self._unlocked.number}, which was retired: "
                f"give one that opens keys/{view.key} or a later one"
            )
        self._key_is_current = True
        return view

    def require_witness(self, witness: Witness) -> None:
        """MediaPutBack, naming both, unless the log has the very entry that the witness names."""
        self.view()
        self._log.require(witness)

    def checkpoint_if_due(self, *, every: int = recall.EVERY) -> bool:
        """Store a checkpoint if the newest good one is `every` entries old; whether it did. Never an error:
        it is a cache, and whoever asks has done what matters."""
        self._require_writable()
        view = self.view()
        return recall.write_if_due(self._store, view, self.id, every=every, known=self._recalling.slot)

    def read_on(self, slot: int, head: int) -> View:
        """What the log means up to its slot `head`, if the checkpoint of a slot before stands for its
        beginning. MediaDamaged if that cannot be believed, or an entry does not fit."""
        return self._log.extended(recall.believed(self._store, slot, self.id), head)

    def read_anew(self, *, believed_until: datetime | None = None) -> Self:
        """The same media with nothing remembered of it: its log is read from slot 0, entry by entry, whatever
        else may stand for it. For those who delete or judge.

        Times after `believed_until`, if somebody knows that they are wrong, count for no entry but their own.
        """
        return type(self)(
            self._below,
            write=self._writable,
            from_log=True,
            believed_until=believed_until,
            unlocked=self._unlocked,
            clock=self._clock,
            random=self._random,
        )

    def append(self, body: EntryBody, *, run: str | None = None) -> int:
        """Commit an entry and return its slot; for a run that has committed its point already, that slot.

        RunStopped if the run is fenced, MediaConflict if the entry contradicts the log, MediaDamaged if
        a point refers to what is not there. After any error only the log can tell whether it is committed.
        """
        self._require_writable()
        require: admission.Requirement = _nothing
        if isinstance(body, PointEntry):
            # First of all: what a fenced run has stored may be gone already, its intent too.
            admission.require_unfenced(self.view(), run)
            self._require_intent(run)
            require = self._proofs.of_point(body.point)
            view = self.view()
            if not body.point.records and run not in view.committed:
                # A record of what is refused would outlive it: a rebuild could not tell which was committed.
                require(view)
                body = PointEntry(point=self._proofs.recorded(body.point, str(run)))
                reached(FaultPoint.RECORD_STORED)
        elif isinstance(body, RelocateEntry):
            require = self._proofs.of_relocation(body, self.view())
        elif isinstance(body, RotateEntry):
            self.key_ring.document(body.key)
        return self._commit(body, run, require)

    def relocate(self, body: RelocateEntry, *, run: str, planned_on: View) -> int:
        """Commit that frames have moved, as was decided by looking at `planned_on`.

        MediaConflict if others have moved since: decide again. ObjectsDoomed if what it leads to is doomed
        or damaged; RunStopped if the run is fenced.
        """
        self._require_writable()
        return self._commit(body, run, self._proofs.of_relocation(body, planned_on))

    def _commit(self, body: EntryBody, run: str | None, require: admission.Requirement) -> int:
        return self._log.append(
            body, run=run, admit=lambda view: admission.admit(view, body, run=run, require=require)
        )

    def append_planned(
        self, plan: Callable[[View], EntryBody | None], *, run: str | None = None
    ) -> int | None:
        """Commit what `plan` makes of the log as it is in the very slot before; None if it makes nothing.

        For entries that are only true of exactly the log that they follow, such as what may be deleted.
        """
        self._require_writable()
        return self._log.append_planned(plan, run=run)

    def begin_run(self, intent: Intent) -> None:
        """Record what the run will create, before it creates it; repeating the same intent is harmless.

        MediaConflict if another process used this run's id.
        """
        self._require_writable()
        intents.record(self._store, intent)

    def intent(self, run: str) -> Intent | None:
        """What one run recorded before it began; None if it has no intent here."""
        return intents.recorded(self._store, run)

    def runs(self) -> Iterator[str]:
        """The ids of all runs that a listing shows; a convenience, it may miss some."""
        return intents.runs(self._store)

    def disk_writer(
        self,
        *,
        run: str,
        disk_key: str,
        disk_size: int,
        kind: layout.IndexKind,
        scratch: Path,
        parent: DiskIndex | None = None,
        sharing: SharedExtents | None = None,
        pack_target: int = layout.PACK_TARGET,
        buffers: Buffers | None = None,
    ) -> DiskWriter:
        """Where one attempt's extents of one disk go; `scratch` is an existing local folder.

        `parent` are the contents that a delta is laid over; `sharing` knows what is stored already. Packs are
        stored when they reach `pack_target` bytes, and fill `buffers`.
        """
        from vsa.media.disk_writer import DiskTarget, DiskWriter

        self._require_writable()
        target = DiskTarget(self.id, run, disk_key, disk_size, self.extent_size, kind)
        return DiskWriter(
            self._store,
            target,
            codec=self.codec,
            scratch=scratch,
            random=self._random,
            parent=parent,
            relocations=self.whereabouts.moves(self.view()),
            sharing=sharing,
            pack_target=pack_target,
            buffers=buffers,
        )

    def sharing(self, offer: Offer, *, memory: int | None = None) -> Sharing | None:
        """What the streams of one process store together, as long as it lives; None: nothing is shared.

        `memory` bytes are what it may remember extents in; None: as many as are of use.
        """
        from vsa.media.sharing import open_sharing

        return open_sharing(self._store, self.whereabouts, offer, view=self.view, memory=memory)

    def heal(
        self, index: IndexRef, damaged: Mapping[int, tuple[str, int]], *, run: str, planned_on: View
    ) -> int:
        """Lead every point from damaged frames (pack and offset, by extent) to those that `index`, just
        stored by the run, has of the same extents; the slot of the entry.

        `damaged` is where the extents lie under `planned_on`. Errors as in `relocate`.
        """
        from vsa.media.heal import Healer

        self._require_writable()
        file = self.open_index(index)
        healer = Healer(self._store, self.id, run, self._random)
        return self.relocate(healer.entry(file, damaged), run=run, planned_on=planned_on)

    def disk_index(
        self,
        indexes: Sequence[IndexRef],
        disk_size: int,
        view: View | None = None,
        *,
        opened: Callable[[IndexRef], IndexFile] | None = None,
    ) -> DiskIndex:
        """Where each extent of a disk lies: a base and its deltas, in order, under a view (None: the newest).

        What is read of an index is proven first. MediaDamaged if one is not what its reference says.
        `opened` opens one for somebody who needs them more than once.
        """
        return self.whereabouts.disk(indexes, disk_size, view or self.view(), opened=opened)

    def partial_disk(
        self,
        indexes: Sequence[IndexRef],
        disk_size: int,
        view: View | None = None,
        *,
        opened: dict[str, IndexFile | Unreadable] | None = None,
    ) -> PartialDisk:
        """The same as far as damaged objects still tell it; what is read of an index is proven as ever.

        `opened` keeps indexes for the next disk that shares them.
        """
        return self.whereabouts.partial_disk(indexes, disk_size, view or self.view(), opened=opened)

    def must_be_read_again(self, backup: DiskBackup) -> bool:
        """Whether a point with this disk's backup would be refused: something that it needs is doomed by now,
        or was found damaged before the backup could rely on it. Reads all rows of its indexes."""
        return self._proofs.must_be_read_again(backup)

    def extent_reader(self) -> ExtentReader:
        from vsa.media.extent_reader import ExtentReader

        return ExtentReader(self._store, self.codec)

    def open_index(
        self, ref: IndexRef, *, by_parts: bool = False, kind: type[IndexFile] | None = None
    ) -> IndexFile:
        """One index, proven as far as it is read; with `by_parts` at first only its footer. `kind` is what it
        becomes, an IndexFile if nothing is said."""
        return self.whereabouts.open_index(ref, by_parts=by_parts, kind=kind)

    def _require_writable(self) -> None:
        if not self._writable:
            raise MediaUnusable(f"{self.location}: opened for reading only; open it for writing")

    def _require_intent(self, run: str | None) -> None:
        if run is None:
            raise BadRequest("a recovery point needs the run that made it")
        if self.intent(run) is None:
            raise BadRequest(f"run {run} has no intent on this media: begin the run first")


def _nothing(_: View) -> None:
    """Most entries need nothing but the log."""
