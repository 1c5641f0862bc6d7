"""How opening backup media, and appending to it, grow with the length of its log.

    python -m bench.media_scale [POINTS ...]       # 1000 10000 100000

Prints the table of docs/performance.md. Each measurement is a process of its own, the median of five; its
peak memory is what the kernel says (Linux).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.meter import peak_memory
from vsa.media import documents, layout
from vsa.media.entries import ClientEntry, DoubtEntry, Entry, EntryBody, PointEntry, SeenName
from vsa.media.media import Media
from vsa.model import (
    DiskBackup,
    DiskFigures,
    DiskKind,
    DiskRole,
    IndexRef,
    Method,
    Point,
    Reason,
    SnapshotRef,
    SourceDisk,
    Vm,
)
from vsa.ranges import GIB, MIB

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
VMS = 500
ROUNDS = 5
APPENDS = 20
_GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/production/providers"


def make_long_log(folder: Path, points: int, *, vms: int = VMS) -> Media:
    """Media with the log of so many daily points, two disks each, written without waiting for the disk.

    There is nothing behind them: no indexes, no packs.
    """
    media = Media.create(str(folder), now=NOW)
    write_log(folder, media, _bodies(points, vms))
    return media


def write_log(folder: Path, media: Media, bodies: Iterable[tuple[str | None, EntryBody]]) -> None:
    """Add entries, each with the run that made it, to the log of media in a folder: past its rules, and not
    waiting for the disk."""
    view = media.view()
    previous = view.head_hash
    (folder / layout.LOG).mkdir(exist_ok=True)
    for slot, (run, body) in enumerate(bodies, view.head):
        entry = Entry(
            seq=slot,
            prev=previous,
            nonce=f"{slot:032x}",
            time=NOW + dt.timedelta(minutes=slot),
            run=run,
            software="bench",
            body=body,
        )
        data = documents.encode(entry)
        (folder / layout.slot(slot)).write_bytes(data)
        previous = documents.sha256(data)


def _bodies(points: int, vms: int) -> Iterator[tuple[str | None, EntryBody]]:
    machines = [vm_of(number) for number in range(min(vms, points))]
    for vm in machines:
        name = SeenName(name=vm.name, resource_id=vm.resource_id, first_seen=NOW, last_seen=NOW)
        yield None, ClientEntry(vm=vm, names=(name,), first_seen=NOW, last_seen=NOW)
    for number in range(points):
        day, vm = number // len(machines), machines[number % len(machines)]
        yield f"{number:016x}", PointEntry(point=_point(vm, day))


def vm_of(number: int) -> Vm:
    return Vm(
        resource_id=f"{_GROUP}/Microsoft.Compute/virtualMachines/server-{number:05}",
        vm_id=f"00000000-0000-0000-0000-{number:012}",
        name=f"server-{number:05}",
        resource_group="production",
        subscription_id="00000000-0000-0000-0000-000000000000",
        region="westeurope",
        size="Standard_D4s_v5",
        os_type="Linux",
        power_state="running",
        tags={"owner": f"team-{number % 17}", "tier": "gold"},
    )


def _point(vm: Vm, day: int) -> Point:
    disks = tuple(disk_of(vm, day, role, lun) for role, lun in ((DiskRole.OS, None), (DiskRole.DATA, 0)))
    bases = tuple(backup.snapshot for backup in disks)
    return Point(vm=vm, subclient="daily", job=f"00000000-0000-4000-8000-{day:012}", disks=disks, bases=bases)


def disk_of(vm: Vm, day: int, role: DiskRole = DiskRole.OS, lun: int | None = None) -> DiskBackup:
    """A disk as a daily backup records it; its indexes are not there."""
    name = f"{vm.name}-{role}"
    digest = documents.sha256(f"{name} {day}".encode())
    disk = SourceDisk(
        name=name,
        role=role,
        lun=lun,
        kind=DiskKind.MANAGED,
        source=f"{_GROUP}/Microsoft.Compute/disks/{name}",
        unique_id=f"{digest[:8]}-0000-0000-0000-000000000000",
        size=128 * GIB,
        sku="Premium_LRS",
        region=vm.region,
        resource_group=vm.resource_group,
    )
    snapshot = SnapshotRef(
        kind=disk.kind,
        id=f"{_GROUP}/Microsoft.Compute/snapshots/vsa-{digest[:16]}-{disk.key}",
        disk_key=disk.key,
        family=digest[:32],
        source_unique_id=disk.unique_id,
        taken_at=NOW + dt.timedelta(days=day),
        size=disk.size,
    )
    indexes = tuple(
        IndexRef(
            name=layout.index(digest[:16], disk.key, bytes.fromhex(digest[16 * layer : 16 * layer + 16])),
            size=MIB,
            sha256=documents.sha256(digest[layer:].encode()),
            footer=2000,
            footer_sha256=digest,
        )
        for layer in range(3)
    )
    return DiskBackup(
        disk=disk,
        snapshot=snapshot,
        method=Method.CBT,
        reason=Reason.CBT,
        parent=max(0, day - 1),
        turn=day,
        indexes=indexes,
        packs=tuple(layout.pack(digest[:16], bytes([number] * 16)) for number in range(4)),
        figures=DiskFigures(size=disk.size, allocated=40 * GIB, changed=GIB, read=GIB, new=GIB),
        proxy="proxy-1",
    )


def opened(folder: str, *, from_log: bool) -> dict[str, Any]:
    """Open, and look at the newest point: seconds from the first import of the engine's media on."""
    began = time.perf_counter()
    view = Media.open(folder, from_log=from_log).view()
    last = next(reversed(list(view.points)))
    name = view.points[last].point.vm.name
    return {"seconds": time.perf_counter() - began, "points": len(view.points), "newest": name}


