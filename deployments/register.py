"""Tell a Prefect server what prefect.yaml cannot say. Safe to repeat, and safe beside itself.

    python -m deployments.register [--notify TYPE-SLUG/NAME] [--remove-gone]

It registers block types, work pools, one `stream-disk` deployment for each saved proxy, and automations.
Repeat it after an upgrade and whenever a Proxy block was added, changed or deleted. What an operator has set
stays: pauses, further limits, disabled automations, further tags, job variables and actions. What is kept in
step is named in deployments/README.md, and each change is told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from blocks.subclient import BackupSubclient
from deployments.automations import (
    LATE_SECONDS,
    WITHIN_SECONDS,
    crash_of_silent_runs,
    ensure_automation,
    flow_names,
    notification_block,
    notification_of_errors,
    notification_of_failures,
    notification_of_late_runs,
    notified_block,
)
from deployments.gone import find_gone, remove_gone, tell_gone
from deployments.pools import CONTROL, ensure_pool, pool_of_proxy
from deployments.streams import ensure_deployment, saved_proxy_blocks
from vsa.errors import VsaError

BLOCKS: tuple[Any, ...] = (AzureSubscription, BackupMedia, BackupProxy, BackupSubclient)


def register(
    client: SyncPrefectClient,
    *,
    notify: str | None = None,
    silent_seconds: int = WITHIN_SECONDS,
    late_seconds: int = LATE_SECONDS,
    remove: bool = False,
) -> Iterator[str]:
    """Register everything, saying what was done.

    `notify` names the block that people are told by, `silent_seconds` says after how long without a heartbeat
    a run has died, `late_seconds` after how long people are told of one that does not begin, `remove` deletes
    what is left of proxies without a block. BadRequest, before anything that depends on it is changed, if
    something cannot be meant.
    """
    for block in BLOCKS:
        _register_block(block)
        yield f"Block type {block.get_block_type_name()} is registered."
    yield from ensure_pool(client, CONTROL)
    yield from register_proxies(client, remove=remove)
    yield from register_automations(client, notify, silent_seconds=silent_seconds, late_seconds=late_seconds)


def _register_block(block: Any) -> None:
    try:
        block.register_type_and_schema()
    except ObjectAlreadyExists:
        # Somebody else made it since it was looked for: now it is found.
        block.register_type_and_schema()


def register_proxies(client: SyncPrefectClient, *, remove: bool = False) -> Iterator[str]:
    """Pool and deployment of every saved proxy; what is left of others is told or, if asked, deleted."""
    blocks = saved_proxy_blocks()
    for block in blocks:
        yield from ensure_pool(client, pool_of_proxy(block.pool, block.proxy_name, streams=block.streams))
        yield ensure_deployment(client, block)
    if not blocks:
        yield "No Proxy block is saved: save one for each machine that moves data, then register again."
    gone = find_gone(client, blocks)
    yield from remove_gone(client, gone) if remove else tell_gone(gone)


def register_automations(
    client: SyncPrefectClient,
    notify: str | None = None,
    *,
    silent_seconds: int = WITHIN_SECONDS,
    late_seconds: int = LATE_SECONDS,
) -> Iterator[str]:
    """The automations; without `notify` people are told as they were before, if they were."""
    flows = flow_names()
    block = notification_block(client, notify) if notify else notified_block(client)
    yield from ensure_automation(client, crash_of_silent_runs(flows, within=silent_seconds))
    if block is None:
        yield (
            "Nobody is told of failed jobs, nor of those that do not begin: name a notification block with "
            "--notify TYPE-SLUG/NAME."
        )
        return
    yield from ensure_automation(client, notification_of_failures(flows, block))
    yield from ensure_automation(client, notification_of_errors(flows, block))
    yield from ensure_automation(client, notification_of_late_runs(flows, block, within=late_seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Register by the command line; exit code 0 done, 2 bad request."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.register",
        description="Tell a Prefect server of this project's blocks, work pools, proxies and automations.",
    )
    parser.add_argument(
        "--notify", metavar="TYPE-SLUG/NAME", help="notification block by which failed jobs are told of"
    )
    parser.add_argument(
        "--silent-seconds",
        type=int,
        default=WITHIN_SECONDS,
        metavar="N",
        help="a deployed run without a heartbeat for so long has crashed (default: %(default)s)",
    )
    parser.add_argument(
        "--late-seconds",
        type=int,
        default=LATE_SECONDS,
        metavar="N",
        help="people are told of a run that is late for so long and has not begun (default: %(default)s)",
    )
    parser.add_argument(
        "--remove-gone", action="store_true", help="delete what is left of proxies whose block is gone"
    )
    options = parser.parse_args(arguments)
    try:
        with get_client(sync_client=True) as client:
            for line in register(
                client,
                notify=options.notify,
                silent_seconds=options.silent_seconds,
                late_seconds=options.late_seconds,
                remove=options.remove_gone,
            ):
                sys.stdout.write(f"{line}\n")
    except VsaError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
