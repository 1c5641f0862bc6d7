"""How lost bytes of a disk are told: in an error, and in a file beside the image that lacks them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vsa.errors import BadRequest, MediaDamaged
from vsa.model import DiskBackup
from vsa.restore.copying import Lost
from vsa.text import size_text

SUFFIX = ".lost"
_TOLD = 50


class ContentsLost(MediaDamaged):
    """Parts of a disk cannot be had; `lost` has all of them in the disk's order."""

    def __init__(self, disk: str, lost: Sequence[Lost]) -> None:
        super().__init__(
            f"disk {disk}: {summary(lost)} cannot be restored: {told(lost)}. Nothing was written; "
            "--salvage restores the rest, another point may have it all"
        )
        self.lost = tuple(lost)


def summary(lost: Sequence[Lost]) -> str:
    """`128 KiB in 2 ranges`."""
    size = size_text(sum(item.range.length for item in lost))
    return f"{size} in {len(lost)} range{'s' if len(lost) != 1 else ''}"


def told(lost: Sequence[Lost]) -> str:
    """Every range and its object, up to a number that people still read."""
    lines = [f"bytes {item.range.offset} to {item.range.end} ({item.object})" for item in lost[:_TOLD]]
    if len(lost) > _TOLD:
        lines.append(f"and {len(lost) - _TOLD} more, which --json lists")
    return ", ".join(lines)


@contextmanager
def list_of_lost(target: Path, backup: DiskBackup, lost: Sequence[Lost]) -> Iterator[None]:
    """A durable file `<target>.lost` naming the zeros of an image that are not the disk's; it stays if the
    block ends well."""
    path = target.with_name(target.name + SUFFIX)
    document = {
        "disk": backup.disk.name,
        "disk_key": backup.disk.key,
        "snapshot": backup.snapshot.id,
        "size": backup.snapshot.size,
        "lost": [
            {
                "offset": item.range.offset,
                "end": item.range.end,
                "object": item.object,
                "reason": item.reason,
            }
            for item in lost
        ],
    }
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadRequest(
            f"cannot write {path.name} beside the image: {error.strerror}; remove it or name another target"
        ) from error
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
