"""Sparse raw image files: what they hold, where, and what became different."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from vsa.ranges import MIB, ByteRange, merge

BLOCK = 4096
_PIECE = 4 * MIB
# linux/falloc.h
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02


class Differences(NamedTuple):
    """Whole blocks of 4 KiB that differ: those that hold data now, and those that became a hole."""

    written: tuple[ByteRange, ...]
    cleared: tuple[ByteRange, ...]


def create_image(path: Path, size: int) -> None:
    """An image of `size` bytes that are all hole; whatever was at `path` is replaced."""
    with path.open("wb") as image:
        image.truncate(size)


def sha256_of(path: Path) -> str:
    """Hex digest of every byte, holes included; a hole costs its hashing but no reading."""
    digest = hashlib.sha256()
    for piece in _contents(path):
        digest.update(piece)
    return digest.hexdigest()


def _contents(path: Path) -> Iterator[bytes]:
    position = 0
    with path.open("rb") as image:
        for item in _data_ranges(image.fileno()):
            yield from _zeros(item.offset - position)
            for piece in _pieces(item):
                yield os.pread(image.fileno(), piece.length, piece.offset)
            position = item.end
    yield from _zeros(path.stat().st_size - position)


def _zeros(count: int) -> Iterator[bytes]:
    whole, rest = divmod(count, _PIECE)
    yield from itertools.repeat(bytes(_PIECE), whole)
    yield bytes(rest)


def _pieces(item: ByteRange) -> Iterator[ByteRange]:
    for start in range(item.offset, item.end, _PIECE):
        yield ByteRange(start, min(start + _PIECE, item.end))


def allocated_bytes(path: Path) -> int:
    """Bytes that the file really occupies (POSIX counts st_blocks in 512 bytes)."""
    return path.stat().st_blocks * 512


def data_ranges(path: Path) -> tuple[ByteRange, ...]:
    """Where the file has data rather than holes, in order."""
    with path.open("rb") as image:
        return tuple(_data_ranges(image.fileno()))


def _data_ranges(descriptor: int) -> Iterator[ByteRange]:
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `end`
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield ByteRange(start, end)


def clear_range(path: Path, offset: int, length: int) -> None:
    """Make bytes [offset, offset + length) a hole: what TRIM does to a thin disk."""
    size = path.stat().st_size
    if not 0 <= offset <= offset + length <= size:
        raise ValueError(f"{path}: cannot clear {length} bytes at {offset}, the image has {size}")
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as image:
        arguments = (ctypes.c_int64(offset), ctypes.c_int64(length))
        if libc.fallocate64(image.fileno(), _PUNCH_HOLE | _KEEP_SIZE, *arguments):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot punch a hole: {os.strerror(code)}", str(path))


def block_digests(path: Path) -> dict[int, bytes]:
    """Digests of the 4 KiB blocks that have data, by offset: enough to tell later what became different."""
    found: dict[int, bytes] = {}
    with path.open("rb") as image:
        for item in _data_ranges(image.fileno()):
            for piece in _pieces(ByteRange(item.offset // BLOCK * BLOCK, item.end)):
                data = os.pread(image.fileno(), piece.length, piece.offset)
                for at in range(0, piece.length, BLOCK):
                    found[piece.offset + at] = _digest(data[at : at + BLOCK])
    return found


def differences(before: Mapping[int, bytes], path: Path) -> Differences:
    """What the image holds otherwise than when `before` was taken of it; holes count as zeros."""
    after, size = block_digests(path), path.stat().st_size
    changed = [
        ByteRange(offset, min(offset + BLOCK, size))
        for offset in sorted(before.keys() | after.keys())
        if before.get(offset, _ZERO_BLOCK) != after.get(offset, _ZERO_BLOCK)
    ]
    return Differences(
        written=tuple(merge(block for block in changed if block.offset in after)),
        cleared=tuple(merge(block for block in changed if block.offset not in after)),
    )


def _digest(block: bytes) -> bytes:
    return blake3(block.ljust(BLOCK, b"\0")).digest()


_ZERO_BLOCK = _digest(b"")
