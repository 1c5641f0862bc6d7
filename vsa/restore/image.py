"""A new file that appears under its name only when it is complete.

Nothing is ever written over: the data goes to a temporary file beside the target, which is linked to
its final name once it is durable. A process that dies in between leaves a file named
`.vsa-restore-*`, never half a disk that looks like a whole one.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsa import direct
from vsa.errors import BadRequest
from vsa.fault_points import FaultPoint, reached
from vsa.text import printable, size_text

_ANOTHER_TARGET_HELPS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.EEXIST),
    }
)


class Image:
    """The file while it is written: sparse, and safe to write from several threads."""

    def __init__(self, writer: direct.Writer, target: Path) -> None:
        self._writer = writer
        self._target = target

    def write(self, offset: int, data: direct.Buffer) -> None:
        """Put the data at `offset`; what is never written reads as zeros and takes no space."""
        with _target_errors(self._target):
            self._writer.write(offset, data)


@contextmanager
def new_image(target: Path, *, size: int, allocated: int) -> Iterator[Image]:
    """A file of `size` bytes at `target` when the block ends well, and nothing when it does not.

    `allocated` is how much of it will be written. BadRequest if the target exists, if the file system
    has less room than that, or if it will not hold such a file.
    """
    with _target_errors(target):
        _require_free_name(target)
        _require_space(target, allocated)
        descriptor, name = tempfile.mkstemp(prefix=".vsa-restore-", dir=target.parent)
    try:
        with _target_errors(target):
            _require_links(Path(name))
            os.ftruncate(descriptor, size)
            writer = direct.Writer(descriptor)
        try:
            yield Image(writer, target)
        finally:
            with _target_errors(target):
                writer.close()
        with _target_errors(target):
            _publish(descriptor, name, target)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _publish(descriptor: int, name: str, target: Path) -> None:
    os.fsync(descriptor)
    reached(FaultPoint.IMAGE_DURABLE)
    # A link, unlike a rename, never replaces a file that has appeared meanwhile.
    os.link(name, target)
    reached(FaultPoint.IMAGE_NAMED)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _require_links(temporary: Path) -> None:
    """Find out before hours of copying whether the file system can publish the image at all."""
    probe = temporary.with_name(f"{temporary.name}-link")
    os.link(temporary, probe)
    probe.unlink()


def _require_free_name(target: Path) -> None:
    if os.path.lexists(target):
        raise BadRequest(f"{_shown(target)} exists and is not overwritten: name another target or remove it")
    if not target.parent.is_dir():
        raise BadRequest(f"{_shown(target.parent)} is no folder: create it or name another target")


def _require_space(target: Path, allocated: int) -> None:
    room = os.statvfs(target.parent)
    free = room.f_bavail * room.f_frsize
    if free < allocated:
        raise BadRequest(
            f"{_shown(target)} needs {size_text(allocated)}, and its file system has {size_text(free)} free:"
            " name a target with more room"
        )


@contextmanager
def _target_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _ANOTHER_TARGET_HELPS:
            raise
        reason = os.strerror(error.errno)
        raise BadRequest(f"cannot write {_shown(target)}: {reason}: name another target") from error


def _shown(path: Path) -> str:
    return printable(str(path))
