"""Jobs that are cancelled, killed, told to stop or out of time in mid-stream: all of them at the same time.

Whatever ends a job, its streams on the proxies end before anything is deleted under them, nothing stays in
Azure, and the next job is a normal one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from flows.sweep_leftovers import sweep_leftovers
from tasks.witness import kept_witness
from tests.azsim_process import AzsimProcess
from tests.flows.fleet import Fleet, cancel_run, child_of, children_of, ended, start_job, state_of
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.running_job import RunningJob, newest_job_of
from tests.flows.site import PROXIES, Site, require_no_read_after_a_delete
from tests.flows.slow import read_slowly, slow_disk
from tests.flows.test_watching import artifacts_of
from tests.soak import only_in_ci
from vsa.media.entries import JobEntry, Result

pytestmark = [only_in_ci, pytest.mark.timeout(1200)]

GRACE_SECONDS = 30
"""Prefect kills a job that has not ended so long after it was cancelled."""
TIMEOUT = 90


@dataclass
class Stopped:
    """A job that was stopped while it read the disks `names`; `reading` are their snapshots at that time."""

    site: Site
    names: tuple[str, ...]
    proxies: tuple[str, ...] = PROXIES
    job: UUID = field(init=False)
    reading: list[dict[str, Any]] = field(init=False)
    state: str = ""
    message: str = ""

    def wait_until_it_reads(self, job: UUID) -> None:
        self.job = job
        for name, proxy in zip(self.names, self.proxies, strict=False):
            child_of(job, name, proxy=proxy)
            wait_for(f"{name} to be read", lambda name=name: self.site.is_being_read(name), seconds=120)
        self.reading = self.site.snapshots

    def has_ended(self) -> None:
        state = ended(self.job)
        self.state, self.message = state.name, str(state.message)


@pytest.fixture(scope="module")
def stopped(
    _fleet: Fleet,
    prefect_server: PrefectServer,
    simulation: AzsimProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Stopped]]:
    """One job for each way to stop one, by that way, when all of them have ended."""
    folder = tmp_path_factory.mktemp("stopped")
    _fleet.make_ready("proxy-a", "proxy-b", "control")
    jobs = {
        way: Stopped(Site(simulation.control, folder), names, proxies)
        for way, names, proxies in (
            ("cancelled", ("web-os", "web-data"), PROXIES),
            ("killed", ("web-os",), ("proxy-b",)),
            ("told", ("web-os",), ("proxy-a",)),
            ("out of time", ("web-os",), ("proxy-b",)),
            ("out of minutes", ("web-os",), ("proxy-a",)),
            ("throttled", ("web-os",), ("proxy-b",)),
        )
    }
    for job in jobs.values():
        job.site.add_vm("web", [slow_disk(name) for name in job.names], scattered=480)
        job.site.save_blocks(proxies=job.proxies)
    by_hand: list[Job] = []
    with read_slowly(simulation.control):
        try:
            _start_and_stop(jobs, _fleet, prefect_server, by_hand)
        finally:
            for process in by_hand:
                process.end()
    yield jobs


class OnDemand(threading.Timer):
    """A timer of a job whose time is up when a test says so."""

    made: ClassVar[list[OnDemand]] = []

    def start(self) -> None:
        self.made.append(self)

    def is_up(self) -> None:
        self.function()


def _start_and_stop(
    jobs: dict[str, Stopped], fleet: Fleet, server: PrefectServer, by_hand: list[Job]
) -> None:
    timed = (
        "import sys; from flows.backup_subclient import backup_subclient as flow; "
        f"flow.with_options(timeout_seconds={TIMEOUT})(sys.argv[1], return_state=True)"
    )
    by_hand.append(_started_by_hand(jobs["out of time"].site, server, sys.executable, "-c", timed))
    jobs["out of time"].wait_until_it_reads(newest_job_of(jobs["out of time"].site))
    by_hand.append(_started_by_hand(jobs["told"].site, server))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.backup_subclient.Timer", OnDemand)
        out_of_minutes = RunningJob(jobs["out of minutes"].site, stop_after_minutes=1)
        jobs["out of minutes"].wait_until_it_reads(out_of_minutes.id)
    of_the_worker = ("cancelled", "killed", "throttled")
    runs = {way: start_job(jobs[way].site).id for way in of_the_worker}
    for way in of_the_worker:
        jobs[way].wait_until_it_reads(runs[way])
    jobs["told"].wait_until_it_reads(newest_job_of(jobs["told"].site))

    process = fleet["control"].process_of(runs["killed"])
    assert process is not None
    os.kill(process, signal.SIGKILL)
    _cancelled_by_command(runs["cancelled"], server)
    _throttle_deletes(jobs["throttled"].site)
    cancel_run(runs["throttled"])
    by_hand[1].send(signal.SIGTERM)
    OnDemand.made.pop().is_up()
    for way in WAYS:
        jobs[way].has_ended()
    assert by_hand[1].wait() != 0
    for job in jobs.values():
        wait_for("the end of its cleanup", lambda job=job: job.site.reports, seconds=120, every=0.5)


def _throttle_deletes(site: Site) -> None:
    """Azure deletes no snapshot of the site's disk, and wishes not to be asked again for ten minutes."""
    path = site.snapshots_path("web-os")
    site.control.add_fault(
        "status", plane="arm", method="DELETE", path=path, status=429, retry_after=600, times=None
    )


