"""Indexes: which extents of a disk one attempt wrote or cleared, and where (docs/media-format.md, "Indexes").

Parquet with one row group for each segment that has rows. Parsers of Parquet have had holes, so nothing
is parsed before the whole object has the size and digest that the log states; and every number is
checked against the disk and the packs afterwards.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from vsa.errors import MediaDamaged, MediaUnusable
from vsa.media import layout, pack
from vsa.media.layout import MAX_EXTENT_SIZE, MAX_INDEX_SIZE, MIN_EXTENT_SIZE, SEGMENT, IndexKind
from vsa.media.scratch import scratch_errors
from vsa.media.store import Buffer, Store
from vsa.model import Bytes, Identifier, IndexRef, Noun, ObjectName, Sha256
from vsa.ranges import MIB, ByteRange

METADATA_KEY = b"azure-vsa.index"
ZEROS = -1
"""The pack ordinal of an extent that reads as zeros."""

ROW = np.dtype(
    [
        ("extent", np.uint32),
        ("pack", np.int32),
        ("offset", np.uint32),
        ("length", np.uint32),
        ("crc", np.uint32),
        ("digest", np.void, 32),
    ]
)
Rows = npt.NDArray[np.void]

_SCHEMA = pa.schema(
    [
        pa.field("extent", pa.uint32(), nullable=False),
        pa.field("pack", pa.int32(), nullable=False),
        pa.field("offset", pa.uint32(), nullable=False),
        pa.field("length", pa.uint32(), nullable=False),
        pa.field("crc", pa.uint32(), nullable=False),
        pa.field("digest", pa.binary(32), nullable=False),
    ]
)
_NUMBERS = ("extent", "pack", "offset", "length", "crc")
_ENCODINGS = {
    "extent": "DELTA_BINARY_PACKED",
    "pack": "DELTA_BINARY_PACKED",
    "offset": "DELTA_BINARY_PACKED",
    "length": "DELTA_BINARY_PACKED",
    "crc": "PLAIN",
    "digest": "PLAIN",
}
IN_MEMORY = 32 * MIB
_PIECE = 8 * MIB
_MAX_THRIFT = 512 * MIB
_MAX_ROW_GROUP_BYTES = 2 * SEGMENT * ROW.itemsize


class PackRef(Noun):
    """One pack object, pinned by its size and digest."""

    name: ObjectName
    size: Annotated[int, Field(ge=pack.HEADER_SIZE + pack.FOOTER_SIZE, lt=2**32)]
    sha256: Sha256


class IndexDescription(Noun):
    """What an index says of itself, as JSON under METADATA_KEY. `segments` names its row groups in order."""

    format: Literal[1] = 1
    media: str
    run: Identifier
    disk_key: Identifier
    disk_size: Bytes
    extent_size: Annotated[int, Field(ge=MIN_EXTENT_SIZE, le=MAX_EXTENT_SIZE)]
    kind: IndexKind
    packs: tuple[PackRef, ...]
    segments: tuple[Annotated[int, Field(ge=0, lt=2**16)], ...]

    @property
    def extents(self) -> int:
        return layout.extent_count(self.disk_size, self.extent_size)


def write_index(path: Path, description: IndexDescription, groups: Iterator[Rows]) -> None:
    """Write a new index file; `groups` yields the rows of each of the description's segments, in order."""
    with pq.ParquetWriter(
        path,
        _SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        column_encoding=_ENCODINGS,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        for rows in groups:
            writer.write_table(_to_arrow(rows), row_group_size=SEGMENT)
        writer.add_key_value_metadata({METADATA_KEY: description.model_dump_json().encode()})


class IndexFile:
    """An index whose bytes are those the log names; every row is checked as it is read. Thread-safe."""

    def __init__(self, data: Buffer, ref: IndexRef, *, media_id: str, extent_size: int) -> None:
        """`data` was already checked against `ref`. MediaDamaged if it is no index of this media."""
        self.ref = ref
        self._lock = threading.Lock()
        try:
            self._file = pq.ParquetFile(
                pa.BufferReader(pa.py_buffer(data)),
                arrow_extensions_enabled=False,
                thrift_string_size_limit=_MAX_THRIFT,
                thrift_container_size_limit=_MAX_THRIFT,
            )
            self.description = self._describe(self._file.metadata.metadata or {})
        except (pa.ArrowException, OSError) as error:
            raise MediaDamaged(f"{ref.name} is not the Parquet file it should be: {error}") from error
        self._check(media_id, extent_size)
        self._groups = {segment: group for group, segment in enumerate(self.description.segments)}
        self._pack_ends = np.array(
            [item.size - pack.FOOTER_SIZE for item in self.description.packs], np.int64
        )

    @property
    def segments(self) -> tuple[int, ...]:
        """Numbers of the segments that have rows, ascending."""
        return self.description.segments

    def rows(self, segment: int) -> Rows | None:
        """The checked rows of one segment, ascending by extent; None if it has none."""
        group = self._groups.get(segment)
        if group is None:
            return None
        try:
            with self._lock:
                table = self._file.read_row_group(group, use_threads=False)
            rows = _from_arrow(table)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise MediaDamaged(f"{self.ref.name}, segment {segment}: unreadable rows: {error}") from error
        if complaint := self._complaint(rows, segment):
            raise MediaDamaged(f"{self.ref.name}, segment {segment}: {complaint}")
        return rows

    def raw_lengths(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """Bytes of each row's extent when it was stored: short only at the end of the disk."""
        size, extent_size = self.description.disk_size, self.description.extent_size
        left = size - rows["extent"].astype(np.int64) * extent_size
        return np.minimum(left, extent_size).astype(np.uint32)

    def _describe(self, metadata: dict[bytes, bytes]) -> IndexDescription:
        try:
            return IndexDescription.model_validate_json(metadata.get(METADATA_KEY, b"absent"), strict=True)
        except ValidationError as error:
            if any(item["loc"] == ("format",) for item in error.errors()):
                raise MediaUnusable(
                    f"{self.ref.name} is of a newer index format: upgrade azure-vsa"
                ) from error
            raise MediaDamaged(f"{self.ref.name} does not describe itself: {error}") from error

    def _check(self, media_id: str, extent_size: int) -> None:
        about, metadata, name = self.description, self._file.metadata, self.ref.name
        expected = (media_id, extent_size)
        if (about.media, about.extent_size) != expected:
            raise MediaDamaged(
                f"{name} is of media {about.media} with extents of {about.extent_size}, not {expected}"
            )
        if not self._file.schema_arrow.equals(_SCHEMA, check_metadata=False):
            raise MediaDamaged(f"{name} has other columns than an index: {self._file.schema_arrow}")
        if not all(layout.is_pack(item.name) for item in about.packs):
            raise MediaDamaged(f"{name} names something else as a pack")
        ascending = all(a < b for a, b in zip(about.segments, about.segments[1:], strict=False))
        if not ascending or len(about.segments) != metadata.num_row_groups or self._last_segment_is_outside():
            raise MediaDamaged(
                f"{name}: its segments do not fit a disk of {about.disk_size} bytes or its row groups"
            )
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            if not 0 < group.num_rows <= SEGMENT or group.total_byte_size > _MAX_ROW_GROUP_BYTES:
                raise MediaDamaged(
                    f"{name}: a row group of {group.num_rows} rows, {group.total_byte_size} bytes"
                )

    def _last_segment_is_outside(self) -> bool:
        about = self.description
        return bool(about.segments) and about.segments[-1] >= layout.segments(about.extents)

    def _complaint(self, rows: Rows, segment: int) -> str:
        """What is wrong with the rows, or nothing."""
        extent, ordinal = rows["extent"].astype(np.int64), rows["pack"]
        first = segment * SEGMENT
        last = min(first + SEGMENT, self.description.extents) - 1
        if extent[0] < first or extent[-1] > last or np.any(np.diff(extent) <= 0):
            return f"extents are not ascending within {first} to {last}"
        if np.any(ordinal < ZEROS) or np.any(ordinal >= len(self._pack_ends)):
            return f"a pack ordinal is outside the {len(self._pack_ends)} packs"
        if self.description.kind is IndexKind.BASE and np.any(ordinal == ZEROS):
            return "a base index has rows for zeros"
        return self._misplaced(rows[ordinal >= 0])

    def _misplaced(self, rows: Rows) -> str:
        offset, length = rows["offset"].astype(np.int64), rows["length"].astype(np.int64)
        outside = (offset < pack.HEADER_SIZE) | (offset + length > self._pack_ends[rows["pack"]])
        impossible = (length < 1) | (length > self.raw_lengths(rows))
        wrong = np.flatnonzero(outside | impossible)
        if not wrong.size:
            return ""
        row = rows[wrong[0]]
        return (
            f"extent {row['extent']} cannot be {row['length']} bytes at {row['offset']} of pack {row['pack']}"
        )


def open_index(
    store: Store, ref: IndexRef, *, media_id: str, extent_size: int, scratch: Path | None = None
) -> IndexFile:
    """Read and check one index; large ones are held in an unnamed file in `scratch`, not in memory."""
    if not layout.is_index(ref.name):
        raise MediaDamaged(f"{ref.name!r} is no name of an index")
    return IndexFile(fetch_checked(store, ref, scratch), ref, media_id=media_id, extent_size=extent_size)


def fetch_checked(store: Store, ref: IndexRef, scratch: Path | None, *, in_memory: int = IN_MEMORY) -> Buffer:
    """The object's bytes; MediaDamaged unless they have exactly the size and digest of `ref`.

    More than `in_memory` bytes are held in an unnamed file in `scratch`.
    """
    size = store.size(ref.name)
    if size != ref.size or size > MAX_INDEX_SIZE:
        raise MediaDamaged(f"{store.location}: {ref.name} has {size} bytes, the log says {ref.size}")
    data = store.read(ref.name, limit=size) if size <= in_memory else _spool(store, ref, scratch)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise MediaDamaged(f"{store.location}: {ref.name} does not have the digest that the log states")
    return data


def require_stored(store: Store, ref: IndexRef) -> None:
    """Read an object back and compare it with `ref`; MediaDamaged if the store did not keep it."""
    digest = hashlib.sha256()
    for at in pieces(ref.size):
        digest.update(store.read(ref.name, at))
    if store.size(ref.name) != ref.size or digest.hexdigest() != ref.sha256:
        raise MediaDamaged(f"{store.location}: {ref.name} reads back differently from what was stored")


def pieces(size: int) -> Iterator[ByteRange]:
    """The ranges in which a large object is read."""
    return (ByteRange(offset, min(offset + _PIECE, size)) for offset in range(0, size, _PIECE))


def _spool(store: Store, ref: IndexRef, scratch: Path | None) -> memoryview:
    """The object in an unnamed temporary file, mapped: what is proven is what is parsed."""
    with scratch_errors(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        for at in pieces(ref.size):
            file.write(store.read(ref.name, at))
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), ref.size, access=mmap.ACCESS_READ))


def _to_arrow(rows: Rows) -> Any:
    columns = [pa.array(rows[name]) for name in _NUMBERS]
    digests = pa.py_buffer(rows["digest"].tobytes())
    columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(rows), [None, digests]))
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _from_arrow(table: Any) -> Rows:
    """ValueError if a column holds nulls, which the schema excludes."""
    if any(column.null_count for column in table.columns):
        raise ValueError("a column holds nulls")
    rows: Rows = np.zeros(table.num_rows, ROW)
    for name in _NUMBERS:
        rows[name] = table.column(name).to_numpy()
    digests = b"".join(_digest_bytes(chunk) for chunk in table.column("digest").chunks)
    rows["digest"] = np.frombuffer(digests, "V32")
    return rows


def _digest_bytes(chunk: Any) -> bytes:
    whole: bytes = chunk.buffers()[1].to_pybytes()
    return whole[chunk.offset * 32 : (chunk.offset + len(chunk)) * 32]
