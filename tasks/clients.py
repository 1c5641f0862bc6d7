"""Stage 2: create a client computer entry for each VM discovered."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.transfer.backup_job import BackupJob, Discovery


@task(name="create client entries", **REPEATED)
def create_client_entries(job: BackupJob, discovery: Discovery) -> int:
    """Write the entries and mark clients that have gone; returns how many were written."""
    return job.record_clients(discovery)
