"""Work pools: `control` for the flows themselves, and one for each proxy's streams.

A pool that exists belongs to the operator. Only what the streams depend on is kept in step: the proxy's
limit, and two defaults of the job template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from vsa.errors import BadRequest

CONTROL_POOL = "control"
HEARTBEAT_SECONDS = 30
"""How often a flow run says that it lives. Prefect takes nothing shorter, and three minutes by default."""

_HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
_STREAMS_OF = "azure-vsa: streams of proxy "
"""How the description of a pool begins that was made here, so that it is known when its proxy is gone."""


@dataclass(frozen=True)
class Pool:
    """What a work pool should be; without a limit its limit is the operator's to set."""

    name: str
    description: str
    limit: int | None = None


CONTROL = Pool(CONTROL_POOL, "azure-vsa: jobs and upkeep; data moves through the pools of the proxies")


def pool_of_proxy(pool: str, proxy: str, *, streams: int) -> Pool:
    """The pool of a proxy that moves so many disks at one time."""
    return Pool(pool, f"{_STREAMS_OF}{proxy}", streams)


def was_made_for_a_proxy(pool: WorkPool) -> bool:
    return (pool.description or "").startswith(_STREAMS_OF)


def ensure_pool(client: SyncPrefectClient, wanted: Pool) -> Iterator[str]:
    """Create the pool or keep it in step, saying what was done; BadRequest if its type is another one."""
    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=wanted.name,
                type=ProcessWorker.type,
                description=wanted.description,
                base_job_template=job_template(ProcessWorker.get_default_base_job_template()),
                concurrency_limit=wanted.limit,
            )
        )
        yield f"Work pool {wanted.name} was created{_limited(wanted)}."
    except ObjectAlreadyExists:
        yield _keep_in_step(client, wanted)


def _limited(pool: Pool) -> str:
    return "" if pool.limit is None else f" with a limit of {pool.limit} streams"


def _keep_in_step(client: SyncPrefectClient, wanted: Pool) -> str:
    found = client.read_work_pool(wanted.name)
    if found.type != ProcessWorker.type:
        raise BadRequest(
            f"work pool {wanted.name} is of type {found.type!r}, expected {ProcessWorker.type!r}: "
            "delete it, or name another pool in the Proxy block"
        )
    changes, said = pool_changes(found, wanted)
    if not changes:
        return f"Work pool {wanted.name} exists and was left as it is."
    client.update_work_pool(wanted.name, WorkPoolUpdate(**changes))
    return f"Work pool {wanted.name} was changed: {'; '.join(said)}."


def pool_changes(found: WorkPool, wanted: Pool) -> tuple[dict[str, Any], list[str]]:
    """What to change of a pool that exists, as fields of an update and in words."""
    changes: dict[str, Any] = {}
    said = []
    if wanted.limit is not None and found.concurrency_limit != wanted.limit:
        changes["concurrency_limit"] = wanted.limit
        said.append(f"its limit is {wanted.limit} and was {found.concurrency_limit}, as its Proxy block says")
    template = job_template(found.base_job_template)
    if template != found.base_job_template:
        changes["base_job_template"] = template
        said.append("its job template has the defaults that flow runs need to outlive their worker")
    return changes, said


def job_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """A process pool's job template with the defaults that this project needs; all else stays as it is.

    With its output in a pipe, a flow run dies of its next line once its worker has died. Without frequent
    heartbeats a run whose machine died is not told from one that works; a frequency that is set stays.
    """
    changed = deepcopy(dict(template))
    variables = changed.get("variables", {}).get("properties", {})
    if "stream_output" in variables:
        variables["stream_output"]["default"] = False
    if "env" in variables:
        given = variables["env"].get("default") or {}
        variables["env"]["default"] = {_HEARTBEAT: str(HEARTBEAT_SECONDS), **given}
    return changed
