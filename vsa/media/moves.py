"""Relocated frames: where a frame lies now that used to lie elsewhere (docs/media-format.md, "Moves").

A moves table maps (old pack, old offset) to (pack, offset, length). What moves is bytes that are stored
elsewhere too; the fingerprint that proves an extent stays the one that its index states.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Container, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from vsa.errors import MediaDamaged, ObjectsDoomed
from vsa.media import layout, pack, parquet, pinned
from vsa.media.index import PackRef
from vsa.media.parquet import Rows
from vsa.media.store import Store
from vsa.media.view import Relocation
from vsa.model import Identifier, Noun, ObjectName, ObjectRef
from vsa.ranges import MIB

METADATA_KEY = b"azure-vsa.moves"
MAX_MOVES = 8_000_000
"""Rows of one table; more frames take more tables, each with an entry of its own."""

MAX_SIZE = 256 * MIB
"""Bytes of a table: more than that many rows take uncompressed, with the names of their packs."""

KEPT = 256 * MIB
"""Memory for tables that nobody uses at the moment but somebody may again."""

NO_SOURCE = -1

MOVE = np.dtype(
    [
        ("from_pack", np.int32),
        ("from_offset", np.uint32),
        ("pack", np.int32),
        ("offset", np.uint32),
        ("length", np.uint32),
    ]
)


class MovesDescription(Noun):
    """What a moves table says of itself; `sources` and `packs` are what its two pack columns count."""

    format: Literal[1] = 1
    media: str
    run: Identifier
    sources: tuple[ObjectName, ...]
    packs: tuple[PackRef, ...]


class MovesTable:
    """One table in memory, checked; rows ascend by old pack and old offset."""

    def __init__(self, description: MovesDescription, rows: Rows) -> None:
        self.description = description
        self.rows = rows
        self._keys = _keys(rows["from_pack"], rows["from_offset"])
        self._ordinals = {name: number for number, name in enumerate(description.sources)}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return int(self.rows.nbytes + self._keys.nbytes)

    def source(self, pack: str) -> int:
        """The number of a pack among the sources; NO_SOURCE if it is none of them."""
        return self._ordinals.get(pack, NO_SOURCE)

    def find(
        self, sources: npt.NDArray[np.int32], offsets: npt.NDArray[np.uint32]
    ) -> tuple[npt.NDArray[np.intp], Rows]:
        """Which of the places, each an offset in a source, have moved, as positions among them, and their
        rows."""
        if not len(self.rows):
            return np.zeros(0, np.intp), self.rows[:0]
        wanted = _keys(sources, offsets)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        moved = np.flatnonzero(self._keys[at] == wanted)
        return moved, self.rows[at[moved]]


def encode_moves(description: MovesDescription, rows: Rows) -> bytes:
    """The bytes of a table; `rows` in any order, each old place at most once."""
    order = np.argsort(_keys(rows["from_pack"], rows["from_offset"]), kind="stable")
    sink = pa.BufferOutputStream()
    schema = parquet.schema_of(MOVE)
    with parquet.writer(sink, schema) as writer:
        if len(rows):
            writer.write_table(parquet.to_arrow(rows[order], schema))
        writer.add_key_value_metadata({METADATA_KEY: description.model_dump_json().encode()})
    data: bytes = sink.getvalue().to_pybytes()
    return data


def store_moves(store: Store, name: str, description: MovesDescription, rows: Rows) -> ObjectRef:
    """Store a table and read it back."""
    data = encode_moves(description, rows)
    ref = ObjectRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    store.create(name, [data])
    pinned.require_stored(store, ref)
    return ref


def open_moves(store: Store, ref: ObjectRef, *, media_id: str) -> MovesTable:
    """A table that the log names. MediaDamaged if it is not what was stored, or no table of this media."""
    if not layout.is_moves(ref.name):
        raise MediaDamaged(f"{ref.name!r} is no name of a moves table")
    about, rows = parquet.read_table(
        pinned.fetch(store, ref, limit=MAX_SIZE), ref.name, dtype=MOVE, key=METADATA_KEY, max_rows=MAX_MOVES
    )
    try:
        description = MovesDescription.model_validate_json(about or b"absent", strict=True)
    except ValidationError as error:
        raise MediaDamaged(f"{ref.name} does not describe itself: {error}") from error
    if complaint := _complaint(description, rows, media_id):
        raise MediaDamaged(f"{ref.name}: {complaint}")
    return MovesTable(description, rows)


def _complaint(about: MovesDescription, rows: Rows, media_id: str) -> str:
    """What is wrong with a table, or nothing."""
    if about.media != media_id:
        return f"it is of media {about.media}"
    if not all(map(layout.is_pack, [*about.sources, *(item.name for item in about.packs)])):
        return "it names something else as a pack"
    for column, count in (("from_pack", len(about.sources)), ("pack", len(about.packs))):
        if np.any(rows[column] < 0) or np.any(rows[column] >= count):
            return f"an ordinal in {column} is outside its {count} packs"
    if np.any(np.diff(_keys(rows["from_pack"], rows["from_offset"])) <= 0):
        return "old places do not ascend"
    ends = np.array([item.size - pack.FOOTER_SIZE for item in about.packs], np.int64)
    offset, length = rows["offset"].astype(np.int64), rows["length"].astype(np.int64)
    outside = (offset < pack.HEADER_SIZE) | (length < 1) | (offset + length > ends[rows["pack"]])
    return "a frame lies outside its pack" if np.any(outside) else ""


def _keys(packs: npt.NDArray[np.int32], offsets: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Old places as single numbers that sort like the pairs."""
    return (packs.astype(np.int64) << 32) | offsets.astype(np.int64)


