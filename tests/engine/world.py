"""A small Azure, a media and the engine between them, for tests that need no Prefect.

The world keeps what every recovery point must restore to: the contents of each disk, read from the
simulation, not from the engine, just before its job.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from azure.storage.blob import BlobClient

from azsim.control import Control
from demo import endpoint as demo_endpoint
from tests.engine.standing import RUN, Standing
from tests.engine.story import run_job
from tests.engine.waits import CLOCK
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection
from vsa.azure.staging import CONTAINER
from vsa.media.access import NO_SECRETS, StoreAccess
from vsa.media.entries import DiskOutcome, JobEntry
from vsa.media.media import Media
from vsa.media.wrapping import WrappingKey
from vsa.model import DEFAULT_EXTENT_SIZE, DiskBackup, DiskKind, Method, Reason, SnapshotRef, SourceDisk
from vsa.progress import SILENT, Progress
from vsa.restore.disk import Format, restore_disk
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.proxies import Proxy

KIB = 1024
MIB = 1024 * KIB
EXTENT = DEFAULT_EXTENT_SIZE

# Azure takes 7 incremental snapshots of a disk in five minutes and one of a premium VHD in ten.
BETWEEN_JOBS = 601

MANAGED, STANDARD_VHD, PREMIUM_VHD = "managed", "standard VHD", "premium VHD"

PROXIES = (Proxy(name="proxy-a"), Proxy(name="proxy-b"))

_numbers = count(1)


def connection_to(endpoint: dict[str, str], **changes: Any) -> AzureConnection:
    """One that hardly waits, by the clock that the tests may move."""
    return demo_endpoint.connection_to(endpoint, **({"polling_seconds": 0.001, "clock": CLOCK} | changes))


def random_bytes(length: int, seed: object) -> bytes:
    """The same incompressible bytes for the same seed."""
    return Random(str(seed)).randbytes(length)


@dataclass
class World:
    """VMs of one resource group and a media of their own; disk names are unique within the world."""

    control: Control
    folder: Path
    extent_size: int = EXTENT
    key: WrappingKey | None = None
    """What seals the media; None: it is not sealed."""
    location: str = ""
    """Where the media is made; empty: in the world's folder."""
    access: StoreAccess = NO_SECRETS
    media: Media = field(init=False)
    connection: AzureConnection = field(init=False)
    vms: list[str] = field(default_factory=list)
    points: dict[int, dict[str, bytes]] = field(default_factory=dict)
    """For each point's slot, what every disk of its VM held."""
    standing: Standing = field(init=False)
    """What stands beside the first disk of each kind from the beginning."""
    strangers: set[str] = field(default_factory=set)
    """What others made that looks like ours: ids of snapshots, moments of blob snapshots, names of blobs."""
    jobs: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.number = next(_numbers)
        self.group = f"group-{self.number}"
        self.media = Media.create(
            self.location or str(self.folder / "media"),
            extent_size=self.extent_size,
            now=dt.datetime.now(dt.UTC),
            access=self.access,
            wrapping=self.key,
        )
        self.connection = connection_to(self.control.endpoint)
        self.standing = Standing(self.control)
        self._kinds: dict[str, str] = {}
        self._owners: dict[str, list[str]] = {}
        self._groups: dict[str, str] = {}
        self._accounts: set[str] = set()
        self._stood_beside: set[str] = set()
        self._to_follow: list[tuple[str, SourceDisk]] = []
        self._wrong = ["vsa-media", "vsa-disk"]

    # What there is

    def add_vm(self, disks: dict[str, bytes], *, kind: str = MANAGED, vm: str = "") -> str:
        """Create a VM whose disks hold these bytes; the first is the OS disk. Returns its name."""
        vm = vm or f"vm-{self.number}-{len(self.vms)}"
        machine = {
            "name": vm,
            "tags": {"backup": "yes"},
            "disks": [self._described(name, contents, kind) for name, contents in disks.items()],
        }
        fleet: dict[str, Any] = {"resource_group": self.group, "vms": [machine]}
        account = self.account(kind)
        if kind != MANAGED and account not in self._accounts:
            sku = "Premium_LRS" if kind == PREMIUM_VHD else "Standard_LRS"
            fleet["storage_accounts"] = [{"name": account, "sku": sku}]
            self._accounts.add(account)
        self.control.create_fleet(fleet)
        self.vms.append(vm)
        self._owners[vm] = list(disks)
        if kind not in self._stood_beside:
            self._stand_beside(next(iter(disks)), kind)
        return vm

    def _stand_beside(self, disk: str, kind: str) -> None:
        self._stood_beside.add(kind)
        if kind == MANAGED:
            self.standing.beside_disk(self.label(disk), self.media.id)
            self.strangers |= self.standing.things
        else:
            self._stand_beside_vhd(BlobAddress.parse(self.url(disk)), kind, RUN)

    def _stand_beside_vhd(self, vhd: BlobAddress, kind: str, run: str) -> None:
        name = f"{vhd.account}/{vhd.container}/{vhd.name}"
        self.standing.beside_vhd(name, vhd.url, self.media.id, run=run)
        if kind == PREMIUM_VHD:
            self.standing.beside_staging_blobs(vhd.account, vhd.url, self.media.id, run=run)
        self.strangers |= self.standing.things

    def _stand_in_the_name_of(self, run: str, disk: SourceDisk) -> None:
        """Beside a VHD once more, by the name of the first run with a point of it: what is left of that is
        anybody's to delete. A managed disk's name for it is still taken, by the base."""
        if disk.kind is DiskKind.MANAGED:
            self._to_follow.append((run, disk))
            return
        kind = PREMIUM_VHD if disk.kind is DiskKind.UNMANAGED_PREMIUM else STANDARD_VHD
        if f"points of {kind}" not in self._stood_beside:
            self._stood_beside.add(f"points of {kind}")
            self._stand_beside_vhd(BlobAddress.parse(disk.source), kind, run)

    def _stand_where_runs_stood(self) -> None:
        """Beside managed disks, by the names of the first two snapshots that have gone after their points:
        whoever takes one of these for ours deletes it, for its run is over."""
        inventory = self.control.inventory()
        there = {row["name"].lower() for row in inventory["snapshots"]}
        disks = {row["id"].lower() for row in inventory["disks"]}
        for run, disk in list(self._to_follow):
            if disk.source.lower() in disks and f"vsa-{run}-{disk.key}" not in there and self._wrong:
                self._to_follow.remove((run, disk))
                self.standing.in_the_place_of(disk.source, run, self.media.id, wrong=self._wrong.pop(0))
                self.strangers |= self.standing.things

    def share(self, other: World) -> None:
        """Back up another world's VMs to this world's media."""
        self.number, self.group = other.number, other.group
        self.vms, self._owners, self._kinds = other.vms, other._owners, other._kinds
        self.standing, self.strangers = other.standing, other.strangers

    def attach(self, vm: str, name: str, contents: bytes, *, kind: str = MANAGED) -> None:
        self.control.attach_disk(vm, self._described(name, contents, kind))
        self._owners[vm].append(name)

    def detach(self, vm: str, name: str) -> None:
        self.control.detach_disk(vm, self.named(name))
        self.forget_disk(name)

    def forget_disk(self, name: str) -> None:
        """Expect a disk no longer that something else has deleted or detached."""
        for disks in self._owners.values():
            if name in disks:
                disks.remove(name)

    def rename(self, vm: str, name: str) -> None:
        self.control.move_vm(vm, name=name)
        self.expect_renamed(vm, name)

    def recreate(self, vm: str, name: str) -> None:
        """Make another VM of a VM's disks, and back that up from now on."""
        self.control.recreate_vm(vm, name=name)
        self.expect_renamed(vm, name)

    def expect_renamed(self, vm: str, name: str) -> None:
        self.vms[self.vms.index(vm)] = name
        self._owners[name] = self._owners.pop(vm)

    def expect_moved(self, disk: str, group: str) -> None:
        """Find a managed disk in another resource group from now on."""
        self._groups[disk] = group

    def expect_attached(self, vm: str, name: str, kind: str = MANAGED) -> None:
        self._kinds[name] = kind
        self._owners[vm].append(name)

    def expect_gone(self, vm: str) -> None:
        """Expect a VM no longer that something else has deleted."""
        del self._owners[vm]

    def delete_vm(self, vm: str) -> None:
        """Delete a VM with its disks."""
        self.control.delete_vm(vm, with_disks=True)
        self.expect_gone(vm)

    def delete(self) -> None:
        """Take everything of this world out of the simulation."""
        inventory = self.control.inventory()
        for kind, remove in (
            ("snapshots", self.control.delete_snapshot),
            ("vms", self.control.delete_vm),
            ("disks", self.control.delete_disk),
        ):
            for row in inventory[kind]:
                if self._is_mine(row["id"]) or self._is_elsewhere(row["id"]):
                    remove(row["id"])
        for row in inventory["storage_accounts"]:
            if self._is_mine(row["id"]):
                self.connection.storage.storage_accounts.delete(self.group, row["name"])

    def account(self, kind: str) -> str:
        return f"{'premium' if kind == PREMIUM_VHD else 'standard'}{self.number}"

    def named(self, disk: str) -> str:
        """The name that Azure knows the disk by."""
        return f"{disk}-{self.number}"

    def label(self, disk: str) -> str:
        """What the control API calls the disk."""
        if self._kinds[disk] == MANAGED:
            group = self._groups.get(disk, self.group)
            return f"{self._prefix_of(group)}/disks/{self.named(disk)}"
        return f"{self.account(self._kinds[disk])}/vhds/{self.named(disk)}.vhd"

    def url(self, disk: str) -> str:
        """Where an unmanaged disk's VHD is."""
        return f"{self.control.endpoint['base_url']}/{self.label(disk)}"

    def id_of(self, vm: str) -> str:
        return f"{self._prefix}/virtualMachines/{vm}"

    @property
    def _prefix(self) -> str:
        return self._prefix_of(self.group)

    def _prefix_of(self, group: str) -> str:
        subscription = self.control.endpoint["subscription"]
        return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"

    def plain(self, azure_name: str) -> str:
        """The world's name of a disk that Azure knows by this one."""
        return azure_name.removesuffix(f"-{self.number}")

    def _described(self, name: str, contents: bytes, kind: str) -> dict[str, Any]:
        path = self.folder / f"{name}.img"
        path.write_bytes(contents)
        self._kinds[name] = kind
        place = {} if kind == MANAGED else {"managed": False, "account": self.account(kind)}
        return {"name": self.named(name), "image": str(path), **place}

    @property
    def elsewhere(self) -> str:
        """Another resource group, of which nothing is ours; what is in it goes with the world."""
        return f"elsewhere-{self.number}"

    def _is_elsewhere(self, resource_id: str) -> bool:
        return f"/{self.elsewhere}/" in resource_id.lower()

    def _is_mine(self, resource_id: str) -> bool:
        return f"/{self.group}/".lower() in resource_id.lower()

    # What owners and guests do

    def vhd(self, disk: str, snapshot: str = "") -> BlobClient:
        """The SDK's client for an unmanaged disk's VHD or one of its snapshots, as its owner has it."""
        url = f"{self.url(disk)}?snapshot={snapshot}" if snapshot else self.url(disk)
        return self._blob(disk, url)

    def staging_blob(self, disk: str, name: str) -> BlobClient:
        """The same for a staging blob of an unmanaged disk."""
        address = BlobAddress.parse(self.url(disk)).beside(CONTAINER, name)
        return self._blob(disk, address.url)

    def _blob(self, disk: str, url: str) -> BlobClient:
        account = self.account(self._kinds[disk])
        keys: Any = self.connection.storage.storage_accounts.list_keys(self.group, account).keys_property
        options: dict[str, Any] = {"connection_verify": self.connection.ca_file}
        return BlobClient.from_blob_url(url, credential=keys[0].value, **options)

    def delete_snapshot(self, ref: SnapshotRef, disk: str) -> None:
        """Delete a snapshot as another administrator might."""
        if ref.moment:
            self.vhd(disk, ref.moment).delete_blob()
        else:
            self.control.delete_snapshot(ref.id)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        source = self.folder / "write.bin"
        source.write_bytes(data)
        self.control.write_at(self.label(disk), offset, source)

    def clear(self, disk: str, offset: int, length: int) -> None:
        self.control.clear(self.label(disk), offset, length)

    def grow(self, disk: str, size: int) -> None:
        self.control.grow_disk(self.label(disk), size)

    def contents(self, disk: str) -> bytes:
        path = self.folder / "source.img"
        self.control.save_disk(self.label(disk), path)
        return path.read_bytes()

    @contextmanager
    def fault(self, action: str, **options: Any) -> Iterator[None]:
        """A failure of Azure for the length of a block, in which it must strike."""
        rule = self.control.add_fault(action, **options)
        yield
        assert self.control.fired(rule), f"{action} {options} never struck: the test proves nothing"
        self.control.clear_faults(rule)

    # What the engine does

    def job(
        self,
        *,
        by: Method | None = None,
        full: bool = False,
        connection: AzureConnection | None = None,
        media: Media | None = None,
        progress: Progress = SILENT,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        kind_of_job: type[BackupJob] = BackupJob,
        between: float = BETWEEN_JOBS,
        **settings: Any,
    ) -> BackupJob:
        """A job over this world's VMs; `by` overrides the method, `settings` are the subclient's."""
        identity, scratch = self.begin_job(between)
        return kind_of_job(
            identity,
            subclient=Subclient(**{"name": "tests", "vms": tuple(self.vms), **settings}),
            connection=connection or self.connection,
            media=media or self.media,
            proxies=PROXIES,
            scratch=scratch,
            method=by,
            full=full,
            progress=progress,
            now=now,
        )

    def begin_job(self, between: float = BETWEEN_JOBS) -> tuple[str, Path]:
        """Let time pass until Azure allows another job; returns its id and its scratch folder."""
        self.control.advance_clock(between)
        self.jobs += 1
        scratch = self.folder / f"scratch-{self.jobs}"
        scratch.mkdir()
        return f"job-{self.jobs}", scratch

    def back_up(self, **options: Any) -> JobEntry:
        """Run a whole job, stage by stage, as the flow does, and remember what its points must restore to."""
        held = self.held()
        report = run_job(self.job(**options))
        for outcome in report.vms:
            if outcome.point is not None:
                self.points[outcome.point] = held[outcome.name]
                made = self.media.view().points[outcome.point]
                self._stand_in_the_name_of(made.run, made.point.disks[0].disk)
        if self._wrong and self._to_follow:
            self._stand_where_runs_stood()
        return report

    @property
    def owners(self) -> dict[str, list[str]]:
        """The disks of each VM, the OS disk first."""
        return self._owners

    @property
    def attached(self) -> set[str]:
        """The disks of all VMs."""
        return {disk for disks in self._owners.values() for disk in disks}

    def held(self) -> dict[str, dict[str, bytes]]:
        """What every disk of every VM holds now."""
        return {vm: {disk: self.contents(disk) for disk in disks} for vm, disks in self._owners.items()}

    def reasons(self, report: JobEntry) -> dict[str, Reason | None]:
        """Each disk's reason in a report, by the world's name of the disk."""
        return {name: outcome.reason for name, outcome in self.disks(report).items()}

    def disks(self, report: JobEntry) -> dict[str, DiskOutcome]:
        return {self.plain(disk.name): disk for vm in report.vms for disk in vm.disks}

    # What must hold

    def require_sound(self) -> None:
        """Every point ever made restores to what its disks held; Azure keeps our bases and nothing else."""
        for slot, held in self.points.items():
            self.require_restores(slot, held)
        self.require_no_leftovers()

    def require_restores(self, slot: int, held: dict[str, bytes]) -> None:
        point = self.media.view().points[slot].point
        for backup in point.disks:
            name = self.plain(backup.disk.name)
            assert self.restored(backup) == held[name], f"point {slot} of disk {name} is not what it was"
        named = [*(backup.disk.name for backup in point.disks), *(item.name for item in point.excluded)]
        assert sorted(map(self.plain, named)) == sorted(held)

    def restored(self, backup: DiskBackup) -> bytes:
        target = self.folder / "restored.img"
        result = restore_disk(self.media, backup, target, format=Format.RAW)
        data = target.read_bytes()
        target.unlink()
        assert result.sha256 == hashlib.sha256(data).hexdigest()
        return data

    def require_no_leftovers(self) -> None:
        """The snapshots of our disks are those that the log names as bases; no grant, no staging blob. What
        only looks like ours is as it was."""
        snapshots, bases = self.snapshots, self.bases
        assert snapshots == bases, f"left: {snapshots - bases}, lost: {bases - snapshots}"
        self.require_no_access()
        self.standing.require_untouched()

    def require_no_access(self) -> None:
        """No grant to a snapshot or disk of the world's group is open, and no staging blob is there."""
        inventory = self.control.inventory()
        for row in [*inventory["snapshots"], *inventory["disks"]]:
            ours = self._is_mine(row["id"]) and row["id"].lower() not in self.strangers
            assert not (row["grant_open"] and ours), f"a grant is open: {row['id']}"
        assert self.staging_blobs == []

    @property
    def bases(self) -> set[str]:
        """The bases that the log names: ids of managed snapshots, moments of blob snapshots."""
        return {(ref.moment or ref.id.lower()) for _, ref in self.media.view().bases().values()}

    @property
    def snapshots(self) -> set[str]:
        """Everything in Azure that carries this media's mark and is not others', by the same names."""
        inventory = self.control.inventory()
        managed = {
            row["id"].lower()
            for row in inventory["snapshots"]
            if row["tags"].get("vsa-media") == self.media.id
        }
        blobs = {
            row["snapshot"]
            for row in inventory["blobs"]
            if row["snapshot"] and row["metadata"].get("vsa_media") == self.media.id
        }
        return (managed | blobs) - self.strangers

    @property
    def all_snapshots(self) -> set[str]:
        """Every snapshot of this world's disks, whoever made it, by the same names, but what stands there."""
        inventory = self.control.inventory()
        managed = {row["id"].lower() for row in inventory["snapshots"] if self._is_mine(row["id"])}
        blobs = {row["snapshot"] for row in inventory["blobs"] if row["snapshot"] and self._is_here(row)}
        return (managed | blobs) - self.standing.things

    @property
    def staging_blobs(self) -> list[str]:
        names = [row["name"] for row in self.control.inventory()["blobs"] if self._is_staged(row)]
        return [name for name in names if name not in self.strangers]

    def _is_here(self, blob: dict[str, Any]) -> bool:
        return blob["account"] in (self.account(STANDARD_VHD), self.account(PREMIUM_VHD))

    def _is_staged(self, blob: dict[str, Any]) -> bool:
        return self._is_here(blob) and blob["container"] != "vhds"
