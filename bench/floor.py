"""What the work alone takes: `python -m bench.floor [--mib 4096] [--rounds 3] [--folder FOLDER]`.

The engine's own codec goes through the extents of an image that lie in memory, in as many threads as there
are processor cores, and nothing else is done: nothing is read from a network, looked up, written, waited for.
No backup that compresses, fingerprints and proves as this one does can take less; what one takes more is what
is worth looking at. The image is that of `bench.data_path`.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.data_path import make_images
from bench.snapshot_server import allocated_ranges
from vsa.media.frames import UNSEALED, Codec, Fingerprint
from vsa.media.store import Buffer
from vsa.ranges import KIB, MIB
from vsa.transfer.compare import is_zero

EXTENT = 64 * KIB
PIECE = 4 * MIB

Clock = Callable[[str], None]
"""Counts the CPU time of its thread since it was asked last for the named step."""
Work = Callable[[list[memoryview], Clock], None]


class Taken(NamedTuple):
    """Seconds; `steps` are CPU seconds of all threads, by step."""

    wall: float
    steps: dict[str, float]

    @property
    def cpu(self) -> float:
        return sum(self.steps.values())


_CODEC = Codec()
"""Of all threads, as a stream has one: its zstd contexts are used again."""


def unproven(extents: list[memoryview], took: Clock) -> None:
    """What a full backup computes, but for the proof of what it is about to store."""
    _stored(extents, took)


def full(extents: list[memoryview], took: Clock) -> None:
    """The same with the proof."""
    frames, proofs = _stored(extents, took)
    for frame, extent, proof in zip(frames, extents, proofs, strict=True):
        _CODEC.decode(frame, len(extent), proof, "a frame")
    took("decoding and fingerprints of the proof")


def _stored(extents: list[memoryview], took: Clock) -> tuple[list[Buffer], list[Fingerprint]]:
    proofs = [UNSEALED.fingerprint(extent) for extent in extents]
    took("fingerprints")
    frames = [_CODEC.encode(extent) for extent in extents]
    took("compressing")
    hashlib.sha256(b"".join(frames))
    took("SHA-256 of packs")
    return frames, proofs


def crc(extents: list[memoryview], took: Clock) -> None:
    """What a backup by CRC computes of data that has not changed."""
    for extent in extents:
        UNSEALED.fingerprint(extent)
    took("fingerprints")


def whole(image: mmap.mmap) -> Taken:
    """The SHA-256 of the whole disk, which one thread alone can compute."""
    began, cpu = time.perf_counter(), time.thread_time()
    digest = hashlib.sha256()
    for start in range(0, len(image), PIECE):
        digest.update(memoryview(image)[start : start + PIECE])
    return Taken(time.perf_counter() - began, {"SHA-256 of the disk": time.thread_time() - cpu})


def measured(work: Work, pieces: list[list[memoryview]], threads: int) -> Taken:
    """The work upon every piece, by so many threads."""
    steps: defaultdict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def one(extents: list[memoryview]) -> None:
        last = time.thread_time()

        def took(step: str) -> None:
            nonlocal last
            now = time.thread_time()
            with lock:
                steps[step] += now - last
            last = now

        work(extents, took)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, pieces))
    return Taken(time.perf_counter() - began, dict(steps))


def pieces_of(image: mmap.mmap, file: int) -> Iterator[list[memoryview]]:
    """The extents with data, as reads bring them."""
    view, done = memoryview(image), 0
    for start, end in allocated_ranges(file):
        # Two ranges may lie in one extent.
        first, done = max(start - start % EXTENT, done), -(-end // EXTENT) * EXTENT
        for at in range(first, end, PIECE):
            extents = (view[offset : offset + EXTENT] for offset in range(at, min(at + PIECE, end), EXTENT))
            if found := [extent for extent in extents if not is_zero(extent)]:
                yield found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=4096, help="size of the image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "data-path")
    options = parser.parse_args()
    make_images(options.folder / "images", options.mib)
    threads = os.cpu_count() or 1
    with (options.folder / "images" / "v1.img").open("rb") as file:
        image = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        pieces = list(pieces_of(image, file.fileno()))
        found: dict[str, list[Taken]] = {}
        for _ in range(options.rounds):
            for name, work in {"full": full, "full, unchecked": unproven, "CRC, unchanged": crc}.items():
                found.setdefault(name, []).append(measured(work, pieces, threads))
            found.setdefault("checksum of a restore", []).append(whole(image))
    data = sum(len(extent) for piece in pieces for extent in piece)
    print(
        f"{data / MIB:.0f} MiB of data in {options.mib} MiB, {threads} threads, medians of {options.rounds}"
    )
    print("| | wall s | CPU s | of it |\n|---|---|---|---|")
    for name, rounds in found.items():
        steps = {step: statistics.median(taken.steps[step] for taken in rounds) for step in rounds[0].steps}
        said = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items() if seconds)
        wall, cpu = (
            statistics.median(values) for values in zip(*((t.wall, t.cpu) for t in rounds), strict=True)
        )
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {said} |")


if __name__ == "__main__":
    main()
