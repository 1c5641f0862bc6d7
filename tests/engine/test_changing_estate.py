"""Disks that grow, come, go and are replaced; VMs that are renamed, filtered out and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.story import run_job
from tests.engine.world import (
    EXTENT,
    KIB,
    MANAGED,
    MIB,
    PREMIUM_VHD,
    STANDARD_VHD,
    World,
    random_bytes,
)
from tests.soak import only_in_ci
from vsa.errors import BadRequest
from vsa.media.entries import ClientState, JobEntry
from vsa.model import Method, Reason
from vsa.restore.disk import Format, restore_disk
from vsa.subclient import DiskFilter

KINDS = [MANAGED, STANDARD_VHD, PREMIUM_VHD]


def released(report: JobEntry) -> list[str]:
    return [item.reason for item in report.released]


@pytest.mark.parametrize("kind", KINDS)
def test_a_grown_disk_is_compared_with_its_smaller_base(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(MIB + 3 * 512, "os")}, kind=kind)
    world.back_up()
    world.grow("os", 3 * MIB)
    world.write("os", 2 * MIB, random_bytes(4 * KIB, 1))
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    world.grow("os", 4 * MIB)
    assert world.reasons(world.back_up(by=Method.CRC))["os"] is Reason.CRC_REQUESTED
    world.require_sound()


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
def test_growth_alone_is_no_reason_for_distrust(world: World, kind: str) -> None:
    """The last extent was stored short and is longer now: its old bytes and zeros are what it must hold."""
    world.add_vm({"os": random_bytes(MIB + 3 * 512, "os")}, kind=kind)
    world.back_up()
    world.grow("os", 2 * MIB)
    assert world.reasons(world.back_up(audit_extents=64))["os"] is Reason.CBT
    assert world.media.view().doubtful == {}
    world.require_sound()


def test_a_disk_that_is_attached_later_starts_with_a_full(world: World) -> None:
    vm = world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    world.attach(vm, "data", random_bytes(MIB, "data"))
    assert world.reasons(world.back_up()) == {"os": Reason.CBT, "data": Reason.FULL_FIRST}
    world.require_sound()


def test_a_replaced_disk_is_read_whole(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")})
    world.back_up()
    world.control.replace_disk(world.label("data"))
    world.write("data", 0, random_bytes(512, 1))
    report = world.back_up()
    assert world.reasons(report) == {"os": Reason.CBT, "data": Reason.FULL_LINEAGE}
    assert "unique id" in world.disks(report)["data"].detail
    world.require_sound()


def test_a_disk_replaced_before_a_crc_job_is_not_compared_with_the_old_ones_base(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    world.control.replace_disk(world.label("os"))
    assert world.reasons(world.back_up(by=Method.CRC))["os"] is Reason.FULL_LINEAGE
    world.write("os", 0, random_bytes(512, 1))
    report = world.back_up()
    assert world.reasons(report)["os"] is Reason.CRC_NO_BASE
    assert "replaced" in world.disks(report)["os"].detail
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    world.require_sound()


def test_the_base_of_a_detached_disk_is_released(world: World) -> None:
    vm = world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")})
    world.back_up()
    world.detach(vm, "data")
    report = world.back_up()
    assert world.reasons(report) == {"os": Reason.CBT}
    assert released(report) == ["the disk is no longer a target of the subclient"]
    assert len(world.snapshots) == 1
    world.require_sound()


def test_the_base_of_a_disk_that_a_filter_leaves_out_is_released(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")})
    world.back_up()
    report = run_with_filter(world)
    assert released(report) == ["the disk is no longer a target of the subclient"]
    point = world.media.view().points[max(world.points)].point
    assert [item.name for item in point.excluded] == [world.named("data")]
    assert "disk filter" in point.excluded[0].reason
    world.require_sound()


def run_with_filter(world: World) -> JobEntry:
    return world.back_up(disk_filters=(DiskFilter(name=world.named("data")),))


def test_bases_go_when_the_method_becomes_crc(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    world.write("os", 0, random_bytes(512, 1))
    report = world.back_up(method="crc")
    assert world.reasons(report)["os"] is Reason.CRC_REQUESTED
    assert released(report) == ["the subclient's method is CRC"]
    assert world.snapshots == set()
    assert world.reasons(world.back_up())["os"] is Reason.CRC_NO_BASE
    world.require_sound()


def test_a_deleted_vm_stays_a_client_marked_gone_and_loses_its_bases(world: World) -> None:
    gone = world.add_vm({"gone": random_bytes(MIB, "gone")})
    stays = world.add_vm({"stays": random_bytes(MIB, "stays")})
    world.back_up()
    world.delete_vm(gone)
    report = world.back_up()
    assert released(report) == ["its VM is gone"]
    states = {entry.vm.name: entry.state for entry in world.media.view().clients.values()}
    assert states == {gone: ClientState.GONE, stays: ClientState.PRESENT}
    assert len(world.snapshots) == 1
    world.require_sound()


def test_bases_of_a_vm_that_is_no_longer_selected_are_released(world: World) -> None:
    world.add_vm({"left": random_bytes(MIB, "left")})
    stays = world.add_vm({"stays": random_bytes(MIB, "stays")})
    world.back_up()
    report = world.back_up(vms=(stays,))
    assert released(report) == ["the subclient no longer selects its VM"]
    world.require_sound()


def test_another_subclients_bases_are_not_ours_to_release(world: World) -> None:
    world.add_vm({"one": random_bytes(MIB, "one")})
    other = world.add_vm({"two": random_bytes(MIB, "two")})
    world.back_up()
    before = world.snapshots
    report = world.back_up(name="others", vms=(other,), method="crc")
    assert released(report) == []
    assert world.snapshots == before
    world.require_sound()


def test_a_renamed_vm_is_the_same_client_with_both_names(world: World) -> None:
    before = world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    world.rename(before, after := f"{before}-renamed")
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    (client,) = world.media.view().clients.values()
    assert [name.name for name in client.names] == [before, after]
    assert client.names[0].last_seen < client.names[1].first_seen
    world.require_sound()


def test_a_subclient_whose_last_vm_is_deleted_keeps_no_base(world: World) -> None:
    world.add_vm({"stays": random_bytes(MIB, "stays")})
    world.back_up(name="others")
    gone = world.add_vm({"gone": random_bytes(MIB, "gone")})
    world.back_up(vms=(gone,))
    world.delete_vm(gone)
    with pytest.raises(BadRequest, match="selects no VM"):
        world.back_up(vms=(gone,))
    assert len(world.snapshots) == 1
    assert {entry.vm.name: entry.state for entry in world.media.view().clients.values()}[
        gone
    ] is ClientState.GONE


def test_rules_that_select_nothing_say_what_they_looked_at(world: World) -> None:
    vm = world.add_vm({"os": random_bytes(MIB, "os")})
    with pytest.raises(BadRequest) as refused:
        world.back_up(vms=("no-such-vm",))
    assert "selects no VM" in str(refused.value)
    assert "no-such-vm: named in the subclient, but not among" in str(refused.value)
    assert vm not in world.media.view().clients
    assert world.snapshots == set()


class TestGrowthOverTheLimitOfChangeLists:
    """Azure knows no changes across a growth over 4 TiB. The disks are that large, and nearly empty."""

    LIMIT = 4 * 1024 * 1024 * MIB

    def test_the_disk_is_read_whole(self, world: World) -> None:
        world.add_vm({"os": random_bytes(EXTENT, 0)})
        written = {0: random_bytes(EXTENT, 0)}
        world.grow("os", self.LIMIT - MIB)
        self.write(world, written, self.LIMIT - 2 * MIB)
        assert self.backed_up(world, written) is Reason.FULL_FIRST

        world.grow("os", self.LIMIT + MIB)
        self.write(world, written, self.LIMIT)
        assert self.backed_up(world, written) is Reason.FULL_RESIZED_4TB

        self.write(world, written, MIB)
        assert self.backed_up(world, written) is Reason.CBT
        world.require_no_leftovers()

    def test_a_base_from_below_the_limit_is_not_compared_with_after_a_crc_job_above_it(
        self, world: World
    ) -> None:
        world.add_vm({"os": random_bytes(EXTENT, 0)})
        written = {0: random_bytes(EXTENT, 0)}
        world.grow("os", self.LIMIT - MIB)
        assert self.backed_up(world, written) is Reason.FULL_FIRST
        world.grow("os", self.LIMIT + MIB)
        self.write(world, written, self.LIMIT)
        assert self.backed_up(world, written, by=Method.CRC) is Reason.FULL_RESIZED_4TB
        self.write(world, written, 2 * MIB)
        assert self.backed_up(world, written) is Reason.CRC_NO_BASE
        assert self.backed_up(world, written) is Reason.CBT

    @only_in_ci
    def test_growth_in_mid_job_is_seen_by_the_snapshot(self, world: World) -> None:
        world.add_vm({"os": random_bytes(EXTENT, 0)})
        written = {0: random_bytes(EXTENT, 0)}
        world.grow("os", self.LIMIT - MIB)
        assert self.backed_up(world, written) is Reason.FULL_FIRST
        self.write(world, written, MIB)
        grow = {"operation": "grow_disk", "arguments": {"disk": world.label("os"), "size": self.LIMIT + MIB}}
        with world.fault("run", plane="arm", method="PUT", path="/snapshots/", **grow):
            assert self.backed_up(world, written) is Reason.FULL_RESIZED_4TB
        self.write(world, written, self.LIMIT)
        assert self.backed_up(world, written) is Reason.CBT
        world.require_no_leftovers()

    def write(self, world: World, written: dict[int, bytes], offset: int) -> None:
        written[offset] = random_bytes(EXTENT, offset)
        world.write("os", offset, written[offset])

    def backed_up(self, world: World, written: dict[int, bytes], **options: Any) -> Reason | None:
        """Back up and restore; nothing but what was written is in the image."""
        # By default the audit reads a share of the disk, gigabytes here.
        job = world.job(audit_share=0.0, audit_cycle_jobs=10**9, **options)
        report = run_job(job)
        point = world.media.view().points[report.vms[0].point or -1].point
        target = world.folder / "large.img"
        restored = restore_disk(world.media, point.disks[0], target, format=Format.RAW, checksum=False)
        with target.open("rb") as image:
            for offset, data in written.items():
                image.seek(offset)
                assert image.read(len(data)) == data
        assert restored.bytes_written == sum(map(len, written.values()))
        target.unlink()
        return world.reasons(report)["os"]
