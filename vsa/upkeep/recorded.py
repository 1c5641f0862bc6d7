"""What record packs hold: points and the bytes of their indexes, found by looking at every pack."""

from __future__ import annotations

import hashlib
import logging
import mmap
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

from vsa.errors import KeyNeeded, MediaDamaged, NewerVersion, NoMedia, VsaError, WrongKey
from vsa.media import layout
from vsa.media.coding import PackCodec
from vsa.media.pack import HEADER_SIZE, PackHeader, proven_header
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


MAX_COPIES = 64
"""Ways to put one record together that are tried: more than one only if somebody has planted pieces of it."""

CLEAR_MAJORITY = 0.9
"""The part of all packs that must be of one media for the others to count as strays."""

T = TypeVar("T")


class Identity(NamedTuple):
    """What packs of one media have in common."""

    media_id: bytes
    extent_size: int
    sealed: bool

    def __str__(self) -> str:
        return f"{self.media_id.hex()} (extents of {self.extent_size})"

    @property
    def pack(self) -> str:
        return f"{'a sealed' if self.sealed else 'an unsealed'} pack of media {self}"


@dataclass(frozen=True)
class Copy:
    """A whole record: all packs of its set, in order."""

    head: RecordHead
    packs: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the packs of a place say of themselves; `spoilt` says of those that cannot be used, why.

    `unread` are those that do not prove what they are: they may have held anything.
    """

    media_id: str
    extent_size: int
    packs: dict[str, int]
    """Names and sizes of the packs that hold extents."""
    copies: tuple[Copy, ...]
    spoilt: tuple[str, ...]
    unread: frozenset[str]


def points_of(copies: Iterable[Copy]) -> list[Copy]:
    """One copy for each point of each run, the first that is given; oldest snapshot first."""
    by_run: dict[str, list[Copy]] = {}
    for copy in copies:
        known = by_run.setdefault(copy.head.run, [])
        if all(copy.head.point != other.head.point for other in known):
            known.append(copy)
    found = (copy for known in by_run.values() for copy in known)
    return sorted(found, key=lambda copy: (_taken_at(copy), copy.head.run))


def find(store: Store, sealer: Sealer | None, progress: Progress = SILENT) -> Found:
    """Look at every pack that a listing shows; `sealer` is that of sealed media.

    What does not prove itself, or is of other media than nearly all the others, is `spoilt`. NoMedia if no
    pack can be read, MediaDamaged if they are of several media, KeyNeeded if they are sealed and there is no
    key.
    """
    sizes = {name: store.size(name) for name in sorted(set(store.names(layout.RUNS))) if layout.is_pack(name)}
    spoilt: list[str] = []
    headers = dict(_headers(store, sizes, spoilt, progress))
    identity = _identity(store, headers.values(), sealer)
    codec = PackCodec(identity.media_id.hex(), identity.extent_size, sealer)
    extents: dict[str, int] = {}
    pieces = _Pieces()
    for name, header in headers.items():
        try:
            _require_identity(header, identity, name)
            if header.holds_records:
                pieces.add(name, _record(store, name, codec).head)
            else:
                extents[name] = sizes[name]
        except (MediaDamaged, WrongKey) as error:
            _tell(error, spoilt)
    return Found(
        identity.media_id.hex(),
        identity.extent_size,
        packs=extents,
        copies=tuple(pieces.whole()),
        spoilt=tuple(spoilt),
        unread=frozenset(sizes.keys() - headers.keys()),
    )


def copies_of(store: Store, names: Iterable[str], codec: PackCodec) -> list[Copy]:
    """The whole records among these packs; packs that cannot be read are passed over and logged."""
    pieces = _Pieces()
    for name in names:
        try:
            header = store.read(name, ByteRange(0, HEADER_SIZE))
            if _known(partial(PackHeader.decode, header, name)).holds_records:
                pieces.add(name, _record(store, name, codec).head)
        except (MediaDamaged, WrongKey) as error:
            _log.warning("%s", error)
    return list(pieces.whole())


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


def _headers(
    store: Store, sizes: Mapping[str, int], spoilt: list[str], progress: Progress
) -> Iterator[tuple[str, PackHeader]]:
    """The header of every pack that proves it; why another one does not goes to `spoilt`."""
    progress.started("looking at packs", sum(sizes.values()))
    for name, size in sizes.items():
        try:
            data = proven_header(store, name, size)
            yield name, _known(partial(PackHeader.decode, data, name))
        except MediaDamaged as error:
            _tell(error, spoilt)
        progress.advanced(size)
    progress.finished()


def _known(decode: Callable[[], T]) -> T:
    """What bytes in memory mean. What only a newer version knows is as good as spoilt, and keeps nobody from
    using the rest."""
    try:
        return decode()
    except NewerVersion as error:
        raise MediaDamaged(str(error)) from error


def _tell(error: VsaError, spoilt: list[str]) -> None:
    _log.warning("%s", error)
    spoilt.append(str(error))


def _identity(store: Store, headers: Iterable[PackHeader], sealer: Sealer | None) -> Identity:
    """What nearly all packs say that they are of. With a key, none that is not sealed is asked; without one,
    sealed packs are of no use."""
    said = [Identity(header.media_id, header.extent_size, header.sealed) for header in headers]
    if sealer is not None:
        said = [item for item in said if item.sealed and item.media_id == sealer.media_id]
    if not said:
        raise NoMedia(f"{store.location}: no pack there can be read: nothing can be rebuilt from it")
    counts = Counter(said)
    identity, packs = counts.most_common(1)[0]
    if packs < CLEAR_MAJORITY * len(said):
        found = ", ".join(f"{count} times {item.pack}" for item, count in counts.most_common())
        raise MediaDamaged(
            f"{store.location} holds packs of several media, expected nine in ten or more to be of one: "
            f"{found}. Move the others away"
        )
    if identity.sealed and sealer is None:
        raise KeyNeeded(
            f"{store.location}: the packs are sealed, and there is no key document beside them: nothing can "
            f"be rebuilt without one. Put a copy of one, {layout.KEYS}0 or a later one, back; media.json is "
            "not needed"
        )
    return identity


def _require_identity(header: PackHeader, identity: Identity, name: str) -> None:
    found = Identity(header.media_id, header.extent_size, header.sealed)
    if found != identity:
        raise MediaDamaged(f"{name} is {found.pack}, expected {identity.pack}, as the others are")


def _record(store: Store, name: str, codec: PackCodec) -> Record:
    data = store.read(name, limit=MAX_RECORD_PACK)
    record = _known(partial(read_record, data, name, codec))
    if record is None or record.head.piece >= record.head.pieces:
        raise MediaDamaged(f"{name} is no piece of a record")
    if other := next((ref.name for ref in record.head.indexes if not layout.is_index(ref.name)), ""):
        raise MediaDamaged(f"{name} is passed over: it records {other} as an index, which is no name of one")
    return record


class _Pieces:
    """Packs of records, by what they say that they are pieces of.

    Nothing of that is believed: what says that it is the same piece as another one makes a copy of its own,
    and takes nothing from the other one's.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, bytes], tuple[RecordHead, dict[int, list[str]]]] = {}

    def add(self, name: str, head: RecordHead) -> None:
        of_all = head.model_copy(update={"piece": 0})
        key = head.set, hashlib.sha256(of_all.model_dump_json().encode()).digest()
        _, pieces = self._found.setdefault(key, (of_all, {}))
        pieces.setdefault(head.piece, []).append(name)

    def whole(self) -> Iterator[Copy]:
        """Sets of which all pieces were added."""
        for (key, _), (head, pieces) in sorted(self._found.items(), key=itemgetter(0)):
            if len(pieces) < head.pieces:
                _log.warning("record %s of run %s: %d of %d packs", key, head.run, len(pieces), head.pieces)
                continue
            ordered = [names for _, names in sorted(pieces.items())]
            for names in islice(product(*ordered), MAX_COPIES):
                yield Copy(head, names)


def _taken_at(copy: Copy) -> float:
    return min(disk.snapshot.taken_at for disk in copy.head.point.disks).timestamp()
