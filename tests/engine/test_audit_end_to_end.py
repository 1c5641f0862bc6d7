"""Lists that lie: a write that leaves no history is found by the audit, and nothing builds on it again."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from azsim.control import Control
from tests.azsim_process import AzsimProcess
from tests.engine.world import KIB, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.media.entries import Result
from vsa.model import Method, Reason

EVERYTHING = 1000
"""More extents than any disk here has: with so many audited, nothing is left to chance."""


def write_without_history(azure: AzsimProcess, before: bytes, after: bytes) -> None:
    """Change bytes in the simulation's own store, behind its back: no change list will ever tell of it.

    The bytes must be unique; every snapshot that shares them changes too, as history cannot.
    """
    assert len(before) == len(after)
    with (azure.state_dir / "pages" / "data").open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(before)
        assert at >= 0
        assert data.find(before, at + 1) == -1
        data[at : at + len(before)] = after


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD, PREMIUM_VHD])
def test_a_lie_is_found_told_and_repaired(azure: AzsimProcess, world: World, kind: str) -> None:
    secret = random_bytes(512, f"before {world.number}")
    contents = random_bytes(3 * MIB, "os") + secret + random_bytes(MIB - 512, "rest")
    world.add_vm({"os": contents, "data": random_bytes(MIB, "data")}, kind=kind)
    first = world.back_up()
    world.write("os", 0, random_bytes(512, 1))
    second = world.back_up()
    slots = [report.vms[0].point for report in (first, second)]

    write_without_history(azure, secret, random_bytes(512, "after"))
    report = world.back_up(audit_extents=EVERYTHING)
    assert world.reasons(report) == {"os": Reason.CRC_AUDIT_FAILED, "data": Reason.CBT}
    assert "extent 48 was reported unchanged and is not" in world.disks(report)["os"].detail

    view = world.media.view()
    key = world.disks(report)["os"].key
    # The full read everything itself; only what a change list was believed for is in doubt.
    assert list(view.doubtful) == [slots[1]]
    assert [doubt.disk_key for doubt in view.doubtful[slots[1] or -1]] == [key]
    newest = report.vms[0].point or -1
    world.require_restores(newest, world.points[newest])
    world.require_no_leftovers()
    assert world.reasons(world.back_up(audit_extents=EVERYTHING))["os"] is Reason.CBT


def test_a_finding_outlives_the_run_that_made_it(azure: AzsimProcess, world: World) -> None:
    """The run that finds the lie fails by another disk; the next job audits too little to find it again."""
    secret = random_bytes(512, f"before {world.number}")
    contents = random_bytes(8 * MIB, "os") + secret + random_bytes(MIB - 512, "rest")
    world.add_vm({"os": contents, "data": random_bytes(MIB, "data")})
    first = world.back_up().vms[0].point or -1
    write_without_history(azure, secret, random_bytes(512, "after"))
    refused = {"plane": "arm", "method": "POST", "status": 403, "code": "AuthorizationFailed", "times": None}
    key = world.media.view().points[first].point.disks[1].disk.key
    with world.fault("status", **refused, path=f"{key}/begingetaccess"):
        report = world.back_up(audit_extents=EVERYTHING)
    assert report.result is Result.FAILED
    assert list(world.media.view().doubtful) == [first]

    world.write("os", 0, random_bytes(512, 1))
    report = world.back_up()
    assert world.reasons(report) == {"os": Reason.CRC_AUDIT_FAILED, "data": Reason.CBT}
    newest = report.vms[0].point or -1
    world.require_restores(newest, world.points[newest])
    assert list(world.media.view().doubtful) == [first]
    assert world.reasons(world.back_up())["os"] is Reason.CBT


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
@pytest.mark.parametrize("method", [Method.CBT, Method.CRC])
def test_data_where_nothing_is_allocated_is_found(
    azure: AzsimProcess, control: Control, tmp_path: Path, kind: str, method: Method
) -> None:
    """The list of what is allocated may lie as well; a full and a CRC job believe it, and audit it."""
    world = World(control, tmp_path, extent_size=16 * KIB)
    marker = random_bytes(512, f"marker {world.number}")
    world.add_vm({"os": random_bytes(16 * KIB - 512, "os") + marker + random_bytes(MIB, "rest")}, kind=kind)
    world.clear("os", 16 * KIB, 32 * KIB)
    before = marker + bytes(32 * KIB)
    if method is Method.CRC:
        world.back_up()
    write_without_history(azure, before, marker + random_bytes(32 * KIB, "after"))
    report = world.back_up(by=method, audit_extents=EVERYTHING)
    assert world.reasons(report)["os"] is Reason.CRC_AUDIT_FAILED
    newest = report.vms[0].point or -1
    world.require_restores(newest, world.points[newest])
    world.delete()
