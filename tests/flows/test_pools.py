"""Which proxies are usable by what a real Prefect server knows of their pools, workers and deployments."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import Worker, WorkerStatus
from prefect.states import Pending, Running, Scheduled

from deployments.register import register_automations
from tasks.pools import (
    LOST_HEARTBEAT,
    seen_by_prefect,
    waits_its_turn,
    warn_unless_deaths_are_noticed,
)
from tests.flows.prefect_server import ROOT, PrefectServer, wait_for
from tests.flows.station import Station
from tests.soak import only_in_ci
from vsa.transfer.proxies import Proxy


@pytest.fixture(scope="module")
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def a_station(client: SyncPrefectClient) -> Iterator[Callable[[], Station]]:
    """Makes stations, and takes away what other tests would find of them."""
    made: list[Station] = []

    def make() -> Station:
        made.append(Station(client))
        return made[-1]

    yield make
    for station in made:
        # Its deployments stay, without a pool.
        client.delete_work_pool(station.proxy.pool)


@pytest.fixture
def station(a_station: Callable[[], Station]) -> Station:
    """One that can serve."""
    made = a_station()
    made.deploy()
    made.beat()
    return made


def test_a_proxy_with_pool_worker_and_deployment_is_usable(station: Station) -> None:
    assert station.refusal == ""


def test_a_proxy_that_was_never_registered_is_refused_with_the_command_that_does(
    client: SyncPrefectClient,
) -> None:
    (seen,) = seen_by_prefect([Proxy(name="Nobody", pool="nobody")])
    assert seen.refusal == "there is no work pool nobody: run python -m deployments.register"


def test_a_refusal_that_is_known_stays(station: Station) -> None:
    known = station.proxy.model_copy(update={"refusal": "it is paused"})
    assert seen_by_prefect([known]) == [known]


def test_a_paused_pool_is_refused_until_it_is_resumed(station: Station) -> None:
    station.change_pool(is_paused=True)
    station.beat()
    assert station.refusal == (
        f"work pool {station.proxy.pool} is paused: prefect work-pool resume {station.proxy.pool}"
    )
    station.change_pool(is_paused=False)
    assert station.refusal == ""


def test_a_pool_or_queue_that_lets_nothing_run_is_refused(station: Station) -> None:
    station.change_pool(concurrency_limit=0)
    assert "has a concurrency limit of 0" in station.refusal
    station.change_pool(concurrency_limit=4)
    queue = station.client.read_deployment(station.deployment).work_queue_id
    assert queue is not None
    station.client.update_work_queue(queue, is_paused=True)
    pool = station.proxy.pool
    assert station.refusal == (
        f"work queue default of work pool {pool} is paused: prefect work-queue resume default --pool {pool}"
    )


def test_a_pool_of_another_type_is_refused(client: SyncPrefectClient, station: Station) -> None:
    client.delete_work_pool(station.proxy.pool)
    station.make_pool("docker")
    station.deploy()
    station.beat()
    assert "is of type docker, expected process: delete it" in station.refusal


def test_everything_that_keeps_a_proxy_from_serving_is_told_at_once(
    a_station: Callable[[], Station],
) -> None:
    station = a_station()
    station.change_pool(is_paused=True)
    name, pool = station.proxy.name, station.proxy.pool
    assert station.refusal == ", and ".join(
        [
            f"work pool {pool} is paused: prefect work-pool resume {pool}",
            f"work pool {pool} has never had a worker: on the proxy, python -m deployments.worker {pool}",
            f"there is no deployment stream-disk/{name}: run python -m deployments.register",
        ]
    )


def test_a_deployment_that_is_paused_or_in_another_pool_is_refused(
    client: SyncPrefectClient, station: Station, a_station: Callable[[], Station]
) -> None:
    client.update_deployment(station.deployment, DeploymentUpdate(paused=True))
    assert f"deployment stream-disk/{station.proxy.name} is paused" in station.refusal
    elsewhere = a_station()
    elsewhere.deploy(station.proxy.pool)
    elsewhere.beat()
    assert elsewhere.refusal == (
        f"deployment stream-disk/{elsewhere.proxy.name} runs in work pool {station.proxy.pool}, "
        f"expected {elsewhere.proxy.pool}: run python -m deployments.register"
    )


def test_a_worker_is_offline_after_three_heartbeats_of_its_own_interval(
    prefect_server: PrefectServer, station: Station
) -> None:
    """Also while the server, which looks every 15 s, still calls it online."""
    station.beat(every=600)
    note_worker(prefect_server, station.worker(), ago(minutes=29), status="ONLINE")
    assert station.refusal == ""
    heard = ago(minutes=30, seconds=20)
    note_worker(prefect_server, station.worker(), heard, status="ONLINE")
    assert station.refusal == (
        f"work pool {station.proxy.pool} has no worker online: worker was last heard of 30 minutes ago, "
        f"at {heard:%Y-%m-%d %H:%M:%S} UTC, expected every 600 s"
    )
    station.beat("another", every=None)
    assert station.refusal == ""


def test_a_worker_that_the_server_calls_offline_is_refused_whatever_the_clocks_say(
    prefect_server: PrefectServer, station: Station
) -> None:
    note_worker(prefect_server, station.worker(), ago(seconds=1), status="OFFLINE")
    assert "has no worker online: worker was last heard of " in station.refusal


def test_the_one_worker_online_is_found_behind_those_heard_of_later(
    prefect_server: PrefectServer, client: SyncPrefectClient, station: Station
) -> None:
    """Each start of a worker leaves a row; one that beats every ten minutes is older than many that ended."""
    station.beat(every=600)
    living = station.worker()
    note_worker(prefect_server, living, ago(minutes=9), status="ONLINE")
    copy_worker(prefect_server, living, 120, ago(minutes=4), status="OFFLINE")
    assert station.worker().status is WorkerStatus.OFFLINE
    assert station.refusal == ""


def ago(**given: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(**given)


def note_worker(server: PrefectServer, worker: Worker, heard: dt.datetime, *, status: str) -> None:
    """What the server would have noted of the worker, so that no test waits for missed heartbeats."""
    with _sqlite_of(server) as database, database:
        changed = database.execute(
            "update worker set status = ?, last_heartbeat_time = ? where replace(id, '-', '') = ?",
            (status, f"{heard:%Y-%m-%d %H:%M:%S.%f}", worker.id.hex),
        )
        assert changed.rowcount == 1


def _sqlite_of(server: PrefectServer) -> contextlib.closing[sqlite3.Connection]:
    if not server.is_on_sqlite:
        pytest.skip("the server's database is not SQLite")
    return contextlib.closing(sqlite3.connect(server.database, timeout=60))


def copy_worker(
    server: PrefectServer, worker: Worker, copies: int, heard: dt.datetime, *, status: str
) -> None:
    """So many more workers of the same pool."""
    with _sqlite_of(server) as database, database:
        for number in range(copies):
            database.execute(
                "insert into worker"
                " (name, work_pool_id, heartbeat_interval_seconds, status, last_heartbeat_time)"
                " select ?, work_pool_id, 30, ?, ? from worker where replace(id, '-', '') = ?",
                (f"ended-{number}", status, f"{heard:%Y-%m-%d %H:%M:%S.%f}", worker.id.hex),
            )


def test_a_run_waits_its_turn_while_the_pool_or_the_queue_has_its_limit_pending_or_running(
    client: SyncPrefectClient, station: Station
) -> None:
    runs = [station.run() for _ in range(3)]
    queue = client.read_deployment(station.deployment).work_queue_id
    assert queue is not None

    def waits() -> bool:
        state = client.read_flow_run(runs[2].id).state
        assert state is not None
        return waits_its_turn(station.proxy, state)

    assert not waits()
    station.change_pool(concurrency_limit=2)
    assert not waits()
    client.set_flow_run_state(runs[0].id, Pending(), force=True)
    assert not waits()
    client.set_flow_run_state(runs[1].id, Running(), force=True)
    assert waits()
    station.change_pool(concurrency_limit=3)
    assert not waits()
    client.update_work_queue(queue, concurrency_limit=2)
    assert waits()
    client.update_work_queue(queue, concurrency_limit=3)
    assert not waits()
    for run in runs:
        client.delete_flow_run(run.id)


def test_a_run_waits_its_turn_that_the_limit_of_its_deployment_holds_back(
    client: SyncPrefectClient, station: Station
) -> None:
    client.update_deployment(station.deployment, DeploymentUpdate(concurrency_limit=1))
    first, second = station.run(), station.run()
    for run in (first, second):
        client.set_flow_run_state(run.id, Pending())
    held_back = client.read_flow_run(second.id).state
    assert held_back is not None
    assert held_back.is_scheduled()
    assert waits_its_turn(station.proxy, held_back)
    for run in (first, second):
        client.delete_flow_run(run.id)


def test_nothing_waits_its_turn_in_a_pool_or_deployment_that_is_gone(
    a_station: Callable[[], Station],
) -> None:
    assert not waits_its_turn(Proxy(name="Nobody", pool="nobody"), Scheduled())
    assert not waits_its_turn(a_station().proxy, Scheduled())


@only_in_ci
def test_a_killed_worker_is_refused_once_its_heartbeats_are_missed(
    prefect_server: PrefectServer, a_station: Callable[[], Station]
) -> None:
    station = a_station()
    station.deploy()
    log = prefect_server.home / f"{station.proxy.pool}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", station.proxy.pool],
            env=dict(prefect_server.environment(PREFECT_WORKER_HEARTBEAT_SECONDS="4")),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for("the worker to be online", lambda: not station.refusal, seconds=120)
        first = station.worker().last_heartbeat_time
        wait_for("another heartbeat", lambda: station.worker().last_heartbeat_time != first)
        os.kill(process.pid, signal.SIGKILL)
        refusal = wait_for("the worker to be refused", lambda: station.refusal or None)
    finally:
        process.kill()
        process.wait()
    assert "has no worker online: ProcessWorker " in refusal
    assert refusal.endswith(" UTC, expected every 4 s")


def test_a_job_says_if_nobody_would_notice_that_a_machine_died(caplog: pytest.LogCaptureFixture) -> None:
    with get_client(sync_client=True) as client:
        for _ in register_automations(client):
            pass
        warn_unless_deaths_are_noticed()
        assert caplog.messages == []
        (automation,) = client.read_automations_by_name(LOST_HEARTBEAT)
        client.pause_automation(automation.id)
        try:
            warn_unless_deaths_are_noticed()
        finally:
            client.resume_automation(automation.id)
    (said,) = [message for message in caplog.messages if LOST_HEARTBEAT in message]
    assert "python -m deployments.register" in said
