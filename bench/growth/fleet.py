"""Discovery and planning of a subscription of so many VMs, two managed disks each, under ARM's throttling.

    python -m bench.growth.fleet [VMS ...]          # 1000 2500 5000 10000

A job that is not the first: the media has a point of every VM, and each disk has its base snapshot in Azure.
The stages are those of `flows/backup_subclient.py`, one after the other in one thread; what they are asked to
wait is counted and passes in virtual time. Nothing is transferred.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azsim.blob_model import BlobSettings
from azsim.fleet import create_fleet
from azsim.simulation import Settings, open_simulation
from azsim.snapshots import family_of
from bench.growth.azure import SimulatedAzure, VirtualTime, simulated_azure
from bench.growth.measure import Measure, Picture, Row, cpu_of, elsewhere, run
from bench.media_scale import write_log
from vsa.azure.connection import AzureConnection
from vsa.azure.marks import Owner, snapshot_name
from vsa.azure.snapshots import snapshots_of
from vsa.media import documents, layout
from vsa.media.entries import PointEntry, Result, VmOutcome
from vsa.media.media import Media
from vsa.model import (
    DiskBackup,
    DiskFigures,
    IndexRef,
    Method,
    Point,
    Reason,
    SnapshotRef,
    SourceDisk,
    name_key,
)
from vsa.ranges import GIB, MIB
from vsa.stop import again, waiting
from vsa.subclient import Rule, RuleGroup, Subclient, VmField
from vsa.transfer import runs
from vsa.transfer.backup_job import BackupJob, VmDisks
from vsa.transfer.environment import Beginning, RunEnvironment
from vsa.transfer.leftovers import make_room
from vsa.transfer.methods import Wish, decide
from vsa.transfer.proxies import Proxy
from vsa.transfer.releasing import release

DISKS = 2
VMS_IN_A_GROUP = 200
RESOURCES_ON_A_PAGE = 100
"""A choice: Azure does not say how many it lists on one page."""
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
SUBCLIENT = "all"


def _group(number: int, in_a_group: int) -> str:
    return f"group-{number // in_a_group:04}"


def _run_of(number: int) -> str:
    return f"{number:016x}"


def prepare(state: Path, vms: int, in_a_group: int, media_id: str) -> None:
    """Make the fleet and the base snapshots in a state folder that nobody serves."""
    simulation = open_simulation(state, "https://127.0.0.1", Settings(), BlobSettings())
    try:
        create_fleet(simulation, {"vms": [_machine(number, in_a_group) for number in range(vms)]})
        for number in range(vms):
            _snapshot_disks(simulation, number, in_a_group, media_id)
    finally:
        simulation.close()


def _machine(number: int, in_a_group: int) -> dict[str, Any]:
    name = f"server-{number:05}"
    disks = [{"name": f"{name}-{disk}", "size": MIB} for disk in range(DISKS)]
    return {
        "name": name,
        "resource_group": _group(number, in_a_group),
        "tags": {"tier": "gold"},
        "disks": disks,
    }


def _snapshot_disks(simulation: Any, number: int, in_a_group: int, media_id: str) -> None:
    prefix = f"/subscriptions/{simulation.subscription}/resourceGroups/{_group(number, in_a_group)}"
    for disk in range(DISKS):
        source = f"{prefix}/providers/Microsoft.Compute/disks/server-{number:05}-{disk}"
        run = _run_of(number)
        owner = Owner(media=media_id, run=run, job="before", disk=name_key(source))
        simulation.snapshots.take_named(source, snapshot_name(run, owner.disk), owner.tags())


class Stages:
    """Takes the cost of one stage after the other."""

    def __init__(self, azure: SimulatedAzure, time: VirtualTime) -> None:
        self._azure = azure
        self._time = time
        self.row: Row = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = self._now()
        yield
        spent = {key: value - before.get(key, 0.0) for key, value in self._now().items()}
        self.row |= {f"{name} {key}": round(value, 3) for key, value in spent.items() if round(value, 3)}

    def _now(self) -> Row:
        counts = self._azure.control.request_counts()
        return {
            "requests": float(sum(counts.values())),
            "refused": float(sum(count for what, count in counts.items() if what.endswith(" 429"))),
            "waited s": self._time.waited,
            "CPU s": time.process_time() - self._time.cpu,
            "azsim CPU s": cpu_of(self._azure.process),
        }


def take(size: float, folder: Path, *, in_a_group: int = VMS_IN_A_GROUP) -> Row:
    vms = int(size)
    media = Media.create(str(folder / "media"), now=NOW)
    arguments = (folder / "azure", vms, in_a_group, media.id)
    elsewhere(prepare, *arguments)
    with simulated_azure(folder / "azure", page_size=RESOURCES_ON_A_PAGE, throttle=1) as azure:
        return _Job(azure, media, folder).measured()


class _Job:
    def __init__(self, azure: SimulatedAzure, media: Media, folder: Path) -> None:
        self._time = VirtualTime(azure.control)
        self._stages = Stages(azure, self._time)
        self._media = media
        self._began = Beginning.now(media)
        self._folder = folder
        self._job = _job(azure.connection(self._time), media, folder)

    def measured(self) -> Row:
        with self._time.instead_of_waiting(), waiting(self._time.wait):
            self._play()
        return self._stages.row

    def _play(self) -> None:
        job, stage = self._job, self._stages.stage
        with stage("discover"):
            discovery = job.discover()
        with stage("clients"):
            job.record_clients(discovery)
        with stage("targets"):
            targets = job.identify_targets(discovery)
        with stage("disks"):
            found = [job.identify_disks(vm) for vm in targets.vms]
        with stage("streams"):
            streams = job.assign_streams(found, targets.proxies)
        assert len(streams) == DISKS * len(discovery.selected)
        remember(self._folder / "media", self._media, found)
        disks = [disk for item in found for disk in item.disks]
        with stage("room"):
            self._each(disks, lambda disk: make_room(disk, self._environment))
        with stage("decide"):
            self._each(disks, self._decide)
        with stage("release"):
            for item in found:
                assert not release(_run_of(_run_number(item)), item.disks, "measured", self._environment)
        with stage("bases"):
            let_go = job.release_bases(discovery, found)
        assert not let_go.released, let_go.released[:1]
        assert not let_go.pending
        with stage("harm"):
            job.doubts()
            job.harms(found)
        with stage("report"):
            job.complete(
                [VmOutcome(key=item.vm.key, name=item.vm.name, result=Result.COMPLETED) for item in found]
            )

    @staticmethod
    def _each(disks: Sequence[SourceDisk], act: Callable[[SourceDisk], Any]) -> None:
        for disk in disks:
            act(disk)

    @property
    def _environment(self) -> RunEnvironment:
        return RunEnvironment(self._job.connection, self._media, self._job.stop, job=self._began)

    def _decide(self, disk: SourceDisk) -> None:
        known = runs.known_of(self._media.view(), disk.key)
        snapshot = _base(disk, _run_of(0)).model_copy(update={"taken_at": NOW})
        exists = snapshots_of(self._job.connection, disk.kind).exists
        decision = decide(
            snapshot,
            known,
            Wish(),
            now=NOW,
            base_exists=lambda base: again(lambda: exists(base), stop=self._job.stop),
        )
        assert decision.reason is Reason.CBT, decision


def remember(folder: Path, media: Media, found: Sequence[VmDisks]) -> None:
    """Write a point of every VM behind the log of media in a folder, as an earlier job would have."""
    bodies = ((_run_number(item), PointEntry(point=_point(item))) for item in found)
    write_log(folder, media, ((_run_of(number), body) for number, body in bodies))
    media.view()


def identified(connection: AzureConnection, media: Media, folder: Path) -> list[VmDisks]:
    """The VMs that `prepare` has made, with their disks, as a job finds them."""
    job = _job(connection, media, folder)
    return [job.identify_disks(vm) for vm in job.identify_targets(job.discover()).vms]


def _job(connection: AzureConnection, media: Media, folder: Path) -> BackupJob:
    rule = Rule(field=VmField.TAG, tag="tier", value="gold")
    return BackupJob(
        "job",
        subclient=Subclient(name=SUBCLIENT, groups=(RuleGroup(rules=(rule,)),)),
        connection=connection,
        media=media,
        proxies=[Proxy(name="a"), Proxy(name="b")],
        scratch=folder / "scratch",
    )


def _run_number(item: VmDisks) -> int:
    return int(item.vm.name.rpartition("-")[2])


def _point(item: VmDisks) -> Point:
    run = _run_of(_run_number(item))
    backups = tuple(_backup(disk, run) for disk in item.disks)
    return Point(
        vm=item.vm,
        subclient=SUBCLIENT,
        job="before",
        disks=backups,
        bases=tuple(backup.snapshot for backup in backups),
    )


def _base(disk: SourceDisk, run: str) -> SnapshotRef:
    """The disk's snapshot as `prepare` has made it for a run."""
    prefix, _, _ = disk.source.rpartition("/disks/")
    return SnapshotRef(
        kind=disk.kind,
        id=f"{prefix}/snapshots/{snapshot_name(run, disk.key)}",
        disk_key=disk.key,
        family=family_of(disk.unique_id),
        source_unique_id=disk.unique_id,
        taken_at=NOW - dt.timedelta(days=1),
        size=disk.size,
    )


