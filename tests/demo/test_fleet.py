"""The demo's fleet: what it must show, built whole and lived through for its three days."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.disks import ChangeSummary, DiskKind, Verdict, allocated_bytes, check_disk, missing_tools
from demo.fleet import (
    Day,
    FleetDisk,
    Managed,
    Story,
    Unmanaged,
    build_images,
    live_through,
    story,
    write_fleet,
)
from demo.images import block_digests
from demo.sources import list_sources, machine_roots
from vsa.ranges import GIB, MIB, total


class Lived(NamedTuple):
    """A day gone by: its summaries, and how much each disk held before it."""

    day: Day
    summaries: Mapping[str, ChangeSummary]
    allocated: Mapping[str, int]


class Told(NamedTuple):
    """The story lived to its end: the images' folder, first digests and allocations, and the days."""

    story: Story
    folder: Path
    first_digests: Mapping[str, Mapping[int, bytes]]
    first_allocated: Mapping[str, int]
    days: tuple[Lived, ...]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("fleet")
    sources = list_sources(machine_roots())
    whole = story(filesystems=not missing_tools())
    built: list[FleetDisk] = []
    build_images(whole.fleet.disks, folder, sources, workers=2, built=built.append)
    assert sorted(disk.name for disk in built) == sorted(disk.name for disk in whole.fleet.disks)
    resting = ("legacy-01-data", "batch-07-os", "scratch-01-os")
    digests = {name: block_digests(folder / f"{name}.img") for name in resting}
    allocated = {disk.name: allocated_bytes(disk.image(folder)) for disk in built}
    days = []
    for day in whole.days:
        before = {name: allocated_bytes(folder / f"{name}.img") for name in day.work}
        days.append(Lived(day, live_through(day, folder, sources, workers=2), before))
    return Told(whole, folder, digests, allocated, tuple(days))


def test_every_disk_ends_sound(told: Told) -> None:
    disks = [*told.story.fleet.disks, *(disk for day in told.story.days for disk in day.attached.values())]
    verdicts = {disk.name: check_disk(disk.image(told.folder)).verdict for disk in disks}
    assert set(verdicts.values()) == {Verdict.CLEAN}, verdicts


def test_one_disk_is_large_with_more_than_300_mib_of_files(told: Told) -> None:
    assert told.first_allocated["web-01-data-0"] > 300 * MIB
    assert (told.folder / "web-01-data-0.img").stat().st_size == GIB


def test_each_day_changes_every_worked_disk_by_less_than_a_tenth(told: Told) -> None:
    shares = {
        (lived.day.number, name): total((*summary.written, *summary.cleared)) / lived.allocated[name]
        for lived in told.days
        for name, summary in lived.summaries.items()
    }
    assert len(shares) == sum(len(day.work) for day in told.story.days)
    assert all(0 < share < 0.1 for share in shares.values()), shares


def test_the_second_day_grows_one_disk_attaches_one_and_clears_ranges(told: Told) -> None:
    second = told.days[0]
    assert [name for name, work in second.day.work.items() if work.grow_to] == ["web-01-data-1"]
    assert second.summaries["web-01-data-1"].size == 2 * GIB
    assert second.summaries["web-01-data-0"].cleared
    attached = second.day.attached["web-01"]
    (web,) = (vm for vm in told.story.fleet.vms if vm.name == "web-01")
    assert attached.lun not in {disk.lun for disk in web.disks}
    assert attached.image(told.folder).stat().st_size == attached.recipe.size


def test_disks_without_work_keep_every_byte(told: Told) -> None:
    for name in ("batch-07-os", "scratch-01-os"):
        assert block_digests(told.folder / f"{name}.img") == told.first_digests[name]
    assert "legacy-01-data" not in told.days[0].day.work
    assert block_digests(told.folder / "legacy-01-data.img") != told.first_digests["legacy-01-data"]


def test_the_fleet_file_describes_every_disk_and_its_image(told: Told) -> None:
    document = json.loads(write_fleet(told.story.fleet, told.folder).read_text())
    accounts = {account["name"]: account for account in document["storage_accounts"]}
    entries = [(vm, disk) for vm in document["vms"] for disk in vm["disks"]]
    assert len(entries) == len(told.story.fleet.disks)
    for vm, disk in entries:
        assert Path(disk["image"]).is_file()
        assert (disk["kind"] == "os") == (disk["lun"] is None)
        if disk["managed"]:
            assert Path(disk["image"]).stat().st_size % GIB == 0, "managed disks have whole GiB"
        else:
            assert accounts[disk["account"]]["location"] == vm["location"]


def test_the_fleet_meets_every_documented_path() -> None:
    fleet = story(filesystems=True).fleet
    vms = {vm.name: vm for vm in fleet.vms}
    skus = {account.name: account.sku for account in fleet.accounts}

    def account_skus(name: str) -> set[str]:
        return {skus[disk.place.account] for disk in vms[name].disks if isinstance(disk.place, Unmanaged)}

    assert all(isinstance(disk.place, Managed) for disk in vms["web-01"].disks)
    assert account_skus("legacy-01") == {"Standard_LRS"}
    assert account_skus("sql-legacy") == {"Premium_LRS"}
    assert vms["batch-07"].power_state == "deallocated"
    assert [vm.name for vm in fleet.vms if vm.tags["backup"] == "no"] == ["scratch-01"]
    assert all([disk.lun for disk in vm.disks].count(None) == 1 for vm in fleet.vms)
    names = [disk.name for disk in fleet.disks]
    assert len(set(names)) == len(names)


def test_without_tools_the_same_story_is_told_with_pages() -> None:
    real, pages = story(filesystems=True), story(filesystems=False)
    kinds = {disk.recipe.kind for disk in pages.fleet.disks}
    kinds |= {disk.recipe.kind for day in pages.days for disk in day.attached.values()}
    assert kinds == {DiskKind.PAGES}
    assert [disk.recipe.size for disk in pages.fleet.disks] == [disk.recipe.size for disk in real.fleet.disks]
    assert [set(day.work) for day in pages.days] == [set(day.work) for day in real.days]
