"""Checkpoints: what the log means up to a slot, so that a long log need not be read entry by entry
(docs/media-format.md, "Checkpoints").

A cache. Nothing is believed that does not fit the log, and whatever is wrong with one costs time, never an
answer. Nouns stay packed where they lie: a view that comes from here unpacks what it is asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from blake3 import blake3
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from vsa.errors import MediaDamaged
from vsa.media import parquet
from vsa.media.entries import ClientEntry, DamageEntry, RelocateEntry, Slot
from vsa.media.layered import Layered, Members, OnDemand
from vsa.media.packed import Packer, unpack
from vsa.media.parquet import Rows
from vsa.media.view import CommittedPoint, Damage, Doubt, Latest, Relocation, ReportedJob, View
from vsa.model import Noun, Sha256, SnapshotRef
from vsa.ranges import GIB, MIB

K = TypeVar("K")
V = TypeVar("V")

METADATA_KEY = b"azure-vsa.checkpoint"
MAX_SIZE = GIB
MAX_ROWS = 4_000_000

_MAGIC = b"PAR1"
_MAX_FOOTER = MIB
_DIGEST_AFTER = b'{"blake3":"'
_NO_DIGEST = "0" * 64
_NO_SLOT = -1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_EARLIEST = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_LATEST = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND

ROW = np.dtype(
    [
        ("kind", np.uint8),
        ("slot", np.int64),
        ("time", np.int64),
        ("offset", np.uint32),
        ("key", np.uint16),
        ("data", np.uint32),
    ]
)


class Kind(IntEnum):
    """What a row is about; rows are sorted by it."""

    CLIENT = 0
    POINT = 1
    JOB = 2
    FENCED = 3
    DOOMED = 4
    FORGOTTEN = 5
    GIVEN_UP = 6
    PINNED = 7
    DOUBT = 8
    RELOCATION = 9
    DAMAGE = 10
    DAMAGED = 11
    HEALED = 12
    HISTORY = 13
    BASE = 14


_BY_SLOT = (
    *(Kind.POINT, Kind.JOB, Kind.FORGOTTEN, Kind.GIVEN_UP),
    *(Kind.PINNED, Kind.DOUBT, Kind.RELOCATION, Kind.DAMAGE),
)
"""Kinds whose rows ascend by slot, each slot at most once."""

_SLOTS = TypeAdapter(tuple[int, ...])
_OFFSETS = TypeAdapter(frozenset[int])
_DOUBTS = TypeAdapter(tuple[Doubt, ...])


class LatestTime(Noun):
    """As `Latest` in a view."""

    slot: Slot
    time: AwareDatetime


class CheckpointDescription(Noun):
    """What a checkpoint says of itself. `entry` is the sha256 of the log's entry in `slot`; `blake3` that of
    the whole object without these 64 digits; `key` and `latest` as in `View`. Older ones have no `latest`."""

    blake3: Sha256
    format: Literal[1] = 1
    media: str
    slot: Slot
    entry: Sha256
    key: Annotated[int, Field(ge=0, lt=10**6)] = 0
    latest: LatestTime | None = None


class _Item(NamedTuple):
    """One row before it has a place."""

    kind: Kind
    slot: int = _NO_SLOT
    time: dt.datetime | None = None
    key: str = ""
    data: bytes = b""


def encode(view: View, media_id: str) -> bytes:
    """The bytes of a checkpoint: keys and packed nouns one after the other, then the rows that place them."""
    if view.witness is None:
        raise ValueError("there is no entry that a checkpoint of an empty log could end with")
    about = CheckpointDescription(
        blake3=_NO_DIGEST,
        media=media_id,
        slot=view.witness.slot,
        entry=view.witness.sha256,
        key=view.key,
        latest=LatestTime(**view.latest._asdict()) if view.latest else None,
    )
    return assemble(about, *_placed(_items(view), first=len(_MAGIC)))


def assemble(about: CheckpointDescription, heap: bytes, rows: Rows) -> bytes:
    """The object of a description, the bytes of all keys and nouns, and the rows that place them."""
    sink = pa.BufferOutputStream()
    schema = parquet.schema_of(ROW)
    with parquet.writer(sink, schema, delta=schema.names) as writer:
        # Between the magic and the first row group, where readers of Parquet look at nothing.
        sink.write(heap)
        if len(rows):
            writer.write_table(parquet.to_arrow(rows, schema), row_group_size=MAX_ROWS)
        unproven = about.model_copy(update={"blake3": _NO_DIGEST})
        writer.add_key_value_metadata({METADATA_KEY: unproven.model_dump_json().encode()})
    data = bytearray(sink.getvalue())
    at = _digest_at(data, "a new checkpoint")
    data[at : at + 64] = _digest(data, at).encode()
    return bytes(data)


def decode(data: bytes, name: str, *, slot: int, media_id: str) -> View:
    """The view that a checkpoint holds. MediaDamaged if it is not as it was written, or of something else."""
    at = _digest_at(data, name)
    if _digest(data, at).encode() != data[at : at + 64]:
        raise MediaDamaged(f"{name} does not match its own digest")
    described, rows = parquet.read_table(data, name, dtype=ROW, key=METADATA_KEY, max_rows=MAX_ROWS)
    try:
        about = CheckpointDescription.model_validate_json(described or b"absent", strict=True)
    except ValidationError as error:
        raise MediaDamaged(f"{name} does not describe itself: {error}") from error
    if (about.media, about.slot) != (media_id, slot):
        raise MediaDamaged(f"{name} is of media {about.media}, slot {about.slot}")
    if complaint := _complaint(rows, about, len(data)):
        raise MediaDamaged(f"{name}: {complaint}")
    tables = _Tables(data, rows)
    if not tables.name_points():
        raise MediaDamaged(f"{name}: a point is of no run, of no client or holds no disk")
    return tables.view(about)


def _digest_at(data: bytes | bytearray, name: str) -> int:
    """Where in the footer the 64 digits of the object's own digest are."""
    size = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - size
    if len(data) < 12 or data[-4:] != _MAGIC or size > _MAX_FOOTER or start < len(_MAGIC):
        raise MediaDamaged(f"{name} has no footer of Parquet")
    footer = data[start:]
    if footer.count(_DIGEST_AFTER) != 1:
        raise MediaDamaged(f"{name} does not state its own digest")
    return start + footer.index(_DIGEST_AFTER) + len(_DIGEST_AFTER)


