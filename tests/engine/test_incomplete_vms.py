"""A disk that fails: its VM gets no point unless the subclient allows it, and nobody else notices."""

from __future__ import annotations

import re
from typing import Any

from tests.engine.world import MIB, World, random_bytes
from vsa.media.entries import Result
from vsa.model import Reason

THREE = {name: random_bytes(MIB, name) for name in ("os", "logs", "database")}


def two_vms(world: World) -> tuple[str, str]:
    """A VM of three disks and one of a single disk, both with a full backup and a change since."""
    three = world.add_vm(THREE)
    single = world.add_vm({"alone": random_bytes(MIB, "alone")})
    assert world.back_up().result is Result.COMPLETED
    for disk in ("os", "logs", "database", "alone"):
        world.write(disk, 0, random_bytes(512, disk))
    return three, single


def refusal_of(world: World, disk: str, stage: str) -> dict[str, Any]:
    """A fault that refuses one stage of one disk for good."""
    key = next(
        backup.disk.key
        for made in world.media.view().points.values()
        for backup in made.point.disks
        if backup.disk.name == world.named(disk)
    )
    refused = {"plane": "arm", "status": 403, "code": "AuthorizationFailed", "times": None}
    if stage == "snapshot":
        return {**refused, "method": "PUT", "path": f"/snapshots/vsa-[0-9a-f]+-{key}$"}
    return {**refused, "method": "POST", "path": f"/snapshots/vsa-[0-9a-f]+-{key}/begingetaccess"}


def require_normal_job(world: World) -> None:
    report = world.back_up()
    assert report.result is Result.COMPLETED
    assert set(world.reasons(report).values()) == {Reason.CBT}
    world.require_sound()


def test_a_disk_whose_snapshot_fails_costs_its_vm_the_point(world: World) -> None:
    require_no_point_for_the_first_vm(world, "snapshot")


def test_a_disk_whose_transfer_fails_costs_its_vm_the_point(world: World) -> None:
    require_no_point_for_the_first_vm(world, "transfer")


def require_no_point_for_the_first_vm(world: World, stage: str) -> None:
    three, single = two_vms(world)
    before = world.snapshots
    with world.fault("status", **refusal_of(world, "logs", stage)):
        report = world.back_up()
    outcomes = {outcome.name: outcome for outcome in report.vms}
    assert report.result is Result.COMPLETED_WITH_ERRORS
    assert outcomes[three].point is None
    assert world.named("logs") in outcomes[three].error
    assert "AuthorizationFailed" in outcomes[three].error
    assert outcomes[single].result is Result.COMPLETED
    # The old bases of the three stay; only the single disk has a new one.
    assert len(world.snapshots & before) == 3
    assert len(world.snapshots) == 4
    world.require_sound()
    require_normal_job(world)


def test_an_incomplete_point_is_kept_and_labelled_where_the_subclient_allows_it(world: World) -> None:
    three, _ = two_vms(world)
    before = world.snapshots
    with world.fault("status", **refusal_of(world, "logs", "transfer")):
        report = world.back_up(allow_incomplete_points=True)
    outcome = next(outcome for outcome in report.vms if outcome.name == three)
    assert outcome.point is not None
    assert outcome.result is Result.COMPLETED_WITH_ERRORS
    assert report.result is Result.COMPLETED_WITH_ERRORS
    point = world.media.view().points[outcome.point].point
    assert point.incomplete
    assert [backup.disk.name for backup in point.disks] == [world.named("os"), world.named("database")]
    assert [item.name for item in point.excluded] == [world.named("logs")]
    assert "AuthorizationFailed" in point.excluded[0].reason
    # The failed disk keeps the base of its last point, so that its next backup is a CBT again.
    assert len(world.snapshots & before) == 1
    world.require_sound()
    require_normal_job(world)


def test_a_vm_of_which_every_disk_fails_has_no_incomplete_point_either(world: World) -> None:
    vm = world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    with world.fault("status", **refusal_of(world, "os", "transfer")):
        report = world.back_up(allow_incomplete_points=True)
    assert report.result is Result.FAILED
    assert f"VM {vm} gets no recovery point" in report.vms[0].error
    require_normal_job(world)


def test_what_cannot_be_cleaned_up_is_said_and_the_next_job_does_it(world: World) -> None:
    world.add_vm(THREE)
    world.back_up()
    old = world.snapshots
    with world.fault(
        "status", plane="arm", method="DELETE", path="/snapshots/", status=409, code="ScopeLocked", times=None
    ):
        report = world.back_up()
    assert report.result is Result.COMPLETED_WITH_ERRORS
    assert len(report.alarms) == 3
    assert all("cleanup pending for disk" in alarm and "ScopeLocked" in alarm for alarm in report.alarms)
    assert all("a lock keeps it, somebody must remove the lock" in alarm for alarm in report.alarms)
    told = (
        r"still there: snapshot vsa-\S+ of disk \S+ \(run \w+, \d+ \w+ old, 1 MiB, below 0.01 USD a month\)$"
    )
    assert all(re.search(told, alarm) for alarm in report.alarms)
    assert old < world.snapshots
    assert len(world.snapshots) == 6
    require_normal_job(world)


def test_a_lock_that_stays_keeps_neither_backups_from_being_made_nor_access_open(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    lock = {"status": 409, "code": "ScopeLocked", "times": None}
    with world.fault("status", plane="arm", method="DELETE", path="/snapshots/", **lock):
        for _ in range(3):
            world.write("os", 0, random_bytes(512, "changed"))
            report = world.back_up()
            assert (report.result, world.reasons(report)) == (
                Result.COMPLETED_WITH_ERRORS,
                {"os": Reason.CBT},
            )
            (alarm,) = report.alarms
            assert "somebody must remove the lock" in alarm
            assert not any(row["grant_open"] for row in world.control.inventory()["snapshots"])
    assert "(and 2 more refusals)" in alarm
    world.back_up()
    world.require_sound()


def test_a_disk_of_a_kind_that_cannot_be_read_is_no_target_and_is_named(world: World) -> None:
    vm = world.add_vm({"os": random_bytes(MIB, "os")})
    name = f"large-sectors-{world.number}"
    world.control.attach_disk(vm, {"name": name, "size": MIB, "sku": "PremiumV2_LRS"})
    world.control.set_disk_properties(name, creationData={"createOption": "Empty", "logicalSectorSize": 4096})
    report = world.back_up()
    assert report.result is Result.COMPLETED
    point = world.media.view().points[report.vms[0].point or -1].point
    assert not point.incomplete
    assert [item.name for item in point.excluded] == [name]
    assert "sectors are 4096 bytes" in point.excluded[0].reason
