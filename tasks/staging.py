"""Stage 7: the staging blob for unmanaged disks in a premium account."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.model import SnapshotRef, SourceDisk
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.runs import Run


@task(name="copy to staging blob", task_run_name="stage {disk.name}", **REPEATED)
def copy_to_staging(job: BackupJob, run: Run, disk: SourceDisk, snapshot: SnapshotRef) -> str | None:
    """Copy a premium VHD's snapshot to a blob that can be read at full speed; wait for the copy."""
    return job.stage(run, disk, snapshot)
