"""The estate of the local installation: few and small disks, so that a job can be watched and soon ends.

python -m demo.estate FOLDER        builds the disks' images and FLEET.json in FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.disks import DiskKind, list_sources, machine_roots, missing_tools
from demo.fleet import (
    Fleet,
    FleetVm,
    Managed,
    StorageAccount,
    Unmanaged,
    build_images,
    fleet_of_pages,
    new_disk,
    write_fleet,
)
from vsa.ranges import GIB, MIB

# No premium page blobs: Azure takes one snapshot of such a disk in ten minutes, and a second job would wait.
_ACCOUNT = StorageAccount("archivevhds", "rg-archive", "westeurope", "Standard_LRS")
_BUILDERS = 2


def estate(*, filesystems: bool) -> Fleet:
    """Five VMs; without `filesystems` every disk holds database pages, which need no tools."""
    fleet = Fleet((_ACCOUNT,), (_shop(), _database(), _batch(), _archive(), _lab()))
    return fleet if filesystems else fleet_of_pages(fleet)


def _shop() -> FleetVm:
    disks = (
        new_disk("shop-01-os", DiskKind.GPT_EXT4, GIB, 48 * MIB, place=Managed()),
        new_disk("shop-01-data", DiskKind.EXT4, 512 * MIB, 96 * MIB, lun=0, place=Managed()),
    )
    return FleetVm("shop-01", "rg-shop", "westeurope", "Standard_D2s_v5", disks, tags={"backup": "yes"})


def _database() -> FleetVm:
    standard = Managed("StandardSSD_LRS")
    disks = (
        new_disk("sql-01-os", DiskKind.GPT_EXT4, 512 * MIB, 40 * MIB, place=standard),
        new_disk("sql-01-log", DiskKind.EXT4, 256 * MIB, 24 * MIB, lun=0, place=standard),
        new_disk("sql-01-data", DiskKind.PAGES, 512 * MIB, 64 * MIB, lun=1, place=Managed()),
    )
    return FleetVm("sql-01", "rg-shop", "westeurope", "Standard_E4s_v5", disks, tags={"backup": "yes"})


def _batch() -> FleetVm:
    disk = new_disk("batch-01-os", DiskKind.MBR_EXT4, 512 * MIB, 32 * MIB, place=Managed("Standard_LRS"))
    return FleetVm(
        "batch-01",
        "rg-batch",
        "northeurope",
        "Standard_F4s_v2",
        (disk,),
        power_state="deallocated",
        tags={"backup": "yes"},
    )


def _archive() -> FleetVm:
    """Unmanaged disks, for a subclient of their own."""
    disks = (
        new_disk(
            "archive-01-os",
            DiskKind.MBR_EXT4,
            256 * MIB,
            32 * MIB,
            place=Unmanaged(_ACCOUNT.name, "archive-01-os.vhd"),
        ),
        new_disk(
            "archive-01-data",
            DiskKind.PAGES,
            256 * MIB,
            32 * MIB,
            lun=0,
            place=Unmanaged(_ACCOUNT.name, "archive-01-data.vhd"),
        ),
    )
    return FleetVm(
        "archive-01", "rg-archive", "westeurope", "Standard_A2_v2", disks, tags={"backup": "archive"}
    )


def _lab() -> FleetVm:
    """Nobody protects it."""
    disk = new_disk("lab-01-os", DiskKind.EXT4, 64 * MIB, 8 * MIB, place=Managed("Standard_LRS"))
    return FleetVm("lab-01", "rg-lab", "westeurope", "Standard_B1s", (disk,), tags={"backup": "no"})


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    fleet = estate(filesystems=not missing_tools())
    sources = list_sources(machine_roots())
    build_images(
        fleet.disks,
        folder,
        sources,
        workers=_BUILDERS,
        built=lambda disk: sys.stdout.write(f"{disk.name}: {disk.recipe.kind.value}\n"),
    )
    # Last, and so the sign that everything is there.
    write_fleet(fleet, folder)


if __name__ == "__main__":
    main()
