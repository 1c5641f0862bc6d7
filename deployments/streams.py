"""A deployment of the flow `stream-disk` for every saved proxy, in the proxy's own work pool.

A deployment has exactly one pool, and a run of it cannot be sent to another: so a proxy is chosen by choosing
its deployment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.types.names import BANNED_CHARACTERS
from prefect.utilities.callables import parameter_schema

from blocks.proxy import BackupProxy
from blocks.saved import saved_names
from deployments.pools import CONTROL_POOL
from flows.stream_disk import stream_disk
from vsa.errors import BadRequest

ENTRYPOINT = "flows/stream_disk.py:stream_disk"
# A run begins in the folder in which its worker was started: a checkout, each machine its own.
PULL_STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
JOB_VARIABLES = {"working_dir": ".", "stream_output": False}
TAGS = ("stream",)
# Prefect's client puts names into paths as they are, and these two end a path: asked for proxy `a#2`, the
# server would answer with what it knows of `a`.
_BANNED = (*BANNED_CHARACTERS, "?", "#")


def saved_proxy_blocks() -> list[BackupProxy]:
    """Every saved Proxy block; BadRequest if names or pools are not each proxy's own."""
    blocks: list[Any] = [BackupProxy.load(name) for name in saved_names(BackupProxy)]
    require_own_names(blocks)
    return blocks


def require_own_names(blocks: Iterable[BackupProxy]) -> None:
    """BadRequest, naming them, if proxies share a name or a pool, or if Prefect would not take a name."""
    blocks = list(blocks)
    problems = [
        *_shared((block.proxy_name.lower() for block in blocks), "several Proxy blocks are called"),
        *_shared((block.pool for block in blocks), "several proxies have the work pool"),
        *(problem for block in blocks for problem in _refusals(block)),
    ]
    if problems:
        raise BadRequest(f"{'; '.join(problems)}: change the Proxy blocks, then register again")


def _shared(names: Iterable[str], problem: str) -> Iterator[str]:
    for name, count in sorted(Counter(names).items()):
        if count > 1:
            yield f"{problem} {name}, and each needs one of its own"


def _refusals(block: BackupProxy) -> Iterator[str]:
    for kind, name in (("name", block.proxy_name), ("work pool", block.pool)):
        if not name.strip() or any(character in name for character in _BANNED):
            yield (
                f"the {kind} {name!r} of a proxy is none that Prefect takes: "
                f"expected text without {' '.join(_BANNED)}"
            )
    if block.pool == CONTROL_POOL:
        yield (
            f"proxy {block.proxy_name} has the work pool {CONTROL_POOL}, "
            "where jobs would take the place of streams"
        )
    if block.pool.lower().startswith("prefect"):
        yield f"proxy {block.proxy_name} has the work pool {block.pool}: Prefect keeps such names to itself"


def ensure_deployment(client: SyncPrefectClient, block: BackupProxy) -> str:
    """Create the proxy's deployment or keep it in step; says what was done."""
    name = f"{stream_disk.name}/{block.proxy_name}"
    wanted = wanted_deployment(block)
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        client.create_deployment(flow_id=client.create_flow(stream_disk), name=block.proxy_name, **wanted)
        return f"Deployment {name} was created in work pool {block.pool}."
    changes = deployment_changes(found, wanted)
    if not changes:
        return f"Deployment {name} exists and was left as it is."
    client.update_deployment(found.id, DeploymentUpdate(**changes))
    return f"Deployment {name} was changed: {', '.join(sorted(changes))}."


def wanted_deployment(block: BackupProxy) -> dict[str, Any]:
    """What is kept in step of a proxy's deployment; all else of it is the operator's."""
    return {
        "description": (
            f"Moves disks through proxy {block.proxy_name}. Backup jobs start it; it is not for schedules."
        ),
        "entrypoint": ENTRYPOINT,
        "work_pool_name": block.pool,
        "pull_steps": PULL_STEPS,
        "job_variables": JOB_VARIABLES,
        "tags": [*TAGS],
        "parameter_openapi_schema": parameter_schema(stream_disk).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
    }


def deployment_changes(found: DeploymentResponse, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to write so that the deployment is as wanted; tags and job variables of others stay."""
    merged = {
        **wanted,
        "tags": _with_all(found.tags, wanted["tags"]),
        "job_variables": {**(found.job_variables or {}), **wanted["job_variables"]},
    }
    return {field: value for field, value in merged.items() if getattr(found, field) != value}


def _with_all(found: Sequence[str], needed: Sequence[str]) -> list[str]:
    return [*found, *(tag for tag in needed if tag not in found)]
