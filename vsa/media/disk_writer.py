"""Writes what one attempt changes of one disk: packs as they fill, one index at the end."""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsa.errors import BadRequest, TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media import layout
from vsa.media.coding import PackCodec
from vsa.media.digests import SampleSpool, offer_of, store_digests
from vsa.media.disk_index import DiskIndex
from vsa.media.frames import Fingerprint
from vsa.media.index import ZEROS, IndexDescription, IndexFile, Offer, PackRef, write_index
from vsa.media.layout import PACK_TARGET, IndexKind
from vsa.media.merge import Absorbed, layers_to_absorb
from vsa.media.moves import PackNumbers, Relocations
from vsa.media.pack import Frame, PackBuilder
from vsa.media.pinned import require_stored
from vsa.media.row_spool import RowSpool
from vsa.media.shared_packs import PendingPack, Place, SharedPack
from vsa.media.sharing import SharedExtents
from vsa.media.store import Buffer, Store
from vsa.memory import PACKS, Buffers
from vsa.model import IndexRef, ObjectRef

_log = logging.getLogger(__name__)

_NOTHING = Frame(0, 0, 0, Fingerprint(0, bytes(32)))


@dataclass(frozen=True, slots=True)
class WrittenDisk:
    """What was stored: `stored` bytes of frames; `shared` bytes of extents were stored already.

    `indexes` are those that the disk has now, base first; `index` is the new one among them, None if a delta
    changed nothing, and `digests` its sample, None if it is offered to nobody or could not be stored.
    """

    index: IndexRef | None
    indexes: tuple[IndexRef, ...]
    packs: tuple[str, ...]
    stored: int
    shared: int = 0
    digests: ObjectRef | None = None


@dataclass(frozen=True)
class DiskTarget:
    """Which disk is written, for which run and media."""

    media_id: str
    run: str
    disk_key: str
    disk_size: int
    extent_size: int
    kind: IndexKind

    def __post_init__(self) -> None:
        """BadRequest for names that could lead elsewhere, or a disk whose extents 32 bits cannot number."""
        layout.require_identifier(self.run)
        layout.require_identifier(self.disk_key)
        if not 0 < self.extents <= 2**32:
            raise BadRequest(
                f"a disk of {self.disk_size} bytes cannot be stored in extents of {self.extent_size}"
            )

    @property
    def extents(self) -> int:
        return layout.extent_count(self.disk_size, self.extent_size)

    def length_of(self, extent: int) -> int:
        return layout.extent_length(extent, self.disk_size, self.extent_size)


