"""The workers of a test run: one for each proxy and one for jobs, and what Prefect knows of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Cancelling

from blocks.proxy import BackupProxy, saved_proxies
from deployments.pools import CONTROL_POOL
from deployments.register import register
from deployments.streams import JOB_VARIABLES, PULL_STEPS
from flows.backup_subclient import backup_subclient
from tasks.pools import seen_by_prefect
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.site import PROXIES, Site
from tests.flows.worker import ProxyWorker

SILENT_SECONDS = 75
"""After so long without a heartbeat a run has crashed; it beats every thirty seconds."""


class Fleet:
    """What a test has ended, frozen or paused is as it should be again after `make_ready`."""

    def __init__(self, server: PrefectServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._workers: dict[str, ProxyWorker] = {}

    def register(self) -> None:
        """What an operator does once there are Proxy blocks."""
        for name in PROXIES:
            BackupProxy(proxy_name=name, region="westeurope").save(name, overwrite=True)
        with get_client(sync_client=True) as client:
            for _ in register(client, silent_seconds=SILENT_SECONDS):
                pass

    def make_ready(self, *names: str) -> None:
        """Have these workers run, by default every proxy's, and wait until all proxies are usable."""
        for name in names or PROXIES:
            worker = self._workers.get(name)
            if worker is None or not worker.lives:
                self._workers[name] = ProxyWorker(self.server, name, self._folder)
        wait_for("the proxies", lambda: not any(self.refusals.values()), seconds=240, every=0.5)

    def __getitem__(self, proxy: str) -> ProxyWorker:
        return self._workers[proxy]

    @property
    def refusals(self) -> dict[str, str]:
        """Why each proxy of the tests is not usable now; empty for one that is."""
        return {
            proxy.name: proxy.refusal for proxy in seen_by_prefect(saved_proxies()) if proxy.name in PROXIES
        }

    def stop(self) -> None:
        while self._workers:
            self._workers.popitem()[1].stop()


@contextmanager
def pool_changed(name: str, **changes: Any) -> Iterator[None]:
    """A work pool with other settings for the length of a block."""
    with get_client(sync_client=True) as client:
        found = client.read_work_pool(name)
        client.update_work_pool(name, WorkPoolUpdate(**changes))
    try:
        yield
    finally:
        with get_client(sync_client=True) as client:
            client.update_work_pool(name, WorkPoolUpdate(**{key: getattr(found, key) for key in changes}))


def deployed(flow: Flow[..., Any], name: str) -> UUID:
    """A deployment of the flow in the control pool, run from the checkout as prefect.yaml says."""
    file = flow.name.replace("-", "_")
    with get_client(sync_client=True) as client:
        return client.create_deployment(
            flow_id=client.create_flow(flow),
            name=name,
            entrypoint=f"flows/{file}.py:{file}",
            work_pool_name=CONTROL_POOL,
            pull_steps=PULL_STEPS,
            job_variables=JOB_VARIABLES,
        )


def start_job(site: Site) -> FlowRun:
    """A job as the dashboard starts it: the control pool's worker runs it in a process of its own."""
    deployment = deployed(backup_subclient, "by-hand")
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment, parameters={"subclient": site.name})


def children_of(job: UUID) -> list[FlowRun]:
    """The child runs of a job, in the order in which they were made."""
    asked = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[job]))
    return _with_client(
        lambda client: sorted(client.read_flow_runs(flow_run_filter=asked), key=lambda run: run.created)
    )


def child_of(job: UUID, disk: str, *, proxy: str, reading: bool = True) -> FlowRun:
    """The newest child run that carries the disk through the proxy, once it runs, or once there is one."""

    def look() -> FlowRun | None:
        for child in reversed(children_of(job)):
            named = child.name.split()[0] == disk and child.work_pool_name == proxy
            if named and (child.state.is_running() or not reading):
                return child
        return None

    return wait_for(f"the stream of {disk} through {proxy}", look, seconds=240, every=0.3)


def state_of(flow_run: UUID) -> State[Any]:
    state = _with_client(lambda client: client.read_flow_run(flow_run).state)
    assert state is not None
    return state


def ended(flow_run: UUID, *, seconds: float = 300) -> State[Any]:
    """The final state of a run, once it has one."""

    def look() -> State[Any] | None:
        state = state_of(flow_run)
        return state if state.is_final() else None

    return wait_for(f"run {flow_run} to end", look, seconds=seconds, every=0.3)


def cancel_run(flow_run: UUID) -> None:
    """What the button in the dashboard asks the server for."""
    _with_client(lambda client: client.set_flow_run_state(flow_run, Cancelling()))


def pools_of(children: Iterable[FlowRun]) -> dict[str, str | None]:
    """The pool that carried each disk to its end, by the disk's name."""
    return {child.name.split()[0]: child.work_pool_name for child in children if child.state.is_completed()}


def most_at_once(children: Iterable[FlowRun]) -> int:
    """How many of the runs were in their processes at the same moment, at most."""
    changes = [
        change
        for child in children
        if child.start_time and child.end_time
        for change in ((child.start_time, 1), (child.end_time, -1))
    ]
    running = most = 0
    for _, step in sorted(changes):
        running += step
        most = max(most, running)
    return most


def _with_client(ask: Callable[[SyncPrefectClient], Any]) -> Any:
    with get_client(sync_client=True) as client:
        return ask(client)
