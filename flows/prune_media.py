"""Keep backup media in order: forget what retention does not keep, then prune what nobody needs.

The plan is logged before anything is done. Forgotten points can be called back (`vsa unforget`) until the
grace is over. Backups may run meanwhile; so may other prunes. This is the only flow that needs the right to
delete from media.

    python -m flows.prune_media NAME [--dry-run]
    prefect deployment run 'prune-media/weekly'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from uuid import uuid4

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.backup_media import BackupMedia
from blocks.subclient import retention_policies
from tasks.ending import WITH_ERRORS, tell
from tasks.logs import show_engine_logs
from tasks.prune import forget_points, plan_retention, prune
from tasks.signals import heard_at_once
from tasks.witness import check_witness, keep_witness
from vsa.cli.plans import prune_text, report_text
from vsa.errors import VsaError
from vsa.media.media import Media
from vsa.upkeep.forgetting import Limits
from vsa.upkeep.prune import PrunePlan


@flow(
    name="prune-media",
    flow_run_name="prune {media}",
    description="Forget recovery points by the retention of their subclients, and prune the media.",
    persist_result=False,
)
def prune_media(
    media: str = Field(description="Name of the Backup Media block."),
    retention: bool = Field(
        default=True, description="Forget by the retention of the saved subclients before pruning."
    ),
    grace_days: float = Field(
        default=14.0, ge=0.0, le=36_500.0, description="For so long forgotten points can be called back."
    ),
    threshold: float = Field(
        default=0.5, ge=0.0, le=1.0, description="Rewrite packs of which less than this part is needed."
    ),
    override_share: bool = Field(
        default=False, description="Forget also more than half of the points of one VM at a time."
    ),
    dry_run: bool = Field(default=False, description="Only say what would be done."),
) -> State[None]:
    """Forget, then prune; what was refused makes the run complete with errors."""
    try:
        show_engine_logs(runtime.flow_run.id or str(uuid4()))
        block = BackupMedia.named(media)
        opened = block.open(write=not dry_run)
        # What a log lacks that was put back or cut, nobody needs any more, as far as it says.
        check_witness(opened)
        get_run_logger().info("Pruning media %s at %s", opened.id, opened.location)
        refused = _forget(opened, block, override_share, dry_run) if retention else ()
        with heard_at_once():
            try:
                done = prune(opened, grace_days, threshold, dry_run=dry_run)
            finally:
                if not dry_run:
                    keep_witness(opened, return_state=True)
    except VsaError as error:
        return Failed(message=str(error))
    said = prune_text(done) if isinstance(done, PrunePlan) else report_text(done)
    message = "\n".join([*refused, said])
    if refused or not (isinstance(done, PrunePlan) or done.is_complete):
        return Completed(name=WITH_ERRORS, message=message)
    return Completed(message=message)


def _forget(media: Media, block: BackupMedia, override_share: bool, dry_run: bool) -> tuple[str, ...]:
    """Apply retention; returns why it was not."""
    policies = retention_policies(block)
    plan = plan_retention(media, policies, Limits(override_share=override_share))
    if not plan.decision.refusals and not dry_run:
        forget_points(media, plan)
    return plan.decision.refusals


def main(arguments: Sequence[str] | None = None) -> int:
    """Prune in this process; exit code 0 completed, 3 completed with errors, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.prune_media", description=__doc__)
    parser.add_argument("media", help="name of the Backup Media block")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)
    state = prune_media(options.media, dry_run=options.dry_run, return_state=True)
    return tell(state)


if __name__ == "__main__":
    sys.exit(main())
