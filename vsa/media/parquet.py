"""Parquet as the media uses it: plain columns, no nulls, no extension types (docs/media-format.md, "Tables").

Parsers of Parquet have had holes. Nothing reaches this module that was not proven against a digest in
the log; it bounds what a file may make us allocate, and refuses columns other than those expected.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vsa.errors import MediaDamaged
from vsa.media.parquet_pages import require_pages
from vsa.ranges import KIB, MIB

Rows = npt.NDArray[np.void]

_MAX_THRIFT = 512 * MIB
_PAGE_HEADS = 64 * KIB
_ARROW_ERRORS = (pa.ArrowException, OSError, ValueError)


def schema_of(dtype: np.dtype[Any]) -> pa.Schema:
    """Required columns for the fields of a structured type; bytes become FIXED_LEN_BYTE_ARRAY."""
    fields: Mapping[str, Any] = dtype.fields or {}
    return pa.schema([pa.field(name, _arrow_type(kind[0]), nullable=False) for name, kind in fields.items()])


def _arrow_type(kind: np.dtype[Any]) -> pa.DataType:
    return pa.binary(kind.itemsize) if kind.kind == "V" else pa.from_numpy_dtype(kind)


def to_arrow(rows: Rows, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([_column(rows[name]) for name in schema.names], schema=schema)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.dtype.kind != "V":
        return pa.array(values)
    data = pa.py_buffer(values.tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(values.dtype.itemsize), len(values), [None, data])


def from_arrow(table: pa.Table, dtype: np.dtype[Any]) -> Rows:
    """ValueError if a column holds nulls, which the schema excludes."""
    if any(column.null_count for column in table.columns):
        raise ValueError("a column holds nulls")
    rows: Rows = np.zeros(table.num_rows, dtype)
    for name, (kind, *_) in (dtype.fields or {}).items():
        column = table.column(name)
        if kind.kind == "V":
            data = b"".join(_fixed_bytes(chunk, kind.itemsize) for chunk in column.chunks)
            rows[name] = np.frombuffer(data, kind)
        else:
            rows[name] = column.to_numpy()
    return rows


def _fixed_bytes(chunk: pa.Array, width: int) -> bytes:
    whole: bytes = chunk.buffers()[1].to_pybytes()
    return whole[chunk.offset * width : (chunk.offset + len(chunk)) * width]


class HashingFile(io.RawIOBase):
    """Writes through to a file and knows how many bytes passed, and their digest since `part` was called."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._whole = hashlib.sha256()
        self._part = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._whole.update(view)
        self._part.update(view)
        self.size += len(view)
        self._file.write(view)
        return len(view)

    def part(self) -> str:
        """The digest of what was written since the last call, or since the start."""
        digest, self._part = self._part.hexdigest(), hashlib.sha256()
        return digest

    def sha256(self) -> str:
        return self._whole.hexdigest()


def writer(sink: Any, schema: pa.Schema, *, delta: Sequence[str] = ()) -> pq.ParquetWriter:
    """zstd pages without dictionaries or statistics; the columns of `delta` as DELTA_BINARY_PACKED."""
    encodings = {name: "DELTA_BINARY_PACKED" if name in delta else "PLAIN" for name in schema.names}
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        column_encoding=encodings,
        write_statistics=False,
        store_schema=False,
    )


def opened(source: Any, metadata: Any = None) -> pq.ParquetFile:
    """A parsed footer, or the file of one that was parsed before; extension types are never made."""
    return pq.ParquetFile(
        source,
        metadata=metadata,
        arrow_extensions_enabled=False,
        thrift_string_size_limit=_MAX_THRIFT,
        thrift_container_size_limit=_MAX_THRIFT,
    )


def read_table(
    data: bytes, name: str, *, dtype: np.dtype[Any], key: bytes, max_rows: int
) -> tuple[bytes, Rows]:
    """A proven table of one piece: the value of metadata `key`, and its rows. MediaDamaged if it is none."""
    try:
        file = opened(pa.BufferReader(data))
        require_columns(file.schema_arrow, dtype, name)
        whole, metadata = memoryview(data), file.metadata
        if metadata.num_rows > max_rows:
            raise ValueError(f"{metadata.num_rows} rows, at most {max_rows} were expected")
        for number in range(metadata.num_row_groups):
            require_group(metadata.row_group(number), whole, 0, dtype=dtype, max_rows=max_rows)
        about: Mapping[bytes, bytes] = metadata.metadata or {}
        return about.get(key, b""), from_arrow(file.read(use_threads=False), dtype)
    except _ARROW_ERRORS as error:
        raise MediaDamaged(f"{name} is not the Parquet file it should be: {error}") from error


def require_columns(found: pa.Schema, dtype: np.dtype[Any], name: str) -> None:
    if not found.equals(schema_of(dtype), check_metadata=False):
        raise MediaDamaged(f"{name} has other columns than it should: {found}")


def require_group(group: Any, data: memoryview, first: int, *, dtype: np.dtype[Any], max_rows: int) -> None:
    """ValueError unless the row group of these bytes, which stand at `first` of the file, can be read without
    allocating more than a few times what so many rows take. `group` is its metadata."""
    if not 0 < group.num_rows <= max_rows:
        raise ValueError(f"a row group of {group.num_rows} rows, at most {max_rows} were expected")
    fields: Mapping[str, Any] = dtype.fields or {}
    for number, (kind, *_) in enumerate(fields.values()):
        column = group.column(number)
        if column.num_values != group.num_rows:
            raise ValueError(
                f"a column of {column.num_values} values in a row group of {group.num_rows} rows"
            )
        # No encoding of ours takes more than a value's own bytes and some for each page.
        require_pages(column, data, first, at_most=column.num_values * kind.itemsize + _PAGE_HEADS)
