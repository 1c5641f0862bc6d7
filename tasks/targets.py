"""Stage 3: identify target VMs and usable proxies."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import STAGE
from vsa.transfer.backup_job import BackupJob, Discovery, Targets


@task(name="identify targets and proxies", **STAGE)
def identify_targets(job: BackupJob, discovery: Discovery) -> Targets:
    """Which VMs can be backed up now, by which proxies; every exclusion has its reason."""
    return job.identify_targets(discovery)
