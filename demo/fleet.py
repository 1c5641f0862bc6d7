"""The demo's fleet as data: its VMs and disks, and what their guests do on the second and third day.

Between them the disks meet every documented path: managed and unmanaged, standard and premium, running
and deallocated, selected and excluded, changed, grown, added and left alone.
"""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo.disks import (
    ChangeSummary,
    DiskChanges,
    DiskKind,
    DiskRecipe,
    FileWork,
    PageWork,
    build_disk,
    change_disk,
)
from demo.sources import SourceFile
from vsa.ranges import GIB, KIB, MIB

FIRST_DAY = dt.datetime(2025, 1, 1, 6, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class StorageAccount:
    """An account for unmanaged disks."""

    name: str
    resource_group: str
    location: str
    sku: str


@dataclass(frozen=True, slots=True)
class Managed:
    """The disk is a resource of its own."""

    sku: str = "Premium_LRS"


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """The disk is a page blob, a VHD, in a storage account."""

    account: str
    blob: str
    container: str = "vhds"


@dataclass(frozen=True, slots=True)
class FleetDisk:
    """One disk; `lun` is None for the OS disk."""

    name: str
    lun: int | None
    place: Managed | Unmanaged
    recipe: DiskRecipe

    def image(self, folder: Path) -> Path:
        """Where the disk's image lies among the fleet's images."""
        return folder / f"{self.name}.img"


@dataclass(frozen=True, slots=True)
class FleetVm:
    """One VM; `power_state` is `running`, `stopped` or `deallocated`."""

    name: str
    resource_group: str
    location: str
    size: str
    disks: tuple[FleetDisk, ...]
    os_type: str = "Linux"
    power_state: str = "running"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    accounts: tuple[StorageAccount, ...]
    vms: tuple[FleetVm, ...]

    @property
    def disks(self) -> tuple[FleetDisk, ...]:
        return tuple(disk for vm in self.vms for disk in vm.disks)


@dataclass(frozen=True, slots=True)
class Day:
    """What happens between two backup jobs: work by disk name, and disks attached by VM name."""

    number: int
    work: Mapping[str, DiskChanges]
    attached: Mapping[str, FleetDisk] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Story:
    """The fleet on its first day and the days that follow."""

    fleet: Fleet
    days: tuple[Day, ...]


def story(*, filesystems: bool) -> Story:
    """The whole demo; without `filesystems` every disk holds database pages, which need no tools."""
    told = Story(_fleet(), (_second_day(), _third_day()))
    return told if filesystems else _as_pages(told)


def build_images(
    disks: Iterable[FleetDisk],
    folder: Path,
    sources: Sequence[SourceFile],
    *,
    workers: int,
    built: Callable[[FleetDisk], object],
) -> None:
    """Build the disks' images in `folder`, `workers` at a time; `built` hears of each, in the order given."""
    ordered = sorted(disks, key=lambda disk: disk.recipe.content, reverse=True)
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(build_disk, disk.recipe, disk.image(folder), sources) for disk in ordered]
        for disk, job in zip(ordered, jobs, strict=True):
            job.result()
            built(disk)


def live_through(
    day: Day, folder: Path, sources: Sequence[SourceFile], *, workers: int
) -> dict[str, ChangeSummary]:
    """Do the day's work on the images in `folder` and build the attached disks; summaries by disk name."""
    with ThreadPoolExecutor(workers) as pool:
        jobs = {
            name: pool.submit(change_disk, folder / f"{name}.img", work, sources)
            for name, work in day.work.items()
        }
        for disk in day.attached.values():
            build_disk(disk.recipe, disk.image(folder), sources)
        return {name: job.result() for name, job in jobs.items()}


