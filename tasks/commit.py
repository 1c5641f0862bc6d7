"""Stage 7b: the index and the recovery point, committed as soon as a VM is complete."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.model import DiskBackup, Exclusion
from vsa.transfer.backup_job import BackupJob, Carry
from vsa.transfer.runs import Run


@task(name="commit recovery point", task_run_name="commit {run.vm.name}", **REPEATED)
def commit_point(job: BackupJob, run: Run, outcomes: Sequence[DiskBackup | Exception], carry: Carry) -> int:
    """Make the VM's recovery point exist: all its disks, in the run's order, or none of them.

    `carry` takes streams that turn out to be needed once more.
    """
    backups = [outcome for outcome in outcomes if isinstance(outcome, DiskBackup)]
    failed = [
        Exclusion(name=disk.name, reason=str(outcome))
        for disk, outcome in zip(run.disks, outcomes, strict=True)
        if isinstance(outcome, Exception)
    ]
    return job.commit(run, backups, failed, carry=carry)
