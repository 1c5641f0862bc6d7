"""Restore disks of a recovery point to new image files on the machine of the worker that runs this.

Every byte is checked against what was stored. An image has its name only when it is whole; nothing is ever
overwritten. `vsa restore` does the same on a bare machine, without Prefect.

    python -m flows.restore_disks MEDIA --vm NAME --to FOLDER [--disk DISK ...] [--format raw] [--salvage]
    prefect deployment run 'restore-disks/ad-hoc' --param media=NAME --param vm=NAME --param folder=/restore
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

from prefect import flow, runtime, unmapped
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.backup_media import BackupMedia
from tasks.ending import WITH_ERRORS, tell
from tasks.logs import show_engine_logs
from tasks.restore import RestoreOutcome, RestorePlan, plan_of, remarks, restore_one, show_restore
from tasks.signals import heard_at_once
from tasks.witness import check_witness
from vsa.errors import VsaError
from vsa.media.media import Media
from vsa.restore.choosing import Step
from vsa.restore.disk import Format, RestoredDisk
from vsa.text import printable

# Each disk has threads of its own, and one local disk takes the writing of all.
DISKS_AT_ONCE = 4


@flow(
    name="restore-disks",
    flow_run_name="restore from {media}",
    description="Restore disks of a recovery point to image files.",
    task_runner=ThreadPoolTaskRunner(max_workers=DISKS_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
)
def restore_disks(
    media: str = Field(description="Name of the Backup Media block."),
    folder: str = Field(
        description="Absolute path of a folder on the worker's machine; it is made if it is not there."
    ),
    vm: str = Field(
        default="",
        description="Name, resource id or key of the client, whose newest good point is restored.",
    ),
    point: int | None = Field(
        default=None,
        ge=0,
        description="A recovery point by its number in `vsa points`, instead of the newest good one.",
    ),
    disks: tuple[str, ...] = Field(
        default=(), description="Only these: a disk's name, its LUN, or os. All disks if empty."
    ),
    format: Literal["vhd", "raw"] = Field(
        default="vhd", description="A fixed VHD is what Azure takes; raw is the disk's bytes alone."
    ),
    salvage: bool = Field(
        default=False,
        description="Restore what is left of damaged disks; a file beside the image lists the lost bytes.",
    ),
    threads: int = Field(
        default=4, ge=1, le=64, description="Pieces of each disk that are read at one time."
    ),
) -> State[None]:
    """Decide everything, restore each disk, report."""
    show_engine_logs(runtime.flow_run.id or str(uuid4()))
    try:
        opened = BackupMedia.named(media).open()
        check_witness(opened)
        plan = plan_of(opened, vm, point, disks, folder=folder, format=Format(format))
    except VsaError as error:
        return Failed(message=str(error))
    for warning in plan.warnings:
        get_run_logger().warning("point %d: %s", plan.slot, warning)
    outcomes = _restored(opened, plan, Format(format), salvage=salvage, threads=threads)
    show_restore(plan, outcomes, media, return_state=True)
    return _final_state(plan, outcomes)


def _restored(
    media: Media, plan: RestorePlan, format: Format, *, salvage: bool, threads: int
) -> list[RestoreOutcome]:
    """One that fails does not keep the others from being saved."""
    futures = restore_one.map(
        unmapped(media),
        list(plan.steps),
        format=unmapped(format),
        salvage=unmapped(salvage),
        threads=unmapped(threads),
    )
    with heard_at_once():
        wait(list(futures))
    return [_outcome(step, future) for step, future in zip(plan.steps, futures, strict=True)]


def _outcome(step: Step, future: PrefectFuture[RestoredDisk]) -> RestoreOutcome:
    if future.state.is_completed():
        return RestoreOutcome(step, future.result())
    error = future.state.result(raise_on_failure=False)
    return RestoreOutcome(
        step, None, str(error) if isinstance(error, Exception) else str(future.state.message)
    )


def _final_state(plan: RestorePlan, outcomes: Sequence[RestoreOutcome]) -> State[None]:
    images = [outcome.image for outcome in outcomes if outcome.image]
    lines = [
        f"{len(images)} of {len(outcomes)} disks of VM {printable(plan.vm)} restored from point {plan.slot}, "
        f"taken at {plan.taken_at:%Y-%m-%d %H:%M:%S %Z}.",
        *plan.warnings,
        *(f"{printable(str(image.path))}: sha256 {image.sha256}" for image in images),
        *(line for outcome in outcomes for line in remarks(outcome)),
    ]
    message = "\n".join(lines)
    if not images:
        return Failed(message=message)
    if len(images) < len(outcomes) or any(image.lost for image in images):
        return Completed(name=WITH_ERRORS, message=message)
    return Completed(message=message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restore in this process; exit code 0 completed, 3 completed with errors, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.restore_disks", description=__doc__)
    parser.add_argument("media", help="name of the Backup Media block")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="absolute path of a folder")
    parser.add_argument("--vm", default="", metavar="NAME", help="its newest good point is restored")
    parser.add_argument("--point", type=int, metavar="POINT", help="its number in `vsa points`")
    parser.add_argument("--disk", action="append", default=[], metavar="DISK", help="name, LUN or os (all)")
    parser.add_argument("--format", choices=[item.value for item in Format], default=Format.VHD.value)
    parser.add_argument("--salvage", action="store_true", help="restore what is left of damaged disks")
    options = parser.parse_args(arguments)
    state = restore_disks(
        options.media,
        options.to,
        vm=options.vm,
        point=options.point,
        disks=tuple(options.disk),
        format=options.format,
        salvage=options.salvage,
        return_state=True,
    )
    return tell(state)


if __name__ == "__main__":
    sys.exit(main())
