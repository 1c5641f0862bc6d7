"""Which proxies Prefect can reach now: their work pools, workers and deployments. Everything here only reads.

Prefect knows that a worker has ended only by heartbeats that do not come, also if it ended in good order. A
proxy may therefore be taken for usable for a minute and a half too long: its streams do not begin, and move.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from itertools import count

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, Worker, WorkerStatus, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from vsa.text import age_text
from vsa.transfer.proxies import Proxy

STREAM_FLOW = "stream-disk"
AWAITING_SLOT = "AwaitingConcurrencySlot"
"""Prefect's name for the state of a run that its deployment's limit holds back; the type is Scheduled."""
LOST_HEARTBEAT = "azure-vsa: runs whose heartbeat stopped"
"""The automation that says of runs on a machine that died that they have crashed."""

# Prefect 3.8's own rule, in the server's settings `services.foreman`: a worker is offline after three
# intervals without a heartbeat, of 30 s if it did not say how long they are.
_MISSED_HEARTBEATS = 3
_HEARTBEAT_SECONDS = 30

_PAGE = 100
_log = logging.getLogger(__name__)
_REGISTER = "run python -m deployments.register"


def seen_by_prefect(proxies: Sequence[Proxy]) -> list[Proxy]:
    """The same proxies, each with everything that keeps it from serving now as its refusal.

    A refusal that is there stays as it is. At most a few calls for each proxy; raises what Prefect's client
    raises when the server does not answer.
    """
    with get_client(sync_client=True) as client:
        now = _time_of_server(client)
        return [proxy if proxy.refusal else _seen(client, proxy, now) for proxy in proxies]


def warn_unless_deaths_are_noticed() -> None:
    """Say so if nothing tells when a proxy's machine dies: a job would wait for its streams without end."""
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(LOST_HEARTBEAT)
    if not any(automation.enabled for automation in found):
        _log.warning(
            "the automation %r is missing or disabled: if a proxy dies, its streams are waited for until "
            "somebody cancels them; %s",
            LOST_HEARTBEAT,
            _REGISTER,
        )


def waits_its_turn(proxy: Proxy, state: State) -> bool:
    """Whether a run of the proxy's streams that is in this state has not begun because others are before it.

    As many runs are pending or running then as a limit allows: of the work pool, of the work queue, or of the
    deployment. Such a stream has not failed. What is gone holds nobody up.
    """
    if state.name == AWAITING_SLOT:
        return True
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(proxy.pool)
            deployment = client.read_deployment_by_name(f"{STREAM_FLOW}/{proxy.name}")
            queue = client.read_work_queue(deployment.work_queue_id) if deployment.work_queue_id else None
        # A proxy's name with a slash in it cannot be the name of a deployment.
        except (ObjectNotFound, ValueError):
            return False
    return any(_is_full(place.concurrency_limit, place.active_slots) for place in (pool, queue) if place)


def _is_full(limit: int | None, taken: int | None) -> bool:
    return limit is not None and (taken or 0) >= limit


def _seen(client: SyncPrefectClient, proxy: Proxy, now: dt.datetime) -> Proxy:
    return proxy.model_copy(update={"refusal": ", and ".join(_refusals(client, proxy, now))})


def _refusals(client: SyncPrefectClient, proxy: Proxy, now: dt.datetime) -> Iterator[str]:
    try:
        pool = client.read_work_pool(proxy.pool)
    except ObjectNotFound:
        yield f"there is no work pool {proxy.pool}: {_REGISTER}"
        return
    yield from _pool_refusals(pool)
    yield from _worker_refusals(pool, _workers(client, pool.name), now)
    name = f"{STREAM_FLOW}/{proxy.name}"
    try:
        deployment = client.read_deployment_by_name(name)
    # A proxy's name with a slash in it cannot be the name of a deployment.
    except (ObjectNotFound, ValueError):
        yield f"there is no deployment {name}: {_REGISTER}"
        return
    yield from _deployment_refusals(name, deployment, pool)
    yield from _queue_refusals(client, deployment)


def _pool_refusals(pool: WorkPool) -> Iterator[str]:
    if pool.type != ProcessWorker.type:
        yield (
            f"work pool {pool.name} is of type {pool.type}, expected {ProcessWorker.type}: "
            f"delete it and {_REGISTER}"
        )
    if pool.is_paused:
        yield f"work pool {pool.name} is paused: prefect work-pool resume {pool.name}"
    if pool.concurrency_limit == 0:
        yield f"work pool {pool.name} has a concurrency limit of 0: give it one of at least 1"


def _worker_refusals(pool: WorkPool, workers: Iterator[Worker], now: dt.datetime) -> Iterator[str]:
    latest = next(workers, None)
    if latest is None:
        yield (
            f"work pool {pool.name} has never had a worker: on the proxy, "
            f"python -m deployments.worker {pool.name}"
        )
    elif not (_is_online(latest, now) or any(_is_online(worker, now) for worker in workers)):
        yield f"work pool {pool.name} has no worker online: {_last_heard(latest, now)}"


def _is_online(worker: Worker, now: dt.datetime) -> bool:
    """Heard in time, by the server's word and by its clock: the server looks every 15 s, if it looks."""
    heard = worker.last_heartbeat_time
    return (
        worker.status is WorkerStatus.ONLINE
        and heard is not None
        and (now - heard).total_seconds() <= _interval(worker) * _MISSED_HEARTBEATS
    )


def _last_heard(worker: Worker, now: dt.datetime) -> str:
    heard = worker.last_heartbeat_time
    if heard is None:
        return f"{worker.name} was never heard of"
    age = age_text((now - heard).total_seconds())
    return (
        f"{worker.name} was last heard of {age} ago, at {heard.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC, "
        f"expected every {_interval(worker)} s"
    )


def _interval(worker: Worker) -> int:
    return worker.heartbeat_interval_seconds or _HEARTBEAT_SECONDS


def _workers(client: SyncPrefectClient, pool: str) -> Iterator[Worker]:
    """Every worker that the pool ever had, as the server lists them: the one heard of last comes first.

    Each start of a worker makes another, unless it was given a name; so who asks stops as soon as it can.
    """
    for page in count():
        workers = client.read_workers_for_work_pool(pool, offset=page * _PAGE, limit=_PAGE)
        yield from workers
        if len(workers) < _PAGE:
            return


def _deployment_refusals(name: str, deployment: DeploymentResponse, pool: WorkPool) -> Iterator[str]:
    if deployment.paused:
        yield f"deployment {name} is paused: resume it in Prefect's UI"
    if deployment.work_pool_name != pool.name:
        yield (
            f"deployment {name} runs in work pool {deployment.work_pool_name}, expected {pool.name}: "
            f"{_REGISTER}"
        )


def _queue_refusals(client: SyncPrefectClient, deployment: DeploymentResponse) -> Iterator[str]:
    if deployment.work_queue_id is None:
        return
    queue = client.read_work_queue(deployment.work_queue_id)
    name = f"work queue {queue.name} of work pool {deployment.work_pool_name}"
    if queue.is_paused:
        yield f"{name} is paused: prefect work-queue resume {queue.name} --pool {deployment.work_pool_name}"
    if queue.concurrency_limit == 0:
        yield f"{name} has a concurrency limit of 0: give it one of at least 1, or none"


def _time_of_server(client: SyncPrefectClient) -> dt.datetime:
    """What the server's clock says, to the second: by it the heartbeats were noted.

    A server inside this process sends no date, and has this machine's clock.
    """
    date = client.hello().headers.get("date")
    return parsedate_to_datetime(date) if date else dt.datetime.now(dt.UTC)
