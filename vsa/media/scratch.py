"""The border to this machine's scratch folder."""

from __future__ import annotations

import errno
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vsa.errors import MediaUnusable
from vsa.media.store import Buffer
from vsa.ranges import MIB

JOINED_IN_MEMORY = 16 * MIB
"""Parts of more bytes than this are joined in the system's temporary folder."""


@contextmanager
def scratch_errors(folder: Path | None) -> Iterator[None]:
    """Work in `folder` (None: the system's temporary one); MediaUnusable naming it if the system refuses."""
    try:
        yield
    except OSError as error:
        where = folder or "the system's temporary folder"
        advice = "free some space or name another folder"
        if error.errno == errno.EMFILE:
            advice = "raise this process's limit on open files (ulimit -n)"
        raise MediaUnusable(
            f"scratch space in {where} failed: {error.strerror or error}; {advice}"
        ) from error


def joined(parts: Sequence[Buffer], *, in_memory: int = JOINED_IN_MEMORY) -> memoryview:
    """One buffer of all parts, for who must send them at once; a single part is left where it lies.

    A sealed index may be larger than memory, and its parts are made one after the other.
    """
    if len(parts) == 1:
        return memoryview(parts[0]).cast("B")
    with scratch_errors(None), tempfile.SpooledTemporaryFile(max_size=in_memory) as file:
        for part in parts:
            file.write(part)
        size = file.tell()
        if size <= in_memory:
            file.seek(0)
            return memoryview(file.read())
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
