"""A job told stage by stage as `flows/backup_subclient.py` tells it, without Prefect."""

from __future__ import annotations

from vsa.errors import BadRequest, VsaError
from vsa.media.entries import JobEntry, VmOutcome
from vsa.model import DiskBackup, Exclusion, Vm
from vsa.transfer.backup_job import BackupJob, VmDisks
from vsa.transfer.dead_runs import earlier_runs
from vsa.transfer.report import vm_outcome
from vsa.transfer.runs import Run


def run_job(job: BackupJob) -> JobEntry:
    """All stages in their order, as `flows/backup_subclient.py` has them."""
    alarms = list(job.release_dead_runs(earlier_runs(job.open_runs(), job.subclient.name, {})))
    discovery = job.discover()
    job.record_clients(discovery)
    try:
        targets = job.identify_targets(discovery)
    except BadRequest:
        job.release_bases(discovery, [])
        raise
    disks = [_identified(job, vm) for vm in targets.vms]
    ready = [item for item in disks if not item.error]
    proxies = {a.disk_key: a.proxy for a in job.assign_streams(ready, targets.proxies)}
    outcomes = [run_vm(job, item, proxies, alarms) for item in ready]
    outcomes += [vm_outcome(item.vm, error=item.error) for item in disks if item.error]
    alarms += [*job.doubts(), *job.harms(disks)]
    let_go = job.release_bases(discovery, disks)
    alarms += let_go.pending
    return job.complete(outcomes, excluded=targets.excluded, released=let_go.released, alarms=alarms)


def _identified(job: BackupJob, vm: Vm) -> VmDisks:
    try:
        return job.identify_disks(vm)
    except VsaError as problem:
        return VmDisks(vm=vm, error=str(problem))


def run_vm(job: BackupJob, disks: VmDisks, proxies: dict[str, str], alarms: list[str]) -> VmOutcome:
    run: Run = job.new_run(disks)
    backups: list[DiskBackup] = []
    failed: list[Exclusion] = []
    point: int | None = None
    error = ""
    try:
        snapshots = job.create_snapshots(run)
        for disk, snapshot in zip(run.disks, snapshots, strict=True):
            try:
                staging = job.stage(run, disk, snapshot)
                backups.append(job.stream(job.order(run, disk, snapshot, staging, proxies[disk.key])))
            except VsaError as problem:
                failed.append(Exclusion(name=disk.name, reason=str(problem)))
        point = job.commit(run, backups, failed)
        error = "; ".join(f"{item.name}: {item.reason}" for item in failed)
    except VsaError as problem:
        error = str(problem)
    finally:
        alarms += job.release(run)
    return vm_outcome(run.vm, run=run.id, point=point, error=error, backups=backups)


def run_of(job: BackupJob) -> Run:
    """A run of the first VM that the job finds, of which only the job knows yet."""
    return job.new_run(job.identify_disks(job.discover().selected[0]))