class DiskWriter:
    """Extents of one disk on their way into packs; used by several threads of one stream.

    Each extent is given at most once. Nothing is visible to others until the caller commits a point that
    names the index. Once storing has failed, every later call raises that same error.
    """

    def __init__(
        self,
        store: Store,
        target: DiskTarget,
        *,
        codec: PackCodec,
        scratch: Path,
        random: Callable[[int], bytes],
        parent: DiskIndex | None = None,
        relocations: Relocations | None = None,
        sharing: SharedExtents | None = None,
        pack_target: int = PACK_TARGET,
        buffers: Buffers | None = None,
    ) -> None:
        """`scratch` is an existing folder on this machine; a subfolder of it holds rows until `finish`.

        `parent` is what a delta is laid over: the new index may absorb the topmost of its layers, frames
        following `relocations`. `sharing` knows what is stored already; None: nothing is looked for and
        nothing offered. A pack is stored when it reaches `pack_target` bytes, and its memory goes back to
        `buffers`.
        """
        self._store = store
        self._target = target
        self._random = random
        self._parent = parent
        self._relocations = relocations or Relocations(store, (), media_id=target.media_id)
        self._pack_target = pack_target
        self._buffers = buffers or Buffers()
        self._codec = codec
        self._spool = RowSpool(scratch / f"{target.run}-{target.disk_key}-{random(8).hex()}")
        self._sharing = sharing
        self._changed = threading.Condition()
        self._filling: PendingPack | None = None
        self._storing = 0
        self._own: list[PendingPack] = []
        self._packs: list[SharedPack] = []
        """Own and foreign ones, by the ordinals that rows state."""
        self._ordinals: dict[str, int] = {}
        self._shared = 0
        self._failure: BaseException | None = None

    def fingerprint(self, data: Buffer) -> Fingerprint:
        """CRC32C and digest as this media has them: on sealed media the digest is keyed."""
        return self._codec.fingerprint(data)

    def put(self, extent: int, data: memoryview, crc: int, digest: bytes) -> None:
        """Store one extent, unless it is stored already. `data` is exactly the extent's bytes (the disk's
        last may be short); `crc` and `digest` are its `fingerprint`. It may be reused once this returns.
        Blocks while too many packs are being stored."""
        self._require(extent)
        if len(data) != self._target.length_of(extent):
            raise ValueError(f"extent {extent} has {self._target.length_of(extent)} bytes, got {len(data)}")
        proof = Fingerprint(crc, digest)
        sharing = self._sharing if len(data) == self._target.extent_size else None
        place = sharing.find(proof) if sharing else None
        if place is not None:
            self._refer(extent, place, len(data), proof)
            return
        try:
            pack, frame, full = self._place(extent, self._codec.compress(data), len(data), proof)
        except BaseException:
            if sharing:
                sharing.withdraw(proof)
            raise
        if sharing:
            sharing.placed(pack, frame)
        if full:
            self._store_pack(pack)

    def clear(self, extent: int) -> None:
        """The extent reads as zeros from now on. A base says so by having no row."""
        self._require(extent)
        with self._changed:
            self._raise_failure()
            if self._target.kind is IndexKind.DELTA:
                self._spool.add(extent, ZEROS, _NOTHING)

    def end_segment(self, segment: int) -> None:
        """All extents of the segment were given: its rows leave memory."""
        with self._changed:
            self._raise_failure()
            self._spool.end(segment)

    def finish(self) -> WrittenDisk:
        """Store the last pack and the index, and read the index back. Call once, after all other calls.

        TryAgainLater if a pack of another stream could not be stored, or was damaged or doomed meanwhile:
        the disk must be read again then, and its extents stored by this stream itself.
        """
        with self._changed:
            self._raise_failure()
        packs = self._store_all_packs()
        reached(FaultPoint.PACKS_STORED)
        # Making an index takes memory, too: not beside what no pack needs any more.
        self._buffers.release()
        rows = self._spool.end_all()
        older = self._parent.files if self._parent else ()
        index, digests, kept = None, None, older
        if rows or self._target.kind is IndexKind.BASE:
            kept = older[: len(older) - layers_to_absorb(older, rows, self._target.disk_size)]
            index, digests = self._store_index(packs, older[len(kept) :])
        self._spool.remove()
        return WrittenDisk(
            index,
            indexes=(*(file.ref for file in kept), *((index,) if index else ())),
            packs=tuple(pack.name for pack in self._own),
            stored=sum(pack.stored for pack in self._own),
            shared=self._shared,
            digests=digests,
        )

    def abandon(self) -> None:
        """Remove the scratch rows. Packs stored so far stay: only pruning may delete from media."""
        self._spool.remove()
        for pack in self._own:
            pack.give_up()

    def _require(self, extent: int) -> None:
        if not 0 <= extent < self._target.extents:
            raise ValueError(f"extent {extent} is outside a disk of {self._target.extents} extents")

    def _refer(self, extent: int, place: Place, length: int, proof: Fingerprint) -> None:
        with self._changed:
            self._raise_failure()
            frame = Frame(place.offset, place.length, length, proof)
            self._spool.add(extent, self._ordinal(place.pack), frame)
            self._shared += length

    def _place(
        self, extent: int, stored: Buffer, raw_length: int, proof: Fingerprint
    ) -> tuple[PendingPack, Frame, bool]:
        """Put a frame into the filling pack; if that filled it, the caller stores it."""
        with self._changed:
            while self._filling is None and self._storing >= PACKS and self._failure is None:
                self._changed.wait()
            self._raise_failure()
            # Another stream that refers to the filling pack may just have closed it.
            if self._filling is None or (added := self._filling.add(stored, raw_length, proof)) is None:
                self._filling = self._open_pack()
                added = self._filling.add(stored, raw_length, proof)
            assert added is not None
            pack, (frame, full) = self._filling, added
            self._spool.add(extent, self._ordinal(pack), frame)
            if full:
                self._filling = None
                self._storing += 1
            return pack, frame, full

    def _open_pack(self) -> PendingPack:
        pack_id = self._random(16)
        builder = PackBuilder(self._codec, pack_id, target=self._pack_target, buffers=self._buffers)
        pack = PendingPack(self._store, layout.pack(self._target.run, pack_id), builder, owner=self._sharing)
        self._own.append(pack)
        return pack

    def _ordinal(self, pack: SharedPack) -> int:
        """The number that rows state for a pack."""
        number = self._ordinals.setdefault(pack.name, len(self._packs))
        if number == len(self._packs):
            self._packs.append(pack)
        return number

    def _store_pack(self, pack: PendingPack) -> None:
        try:
            pack.store()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise
        with self._changed:
            self._storing -= 1
            self._changed.notify_all()

    def _store_all_packs(self) -> list[PackRef]:
        """Every pack that rows refer to, stored: nobody else is relied on for that."""
        last, self._filling = self._filling, None
        if last is not None:
            self._storing += 1
            self._store_pack(last)
        own = {pack.name: pack.store() for pack in self._own}
        refs = [own[pack.name] if pack.name in own else _stored(pack) for pack in self._packs]
        if self._sharing is not None:
            self._sharing.require_sound(ref.name for ref in refs if ref.name not in own)
        return refs

    def _store_index(
        self, packs: list[PackRef], older: Sequence[IndexFile]
    ) -> tuple[IndexRef, ObjectRef | None]:
        """Store one index of the new rows and of the layers that it absorbs, read it back, and sample it."""
        target, numbers = self._target, PackNumbers()
        offer, client = (self._sharing.offer, self._sharing.client) if self._sharing else (Offer.OFF, "")
        numbers.ordinals(packs)
        absorbed = Absorbed(older, self._relocations, numbers)
        used = self._spool.merge(absorbed)
        about = IndexDescription(
            media=target.media_id,
            run=target.run,
            disk_key=target.disk_key,
            disk_size=target.disk_size,
            extent_size=target.extent_size,
            kind=IndexKind.BASE if absorbed.has_base else target.kind,
            offer=offer_of(offer, client, older),
            client=client or "nobody",
            packs=tuple(numbers.refs[number] for number in used),
        )
        name = layout.index(target.run, target.disk_key, self._random(8))
        sample = SampleSpool(about)
        with self._spool.numbered(used) as (path, groups):
            ref = write_index(path, name, about, sample.watch(groups))
            with path.open("rb") as file:
                # Closed with its last view: an error's traceback may hold one for a while.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._store.create(name, [memoryview(mapped)])
        require_stored(self._store, ref)
        reached(FaultPoint.INDEX_STORED)
        return ref, self._store_digests(ref, about, sample)

    def _store_digests(
        self, index: IndexRef, about: IndexDescription, sample: SampleSpool
    ) -> ObjectRef | None:
        """A cache: without it, what this index holds is stored again some day."""
        if about.offer is Offer.OFF:
            return None
        try:
            return store_digests(self._store, index, about, sample.rows())
        except VsaError as error:
            _log.warning(
                "extents of %s will be stored again: their sample was not stored: %s", index.name, error
            )
            return None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _stored(pack: SharedPack) -> PackRef:
    """A pack of another stream, stored by now if need be."""
    try:
        return pack.store()
    except Exception as error:
        raise TryAgainLater(
            f"{pack.name} of another disk, which holds extents of this one too, could not be stored: {error}"
        ) from error


def samples_of(written: WrittenDisk, older: Iterable[ObjectRef]) -> tuple[ObjectRef, ...]:
    """The digests objects of the disk's indexes, in their order; `older` are those that its parent has."""
    known = {ref.name: ref for ref in (*older, *((written.digests,) if written.digests else ()))}
    names = (layout.digests_of(index.name) for index in written.indexes)
    return tuple(known[name] for name in names if name in known)
