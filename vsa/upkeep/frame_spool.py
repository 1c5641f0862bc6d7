"""All frames that points lead to, sorted by digest in scratch files: memory does not grow with the media."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsa.media.parquet import Rows
from vsa.media.scratch import scratch_errors
from vsa.ranges import MIB
from vsa.upkeep.scan import FRAME

BUCKET_BYTES = 12 * MIB
"""Frames that are sorted in memory at a time; sorting takes about four times as much."""
BUFFER_BYTES = 8 * MIB
SPLIT_BYTES = 8
"""Bytes of the digest by which buckets are divided; what is larger still holds copies of one extent."""


class FrameSpool:
    """A sink of frames; `sorted` gives them back, each place once, all of one digest in one piece.

    `folder` is a new scratch folder. MediaUnusable if scratch space fails.
    """

    def __init__(
        self, folder: Path, *, bucket_bytes: int = BUCKET_BYTES, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._folder = folder
        self._bucket_bytes = bucket_bytes
        self._buffer_bytes = buffer_bytes
        self._buffer: list[Rows] = []
        self._buffered = 0
        with scratch_errors(folder):
            folder.mkdir()

    def add(self, frames: Rows) -> None:
        if len(frames):
            self._buffer.append(frames)
        self._buffered += frames.nbytes
        if self._buffered >= self._buffer_bytes:
            self._flush()

    def sorted(self) -> Iterator[Rows]:
        """Pieces in ascending order of digests; the same ones whenever it is asked."""
        self._flush()
        with scratch_errors(self._folder):
            buckets = sorted(self._folder.iterdir())
        for path in buckets:
            yield from self._bucket(path)

    def _bucket(self, path: Path) -> Iterator[Rows]:
        depth = len(path.name) // 2
        if path.stat().st_size <= self._bucket_bytes:
            yield self._sort(path)
        elif depth < SPLIT_BYTES:
            for part in self._split(path, depth):
                yield from self._bucket(part)
        else:
            # More copies of one extent than fit: the pieces count as different contents.
            yield from map(_sorted_places, self._pieces(path))

    def _sort(self, path: Path) -> Rows:
        with scratch_errors(self._folder):
            frames = _sorted_places(np.fromfile(path, FRAME))
            frames.tofile(path)
        return frames

    def _split(self, path: Path, depth: int) -> list[Path]:
        """Divide a bucket by the next byte of the digests; the parts take its place."""
        for frames in self._pieces(path):
            with scratch_errors(self._folder):
                self._append(frames, depth, path.name)
        with scratch_errors(self._folder):
            path.unlink()
            return sorted(self._folder.glob(f"{path.name}??"))

    def _pieces(self, path: Path) -> Iterator[Rows]:
        with scratch_errors(self._folder), path.open("rb") as file:
            while len(frames := np.fromfile(file, FRAME, count=self._bucket_bytes // FRAME.itemsize)):
                yield frames

    def _flush(self) -> None:
        if self._buffer:
            frames = np.concatenate(self._buffer)
            self._buffer, self._buffered = [], 0
            with scratch_errors(self._folder):
                self._append(frames, 0, "")

    def _append(self, frames: Rows, depth: int, prefix: str) -> None:
        """Add frames to the buckets that the digest byte at `depth` says, below a bucket of that prefix."""
        leading = _digest_bytes(frames)[:, depth]
        order = np.argsort(leading, kind="stable")
        values, starts = np.unique(leading[order], return_index=True)
        for value, part in zip(values, np.split(frames[order], starts[1:]), strict=True):
            with (self._folder / f"{prefix}{value:02x}").open("ab") as file:
                part.tofile(file)


def _digest_bytes(frames: Rows) -> npt.NDArray[np.uint8]:
    return np.frombuffer(frames["digest"].tobytes(), np.uint8).reshape(-1, 32)


def group_keys(frames: Rows) -> npt.NDArray[np.int64]:
    """A number for each frame of a sorted piece: the same for frames of the same contents, ascending."""
    words = _words(frames)
    changes = np.any(words[1:] != words[:-1], axis=1)
    changes |= (frames["crc"][1:] != frames["crc"][:-1]) | (frames["size"][1:] != frames["size"][:-1])
    return np.concatenate([[0], np.cumsum(changes)]).astype(np.int64)[: len(frames)]


def _words(frames: Rows) -> npt.NDArray[np.uint64]:
    return _digest_bytes(frames).view(">u8").astype(np.uint64)


def _sorted_places(frames: Rows) -> Rows:
    """By contents, then by place; a place that came more than once comes once."""
    words = _words(frames)
    by = (frames["offset"], frames["pack"], frames["size"], frames["crc"], *words.T[::-1])
    order = np.lexsort(by)
    frames, words = frames[order], words[order]
    same = np.all(words[1:] == words[:-1], axis=1)
    for name in ("crc", "size", "pack", "offset"):
        same &= frames[name][1:] == frames[name][:-1]
    once: Rows = frames[np.concatenate([[True], ~same])[: len(frames)]]
    return once
