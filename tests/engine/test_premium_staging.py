"""An unmanaged disk in a premium account: bytes from a staging blob, changes from the source's snapshots."""

from __future__ import annotations

from typing import Any

from tests.engine.world import MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.model import Reason


def requests_of(world: World, since: int) -> list[dict[str, Any]]:
    return [row for row in world.control.requests(since=since) if row["plane"] == "blob"]


def test_bytes_come_from_the_copy_and_lists_from_the_source(world: World) -> None:
    world.add_vm({"os": random_bytes(3 * MIB, "os")}, kind=PREMIUM_VHD)
    world.back_up()
    world.write("os", MIB, random_bytes(512, 1))
    since = world.control.last_request()
    assert world.reasons(world.back_up())["os"] is Reason.CBT

    requests = requests_of(world, since)
    reads = [row for row in requests if row["range"]]
    assert reads
    assert all("/vsa-staging/vsa-" in row["path"] and "snapshot=" not in row["query"] for row in reads)
    lists = [row for row in requests if "comp=pagelist" in row["query"]]
    assert len(lists) == 2
    assert all(row["path"].endswith(f"/vhds/{world.named('os')}.vhd") for row in lists)
    assert all("snapshot=" in row["query"] for row in lists)
    assert sum("prevsnapshot=" in row["query"] for row in lists) == 1
    deleted = [row["path"] for row in requests if row["method"] == "DELETE" and "staging" in row["path"]]
    assert len(deleted) == 1
    assert {row["path"] for row in reads} == set(deleted)
    world.require_sound()


def test_a_standard_account_needs_no_copy(world: World) -> None:
    world.add_vm({"os": random_bytes(3 * MIB, "os")}, kind=STANDARD_VHD)
    since = world.control.last_request()
    world.back_up()
    assert not any("staging" in row["path"] and row["method"] == "PUT" for row in requests_of(world, since))
    world.require_sound()


def test_a_copy_that_fails_costs_the_point_and_leaves_nothing(world: World) -> None:
    world.add_vm({"os": random_bytes(3 * MIB, "os")}, kind=PREMIUM_VHD)
    world.back_up()
    world.write("os", MIB, random_bytes(512, 1))
    before = world.snapshots
    refused = {"plane": "blob", "method": "PUT", "header": "x-ms-copy-source", "times": None}
    with world.fault("status", **refused, status=409, code="PendingCopyOperation"):
        report = world.back_up()
    assert report.vms[0].point is None
    assert "PendingCopyOperation" in report.vms[0].error
    assert world.snapshots == before
    world.require_sound()
    assert world.reasons(world.back_up())["os"] is Reason.CBT
    world.require_sound()
