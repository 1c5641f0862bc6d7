"""Stage 6: download data through a proxy and write it to the media."""

from __future__ import annotations

from copy import copy

from prefect import task
from prefect.logging import get_run_logger

from tasks.policy import REPEATED
from tasks.progress import LoggedProgress
from vsa.model import DiskBackup, SnapshotRef, SourceDisk
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run


@task(name="transfer disk", task_run_name="transfer {disk.name} of {run.vm.name} via {proxy}", **REPEATED)
def transfer_disk(
    job: BackupJob,
    run: Run,
    disk: SourceDisk,
    *,
    snapshot: SnapshotRef,
    proxy: str,
    staging: str | Exception | None = None,
) -> DiskBackup:
    """One stream, in this process: the seam where a proxy's own work pool takes over the same engine call.

    `staging` is the disk's staging blob, or the error that its copy ended with.
    """
    if isinstance(staging, Exception):
        raise staging
    # A job reports all its streams to one place; this one reports to its own task.
    job = copy(job)
    job.progress = LoggedProgress(get_run_logger())
    return job.transfer(run, disk, snapshot, staging, proxy)