def _digest(data: bytes | bytearray, at: int) -> str:
    """The BLAKE3 of all bytes but the 64 at `at`; sha256 would take as long as all the rest of opening."""
    view = memoryview(data)
    return blake3(view[:at]).update(view[at + 64 :]).hexdigest()


def _placed(items: Iterable[_Item], first: int) -> tuple[bytes, Rows]:
    """The bytes of all keys and data, which will lie at `first`, and the rows that say where each is."""
    heap = bytearray()
    rows: list[tuple[int, ...]] = []
    for item in items:
        key = item.key.encode()
        time = 0 if item.time is None else (item.time - _EPOCH) // _MICROSECOND
        rows.append((item.kind, item.slot, time, first + len(heap), len(key), len(item.data)))
        heap += key
        heap += item.data
        if len(heap) > MAX_SIZE:
            break
    return bytes(heap), np.array(rows, ROW)


def _items(view: View) -> Iterator[_Item]:
    """Everything that a view says, by kind."""
    packer = Packer()
    runs = {slot: run for run, slot in view.committed.items()}
    for key, client in view.clients.items():
        yield _Item(Kind.CLIENT, key=key, data=packer.pack(client.model_dump_json()))
    for made in view.points.values():
        names = " ".join((made.run, made.client, *made.disks))
        yield _Item(Kind.POINT, made.slot, made.time, names, made._packed)
    for job in view.jobs.values():
        yield _Item(Kind.JOB, job.slot, job.time, data=job._packed)
    yield from (_Item(Kind.FENCED, key=run) for run in sorted(view.fenced))
    yield from (_Item(Kind.DOOMED, key=name) for name in sorted(view.doomed))
    yield from (_Item(Kind.FORGOTTEN, slot, time) for slot, time in sorted(view.forgotten.items()))
    yield from (_Item(Kind.GIVEN_UP, slot, key=runs[slot]) for slot in sorted(view.given_up))
    yield from (_Item(Kind.PINNED, slot) for slot in sorted(view.pinned))
    for slot, doubts in sorted(view.doubtful.items()):
        yield _Item(Kind.DOUBT, slot, data=packer.pack(_DOUBTS.dump_json(doubts)))
    for moved in view.relocations:
        yield _Item(Kind.RELOCATION, moved.slot, data=packer.pack(moved.entry.model_dump_json()))
    for damage in view.damages:
        yield _Item(Kind.DAMAGE, damage.slot, data=packer.pack(damage.entry.model_dump_json()))
    for kind, known in ((Kind.DAMAGED, view.damaged), (Kind.HEALED, view.healed)):
        for name, offsets in sorted(known.items()):
            yield _Item(kind, key=name, data=packer.pack(_OFFSETS.dump_json(offsets)))
    for key, held in sorted(view._history.items()):
        yield _Item(Kind.HISTORY, key=key, data=packer.pack(_SLOTS.dump_json(held)))
    for key, (slot, base) in sorted(view._bases.items()):
        yield _Item(Kind.BASE, slot, key=key, data=packer.pack(base.model_dump_json()))