def write_fleet(fleet: Fleet, folder: Path) -> Path:
    """Write FLEET.json beside the images in `folder`, for the simulated Azure to load; returns its path."""
    document = {
        "storage_accounts": [_account_entry(account) for account in fleet.accounts],
        "vms": [_vm_entry(vm, folder) for vm in fleet.vms],
    }
    path = folder / "FLEET.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def disk_entry(disk: FleetDisk, folder: Path) -> dict[str, Any]:
    """The disk as FLEET.json and later attachments describe it; `image` is an absolute path."""
    common = {"name": disk.name, "kind": "os" if disk.lun is None else "data", "lun": disk.lun}
    match disk.place:
        case Managed(sku):
            place: dict[str, Any] = {"managed": True, "sku": sku}
        case Unmanaged(account, blob, container):
            place = {"managed": False, "account": account, "container": container, "blob": blob}
    return {**common, **place, "image": str(disk.image(folder).resolve())}


def _account_entry(account: StorageAccount) -> dict[str, str]:
    return {
        "name": account.name,
        "resource_group": account.resource_group,
        "location": account.location,
        "sku": account.sku,
    }


def _vm_entry(vm: FleetVm, folder: Path) -> dict[str, Any]:
    return {
        "name": vm.name,
        "resource_group": vm.resource_group,
        "location": vm.location,
        "size": vm.size,
        "os_type": vm.os_type,
        "tags": dict(vm.tags),
        "power_state": vm.power_state,
        "disks": [disk_entry(disk, folder) for disk in vm.disks],
    }


def new_disk(
    name: str, kind: DiskKind, size: int, content: int, *, lun: int | None = None, place: Managed | Unmanaged
) -> FleetDisk:
    """A disk whose content follows from its name; `size` and `content` are bytes, as in a recipe."""
    recipe = DiskRecipe(kind, size, content, seed=zlib.crc32(name.encode()), moment=FIRST_DAY)
    return FleetDisk(name, lun, place, recipe)


def _fleet() -> Fleet:
    return Fleet(
        accounts=(
            StorageAccount("legacyvhds", "rg-legacy", "westeurope", "Standard_LRS"),
            StorageAccount("sqlpremium", "rg-legacy", "westeurope", "Premium_LRS"),
        ),
        vms=(_web(), _legacy(), _sql(), _batch(), _scratch()),
    )


def _web() -> FleetVm:
    disks = (
        new_disk("web-01-os", DiskKind.GPT_EXT4, 2 * GIB, 120 * MIB, place=Managed()),
        new_disk("web-01-data-0", DiskKind.EXT4, GIB, 324 * MIB, lun=0, place=Managed()),
        new_disk("web-01-data-1", DiskKind.EXT4, GIB, 64 * MIB, lun=1, place=Managed("StandardSSD_LRS")),
    )
    tags = {"backup": "yes", "app": "shop", "env": "prod"}
    return FleetVm("web-01", "rg-shop", "westeurope", "Standard_D2s_v5", disks, tags=tags)


def _legacy() -> FleetVm:
    os_place = Unmanaged("legacyvhds", "legacy-01-os.vhd")
    data_place = Unmanaged("legacyvhds", "legacy-01-data.vhd")
    disks = (
        new_disk("legacy-01-os", DiskKind.MBR_EXT4, 512 * MIB, 72 * MIB, place=os_place),
        new_disk("legacy-01-data", DiskKind.PAGES, 256 * MIB, 48 * MIB, lun=0, place=data_place),
    )
    tags = {"backup": "yes", "app": "archive"}
    return FleetVm("legacy-01", "rg-legacy", "westeurope", "Standard_A2_v2", disks, tags=tags)


def _sql() -> FleetVm:
    """Premium page blobs: their snapshots are read through a staging blob."""
    os_place = Unmanaged("sqlpremium", "sql-legacy-os.vhd")
    data_place = Unmanaged("sqlpremium", "sql-legacy-data.vhd")
    disks = (
        new_disk("sql-legacy-os", DiskKind.MBR_EXT4, 512 * MIB, 56 * MIB, place=os_place),
        new_disk("sql-legacy-data", DiskKind.PAGES, 512 * MIB, 96 * MIB, lun=0, place=data_place),
    )
    tags = {"backup": "yes", "app": "sql"}
    return FleetVm("sql-legacy", "rg-legacy", "westeurope", "Standard_DS2_v2", disks, tags=tags)


