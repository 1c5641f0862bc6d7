"""Stages 7b and 8: delete what is no longer needed in Azure, clean up the mount point, complete the job."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.edge import task
from tasks.flow_runs import end_children, flow_run_ids, states_if_known
from tasks.policy import STAGE
from vsa.media.entries import JobEntry, ReleasedBase, VmOutcome
from vsa.model import Exclusion
from vsa.transfer.backup_job import BackupJob, Discovery, LetGo, VmDisks
from vsa.transfer.dead_runs import earlier_runs
from vsa.transfer.runs import Run

CLEANUP = STAGE | {"retries": 2, "retry_delay_seconds": 2}


@task(name="release run", task_run_name="release snapshots of {run.vm.name}", **CLEANUP)
def release_run(job: BackupJob, run: Run) -> tuple[str, ...]:
    """Revoke grants, delete the staging blobs and every snapshot but the bases; returns what is pending."""
    return job.release(run)


@task(name="release dead runs", **CLEANUP)
def release_dead_runs(job: BackupJob) -> tuple[str, ...]:
    """Clean up after runs of this subclient that ended before they could; returns what is pending.

    Known to be dead are those whose process ended on this machine, and those whose flow run is over, wherever
    it was. Their streams end first, if they are still under way: those of a job that nobody looks after are
    not told. What the server says is of runs that had begun before: a job that is retried begins others.
    """
    opened = job.open_runs()
    earlier = earlier_runs(opened, job.subclient.name, states_if_known({run.job for run in opened}))
    for given_up in flow_run_ids(earlier.given_up):
        end_children(given_up)
    return job.release_dead_runs(earlier)


@task(name="release bases", **CLEANUP)
def release_bases(job: BackupJob, discovery: Discovery | None, disks: Sequence[VmDisks]) -> LetGo:
    """Delete the base snapshots that no later job of the subclient will compare with; say what is pending."""
    return job.release_bases(discovery, disks)


@task(name="complete job", **CLEANUP)
def complete_job(
    job: BackupJob,
    outcomes: Sequence[VmOutcome],
    excluded: Sequence[Exclusion],
    released: Sequence[ReleasedBase],
    alarms: Sequence[str],
) -> JobEntry:
    """Clean the proxy's scratch space and write the job's report into the log."""
    job.clean_scratch()
    return job.complete(outcomes, excluded=excluded, released=released, alarms=alarms)
