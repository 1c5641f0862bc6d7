"""Azure lets five snapshots of a disk be read at a time: what dead runs of ours left open does not count."""

from __future__ import annotations

import os

import pytest

from tests.engine.canaries import Canaries
from tests.engine.job_process import in_another_process
from tests.engine.world import MIB, World, random_bytes
from vsa.azure.grants import Grants
from vsa.model import Reason
from vsa.stop import Stop
from vsa.transfer import runs
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.environment import RunEnvironment


def leave_four_open(job: BackupJob) -> None:
    """Four runs that are killed while they read, none of which was cleared up by the next."""
    env = RunEnvironment(job.connection, job.media, job.stop)
    disks = job.identify_disks(job.discover().selected[0])
    for _ in range(4):
        run = job.new_run(disks)
        runs.begin(run, env)
        (snapshot,) = runs.create_snapshots(run, env)
        Grants(job.connection, guard=lambda: None, stop=Stop()).snapshot(snapshot)
    os._exit(0)


def open_grants(world: World) -> int:
    return sum(row["grant_open"] for row in world.control.inventory()["snapshots"])


@pytest.mark.parametrize("when", ["before the job", "after its snapshot"])
def test_four_grants_that_dead_runs_left_do_not_keep_a_job_from_reading(world: World, when: str) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (backup,) = world.media.view().points[min(world.points)].point.disks
    canaries = Canaries(world, backup.disk, "c" * 16)
    job = world.job()
    disks = job.identify_disks(job.discover().selected[0])
    run = job.new_run(disks)
    if when == "before the job":
        in_another_process(world, leave_four_open).join()
        (snapshot,) = job.create_snapshots(run)
    else:
        (snapshot,) = job.create_snapshots(run)
        in_another_process(world, leave_four_open).join()
    assert open_grants(world) == (0 if when == "before the job" else 4)
    assert job.stream(job.order(run, disks.disks[0], snapshot, None, "proxy-a")).reason is Reason.CBT
    assert len(world.media.view().fenced) == 4
    job.release(run)
    assert open_grants(world) == 0
    canaries.require_alone(*world.bases)
