"""The border to this machine's scratch folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsa.errors import MediaUnusable


@contextmanager
def scratch_errors(folder: Path | None) -> Iterator[None]:
    """Work in `folder` (None: the system's temporary one); MediaUnusable naming it if the system refuses."""
    try:
        yield
    except OSError as error:
        where = folder or "the system's temporary folder"
        reason = error.strerror or error
        raise MediaUnusable(
            f"scratch space in {where} failed: {reason}; free some space or name another folder"
        ) from error
