"""Sparse raw image files: what they hold, where, and what became different."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vsa.ranges import MIB, ByteRange, clip, merge

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
    """Hex digest of every byte, holes included."""
    with path.open("rb") as image:
        return hashlib.file_digest(image, "sha256").hexdigest()


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


def copy_sparse(source: Path, target: Path) -> None:
    """The same bytes with the same holes."""
    create_image(target, source.stat().st_size)
    with source.open("rb") as old, target.open("r+b") as new:
        for item in _data_ranges(old.fileno()):
            for offset in range(item.offset, item.end, _PIECE):
                piece = os.pread(old.fileno(), min(_PIECE, item.end - offset), offset)
                os.pwrite(new.fileno(), piece, offset)


def differences(before: Path, after: Path) -> Differences:
    """What `after` holds otherwise than `before`; a part that only `after` has is compared with zeros."""
    data_now = data_ranges(after)
    written: list[ByteRange] = []
    cleared: list[ByteRange] = []
    with before.open("rb") as old, after.open("rb") as new:
        for piece in _pieces(merge((*data_ranges(before), *data_now))):
            for changed in _changed_blocks(old.fileno(), new.fileno(), piece):
                holds_data = next(clip(data_now, changed), None) is not None
                (written if holds_data else cleared).append(changed)
    return Differences(tuple(merge(written)), tuple(merge(cleared)))


def _pieces(ranges: Iterator[ByteRange]) -> Iterator[ByteRange]:
    for item in ranges:
        for offset in range(item.offset // BLOCK * BLOCK, item.end, _PIECE):
            yield ByteRange(offset, min(offset + _PIECE, item.end))


def _changed_blocks(old: int, new: int, piece: ByteRange) -> Iterator[ByteRange]:
    padded = -(-piece.length // BLOCK) * BLOCK
    a = os.pread(old, piece.length, piece.offset).ljust(padded, b"\0")
    b = os.pread(new, piece.length, piece.offset).ljust(padded, b"\0")
    if a == b:
        return
    blocks = (np.frombuffer(part, dtype=np.uint64).reshape(-1, BLOCK // 8) for part in (a, b))
    for number in np.flatnonzero(np.not_equal(*blocks).any(axis=1)):
        start = piece.offset + int(number) * BLOCK
        yield ByteRange(start, min(start + BLOCK, piece.end))