def _backup(disk: SourceDisk, run: str) -> DiskBackup:
    digest = documents.sha256(f"{run} {disk.key}".encode())
    index = IndexRef(
        name=layout.index(run, disk.key, bytes.fromhex(digest[:16])),
        size=MIB,
        sha256=digest,
        footer=2000,
        footer_sha256=digest,
    )
    return DiskBackup(
        disk=disk,
        snapshot=_base(disk, run),
        method=Method.FULL,
        reason=Reason.FULL_FIRST,
        indexes=(index,),
        figures=DiskFigures(size=disk.size, allocated=GIB),
        proxy="a",
    )


_STAGES = ("discover", "clients", "disks", "room", "decide", "release", "bases", "report")
_ASKING = ("discover", "disks", "room", "decide", "release")
MEASURE = Measure(
    name="fleet",
    about=f"Discovery and planning of VMs with {DISKS} disks each, {VMS_IN_A_GROUP} VMs in a resource group.",
    size_label="VMs",
    sizes=(1_000, 2_500, 5_000, 10_000),
    take=take,
    pictures=(
        Picture(
            "fleet-cpu",
            "CPU of a job's planning",
            "CPU seconds",
            {stage: f"{stage} CPU s" for stage in _STAGES},
        ),
        Picture(
            "fleet-requests",
            "Requests to Resource Manager",
            "requests",
            {stage: f"{stage} requests" for stage in _ASKING},
        ),
        Picture(
            "fleet-waiting",
            "Waiting that throttling asks for",
            "seconds",
            {stage: f"{stage} waited s" for stage in _ASKING},
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
