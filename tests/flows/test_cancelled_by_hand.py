"""A job that somebody started by hand and somebody else cancels in the dashboard: no worker tells it."""

from __future__ import annotations

import pytest

from tests.flows.fleet import cancel_run, state_of
from tests.flows.prefect_server import wait_for
from tests.flows.running_job import RunningJob
from tests.flows.site import Site
from tests.flows.slow import read_slowly, slow_disk
from tests.soak import only_in_ci


@only_in_ci
@pytest.mark.timeout(300)
def test_it_stops_leaves_nothing_and_is_cancelled(site: Site) -> None:
    site.add_vm("web", [slow_disk("web-os")], scattered=96)
    site.save_blocks()
    with read_slowly(site.control):
        running = RunningJob(site, in_process=True)
        job = running.id
        wait_for("the disk to be read", lambda: site.is_being_read("web-os"), seconds=60)
        cancel_run(job)
        running.ended()
    assert state_of(job).name == "Cancelled"
    (report,) = site.reports
    assert "the job was told to stop" in report.vms[0].error
    assert (site.points_of("web"), site.snapshots) == ([], [])