class Relocations:
    """All relocations that a view knows, their tables loaded when a pack that they concern is met,
    and remembered as far as there is room.

    They apply in log order, each to what the ones before it have made of a place. Safe for many threads.
    """

    def __init__(
        self,
        store: Store,
        relocations: Sequence[Relocation],
        *,
        media_id: str,
        doomed: Container[str] = frozenset(),
        kept: int = KEPT,
    ) -> None:
        """`doomed` are the objects that may be gone: no point that stands leads to a table among them.
        `kept`: bytes of tables that are remembered, the one last asked for whatever it takes."""
        self._kept = kept
        self._store = store
        self._media_id = media_id
        self._doomed = doomed
        self._refs = [
            (frozenset(item.entry.packs), item.entry.table) for item in relocations if item.entry.table
        ]
        self._tables: dict[str, MovesTable] = {}
        self._lock = threading.Lock()

    def concerning(self, packs: frozenset[str]) -> list[tuple[str, MovesTable]]:
        """The tables, by name, in the order in which they apply to rows in `packs`: also those that concern
        packs to which an earlier one of them leads. ObjectsDoomed if one of them is doomed."""
        found: list[tuple[str, MovesTable]] = []
        for name, _, table in self.examined(packs):
            if isinstance(table, MediaDamaged):
                raise table
            found.append((name, table))
        return found

    def examined(
        self, packs: frozenset[str]
    ) -> Iterator[tuple[str, frozenset[str], MovesTable | MediaDamaged]]:
        """The same with the packs that each table is about, and in place of one that cannot be read, why."""
        reached = packs
        for sources, ref in self._refs:
            if sources.isdisjoint(reached):
                continue
            try:
                table = self._open(ref)
            except MediaDamaged as error:
                yield ref.name, sources, error
                continue
            yield ref.name, sources, table
            reached |= {item.name for item in table.description.packs}

    def _open(self, ref: ObjectRef) -> MovesTable:
        if ref.name in self._doomed:
            raise ObjectsDoomed(f"{ref.name} was given up, and with it the way to frames that it had moved")
        with self._lock:
            table = self._tables.pop(ref.name, None)
            if table is None:
                table = open_moves(self._store, ref, media_id=self._media_id)
            # At the end: the first one is the one that was not asked for the longest.
            self._tables[ref.name] = table
            while len(self._tables) > 1 and self.size > self._kept:
                del self._tables[next(iter(self._tables))]
            return table

    @property
    def size(self) -> int:
        """Bytes of memory that the remembered tables take."""
        return sum(table.size for table in list(self._tables.values()))


class PackNumbers:
    """All packs that are met, numbered once; they only ever grow in number. Safe for many threads."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refs: list[PackRef] = []
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> int | None:
        return self._numbers.get(name)

    def ordinals(self, packs: Sequence[PackRef]) -> npt.NDArray[np.int32]:
        """The number of each pack, in their order."""
        with self._lock:
            return np.array([self._number(item) for item in packs], np.int32)

    def _number(self, item: PackRef) -> int:
        if item.name not in self._numbers:
            self.names.append(item.name)
            self.refs.append(item)
            self._numbers[item.name] = len(self.names) - 1
        return self._numbers[item.name]


def follow(
    moves: MovesTable,
    packs: PackNumbers,
    pack: npt.NDArray[np.int32],
    offset: npt.NDArray[np.uint32],
    length: npt.NDArray[np.uint32],
) -> bool:
    """Let places follow one moves table, in place; whether any did. `pack` holds numbers of `packs`."""
    targets = packs.ordinals(moves.description.packs)
    sources = _sources(moves, packs, pack)
    at = np.flatnonzero(sources != NO_SOURCE)
    # All are looked up before any is changed: one table moves a frame once.
    moved, rows = moves.find(sources[at], offset[at])
    at = at[moved]
    pack[at], offset[at], length[at] = targets[rows["pack"]], rows["offset"], rows["length"]
    return len(at) > 0


def _sources(moves: MovesTable, packs: PackNumbers, pack: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """For each place the number of its pack among the table's sources. There may be thousands of sources, so
    each pack that is met is asked about once."""
    # ZEROS, which is -1, counts from the end: the last one is that of no pack.
    found = np.full(len(packs.names) + 1, NO_SOURCE, np.int32)
    for number in np.flatnonzero(np.bincount(pack[pack >= 0])).tolist():
        found[number] = moves.source(packs.names[number])
    return found[pack]
