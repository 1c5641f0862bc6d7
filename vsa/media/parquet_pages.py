"""How much the pages of a Parquet column would make a reader allocate, found before it is asked to.

A column's metadata says how large it is, but a reader allocates what each page's own header says. So the
headers are read here first (Parquet format, "PageHeader"; Thrift, "compact protocol"). Anything but
plain data pages is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_I32, _BINARY, _STRUCT = 5, 8, 12
_TRUE, _FALSE, _BYTE, _DOUBLE = 1, 2, 3, 7
_DATA_PAGE = 0
_DEEPEST = 8


class _Page(NamedTuple):
    kind: int
    uncompressed: int
    compressed: int
    end: int
    """Where the header ends and the page begins."""


def require_pages(column: Any, data: memoryview, first: int, *, at_most: int) -> None:
    """ValueError unless all pages of a column lie in `data`, which stands at `first` of the file, and hold at
    most `at_most` bytes together when they are decompressed. `column` is the column's metadata."""
    if column.dictionary_page_offset is not None:
        raise ValueError("a column has a dictionary")
    at = column.data_page_offset - first
    end = at + column.total_compressed_size
    if not 0 <= at <= end <= len(data):
        raise ValueError(f"a column's pages at {column.data_page_offset} lie outside its row group")
    left = at_most
    while at < end:
        page = _read_header(data[:end], at)
        left -= page.uncompressed
        if page.kind != _DATA_PAGE or page.uncompressed < 0 or page.compressed < 0 or left < 0:
            raise ValueError(f"a page of {page.uncompressed} bytes, of kind {page.kind}")
        at = page.end + page.compressed
    if at != end:
        raise ValueError("the pages of a column overlap the next one")


def _read_header(data: memoryview, at: int) -> _Page:
    reader = _Compact(data, at)
    found = reader.integers_of_struct()
    try:
        return _Page(found[1], found[2], found[3], reader.at)
    except KeyError as error:
        raise ValueError(f"a page header lacks its field {error}") from error


class _Compact:
    """Reads Thrift's compact protocol as far as page headers need; ValueError if the bytes are none."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self.at = at

    def integers_of_struct(self) -> dict[int, int]:
        """The 32-bit integers of a struct by field number; everything else is passed over."""
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            field = field + step if step else self._zigzag()
            if kind == _I32:
                found[field] = self._zigzag()
            else:
                self._pass_over(kind, _DEEPEST)
        return found

    def _pass_over(self, kind: int, depth: int) -> None:
        if depth == 0:
            raise ValueError("a page header is nested too deeply")
        if kind in (_TRUE, _FALSE):
            return
        if kind in (4, _I32, 6):
            self._varint()
        elif kind in (_BYTE, _DOUBLE):
            self.at += 1 if kind == _BYTE else 8
        elif kind == _BINARY:
            length = self._varint()
            self.at += length
        elif kind == _STRUCT:
            while (head := self._byte()) != 0:
                if not head >> 4:
                    self._varint()
                self._pass_over(head & 15, depth - 1)
        else:
            raise ValueError(f"a page header holds a value of type {kind}, which none of its fields has")

    def _byte(self) -> int:
        if not 0 <= self.at < len(self._data):
            raise ValueError("a page header runs out of its column")
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number in a page header is longer than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