def appended(folder: str) -> dict[str, Any]:
    """Seconds of one more entry, what the disk takes to store it included, and without that."""
    media = Media.open(folder, write=True)
    view = media.view()
    body = DoubtEntry(points=(next(iter(view.points)),), disk_key="d", reason="measured")
    media.append(body)
    began = time.perf_counter()
    for _ in range(APPENDS):
        media.append(body)
    whole = time.perf_counter() - began
    entry = Entry(seq=0, prev=view.head_hash, nonce="0" * 32, time=NOW, software="bench", body=body)
    view = media.view()
    began = time.perf_counter()
    for slot in range(view.head, view.head + APPENDS):
        view = view.extended([(entry.model_copy(update={"seq": slot}), "0" * 64)])
    return {"seconds": whole / APPENDS, "view": (time.perf_counter() - began) / APPENDS}


def _measured(what: str, folder: Path) -> dict[str, float]:
    """Medians of what separate processes say of themselves."""
    command = [sys.executable, "-m", "bench.media_scale", "--measure", what, str(folder)]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(ROUNDS)
    ]
    return {key: statistics.median(one[key] for one in found) for key in found[0] if key != "newest"}


def _measure(what: str, folder: str) -> None:
    began = time.perf_counter()
    found = appended(folder) if what == "append" else opened(folder, from_log=what == "log")
    found["process"] = time.perf_counter() - began
    found["rss"] = peak_memory() / MIB
    sys.stdout.write(json.dumps(found))


def _row(points: int, folder: Path) -> str:
    media = make_long_log(folder, points)
    log, plain = _measured("log", folder), _measured("append", folder)
    media.checkpoint_if_due(every=1)
    size = sum(path.stat().st_size for path in (folder / layout.CHECKPOINTS).iterdir())
    checkpoint, append = _measured("checkpoint", folder), _measured("append", folder)
    cells = [
        f"{points:,}",
        *(f"{found['seconds']:.2f} s, {found['rss']:.0f} MiB" for found in (log, checkpoint)),
        f"{size / MIB:.1f} MiB",
        *(f"{found['seconds'] * 1e3:.1f} ms ({found['view'] * 1e6:.0f} µs)" for found in (plain, append)),
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.media_scale", description=__doc__)
    parser.add_argument("points", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        _measure(*options.measure)
        return 0
    sys.stdout.write(
        "| points | open from the log | open with a checkpoint | checkpoint "
        "| append, read from the log | append, with a checkpoint |\n|---|---|---|---|---|---|\n"
    )
    for points in options.points:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{_row(points, Path(folder) / 'media')}\n")
            sys.stdout.flush()
    sys.stdout.write(f"\n{os.cpu_count()} CPUs, Python {sys.version.split()[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
