"""Rows of an index on their way: dense in memory while a segment is open, then in scratch files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsa.media.index import ROW, ZEROS
from vsa.media.layout import SEGMENT
from vsa.media.merge import Absorbed, nothing
from vsa.media.pack import Frame
from vsa.media.parquet import Rows
from vsa.media.scratch import scratch_errors

Groups = Iterator[tuple[int, Rows]]


class RowSpool:
    """The rows of one index; not safe for many threads. MediaUnusable if scratch space fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with scratch_errors(folder):
            folder.mkdir()
        self._open: dict[int, tuple[Rows, npt.NDArray[np.bool_]]] = {}
        self._ended: dict[int, int] = {}

    def add(self, extent: int, ordinal: int, frame: Frame) -> None:
        segment, at = divmod(extent, SEGMENT)
        if segment in self._ended:
            raise ValueError(f"extent {extent} was given after its segment {segment} had ended")
        if segment not in self._open:
            self._open[segment] = np.zeros(SEGMENT, ROW), np.zeros(SEGMENT, np.bool_)
        rows, given = self._open[segment]
        if given[at]:
            raise ValueError(f"extent {extent} was given twice")
        rows[at] = (extent, ordinal, frame.offset, frame.length, *frame.fingerprint)
        given[at] = True

    def end(self, segment: int) -> None:
        rows, given = self._open.pop(segment, (None, None))
        if rows is not None and given is not None:
            self._save(segment, rows[given])

    def end_all(self) -> int:
        """End what is still open; the number of rows."""
        for segment in list(self._open):
            self.end(segment)
        return sum(self._ended.values())

    def merge(self, absorbed: Absorbed) -> list[int]:
        """Put the absorbed layers under the rows; the numbers of the packs that are referred to then."""
        used: set[int] = set()
        for segment in sorted(absorbed.segments | self._ended.keys()):
            new = self._load(segment) if segment in self._ended else nothing()
            if segment in absorbed.segments or absorbed.has_base:
                new = absorbed.under(segment, new)
                self._save(segment, new)
            used.update(np.unique(new["pack"]).tolist())
        return sorted(used - {ZEROS})

    @contextmanager
    def numbered(self, used: Sequence[int]) -> Iterator[tuple[Path, Groups]]:
        """A scratch file's path, and all rows by segment with their packs numbered as in `used`."""
        with scratch_errors(self._folder):
            yield self._folder / "index", self._groups(used)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _groups(self, used: Sequence[int]) -> Groups:
        for segment in sorted(number for number, rows in self._ended.items() if rows):
            rows = self._load(segment)
            stored = rows["pack"] != ZEROS
            rows["pack"][stored] = np.searchsorted(used, rows["pack"][stored])
            yield segment, rows

    def _save(self, segment: int, rows: Rows) -> None:
        with scratch_errors(self._folder):
            np.save(self._path(segment), rows, allow_pickle=False)
        self._ended[segment] = len(rows)

    def _load(self, segment: int) -> Rows:
        with scratch_errors(self._folder):
            rows: Rows = np.load(self._path(segment), allow_pickle=False)
        return rows

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment}.npy"
