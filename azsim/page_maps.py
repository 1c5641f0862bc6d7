"""Maps: which slot holds each segment of an image. Sparse in memory and on disk.

An entry is a slot number (> 0), 0 for a segment never touched, or -epoch for a segment that was
cleared as a whole in that epoch and has no data. The file is the array of all entries, as signed
64-bit little-endian numbers, with holes where a chunk was never touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK = 512
"""Entries of one chunk: 4 KiB of map file, 32 MiB of disk."""
_CHUNK_BYTES = CHUNK * 8

Entries = NDArray[np.int64]


class SegmentMap:
    """Entries by segment number; changes reach the file at `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chunks: dict[int, Entries] = {}
        self._dirty: set[int] = set()

    @classmethod
    def load(cls, path: Path) -> SegmentMap:
        loaded = cls(path)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            for number in _chunks_with_data(descriptor):
                stored = os.pread(descriptor, _CHUNK_BYTES, number * _CHUNK_BYTES)
                entries = np.frombuffer(stored, "<i8").astype(np.int64)
                if entries.any():
                    loaded._chunks[number] = entries
        finally:
            os.close(descriptor)
        return loaded

    def copy_to(self, path: Path) -> SegmentMap:
        """The same entries in a new file, already on disk."""
        copied = SegmentMap(path)
        copied._chunks = {number: entries.copy() for number, entries in self._chunks.items()}
        copied._dirty = set(self._chunks)
        copied.flush()
        return copied

    def __getitem__(self, segment: int) -> int:
        chunk = self._chunks.get(segment // CHUNK)
        return 0 if chunk is None else int(chunk[segment % CHUNK])

    def __setitem__(self, segment: int, entry: int) -> None:
        self._writable(segment // CHUNK)[segment % CHUNK] = entry

    def fill(self, first: int, last: int, entry: int, *, touched_only: bool = False) -> Entries:
        """Set all entries in [first, last), or the touched ones; return the slots they held."""
        freed = [np.zeros(0, np.int64)]
        for number in range(first // CHUNK, -(-last // CHUNK)):
            if touched_only and number not in self._chunks:
                continue
            base = number * CHUNK
            part = self._writable(number)[max(first - base, 0) : last - base]
            freed.append(part[part > 0])
            part[part != 0 if touched_only else slice(None)] = entry
        return np.concatenate(freed)

    def entries(self, first: int, last: int) -> Entries:
        """A copy of the entries in [first, last)."""
        gathered = np.zeros(last - first, np.int64)
        for number in range(first // CHUNK, -(-last // CHUNK)):
            if (chunk := self._chunks.get(number)) is not None:
                begin, end = max(first, number * CHUNK), min(last, (number + 1) * CHUNK)
                gathered[begin - first : end - first] = chunk[begin - number * CHUNK : end - number * CHUNK]
        return gathered

    def touched_chunks(self, first: int, last: int) -> list[int]:
        """Numbers of the chunks that have entries, among those that overlap segments [first, last)."""
        return sorted(n for n in self._chunks if n * CHUNK < last and (n + 1) * CHUNK > first)

    def slots(self) -> Entries:
        """Every slot in the map, once."""
        held = [entries[entries > 0] for entries in self._chunks.values()]
        return np.concatenate([np.zeros(0, np.int64), *held])

    def flush(self) -> None:
        """Hand changed chunks to the kernel: from here on they survive the death of the process."""
        if not self._dirty and self.path.exists():
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for number in sorted(self._dirty):
                os.pwrite(descriptor, self._chunks[number].astype("<i8").tobytes(), number * _CHUNK_BYTES)
        finally:
            os.close(descriptor)
        self._dirty.clear()

    def _writable(self, number: int) -> Entries:
        self._dirty.add(number)
        return self._chunks.setdefault(number, np.zeros(CHUNK, np.int64))


def _chunks_with_data(descriptor: int) -> Iterator[int]:
    position, size = 0, os.fstat(descriptor).st_size
    while position < size:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        position = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield from range(begin // _CHUNK_BYTES, -(-position // _CHUNK_BYTES))
