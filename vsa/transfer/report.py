"""What a job reports of each VM and of itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from vsa.media.entries import DiskOutcome, Result, VmOutcome
from vsa.model import DiskBackup, SourceDisk, Vm


def job_result(outcomes: Sequence[VmOutcome], alarms: Sequence[str]) -> Result:
    """Completed only if every VM has its point and nothing needs attention; failed if none has one."""
    points = [outcome for outcome in outcomes if outcome.point is not None]
    if not points:
        return Result.FAILED
    if alarms or any(outcome.result is not Result.COMPLETED for outcome in outcomes):
        return Result.COMPLETED_WITH_ERRORS
    return Result.COMPLETED


def vm_outcome(
    vm: Vm,
    *,
    run: str | None = None,
    point: int | None = None,
    error: str = "",
    backups: Sequence[DiskBackup] = (),
    missing: Sequence[SourceDisk] = (),
) -> VmOutcome:
    """What became of one VM, disk by disk."""
    done = tuple(
        DiskOutcome(
            name=backup.disk.name,
            key=backup.disk.key,
            method=backup.method,
            reason=backup.reason,
            detail=backup.detail,
            figures=backup.figures,
        )
        for backup in backups
    )
    lost = tuple(DiskOutcome(name=disk.name, key=disk.key) for disk in missing)
    return VmOutcome(
        key=vm.key,
        name=vm.name,
        result=(Result.COMPLETED_WITH_ERRORS if error else Result.COMPLETED)
        if point is not None
        else Result.FAILED,
        run=run,
        point=point,
        error=error,
        disks=(*done, *lost),
    )
