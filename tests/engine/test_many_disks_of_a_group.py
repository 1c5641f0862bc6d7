"""A job over many disks of one resource group: what it asks of Azure grows with the disks."""

from __future__ import annotations

from tests.engine.story import run_job
from tests.engine.world import EXTENT, PROXIES, World, random_bytes


def lists_of(world: World, since: int) -> int:
    """How often the snapshots of the world's group were listed, from the first page on."""
    return sum(
        row["path"].lower().endswith(f"/{world.group}/providers/microsoft.compute/snapshots")
        and "skiptoken" not in row["query"]
        for row in world.control.requests(since=since)
    )


def test_the_snapshots_of_a_group_are_listed_once_in_a_job_however_many_disks_it_has(world: World) -> None:
    counted = []
    for vms in (1, 4):
        while len(world.vms) < vms:
            number = len(world.vms)
            world.add_vm({f"os{number}": random_bytes(EXTENT, number)})
        world.back_up()
        since = world.control.requests()[-1]["number"]
        world.back_up()
        counted.append(lists_of(world, since))
        world.require_sound()
    assert counted == [1, 1]


def test_the_base_of_a_run_that_committed_meanwhile_goes_although_no_list_shows_it(world: World) -> None:
    """Of two jobs on one disk the one that listed first commits last: its base stays."""
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    world.back_up()
    job = world.job()
    discovery = job.discover()
    disks = job.identify_disks(*job.identify_targets(discovery).vms)
    run = job.new_run(disks)
    (snapshot,) = job.create_snapshots(run)
    other = run_job(world.job()).vms[0]
    assert other.point is not None
    assert len(world.snapshots) == 2
    backup = job.stream(job.order(run, run.disks[0], snapshot, None, PROXIES[0].name))
    assert job.commit(run, [backup]) > other.point
    assert job.release(run) == ()
    assert world.snapshots == {snapshot.id.lower()}
    world.require_no_leftovers()
