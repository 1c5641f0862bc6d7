"""A Prefect server that is away for half a minute while streams move data."""

from __future__ import annotations

import time

import pytest

from tests.flows.fleet import Fleet, child_of, pools_of
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.running_job import RunningJob
from tests.flows.site import Site, managed
from tests.flows.slow import read_slowly, slow_disk
from tests.soak import only_in_ci

OUTAGE_SECONDS = 30


@only_in_ci
@pytest.mark.timeout(900)
def test_a_job_outlives_an_outage_of_its_server(
    fleet: Fleet, site: Site, prefect_server: PrefectServer
) -> None:
    """One stream ends while the server is away, and another one can begin only when it is back."""
    site.add_vm("db", [slow_disk("db-os")], scattered=96)
    site.add_vm("web", [slow_disk("web-os")], scattered=96)
    site.add_vm("zoo", [managed("zoo-os"), managed("zoo-data")])
    site.save_blocks(streams_per_proxy=1)
    with read_slowly(site.control):
        job = RunningJob(site)
        for disk, proxy in (("db-os", "proxy-a"), ("web-os", "proxy-b")):
            child_of(job.id, disk, proxy=proxy)
            wait_for("the disk to be read", lambda disk=disk: site.is_being_read(disk), seconds=60)
        began = len(job.children)
        prefect_server.stop()
    try:
        time.sleep(OUTAGE_SECONDS)
        assert job.runs
        assert not site.points_of("db"), "the job cannot know yet that a stream has ended"
    finally:
        prefect_server.start()
    state = job.ended()

    assert state.name == "Completed", state.message
    assert began < len(job.children)
    assert set(pools_of(job.children)) >= {"db-os", "web-os"}
    for vm in ("db", "web", "zoo"):
        (slot,) = site.points_of(vm)
        site.require_restorable(slot)
    site.require_only_bases()
    fleet.make_ready()
    assert site.back_up().name == "Completed"
    site.require_only_bases()
