"""Who of disks that were made from one image goes first, and when nobody has to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.subclient.builders import a_source_disk, a_vm
from tests.transfer.records import a_point, a_view
from vsa.model import SourceDisk
from vsa.ranges import GIB
from vsa.transfer.backup_job import VmDisks
from vsa.transfer.clones import LARGEST, Clones, new_images

NOTHING = a_view()


def a_clone(name: str, image: str = "debian", **given: object) -> VmDisks:
    disk = a_source_disk(name, **given)
    return VmDisks(vm=a_vm(name), disks=(disk,), images={disk.key: image} if image else {})


def images_of(*clones: VmDisks) -> Mapping[str, str]:
    return {key: image for clone in clones for key, image in clone.images.items()}


def test_clones_that_were_never_backed_up_are_of_a_new_image() -> None:
    clones = [a_clone("a"), a_clone("b"), a_clone("c", "windows"), a_clone("d", "")]
    assert new_images(NOTHING, clones) == images_of(*clones[:2])


def test_an_image_of_which_any_disk_has_a_point_is_known() -> None:
    clones = [a_clone("a"), a_clone("b"), a_clone("c")]
    assert new_images(a_view(a_point(clones[1].disks[0])), clones) == {}


def test_disks_of_one_machine_do_not_wait_for_each_other() -> None:
    disks = (a_source_disk("a"), a_source_disk("b"))
    machine = VmDisks(vm=a_vm("vm"), disks=disks, images={disk.key: "debian" for disk in disks})
    assert new_images(NOTHING, [machine]) == {}


@pytest.mark.parametrize(("size", "waits"), [(LARGEST, True), (LARGEST + GIB, False)])
def test_a_large_disk_is_not_waited_for(size: int, waits: bool) -> None:
    clones = [a_clone("a", size=size), a_clone("b", size=size)]
    assert bool(new_images(NOTHING, clones)) is waits


def test_the_first_that_asks_goes_first_and_all_others_wait_for_it() -> None:
    a, b, c = (a_clone(name) for name in "abc")
    clones: Clones[str] = Clones(images_of(a, b, c))
    assert clones.before(b.disks, "b") == {}
    assert clones.before(a.disks, "a") == {a.disks[0].key: "b"}
    assert clones.before(c.disks, "c") == {c.disks[0].key: "b"}


def test_what_is_of_no_new_image_goes_at_once() -> None:
    disk = a_source_disk("a")
    clones: Clones[str] = Clones({})
    assert clones.before([disk], "a") == {}
    assert clones.before([disk], "b") == {}


@given(st.lists(st.lists(st.sampled_from(["debian", "windows", "data"]), max_size=4), max_size=6))
def test_nobody_waits_in_a_circle(machines: list[list[str]]) -> None:
    disks: list[list[SourceDisk]] = [
        [a_source_disk(f"{vm}-{number}") for number in range(len(images))]
        for vm, images in enumerate(machines)
    ]
    images = {
        disk.key: image
        for of_vm, named in zip(disks, machines, strict=True)
        for disk, image in zip(of_vm, named, strict=True)
    }
    clones: Clones[int] = Clones(images)
    for vm, of_vm in enumerate(disks):
        assert all(first < vm for first in clones.before(of_vm, vm).values())
