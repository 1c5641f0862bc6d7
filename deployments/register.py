"""Tell a Prefect server what this project brings: its block types and its work pool. Safe to repeat.

    python -m deployments.register

A pool that exists is left as it is: its limits, its pause and its template belong to the operator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from blocks.subclient import BackupSubclient

CONTROL_POOL = "control"
BLOCKS: tuple[Any, ...] = (AzureSubscription, BackupMedia, BackupProxy, BackupSubclient)


def register(client: SyncPrefectClient) -> Iterator[str]:
    """Register everything, saying what was done. SystemExit if the pool's name belongs to another type."""
    for block in BLOCKS:
        block.register_type_and_schema()
        yield f"Block type {block.get_block_type_name()} is registered."
    yield _ensure_pool(client, CONTROL_POOL)


def _ensure_pool(client: SyncPrefectClient, name: str) -> str:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(
            WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
        )
    except ObjectAlreadyExists:
        found = client.read_work_pool(name).type
        if found != ProcessWorker.type:
            raise SystemExit(
                f"work pool {name} is of type {found!r}, expected {ProcessWorker.type!r}: "
                "delete it, or give it another name"
            ) from None
        return f"Work pool {name} exists and was left as it is."
    return f"Work pool {name} was created."


def main() -> None:
    with get_client(sync_client=True) as client:
        for line in register(client):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
