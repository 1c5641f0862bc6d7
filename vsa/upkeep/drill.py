"""A whole restore into a digest: the way that `vsa restore` goes, with a judge at its end.

What is there to compare the digest of a whole disk with? The log has none: an incremental backup never sees
the whole disk. So the disk that the restore assembles is cut into extents again, and each of them is held
against what the indexes say, read a second time by simpler code that shares neither the laying of rows over
each other nor the moves. The SHA-256 is given out so that it can be compared with that of any other restore
of the point, made elsewhere, earlier or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vsa.errors import MediaDamaged
from vsa.media.frames import Fingerprint
from vsa.media.index import ZEROS, IndexFile
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.media.store import Buffer
from vsa.media.view import View
from vsa.model import DiskBackup
from vsa.progress import Progress
from vsa.restore.copying import DiskChecksum, Lost, copy_disk

Expected = dict[int, tuple[bytes, int] | None]
"""Digest and raw length of extents by number; None for zeros."""


class Drill:
    """One disk of a point restored into nothing but a digest."""

    def __init__(self, media: Media, backup: DiskBackup, view: View) -> None:
        self._media = media
        self._backup = backup
        self._view = view
        self.lost: list[Lost] = []
        self.complaint = ""
        """Why what was restored is not what the indexes say; empty if it is."""

    def run(self, *, threads: int, progress: Progress) -> str | None:
        """The disk's SHA-256; None if something is lost or wrong."""
        size = self._backup.snapshot.size
        disk = self._media.partial_disk(self._backup.indexes, size, self._view)
        checksum, judge = (
            DiskChecksum(),
            Judge(self._files(), disk.extent_size, self._media.codec.fingerprint),
        )

        def take(offset: int, run: memoryview) -> None:
            checksum.add(offset, run)
            for start in range(0, len(run), disk.extent_size):
                judge.take(offset + start, run[start : start + disk.extent_size])

        progress.started(self._backup.disk.name, 0)
        try:
            self.lost = copy_disk(
                disk,
                self._media.extent_reader(),
                write=_nowhere,
                in_order=take,
                threads=threads,
                progress=progress,
            )
        finally:
            progress.finished()
        self.complaint = judge.verdict(self.lost)
        return None if self.lost or self.complaint else checksum.of_disk(size)

    def _files(self) -> list[IndexFile]:
        """The disk's indexes; none if one cannot be read: the restore itself names what is lost by that."""
        sound, media = self._view.sound_indexes(), self._media
        try:
            return [media.open_index(sound.get(ref.name, ref), by_parts=True) for ref in self._backup.indexes]
        except MediaDamaged:
            return []


class Judge:
    """Holds restored extents, which come in the disk's order, against its indexes."""

    def __init__(
        self, files: Sequence[IndexFile], extent_size: int, fingerprint: Callable[[Buffer], Fingerprint]
    ) -> None:
        """`fingerprint` is that of the media's codec."""
        self._fingerprint = fingerprint
        self._files = files
        self._extent_size = extent_size
        self._waiting = sorted({number for file in files for number in file.segments}, reverse=True)
        self._expected: Expected = {}
        self._left: list[int] = []
        self.complaint = ""

    def take(self, offset: int, data: Buffer) -> None:
        """An extent as it was restored; what lies between two of them was restored as zeros."""
        if self.complaint or not self._files:
            return
        extent, odd = divmod(offset, self._extent_size)
        self._advance(extent // SEGMENT)
        if not self._files:
            # An index could not be read, which says nothing about what was restored.
            return
        expected = self._expected.pop(extent, None)
        if odd or expected is None:
            self.complaint = f"data was restored at byte {offset}, where zeros belong"
        elif self._fingerprint(data[: expected[1]]).digest != expected[0] or any(data[expected[1] :]):
            self.complaint = f"extent {extent} was restored with other contents than its index states"

    def verdict(self, lost: Sequence[Lost]) -> str:
        """What was wrong, or never restored without being lost; empty if nothing."""
        while self._waiting and self._files:
            self._advance(self._waiting[-1])
        self._put_aside()
        ranges = [item.range for item in lost]
        left = [
            at for at in self._left if not any(r.offset <= at * self._extent_size < r.end for r in ranges)
        ]
        if self._files and left and not self.complaint:
            return f"extent {min(left)} and {len(left) - 1} more were left out"
        return self.complaint

    def _advance(self, segment: int) -> None:
        """All extents before this segment have been given."""
        while self._waiting and self._waiting[-1] <= segment:
            self._put_aside()
            try:
                self._expected = _newest_first(self._files, self._waiting.pop())
            except MediaDamaged:
                # The restore itself names what is lost by that.
                self._files = ()
                return

    def _put_aside(self) -> None:
        self._left += [extent for extent, expected in self._expected.items() if expected is not None]
        self._expected = {}


def _newest_first(files: Sequence[IndexFile], segment: int) -> Expected:
    """What the indexes say of a segment: of each extent the newest row counts."""
    found: Expected = {}
    for file in reversed(files):
        for extent, expected in _rows(file, segment):
            found.setdefault(extent, expected)
    return found


def _rows(file: IndexFile, segment: int) -> Iterator[tuple[int, tuple[bytes, int] | None]]:
    rows = file.rows(segment)
    if rows is None:
        return
    lengths = file.raw_lengths(rows).tolist()
    for row, length in zip(rows, lengths, strict=True):
        zeros = int(row["pack"]) == ZEROS
        yield int(row["extent"]), None if zeros else (row["digest"].tobytes(), length)


def _nowhere(_offset: int, _run: memoryview) -> None:
    """A drill keeps nothing of what it restores."""
