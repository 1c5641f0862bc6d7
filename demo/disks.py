"""Disks of imaginary guests: real file systems with real files, and the work a guest does between backups.

An image depends only on its recipe and on the machine's files: built twice, it is equal byte for byte.
What a disk holds is read from its bytes, never remembered, so the functions serve restored disks as well.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from demo import pagefile
from demo.ext4 import TOOLS, Ext4, ToolFailed, find_tool
from demo.file_work import FileWork, TouchedFiles, copy_in, work_on_files
from demo.images import allocated_bytes, block_digests, clear_range, create_image, differences, sha256_of
from demo.partitions import find_filesystem, write_gpt, write_mbr
from demo.sources import SourceFile, choose, list_sources, machine_roots
from vsa.ranges import MIB, ByteRange

__all__ = [
    "ChangeSummary",
    "CheckResult",
    "DiskChanges",
    "DiskKind",
    "DiskRecipe",
    "FileWork",
    "PageWork",
    "ToolFailed",
    "TouchedFiles",
    "Verdict",
    "allocated_bytes",
    "build_disk",
    "change_disk",
    "check_disk",
    "clear_range",
    "grow_disk",
    "list_sources",
    "machine_roots",
    "missing_tools",
    "sha256_of",
]

_EPOCH = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


class DiskKind(Enum):
    """What a disk holds; all but PAGES need e2fsprogs."""

    EXT4 = "ext4 without a partition table"
    GPT_EXT4 = "ext4 in a GPT partition"
    MBR_EXT4 = "ext4 in an MBR partition"
    PAGES = "database pages without a file system"


@dataclass(frozen=True, slots=True)
class DiskRecipe:
    """A disk to build: `size` bytes in whole MiB, of which about `content` bytes are real files."""

    kind: DiskKind
    size: int
    content: int
    seed: int
    moment: dt.datetime = _EPOCH

    def __post_init__(self) -> None:
        if self.size < 32 * MIB or self.size % MIB:
            raise ValueError(f"a disk has whole MiB and at least 32 of them, got {self.size} bytes")
        # Tables, journal and half-filled last blocks take their part of a file system.
        if self.content > self.size * 7 // 10:
            raise ValueError(f"a disk of {self.size} bytes takes 70 % of them as files, not {self.content}")


@dataclass(frozen=True, slots=True)
class PageWork:
    """Bytes of scattered 4 KiB writes, and bytes to clear in segments of 1 MiB, on a disk of pages."""

    update: int = 0
    drop: int = 0


@dataclass(frozen=True, slots=True)
class DiskChanges:
    """A guest's work on one disk at `moment`; the disk grows to `grow_to` bytes before the work."""

    work: FileWork | PageWork
    seed: int
    moment: dt.datetime
    grow_to: int | None = None


class ChangeSummary(NamedTuple):
    """What the work came to: files in the guest, and the 4 KiB blocks of the disk that differ since.

    `written` blocks hold data now, `cleared` ones are holes of the image; `size` is the disk's, in bytes.
    """

    files: TouchedFiles
    written: tuple[ByteRange, ...]
    cleared: tuple[ByteRange, ...]
    size: int


class Verdict(Enum):
    CLEAN = "clean"
    DIRTY = "dirty"
    SKIPPED = "skipped"


class CheckResult(NamedTuple):
    """`detail` says what was found wrong, or why nothing was checked; empty for a clean disk."""

    verdict: Verdict
    detail: str


def missing_tools() -> list[str]:
    """The tools of e2fsprogs that this machine lacks; empty when every kind of disk can be built."""
    return [tool for tool in TOOLS if find_tool(tool) is None]


