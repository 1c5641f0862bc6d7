"""Proxies that die, freeze or are paused while streams are theirs: what goes on, what moves, what is said."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import time
from collections.abc import Iterator

import pytest

from blocks.proxy import BackupProxy
from tests.flows.fleet import Fleet, child_of, children_of, pool_changed, pools_of, state_of
from tests.flows.prefect_server import wait_for
from tests.flows.running_job import RunningJob
from tests.flows.site import Site, managed
from tests.flows.slow import read_slowly, slow_disk
from tests.flows.worker import MISSED_SECONDS
from tests.soak import only_in_ci
from vsa.media.entries import JobEntry

pytestmark = [only_in_ci, pytest.mark.timeout(1200)]


def refusal_of(report: JobEntry, proxy: str) -> str:
    """Why the job did not use the proxy; empty if it did not say so."""
    return next((item.reason for item in report.excluded if item.name == proxy), "")


@contextlib.contextmanager
def starting_within(proxy: str, *, seconds: int) -> Iterator[None]:
    """Jobs that begin in the block give the proxy so long to start a stream."""
    BackupProxy(proxy_name=proxy, region="westeurope", start_seconds=seconds).save(proxy, overwrite=True)
    try:
        yield
    finally:
        BackupProxy(proxy_name=proxy, region="westeurope").save(proxy, overwrite=True)


def test_streams_outlive_their_worker_and_move_when_their_machine_dies(
    fleet: Fleet, sites: list[Site]
) -> None:
    """One machine's worker is killed: of its two streams one lives on, the other one is killed with it."""
    lives, dies, _ = sites
    for site in (lives, dies):
        site.add_vm("web", [slow_disk("web-os"), slow_disk("web-data")], scattered=96)
        site.save_blocks()
    with read_slowly(lives.control):
        jobs = {site.name: RunningJob(site) for site in (lives, dies)}
        children = {
            site.name: child_of(jobs[site.name].id, "web-os", proxy="proxy-a") for site in (lives, dies)
        }
        for site in (lives, dies):
            wait_for("the disk to be read", lambda site=site: site.is_being_read("web-os"), seconds=60)
        process = fleet["proxy-a"].process_of(children[dies.name].id)
        assert process is not None
        fleet["proxy-a"].kill()
        killed = time.monotonic()
        os.kill(process, signal.SIGKILL)

    state = jobs[lives.name].ended()
    assert state.name == "Completed", state.message
    assert pools_of(jobs[lives.name].children) == {"web-os": "proxy-a", "web-data": "proxy-b"}
    assert len(jobs[lives.name].children) == 2
    lives.require_only_bases()

    # The server misses the worker's heartbeats first, and then those of the stream that died with it.
    wait_for(
        "the worker to be missed",
        lambda: time.monotonic() - killed > MISSED_SECONDS and fleet.refusals["proxy-a"],
        seconds=120,
        every=0.5,
    )
    following = RunningJob(lives)
    assert following.ended().name == "Completed"
    assert pools_of(following.children) == {"web-os": "proxy-b", "web-data": "proxy-b"}
    refusal = refusal_of(lives.reports[-1], "proxy-a")
    assert refusal.startswith("work pool proxy-a has no worker online: "), refusal
    lives.require_restorable(lives.points_of("web")[-1])
    lives.require_only_bases()

    state = jobs[dies.name].ended()
    assert state.name == "Completed", state.message
    crashed = state_of(children[dies.name].id)
    assert (crashed.name, str(crashed.message)[:21]) == ("Crashed", "its heartbeat stopped")
    assert pools_of(jobs[dies.name].children) == {"web-os": "proxy-b", "web-data": "proxy-b"}
    dies.require_restorable(dies.points_of("web")[0])
    dies.require_only_bases()
    assert dies.back_up(in_process=False).name == "Completed"
    dies.require_only_bases()


def test_a_stream_waits_for_its_turn_in_a_full_pool_and_moves_once_the_pool_is_paused(
    fleet: Fleet, sites: list[Site]
) -> None:
    reads, waits, _ = sites
    reads.add_vm("db", [slow_disk("db-os")], scattered=400)
    waits.add_vm("web", [managed("web-os")])
    for site in (reads, waits):
        site.save_blocks()
    with read_slowly(reads.control), pool_changed("proxy-a", concurrency_limit=1):
        reading = RunningJob(reads)
        child_of(reading.id, "db-os", proxy="proxy-a")
        patience = 4
        with starting_within("proxy-a", seconds=patience):
            waiting = RunningJob(waits)
            child = child_of(waiting.id, "web-os", proxy="proxy-a", reading=False)
            wait_for(
                "more than the proxy has time to start",
                lambda: dt.datetime.now(dt.UTC) - child.created > 3 * dt.timedelta(seconds=patience),
                seconds=60,
            )
        assert state_of(child.id).is_scheduled(), (
            "others' streams are before it, that is no fault of the proxy"
        )
        assert len(children_of(waiting.id)) == 1

        with pool_changed("proxy-a", is_paused=True):
            state = waiting.ended()
            assert state.name == "Completed", state.message
            assert state_of(child.id).name == "Cancelled"
            assert pools_of(waiting.children) == {"web-os": "proxy-b"}
            waits.require_only_bases()

            following = RunningJob(waits)
            assert following.ended().name == "Completed"
            assert pools_of(following.children) == {"web-os": "proxy-b"}
            refusal = refusal_of(waits.reports[-1], "proxy-a")
            assert refusal == "work pool proxy-a is paused: prefect work-pool resume proxy-a"
            waits.require_restorable(waits.points_of("web")[-1])
            waits.require_only_bases()
            assert reading.runs, "a pause is for streams that have not begun"

    assert reading.ended().name == "Completed"
    assert pools_of(reading.children) == {"db-os": "proxy-a"}
    reads.require_only_bases()


def test_a_stream_that_a_frozen_worker_does_not_start_moves(fleet: Fleet, site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    fleet["proxy-a"].freeze()
    try:
        with starting_within("proxy-a", seconds=5):
            job = RunningJob(site)
            state = job.ended()
    finally:
        fleet["proxy-a"].thaw()

    assert state.name == "Completed", state.message
    first, second = job.children
    assert (first.work_pool_name, second.work_pool_name) == ("proxy-a", "proxy-b")
    assert state_of(first.id).name == "Cancelled", "nobody is to start it later"
    assert state_of(second.id).name == "Completed"
    site.require_restorable(site.points_of("web")[0])
    site.require_only_bases()
