"""One VM's run through the stages of a job: submitted as far as they can be, released whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from prefect import allow_failure, unmapped
from prefect.futures import PrefectFuture, wait

from tasks.cleanup import release_run
from tasks.commit import commit_point
from tasks.snapshots import create_snapshots
from tasks.staging import copy_to_staging
from tasks.transfer import transfer_disk
from vsa.media.entries import VmOutcome
from vsa.model import DiskBackup, DiskKind, SnapshotRef
from vsa.transfer.backup_job import BackupJob, Carry
from vsa.transfer.clones import Clones
from vsa.transfer.report import vm_outcome
from vsa.transfer.runs import Run

_log = logging.getLogger(__name__)


class VmRun:
    """One VM's run through the tasks."""

    def __init__(self, job: BackupJob, run: Run, proxies: dict[str, str], carry: Carry) -> None:
        self._job = job
        self.run = run
        self._proxies = proxies
        self._carry = carry
        self._is_begun = False
        self._goes_on = False
        self._waits_for: VmRun | None = None
        self.snapshots: PrefectFuture[tuple[SnapshotRef, ...]] | None = None
        self._transfers: Sequence[PrefectFuture[DiskBackup]] = ()
        self._committed: PrefectFuture[int] | None = None
        self._is_decided = threading.Event()
        self.released: PrefectFuture[tuple[str, ...]] | None = None

    def begin(self) -> PrefectFuture[tuple[SnapshotRef, ...]]:
        """Submit the VM's snapshots."""
        # Said first: a job that is cut short in the next line must release what the task may still make.
        self._is_begun = True
        self.snapshots = create_snapshots.submit(self._job, self.run)
        return self.snapshots

    def after(self, clones: Clones[VmRun]) -> PrefectFuture[int] | None:
        """Another VM's commit, which this one waits for with its snapshots made; None: it goes on now."""
        assert self.snapshots is not None
        if not self.snapshots.state.is_completed():
            return None
        self._waits_for = first = clones.waits_for(self.run.disks, self)
        if first is None:
            return None
        _log.info(
            "%s waits for the point of %s: both have disks made from one image",
            self.run.vm.name,
            first.run.vm.name,
        )
        return first._committed

    @property
    def has_point(self) -> bool | None:
        """Whether its point is committed; None as long as that is not decided."""
        if self._committed is None or not self._is_decided.is_set():
            return None
        self._committed.wait()
        return self._committed.state.is_completed()

    def transfer_and_commit(self) -> None:
        """Submit the VM's streams, its commit when they are done, and its release after that.

        Its snapshots must have been waited for, as `some_at_a_time` does.
        """
        assert self.snapshots is not None
        # Said first: a job that is cut short below may have begun streams that are not in `_transfers` yet.
        self._goes_on = True
        self._waits_for = None
        if not self.snapshots.state.is_completed():
            self.released = release_run.submit(self._job, self.run)
            return
        job, run = self._job, self.run
        snapshots = self.snapshots.result()
        staged = [
            allow_failure(copy_to_staging.submit(job, run, disk, snapshot))
            if disk.kind is DiskKind.UNMANAGED_PREMIUM
            else None
            for disk, snapshot in zip(run.disks, snapshots, strict=True)
        ]
        self._transfers = transfer_disk.map(
            unmapped(job),
            unmapped(run),
            list(run.disks),
            snapshot=list(snapshots),
            proxy=[self._proxies[disk.key] for disk in run.disks],
            carry=unmapped(self._carry),
            staging=staged,
        )
        outcomes: Any = [allow_failure(future) for future in self._transfers]
        self._committed = commit_point.submit(job, run, outcomes, self._carry)
        self._committed.add_done_callback(lambda _: self._is_decided.set())
        committed: Any = allow_failure(self._committed)
        self.released = release_run.submit(job, run, wait_for=[committed], return_state=False)

    def wait(self) -> None:
        """Return once nothing of the run is under way but its release."""
        begun: list[PrefectFuture[Any] | None] = [self.snapshots, *self._transfers, self._committed]
        wait([future for future in begun if future is not None])

    @property
    def is_unread(self) -> bool:
        """Whether all that was submitted of it are its snapshots: nobody can be reading them."""
        return self.snapshots is not None and not self._goes_on

    def release(self) -> None:
        """Submit the run's release, for when its snapshots are made, if the flow was cut short before it did.

        Nothing may read them any more.
        """
        if not self._is_begun or self.released is not None:
            return
        made: Any = [allow_failure(self.snapshots)] if self.snapshots is not None else []
        try:
            self.released = release_run.submit(self._job, self.run, wait_for=made, return_state=False)
        except Exception as error:  # noqa: BLE001
            # Prefect takes no tasks any more, or no thread can be started: `end` needs neither. Whatever it
            # is, all the others are to have their turn.
            _log.warning("the release of %s waits for others' releases: %s", self.run.vm.name, error)

    def end(self) -> tuple[str, ...]:
        """Make sure that the run is released, also when the flow was cut short; returns what is pending.

        Runs that have all been told to `release` before are released together.
        """
        if not self._is_begun:
            return ()
        if self.released is not None:
            self.released.wait()
            if self.released.state.is_completed():
                return self.released.result()
        state = release_run(self._job, self.run, return_state=True)
        if state.is_completed():
            return state.result()
        return (f"cleanup pending for VM {self.run.vm.name}: {state.message}",)

    @property
    def backups(self) -> list[DiskBackup]:
        return [f.result() for f in self._transfers if f.state.is_completed()]

    def outcome(self) -> VmOutcome:
        done = self.backups
        keys = {backup.disk.key for backup in done}
        committed = self._committed is not None and self._committed.state.is_completed()
        return vm_outcome(
            self.run.vm,
            run=self.run.id,
            point=self._committed.result() if committed and self._committed else None,
            error=self._error(),
            backups=done,
            missing=[disk for disk in self.run.disks if disk.key not in keys],
        )

    def _error(self) -> str:
        if not self._is_begun:
            return "the job ended before its turn came"
        for future in (self._committed, self.snapshots):
            if future is not None and not future.state.is_completed():
                return reason_of(future)
        failed = [reason_of(f) for f in self._transfers if not f.state.is_completed()]
        if failed or self._committed is not None:
            return "; ".join(failed)
        if self._waits_for is not None:
            return f"the job ended while it waited for the point of {self._waits_for.run.vm.name}"
        return "the job ended before its point was made"


def reason_of(future: PrefectFuture[Any]) -> str:
    """Why a task did not complete, in the words of its error."""
    if not future.state.is_final():
        return f"it did not finish: {future.state.name}"
    error = future.state.result(raise_on_failure=False)
    return str(error) if isinstance(error, Exception) else str(future.state.message)
