"""Real files of this machine, as content for disk images.

Disks full of random bytes would flatter or defame compression and deduplication; libraries, programs
and documents behave as a guest's files do. Only places that every user may read and that hold software
are looked at: never `/etc`, never a home folder.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import stat
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from vsa.ranges import GIB, KIB, MIB

LISTING_BYTES = 1 * GIB
# Below, an image would mostly hold half-empty blocks; above, a single file would fill it.
FILE_SIZES = range(4 * KIB, 24 * MIB)

# Byte caches come and go while Python runs; a Prefect server writes ui_build when it starts.
_CHANGING_FOLDERS = frozenset({"__pycache__", "ui_build", "ui_v2_build"})
# debugfs reads its commands as words of one line, so names that would need quoting are left out.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*")


class Root(NamedTuple):
    """A folder of the machine and the folder of the image below which its files appear."""

    path: Path
    target: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file's place on this machine and in the image; a variant differs from it in every byte."""

    path: str
    target: str
    size: int
    variant: int = 0

    @property
    def folder(self) -> str:
        return self.target.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.target.rpartition("/")[2]

    def content(self) -> bytes:
        """The bytes; every variant keeps the structure, so it compresses alike but is no duplicate."""
        return shifted(Path(self.path).read_bytes(), self.variant)


def shifted(data: bytes, by: int) -> bytes:
    """Every byte plus `by`, modulo 256."""
    return data.translate(bytes((value + by) % 256 for value in range(256))) if by % 256 else data


def machine_roots() -> tuple[Root, ...]:
    """Where software lies on this machine: Python's own library, the system's, and the installed packages."""
    return (
        Root(Path(sysconfig.get_path("stdlib")), "opt/python"),
        Root(Path("/usr/bin"), "usr/bin"),
        Root(Path("/usr/share"), "usr/share"),
        Root(Path("/usr/lib"), "usr/lib"),
        Root(Path(sysconfig.get_path("purelib")), "opt/packages"),
    )


def list_sources(roots: Sequence[Root], max_bytes: int = LISTING_BYTES) -> tuple[SourceFile, ...]:
    """Regular, readable files below the roots in a fixed order, at most `max_bytes` of them.

    The roots share the budget evenly; what a small root leaves over goes to those after it. A file that
    lies below two roots is listed once. Folders that cannot be read are passed over.
    """
    found: list[SourceFile] = []
    seen: set[str] = set()
    left = max_bytes
    for roots_left, root in zip(range(len(roots), 0, -1), roots, strict=True):
        budget = left // roots_left
        for source in _walk(root):
            if source.path not in seen and source.size <= budget:
                seen.add(source.path)
                found.append(source)
                budget -= source.size
                left -= source.size
            if budget < MIB:
                break
    return tuple(found)


def choose(sources: Sequence[SourceFile], budget: int, seed: int) -> list[SourceFile]:
    """Files of together at most `budget` bytes: whole folders in an order that `seed` decides.

    No file takes more than a quarter of the budget. When the machine has too few files they come again
    as variants below `copies/<n>`, until 98 % are used or nothing fits. Raises ValueError when no file
    is small enough.
    """
    folders = [list(files) for _, files in itertools.groupby(sources, key=lambda source: source.folder)]
    random.Random(seed).shuffle(folders)  # noqa: S311 - repeatable, not secret
    suitable = [source for folder in folders for source in folder if source.size <= budget // 4]
    if not suitable:
        raise ValueError(f"none of {len(sources)} files is small enough to be one of four in {budget} bytes")
    chosen: list[SourceFile] = []
    left, enough = budget, budget // 50
    for variant in itertools.count():
        for source in suitable:
            if source.size <= left and left > enough:
                chosen.append(_as_variant(source, variant))
                left -= source.size
        if left <= max(enough, min(source.size for source in suitable)):
            break
    return chosen


def _as_variant(source: SourceFile, variant: int) -> SourceFile:
    if not variant:
        return source
    return replace(source, target=f"copies/{variant}/{source.target}", variant=variant)


def _walk(root: Root) -> Iterator[SourceFile]:
    for folder, subfolders, names in os.walk(root.path):
        subfolders[:] = sorted(name for name in subfolders if _is_lasting(name))
        relative = os.path.relpath(folder, root.path)
        target = root.target if relative == os.curdir else f"{root.target}/{relative}"
        for name in sorted(names):
            if _PLAIN_NAME.fullmatch(name) and (size := _usable_size(f"{folder}/{name}")):
                yield SourceFile(path=f"{folder}/{name}", target=f"{target}/{name}", size=size)


def _is_lasting(folder: str) -> bool:
    return folder not in _CHANGING_FOLDERS and _PLAIN_NAME.fullmatch(folder) is not None


def _usable_size(path: str) -> int:
    """The size in bytes, or 0 for what is no regular file, cannot be read, or is not within FILE_SIZES."""
    status = os.lstat(path)
    wanted = stat.S_ISREG(status.st_mode) and status.st_size in FILE_SIZES
    return status.st_size if wanted and os.access(path, os.R_OK) else 0
