"""An image to back up, and versions of it with some of it changed: real files, and the same bytes each time.

The pattern of changes: half of the bytes as writes of 4 KiB, of which seven in ten fall into a few hot zones
of 8 MiB, as those of a database do; half as runs of 64 KiB to 4 MiB, every second of them anywhere, free
space included, as new files. What is written are bytes of files, too, so that it compresses as files do.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from demo.ext4 import BLOCK, Ext4
from demo.file_work import copy_in
from demo.images import create_image, data_ranges, sha256_of
from demo.sources import SourceFile, choose, list_sources, machine_roots
from vsa.ranges import KIB, MIB, ByteRange, merge

SEED = 6
FILLED = 0.575
"""Share of the file system that files fill."""
SHARES = {"1": 0.01, "0.1": 0.001}
"""The versions: percent as people say it, and the share of the image that is changed."""
_MOMENT = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
_HOT_ZONE = 2048
"""Blocks."""
_IN_HOT_ZONES, _ANYWHERE = 0.7, 0.5
_RUNS = [size * KIB for size in (64, 128, 256, 512, 1024, 2048, 4096)]
_MANIFEST = "image.json"
_MOST_DONORS = 300 * MIB


@dataclass(frozen=True)
class Version:
    """One image file: what it holds, and where it differs from the first one, in bytes."""

    path: Path
    sha256: str
    changed: tuple[ByteRange, ...] = ()

    @property
    def changed_bytes(self) -> int:
        return sum(item.length for item in self.changed)


@dataclass(frozen=True)
class Images:
    """The first version, and the changed ones by their percentage."""

    size: int
    allocated: int
    first: Version
    changed: dict[str, Version]


def make_images(folder: Path, mib: int, *, seed: int = SEED, say: Callable[[str], None]) -> Images:
    """The images in this folder, made unless they are there already. They need about 1.8 times `mib`."""
    if found := _kept(folder, mib, seed):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MANIFEST).unlink(missing_ok=True)
    size = mib * MIB
    say(f"making a file system of {mib} MiB from files of this machine")
    sources = choose(list_sources(machine_roots(), max_bytes=2 * size), int(size * FILLED), seed)
    first = folder / "first.img"
    _fill(first, size, sources, seed, folder)
    data = data_ranges(first)
    donors = _donors(sources, seed, min(_MOST_DONORS, max(size // 12, 2 * MIB)))
    changed = {}
    for number, (percent, share) in enumerate(SHARES.items()):
        say(f"changing {percent} % of it")
        path = folder / f"changed-{percent}.img"
        ranges = _change(first, path, data, donors, share=share, seed=seed + 1 + number)
        changed[percent] = Version(path, sha256_of(path), ranges)
    allocated = sum(item.length for item in data)
    images = Images(size, allocated, Version(first, sha256_of(first)), changed)
    _keep(images, folder, mib, seed)
    return images


def _fill(image: Path, size: int, sources: Sequence[SourceFile], seed: int, folder: Path) -> None:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    create_image(image, size)
    filesystem = Ext4(image, 0, _MOMENT)
    filesystem.create(size, UUID(int=seed), UUID(int=seed + 1))
    copy_in(filesystem, sources, scratch)
    for left in scratch.iterdir():
        left.unlink()
    scratch.rmdir()


def _donors(sources: Sequence[SourceFile], seed: int, budget: int) -> bytes:
    """What will be written: files of the image with every byte another, so that nothing is there already."""
    data = bytearray()
    for source in random.Random(seed).sample(sources, len(sources)):
        if len(data) >= budget:
            break
        data += SourceFile(source.path, source.target, source.size, variant=source.variant + 100).content()
    return bytes(data[:budget])


def _change(
    first: Path, target: Path, data: Sequence[ByteRange], donors: bytes, *, share: float, seed: int
) -> tuple[ByteRange, ...]:
    """Copy the first image and change that share of it; the ranges that were written."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", first, target], check=True)
    size = first.stat().st_size
    descriptor = os.open(target, os.O_RDWR)
    rng = random.Random(seed)
    written: set[int] = set()
    try:
        for at in _places(rng, data, size, share, written):
            begin = rng.randrange(len(donors) - at.length + 1)
            os.pwrite(descriptor, donors[begin : begin + at.length], at.offset)
            written.update(range(at.offset // BLOCK, at.end // BLOCK))
    finally:
        os.close(descriptor)
    return tuple(merge(ByteRange(block * BLOCK, (block + 1) * BLOCK) for block in written))


def _places(
    rng: random.Random, data: Sequence[ByteRange], size: int, share: float, written: set[int]
) -> Iterator[ByteRange]:
    """Where to write next, until the caller has `written` as many blocks as are wanted."""
    used = [block for item in data for block in range(item.offset // BLOCK, item.end // BLOCK)]
    wanted = int(size * share)
    zone = min(_HOT_ZONE, len(used) // 8)
    zones = [rng.randrange(len(used) - zone) for _ in range(max(1, round(8 * share / 0.01)))]
    while len(written) < wanted // 2 // BLOCK:
        hot = rng.random() < _IN_HOT_ZONES
        block = used[rng.choice(zones) + rng.randrange(zone) if hot else rng.randrange(len(used))]
        if block not in written:
            yield ByteRange(block * BLOCK, (block + 1) * BLOCK)
    runs = [length for length in _RUNS if length <= max(wanted, _RUNS[0])]
    while len(written) * BLOCK < wanted:
        length = rng.choice(runs)
        anywhere = rng.random() < _ANYWHERE
        block = rng.randrange(size // BLOCK) if anywhere else rng.choice(used)
        if block * BLOCK + length <= size:
            yield ByteRange(block * BLOCK, block * BLOCK + length)


def _named(mib: int, seed: int) -> dict[str, object]:
    """What makes images these and no others: the sizes, the seed, and this module itself."""
    return {"mib": mib, "seed": seed, "by": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def _keep(images: Images, folder: Path, mib: int, seed: int) -> None:
    def told(version: Version) -> dict[str, object]:
        return asdict(version) | {"path": version.path.name}

    document = _named(mib, seed) | {
        "allocated": images.allocated,
        "first": told(images.first),
        "changed": {percent: told(version) for percent, version in images.changed.items()},
    }
    (folder / _MANIFEST).write_text(json.dumps(document) + "\n")


def _kept(folder: Path, mib: int, seed: int) -> Images | None:
    try:
        document = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    if any(document.get(name) != value for name, value in _named(mib, seed).items()):
        return None

    def version(told: dict[str, object]) -> Version:
        changed = tuple(ByteRange(*item) for item in told["changed"])  # type: ignore[attr-defined]
        return Version(folder / str(told["path"]), str(told["sha256"]), changed)

    changed = {percent: version(told) for percent, told in document["changed"].items()}
    return Images(mib * MIB, document["allocated"], version(document["first"]), changed)
