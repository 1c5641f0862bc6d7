"""Stage 4: identify the disks of the target VMs."""

from __future__ import annotations

from tasks.edge import task
from tasks.policy import REPEATED
from vsa.model import Vm
from vsa.transfer.backup_job import BackupJob, VmDisks


@task(name="identify disks", task_run_name="identify disks of {vm.name}", **REPEATED)
def identify_disks(job: BackupJob, vm: Vm) -> VmDisks:
    """The VM's target disks as Azure describes them, and why others are left out."""
    return job.identify_disks(vm)
