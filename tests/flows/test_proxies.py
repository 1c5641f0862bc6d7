"""Streams on proxies: a real server, two real workers, and what becomes of a job when they end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State

from blocks.proxy import saved_proxies
from deployments.register import register
from tasks.pools import seen_by_prefect
from tests.azsim_process import AzsimProcess
from tests.flows.prefect_server import PrefectServer, flow_run_of, wait_for
from tests.flows.site import PROXIES, Site, managed
from tests.flows.worker import ProxyWorker


@pytest.fixture(scope="module")
def workers(
    prefect_server: PrefectServer, simulation: AzsimProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ProxyWorker]]:
    folder = tmp_path_factory.mktemp("workers")
    Site(simulation.control, folder).save_blocks()
    with get_client(sync_client=True) as client:
        for _ in register(client):
            pass
    started = {name: ProxyWorker(prefect_server, name, folder) for name in PROXIES}
    try:
        wait_for(
            "both workers",
            lambda: not any(proxy.refusal for proxy in seen_by_prefect(saved_proxies())),
            seconds=120,
        )
        yield started
    finally:
        for worker in started.values():
            worker.stop()


def _all_usable() -> bool:
    return not any(proxy.refusal for proxy in seen_by_prefect(saved_proxies()))


def children_of(state: State) -> list[FlowRun]:
    """The child runs of a job, in the order in which they were made."""
    asked = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_of(state).id]))
    with get_client(sync_client=True) as client:
        return sorted(client.read_flow_runs(flow_run_filter=asked), key=lambda run: run.created)


def test_six_disks_alternate_between_the_pools_of_two_proxies(
    workers: dict[str, ProxyWorker], site: Site
) -> None:
    disks = {"web": ["web-os", "web-data", "web-logs"], "db": ["db-os", "db-data", "db-logs"]}
    for vm, names in disks.items():
        site.add_vm(vm, [managed(name) for name in names])
    site.save_blocks()

    state = site.back_up(in_process=False)

    assert state.name == "Completed", state.message
    pools = {run.name.split()[0]: run.work_pool_name for run in children_of(state)}
    assert [pools[name] for name in (*disks["db"], *disks["web"])] == ["proxy-a", "proxy-b"] * 3
    for vm in disks:
        site.require_restorable(site.points_of(vm)[0])
    site.require_only_bases()
