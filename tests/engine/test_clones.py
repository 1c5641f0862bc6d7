"""Machines that were made from one image cost the media little more than one, and restore by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azsim.control import Control
from tests.engine.world import KIB, MIB, World, random_bytes
from vsa.media.entries import JobEntry
from vsa.model import Method

SMALL = 4 * KIB
IMAGE = random_bytes(2 * MIB, "image")


@pytest.fixture
def world(control: Control, tmp_path: Path) -> Iterator[World]:
    """A media of small extents, so that small disks have many."""
    made = World(control, tmp_path, extent_size=SMALL)
    yield made
    control.clear_faults()
    made.delete()


def clone(number: int) -> bytes:
    """The image with a host name in it, so to speak."""
    at = number * 64 * KIB
    return IMAGE[:at] + random_bytes(SMALL, number) + IMAGE[at + SMALL :]


def stored(report: JobEntry) -> int:
    return sum(disk.figures.stored for vm in report.vms for disk in vm.disks if disk.figures)


def shared(report: JobEntry) -> int:
    return sum(disk.figures.shared for vm in report.vms for disk in vm.disks if disk.figures)


def test_ten_clones_cost_little_more_than_one_in_one_job_and_in_the_next(world: World) -> None:
    for number in range(10):
        world.add_vm({f"os{number}": clone(number)})
    first = world.back_up()
    assert stored(first) == len(IMAGE) + 10 * SMALL
    assert stored(first) + shared(first) == 10 * len(IMAGE)

    for number in range(10, 13):
        world.add_vm({f"os{number}": clone(number)})
    second = world.back_up()
    # The newest clone of the first job lacks one extent of the image, where it has its own.
    assert stored(second) == (3 + 1) * SMALL
    world.require_sound()


def test_what_moves_to_another_machine_is_not_stored_again(world: World) -> None:
    world.add_vm({"source": IMAGE})
    world.add_vm({"target": bytes(4 * MIB)})
    world.back_up()
    world.write("target", MIB, IMAGE)
    # With memory for long reads, however much the tests take themselves: then one read has the whole image,
    # and none of it is looked for before its first extents have shown where the others lie.
    assert stored(world.back_up(memory_mib=8192)) == 0
    world.require_sound()


@pytest.mark.parametrize(("switch", "expected"), [("media", 0), ("client", 1), ("off", 2)])
def test_the_switch_says_among_whom_data_is_stored_once(world: World, switch: str, expected: int) -> None:
    """Two machines, one of them with two disks of the same contents."""
    world.add_vm({"a": IMAGE, "b": IMAGE})
    world.add_vm({"c": IMAGE})
    assert stored(world.back_up(deduplication=switch)) == (1 + expected) * len(IMAGE)
    world.require_sound()


def test_a_disk_that_is_read_whole_again_is_not_stored_again(world: World) -> None:
    world.add_vm({"os": IMAGE})
    world.back_up()
    report = world.back_up(by=Method.CRC, full=True)
    assert (stored(report), shared(report)) == (0, len(IMAGE))
    world.require_sound()


@pytest.mark.parametrize(
    ("made", "image"),
    [
        ({"createOption": "Empty"}, None),
        ({"createOption": "FromImage", "imageReference": {"id": "/Images/Debian"}}, "/images/debian os"),
        (
            {"createOption": "FromImage", "galleryImageReference": {"id": "/g/v1", "lun": 0}},
            "/g/v1 lun 0",
        ),
        (
            {"createOption": "Copy", "sourceResourceId": "/Snapshots/Golden", "sourceUniqueId": "U-1"},
            "/snapshots/golden u-1",
        ),
        ({"createOption": "Import", "sourceUri": "https://[oops"}, None),
        ({"createOption": "FromImage", "imageReference": {"lun": 0}}, None),
        (
            {"createOption": "Import", "sourceUri": "https://a.blob.test/vhds/g.vhd?sig=SECRET"},
            "https://a.blob.test/vhds/g.vhd",
        ),
    ],
)
@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_job_knows_what_disks_were_made_from(
    world: World, made: dict[str, Any], image: str | None, in_a_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsa.transfer.backup_job.MANY_DISKS", 1 if in_a_list else 100)
    world.add_vm({"os": IMAGE})
    world.control.set_disk_properties(world.label("os"), creationData=made)
    job = world.job()
    (found,) = [job.identify_disks(vm) for vm in job.identify_targets(job.discover()).vms]
    assert found.images == ({} if image is None else {found.disks[0].key: image})
