"""A job's process is killed at every stage: no half point, no leftover after the next job, nothing lost."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.engine.job_process import in_another_process
from tests.engine.story import run_job
from tests.engine.world import (
    EXTENT,
    MANAGED,
    MIB,
    PREMIUM_VHD,
    STANDARD_VHD,
    World,
    random_bytes,
)
from vsa.media.entries import Result
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob

HELD_BACK = 1.0
"""Seconds for which a request is held back, so that the process dies while it waits for the answer."""

SNAPSHOT = r"/snapshots/[^/]+$"
MOMENTS: dict[str, dict[str, Any]] = {
    "first snapshot": {"plane": "arm", "method": "PUT", "path": SNAPSHOT, "times": 2},
    "grant": {"plane": "arm", "method": "POST", "path": "begingetaccess"},
    "list": {"plane": "blob", "method": "GET", "query": "comp=pagelist"},
    "read": {"plane": "blob", "method": "GET", "header": "x-ms-range", "skip": 3},
    "second disk": {"plane": "arm", "method": "POST", "path": "begingetaccess", "skip": 2},
    "revoke": {"plane": "arm", "method": "POST", "path": "endgetaccess", "skip": 1},
    "delete": {"plane": "arm", "method": "DELETE", "path": SNAPSHOT},
}
VHD_MOMENTS: dict[str, dict[str, Any]] = {
    "snapshot": {"plane": "blob", "method": "PUT", "query": "comp=snapshot"},
    "copy": {"plane": "blob", "method": "PUT", "header": "x-ms-copy-source"},
    "read": {"plane": "blob", "method": "GET", "header": "x-ms-range", "skip": 3},
}


class DiesBeforeCommit(BackupJob):
    def commit(self, *arguments: Any, **options: Any) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().commit(*arguments, **options)


class DiesAfterCommit(BackupJob):
    def commit(self, *arguments: Any, **options: Any) -> int:
        slot = super().commit(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        return slot


def two_disks(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(3 * MIB, "os"), "data": random_bytes(MIB, "data")}, kind=kind)
    world.back_up()
    for extent in range(8):
        world.write("os", extent * 4 * EXTENT, random_bytes(512, extent))
    world.write("data", 512, random_bytes(512, 2))


def kill_while_held_back(world: World, request: dict[str, Any]) -> None:
    """Start a job and kill it while this request waits; the request itself still takes effect later."""
    before = world.control.last_request()
    rule = world.control.add_fault("delay", seconds=HELD_BACK, **request)
    process = in_another_process(world, run_job)
    while not world.control.fired(rule):
        assert process.is_alive(), "the job ended before the request it should die in"
        time.sleep(0.005)
    # What Azure has no more than the head of has no effect.
    time.sleep(HELD_BACK / 3)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    while number_served(world, rule, since=before) < world.control.fired(rule):
        time.sleep(0.02)


def number_served(world: World, rule: str, *, since: int) -> int:
    """How many requests that this rule held back have taken effect."""
    return sum(rule in row["faults"] for row in world.control.requests(since=since))


def kill_at_commit(world: World, kind_of_job: type[BackupJob]) -> None:
    process = in_another_process(world, run_job, kind_of_job=kind_of_job)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def require_that_nothing_was_lost(world: World, *, points: int) -> None:
    """So many points are there; they restore; the next job is normal and leaves what is allowed, no more."""
    assert len(world.media.view().points) == len(world.points) == points
    report = world.back_up()
    assert report.result is Result.COMPLETED
    assert set(world.reasons(report).values()) == {Reason.CBT}
    world.require_sound()


def require_that_all_are_marked(world: World) -> None:
    """Marks come in the request that makes a snapshot: no moment is between the two."""
    there = world.all_snapshots
    rows = [row for row in world.control.inventory()["snapshots"] if row["id"].lower() in there]
    assert len(rows) > len(world.bases)
    for row in rows:
        assert {"vsa-media", "vsa-run", "vsa-job", "vsa-disk"} <= row["tags"].keys(), row


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_a_request_for_a_managed_disk(world: World, moment: str) -> None:
    two_disks(world, MANAGED)
    held = next(iter(world.held().values()))
    kill_while_held_back(world, MOMENTS[moment])
    committed = max(world.media.view().points)
    # The last request of a job, the deletion of the old base, comes after the commit; so does a revocation.
    after = moment == "delete"
    if after:
        world.points[committed] = held
    if moment == "first snapshot":
        require_that_all_are_marked(world)
    require_that_nothing_was_lost(world, points=2 if after else 1)


@pytest.mark.parametrize("moment", VHD_MOMENTS)
def test_killed_in_a_request_for_a_premium_vhd(world: World, moment: str) -> None:
    two_disks(world, PREMIUM_VHD)
    kill_while_held_back(world, VHD_MOMENTS[moment])
    require_that_nothing_was_lost(world, points=1)


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_killed_before_the_commit(world: World, kind: str) -> None:
    two_disks(world, kind)
    kill_at_commit(world, DiesBeforeCommit)
    require_that_nothing_was_lost(world, points=1)


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD, PREMIUM_VHD])
def test_killed_after_the_commit(world: World, kind: str) -> None:
    two_disks(world, kind)
    held = next(iter(world.held().values()))
    kill_at_commit(world, DiesAfterCommit)
    world.points[max(world.media.view().points)] = held
    require_that_nothing_was_lost(world, points=2)
