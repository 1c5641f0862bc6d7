"""Remove from Azure what dead backup runs have left: snapshots, access grants, staging blobs.

A run is dead when its process is known to have ended, when its job's flow run is over, when an operator names
it, or when it has stopped giving signs of life on the media, as two looks a while apart have seen. It is
fenced in the log before anything of it is removed, so that it could not commit any more. What runs left that
did end, because Azure would not delete it then, goes as well. A run whose flow run is not over is left alone
as long as it gives signs.

    python -m flows.sweep_leftovers MEDIA SUBSCRIPTION [--dry-run] [--run ID ...]
    prefect deployment run 'sweep-leftovers/hourly'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from prefect import flow, runtime, unmapped
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from tasks.ending import WITH_ERRORS, tell
from tasks.logs import show_engine_logs
from tasks.signals import heard_at_once
from tasks.sweep import (
    clear_disk,
    end_streams,
    find_open_runs,
    look_again,
    plan_sweep,
    release_dead_run,
    second_look,
    show_sweep,
    states_of_jobs,
)
from tasks.witness import check_witness, keep_witness
from vsa.errors import VsaError
from vsa.transfer.pending import DEFAULT_PRICE, Price
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepPlan, SweepReport

# Azure counts deletions against the same limits as the backups that run beside a sweep.
THREADS = 8


@flow(
    name="sweep-leftovers",
    flow_run_name="sweep what {media} left in {subscription}",
    description="Remove what dead backup runs have left in Azure.",
    task_runner=ThreadPoolTaskRunner(max_workers=THREADS),  # type: ignore[arg-type]
    persist_result=False,
)
def sweep_leftovers(
    media: str = Field(description="Name of the Backup Media block whose runs are looked at."),
    subscription: str = Field(
        description="Name of the Azure Subscription block; only disks of that subscription are looked at."
    ),
    dry_run: bool = Field(default=False, description="Only say what would be removed."),
    runs: tuple[str, ...] = Field(
        default=(),
        description="Ids of runs that you know to be dead, where nothing else tells; a dry run lists them.",
    ),
    price_per_gib: float = Field(
        default=DEFAULT_PRICE,
        ge=0,
        description="US dollars for a GiB and month of a snapshot, for the estimates in the report.",
    ),
) -> State[None]:
    """Look, decide, remove, look again; what is still there makes the run complete with errors."""
    show_engine_logs(runtime.flow_run.id or str(uuid4()))
    try:
        sweep = _open(media, subscription, Price(price_per_gib), write=not dry_run)
        check_witness(sweep.media)
        open_runs = find_open_runs(sweep)
        plan = plan_sweep(sweep, open_runs, states_of_jobs(open_runs), runs)
        get_run_logger().info("%s", plan.text())
        with heard_at_once():
            swept = plan if dry_run else _carry_out(sweep, plan)
            if plan.silent and isinstance(swept, SweepReport):
                # What is certain does not wait for it.
                swept = _carry_out(sweep, second_look(sweep, plan, runs)).after(swept)
    except VsaError as error:
        return Failed(message=str(error))
    show_sweep(swept, media, return_state=True)
    if swept.attention:
        return Completed(name=WITH_ERRORS, message=swept.text())
    return Completed(message=swept.text())


def _open(media: str, subscription: str, price: Price, *, write: bool) -> Sweep:
    """Load the blocks and open what they name: the only place of the flow that does."""
    connection = AzureSubscription.named(subscription).connection()
    opened = BackupMedia.named(media).open(write=write)
    get_run_logger().info("Sweeping what media %s at %s left in Azure", opened.id, opened.location)
    return Sweep(connection, opened, price=price)


def _carry_out(sweep: Sweep, plan: SweepPlan) -> SweepReport:
    """Release each dead run, clear the other disks, and see what came of it."""
    wait(list(end_streams.map(list(plan.given_up_jobs))))
    in_use = unmapped(plan.in_use)
    released = release_dead_run.map(unmapped(sweep), list(plan.dead), in_use)
    cleared = clear_disk.map(unmapped(sweep), list(plan.other_disks), in_use)
    done: list[PrefectFuture[Any]] = [*released, *cleared]
    wait(done)
    pending = [line for future in done for line in _pending(future)]
    report = look_again(sweep, plan, pending)
    get_run_logger().info("%s", report.text())
    keep_witness(sweep.media, return_state=True)
    return report


def _pending(future: PrefectFuture[Any]) -> Sequence[str]:
    """What a task says is pending; why it failed, if it did."""
    if future.state.is_completed():
        return tuple(future.result())
    return (f"cleanup pending: {future.state.message}",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep in this process; exit code 0 completed, 3 completed with errors, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep_leftovers", description=__doc__)
    parser.add_argument("media", help="name of the Backup Media block")
    parser.add_argument("subscription", help="name of the Azure Subscription block")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--run", action="append", default=[], metavar="ID", help="a run known to be dead")
    options = parser.parse_args(arguments)
    state = sweep_leftovers(
        options.media,
        options.subscription,
        dry_run=options.dry_run,
        runs=tuple(options.run),
        return_state=True,
    )
    return tell(state)


if __name__ == "__main__":
    sys.exit(main())
