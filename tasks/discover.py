"""Stage 1: discover VMs by the subclient's settings."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.transfer.backup_job import BackupJob, Discovery


@task(name="discover VMs", **REPEATED)
def discover_vms(job: BackupJob) -> Discovery:
    """List the subscription's VMs and apply the subclient's rules and filters."""
    return job.discover()
