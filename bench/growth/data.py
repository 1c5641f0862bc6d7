"""Full, CBT, CRC and restore of a disk with so many GiB of data.

    python -m bench.growth.data [GIB ...]           # 0.25 0.5 1 2; up to 32 where there is room

It takes one and a half times the room, twice while the disk is made. Half of each extent is noise, the other
half zeros, so it stores as half. One extent in a thousand changes before the CBT job and again before the CRC
job. The disk is twice as large as its data: what is not allocated costs nothing. All is real but Azure, which
is deleted before the disk is restored: TLS, digests, proofs, commits, fsync.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.growth.azure import simulated_azure
from bench.growth.jobs import VM, DiskJobs
from bench.growth.measure import Measure, Picture, Row, run
from vsa.model import DEFAULT_EXTENT_SIZE, Method, Reason
from vsa.ranges import GIB, KIB

CHANGED = 1000
NOISE = DEFAULT_EXTENT_SIZE // 2


def write_image(path: Path, size: int) -> None:
    """Extents of which half is noise."""
    noise, zeros = Random(size), bytes(DEFAULT_EXTENT_SIZE - NOISE)
    with path.open("wb") as file:
        for _ in range(size // DEFAULT_EXTENT_SIZE):
            file.write(noise.randbytes(NOISE) + zeros)


def take(size: float, folder: Path) -> Row:
    length = int(size * GIB) // DEFAULT_EXTENT_SIZE * DEFAULT_EXTENT_SIZE
    image, change = folder / "disk.img", folder / "change.bin"
    with simulated_azure(folder / "azure") as azure:
        write_image(image, length)
        disk = {"name": "disk", "image": str(image), "size": 2 * length}
        azure.control.create_fleet({"vms": [{"name": VM, "disks": [disk]}]})
        image.unlink()
        jobs, rng = DiskJobs(azure, folder), Random(0)

        def write() -> None:
            for extent in rng.sample(
                range(length // DEFAULT_EXTENT_SIZE), length // DEFAULT_EXTENT_SIZE // CHANGED
            ):
                change.write_bytes(rng.randbytes(4 * KIB))
                azure.control.write_at("disk", extent * DEFAULT_EXTENT_SIZE, change)

        assert jobs.back_up("full").reason is Reason.FULL_FIRST
        write()
        assert jobs.back_up("CBT").reason is Reason.CBT
        write()
        assert jobs.back_up("CRC", method=Method.CRC).reason is Reason.CRC_REQUESTED
    shutil.rmtree(folder / "azure")
    jobs.restore("restore")
    return jobs.row


MEASURE = Measure(
    name="data",
    about="A disk with so much data, half of it noise; one extent in a thousand changes between jobs.",
    size_label="GiB of data",
    sizes=(0.25, 0.5, 1, 2),
    take=take,
    pictures=(
        Picture(
            "data",
            "CPU by data",
            "CPU seconds",
            {name: f"{name} CPU s" for name in ("full", "CRC", "restore", "CBT")},
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
