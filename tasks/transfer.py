"""Stage 6: have each disk's data downloaded through a proxy and written to the media."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from tasks.edge import task
from tasks.policy import REPEATED
from tasks.progress import stream_progress
from vsa.model import DiskBackup, SnapshotRef, SourceDisk
from vsa.transfer.backup_job import BackupJob, Carry
from vsa.transfer.order import StreamOrder
from vsa.transfer.runs import Run


@task(name="transfer disk", task_run_name="transfer {disk.name} of {run.vm.name} via {proxy}", **REPEATED)
def transfer_disk(
    job: BackupJob,
    run: Run,
    disk: SourceDisk,
    *,
    snapshot: SnapshotRef,
    proxy: str,
    carry: Carry,
    staging: str | Exception | None = None,
) -> DiskBackup:
    """One stream, by its proxy or the next that can.

    `staging` is the disk's staging blob, or the error that its copy ended with. `carry` has the order carried
    out: through the proxies' work pools, or in this process.
    """
    if isinstance(staging, Exception):
        raise staging
    return carry(job.order(run, disk, snapshot, staging, proxy))


class Streams(Protocol):
    """How a job's streams are carried out."""

    @property
    def children(self) -> Mapping[str, UUID]:
        """The last child run of each disk that had one, by the disk's key."""

    def carry(self, order: StreamOrder) -> DiskBackup:
        """The disk's backup. For any number of threads, each of them in its task."""

    def keep_apart(self, run: str) -> None:
        """Others wait for the streams of this run: they share a process with none that may hold them up."""

    def end(self) -> None:
        """Nothing of the job's streams goes on after this."""


@dataclass(frozen=True)
class InProcess:
    """Streams in the job's own process, for a machine without proxies of its own."""

    job: BackupJob
    children: Mapping[str, UUID] = field(default_factory=dict)

    def carry(self, order: StreamOrder) -> DiskBackup:
        """Carry it out in this thread; its task reports how far it is."""
        with stream_progress(order.disk) as progress:
            return self.job.stream(order, progress)

    def keep_apart(self, run: str) -> None:
        """Here each has a thread of its own."""

    def end(self) -> None:
        """They have ended: each was in a thread that came back."""
