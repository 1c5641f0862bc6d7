"""Large writes past the page cache (O_DIRECT, open(2)), where the file system has them.

What backups and restores write is not read again soon. In the page cache it pushes out what others need, is
copied once more, and on a virtual machine takes pages that the host has yet to provide: up to 2 CPU seconds a
GiB, where direct writes take 0.05 (docs/performance.md). Durability is no other: `fsync` is needed as ever.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Self

from vsa.ranges import MIB

Buffer = bytes | bytearray | memoryview

BLOCK = max(4096, mmap.PAGESIZE)
"""Bytes. Direct writes are multiples of it, in memory and in the file: hardly a device asks for more, and no
page of the cache is written both ways."""
LEAST = MIB
"""Bytes that are worth it: every direct write waits for the device."""
_REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""Answers of file systems that have no direct writes, or want other multiples."""
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE})
"""What a person should hear of: fewer files can be open than are needed."""


class Writer:
    """Writes at offsets of one open file, by many threads; what is large goes past the page cache."""

    def __init__(self, file: int) -> None:
        """`file` is open for writing and stays the caller's."""
        self._file = file
        self._direct = _open_directly(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def write(self, offset: int, data: Buffer) -> None:
        """Put all of the data at `offset`. OSError as the system has it; then nobody knows what is there."""
        rest = memoryview(data).cast("B")
        while rest:
            count = self._write_directly(offset, rest) or os.pwrite(self._file, rest, offset)
            offset, rest = offset + count, rest[count:]

    def _write_directly(self, offset: int, data: memoryview) -> int:
        """How many bytes were written so; 0 if these have to go the other way."""
        direct, whole = self._direct, len(data) // BLOCK * BLOCK
        if direct is None or whole < LEAST or offset % BLOCK or not _begins_with_block(data):
            return 0
        try:
            return os.pwrite(direct, data[:whole], offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return 0


def _begins_with_block(data: memoryview) -> bool:
    """Whether it lies so in memory, as what `vsa.memory.Buffers` gives does; read-only data counts as not."""
    return not data.readonly and ctypes.addressof(ctypes.c_char.from_buffer(data)) % BLOCK == 0


def _open_directly(file: int) -> int | None:
    """A second description of the very same file: the flag is one of that, and the last bytes go without it.

    By its number and not by its name, which may be another file's by now. Whatever refuses it, the file can
    still be written as ever.
    """
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return None
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC | flag)
    except OSError as error:
        if error.errno in _SCARCE:
            raise
        return None
