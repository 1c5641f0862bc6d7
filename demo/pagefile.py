"""Raw disks without a file system: the page file of an imaginary database engine.

The disk begins with a header page. Segments of 1 MiB lie scattered over it, so that it is sparse as a
real data disk is; each holds pages of 8 KiB: a header (magic, page number, change number, CRC32 of the
body) and a body cut from real files. Numbers are little-endian.
"""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from demo.images import clear_range, data_ranges
from demo.sources import SourceFile, choose, shifted
from vsa.ranges import MIB

PAGE = 8192
HALF_PAGE = PAGE // 2
SEGMENT = MIB

_MAGIC = b"PAGEFILE"
_HEADER = struct.Struct("<8sQQI")
_BODY = PAGE - _HEADER.size
_EMPTY = bytes(PAGE)


class Page(NamedTuple):
    """One page of the disk: where it lies (in pages), how often it was written, and what it holds."""

    number: int
    changes: int
    body: bytes

    def encode(self) -> bytes:
        """Header and body, PAGE bytes; a short body is filled with zeros."""
        body = self.body.ljust(_BODY, b"\0")
        return _HEADER.pack(_MAGIC, self.number, self.changes, zlib.crc32(body)) + body


def fill(path: Path, content: int, sources: Sequence[SourceFile], seed: int) -> None:
    """Write `content` bytes of pages, rounded up to whole segments, at places that `seed` decides."""
    count = max(1, -(-content // SEGMENT))
    places = range(SEGMENT, path.stat().st_size - SEGMENT + 1, SEGMENT)
    if count > len(places):
        raise ValueError(f"{path}: {count} segments of 1 MiB are asked for, there is room for {len(places)}")
    bodies = _bodies(choose(sources, count * SEGMENT, seed))
    with path.open("r+b") as disk:
        disk.write(Page(0, 1, b"").encode())
        for offset in sorted(_rng(seed).sample(places, count)):
            numbers = range(offset // PAGE, (offset + SEGMENT) // PAGE)
            disk.seek(offset)
            disk.write(b"".join(Page(number, 1, next(bodies)).encode() for number in numbers))


def update(path: Path, length: int, seed: int) -> None:
    """Write `length` bytes, rounded up to half pages of 4 KiB, to pages scattered over the disk.

    Only the first half of a page changes, header included, as when an engine updates a row in place.
    """
    rng = _rng(seed)
    pages = [page for number, data in _used_pages(path) if number and (page := _decode(number, data))]
    with path.open("r+b") as disk:
        for page in rng.sample(pages, min(len(pages), -(-length // HALF_PAGE))):
            rows = HALF_PAGE - _HEADER.size
            body = shifted(page.body[:rows], rng.randrange(1, 256)) + page.body[rows:]
            disk.seek(page.number * PAGE)
            disk.write(Page(page.number, page.changes + 1, body).encode()[:HALF_PAGE])


def drop(path: Path, length: int, seed: int) -> None:
    """Clear `length` bytes, rounded up to whole segments: the engine gives tables back to a thin disk."""
    segments = sorted({number * PAGE // SEGMENT for number, _ in _used_pages(path) if number})
    for segment in _rng(seed).sample(segments, min(len(segments), -(-length // SEGMENT))):
        clear_range(path, segment * SEGMENT, SEGMENT)


def is_pagefile(path: Path) -> bool:
    """Whether the disk begins with such a header page."""
    with path.open("rb") as disk:
        return disk.read(len(_MAGIC)) == _MAGIC


def damaged_pages(path: Path) -> list[int]:
    """Numbers of the pages that are not empty and yet not whole: wrong place, wrong checksum, no header."""
    return [number for number, data in _used_pages(path) if _decode(number, data) is None]


def _used_pages(path: Path) -> Iterator[tuple[int, bytes]]:
    """Page numbers and bytes of all pages that hold anything but zeros."""
    with path.open("rb") as disk:
        for item in data_ranges(path):
            for number in range(item.offset // PAGE, -(-item.end // PAGE)):
                data = os.pread(disk.fileno(), PAGE, number * PAGE)
                if data != _EMPTY:
                    yield number, data


def _decode(number: int, data: bytes) -> Page | None:
    """The page, or None when these bytes are not what `encode` makes of it."""
    _, _, changes, _ = _HEADER.unpack_from(data)
    page = Page(number, changes, data[_HEADER.size :])
    return page if page.encode() == data else None


def _bodies(sources: Sequence[SourceFile]) -> Iterator[bytes]:
    """Endless page bodies: the files one after another, then again with every byte another."""
    shift = 0
    while True:
        for source in sources:
            data = shifted(source.content(), shift)
            for start in range(0, len(data), _BODY):
                yield data[start : start + _BODY]
        shift += 1


def _rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, not secret
