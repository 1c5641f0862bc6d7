"""What the demonstration claims, checked against the source images, the tools and the simulated Azure."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.disks import CheckResult, Verdict, check_disk, sha256_of
from vsa.media.entries import DiskOutcome, JobEntry
from vsa.model import Method
from vsa.text import size_text

FOOTER = 512
STAGING = "vsa-staging"


@dataclass(frozen=True)
class Proof:
    """One claim; `holds` is None where a tool to check it is missing, and `found` says which."""

    claim: str
    holds: bool | None
    found: str = ""


@dataclass(frozen=True)
class Restored:
    """A restored disk and the SHA-256 that its source had when the snapshot was taken."""

    disk: str
    point: int
    path: Path
    vhd: bool
    expected: str


def prove_restores(restored: Sequence[Restored]) -> Iterator[Proof]:
    """Every image equals its source, every file system is clean, every VHD opens elsewhere."""
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(_look_at, restored))
    wrong = [
        _title(item) for item, (digest, _) in zip(restored, seen, strict=True) if digest != item.expected
    ]
    claim = f"all {len(restored)} restored images equal their sources at snapshot time (SHA-256)"
    yield Proof(claim, not wrong and bool(restored), ", ".join(wrong))
    yield _clean([(_title(item), check) for item, (_, check) in zip(restored, seen, strict=True)])
    yield _vhds_open([item for item in restored if item.vhd])


def _without_footer(item: Restored) -> Path:
    """The guest's view of a VHD, the file without its footer, as a sparse copy beside it."""
    bare = item.path.with_suffix(".guest")
    copy = shutil.which("cp") or "/bin/cp"
    subprocess.run([copy, "--sparse=always", item.path, bare], check=True)
    with bare.open("r+b") as file:
        file.truncate(item.path.stat().st_size - FOOTER)
    return bare


def _look_at(item: Restored) -> tuple[str, CheckResult]:
    """SHA-256 and soundness of what a guest would see of the restored disk."""
    path = _without_footer(item) if item.vhd else item.path
    try:
        return sha256_of(path), check_disk(path)
    finally:
        if item.vhd:
            path.unlink()


def _clean(checks: Sequence[tuple[str, CheckResult]]) -> Proof:
    dirty = [f"{title}: {result.detail}" for title, result in checks if result.verdict is Verdict.DIRTY]
    skipped = {result.detail for _, result in checks if result.verdict is Verdict.SKIPPED}
    sound = sum(result.verdict is Verdict.CLEAN for _, result in checks)
    claim = f"{sound} restored file systems and page files are clean (e2fsck -fn, page checksums)"
    holds = False if dirty else (None if skipped or not sound else True)
    return Proof(claim, holds, "; ".join([*dirty, *sorted(skipped)]))


def _vhds_open(vhds: Sequence[Restored]) -> Proof:
    qemu_img = shutil.which("qemu-img")
    claim = f"all {len(vhds)} VHDs open in qemu-img as fixed VHDs of the right size"
    if qemu_img is None:
        return Proof(claim, None, "qemu-img is not installed; it is part of qemu-utils")
    wrong = []
    for item in vhds:
        command = [qemu_img, "info", "-f", "vpc", "--output", "json", str(item.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        size = f'"virtual-size": {item.path.stat().st_size - FOOTER}'
        if done.returncode or size not in done.stdout:
            wrong.append(f"{_title(item)}: {(done.stderr or done.stdout).strip()}")
    return Proof(claim, not wrong and bool(vhds), "; ".join(wrong))


def prove_savings(full: JobEntry, incremental: JobEntry) -> Proof:
    """The CBT job read less than a tenth of what the full job read of the same disks."""
    before = {disk.key: disk for disk in _disks(full)}
    after = [disk for disk in _disks(incremental) if disk.method is Method.CBT]
    read_before = sum(_read(before[disk.key]) for disk in after)
    read_after = sum(_read(disk) for disk in after)
    found = f"{size_text(read_after)} of {size_text(read_before)} on {len(after)} disks"
    return Proof("CBT read less than a tenth of what the full read", 0 < read_after * 10 < read_before, found)


def prove_nothing_left(inventory: dict[str, list[dict[str, Any]]], disks: int) -> Iterator[Proof]:
    """The simulated Azure holds one base snapshot for each protected disk and nothing else of ours."""
    managed = [row["tags"].get("vsa-disk") for row in inventory["snapshots"]]
    blobs = [row["metadata"].get("vsa_disk") for row in inventory["blobs"] if row.get("snapshot")]
    bases = [*managed, *blobs]
    exactly = len(bases) == len(set(bases)) == disks and None not in bases
    yield Proof(
        f"exactly one base snapshot for each of {disks} CBT disks", exactly, f"{len(bases)} snapshots"
    )
    open_grants = [
        row["name"] for kind in ("disks", "snapshots") for row in inventory[kind] if row["grant_open"]
    ]
    yield Proof("no access grant is open", not open_grants, ", ".join(open_grants))
    staging = [row["name"] for row in inventory["blobs"] if row["container"] == STAGING]
    yield Proof("no staging blob is left", not staging, ", ".join(staging))


def prove_staging(requests: Sequence[dict[str, Any]], *, copies: int) -> Proof:
    """Every disk in a premium account was copied to a staging blob in every job, and read there."""
    staging = [row for row in requests if f"/{STAGING}/" in row["path"]]
    made = {row["path"] for row in staging if row["method"] == "PUT" and row["status"] == 202}
    read = {row["path"] for row in staging if row["method"] == "GET" and row["status"] == 206}
    holds = made == read and len(made) == copies > 0
    found = f"{len(made)} copied, {len(read)} read"
    return Proof("disks in a premium account were read through staging blobs", holds, found)


def _disks(report: JobEntry) -> list[DiskOutcome]:
    return [disk for vm in report.vms for disk in vm.disks]


def _read(disk: DiskOutcome) -> int:
    return disk.figures.read if disk.figures else 0


def _title(item: Restored) -> str:
    return f"{item.disk} of point {item.point}"
