"""Who of disks that were made from one image goes first, and when nobody has to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.subclient.builders import a_source_disk, a_vm
from tests.transfer.records import a_point, a_view
from vsa.media.index import Offer
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
    assert new_images(NOTHING, clones, Offer.MEDIA) == images_of(*clones[:2])


def test_an_image_of_which_any_disk_has_a_point_is_known() -> None:
    clones = [a_clone("a"), a_clone("b"), a_clone("c")]
    assert new_images(a_view(a_point(clones[1].disks[0])), clones, Offer.MEDIA) == {}


def test_disks_of_one_machine_do_not_wait_for_each_other() -> None:
    disks = (a_source_disk("a"), a_source_disk("b"))
    machine = VmDisks(vm=a_vm("vm"), disks=disks, images={disk.key: "debian" for disk in disks})
    assert new_images(NOTHING, [machine], Offer.MEDIA) == {}


@pytest.mark.parametrize(("size", "waits"), [(LARGEST, True), (LARGEST + GIB, False)])
def test_a_large_disk_waits_for_nobody(size: int, waits: bool) -> None:
    clones = [a_clone("a", size=size), a_clone("b", size=size)]
    assert bool(new_images(NOTHING, clones, Offer.MEDIA)) is waits


@pytest.mark.parametrize("offer", [Offer.CLIENT, Offer.OFF])
def test_where_data_is_not_offered_to_others_nobody_waits(offer: Offer) -> None:
    assert new_images(NOTHING, [a_clone("a"), a_clone("b")], offer) == {}


class Job:
    """VMs by name: whose clones they are, and who has got its point."""

    def __init__(self, *machines: VmDisks) -> None:
        self._disks = {machine.vm.name: machine.disks for machine in machines}
        self.points: dict[str, bool] = {}
        self.clones: Clones[str] = Clones(images_of(*machines), self.points.get)

    def waits_for(self, vm: str) -> str | None:
        return self.clones.waits_for(self._disks[vm], vm)


def a_machine(name: str, *images: str, size: int = GIB) -> VmDisks:
    disks = tuple(a_source_disk(f"{name}-{number}", size=size) for number in range(len(images)))
    named = {disk.key: image for disk, image in zip(disks, images, strict=True) if image}
    return VmDisks(vm=a_vm(name), disks=disks, images=named)


def test_the_first_that_asks_goes_first_and_all_others_wait_until_it_has_its_point() -> None:
    job = Job(*(a_machine(name, "debian") for name in "abc"))
    assert job.waits_for("b") is None
    assert job.clones.goes_first("b")
    assert (job.waits_for("a"), job.waits_for("c")) == ("b", "b")
    job.points["b"] = True
    assert (job.waits_for("a"), job.waits_for("c")) == (None, None)
    assert not job.clones.goes_first("a")


def test_where_the_first_gets_no_point_another_one_takes_its_place() -> None:
    job = Job(*(a_machine(name, "debian") for name in "abc"))
    assert (job.waits_for("a"), job.waits_for("b"), job.waits_for("c")) == (None, "a", "a")
    job.points["a"] = False
    assert (job.waits_for("c"), job.waits_for("b")) == (None, "c")


def test_who_has_a_large_disk_is_not_waited_for() -> None:
    large = a_machine("a", "debian")
    large = large.model_copy(update={"disks": (*large.disks, a_source_disk("data", size=LARGEST + GIB))})
    job = Job(large, *(a_machine(name, "debian") for name in "bc"))
    assert (job.waits_for("a"), job.waits_for("b"), job.waits_for("c")) == (None, None, "b")


def test_what_is_of_no_new_image_goes_at_once() -> None:
    job = Job(a_machine("a", ""), a_machine("b", ""))
    assert (job.waits_for("a"), job.waits_for("b")) == (None, None)
    assert not job.clones.goes_first("a")


@given(st.lists(st.lists(st.sampled_from(["debian", "windows", "data"]), max_size=4), max_size=6), st.data())
def test_who_is_waited_for_waits_for_nobody(machines: list[list[str]], data: st.DataObject) -> None:
    """And once all have been asked about whom they waited for, nobody waits."""
    job = Job(*(a_machine(str(number), *images) for number, images in enumerate(machines)))
    waiting = [str(number) for number in range(len(machines))]
    going: set[str] = set()
    for _ in range(1 + len(machines)):
        found = {vm: job.waits_for(vm) for vm in waiting}
        going |= {vm for vm, first in found.items() if first is None}
        assert {first for first in found.values() if first is not None} <= going
        waiting = [vm for vm in waiting if vm not in going]
        job.points.update({vm: data.draw(st.booleans()) for vm in going - job.points.keys()})
    assert waiting == []
