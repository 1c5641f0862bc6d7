"""Writes what one attempt changes of one disk: packs as they fill, one index at the end."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vsa.errors import BadRequest
from vsa.media import layout
from vsa.media.frames import Codec, Fingerprint
from vsa.media.index import ROW, ZEROS, IndexDescription, PackRef, Rows, require_stored, write_index
from vsa.media.layout import PACK_TARGET, SEGMENT, IndexKind
from vsa.media.pack import Frame, PackBuilder
from vsa.media.scratch import scratch_errors
from vsa.media.store import Buffer, Store
from vsa.model import IndexRef

PACKS_BEING_STORED = 2
"""Full packs in memory while the next one fills; a stream waits rather than hold more."""

_NOTHING = Frame(0, 0, 0, Fingerprint(0, bytes(32)))


@dataclass(frozen=True, slots=True)
class WrittenDisk:
    """What was stored. `index` is None if a delta changed nothing; `stored` counts the bytes of frames."""

    index: IndexRef | None
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
        pack_target: int = PACK_TARGET,
    ) -> None:
        """`scratch` is an existing folder on this machine; a subfolder of it holds rows until `finish`.

        A pack is stored when it reaches `pack_target` bytes.
        """
        self._store = store
        self._target = target
        self._random = random
        self._pack_target = pack_target
        self._codec = Codec()
        self._spool = _RowSpool(scratch / f"{target.run}-{target.disk_key}-{random(8).hex()}")
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
        segments = self._spool.end_all()
        index = (
            self._store_index(packs, segments) if segments or self._target.kind is IndexKind.BASE else None
        )
        self._spool.remove()
        return WrittenDisk(index, tuple(ref.name for ref in packs), self._stored)

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

    def _store_index(self, packs: list[PackRef], segments: tuple[int, ...]) -> IndexRef:
        target = self._target
        description = IndexDescription(
            media=target.media_id,
            run=target.run,
            disk_key=target.disk_key,
            disk_size=target.disk_size,
            extent_size=target.extent_size,
            kind=target.kind,
            packs=tuple(packs),
            segments=segments,
        )
        data = self._spool.index(description)
        name = layout.index(target.run, target.disk_key, self._random(8))
        ref = IndexRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._store.create(name, [data])
        require_stored(self._store, ref)
        return ref

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class _RowSpool:
    """Rows by segment: dense in memory while a segment is open, in a scratch file once it has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with scratch_errors(folder):
            folder.mkdir()
        self._open: dict[int, tuple[Rows, np.ndarray[tuple[int], np.dtype[np.bool_]]]] = {}
        self._ended: set[int] = set()

    def add(self, extent: int, ordinal: int, frame: Frame) -> None:
        segment, at = divmod(extent, SEGMENT)
        if segment in self._ended:
            raise ValueError(f"extent {extent} was given after its segment {segment} had ended")
        if segment not in self._open:
            self._open[segment] = np.zeros(SEGMENT, ROW), np.zeros(SEGMENT, np.bool_)
        rows, given = self._open[segment]
        if given[at]:
            raise ValueError(f"extent {extent} was given twice")
        rows[at] = (extent, ordinal, frame.offset, frame.length, *frame.fingerprint)
        given[at] = True

    def end(self, segment: int) -> None:
        rows, given = self._open.pop(segment, (None, None))
        if rows is not None and given is not None:
            with scratch_errors(self._folder):
                np.save(self._path(segment), rows[given], allow_pickle=False)
            self._ended.add(segment)

    def end_all(self) -> tuple[int, ...]:
        """End what is still open; the segments that have rows, ascending."""
        for segment in list(self._open):
            self.end(segment)
        return tuple(sorted(self._ended))

    def index(self, description: IndexDescription) -> memoryview:
        """The bytes of the index of all ended segments, mapped from a scratch file."""
        path = self._folder / "index"
        groups = (np.load(self._path(segment), allow_pickle=False) for segment in description.segments)
        with scratch_errors(self._folder):
            write_index(path, description, groups)
            with path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment}.npy"
