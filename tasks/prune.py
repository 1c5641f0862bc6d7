"""Keeping media: forget what retention does not keep, and prune what nobody needs."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prefect.logging import get_run_logger

from tasks.edge import task
from tasks.policy import REPEATED
from tasks.progress import LoggedProgress
from vsa.cli.plans import forget_text, prune_text, report_text
from vsa.media.media import Media
from vsa.retention import Retention
from vsa.transfer.liveness import has_ended, this_process
from vsa.upkeep.forgetting import ForgetPlan, Limits, by_policy, forget, plan_forgetting
from vsa.upkeep.prune import PrunePlan, PruneReport, carry_out, plan_prune

Policies = Mapping[str, Retention | None]
"""The retention of each subclient, by its name; points of others are kept."""


@task(name="plan forgetting", **REPEATED)
def plan_retention(media: Media, policies: Policies, limits: Limits) -> ForgetPlan:
    """Decide by the retention of each point's subclient, and say why each one goes or stays."""
    plan = plan_forgetting(
        media,
        by_policy(lambda made: policies.get(made.point.subclient)),
        now=dt.datetime.now(dt.UTC),
        limits=limits,
        progress=LoggedProgress(get_run_logger()),
    )
    get_run_logger().info("%s", forget_text(plan, done=False))
    return plan


@task(name="forget points", **REPEATED)
def forget_points(media: Media, plan: ForgetPlan) -> int | None:
    """Write the entry that forgets what the plan names, if it still is what retention says."""
    return forget(media, plan, now=dt.datetime.now(dt.UTC))


@task(name="prune", **REPEATED)
def prune(media: Media, grace_days: float, threshold: float, *, dry_run: bool) -> PrunePlan | PruneReport:
    """Plan a prune, say the plan, and carry it out unless this is a dry run."""
    logger = get_run_logger()
    with tempfile.TemporaryDirectory(prefix="vsa-prune-") as scratch:
        plan = plan_prune(
            media,
            now=dt.datetime.now(dt.UTC),
            scratch=Path(scratch),
            grace=dt.timedelta(days=grace_days),
            threshold=threshold,
            has_ended=has_ended,
            progress=LoggedProgress(logger),
        )
        logger.info("%s", prune_text(plan))
        if dry_run:
            return plan
        report = carry_out(plan, process=this_process())
    logger.info("%s", report_text(report))
    return report
