"""A guest at work on its files: adds, rewrites and deletes them, and trims what became free."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from demo.ext4 import Ext4, GuestFile
from demo.images import clear_range, data_ranges
from demo.sources import SourceFile, choose, shifted
from vsa.ranges import clip


@dataclass(frozen=True, slots=True)
class FileWork:
    """Bytes of files to add, rewrite and delete; `trim` clears the blocks that the file system has free."""

    add: int = 0
    rewrite: int = 0
    delete: int = 0
    trim: bool = False


class TouchedFiles(NamedTuple):
    """Absolute paths within the guest."""

    added: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def copy_in(filesystem: Ext4, sources: Sequence[SourceFile], scratch: Path) -> None:
    """Write the files to their targets, whose folders must not exist yet."""
    commands = [*_make_folders(sources), *_write_files(sources, scratch)]
    filesystem.change(commands, scratch)


def work_on_files(
    filesystem: Ext4, work: FileWork, sources: Sequence[SourceFile], seed: int, scratch: Path
) -> TouchedFiles:
    """Rewrite and delete files that `seed` picks, add others below `/work-<seed>`, then trim.

    Each of the three takes whole files, none larger than a quarter of its bytes, and never more bytes
    than asked for. Raises ToolFailed when work with this seed was done on the file system before.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    present = filesystem.files(scratch)
    rng.shuffle(present)
    deleted = _pick(present, work.delete)
    rewritten = _pick([file for file in present if file not in set(deleted)], work.rewrite)
    added = _below(f"work-{seed}", choose(sources, work.add, seed)) if work.add else []
    _rewrite(filesystem, rewritten, rng, scratch)
    copy_in(filesystem, added, scratch)
    # Last, so that the blocks of deleted files are free in the end and a trim has something to clear.
    filesystem.change([f"rm {file.path}" for file in deleted], scratch)
    if work.trim:
        _trim(filesystem)
    return TouchedFiles(
        tuple(f"/{source.target}" for source in added),
        tuple(file.path for file in rewritten),
        tuple(file.path for file in deleted),
    )


def _pick(files: Sequence[GuestFile], budget: int) -> list[GuestFile]:
    picked = []
    for file in files:
        if 0 < file.size <= budget // 4:
            picked.append(file)
            budget -= file.size
    return picked


def _below(folder: str, sources: Iterable[SourceFile]) -> list[SourceFile]:
    return [replace(source, target=f"{folder}/{source.target}") for source in sources]


def _make_folders(sources: Iterable[SourceFile]) -> Iterator[str]:
    folders: set[PurePosixPath] = set()
    for source in sources:
        folders.update(PurePosixPath("/", source.target).parents)
    for folder in sorted(folders - {PurePosixPath("/")}):
        yield f"cd {folder.parent}"
        yield f"mkdir {folder.name}"


def _write_files(sources: Iterable[SourceFile], scratch: Path) -> Iterator[str]:
    """Commands that write the files; variants are laid down in `scratch` first."""
    folder = ""
    for number, source in enumerate(sources):
        if source.folder != folder:
            folder = source.folder
            yield f"cd /{folder}"
        path = source.path
        if source.variant:
            path = _lay_down(scratch / f"variant-{number}", source.content())
        yield f"write {path} {source.name}"


def _rewrite(filesystem: Ext4, files: Sequence[GuestFile], rng: random.Random, scratch: Path) -> None:
    copies = [scratch / f"copy-{number}" for number in range(len(files))]
    filesystem.read([f"dump {file.path} {copy}" for file, copy in zip(files, copies, strict=True)], scratch)
    commands = []
    for file, copy in zip(files, copies, strict=True):
        _lay_down(copy, _edited(copy.read_bytes(), rng))
        folder, _, name = file.path.rpartition("/")
        commands += [f"cd {folder}/", f"rm {name}", f"write {copy} {name}"]
    filesystem.change(commands, scratch)


def _edited(content: bytes, rng: random.Random) -> bytes:
    """The content with a quarter of it changed in one place and a line added, as an editor or a log does."""
    length = -(-len(content) // 4)
    start = rng.randrange(len(content) - length + 1)
    changed = shifted(content[start : start + length], rng.randrange(1, 256))
    return content[:start] + changed + content[start + length :] + b"%016x\n" % rng.getrandbits(64)


def _lay_down(path: Path, content: bytes) -> str:
    """Write a file that every account of the guest can read: debugfs takes the mode over."""
    path.write_bytes(content)
    path.chmod(0o644)
    return str(path)


def _trim(filesystem: Ext4) -> None:
    """Clear blocks that are free and still hold data, as `fstrim` does."""
    data = data_ranges(filesystem.image)
    for free in filesystem.free_ranges():
        for stale in clip(data, free):
            clear_range(filesystem.image, stale.offset, stale.length)
