"""What was registered for proxies whose block is gone: told, and deleted only when that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType, WorkPool
from prefect.client.schemas.responses import DeploymentResponse

from blocks.proxy import BackupProxy
from deployments.pools import was_made_for_a_proxy
from flows.stream_disk import stream_disk

_PAGE = 100


@dataclass(frozen=True)
class Gone:
    """Deployments of `stream-disk` and pools made for proxies, in order of name, that no block calls for."""

    deployments: tuple[DeploymentResponse, ...]
    pools: tuple[WorkPool, ...]


def find_gone(client: SyncPrefectClient, blocks: Collection[BackupProxy]) -> Gone:
    """What is left of proxies that are not saved any more."""
    names = {block.proxy_name for block in blocks}
    pools = {block.pool for block in blocks}
    left = (found for found in _stream_deployments(client) if found.name not in names)
    unused = (pool for pool in _pools(client) if was_made_for_a_proxy(pool) and pool.name not in pools)
    return Gone(
        tuple(sorted(left, key=lambda found: found.name)), tuple(sorted(unused, key=lambda pool: pool.name))
    )


def tell_gone(gone: Gone) -> Iterator[str]:
    """What is left, and what would delete it."""
    for deployment in gone.deployments:
        yield (
            f"Deployment {_shown(deployment)} is left of a proxy whose block is gone; no job uses it. "
            "To delete it: --remove-gone."
        )
    for pool in gone.pools:
        yield f"Work pool {pool.name} belongs to no saved proxy; no job uses it. To delete it: --remove-gone."


def remove_gone(client: SyncPrefectClient, gone: Gone) -> Iterator[str]:
    """Delete what is left, except what still runs or is used by others; says what was done."""
    for deployment in gone.deployments:
        if _runs_in_deployment(client, deployment):
            yield f"Deployment {_shown(deployment)} was kept: a run of it has not ended."
        else:
            client.delete_deployment(deployment.id)
            yield f"Deployment {_shown(deployment)} was deleted."
    for pool in gone.pools:
        if reason := _use_of(client, pool):
            yield f"Work pool {pool.name} was kept: {reason}."
        else:
            client.delete_work_pool(pool.name)
            yield f"Work pool {pool.name} was deleted."


def _shown(deployment: DeploymentResponse) -> str:
    return f"{stream_disk.name}/{deployment.name}"


def _stream_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    streams = FlowFilter(name=FlowFilterName(any_=[stream_disk.name]))
    found: list[DeploymentResponse] = []
    while len(page := client.read_deployments(flow_filter=streams, limit=_PAGE, offset=len(found))) == _PAGE:
        found += page
    return found + page


def _pools(client: SyncPrefectClient) -> list[WorkPool]:
    found: list[WorkPool] = []
    while len(page := client.read_work_pools(limit=_PAGE, offset=len(found))) == _PAGE:
        found += page
    return found + page


def _runs_in_deployment(client: SyncPrefectClient, deployment: DeploymentResponse) -> int:
    asked = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    return client.count_flow_runs(deployment_filter=asked, flow_run_filter=_unfinished())


def _use_of(client: SyncPrefectClient, pool: WorkPool) -> str:
    """Why the pool cannot go; empty if nothing needs it."""
    asked = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool.name]))
    deployments = client.read_deployments(work_pool_filter=asked, limit=_PAGE)
    if deployments:
        return f"it has deployments: {', '.join(sorted(found.name for found in deployments))}"
    if client.count_flow_runs(work_pool_filter=asked, flow_run_filter=_unfinished()):
        return "a flow run in it has not ended"
    return ""


def _unfinished() -> FlowRunFilter:
    states = [state for state in StateType if state not in TERMINAL_STATES]
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