def build_disk(recipe: DiskRecipe, path: Path, sources: Sequence[SourceFile]) -> None:
    """Write the recipe's disk to `path` as a sparse image, replacing what is there.

    Raises ToolFailed when e2fsprogs is absent or fails, ValueError when `sources` cannot fill the disk.
    """
    create_image(path, recipe.size)
    if recipe.kind is DiskKind.PAGES:
        pagefile.fill(path, recipe.content, sources, recipe.seed)
        return
    partition = _partition(recipe, path)
    filesystem = Ext4(path, partition.offset, recipe.moment)
    filesystem.create(partition.length, *_identities(recipe.seed))
    with TemporaryDirectory() as scratch:
        copy_in(filesystem, choose(sources, recipe.content, recipe.seed), Path(scratch))


def change_disk(path: Path, changes: DiskChanges, sources: Sequence[SourceFile]) -> ChangeSummary:
    """Carry out a guest's work on the image in place; a file system is left clean.

    Files are taken as they fit, so that no more than the bytes asked for are added, rewritten or deleted.
    """
    before = block_digests(path)
    if changes.grow_to is not None:
        grow_disk(path, changes.grow_to, changes.moment)
    with TemporaryDirectory() as scratch:
        files = _carry_out(path, changes, sources, Path(scratch))
    blocks = differences(before, path)
    return ChangeSummary(files, blocks.written, blocks.cleared, size=path.stat().st_size)


def grow_disk(path: Path, new_size: int, moment: dt.datetime) -> None:
    """Make the disk `new_size` bytes; a file system without a partition table grows with it.

    A partition stays as it is, as after growing a cloud disk whose guest has not been told.
    """
    size = path.stat().st_size
    if new_size < size:
        raise ValueError(f"{path}: a disk cannot shrink from {size} to {new_size} bytes")
    with path.open("r+b") as image:
        image.truncate(new_size)
    if find_filesystem(path) == 0:
        Ext4(path, 0, moment).grow_to_image()


def check_disk(path: Path) -> CheckResult:
    """Whether the file system, or every database page, on the disk is sound. Changes nothing."""
    offset = find_filesystem(path)
    if offset is not None:
        return _check_filesystem(Ext4(path, offset, _EPOCH))
    if not pagefile.is_pagefile(path):
        return CheckResult(Verdict.SKIPPED, f"{path} holds neither an ext file system nor database pages")
    damaged = pagefile.damaged_pages(path)
    if damaged:
        return CheckResult(Verdict.DIRTY, f"{len(damaged)} damaged pages, the first are {damaged[:10]}")
    return CheckResult(Verdict.CLEAN, "")


def _check_filesystem(filesystem: Ext4) -> CheckResult:
    if find_tool("e2fsck") is None:
        return CheckResult(Verdict.SKIPPED, "e2fsck is not installed; it is part of e2fsprogs")
    errors = filesystem.errors()
    return CheckResult(Verdict.DIRTY if errors else Verdict.CLEAN, errors)


def _partition(recipe: DiskRecipe, path: Path) -> ByteRange:
    match recipe.kind:
        case DiskKind.GPT_EXT4:
            return write_gpt(path, recipe.seed)
        case DiskKind.MBR_EXT4:
            return write_mbr(path, recipe.seed)
        case _:
            return ByteRange(0, recipe.size)


def _carry_out(
    path: Path, changes: DiskChanges, sources: Sequence[SourceFile], scratch: Path
) -> TouchedFiles:
    offset = find_filesystem(path)
    match changes.work:
        case FileWork() as work if offset is not None:
            filesystem = Ext4(path, offset, changes.moment)
            return work_on_files(filesystem, work, sources, changes.seed, scratch)
        case PageWork() as work if pagefile.is_pagefile(path):
            pagefile.drop(path, work.drop, changes.seed)
            pagefile.update(path, work.update, changes.seed)
            return TouchedFiles()
        case work:
            found = "no ext file system" if offset is None else "an ext file system"
            raise ValueError(f"{path}: {type(work).__name__} does not fit a disk that holds {found}")


def _identities(seed: int) -> tuple[uuid.UUID, uuid.UUID]:
    """The file system's UUID and the seed of its directory hashes."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return uuid.UUID(int=rng.getrandbits(128), version=4), uuid.UUID(int=rng.getrandbits(128), version=4)
