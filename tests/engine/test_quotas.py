"""What Azure allows so often and others may have used up: snapshots of a disk, and how fast they are made.

The five grants of a family are in `test_faults_control_plane.py` and `test_grants_of_dead_runs.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.guarded import Guarded, lost
from tests.engine.world import PREMIUM_VHD, STANDARD_VHD, World
from tests.soak import only_in_ci
from vsa.azure import snapshots

THEIRS = 5
"""Snapshots of the data disk that stand beside it as canaries; the base is one more."""


def snapshot_by_others(world: World, disk: str, name: str) -> None:
    creation = {"createOption": "Copy", "sourceResourceId": world.label(disk)}
    body: Any = {"location": "westeurope", "properties": {"incremental": True, "creationData": creation}}
    world.connection.compute.snapshots.begin_create_or_update(f"others-{world.number}", name, body).result()


def test_a_disk_with_five_hundred_snapshots_gets_no_point_and_keeps_its_base(world: World) -> None:
    guarded = Guarded(world)
    bases, others = world.bases, f"others-{world.number}"
    label = world.label("data")
    theirs = world.control.take_snapshots(label, 500 - THEIRS - 1, resource_group=others)
    try:
        message = lost(world.back_up(), guarded.vm)
        assert f"snapshot disk {world.named('data')}" in message
        assert "SnapshotsLimitReached" in message
        assert "delete those that nobody needs" in message
        assert world.bases == bases
        guarded.require_untouched()
        there = {row["id"] for row in world.control.inventory()["snapshots"]}
        assert set(theirs) <= there
        world.control.delete_snapshot(theirs[0])
        guarded.require_good()
    finally:
        world.control.delete_snapshots(resource_group=others)


def test_an_eighth_snapshot_in_five_minutes_costs_the_point_and_the_next_job_is_normal(world: World) -> None:
    guarded = Guarded(world)
    others = f"others-{world.number}"
    world.control.create_fleet({"resource_group": others, "disks": [{"name": others, "size": 512}]})
    world.control.advance_clock(601)
    for number in range(7):
        snapshot_by_others(world, "data", f"quick-{world.number}-{number}")
    bases = world.bases
    message = lost(world.back_up(between=0), guarded.vm)
    assert "7 incremental snapshots in the last five minutes" in message
    assert "or wait" in message
    assert world.bases == bases
    guarded.require_untouched()
    guarded.require_good()
    world.control.delete_snapshots(resource_group=others)


@only_in_ci
def test_a_premium_vhd_with_a_hundred_snapshots_gets_no_point_and_keeps_its_base(world: World) -> None:
    guarded = Guarded(world, PREMIUM_VHD)
    bases, vhd = world.bases, world.vhd("data")
    theirs = []
    while len(theirs) < 100 - len(guarded.blobs) - 1:
        world.control.advance_clock(601)
        theirs.append(str(vhd.create_snapshot()["snapshot"]))
    message = lost(world.back_up(), guarded.vm)
    assert "SnapshotCountExceeded" in message
    assert "delete those that nobody needs" in message
    assert world.bases == bases
    world.vhd("data", theirs.pop()).delete_blob()
    guarded.blobs |= set(theirs)
    guarded.require_good()


def test_a_job_waits_for_the_ten_minutes_of_a_premium_vhd(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others have just made one: the wait is said, and the disk is backed up."""
    monkeypatch.setattr(snapshots, "RATE_WAIT_SECONDS", 0.01)
    guarded = Guarded(world, PREMIUM_VHD)
    world.control.advance_clock(601)
    guarded.blobs.add(str(world.vhd("data").create_snapshot()["snapshot"]))
    put = {"plane": "blob", "method": "PUT", "path": world.named("data"), "query": "comp=snapshot"}
    with world.fault("advance_clock", **put, skip=2, seconds=601):
        guarded.require_good(between=0)
    waits = [record for record in caplog.messages if "one snapshot of a premium VHD in ten minutes" in record]
    assert len(waits) == 2


@only_in_ci
def test_a_standard_vhd_is_snapshotted_as_often_as_one_likes(world: World) -> None:
    guarded = Guarded(world, STANDARD_VHD)
    guarded.require_good(between=0)
    guarded.require_good(between=0)
