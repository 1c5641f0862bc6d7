"""Stage 7: create the snapshots of a VM's disks, crash consistent, all together."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.model import SnapshotRef
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run


@task(name="create snapshots", task_run_name="snapshot disks of {run.vm.name}", **REPEATED)
def create_snapshots(job: BackupJob, run: Run) -> tuple[SnapshotRef, ...]:
    """Write the run's intent, then snapshot its disks; repeating adopts what the run already has."""
    return job.create_snapshots(run)
