"""Full, CBT, CRC and restore of a disk of so many TiB with the same 64 MiB of data on each.

    python -m bench.growth.sparse [TIB ...]         # 1 2 4 8 16 32

What makes the disk large is neither there nor read: the ranges that Azure lists and the index of the backup
say so, and are counted. The audit is at its least here, 16 extents: by default it reads a thousandth of the
disk, also of what was never written, because it is there to find a list of ranges that leaves out data.
The restore takes no checksum of the whole, which would go through every zero of it; its file system must take
files as large as the disk, which ext4 does below 16 TiB and tmpfs beyond (`--folder /dev/shm`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.growth.azure import simulated_azure
from bench.growth.jobs import VM, DiskJobs
from bench.growth.measure import Measure, Picture, Row, run
from vsa.media.media import Media
from vsa.model import Method
from vsa.ranges import MIB

TIB = 2**40
PIECES = 64


def take(size: float, folder: Path) -> Row:
    length, change = int(size * TIB), folder / "change.bin"
    with simulated_azure(folder / "azure") as azure:
        azure.control.create_fleet({"vms": [{"name": VM, "disks": [{"name": "disk", "size": length}]}]})
        jobs = DiskJobs(azure, folder, audit_share=0.0, audit_cycle_jobs=10**9)
        rng, step = Random(0), length // PIECES // MIB * MIB

        def write(pieces: range) -> None:
            for piece in pieces:
                change.write_bytes(rng.randbytes(MIB))
                azure.control.write_at("disk", piece * step, change)

        write(range(PIECES))
        jobs.back_up("full")
        write(range(3))
        jobs.back_up("CBT")
        write(range(3, 6))
        backup = jobs.back_up("CRC", method=Method.CRC)
        jobs.restore("restore", checksum=False)
        index = Media.open(str(folder / "media")).disk_index(backup.indexes, length)
        held = sum(int((table.pack >= 0).sum()) for table in index.tables())
        assert held == PIECES * MIB // index.extent_size
        return jobs.row | {
            "segments": -(-length // (4 * 2**30)),
            "segments in the index": len(index.segments()),
            "extents held": held,
        }


MEASURE = Measure(
    name="sparse",
    about=f"Disks with {PIECES} MiB of data, spread over so many TiB; 3 MiB change between jobs.",
    size_label="TiB of disk",
    sizes=(1, 2, 4, 8, 16, 32),
    take=take,
    pictures=(
        Picture(
            "sparse",
            f"CPU by size of the disk, {PIECES} MiB of data",
            "CPU seconds",
            {name: f"{name} CPU s" for name in ("full", "CBT", "CRC", "restore")},
        ),
        Picture("sparse-memory", "Memory by size of the disk", "MiB", {"peak": "peak MiB"}),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
