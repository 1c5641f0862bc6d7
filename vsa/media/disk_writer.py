"""Writes what one attempt changes of one disk: packs as they fill, one index at the end."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsa.errors import BadRequest
from vsa.media import layout
from vsa.media.disk_index import DiskIndex
from vsa.media.frames import Codec, Fingerprint
from vsa.media.index import ZEROS, IndexDescription, IndexFile, PackRef, write_index
from vsa.media.layout import PACK_TARGET, IndexKind
from vsa.media.merge import Absorbed, layers_to_absorb
from vsa.media.moves import PackNumbers, Relocations
from vsa.media.pack import Frame, PackBuilder
from vsa.media.pinned import require_stored
from vsa.media.row_spool import RowSpool
from vsa.media.store import Buffer, Store
from vsa.model import IndexRef

PACKS_BEING_STORED = 2
"""Full packs in memory while the next one fills; a stream waits rather than hold more."""

_NOTHING = Frame(0, 0, 0, Fingerprint(0, bytes(32)))


@dataclass(frozen=True, slots=True)
class WrittenDisk:
    """What was stored; `stored` counts the bytes of frames.

    `indexes` are those that the disk has now, base first; `index` is the new one among them, None if a delta
    changed nothing.
    """

    index: IndexRef | None
    indexes: tuple[IndexRef, ...]
    packs: tuple[str, ...]
    stored: int


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
        scratch: Path,
        random: Callable[[int], bytes],
        parent: DiskIndex | None = None,
        relocations: Relocations | None = None,
        pack_target: int = PACK_TARGET,
    ) -> None:
        """`scratch` is an existing folder on this machine; a subfolder of it holds rows until `finish`.

        `parent` is what a delta is laid over: the new index may absorb the topmost of its layers, frames
        following `relocations`. A pack is stored when it reaches `pack_target` bytes.
        """
        self._store = store
        self._target = target
        self._random = random
        self._parent = parent
        self._relocations = relocations or Relocations(store, (), media_id=target.media_id)
        self._pack_target = pack_target
        self._codec = Codec()
        self._spool = RowSpool(scratch / f"{target.run}-{target.disk_key}-{random(8).hex()}")
        self._changed = threading.Condition()
        self._filling: PackBuilder | None = None
        self._storing = 0
        self._packs: list[tuple[str, PackRef | None]] = []
        self._stored = 0
        self._failure: BaseException | None = None

    def put(self, extent: int, data: memoryview, crc: int, digest: bytes) -> None:
        """Store one extent. `data` is exactly the extent's bytes (the disk's last may be short); `crc` is its
        CRC32C, `digest` its BLAKE3. It may be reused once this returns. Blocks while too many packs are being
        stored."""
        self._require(extent)
        if len(data) != self._target.length_of(extent):
            raise ValueError(f"extent {extent} has {self._target.length_of(extent)} bytes, got {len(data)}")
        stored = self._codec.encode(data)
        full = self._place(extent, stored, len(data), Fingerprint(crc, digest))
        if full is not None:
            self._store_pack(*full)

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
        """Store the last pack and the index, and read the index back. Call once, after all other calls."""
        with self._changed:
            self._raise_failure()
            last, self._filling = self._filling, None
            self._storing += last is not None
        if last is not None:
            self._store_pack(len(self._packs) - 1, last)
        packs = [ref for _, ref in self._packs if ref is not None]
        rows = self._spool.end_all()
        older = self._parent.files if self._parent else ()
        if not rows and self._target.kind is IndexKind.DELTA:
            index, kept = None, older
        else:
            kept = older[: len(older) - layers_to_absorb(older, rows, self._target.disk_size)]
            index = self._store_index(packs, older[len(kept) :])
        self._spool.remove()
        refs = (*(file.ref for file in kept), *((index,) if index else ()))
        return WrittenDisk(index, refs, tuple(ref.name for ref in packs), self._stored)

    def abandon(self) -> None:
        """Remove the scratch rows. Packs stored so far stay: only pruning may delete from media."""
        self._spool.remove()

    def _require(self, extent: int) -> None:
        if not 0 <= extent < self._target.extents:
            raise ValueError(f"extent {extent} is outside a disk of {self._target.extents} extents")

    def _place(
        self, extent: int, stored: Buffer, raw_length: int, fingerprint: Fingerprint
    ) -> tuple[int, PackBuilder] | None:
        """Put a frame into the filling pack; if that filled it, the caller stores the returned one."""
        with self._changed:
            while self._filling is None and self._storing >= PACKS_BEING_STORED and self._failure is None:
                self._changed.wait()
            self._raise_failure()
            builder = self._filling or self._open_pack()
            ordinal = len(self._packs) - 1
            frame = builder.add(stored, raw_length, fingerprint)
            self._spool.add(extent, ordinal, frame)
            if not builder.full:
                return None
            self._filling = None
            self._storing += 1
            return ordinal, builder

    def _open_pack(self) -> PackBuilder:
        pack_id = self._random(16)
        self._packs.append((layout.pack(self._target.run, pack_id), None))
        self._filling = PackBuilder(
            media_id=bytes.fromhex(self._target.media_id),
            pack_id=pack_id,
            extent_size=self._target.extent_size,
            target=self._pack_target,
        )
        return self._filling

    def _store_pack(self, ordinal: int, builder: PackBuilder) -> None:
        name = self._packs[ordinal][0]
        try:
            closed = builder.close(self._codec)
            self._store.create(name, [closed.data])
            ref = PackRef(name=name, size=len(closed.data), sha256=closed.sha256)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise
        with self._changed:
            self._packs[ordinal] = (name, ref)
            self._stored += closed.stored
            self._storing -= 1
            self._changed.notify_all()

    def _store_index(self, packs: list[PackRef], older: Sequence[IndexFile]) -> IndexRef:
        """Store one index of the new rows and of the layers that it absorbs, and read it back."""
        target, numbers = self._target, PackNumbers()
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
            packs=tuple(numbers.refs[number] for number in used),
        )
        name = layout.index(target.run, target.disk_key, self._random(8))
        with self._spool.numbered(used) as (path, groups):
            ref = write_index(path, name, about, groups)
            with path.open("rb") as file:
                # Closed with its last view: an error's traceback may hold one for a while.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._store.create(name, [memoryview(mapped)])
        require_stored(self._store, ref)
        return ref

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
