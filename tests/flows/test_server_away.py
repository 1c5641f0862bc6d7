"""A Prefect server that is away for half a minute while streams move data."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from tests.flows.fleet import Fleet, pools_of
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.running_job import RunningJob
from tests.flows.site import Site
from tests.flows.slow import read_slowly, slow_disk
from tests.soak import only_in_ci

OUTAGE_SECONDS = 30


def read_of(site: Site, vms: Iterable[str], seen: set[str]) -> set[str]:
    """Those whose disks have been read, also at an earlier look; whichever they are."""
    seen.update(vm for vm in vms if site.is_being_read(f"{vm}-os"))
    return seen


@only_in_ci
@pytest.mark.timeout(900)
def test_a_job_outlives_an_outage_of_its_server(
    fleet: Fleet, site: Site, prefect_server: PrefectServer
) -> None:
    """Streams end while the server is away, and another one can begin only when it is back."""
    vms = ("db", "web", "zoo")
    for vm in vms:
        site.add_vm(vm, [slow_disk(f"{vm}-os")], scattered=96)
    site.save_blocks(streams_per_proxy=1)
    seen: set[str] = set()
    with read_slowly(site.control):
        job = RunningJob(site)
        wait_for("two disks to be read", lambda: len(read_of(site, vms, seen)) == 2, seconds=120)
        began = len(job.children)
        prefect_server.stop()
    try:
        time.sleep(OUTAGE_SECONDS)
        assert job.runs
        assert not site.media.view().points, "the job cannot know yet that a stream has ended"
    finally:
        prefect_server.start()
    state = job.ended()

    assert state.name == "Completed", state.message
    assert began == 2 < len(job.children)
    assert set(pools_of(job.children)) == {f"{vm}-os" for vm in vms}
    for vm in vms:
        (slot,) = site.points_of(vm)
        site.require_restorable(slot)
    site.require_only_bases()
    fleet.make_ready()
    assert site.back_up(in_process=False).name == "Completed"
    site.require_only_bases()
