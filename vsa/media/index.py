"""Indexes: which extents of a disk one attempt wrote or cleared, and where (docs/media-format.md, "Indexes").

Parquet with one row group for each segment that has rows. The footer says where each of them lies and
what its digest is, so that a reader proves and parses only those it needs. Every number is checked against
the disk and the packs before it is used.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationError

from vsa.errors import MediaDamaged, NewerVersion
from vsa.media import layout, pack, parquet
from vsa.media.layout import (
    MAX_EXTENT_SIZE,
    MAX_FOOTER_SIZE,
    MAX_INDEX_SIZE,
    MIN_EXTENT_SIZE,
    SEGMENT,
    IndexKind,
)
from vsa.media.parquet import HashingFile, Rows
from vsa.media.pinned import PinnedParts
from vsa.media.store import Store
from vsa.model import Bytes, Identifier, IndexRef, Noun, ObjectName, Sha256
from vsa.ranges import ByteRange

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

_SCHEMA = parquet.schema_of(ROW)
_MAX_ROW_GROUP_BYTES = 2 * SEGMENT * ROW.itemsize


class Offer(StrEnum):
    """To whom an extent is offered that is stored already; each narrower than the one before."""

    MEDIA = "media"
    CLIENT = "client"
    OFF = "off"


class PackRef(Noun):
    """One pack object, pinned by its size and digest."""

    name: ObjectName
    size: Annotated[int, Field(ge=pack.HEADER_SIZE + pack.FOOTER_SIZE, lt=2**32)]
    sha256: Sha256


class IndexSegment(Noun):
    """One row group: the segment that it describes, and where its bytes lie in the file."""

    number: Annotated[int, Field(ge=0, lt=2**16)]
    offset: Bytes
    length: Annotated[int, Field(ge=1, le=_MAX_ROW_GROUP_BYTES)]
    sha256: Sha256

    @property
    def at(self) -> ByteRange:
        return ByteRange(self.offset, self.offset + self.length)


class IndexDescription(Noun):
    """What an index says of itself, as JSON under METADATA_KEY. `segments` names its row groups in order.

    `offer` says to whom later backups may offer its extents: all of the media, the client `client`, nobody.
    """

    format: Literal[1] = 1
    media: str
    run: Identifier
    disk_key: Identifier
    disk_size: Bytes
    extent_size: Annotated[int, Field(ge=MIN_EXTENT_SIZE, le=MAX_EXTENT_SIZE)]
    kind: IndexKind
    offer: Offer = Offer.OFF
    client: Identifier = "nobody"
    packs: tuple[PackRef, ...]
    segments: tuple[IndexSegment, ...] = ()

    @property
    def extents(self) -> int:
        return layout.extent_count(self.disk_size, self.extent_size)


def write_index(
    path: Path, name: str, about: IndexDescription, groups: Iterator[tuple[int, Rows]]
) -> IndexRef:
    """Write a new index file that will be stored as `name`.

    `groups` yields the number and the rows of each segment, in order; `about.segments` is filled in.
    """
    with path.open("wb") as file:
        sink = HashingFile(file)
        parts: list[IndexSegment] = []
        with parquet.writer(sink, _SCHEMA, delta=("extent", "pack", "offset", "length")) as writer:
            # The magic that every Parquet file begins with belongs to no row group.
            sink.part()
            for number, rows in groups:
                start = sink.size
                writer.write_table(parquet.to_arrow(rows, _SCHEMA), row_group_size=SEGMENT)
                parts.append(
                    IndexSegment(number=number, offset=start, length=sink.size - start, sha256=sink.part())
                )
            footer_at = sink.size
            described = about.model_copy(update={"segments": tuple(parts)})
            writer.add_key_value_metadata({METADATA_KEY: described.model_dump_json().encode()})
        return IndexRef(
            name=name,
            size=sink.size,
            sha256=sink.sha256(),
            footer=sink.size - footer_at,
            footer_sha256=sink.part(),
        )


class IndexFile:
    """An index whose bytes are those the log names; every row is checked as it is read. Thread-safe."""

    def __init__(
        self, parts: PinnedParts, ref: IndexRef, *, media_id: str, extent_size: int, overhead: int
    ) -> None:
        """MediaDamaged if it is no index of this media. `overhead` is what seals add to a stored frame."""
        self._overhead = overhead
        self.ref = ref
        self._parts = parts
        self._lock = threading.Lock()
        self._window = _Window(ref.size)
        try:
            metadata = parquet.opened(pa.BufferReader(parts.footer)).metadata
            self._file = parquet.opened(pa.PythonFile(self._window, mode="r"), metadata)
            self.description = self._describe(metadata.metadata or {})
        except (pa.ArrowException, OSError) as error:
            raise MediaDamaged(f"{ref.name} is not the Parquet file it should be: {error}") from error
        self._check(media_id, extent_size)
        self._groups = {part.number: group for group, part in enumerate(self.description.segments)}
        self._pack_ends = np.array(
            [item.size - pack.FOOTER_SIZE for item in self.description.packs], np.int64
        )

    @property
    def segments(self) -> tuple[int, ...]:
        """Numbers of the segments that have rows, ascending."""
        return tuple(self._groups)

    def has(self, segment: int) -> bool:
        """Whether it has rows of the segment."""
        return segment in self._groups

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._file.metadata.num_rows)

    def rows(self, segment: int) -> Rows | None:
        """The checked rows of one segment, ascending by extent; None if it has none."""
        group = self._groups.get(segment)
        if group is None:
            return None
        part = self.description.segments[group]
        data = self._parts.part(part.at, part.sha256)
        try:
            parquet.require_group(
                self._file.metadata.row_group(group),
                memoryview(data),
                part.offset,
                dtype=ROW,
                max_rows=SEGMENT,
            )
            with self._lock, self._window.showing(part.offset, data):
                table = self._file.read_row_group(group, use_threads=False)
            rows = parquet.from_arrow(table, ROW)
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
                raise NewerVersion(
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
        parquet.require_columns(self._file.schema_arrow, ROW, name)
        if not all(layout.is_pack(item.name) for item in about.packs):
            raise MediaDamaged(f"{name} names something else as a pack")
        numbers = [part.number for part in about.segments]
        ascending = all(a < b for a, b in pairwise(numbers))
        if not ascending or len(numbers) != metadata.num_row_groups or self._last_segment_is_outside():
            raise MediaDamaged(
                f"{name}: its segments do not fit a disk of {about.disk_size} bytes or its row groups"
            )
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            if not 0 < group.num_rows <= SEGMENT:
                raise MediaDamaged(f"{name}: a row group of {group.num_rows} rows")

    def _last_segment_is_outside(self) -> bool:
        about = self.description
        return bool(about.segments) and about.segments[-1].number >= layout.segments(about.extents)

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
        impossible = (length <= self._overhead) | (length > self.raw_lengths(rows) + self._overhead)
        wrong = np.flatnonzero(outside | impossible)
        if not wrong.size:
            return ""
        row = rows[wrong[0]]
        return (
            f"extent {row['extent']} cannot be {row['length']} bytes at {row['offset']} of pack {row['pack']}"
        )


File = TypeVar("File", bound=IndexFile)


def open_index(
    store: Store,
    ref: IndexRef,
    *,
    media_id: str,
    extent_size: int,
    overhead: int,
    by_parts: bool = False,
    kind: type[File] = IndexFile,  # type: ignore[assignment]
) -> File:
    """Prove and describe one index; its rows are fetched when they are asked for.

    `overhead` is that of the media's `PackCodec`. With `by_parts` nothing is held but its footer, and rows
    that are sound are read beside others that are not.
    """
    if not layout.is_index(ref.name):
        raise MediaDamaged(f"{ref.name!r} is no name of an index")
    if ref.size > MAX_INDEX_SIZE or ref.footer > min(ref.size, MAX_FOOTER_SIZE):
        raise MediaDamaged(f"{ref.name}: no index has {ref.size} bytes with a footer of {ref.footer}")
    parts = PinnedParts(store, ref, by_parts=by_parts)
    return kind(parts, ref, media_id=media_id, extent_size=extent_size, overhead=overhead)


class _Window(io.RawIOBase):
    """What the parser sees of an index: the one row group that has been proven, at its place in the file."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._first = self._at = 0
        self._data = b""

    def showing(self, first: int, data: bytes) -> _Window:
        self._first, self._data = first, data
        return self

    def __enter__(self) -> _Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._data = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._size
        self._at = self._at + offset if whence == io.SEEK_CUR else offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        start = self._at - self._first
        if start < 0 or size < 0 or start + size > len(self._data):
            raise OSError(f"{size} bytes at {self._at} are outside the row group that was asked for")
        self._at += size
        return self._data[start : start + size]
