"""Small files of the state folder: whole or absent, private where they hold a secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` at `path`; a reader sees the old file or the new one, never a part."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`; made on first use, readable by its owner alone."""
    if not path.exists():
        write_atomically(path, make().encode(), mode=0o600)
    return path.read_text()