def _cancelled_by_command(flow_run: UUID, server: PrefectServer) -> None:
    subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "cancel", str(flow_run)],
        env=dict(server.environment()),
        check=True,
        capture_output=True,
    )


def _started_by_hand(site: Site, server: PrefectServer, *program: str) -> Job:
    return Job(site, server, program=program, with_server=True, in_process=False)


WAYS = ("cancelled", "killed", "told", "out of time", "out of minutes")


def test_each_ends_in_its_own_state(stopped: dict[str, Stopped]) -> None:
    states = {way: stopped[way].state for way in WAYS}
    assert states == {
        "cancelled": "Cancelled",
        "killed": "Crashed",
        "told": "Crashed",
        "out of time": "TimedOut",
        "out of minutes": "Failed",
    }
    assert "web: VM web gets no recovery point: disk web-os: the job was told to stop" in (
        stopped["out of minutes"].message
    )


def test_a_cancelled_job_ends_in_good_order_within_the_grace_of_prefect(stopped: dict[str, Stopped]) -> None:
    job = stopped["cancelled"]
    report = its_own_report(job)
    with get_client(sync_client=True) as client:
        asked = [state.timestamp for state in client.read_flow_run_states(job.job) if state.is_cancelling()]
    assert (report.ended_at - asked[0]).total_seconds() < GRACE_SECONDS


def its_own_report(job: Stopped) -> JobEntry:
    """What a job writes that ends by itself, and one that was killed cannot."""
    (report,) = job.site.reports
    assert TOLD in report.vms[0].error
    return report


TOLD = "the job was told to stop"
REASONS = {
    "cancelled": (TOLD,),
    "killed": ("the job's process ended before the job did: Crashed",),
    "told": (TOLD,),
    "out of time": (TOLD, "the job was cut short: its flow ran out of time"),
    "out of minutes": (TOLD,),
}


@pytest.mark.parametrize("way", WAYS)
def test_its_flow_run_has_its_report_with_the_reason_and_prefect_its_witness(
    stopped: dict[str, Stopped], way: str
) -> None:
    job = stopped[way]
    # What the job was too slow for may come after the hook's: versions of one another.
    summary, *_ = wait_for(
        "the summary", lambda: artifacts_of(job.job, "markdown") or None, seconds=120, every=0.5
    )
    table, *_ = artifacts_of(job.job, "table")
    assert (summary.key, table.key) == (f"backup-{job.site.name}", f"backup-{job.site.name}-disks")
    assert str(summary.data).startswith(f"# {job.site.name}: failed\n")
    for reason in REASONS[way]:
        assert reason in str(summary.data)
    wait_for("the witness", lambda: kept_witness(job.site.media) == job.site.media.view().witness)