def _complaint(rows: Rows, about: CheckpointDescription, size: int) -> str:
    """What is wrong with the rows, or nothing."""
    if about.latest is not None and about.latest.slot > about.slot:
        return "the latest time is of an entry that comes later"
    kind, slot, time = rows["kind"].astype(np.int16), rows["slot"], rows["time"]
    if np.any(np.diff(kind) < 0) or np.any(kind > max(Kind)):
        return "kinds of rows are unknown or not in order"
    impossible = (slot < _NO_SLOT) | (slot > about.slot) | (time < _EARLIEST) | (time > _LATEST)
    if np.any(impossible):
        return "a row is of no slot or time that there can be"
    start = rows["offset"].astype(np.int64)
    if np.any(start < len(_MAGIC)) or np.any(start + rows["key"] + rows["data"].astype(np.int64) > size):
        return "a row's bytes lie outside"
    slots_of = (slot[kind == wanted] for wanted in _BY_SLOT)
    if any(len(found) and (found[0] < 0 or np.any(np.diff(found) <= 0)) for found in slots_of):
        return "slots do not ascend"
    return ""


class _Tables:
    """The rows of a checkpoint as the tables of a view."""

    def __init__(self, data: bytes, rows: Rows) -> None:
        self._bytes = data
        self._slot, self._time = rows["slot"], rows["time"]
        self._offset, self._key, self._data = (rows[name] for name in ("offset", "key", "data"))
        edges = np.searchsorted(rows["kind"], np.arange(len(Kind) + 1, dtype=np.uint8))
        self._range = {kind: range(int(edges[kind]), int(edges[kind + 1])) for kind in Kind}

    def view(self, about: CheckpointDescription) -> View:
        return View(
            head=about.slot + 1,
            head_hash=about.entry,
            latest=Latest(about.latest.slot, about.latest.time) if about.latest else self._latest(),
            clients=self._by_key(Kind.CLIENT, self._decoded(ClientEntry.model_validate_json)),
            points=self._by_slot(Kind.POINT, self._point),
            jobs=self._by_slot(Kind.JOB, self._job),
            committed=Layered(OnDemand(self._runs, int)),
            fenced=self._members(Kind.FENCED, self._keys),
            doomed=self._members(Kind.DOOMED, self._keys),
            given_up=self._members(Kind.GIVEN_UP, self._slots),
            forgotten=self._by_slot(Kind.FORGOTTEN, self._time_at),
            pinned=self._members(Kind.PINNED, self._slots),
            doubtful=self._by_slot(Kind.DOUBT, self._decoded(_DOUBTS.validate_json)),
            relocations=tuple(self._nouns(Kind.RELOCATION, Relocation, RelocateEntry.model_validate_json)),
            damages=tuple(self._nouns(Kind.DAMAGE, Damage, DamageEntry.model_validate_json)),
            damaged=self._by_key(Kind.DAMAGED, self._decoded(_OFFSETS.validate_json)),
            healed=self._by_key(Kind.HEALED, self._decoded(_OFFSETS.validate_json)),
            key=about.key,
            _history=self._by_key(Kind.HISTORY, self._decoded(_SLOTS.validate_json)),
            _bases=self._by_key(Kind.BASE, self._base),
        )

    def name_points(self) -> bool:
        """Whether each point has its run, its client and at least one disk: they are taken apart when they
        are asked for, and then it would be too late to read the log instead."""
        rows = self._range[Kind.POINT]
        offsets = self._offset[rows.start : rows.stop].tolist()
        lengths = self._key[rows.start : rows.stop].tolist()
        return all(
            self._bytes.count(b" ", offset, offset + length) >= 2
            for offset, length in zip(offsets, lengths, strict=True)
        )

    def _latest(self) -> Latest | None:
        """The newest time that a point or a job claims, for a checkpoint that does not tell that of all
        entries: whoever judges by times has read the log itself."""
        rows = np.concatenate([self._range[Kind.POINT], self._range[Kind.JOB]]).astype(np.int64)
        if not len(rows):
            return None
        newest = int(rows[np.argmax(self._time[rows])])
        return Latest(int(self._slot[newest]), self._time_at(newest))

    def _by_slot(self, kind: Kind, make: Callable[[int], V]) -> Layered[int, V]:
        return Layered(OnDemand(lambda: self._slots(kind), make))

    def _by_key(self, kind: Kind, make: Callable[[int], V]) -> Layered[str, V]:
        return Layered(OnDemand(lambda: self._keys(kind), make))

    def _members(self, kind: Kind, places: Callable[[Kind], Mapping[K, int]]) -> Members[K]:
        return Members(Layered(OnDemand(lambda: places(kind), lambda _: None)))

    def _slots(self, kind: Kind) -> dict[int, int]:
        """The row of each slot."""
        rows = self._range[kind]
        return dict(zip(self._slot[rows.start : rows.stop].tolist(), rows, strict=True))

    def _keys(self, kind: Kind) -> dict[str, int]:
        """The row of each key."""
        return dict(zip(self._texts(self._range[kind]), self._range[kind], strict=True))

    def _runs(self) -> dict[str, int]:
        """The slot of each run's point, also of points that were given up."""
        found: dict[str, int] = {}
        for kind in (Kind.POINT, Kind.GIVEN_UP):
            rows = self._range[kind]
            runs = (text.partition(" ")[0] for text in self._texts(rows))
            found.update(zip(runs, self._slot[rows.start : rows.stop].tolist(), strict=True))
        return found

    def _texts(self, rows: range) -> Iterator[str]:
        offsets = self._offset[rows.start : rows.stop].tolist()
        lengths = self._key[rows.start : rows.stop].tolist()
        for offset, length in zip(offsets, lengths, strict=True):
            yield self._bytes[offset : offset + length].decode(errors="replace")

    def _point(self, row: int) -> CommittedPoint:
        run, client, *disks = next(self._texts(range(row, row + 1))).split(" ")
        slot, packed = int(self._slot[row]), self._data_at(row)
        return CommittedPoint(slot, self._time_at(row), run, client, tuple(disks), packed)

    def _job(self, row: int) -> ReportedJob:
        return ReportedJob(int(self._slot[row]), self._time_at(row), self._data_at(row))

    def _base(self, row: int) -> tuple[int, SnapshotRef]:
        return int(self._slot[row]), unpack(self._data_at(row), SnapshotRef.model_validate_json)

    def _nouns(
        self, kind: Kind, make: Callable[[int, Any], V], read: Callable[[bytes], object]
    ) -> Sequence[V]:
        return [make(int(self._slot[row]), unpack(self._data_at(row), read)) for row in self._range[kind]]

    def _decoded(self, read: Callable[[bytes], V]) -> Callable[[int], V]:
        return lambda row: unpack(self._data_at(row), read)

    def _time_at(self, row: int) -> dt.datetime:
        return _EPOCH + int(self._time[row]) * _MICROSECOND

    def _data_at(self, row: int) -> bytes:
        start = int(self._offset[row]) + int(self._key[row])
        return self._bytes[start : start + int(self._data[row])]
