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
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vsa.errors import (
    BadRequest,
    MediaConflict,
    MediaDamaged,
    MediaUnusable,
    ObjectMissing,
    ObjectsDoomed,
    VsaError,
    WrongKey,
)
from vsa.media import admission, documents, layout, recall
from vsa.media.access import NO_SECRETS, StoreAccess
from vsa.media.descriptor import describe_new, read_descriptor, require_extent_size
from vsa.media.entries import EntryBody, PointEntry, RelocateEntry, RotateEntry
from vsa.media.log import Log
from vsa.media.places import make_store, open_store
from vsa.media.store import Store
from vsa.media.view import View
from vsa.media.witness import Witness
from vsa.model import DEFAULT_EXTENT_SIZE, DiskBackup, IndexRef, Intent, Point

if TYPE_CHECKING:
    from vsa.media.closure import Closure
    from vsa.media.coding import PackCodec
    from vsa.media.destination import Destination
    from vsa.media.disk_index import DiskIndex
    from vsa.media.disk_writer import DiskWriter
    from vsa.media.extent_reader import ExtentReader
    from vsa.media.index import IndexFile, Offer
    from vsa.media.key_ring import KeyRing, Unlocked
    from vsa.media.moves import Relocations
    from vsa.media.partial import PartialDisk, Unreadable
    from vsa.media.sharing import SharedExtents, Sharing
    from vsa.media.wrapping import WrappingKey

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
        unlocked: Unlocked | None = None,
        clock: Clock = system_clock,
        random: Random = os.urandom,
    ) -> None:
        """The media in a store that is known to keep a store's promises; errors as in `open`.

        `unlocked` is what `key_ring.unlock` gives for sealed media.
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
        self._log = Log(
            self._store,
            origin=self._origin,
            clock=clock,
            random=random,
            recall=None if from_log else partial(recall.newest, self._store, self._about.id),
        )
        self._codec: PackCodec | None = None
        self._key_is_current = unlocked is None
        self._moved: tuple[tuple[int, int], Relocations] | None = None

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
        require_extent_size(extent_size)
        try:
            store = make_store(location, access, random=random)
        except MediaConflict as error:
            raise _interrupted(open_store(location, access, random=random)) or error from error
        unlocked = None
        if wrapping is None:
            describe_new(store, extent_size=extent_size, now=now, random=random)
        else:
            from vsa.media.key_ring import Unlocked, seal_new

            sealer = seal_new(store, wrapping, extent_size=extent_size, now=now, random=random)
            unlocked = Unlocked(sealer, 0)
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
        store = open_store(location, access, random=random)
        unlocked = _unlock(store, wrapping, random)
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

    @property
    def codec(self) -> PackCodec:
        """How extents become frames of packs here."""
        from vsa.media.coding import PackCodec

        if self._codec is None:
            sealer = self._unlocked.sealer if self._unlocked else None
            self._codec = PackCodec(self.id, self.extent_size, sealer)
        return self._codec

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
        """MediaDamaged, naming both, unless the log has the very entry that the witness names."""
        found = self.view().witness
        if (digest := self._log.digest_of(witness.slot)) != witness.sha256:
            here = f"has {digest} there" if digest else "has no such slot"
            raise MediaDamaged(
                f"{self.location}: the log was seen with entry {witness}, but {here}; it ends with "
                f"{found or 'nothing'}: the media was put back to an older state, or is another one"
            )

    def checkpoint_if_due(self, *, every: int = recall.EVERY) -> bool:
        """Store a checkpoint if the newest one is `every` entries old; whether it did. Never an error: it
        is a cache, and whoever asks has done what matters."""
        self._require_writable()
        return recall.write_if_due(self._store, self.view(), self.id, every=every)

    def read_anew(self) -> Self:
        """The same media with nothing remembered of it: its log is read from slot 0, entry by entry, whatever
        else may stand for it. For those who delete or judge."""
        return type(self)(
            self._below,
            write=self._writable,
            from_log=True,
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
            require = self._closure(body.point).require
            view = self.view()
            if not body.point.records and run not in view.committed:
                # A record of what is refused would outlive it: a rebuild could not tell which was committed.
                require(view)
                body = PointEntry(point=self._recorded(body.point, str(run)))
        elif isinstance(body, RelocateEntry):
            require = self._destination(body, self.view()).require
        elif isinstance(body, RotateEntry):
            self.key_ring.document(body.key)
        return self._log.append(
            body, run=run, admit=lambda view: admission.admit(view, body, run=run, require=require)
        )

    def relocate(self, body: RelocateEntry, *, run: str, planned_on: View) -> int:
        """Commit that frames have moved, as was decided by looking at `planned_on`.

        MediaConflict if others have moved since: decide again. ObjectsDoomed if what it leads to is doomed
        or damaged; RunStopped if the run is fenced.
        """
        self._require_writable()
        require = self._destination(body, planned_on).require
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
        self,
        *,
        run: str,
        disk_key: str,
        disk_size: int,
        kind: layout.IndexKind,
        scratch: Path,
        parent: DiskIndex | None = None,
        sharing: SharedExtents | None = None,
    ) -> DiskWriter:
        """Where one attempt's extents of one disk go; `scratch` is an existing local folder.

        `parent` are the contents that a delta is laid over; `sharing` knows what is stored already.
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
            relocations=self._relocations(self.view()),
            sharing=sharing,
        )

    def sharing(self, offer: Offer) -> Sharing | None:
        """What the streams of one process store together, as long as it lives; None: nothing is shared."""
        from vsa.media.digests import open_digests
        from vsa.media.extent_sample import ExtentSample
        from vsa.media.index import Offer
        from vsa.media.recent_extents import RecentExtents
        from vsa.media.sharing import Sharing
        from vsa.media.stored_extents import StoredExtents

        if offer is Offer.OFF:
            return None
        sample = ExtentSample(lambda ref: open_digests(self._store, ref, media_id=self.id))
        stored = StoredExtents(
            sample, opened=self._index, relocations=self._relocations, size_of=self._store.size
        )
        return Sharing(offer, recent=RecentExtents(), stored=stored, view=self.view)

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
        from vsa.media.disk_index import DiskIndex

        view = view or self.view()
        sound = sound_indexes(view)
        files = [(opened or self.open_index)(sound.get(ref.name, ref)) for ref in indexes]
        return DiskIndex(files, self._relocations(view), disk_size=disk_size, extent_size=self.extent_size)

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
        from vsa.media.partial import PartialDisk

        view = view or self.view()
        sound = sound_indexes(view)
        cache = {} if opened is None else opened
        layers = [self._layer(sound.get(ref.name, ref), cache) for ref in indexes]
        return PartialDisk(layers, self._relocations(view), disk_size=disk_size, extent_size=self.extent_size)

    def _layer(self, ref: IndexRef, opened: dict[str, IndexFile | Unreadable]) -> IndexFile | Unreadable:
        from vsa.media.partial import Unreadable

        if ref.name not in opened:
            try:
                opened[ref.name] = self.open_index(ref, by_parts=True)
            except MediaDamaged as error:
                opened[ref.name] = Unreadable(ref.name, str(error))
        return opened[ref.name]

    def must_be_read_again(self, backup: DiskBackup) -> bool:
        """Whether a point with this disk's backup would be refused: something that it needs is doomed by now,
        or was found damaged before the backup could rely on it. Reads all rows of its indexes."""
        alone = Point.model_construct(disks=(backup,), records=())
        try:
            self._closure(alone).require(self.view())
        except (ObjectMissing, ObjectsDoomed):
            return True
        return False

    def extent_reader(self) -> ExtentReader:
        from vsa.media.extent_reader import ExtentReader

        return ExtentReader(self._store, self.codec)

    def open_index(
        self, ref: IndexRef, *, by_parts: bool = False, kind: type[IndexFile] | None = None
    ) -> IndexFile:
        """One index, proven as far as it is read; with `by_parts` at first only its footer. `kind` is what it
        becomes, an IndexFile if nothing is said."""
        from vsa.media.index import IndexFile, open_index

        return open_index(
            self._store,
            ref,
            media_id=self.id,
            extent_size=self.extent_size,
            overhead=self.codec.overhead,
            by_parts=by_parts,
            kind=kind or IndexFile,
        )

    def _index(self, ref: IndexRef, view: View) -> IndexFile:
        return self.open_index(sound_indexes(view).get(ref.name, ref))

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

    def _closure(self, point: Point) -> Closure:
        """Everything the point refers to, found to be there."""
        from vsa.media.closure import Closure

        view = self.view()
        # It is asked once for each slot that is tried: every index is opened once for all of them.
        opened = partial(self.disk_index, opened=cache(self.open_index))
        try:
            return Closure(self._store, point, view, opened)
        except ObjectMissing as error:
            raise self._doomed_or(error, point) from error

    def _recorded(self, point: Point, run: str) -> Point:
        """The point with all that it says stored once more, in packs."""
        from vsa.media.records import RecordWriter

        writer = RecordWriter(self._store, self.codec, random=self._random)
        return point.model_copy(update={"records": writer.store(run, point)})

    def _doomed_or(self, error: ObjectMissing, point: Point) -> VsaError:
        """What is missing because it was doomed is no damage: the run began before it was."""
        doomed = self.view().doomed
        gone = [ref.name for disk in point.disks for ref in disk.indexes if ref.name in doomed]
        return ObjectsDoomed(f"{gone[0]} was given up while the run was reading: {error}") if gone else error

    def _destination(self, relocate: RelocateEntry, planned_on: View) -> Destination:
        """What a relocation leads to, found to be there."""
        from vsa.media.destination import Destination
        from vsa.media.moves import open_moves

        ref = relocate.table
        table = None if ref is None else open_moves(self._store, ref, media_id=self.id)
        return Destination(self._store, relocate, table, planned_on)

    def _relocations(self, view: View) -> Relocations:
        """The tables of a view, loaded once as long as nothing new has moved."""
        from vsa.media.moves import Relocations

        known = (len(view.relocations), len(view.doomed))
        if self._moved is None or self._moved[0] != known:
            relocations = Relocations(self._store, view.relocations, media_id=self.id, doomed=view.doomed)
            self._moved = (known, relocations)
        return self._moved[1]


def _unlock(store: Store, wrapping: WrappingKey | None, random: Random) -> Unlocked | None:
    about, data = read_descriptor(store)
    if not about.sealed and wrapping is None:
        return None
    from vsa.media.key_ring import unlock

    return unlock(store, about, data, wrapping, random=random)


def _interrupted(store: Store) -> MediaConflict | None:
    from vsa.media.key_ring import interrupted_init

    return interrupted_init(store)


def _nothing(_: View) -> None:
    """Most entries need nothing but the log."""


def sound_indexes(view: View) -> dict[str, IndexRef]:
    """Copies that stand in for damaged indexes."""
    return {moved.name: moved.ref for item in view.relocations for moved in item.entry.indexes}
