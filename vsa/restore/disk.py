"""One disk of a recovery point, written out as an image file.

The media gives extents that are already checked against their CRC and digest. Threads write them; the
calling thread feeds the checksum of the whole, so that what is reported is a digest of the bytes that were
written. What is lost is known before the image has its name, and it gets none unless that is accepted.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vsa.errors import PointGone, TryAgainLater
from vsa.fault_points import FaultPoint, reached
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import DiskBackup
from vsa.progress import SILENT, Progress
from vsa.ranges import MIB
from vsa.restore import vhd
from vsa.restore.copying import DiskChecksum, Lost, copy_disk, survey
from vsa.restore.image import new_image
from vsa.restore.losses import ContentsLost, list_of_lost

_ATTEMPTS = 5
"""A prune moves what it moves once; more would be prunes without end."""
_log = logging.getLogger(__name__)


class Format(StrEnum):
    """What the image file is: the disk's bytes alone, or those and a VHD footer."""

    RAW = "raw"
    VHD = "vhd"


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """An image that is complete, durable and at its final name."""

    path: Path
    size: int
    """Bytes of the disk as its guest sees it; a VHD file is 512 bytes longer."""
    bytes_written: int
    """Bytes of stored extents; the rest of the disk is zeros and a hole in the file."""
    sha256: str | None
    """Of the disk as its guest sees it, zeros included; None if it was not asked for."""
    warnings: tuple[str, ...]
    lost: tuple[Lost, ...] = ()
    """What could not be restored and is zeros in the image."""


def restore_disk(
    media: Media,
    backup: DiskBackup,
    target: Path,
    *,
    format: Format = Format.VHD,
    threads: int = 4,
    progress: Progress = SILENT,
    checksum: bool = True,
    salvage: bool = False,
) -> RestoredDisk:
    """Write the disk to `target`, which must not exist. It is there, whole, or not at all.

    Raises ContentsLost, naming every byte range, if something of the disk is not what was stored, PointGone
    if a prune has taken it away meanwhile, and BadRequest if the target will not do. With `salvage` the rest
    is restored: lost bytes are zeros, and a file `<target>.lost` names them. Without `checksum` a mostly
    empty disk costs no time for its zeros.
    """
    for _ in range(_ATTEMPTS):
        view = media.view()
        restoring = _Restoring(media, backup, view, threads=threads, progress=progress, salvage=salvage)
        try:
            return restoring.write(target, format=format, checksum=checksum)
        except _Overtaken:
            _log.info("disk %s: a prune has moved what was being read; reading again", backup.disk.name)
    raise TryAgainLater(f"disk {backup.disk.name}: prunes moved it {_ATTEMPTS} times while it was restored")


class _Overtaken(Exception):
    """Frames were moved, and deleted where they lay, since the view that is restored under."""


@dataclass(frozen=True)
class _Restoring:
    """One attempt, under one view of the log."""

    media: Media
    backup: DiskBackup
    view: View
    threads: int
    progress: Progress
    salvage: bool

    def write(self, target: Path, *, format: Format, checksum: bool) -> RestoredDisk:
        backup, size = self.backup, self.backup.snapshot.size
        ending = (
            vhd.footer(size, backup.snapshot.taken_at, _identity(backup)) if format is Format.VHD else b""
        )
        disk = self.media.partial_disk(backup.indexes, size, self.view)
        reader = self.media.extent_reader()
        known = survey(disk, reader, self.view.damaged)
        self._judge(known.lost)
        reached(FaultPoint.DISK_SURVEYED)
        whole = DiskChecksum()
        with ExitStack() as stack:
            image = stack.enter_context(
                new_image(target, size=size + len(ending), allocated=known.stored + len(ending))
            )
            self.progress.started(target.name, known.stored)
            try:
                lost = copy_disk(
                    disk,
                    reader,
                    write=image.write,
                    in_order=whole.add if checksum else _ignored,
                    threads=self.threads,
                    progress=self.progress,
                )
            finally:
                self.progress.finished()
            reached(FaultPoint.DISK_COPIED)
            self._judge(lost)
            if lost:
                stack.enter_context(list_of_lost(target, backup, lost))
            image.write(size, ending)
            # Before the image has its name: on a mostly empty disk this takes longest.
            digest = whole.of_disk(size) if checksum else None
        return RestoredDisk(target, size, known.stored, digest, _warnings(size, format), tuple(lost))

    def _judge(self, lost: Sequence[Lost]) -> None:
        """What has only moved is not lost, and what was pruned is no damage."""
        now = self.media.view()
        gone = next((item.object for item in lost if item.object in now.doomed), "")
        if gone and len(now.relocations) > len(self.view.relocations):
            raise _Overtaken
        if gone:
            raise PointGone(
                f"disk {self.backup.disk.name}: a prune has given up the recovery point, {gone} is deleted: "
                "nothing was written, restore another point"
            )
        if lost and not self.salvage:
            raise ContentsLost(self.backup.disk.name, lost)


def _ignored(_offset: int, _data: memoryview) -> None:
    """Nobody asked for a checksum."""


def _identity(backup: DiskBackup) -> uuid.UUID:
    """The same for every restore of the same snapshot, so that two restores are equal byte for byte."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{backup.snapshot.id}?{backup.snapshot.moment}")


def _warnings(size: int, format: Format) -> tuple[str, ...]:
    if format is Format.VHD and size % MIB:
        return (
            f"the disk's {size} bytes are no whole number of MiB: Azure will not take this VHD as a disk",
        )
    return ()