def _batch() -> FleetVm:
    disk = new_disk("batch-07-os", DiskKind.GPT_EXT4, GIB, 48 * MIB, place=Managed("Standard_LRS"))
    return FleetVm(
        "batch-07",
        "rg-batch",
        "northeurope",
        "Standard_F4s_v2",
        (disk,),
        power_state="deallocated",
        tags={"backup": "yes", "app": "batch"},
    )


def _scratch() -> FleetVm:
    """Excluded by a filter on its tag."""
    disk = new_disk("scratch-01-os", DiskKind.GPT_EXT4, GIB, 16 * MIB, place=Managed("Standard_LRS"))
    tags = {"backup": "no", "owner": "lab"}
    return FleetVm("scratch-01", "rg-lab", "westeurope", "Standard_B1s", (disk,), tags=tags)


def _second_day() -> Day:
    """web-01-data-1 grows and another disk joins it; legacy-01-data and the deallocated VM rest."""
    work: dict[str, FileWork | PageWork] = {
        "web-01-os": FileWork(add=1 * MIB, rewrite=1 * MIB, delete=1 * MIB),
        "web-01-data-0": FileWork(add=2 * MIB, rewrite=2 * MIB, delete=3 * MIB, trim=True),
        "web-01-data-1": FileWork(add=1 * MIB, rewrite=512 * KIB, delete=512 * KIB),
        "legacy-01-os": FileWork(add=512 * KIB, rewrite=1 * MIB, delete=512 * KIB, trim=True),
        "sql-legacy-os": FileWork(rewrite=512 * KIB),
        "sql-legacy-data": PageWork(update=512 * KIB, drop=1 * MIB),
    }
    return Day(
        number=2,
        work=_on_day(2, work, grow={"web-01-data-1": 2 * GIB}),
        attached={"web-01": new_disk("web-01-data-2", DiskKind.EXT4, GIB, 40 * MIB, lun=2, place=Managed())},
    )


def _third_day() -> Day:
    """The attached disk is put to use, and the disks that rested a day are changed."""
    work: dict[str, FileWork | PageWork] = {
        "web-01-os": FileWork(add=1 * MIB, rewrite=2 * MIB, delete=512 * KIB, trim=True),
        "web-01-data-0": FileWork(add=2 * MIB, rewrite=6 * MIB, delete=2 * MIB),
        "web-01-data-2": FileWork(add=1 * MIB, rewrite=512 * KIB),
        "legacy-01-data": PageWork(update=512 * KIB, drop=1 * MIB),
        "sql-legacy-data": PageWork(update=1 * MIB),
    }
    return Day(number=3, work=_on_day(3, work, grow={}))


def _on_day(
    number: int, work: Mapping[str, FileWork | PageWork], grow: Mapping[str, int]
) -> dict[str, DiskChanges]:
    moment = FIRST_DAY + dt.timedelta(days=number - 1)
    return {
        name: DiskChanges(done, zlib.crc32(f"{name}/{number}".encode()), moment, grow.get(name))
        for name, done in work.items()
    }


def _as_pages(told: Story) -> Story:
    """The same story with the same sizes, told with database pages alone."""
    days = tuple(
        replace(
            day,
            work={name: replace(work, work=_work_on_pages(work.work)) for name, work in day.work.items()},
            attached={vm: _disk_of_pages(disk) for vm, disk in day.attached.items()},
        )
        for day in told.days
    )
    return Story(fleet_of_pages(told.fleet), days)


def fleet_of_pages(fleet: Fleet) -> Fleet:
    """The same fleet with the same sizes; every disk holds database pages, which need no tools."""
    vms = tuple(replace(vm, disks=tuple(map(_disk_of_pages, vm.disks))) for vm in fleet.vms)
    return replace(fleet, vms=vms)


def _disk_of_pages(disk: FleetDisk) -> FleetDisk:
    return replace(disk, recipe=replace(disk.recipe, kind=DiskKind.PAGES))


def _work_on_pages(work: FileWork | PageWork) -> PageWork:
    if isinstance(work, PageWork):
        return work
    return PageWork(update=work.add + work.rewrite, drop=work.delete if work.trim else 0)