@pytest.mark.parametrize("way", WAYS)
def test_its_streams_have_ended_before_anything_is_deleted(stopped: dict[str, Stopped], way: str) -> None:
    job = stopped[way]
    children = children_of(job.job)
    assert {child.state.name for child in children if child.state} == {"Cancelled"}
    require_no_read_after_a_delete(job.site.control.requests(), job.reading)


@pytest.mark.parametrize("way", WAYS)
def test_it_leaves_nothing_and_the_next_job_is_normal(
    fleet: Fleet, stopped: dict[str, Stopped], way: str
) -> None:
    site = stopped[way].site
    assert site.snapshots == []
    assert not site.media.view().points
    assert [report.result for report in site.reports] == [Result.FAILED]

    # On the proxies once: the other sites name one proxy each, and that is shown elsewhere.
    assert site.back_up(in_process=way != "cancelled").name == "Completed"

    site.require_restorable(site.points_of("web")[0])
    site.require_only_bases()


def test_what_a_cancelled_job_cannot_clean_up_within_the_grace_the_sweep_does(
    fleet: Fleet, stopped: dict[str, Stopped]
) -> None:
    """It has written its report, so nobody had to kill it. Meanwhile its hook waits for as long as Azure
    wished."""
    job = stopped["throttled"]
    site = job.site
    report = its_own_report(job)
    assert any("there was no time left for it, the next job or sweep does it" in it for it in report.alarms)
    assert [row["id"] for row in site.snapshots] == [row["id"] for row in job.reading]
    assert state_of(job.job).is_cancelling()
    require_no_read_after_a_delete(site.control.requests(), job.reading)

    site.control.clear_faults()
    swept = sweep_leftovers(media=site.name, subscription=site.name, return_state=True)
    assert swept.name == "Completed", swept.message
    assert site.snapshots == []
    assert site.back_up().name == "Completed"
    site.require_restorable(site.points_of("web")[0])
    site.require_only_bases()


def test_orphans_of_killed_jobs_end_once_the_next_job_or_the_sweep_cleans_up(
    fleet: Fleet, sites: list[Site], prefect_server: PrefectServer
) -> None:
    """Jobs that were started by hand have no worker to say that they died: for Prefect they run on."""
    repeated, given_up, _ = sites
    killed = {}
    for site in (repeated, given_up):
        site.add_vm("web", [slow_disk("web-os")], scattered=480)
        site.save_blocks()
    with read_slowly(repeated.control):
        processes = [_started_by_hand(site, prefect_server) for site in (repeated, given_up)]
        try:
            for site in (repeated, given_up):
                killed[site.name] = Stopped(site, ("web-os",))
                killed[site.name].wait_until_it_reads(newest_job_of(site))
        finally:
            for process in processes:
                process.end()
        orphans = {site.name: children_of(killed[site.name].job) for site in (repeated, given_up)}
        following = RunningJob(repeated)
        swept = sweep_leftovers(media=given_up.name, subscription=given_up.name, return_state=True)
        ends = {name: [ended(orphan.id) for orphan in runs] for name, runs in orphans.items()}

    for site in (repeated, given_up):
        assert [end.name for end in ends[site.name]] == ["Cancelled"]
    state = following.ended()
    assert state.name == "Completed", state.message
    for site in (repeated, given_up):
        require_no_read_after_a_delete(site.control.requests(), killed[site.name].reading)
    assert not {row["id"] for row in killed[repeated.name].reading} & {
        row["id"] for row in repeated.snapshots
    }
    repeated.require_restorable(repeated.points_of("web")[0])
    repeated.require_only_bases()

    assert swept.name == "Completed", swept.message
    assert given_up.snapshots == []
    assert not given_up.media.view().points
