"""One disk's jobs and its restore, each with what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.deduplication import NOW
from bench.growth.azure import SimulatedAzure, VirtualTime
from bench.growth.measure import Row, cpu_of
from vsa.media.media import Media
from vsa.model import DiskBackup, Method
from vsa.restore.disk import Format, restore_disk
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.proxies import Proxy

VM = "vm"
BETWEEN_JOBS = 601
"""Seconds of virtual time; Azure takes seven snapshots of a disk in five minutes."""
FIGURES = ("allocated", "changed", "read", "new", "stored")


class DiskJobs:
    """Backs up the one VM of a simulated Azure, stage by stage, with one disk."""

    def __init__(self, azure: SimulatedAzure, folder: Path, **settings: Any) -> None:
        self._azure = azure
        self._folder = folder
        self._settings = settings
        self._time = VirtualTime(azure.control)
        self._connection = azure.connection(self._time)
        self._media = Media.create(str(folder / "media"), now=NOW)
        self._jobs = 0
        self.newest: DiskBackup | None = None
        self.row: Row = {}

    def back_up(self, name: str, **options: Any) -> DiskBackup:
        """A job from discovery to the release of the run; `options` are the job's."""
        self._azure.control.advance_clock(BETWEEN_JOBS)
        server = cpu_of(self._azure.process)
        backup: DiskBackup = self._timed(name, lambda: self._job(**options))
        self.row[f"{name} azsim CPU s"] = round(cpu_of(self._azure.process) - server, 2)
        for figure in FIGURES:
            self.row[f"{name} {figure} MiB"] = round(getattr(backup.figures, figure) / 2**20, 2)
        self.newest = backup
        return backup

    def _job(self, method: Method | None = None, full: bool = False) -> DiskBackup:
        self._jobs += 1
        scratch = self._folder / f"scratch-{self._jobs}"
        scratch.mkdir()
        job = BackupJob(
            f"job-{self._jobs}",
            subclient=Subclient(name="bench", vms=(VM,), **self._settings),
            connection=self._connection,
            media=self._media,
            proxies=[Proxy(name="p")],
            scratch=scratch,
            method=method,
            full=full,
        )
        discovery = job.discover()
        disks = job.identify_disks(*job.identify_targets(discovery).vms)
        run = job.new_run(disks)
        (snapshot,) = job.create_snapshots(run)
        backup = job.stream(job.order(run, run.disks[0], snapshot, None, "p"))
        job.commit(run, [backup])
        pending = job.release(run)
        assert not pending, pending
        return backup

    def restore(self, name: str, *, checksum: bool = True) -> None:
        """The newest backup as a raw image, which is then deleted. The simulated Azure may have gone."""
        assert self.newest is not None
        backup, target = self.newest, self._folder / "restored.img"
        self._timed(
            name, lambda: restore_disk(self._media, backup, target, format=Format.RAW, checksum=checksum)
        )
        self.row[f"{name} MiB on the disk"] = round(target.stat().st_blocks * 512 / 2**20, 2)
        target.unlink()

    def _timed(self, name: str, act: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = act()
        self.row[f"{name} s"] = round(time.perf_counter() - wall, 2)
        self.row[f"{name} CPU s"] = round(time.process_time() - cpu, 2)
        return found
