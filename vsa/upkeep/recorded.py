"""What record packs hold: points and the bytes of their indexes, found by looking at every pack."""

from __future__ import annotations

import hashlib
import logging
import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vsa.errors import KeyNeeded, MediaDamaged, NoMedia, WrongKey
from vsa.media import layout
from vsa.media.coding import PackCodec
from vsa.media.pack import HEADER_SIZE, PackHeader
from vsa.media.records import Record, RecordHead, read_record
from vsa.media.scratch import scratch_errors
from vsa.media.sealing import Sealer
from vsa.media.store import Store
from vsa.model import IndexRef
from vsa.progress import SILENT, Progress
from vsa.ranges import ByteRange

_log = logging.getLogger(__name__)

MAX_RECORD_PACK = 512 * 2**20
"""No record pack is larger: sixteen pieces of an index, and a head."""


@dataclass(frozen=True)
class Copy:
    """A whole record: all packs of its set, in order."""

    head: RecordHead
    packs: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the packs of a place say of themselves; `spoilt` are those that cannot be used, and why."""

    media_id: str
    extent_size: int
    packs: dict[str, int]
    """Names and sizes of the packs that hold extents."""
    copies: tuple[Copy, ...]
    spoilt: tuple[str, ...]

    @property
    def points(self) -> list[Copy]:
        """One for each run, oldest snapshot first. Of a run that was recorded twice either copy is right."""
        by_run = {copy.head.run: copy for copy in reversed(self.copies)}
        return sorted(by_run.values(), key=lambda copy: (_taken_at(copy), copy.head.run))


def find(store: Store, sealer: Sealer | None, progress: Progress = SILENT) -> Found:
    """Look at every pack that a listing shows; `sealer` is that of sealed media.

    NoMedia if none can be read, MediaDamaged if they are of several media, or sealed and there is no key.
    """
    sizes = {name: store.size(name) for name in sorted(set(store.names(layout.RUNS))) if layout.is_pack(name)}
    identities: set[tuple[str, int]] = set()
    extents: dict[str, int] = {}
    pieces: dict[str, dict[int, tuple[str, RecordHead]]] = {}
    spoilt: list[str] = []
    progress.started("looking at packs", sum(sizes.values()))
    for name, size in sizes.items():
        try:
            header = PackHeader.decode(store.read(name, ByteRange(0, HEADER_SIZE)), name)
            _require_seal(header, sealer, name)
            identities.add((header.media_id.hex(), header.extent_size))
            if header.holds_records:
                head = _record(store, name, _codec(header, sealer)).head
                pieces.setdefault(head.set, {})[head.piece] = name, head
            else:
                extents[name] = size
        except (MediaDamaged, WrongKey) as error:
            _log.warning("%s", error)
            spoilt.append(str(error))
        progress.advanced(size)
    progress.finished()
    if len(identities) != 1:
        _refuse(store, identities)
    return Found(*identities.pop(), extents, tuple(_whole(pieces)), tuple(spoilt))


def indexes_of(
    store: Store, copy: Copy, codec: PackCodec, scratch: Path
) -> Iterator[tuple[IndexRef, memoryview]]:
    """The indexes that a record holds, each with the size and digest of its reference; others are left out
    and logged. They are spooled in `scratch`, for they may be large."""
    with scratch_errors(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        for name in copy.packs:
            file.write(_record(store, name, codec).data)
        size = file.tell()
        file.flush()
        data = (
            memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")
        )
    at = 0
    for ref in copy.head.indexes:
        part = data[at : at + ref.size]
        at += ref.size
        if len(part) == ref.size and hashlib.sha256(part).hexdigest() == ref.sha256:
            yield ref, part
        else:
            _log.warning("%s: the copy of index %s is not what it should be", store.location, ref.name)


def _codec(header: PackHeader, sealer: Sealer | None) -> PackCodec:
    return PackCodec(header.media_id.hex(), header.extent_size, sealer)


def _require_seal(header: PackHeader, sealer: Sealer | None, name: str) -> None:
    """Without its key a sealed pack is of no use, and no other pack of the media would be. With a key, none
    that is not sealed is believed."""
    if header.sealed and sealer is None:
        raise KeyNeeded(
            f"{name} is sealed, and there is no key document beside it: nothing can be rebuilt without one. "
            f"Put a copy of one, {layout.KEYS}0 or a later one, back; media.json is not needed"
        )
    if sealer is not None and (not header.sealed or header.media_id != sealer.media_id):
        raise MediaDamaged(
            f"{name} is {'a sealed' if header.sealed else 'an unsealed'} pack of media "
            f"{header.media_id.hex()}, expected sealed ones of {sealer.media_id.hex()}, as the keys are"
        )


def _record(store: Store, name: str, codec: PackCodec) -> Record:
    record = read_record(store.read(name, limit=MAX_RECORD_PACK), name, codec)
    if record is None or record.head.piece >= record.head.pieces:
        raise MediaDamaged(f"{name} is no piece of a record")
    return record


def _whole(pieces: dict[str, dict[int, tuple[str, RecordHead]]]) -> Iterator[Copy]:
    for key, found in sorted(pieces.items()):
        _, head = next(iter(found.values()))
        if len(found) == head.pieces:
            yield Copy(head, tuple(name for _, (name, _) in sorted(found.items())))
        else:
            _log.warning("record %s of run %s: %d of %d packs", key, head.run, len(found), head.pieces)


def _refuse(store: Store, identities: set[tuple[str, int]]) -> None:
    if not identities:
        raise NoMedia(f"{store.location}: no pack there can be read: nothing can be rebuilt from it")
    found = ", ".join(f"{media} (extents of {size})" for media, size in sorted(identities))
    raise MediaDamaged(f"{store.location} holds packs of several media, expected one: {found}")


def _taken_at(copy: Copy) -> float:
    return min(disk.snapshot.taken_at for disk in copy.head.point.disks).timestamp()
