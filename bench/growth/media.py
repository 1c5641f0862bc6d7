"""Opening, listing, forgetting and pruning media of so many points.

    python -m bench.growth.media [POINTS ...]       # 1000 10000 100000; 100000 take 3 GB of disk

Points of one disk each, 200 days of every VM. Each day left an index of a few rows, beside the one of the
first day, and a pack: small, but there, since a prune reads every index. Half are forgotten and pruned.
Retention is asked for both ways, as a plan and done.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.growth.measure import Measure, Picture, Row, elsewhere, run
from bench.media_scale import NOW, disk_of, vm_of, write_log
from vsa.cli import reports
from vsa.media import layout
from vsa.media.entries import ClientEntry, EntryBody, PointEntry, SeenName
from vsa.media.index import ROW, IndexDescription, PackRef, write_index
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.model import DEFAULT_EXTENT_SIZE, DiskBackup, IndexRef, Point, ProcessName, Vm
from vsa.retention import Retention
from vsa.upkeep.forgetting import Limits, by_policy, forget, plan_forgetting
from vsa.upkeep.prune import carry_out, plan_prune

DAYS = 200
ROWS, CHANGED = 64, 4
"""Extents of each disk's first index, and of every later one."""
FRAME = 1000
"""Bytes of a stored extent. Nothing is there but a file of the right length: nothing reads it."""


class _Maker:
    """Makes media whose indexes are there and lead to packs of the right length."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._media = Media.create(str(folder), now=NOW)
        self._first: dict[int, IndexRef] = {}

    def make(self, points: int) -> Media:
        vms = [vm_of(number) for number in range(-(-points // DAYS))]
        write_log(self._folder, self._media, self._bodies(vms, points))
        return self._media

    def _bodies(self, vms: Sequence[Vm], points: int) -> Iterator[tuple[str | None, EntryBody]]:
        for vm in vms:
            name = SeenName(name=vm.name, resource_id=vm.resource_id, first_seen=NOW, last_seen=NOW)
            yield None, ClientEntry(vm=vm, names=(name,), first_seen=NOW, last_seen=NOW)
        for number in range(points):
            day, at = divmod(number, len(vms))
            yield f"{number:016x}", PointEntry(point=self._point(vms[at], at, day, f"{number:016x}"))

    def _point(self, vm: Vm, at: int, day: int, run: str) -> Point:
        disk = disk_of(vm, day)
        made = self._index(disk, run, day)
        first = self._first.setdefault(at, made)
        indexes = (first,) if made is first else (first, made)
        backup = disk.model_copy(update={"indexes": indexes, "packs": (self._pack_name(run),)})
        return Point(vm=vm, subclient="daily", job=f"day-{day}", disks=(backup,), bases=(backup.snapshot,))

    @staticmethod
    def _pack_name(run: str) -> str:
        return layout.pack(run, bytes.fromhex(run) * 2)

    def _index(self, disk: DiskBackup, run: str, day: int) -> IndexRef:
        count = CHANGED if day else ROWS
        pack = PackRef(name=self._pack_name(run), size=4096 + count * FRAME, sha256="0" * 64)
        about = IndexDescription(
            media=self._media.id,
            run=run,
            disk_key=disk.disk.key,
            disk_size=disk.disk.size,
            extent_size=DEFAULT_EXTENT_SIZE,
            kind=IndexKind.DELTA if day else IndexKind.BASE,
            packs=(pack,),
        )
        rows = np.zeros(count, ROW)
        rows["extent"] = np.arange(count) * (ROWS // count)
        rows["offset"] = 64 + np.arange(count) * FRAME
        rows["length"] = FRAME
        rows["digest"] = np.frombuffer(os.urandom(32 * count), np.dtype((np.void, 32)))
        name = layout.index(run, disk.disk.key, bytes.fromhex(run))
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ref = write_index(path, name, about, iter([(0, rows)]))
        packed = self._folder / pack.name
        packed.parent.mkdir(parents=True, exist_ok=True)
        with packed.open("wb") as file:
            file.truncate(pack.size)
        return ref


def make(folder: Path, points: int) -> None:
    _Maker(folder).make(points)


def take(size: float, folder: Path) -> Row:
    points = int(size)
    elsewhere(make, folder / "media", points)
    row: Row = {}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = act()
        row[f"{name} s"] = round(time.perf_counter() - wall, 3)
        row[f"{name} CPU s"] = round(time.process_time() - cpu, 3)
        return found

    media = Media.open(str(folder / "media"), write=True)
    view = timed("open", media.view)
    listed = timed("list points", lambda: reports.points_document(view, reports.points_of(view, None)))
    timed("list clients", lambda: reports.clients_document(view))
    assert len(listed) == points
    later = NOW + dt.timedelta(days=10 * 365)
    limits = Limits(trust_clock=True)
    request = by_policy(lambda _: Retention(keep_last=DAYS // 2))
    plan = timed("plan to forget", lambda: plan_forgetting(media, request, now=later, limits=limits))
    timed("forget", lambda: forget(media, plan, now=later))
    going = len(plan.decision.going)
    (folder / "scratch").mkdir()
    grace = dt.timedelta(days=1)
    deep = later + dt.timedelta(days=365)
    prune = timed(
        "plan to prune",
        lambda: plan_prune(media, now=deep, scratch=folder / "scratch", grace=grace, trust_clock=True),
    )
    assert len(prune.points) == going
    process = ProcessName(host="bench", boot="b", id=1, started="1")
    done = timed("prune", lambda: carry_out(prune, process=process))
    assert len(done.points) == going
    row |= {"points": points, "given up": going, "objects deleted": done.deleted.objects}
    return row


_STAGES = ("open", "list points", "list clients", "plan to forget", "plan to prune", "prune")
MEASURE = Measure(
    name="media",
    about=f"Media of {DAYS} daily points of one disk each; half of them are forgotten and pruned.",
    size_label="points",
    sizes=(1_000, 10_000, 100_000),
    take=take,
    pictures=(
        Picture(
            "media", "CPU by length of the log", "CPU seconds", {s: f"{s} CPU s" for s in _STAGES}, log=True
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
