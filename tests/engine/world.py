"""A small Azure, a media and the engine between them, for tests that need no Prefect."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from azsim.control import Control
from vsa.azure.connection import AzureConnection
from vsa.errors import VsaError
from vsa.media.entries import JobEntry, VmOutcome
from vsa.media.media import Media
from vsa.model import DiskBackup, Exclusion, Method
from vsa.secret import Secret
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob, VmDisks, vm_outcome
from vsa.transfer.proxies import Proxy
from vsa.transfer.runs import Run

KIB = 1024
MIB = 1024 * KIB
_numbers = count(1)


def connection_to(endpoint: dict[str, str], **changes: Any) -> AzureConnection:
    """A production connection whose addresses are the simulation's."""
    options: dict[str, Any] = {
        "subscription_id": endpoint["subscription"],
        "tenant_id": endpoint["tenant"],
        "client_id": endpoint["client_id"],
        "client_secret": Secret(Path(endpoint["client_secret_file"]).read_text()),
        "base_url": endpoint["base_url"],
        "authority": endpoint["base_url"],
        "ca_file": endpoint["ca_file"],
        "polling_seconds": 0.02,
    }
    return AzureConnection(**(options | changes))


def random_bytes(length: int, seed: object) -> bytes:
    """The same incompressible bytes for the same seed."""
    return hashlib.shake_256(str(seed).encode()).digest(length)


@dataclass
class World:
    """One VM of its own resource group with managed disks, and a media of its own."""

    control: Control
    folder: Path
    vm: str = ""
    media: Media = field(init=False)
    jobs: int = 0

    def __post_init__(self) -> None:
        number = next(_numbers)
        self.vm = self.vm or f"vm-{number}"
        self.group = f"group-{number}"
        self.account = f"account{number}"
        self.media = Media.create(str(self.folder / "media"), now=dt.datetime.now(dt.UTC))
        self.connection = connection_to(self.control.endpoint)

    def add_vm(self, disks: Sequence[dict[str, Any]], *, account_sku: str = "Standard_LRS") -> None:
        """Create the VM from disk descriptions; `contents` stands for an image file with these bytes."""
        described = []
        for number, disk in enumerate(disks):
            disk = dict(disk)
            path = self.folder / f"{disk['name']}-{number}.img"
            path.write_bytes(disk.pop("contents"))
            described.append({"kind": "os" if number == 0 else "data", "lun": number, "image": str(path)} | disk)
        machine = {
            "name": self.vm,
            "resource_group": self.group,
            "location": "westeurope",
            "size": "Standard_D2s_v3",
            "os_type": "Linux",
            "tags": {"backup": "yes"},
            "power_state": "running",
            "disks": described,
        }
        accounts = [
            {
                "name": self.account,
                "resource_group": self.group,
                "location": "westeurope",
                "sku": account_sku,
            }
        ]
        self.control.create_fleet({"storage_accounts": accounts, "vms": [machine]})

    def write(self, disk: str, offset: int, data: bytes) -> None:
        source = self.folder / "write.bin"
        source.write_bytes(data)
        self.control.write_at(disk, offset, source)

    def source_bytes(self, disk: str) -> bytes:
        path = self.folder / "source.img"
        self.control.save_disk(disk, path)
        return path.read_bytes()

    def job(self, *, method: Method | None = None, full: bool = False, **settings: Any) -> BackupJob:
        self.jobs += 1
        scratch = self.folder / f"scratch-{self.jobs}"
        scratch.mkdir()
        return BackupJob(
            f"job-{self.jobs}",
            subclient=Subclient(name="tests", vms=(self.vm,), **settings),
            connection=self.connection,
            media=self.media,
            proxies=[Proxy(name="proxy-a"), Proxy(name="proxy-b")],
            scratch=scratch,
            method=method,
            full=full,
        )

    def back_up(self, **options: Any) -> JobEntry:
        """Run a whole job, stage by stage, as the flow does."""
        return run_job(self.job(**options))

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        """Managed snapshots of this world's resource group."""
        rows = self.control.inventory()["snapshots"]
        return [row for row in rows if f"/{self.group}/".lower() in row["id"].lower()]


def run_job(job: BackupJob) -> JobEntry:
    discovery = job.discover()
    job.record_clients(discovery)
    targets = job.identify_targets(discovery)
    disks = [job.identify_disks(vm) for vm in targets.vms]
    ready = [item for item in disks if not item.error]
    proxies = {a.disk_key: a.proxy for a in job.assign_streams(ready, targets.proxies)}
    outcomes = [run_vm(job, item, proxies) for item in ready]
    released = job.release_bases(discovery, disks)
    return job.complete(outcomes, excluded=targets.excluded, released=released)


def run_vm(job: BackupJob, disks: VmDisks, proxies: dict[str, str]) -> VmOutcome:
    run: Run = job.new_run(disks)
    backups: list[DiskBackup] = []
    failed: list[Exclusion] = []
    point: int | None = None
    error = ""
    try:
        snapshots = job.create_snapshots(run)
        for disk, snapshot in zip(run.disks, snapshots, strict=True):
            try:
                staging = job.stage(run, disk, snapshot)
                backups.append(job.transfer(run, disk, snapshot, staging, proxies[disk.key]))
            except VsaError as problem:
                failed.append(Exclusion(name=disk.name, reason=str(problem)))
        point = job.commit(run, backups, failed)
    except VsaError as problem:
        error = str(problem)
    finally:
        job.release(run)
    return vm_outcome(run.vm, run=run.id, point=point, error=error, backups=backups)
