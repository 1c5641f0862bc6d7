"""What happens inside a machine: writes, discards and growth of its disks, with their history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from azsim.image_files import size_in_pages
from azsim.page_slots import PAGE
from azsim.places import Disk, find_disk
from azsim.simulation import Simulation
from azsim.unmanaged import grow_vhd

BLOCK = 4096
_PIECE = 4 << 20


def write_image(simulation: Simulation, disk: str, image: str, discard: bool = False) -> dict[str, int]:
    """Make the disk's bytes those of the file, zeros behind its end, by writing 4 KiB blocks that differ.

    With `discard`, blocks that became zero are cleared instead of written. A file larger than the disk
    grows the disk first. Returns how many bytes were written and cleared, and the disk's size.
    """
    path = Path(image)
    target = _grown_to_at_least(simulation, find_disk(simulation, disk), size_in_pages(path))
    pages = simulation.pages
    counts = {"written": 0, "cleared": 0, "size": target.size}
    with path.open("rb") as file:
        for offset in range(0, target.size, _PIECE):
            length = min(_PIECE, target.size - offset)
            wanted = file.read(length).ljust(length, b"\0")
            present = pages.read(target.image, offset, length)
            if wanted == present:
                continue
            for start, end, is_zero in _differing_runs(present, wanted):
                if discard and is_zero:
                    pages.clear(target.image, offset + start, end - start)
                    counts["cleared"] += end - start
                else:
                    pages.write(target.image, offset + start, memoryview(wanted)[start:end])
                    counts["written"] += end - start
    return counts


def write_at(simulation: Simulation, disk: str, offset: int, source: str) -> dict[str, int]:
    """Write a file's bytes at an offset, also where they are what the disk holds already.

    The rest of their last sector becomes zeros: a disk is written in whole ones.
    """
    target = find_disk(simulation, disk)
    data = Path(source).read_bytes()
    data += bytes(-len(data) % PAGE)
    _require_inside(target, offset, len(data))
    simulation.pages.write(target.image, offset, data)
    return {"written": len(data)}


def clear(simulation: Simulation, disk: str, offset: int, length: int) -> dict[str, int]:
    """Discard a range, as a guest's TRIM does."""
    target = find_disk(simulation, disk)
    _require_inside(target, offset, length)
    simulation.pages.clear(target.image, offset, length)
    return {"cleared": length}


def grow(simulation: Simulation, disk: str, size: int) -> dict[str, int]:
    """Make the disk larger."""
    return {"size": _grown(simulation, find_disk(simulation, disk), size).size}


def digest(simulation: Simulation, disk: str) -> dict[str, Any]:
    """Size and SHA-256 of a disk's bytes, for comparison with an image file."""
    target = find_disk(simulation, disk)
    sha256 = hashlib.sha256()
    for piece in _content(simulation, target):
        sha256.update(piece)
    return {"size": target.size, "sha256": sha256.hexdigest()}


def save(simulation: Simulation, disk: str, image: str) -> dict[str, int]:
    """Write the disk's bytes to a sparse raw image file."""
    target = find_disk(simulation, disk)
    with Path(image).open("wb") as file:
        for piece in _content(simulation, target):
            if piece.count(0) == len(piece):
                file.seek(len(piece), 1)
            else:
                file.write(piece)
        file.truncate(target.size)
    return {"size": target.size}


def _content(simulation: Simulation, target: Disk) -> Iterator[bytes]:
    for offset in range(0, target.size, _PIECE):
        yield simulation.pages.read(target.image, offset, min(_PIECE, target.size - offset))


def _differing_runs(present: bytes, wanted: bytes) -> Iterator[tuple[int, int, bool]]:
    """Runs of 4 KiB blocks that differ, as (start, end, wanted bytes are all zero)."""
    old, new = _blocks(present), _blocks(wanted)
    differs = (old != new).any(axis=1)
    kinds = np.where(differs, np.where(new.any(axis=1), 1, 2), 0)
    edges = np.flatnonzero(np.diff(kinds, prepend=0, append=0))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if kinds[begin]:
            yield begin * BLOCK, min(end * BLOCK, len(wanted)), bool(kinds[begin] == 2)


def _blocks(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    padded = data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")
    return np.frombuffer(padded, np.uint8).reshape(-1, BLOCK)


def _grown_to_at_least(simulation: Simulation, target: Disk, size: int) -> Disk:
    return target if size <= target.size else _grown(simulation, target, size)


def _grown(simulation: Simulation, target: Disk, size: int) -> Disk:
    with simulation.lock:
        if target.resource is not None:
            simulation.disks.grow(target.resource, size)
        else:
            assert target.blob is not None
            grow_vhd(simulation, *target.blob, size)
    return target.resized(size)


def _require_inside(target: Disk, offset: int, length: int) -> None:
    if offset < 0 or offset + length > target.size:
        raise ValueError(
            f"disk {target.label} has {target.size} bytes: {length} bytes at {offset} do not fit"
        )
