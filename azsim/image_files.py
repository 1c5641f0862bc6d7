"""Disk image files: load one into a page image, leaving out its holes and its zeros."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from azsim.page_slots import PAGE, SEGMENT
from azsim.pages import PageStore

_PIECE = 64 * SEGMENT


def size_in_pages(path: Path) -> int:
    """Length of the file in bytes, rounded up to whole pages."""
    return -(-path.stat().st_size // PAGE) * PAGE


def load_image_file(pages: PageStore, image: str, path: Path) -> int:
    """Write the file's data to an image of at least its size; returns the bytes written.

    Holes and 64 KiB blocks of zeros stay unallocated, as the usual upload tools leave them.
    """
    written = 0
    with path.open("rb", buffering=0) as file:
        for start, end in _data_extents(file.fileno()):
            for offset in range(start, end, _PIECE):
                piece = os.pread(file.fileno(), min(_PIECE, end - offset), offset)
                piece += bytes(-len(piece) % PAGE)
                for begin, stop in _nonzero_runs(piece):
                    pages.write(image, offset + begin, memoryview(piece)[begin:stop])
                    written += stop - begin
    return written


def _data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Extents with data, widened to segment borders so that no segment is looked at twice."""
    size, position = os.fstat(descriptor).st_size, 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        start, end = start // SEGMENT * SEGMENT, min(-(-end // SEGMENT) * SEGMENT, size)
        if end > position:
            yield max(start, position), end
        position = max(end, position)


def _nonzero_runs(piece: bytes) -> Iterator[tuple[int, int]]:
    """Runs of 64 KiB blocks that hold anything but zeros; the last block may be short."""
    blocks = [piece[at : at + SEGMENT] for at in range(0, len(piece), SEGMENT)]
    used = np.array([False, *(block.count(0) != len(block) for block in blocks), False])
    edges = np.flatnonzero(np.diff(used))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield begin * SEGMENT, min(end * SEGMENT, len(piece))
