"""Disks and VMs that change while a job is at them: what it has begun with is what it keeps or says it lost.

Every change strikes between two requests of the data disk's own run: before its disk is looked at, before its
snapshot is asked for, or after it, when the snapshot outlives whatever happens to the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine.guarded import Guarded, lost
from tests.engine.world import MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.soak import only_in_ci
from vsa.media.entries import ClientState, JobEntry, Result
from vsa.model import Reason, SnapshotRef
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run

NOT_A_TARGET = "the disk is no longer a target of the subclient"
GONE = "its VM is gone"


def at(guarded: Guarded, moment: str) -> dict[str, Any]:
    """The request of the data disk before which something happens."""
    key, name = guarded.disk("data").key, guarded.world.named("data")
    return {
        "look": {"plane": "arm", "method": "GET", "path": f"/disks/{name}$"},
        "snapshot": {"plane": "arm", "method": "PUT", "path": f"/snapshots/vsa-[0-9a-f]+-{key}$"},
        "grant": {"plane": "arm", "method": "POST", "path": f"/snapshots/vsa-[0-9a-f]+-{key}/begingetaccess"},
        "VHD's snapshot": {
            "plane": "blob",
            "method": "PUT",
            "path": rf"/{name}\.vhd$",
            "query": "comp=snapshot",
        },
        "VHD's list": {"plane": "blob", "method": "GET", "path": rf"/{name}\.vhd$", "query": "comp=pagelist"},
    }[moment]


@dataclass(frozen=True)
class Change:
    """What happens: an operation of the simulation, and how the world is to be looked at from then on."""

    operation: str
    arguments: Callable[[Guarded], dict[str, Any]]
    note: Callable[[Guarded], None] = lambda guarded: None

    def strike(self, guarded: Guarded, moment: str) -> JobEntry:
        """A job in which it happens; its points are kept with what the disks held before."""
        world = guarded.world
        change = {"operation": self.operation, "arguments": self.arguments(guarded)}
        with world.fault("run", **at(guarded, moment), **change):
            report = world.back_up()
        self.note(guarded)
        return report


def data(guarded: Guarded) -> dict[str, Any]:
    return {"disk": guarded.world.label("data")}


def elsewhere(guarded: Guarded) -> str:
    return f"{guarded.world.group}-elsewhere"


GROW = Change("grow_disk", lambda guarded: data(guarded) | {"size": 2 * MIB})
REPLACE = Change("replace_disk", data)
DETACH = Change(
    "detach_disk",
    lambda guarded: {"vm": guarded.vm, "name": guarded.world.named("data")},
    lambda guarded: guarded.world.forget_disk("data"),
)
ATTACH = Change(
    "attach_disk",
    lambda guarded: {"vm": guarded.vm, "disk": {"name": guarded.world.named("added"), "size": MIB}},
    lambda guarded: guarded.world.expect_attached(guarded.vm, "added"),
)


def attach_vhd(kind: str) -> Change:
    """An empty VHD of this kind."""

    def arguments(guarded: Guarded) -> dict[str, Any]:
        world = guarded.world
        image = world.folder / "added.img"
        image.write_bytes(bytes(MIB))
        place = {"managed": False, "account": world.account(kind), "image": str(image)}
        return {"vm": guarded.vm, "disk": {"name": world.named("added"), **place}}

    return Change(
        "attach_disk", arguments, lambda guarded: guarded.world.expect_attached(guarded.vm, "added", kind)
    )


MOVE_DISK = Change(
    "move_disk",
    lambda guarded: data(guarded) | {"resource_group": elsewhere(guarded)},
    lambda guarded: guarded.world.expect_moved("data", elsewhere(guarded)),
)
MOVE_VM = Change("move_vm", lambda guarded: {"vm": guarded.vm, "resource_group": elsewhere(guarded)})
RECREATE = Change(
    "recreate_vm",
    lambda guarded: {"vm": guarded.vm, "name": f"{guarded.vm}-renamed"},
    lambda guarded: guarded.world.expect_renamed(guarded.vm, f"{guarded.vm}-renamed"),
)
DELETE_VM = Change(
    "delete_vm",
    lambda guarded: {"vm": guarded.vm},
    lambda guarded: guarded.world.expect_gone(guarded.vm),
)
DELETE_ALL = Change(
    "delete_vm",
    lambda guarded: {"vm": guarded.vm, "with_disks": True},
    lambda guarded: guarded.world.expect_gone(guarded.vm),
)


def before_snapshots(act: Callable[[], None]) -> type[BackupJob]:
    """A job in which something happens between the look at its disks and their snapshots."""

    class Interrupted(BackupJob):
        def create_snapshots(self, run: Run) -> tuple[SnapshotRef, ...]:
            act()
            return super().create_snapshots(run)

    return Interrupted


def released(report: JobEntry) -> set[str]:
    return {item.reason for item in report.released}


def require_completed(report: JobEntry) -> None:
    assert (report.result, report.alarms) == (Result.COMPLETED, ()), report


@pytest.mark.parametrize("moment", [pytest.param("look", marks=only_in_ci), "snapshot"])
def test_a_disk_that_grows_before_its_snapshot_is_backed_up_at_its_new_size(
    world: World, moment: str
) -> None:
    guarded = Guarded(world)
    report = GROW.strike(guarded, moment)
    require_completed(report)
    assert world.reasons(report)["data"] is Reason.CBT
    point = report.vms[0].point or -1
    world.points[point] = world.held()[guarded.vm]
    assert {
        backup.disk.name: backup.disk.size for backup in world.media.view().points[point].point.disks
    } == {
        world.named("os"): MIB,
        world.named("data"): 2 * MIB,
    }
    guarded.require_good()


@only_in_ci
def test_a_disk_that_grows_after_its_snapshot_is_backed_up_as_it_was(world: World) -> None:
    guarded = Guarded(world)
    require_completed(GROW.strike(guarded, "grant"))
    guarded.require_good()


def test_a_disk_replaced_before_its_snapshot_is_not_taken_for_the_one_that_was_looked_at(
    world: World,
) -> None:
    guarded = Guarded(world)
    before = world.bases
    message = lost(REPLACE.strike(guarded, "snapshot"), guarded.vm)
    assert "was the disk replaced after it was identified?" in message
    assert world.bases == before
    guarded.require_untouched()
    guarded.require_good({"data": Reason.FULL_LINEAGE})


@only_in_ci
def test_a_disk_replaced_after_its_snapshot_is_backed_up_as_it_was(world: World) -> None:
    guarded = Guarded(world)
    require_completed(REPLACE.strike(guarded, "grant"))
    world.write("data", 0, random_bytes(512, "of the new disk"))
    guarded.require_good({"data": Reason.FULL_LINEAGE})


@pytest.mark.parametrize("moment", ["snapshot", pytest.param("grant", marks=only_in_ci)])
def test_a_disk_detached_in_mid_job_is_in_this_point_and_its_base_goes_with_the_next(
    world: World, moment: str
) -> None:
    guarded = Guarded(world)
    require_completed(DETACH.strike(guarded, moment))
    report = guarded.require_good()
    assert set(world.disks(report)) == {"os"}
    assert released(report) == {NOT_A_TARGET}


@only_in_ci
def test_a_disk_attached_in_mid_job_is_in_the_next_point(world: World) -> None:
    guarded = Guarded(world)
    require_completed(ATTACH.strike(guarded, "snapshot"))
    guarded.require_good({"added": Reason.FULL_FIRST})


@pytest.mark.parametrize("kind", [STANDARD_VHD, pytest.param(PREMIUM_VHD, marks=only_in_ci)])
@pytest.mark.parametrize("moment", [pytest.param("VHD's snapshot", marks=only_in_ci), "VHD's list"])
def test_a_vhd_detached_in_mid_job_is_in_this_point_and_its_base_goes_with_the_next(
    world: World, moment: str, kind: str
) -> None:
    guarded = Guarded(world, kind)
    require_completed(DETACH.strike(guarded, moment))
    report = guarded.require_good()
    assert set(world.disks(report)) == {"os"}
    assert released(report) == {NOT_A_TARGET}


@only_in_ci
@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_a_vhd_attached_in_mid_job_is_in_the_next_point(world: World, kind: str) -> None:
    guarded = Guarded(world, kind)
    require_completed(attach_vhd(kind).strike(guarded, "VHD's snapshot"))
    guarded.require_good({"added": Reason.FULL_FIRST})


@pytest.mark.parametrize("moment", ["snapshot", pytest.param("grant", marks=only_in_ci)])
def test_a_disk_moved_to_another_group_in_mid_job_is_a_new_disk_to_the_next(
    world: World, moment: str
) -> None:
    guarded = Guarded(world)
    report = MOVE_DISK.strike(guarded, moment)
    if moment == "snapshot":
        message = lost(report, guarded.vm)
        assert "ResourceNotFound" in message
        assert "was deleted or moved after this job had looked at it" in message
    else:
        require_completed(report)
    assert released(guarded.require_good({"data": Reason.FULL_FIRST})) == {NOT_A_TARGET}
    world.write("data", 0, random_bytes(512, "there"))
    guarded.require_good()


@only_in_ci
@pytest.mark.parametrize("moment", ["look", "snapshot"])
def test_a_vm_moved_to_another_group_in_mid_job_is_the_same_client(world: World, moment: str) -> None:
    guarded = Guarded(world)
    require_completed(MOVE_VM.strike(guarded, moment))
    guarded.require_good()
    (client,) = world.media.view().clients.values()
    assert client.vm.resource_group.lower() == elsewhere(guarded)


@pytest.mark.parametrize("moment", ["snapshot", pytest.param("grant", marks=only_in_ci)])
def test_a_vm_made_again_under_another_name_keeps_the_history_of_its_disks(world: World, moment: str) -> None:
    guarded = Guarded(world)
    require_completed(RECREATE.strike(guarded, moment))
    report = guarded.require_good()
    assert [outcome.name for outcome in report.vms] == [f"{guarded.vm}-renamed"]
    states = {client.vm.name: client.state for client in world.media.view().clients.values()}
    assert states == {guarded.vm: ClientState.GONE, f"{guarded.vm}-renamed": ClientState.PRESENT}


@pytest.mark.parametrize(
    ("change", "moment"),
    [
        pytest.param(DELETE_VM, "look", marks=only_in_ci, id="VM alone, before its disks are looked at"),
        pytest.param(DELETE_VM, "snapshot", marks=only_in_ci, id="VM alone, before its snapshots"),
        pytest.param(DELETE_ALL, "grant", id="VM and disks, after their snapshots"),
    ],
)
def test_a_vm_deleted_in_mid_job_has_its_last_point(world: World, change: Change, moment: str) -> None:
    guarded = Guarded(world, alone=False)
    require_completed(change.strike(guarded, moment))
    report = guarded.require_good()
    assert set(world.disks(report)) == {"stays"}
    assert released(report) == {GONE}
    assert len(world.bases) == 1


@only_in_ci
def test_a_vm_deleted_with_its_disks_before_its_snapshots_costs_its_own_point_alone(world: World) -> None:
    guarded = Guarded(world, alone=False)
    report = DELETE_ALL.strike(guarded, "snapshot")
    assert report.result is Result.COMPLETED_WITH_ERRORS
    assert "ResourceNotFound" in lost(report, guarded.vm)
    guarded.require_untouched()
    assert released(guarded.require_good()) == {GONE}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("networkAccessPolicy", "DenyAll", "network access policy is DenyAll"),
        pytest.param(
            "dataAccessAuthMode",
            "AzureActiveDirectory",
            "data access authentication mode is AzureActiveDirectory",
            marks=only_in_ci,
        ),
    ],
)
def test_a_disk_that_is_closed_to_export_when_it_is_looked_at_is_left_out_by_reason(
    world: World, name: str, value: str, reason: str
) -> None:
    guarded = Guarded(world)
    close = Change("set_disk_properties", lambda guarded: data(guarded) | {"properties": {name: value}})
    report = close.strike(guarded, "look")
    assert report.result is Result.COMPLETED
    (left_out,) = world.media.view().points[report.vms[0].point or -1].point.excluded
    assert left_out.name == world.named("data")
    assert reason in left_out.reason
    assert released(report) == {NOT_A_TARGET}
    world.require_sound()
    guarded.require_untouched()
    world.control.set_disk_properties(world.label("data"), **{name: None})
    guarded.require_good({"data": Reason.CRC_NO_BASE})


@only_in_ci
@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_a_vhd_that_grows_before_its_snapshot_is_backed_up_at_its_new_size(world: World, kind: str) -> None:
    guarded = Guarded(world, kind)
    report = world.back_up(kind_of_job=before_snapshots(lambda: world.grow("data", 2 * MIB)))
    require_completed(report)
    assert world.reasons(report)["data"] is Reason.CBT
    world.points[report.vms[0].point or -1] = world.held()[guarded.vm]
    guarded.require_good()


@only_in_ci
def test_a_vhd_that_is_copied_over_before_its_snapshot_is_what_it_has_become(world: World) -> None:
    """Azure compares no snapshots across that, which is found out when it is asked for the changes. In a
    premium account nothing is copied over what has snapshots."""
    guarded = Guarded(world, STANDARD_VHD)

    def copy_over() -> None:
        world.vhd("data").start_copy_from_url(world.url("os"))
        while world.vhd("data").get_blob_properties().copy.status == "pending":
            time.sleep(0.01)

    report = world.back_up(kind_of_job=before_snapshots(copy_over))
    require_completed(report)
    assert world.reasons(report) == {"os": Reason.CBT, "data": Reason.CRC_DIFF_REFUSED}
    world.points[report.vms[0].point or -1] = world.held()[guarded.vm]
    guarded.require_good({"data": Reason.FULL_LINEAGE})
