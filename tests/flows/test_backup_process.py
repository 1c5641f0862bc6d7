"""`python -m flows.backup_subclient`, with and without a server: what it answers, and being stopped."""

from __future__ import annotations

import datetime as dt
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.azsim_process import AzsimProcess
from tests.engine.world import MIB
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.site import Site, managed
from tests.soak import only_in_ci
from vsa.media.entries import Result


@pytest.fixture
def sites(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[list[Site]]:
    """Two sites whose jobs can run at the same time."""
    yield [Site(simulation.control, tmp_path) for _ in range(2)]
    simulation.control.clear_faults()


def test_exit_codes_and_words_of_jobs(sites: list[Site], prefect_server: PrefectServer) -> None:
    """Exit code 3, completed with errors, is seen in test_secrets, in a job without a server."""
    good, bad = sites
    good.add_vm("web", [managed("web-os")])
    for site in sites:
        site.save_blocks()
    jobs = [Job(site, prefect_server, with_server=True) for site in sites]
    try:
        codes = [job.wait() for job in jobs]
    finally:
        for job in jobs:
            job.end()

    assert codes == [0, 1], "\n".join(job.logged[-3000:] for job in jobs)
    assert jobs[0].printed == "Completed: 1 of 1 VMs have a recovery point.\n"
    assert jobs[1].printed.startswith("Failed: 0 of 0 VMs have a recovery point.\nsubclient ")
    assert f"subclient {bad.name} selects no VM" in jobs[1].printed
    assert "disk web-os via proxy-a: full (FULL_FIRST)" in jobs[0].logged
    for job in jobs:
        job.site.require_only_bases()
        assert list(job.scratch.glob("vsa-*")) == []


def test_a_preview_says_what_is_selected_and_touches_nothing(
    site: Site, prefect_server: PrefectServer
) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    job = Job(site, prefect_server, "--preview", with_server=True)
    try:
        code = job.wait()
    finally:
        job.end()

    assert code == 0, job.logged[-3000:]
    assert re.search(r"^in   \S*web\S*: ", job.printed, re.MULTILINE)
    assert "in   disk web-os" in job.printed
    view = site.media.view()
    assert (view.head, site.snapshots, list(job.scratch.iterdir())) == (0, [], [])


def started_reading(
    site: Site, server: PrefectServer, *, with_server: bool, program: Sequence[str] = ()
) -> Job:
    """A job in the middle of its streams: nine of 32 reads were asked for, and each takes a second."""
    site.add_vm("web", [managed("web-os", size=64 * MIB), managed("web-data", size=64 * MIB)])
    site.save_blocks()
    slow = site.control.add_fault("delay", seconds=1, plane="blob", header="x-ms-range", times=None)
    job = Job(site, server, with_server=with_server, program=program)
    try:
        wait_for("the job to read", lambda: job.lives() and site.control.fired(slow) >= 9, seconds=90)
    except BaseException:
        job.end()
        raise
    return job


def test_a_job_that_is_told_to_stop_cleans_up_and_the_next_is_normal(
    site: Site, prefect_server: PrefectServer
) -> None:
    job = started_reading(site, prefect_server, with_server=False)
    try:
        assert len(site.snapshots) == 2
        job.send(signal.SIGTERM)
        assert job.wait() != 0
    finally:
        job.end()

    assert site.snapshots == [], job.logged[-3000:]
    assert not site.media.view().points
    (report,) = site.reports
    assert report.result is Result.FAILED
    assert "the job was told to stop" in report.vms[0].error
    assert list(job.scratch.glob("vsa-*")) == []

    site.control.clear_faults()
    assert site.back_up().name == "Completed"
    site.require_only_bases()


@only_in_ci
def test_a_job_that_is_told_again_while_it_cleans_up_does_so_and_reports(
    site: Site, prefect_server: PrefectServer
) -> None:
    job = started_reading(site, prefect_server, with_server=True)
    deletes = site.control.add_fault(
        "delay", seconds=3, method="DELETE", path=f"/{site.group}/.*/snapshots/", times=None
    )
    told_at = dt.datetime.now(dt.UTC)
    try:
        job.send(signal.SIGTERM)
        wait_for("the first delete", lambda: site.control.fired(deletes) > 0)
        job.send(signal.SIGTERM)
        assert job.wait() != 0
    finally:
        job.end()
    assert site.snapshots == [], job.logged[-3000:]
    (report,) = site.reports
    assert report.alarms == ("the job's process ended before the job did: Crashed",)
    assert report.started_at < told_at < report.ended_at
    site.control.clear_faults()

    assert site.back_up().name == "Completed"
    site.require_only_bases()
    site.require_restorable(site.points_of("web")[0])


def test_a_job_that_is_killed_leaves_nothing_to_the_next(site: Site, prefect_server: PrefectServer) -> None:
    job = started_reading(site, prefect_server, with_server=True)
    try:
        job.send(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL
    finally:
        job.end()
    left = {row["id"] for row in site.snapshots}
    assert len(left) == 2
    assert not site.media.view().points
    site.control.clear_faults()

    assert site.back_up().name == "Completed"

    assert not left & {row["id"] for row in site.snapshots}
    site.require_only_bases()
    site.require_restorable(site.points_of("web")[0])
