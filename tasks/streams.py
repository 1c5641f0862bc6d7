"""Stage 5: assign backup streams to proxies in round-robin sequence."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.edge import task
from tasks.policy import STAGE
from vsa.transfer.backup_job import BackupJob, VmDisks
from vsa.transfer.proxies import Assignment, Proxy


@task(name="assign streams", **STAGE)
def assign_streams(
    job: BackupJob, disks: Sequence[VmDisks], proxies: Sequence[Proxy]
) -> tuple[Assignment, ...]:
    """One stream for each disk, to the usable proxies in turn."""
    return job.assign_streams(disks, proxies)
